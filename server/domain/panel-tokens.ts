/** Panel tokens: an end user's access to their own API keys, minted by an application that knows who they are. */
import { eq, placeholder } from 'drizzle-orm';
import { z } from 'zod';
import { statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { PREFIXES, parseValue } from '../crypto/format.ts';
import { newValue, rowMac } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps, EndUser } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { Limit } from '../limits.ts';
import { deleteExpired } from './expired-rows.ts';
import { keyPolicyId, scopes, subject } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { policyForNewKey } from './key-policies.ts';
import { takeOne } from './rate-limits.ts';
import { hasExpired, secretKeyMac } from './secrets.ts';

/** What an end user may do with the API keys of their subject, and with what they themselves allowed applications. */
export const PANEL_ACTIONS = [
  'read',
  'create',
  'update',
  'rotate',
  'revoke',
  'read_grants',
  'revoke_grants',
] as const;
export type PanelAction = (typeof PANEL_ACTIONS)[number];

export interface PanelToken {
  id: string;
  subject: string;
  createdBy: string | null;
  actions: PanelAction[];
  scopeCeiling: string[] | null;
  policyId: string | null;
  createdAt: number;
  expiresAt: number;
}

type PanelTokenRow = Rows['tables']['panelTokens']['$inferSelect'];

const TTL_SECONDS_MIN = 60;
const TTL_SECONDS_MAX = 3_600;
const TTL_SECONDS = 600;

/** Minted with one secret key. */
const MINTED: Limit = { count: 1_200, windowSeconds: 60 };

/** Roles whose keys mint: a token is not worth more than the key that made it. */
const MINTERS: ReadonlySet<string> = new Set(['admin', 'issuer', 'interaction']);

/** Machines and applications manage no keys in a page, and no value of a credential is anybody's name. */
const NO_END_USER = /^(mch_|oauthapp_|sk_|msk_|ak_|mt_|oat_|ort_|pnl_)/;

export const isEndUserSubject = (text: string) => !NO_END_USER.test(text);

const endUserSubject = subject.refine(
  isEndUserSubject,
  'wanted a user, an organization or the like, found the prefix of a machine, an application or a credential',
);

/** null for every scope that the policy allows. */
export const scopeCeiling = scopes.nullable().default([]);

export const createPanelTokenInput = z.strictObject({
  /** Whose API keys: a user, or the organization that they act for. */
  subject: endUserSubject.meta({ positional: true }),
  /** Who sits in front of the page, where that is not the subject itself; keys made are made by them. */
  createdBy: endUserSubject.nullish(),
  actions: z
    .array(z.enum(PANEL_ACTIONS))
    .min(1)
    .max(PANEL_ACTIONS.length)
    .refine((list) => new Set(list).size === list.length, 'wanted each action once'),
  scopeCeiling,
  /** What keys are created under; without it the default policy, if there is one. */
  policyId: keyPolicyId.optional(),
  ttlSeconds: z.number().int().min(TTL_SECONDS_MIN).max(TTL_SECONDS_MAX).default(TTL_SECONDS),
  ...idempotencyInput,
});

/**
 * Mints a panel token; its value is answered this once. It ends with the secret key that it is minted with. Throws
 * `not_found` for the policy, `rate_limited`.
 */
export async function createPanelToken(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createPanelTokenInput>,
): Promise<PanelToken & { token?: string }> {
  const { principal } = caller;
  if (principal.kind !== 'secret_key')
    throw new CountersignError('forbidden', 'Cannot create panel token: wanted a secret key');
  await assertMayMint(deps, principal.id);
  const now = deps.now();
  const { value } = newValue(PREFIXES.panelToken);
  const judged = {
    id: sortableId('pnl_', now),
    hash: deps.keyring.hash(value),
    secret_key_id: principal.id,
    subject: input.subject,
    created_by: input.createdBy ?? null,
    actions: input.actions,
    scope_ceiling: input.scopeCeiling,
    policy_id: input.policyId ?? null,
    expires_at: now + input.ttlSeconds * 1000,
  };
  return create(
    deps,
    caller,
    { procedure: 'panelTokens.create', input },
    async (tx) => {
      if (input.policyId !== undefined) await policyForNewKey(deps, tx, input.policyId);
      const row = { ...judged, created_at: now, mac: macOf(deps, judged) };
      await tx.db.insert(tx.tables.panelTokens).values(row);
      return { result: { ...toPanelToken(row), token: value }, event: null };
    },
    'minting',
  );
}

async function assertMayMint(deps: Deps, secretKeyId: string) {
  await takeOne(
    deps,
    `panel_tokens:${secretKeyId}`,
    MINTED,
    `Cannot create panel token: wanted at most ${MINTED.count} in a minute with one secret key`,
  );
}

/** Deletes some that have expired; answers how many. */
export const deleteExpiredPanelTokens = (deps: Pick<Deps, 'store' | 'now'>, limit: number): Promise<number> =>
  deleteExpired(deps, deps.store.read.tables.panelTokens, limit);

export const isPanelToken = (value: string) => parseValue(value)?.prefix === PREFIXES.panelToken;

/** The end user whom a panel token lets in; null where it is none, has expired, or its secret key is no longer live. */
export async function findPanelToken(deps: Deps, value: string): Promise<EndUser | null> {
  const [found] = await readPanelToken(deps.store.read, { hash: deps.keyring.hash(value) });
  if (!found) return null;
  const { token, key } = found;
  const now = deps.now();
  if (token.expires_at <= now || !token.mac.equals(macOf(deps, token))) return null;
  if (!key.mac.equals(secretKeyMac(deps, key)) || !MINTERS.has(key.role)) return null;
  if (key.revoked_at !== null || hasExpired(key.expires_at, now)) return null;
  const { subject: whose, createdBy, actions, scopeCeiling: ceiling, policyId } = toPanelToken(token);
  return {
    kind: 'end_user',
    id: createdBy ?? whose,
    subject: whose,
    actions,
    scopeCeiling: ceiling,
    policyId,
  };
}

const readPanelToken = statement((db, { panelTokens: t, secretKeys: k }) =>
  db
    .select({ token: t, key: k })
    .from(t)
    .innerJoin(k, eq(k.id, t.secret_key_id))
    .where(eq(t.hash, placeholder('hash')))
    .prepare('panel_token'),
);

/** Ends all that were minted with a key that others may have. */
export async function endPanelTokensOf(tx: Rows, secretKeyId: string): Promise<void> {
  const { panelTokens } = tx.tables;
  await tx.db.delete(panelTokens).where(eq(panelTokens.secret_key_id, secretKeyId));
}

const macOf = (deps: Pick<Deps, 'keyring'>, row: Omit<PanelTokenRow, 'created_at' | 'mac'>) =>
  rowMac(deps.keyring.rowMac, [
    'panel_tokens',
    row.id,
    row.hash.toString('hex'),
    row.secret_key_id,
    row.subject,
    row.created_by,
    JSON.stringify(row.actions),
    JSON.stringify(row.scope_ceiling),
    row.policy_id,
    row.expires_at,
  ]);

const toPanelToken = (row: PanelTokenRow): PanelToken => ({
  id: row.id,
  subject: row.subject,
  createdBy: row.created_by,
  actions: row.actions as PanelAction[],
  scopeCeiling: row.scope_ceiling,
  policyId: row.policy_id,
  createdAt: row.created_at,
  expiresAt: row.expires_at,
});
