/** Initial access tokens: what an application registers itself with, where not everybody may (RFC 7591, section 3). */
import { and, count, eq, gt, sql } from 'drizzle-orm';
import { z } from 'zod';
import { lockName } from '../../db/lock.ts';
import type { Rows } from '../../db/store.ts';
import { PREFIXES, parseValue } from '../crypto/format.ts';
import { newValue, rowMac } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { change } from './events.ts';
import { initialAccessTokenId, name } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';

export interface InitialAccessToken {
  id: string;
  name: string;
  /** How many applications may still be registered with it. */
  usesLeft: number;
  createdAt: number;
  expiresAt: number;
}

type TokenRow = Rows['tables']['initialAccessTokens']['$inferSelect'];

const TOKENS_MAX = 1_000;
const USES_MAX = 1_000;
const TTL_SECONDS = 86_400;
const TTL_SECONDS_MAX = 365 * 86_400;

export const createInitialAccessTokenInput = z.strictObject({
  name: name.meta({ positional: true }),
  /** How many applications may be registered with it. */
  uses: z.number().int().min(1).max(USES_MAX).default(1),
  ttlSeconds: z.number().int().min(60).max(TTL_SECONDS_MAX).default(TTL_SECONDS),
  ...idempotencyInput,
});

/** Makes a token; its value is answered this once. Throws `limit_reached`. */
export async function createInitialAccessToken(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createInitialAccessTokenInput>,
): Promise<InitialAccessToken & { token?: string }> {
  const now = deps.now();
  const { value } = newValue(PREFIXES.initialAccessToken);
  const judged = {
    id: sortableId('iat_', now),
    hash: deps.keyring.hash(value),
    expires_at: now + input.ttlSeconds * 1000,
  };
  const row = {
    ...judged,
    name: input.name,
    uses_left: input.uses,
    created_at: now,
    mac: macOf(deps, judged),
  };
  return create(deps, caller, { procedure: 'initialAccessTokens.create', input }, async (tx) => {
    await assertRoom(deps, tx);
    await tx.db.insert(tx.tables.initialAccessTokens).values(row);
    return {
      result: { ...toInitialAccessToken(row), token: value },
      event: {
        type: 'initial_access_token.created',
        objectId: row.id,
        data: { name: row.name, uses: row.uses_left, expiresAt: row.expires_at },
      },
    };
  });
}

async function assertRoom(deps: Deps, tx: Rows) {
  await lockName(deps.store, tx, 'initial_access_tokens');
  const [row] = await tx.db.select({ count: count() }).from(tx.tables.initialAccessTokens);
  if ((row?.count ?? 0) < TOKENS_MAX) return;
  throw new CountersignError('limit_reached', `Cannot create token: there may be ${TOKENS_MAX}`);
}

export const listInitialAccessTokensInput = z.strictObject(pageInput);

/** Those that have not expired, used up or not, the first to expire first. */
export async function listInitialAccessTokens(
  { store: { read }, now }: Deps,
  { cursor, limit, offset }: z.output<typeof listInitialAccessTokensInput>,
): Promise<Page<InitialAccessToken>> {
  const { initialAccessTokens: t } = read.tables;
  const rows = await read.db
    .select()
    .from(t)
    .where(and(gt(t.expires_at, now()), afterCursor(cursor, t.expires_at, t.id, false)))
    .orderBy(...orderOf(t.expires_at, t.id, false))
    .limit(limit + 1)
    .offset(offset);
  return toPage(rows, limit, (row) => [row.expires_at, row.id], toInitialAccessToken);
}

export const initialAccessTokenIdInput = z.strictObject({
  id: initialAccessTokenId.meta({ positional: true }),
});

/** Nobody registers with it any more; applications that did go on. */
export async function revokeInitialAccessToken(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof initialAccessTokenIdInput>,
): Promise<{ id: string; deleted: true }> {
  return change(deps, caller, async (tx) => {
    const { initialAccessTokens: t } = tx.tables;
    const [row] = await tx.db.delete(t).where(eq(t.id, id)).returning();
    if (!row) throw new CountersignError('not_found', `No initial access token has the id '${id}'`);
    return {
      result: { id, deleted: true as const },
      event: { type: 'initial_access_token.revoked', objectId: id, data: { name: row.name } },
    };
  });
}

/** Whether a value is one that may still be used, as far as it can be told without using it. */
export async function isInitialAccessToken(deps: Deps, value: string): Promise<boolean> {
  if (parseValue(value)?.prefix !== PREFIXES.initialAccessToken) return false;
  const { db, tables } = deps.store.read;
  const { initialAccessTokens: t } = tables;
  const [row] = await db
    .select()
    .from(t)
    .where(eq(t.hash, deps.keyring.hash(value)));
  return row !== undefined && row.uses_left > 0 && isLive(deps, row);
}

/** Takes one use within a transaction, and answers the token's id; null where it has none left, or is none. */
export async function useInitialAccessToken(tx: Rows, deps: Deps, value: string): Promise<string | null> {
  const { initialAccessTokens: t } = tx.tables;
  const [row] = await tx.db
    .update(t)
    .set({ uses_left: sql`${t.uses_left} - 1` })
    .where(and(eq(t.hash, deps.keyring.hash(value)), gt(t.uses_left, 0)))
    .returning();
  return row && isLive(deps, row) ? row.id : null;
}

const isLive = (deps: Deps, row: TokenRow) => row.expires_at > deps.now() && row.mac.equals(macOf(deps, row));

const macOf = ({ keyring }: Pick<Deps, 'keyring'>, row: Pick<TokenRow, 'id' | 'hash' | 'expires_at'>) =>
  rowMac(keyring.rowMac, ['initial_access_tokens', row.id, row.hash.toString('hex'), row.expires_at]);

const toInitialAccessToken = (row: Omit<TokenRow, 'mac'>): InitialAccessToken => ({
  id: row.id,
  name: row.name,
  usesLeft: row.uses_left,
  createdAt: row.created_at,
  expiresAt: row.expires_at,
});
