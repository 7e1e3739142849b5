import type { Reader, Store } from '../db/store.ts';
import type { SignInSettings } from './config.ts';
import type { Keyring } from './crypto/keyring.ts';
import type { ClientDocuments } from './domain/client-metadata-documents.ts';
import type { ForeignKeys } from './domain/foreign-keys.ts';
import type { KeyShapes } from './domain/key-shapes.ts';
import type { M2mTokenCounter } from './domain/m2m-token-counts.ts';
import type { MintedPool } from './domain/m2m-token-pool.ts';
import type { PanelAction } from './domain/panel-tokens.ts';
import type { RecentVerifications } from './domain/recent-verifications.ts';
import type { Signer } from './domain/signing-keys.ts';
import type { StatusIndexes } from './domain/status-indexes.ts';
import type { StatusLists } from './domain/status-lists.ts';
import type { UsageCounter } from './domain/usage.ts';
import type { Limits } from './limits.ts';
import type { Outbound } from './outbound.ts';

/** What a domain function may touch. Made once by a main, or by a test with a clock of its own. */
export interface Deps {
  readonly store: Store;
  readonly keyring: Keyring;
  readonly signer: Signer;
  /** Milliseconds since 1970-01-01 UTC; never goes back. */
  readonly now: () => number;
  /** What the clock of this host shows, in milliseconds likewise. It may jump: it is for whoever judges us by a clock of theirs. */
  readonly wallClock: () => number;
  /** Whether the time of day jumped, so that `now` may be wrong: then nothing is purged, and no secret expires by its policy. */
  readonly isTimeDoubtful: () => boolean;
  /** `iss` of the JWTs we sign, and the base of every URL we emit. */
  readonly publicUrl: string;
  /** How long a signing key signs before it is rotated. */
  readonly keyRotationMs: number;
  /** Which OAuth applications are let in, where no setting says otherwise. */
  readonly oauthClients: 'preregistered' | 'mcp';
  /** How many tokens an OAuth application may get for itself in a minute. */
  readonly oauthTokensPerMinute: number;
  readonly signIn: SignInSettings;
  readonly usage: UsageCounter;
  readonly pool: MintedPool;
  readonly mintCounts: M2mTokenCounter;
  readonly statusIndexes: StatusIndexes;
  readonly statusLists: StatusLists;
  readonly shapes: KeyShapes;
  readonly limits: Limits;
  readonly outbound: Outbound;
  readonly foreignKeys: ForeignKeys;
  readonly clientDocuments: ClientDocuments;
  readonly recentVerifications: RecentVerifications;
  readonly observer: Observer;
  /** Says that something may be due for a job. Never waits, never throws. */
  readonly wake: (job: 'revocation-webhooks') => void;
}

/** What a domain function may touch that only reads: also of a database that nobody here may write to. */
export interface ReadingDeps {
  readonly store: Pick<Reader, 'read'>;
  readonly now: Deps['now'];
}

/** What the domain counts for operators. */
export interface Observer {
  /** One verification: `valid`, or the reason it was not. */
  verification(outcome: string): void;
}

export type Role = 'admin' | 'issuer' | 'interaction' | 'read' | 'verify';

/** Who is calling. */
export type Principal =
  /** `bySession` where it did not call itself: somebody did who is signed in by it. */
  | { kind: 'secret_key'; id: string; role: Role; bySession?: true }
  | { kind: 'machine'; id: string; secretId: string; mayVerify: boolean }
  | EndUser
  /** Who consented, or signed in, and the program that asked for it: they are named by the events they cause. */
  | { kind: 'user'; id: string }
  | { kind: 'oauth_application'; id: string }
  | { kind: 'system'; id: string };

/** Somebody in front of a panel: what an application, or its issuer, says they may do with the API keys of a subject. */
export interface EndUser {
  kind: 'end_user';
  /** Who it is: the subject itself, or a member of it. */
  id: string;
  subject: string;
  actions: readonly PanelAction[];
  /** The scopes they may give a key; null for those its policy allows. */
  scopeCeiling: readonly string[] | null;
  /** What keys are created under; null for the default policy, if there is one. */
  policyId: string | null;
}

/** A principal, and the request it makes. */
export interface Caller {
  readonly principal: Principal;
  readonly requestId: string;
}
