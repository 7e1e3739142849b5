/**
 * What the host application says of a user who was handed to it: who they are, perhaps what they consent to, or that it
 * let nobody in. It is kept until the browser that began the interaction is back with a value that is good once.
 */
import { and, eq, gt } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import { PREFIXES } from '../crypto/format.ts';
import { newValue, rowMac } from '../crypto/hashing.ts';
import type { Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { canonicalJson } from './canonical-json.ts';
import { documentHostOf } from './client-metadata-documents.ts';
import { instant, scopes, subject } from './fields.ts';
import { toOauthApplication } from './oauth-applications.ts';
import { isVerified, knownHomeOf } from './oauth-consents.ts';
import type { UserClaims } from './oauth-grants.ts';
import { type Interaction, interactionId, readInteraction } from './oauth-interactions.ts';
import { logoUrlOf } from './oauth-logos.ts';
import { resourcesAsked, scopesNamed, scopesOfAuthorization } from './oauth-requests.ts';
import { describeScopes } from './oauth-scopes.ts';
import { redirectHostOf } from './redirect-uris.ts';
import {
  assertHandedOff,
  HANDED_OFF,
  type NewlySignedIn,
  REMEMBERED_SECONDS_MAX,
  REMEMBERED_SECONDS_MIN,
} from './user-sessions.ts';
import { email, isUserSubject } from './users.ts';

type InteractionRow = Rows['tables']['oauthInteractions']['$inferSelect'];

/** Until the browser has to be back (threats.md, sign-in). */
const RESUME_MS = 5 * 60_000;

/** What a host application is told, to sign the user in and, if it likes, to ask them itself. */
export interface HandedOff {
  id: string;
  step: Interaction['step'];
  /** Who asks; null where the user only wants to see what they allowed. */
  application: {
    id: string;
    name: string;
    /** Its home page, where an administrator or its own document's host says so. */
    clientUri: string | null;
    /** Of an application that has its client id metadata document there: the host is proven, the name is its own word. */
    documentHost: string | null;
    /** Of one that is verified, where it has one. */
    logoUrl: string | null;
    /** Whether an administrator knows it, and nothing else can pretend to be it. */
    isVerified: boolean;
  } | null;
  /** Where the user is sent back to, to be shown to them. */
  redirectHost: string | null;
  /** What it asks for, in words. */
  scopes: { name: string; description: string }[];
  resources: string[];
  /** Who the application thinks it is. */
  loginHint: string | null;
  /** `login` wants the user to sign in although they are; `select_account` lets them choose. */
  prompts: string[];
  /** They must not have signed in before that. */
  signedInSince: number | null;
  createdAt: number;
  expiresAt: number;
}

export const interactionIdInput = z.strictObject({ id: interactionId.meta({ positional: true }) });

/** Throws `not_found` for one that was finished or has expired. */
export async function getInteraction(
  deps: Deps,
  { id }: z.output<typeof interactionIdInput>,
): Promise<HandedOff> {
  const row = await readOpen(deps, id);
  const { parameters } = row;
  const asked = row.application_id === null ? null : await readAsked(deps, row.application_id, parameters);
  return {
    id,
    step: row.step,
    application: asked?.application ?? null,
    redirectHost: asked?.redirectHost ?? null,
    scopes: asked?.scopes ?? [],
    resources: asked?.resources ?? [],
    loginHint: textOf(parameters, 'login_hint') ?? null,
    prompts: promptsOf(row),
    signedInSince: signedInSince(row),
    createdAt: row.created_at,
    expiresAt: row.expires_at,
  };
}

async function readOpen(deps: Deps, id: string): Promise<InteractionRow> {
  assertHandedOff(deps);
  const row = await readInteraction(deps, id);
  if (row) return row;
  throw new CountersignError('not_found', `No interaction that waits has the id '${id}'`);
}

async function readAsked(deps: Deps, applicationId: string, parameters: InteractionRow['parameters']) {
  const { read } = deps.store;
  const { oauthApplications: a } = read.tables;
  const [application] = await read.db.select().from(a).where(eq(a.id, applicationId));
  if (!application?.enabled)
    throw new CountersignError('not_found', `No enabled OAuth application has the id '${applicationId}'`);
  const resources = resourcesAsked(application, [parameters['resource'] ?? []].flat());
  const named = scopesNamed(textOf(parameters, 'scope'));
  const names = await scopesOfAuthorization(deps, application, named, resources);
  const redirectUri = textOf(parameters, 'redirect_uri') ?? application.redirect_uris[0] ?? '';
  const isKnown = isVerified(application, redirectUri);
  return {
    application: {
      id: application.id,
      name: application.name,
      clientUri: knownHomeOf(application),
      documentHost: documentHostOf(application),
      logoUrl: isKnown ? logoUrlOf(deps.publicUrl, toOauthApplication(application)) : null,
      isVerified: isKnown,
    },
    redirectHost: redirectHostOf(redirectUri),
    scopes: (await describeScopes(read, names)).map(({ name, description }) => ({ name, description })),
    resources,
  };
}

const textOf = (parameters: InteractionRow['parameters'], name: string) => [parameters[name] ?? []].flat()[0];

const promptsOf = ({ parameters }: InteractionRow): string[] =>
  (textOf(parameters, 'prompt') ?? '').split(' ').filter((prompt) => prompt !== '');

/** OpenID Connect Core 1.0, section 3.1.2.1: `prompt` and `max_age`. */
function signedInSince(row: InteractionRow): number | null {
  if (promptsOf(row).includes('login')) return row.created_at;
  const maxAge = textOf(row.parameters, 'max_age');
  return maxAge === undefined ? null : row.created_at - Number(maxAge) * 1000;
}

const ORGANIZATIONS_MAX = 100;
const text = z.string().min(1).max(255);

const userClaims = z.strictObject({
  name: text.optional(),
  given_name: text.optional(),
  family_name: text.optional(),
  preferred_username: text.optional(),
  picture: z
    .url({ protocol: /^https?$/ })
    .max(2048)
    .optional(),
  email: email.optional(),
  email_verified: z.boolean().optional(),
});

const userSubject = subject.refine(
  isUserSubject,
  'wanted a user, found the prefix of a machine, an organization, an application or a credential',
);

export const completeInteractionInput = z.strictObject({
  id: interactionId.meta({ positional: true }),
  /** What tokens are to call the user: the host application's own name for them, which never becomes another's. */
  subject: userSubject.meta({ positional: true }),
  claims: userClaims.default({}),
  /** Those they may act for: which one it is, they say where they consent. */
  organizations: z
    .array(z.strictObject({ id: text, name: text }))
    .max(ORGANIZATIONS_MAX)
    .default([]),
  /** When they signed in; wanted where `signedInSince` says so, and just now without it. */
  authTime: instant.optional(),
  /** How long this browser's further requests are answered without asking you who it is; 0 for not at all. */
  rememberSeconds: z
    .number()
    .int()
    .min(0)
    .max(REMEMBERED_SECONDS_MAX)
    .refine(
      (seconds) => seconds === 0 || seconds >= REMEMBERED_SECONDS_MIN,
      `wanted 0, or at least ${REMEMBERED_SECONDS_MIN}`,
    )
    .default(0),
  /** What they consented to, where the host application asked them itself; without it this server does. */
  consent: z.strictObject({ scopes, organizationId: text.nullish() }).optional(),
});

/** A user who is back, and what they consented to if they were asked. */
export interface Completed {
  user: NewlySignedIn;
  consent: { scopes: string[]; organizationId: string | null } | null;
}

export const DENIALS = ['access_denied', 'login_required', 'temporarily_unavailable'] as const;

export const denyInteractionInput = z.strictObject({
  id: interactionId.meta({ positional: true }),
  error: z.enum(DENIALS).default('access_denied'),
});

export type Outcome = { completed: Completed } | { denied: (typeof DENIALS)[number] };

/** Where the host application sends the user's browser, and until when. */
export interface Resumption {
  /** Holds a value that is good once, within five minutes, in the browser that began it. */
  resumeUrl: string;
  expiresAt: number;
}

/**
 * Says who the user is. Called again before the browser is back, the last one counts, and the URL of before is none. Throws
 * `not_found`, and `invalid_input` where they had to sign in later than they did, or consented to what was not asked for.
 */
export async function completeInteraction(
  deps: Deps,
  { id, consent, authTime, ...who }: z.output<typeof completeInteractionInput>,
): Promise<Resumption> {
  const row = await readOpen(deps, id);
  assertFresh(row, authTime);
  if (consent) await assertAsked(deps, row, consent, who.organizations);
  const user: NewlySignedIn = {
    ...who,
    claims: who.claims as UserClaims,
    source: HANDED_OFF,
    ...(authTime !== undefined && { authTime }),
  };
  const given = consent && { scopes: consent.scopes, organizationId: consent.organizationId ?? null };
  return keep(deps, row, { completed: { user, consent: given ?? null } });
}

/** Says that nobody was let in; the application is told so. Throws `not_found`. */
export async function denyInteraction(
  deps: Deps,
  { id, error }: z.output<typeof denyInteractionInput>,
): Promise<Resumption> {
  return keep(deps, await readOpen(deps, id), { denied: error });
}

/** A host application that does not say when must not pass a sign-in of last week for one of now. */
function assertFresh(row: InteractionRow, authTime: number | undefined): void {
  const since = signedInSince(row);
  if (since === null || (authTime !== undefined && authTime >= since)) return;
  throw new CountersignError(
    'invalid_input',
    `Cannot complete: 'authTime' must be at least ${since}, as the application asked for, got ${authTime ?? 'none'}`,
    { field: 'authTime' },
  );
}

async function assertAsked(
  deps: Deps,
  row: InteractionRow,
  consent: { scopes: string[]; organizationId?: string | null | undefined },
  organizations: { id: string }[],
): Promise<void> {
  const { scopes: asked } = await getInteraction(deps, { id: row.id });
  const beyond = consent.scopes.find((scope) => !asked.some(({ name }) => name === scope));
  if (beyond !== undefined)
    throw new CountersignError(
      'invalid_input',
      `Cannot complete: 'consent.scopes' must be among those asked for, got '${beyond}'`,
      { field: 'consent.scopes' },
    );
  const { organizationId = null } = consent;
  if (organizationId === null || organizations.some((organization) => organization.id === organizationId))
    return;
  throw new CountersignError(
    'invalid_input',
    "Cannot complete: 'consent.organizationId' must be one of 'organizations'",
    { field: 'consent.organizationId' },
  );
}

async function keep(deps: Deps, row: InteractionRow, outcome: Outcome): Promise<Resumption> {
  const { value } = newValue(PREFIXES.resumption);
  const resume_hash = deps.keyring.hash(value);
  const resume_expires_at = Math.min(deps.now() + RESUME_MS, row.expires_at);
  const kept = { ...outcome, mac: '' };
  kept.mac = macOf(deps, { ...row, resume_hash, resume_expires_at }, outcome);
  const updated = await deps.store.tx(
    ({ db, tables: { oauthInteractions: i } }) =>
      db
        .update(i)
        .set({ outcome: kept, resume_hash, resume_expires_at })
        .where(eq(i.id, row.id))
        .returning({ id: i.id }),
    'minting',
  );
  if (updated.length === 0) throw new CountersignError('not_found', `No interaction has the id '${row.id}'`);
  return { resumeUrl: `${deps.publicUrl}/oauth/resume?value=${value}`, expiresAt: resume_expires_at };
}

/**
 * What a value stands for, which is used up with that; null where it was used, has expired, or came from another browser
 * than began the interaction: that one cannot use it up either.
 */
export async function takeOutcome(
  deps: Deps,
  value: string,
  browser: string | undefined,
): Promise<{ interactionId: string; outcome: Outcome } | null> {
  if (browser === undefined) return null;
  const isIt = {
    resume_hash: deps.keyring.hash(value),
    browser_hash: deps.keyring.hash(browser),
    now: deps.now(),
  };
  const row = await deps.store.tx(async ({ db, tables: { oauthInteractions: i } }) => {
    const where = and(
      eq(i.resume_hash, isIt.resume_hash),
      eq(i.browser_hash, isIt.browser_hash),
      gt(i.resume_expires_at, isIt.now),
      gt(i.expires_at, isIt.now),
    );
    const [found] = await db.select().from(i).where(where);
    if (!found) return null;
    const taken = await db
      .update(i)
      .set({ outcome: null, resume_hash: null, resume_expires_at: null })
      .where(where)
      .returning({ id: i.id });
    return taken.length === 0 ? null : found;
  }, 'minting');
  const outcome = row && genuineOutcome(deps, row);
  return row && outcome ? { interactionId: row.id, outcome } : null;
}

function genuineOutcome(deps: Deps, row: InteractionRow): Outcome | null {
  if (row.outcome === null) return null;
  const { mac, ...outcome } = row.outcome as unknown as Outcome & { mac: string };
  return mac === macOf(deps, row, outcome as Outcome) ? (outcome as Outcome) : null;
}

/** A writer to the database cannot say who somebody is, nor make what was said another browser's. */
const macOf = ({ keyring }: Pick<Deps, 'keyring'>, row: InteractionRow, outcome: Outcome) =>
  rowMac(keyring.rowMac, [
    'oauth_interactions',
    row.id,
    row.browser_hash.toString('hex'),
    row.application_id,
    canonicalJson(row.parameters),
    row.resume_hash?.toString('hex') ?? null,
    row.resume_expires_at,
    canonicalJson(outcome),
  ]).toString('base64url');
