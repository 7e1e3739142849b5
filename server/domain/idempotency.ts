/** Idempotency: a creation that is called again with its key makes nothing new, and is answered as it was before. */
import { and, asc, eq, lte, placeholder, sql } from 'drizzle-orm';
import { z } from 'zod';
import { statement } from '../../db/statement.ts';
import type { DurableLane, Rows } from '../../db/store.ts';
import { rowMac } from '../crypto/hashing.ts';
import type { Caller, Deps, Principal } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { canonicalJson } from './canonical-json.ts';
import { change, type NewEvent } from './events.ts';

/** What every creation takes: the caller's name for this one call, so that it may safely be sent again. */
export const idempotencyInput = {
  idempotencyKey: z
    .string()
    .regex(/^[\x21-\x7e]{1,255}$/, 'wanted 1 to 255 characters of printable ASCII without spaces')
    .optional(),
};

/** One call of a creating procedure. */
export interface Creation {
  /** Its path, as in the table of access. */
  procedure: `${string}.${string}`;
  input: { idempotencyKey?: string | undefined };
}

/** What is answered once and kept nowhere. */
type Secrets = 'secret' | 'token' | 'link';

/** An answer that may be one of before: then without its secrets. */
type Replayable<T> = Omit<T, Secrets> & Partial<Pick<T, Extract<keyof T, Secrets>>>;

const LIFETIME_MS = 24 * 3_600_000;

/**
 * `change()` for a creation. With the key of a call of the last 24 hours it answers what that one was answered, without
 * secrets and without an event; of several at the same time one creates, and the others wait for it. Throws
 * `idempotency_conflict` where the input is another. What fails leaves the key free.
 */
export async function create<T extends object>(
  deps: Deps,
  caller: Caller,
  creation: Creation,
  work: (tx: Rows) => Promise<{ result: T; event: NewEvent | null }>,
  lane: DurableLane = 'normal',
): Promise<Replayable<T>> {
  return change<Replayable<T>>(
    deps,
    caller,
    async (tx) => {
      const replayed = await replay<T>(tx, deps, caller.principal, creation);
      if (replayed) return { result: replayed as Replayable<T>, event: null };
      const made = await work(tx);
      await keepAnswer(tx, caller.principal, creation, made.result);
      return made;
    },
    lane,
  );
}

/**
 * The answer of before, or null: then the key is this transaction's, which must call `keepAnswer` or fail. To be asked
 * before anything is written: on PostgreSQL whoever comes second waits here for the first.
 */
export async function replay<T>(
  tx: Rows,
  deps: Pick<Deps, 'keyring' | 'now'>,
  principal: Principal,
  creation: Creation,
): Promise<Omit<T, Secrets> | null> {
  const place = placeOf(principal, creation);
  if (!place) return null;
  const now = deps.now();
  const inputHash = hashOf(deps, place, creation.input);
  const claimed = await claimKey(tx, { ...place, inputHash, answer: {}, now, expiresAt: now + LIFETIME_MS });
  if (claimed.length > 0) return null;
  const [before] = await readAnswer(tx, place);
  if (before?.inputHash.equals(inputHash)) return before.answer as Omit<T, Secrets>;
  throw conflict();
}

const conflict = () =>
  new CountersignError(
    'idempotency_conflict',
    "Cannot create: 'idempotencyKey' must be new or come with the same input, got one that came with another within 24 hours",
    { field: 'idempotencyKey' },
  );

/**
 * The answer of before, or null, asked outside any transaction: for those who would otherwise pay for a call that makes
 * nothing new. Throws `idempotency_conflict`.
 */
export async function answeredBefore<T>(
  deps: Pick<Deps, 'keyring' | 'now' | 'store'>,
  principal: Principal,
  creation: Creation,
): Promise<Omit<T, Secrets> | null> {
  const place = placeOf(principal, creation);
  if (!place) return null;
  const [before] = await readAnswer(deps.store.read, place);
  if (!before || before.expiresAt <= deps.now()) return null;
  if (before.inputHash.equals(hashOf(deps, place, creation.input))) return before.answer as Omit<T, Secrets>;
  throw conflict();
}

/** Keeps what a creation answers, without its secrets, for those who call it again. */
export async function keepAnswer(
  tx: Rows,
  principal: Principal,
  creation: Creation,
  result: object,
): Promise<void> {
  const place = placeOf(principal, creation);
  if (!place) return;
  const { secret: _, token: __, link: ___, ...answer } = result as Record<string, unknown>;
  await saveAnswer(tx, { ...place, answer: JSON.stringify(answer) });
}

/** Whose key it is: that of one principal for one procedure. */
interface Place extends Record<string, unknown> {
  principalId: string;
  procedure: string;
  key: string;
}

function placeOf({ id }: Principal, { procedure, input }: Creation): Place | null {
  const { idempotencyKey: key } = input;
  return key === undefined ? null : { principalId: id, procedure, key };
}

/** Keyed: inputs can be guessed, and who reads the database must not be able to check a guess. */
function hashOf(
  { keyring }: Pick<Deps, 'keyring'>,
  { principalId, procedure, key }: Place,
  { idempotencyKey: _, ...input }: Creation['input'],
): Buffer {
  return rowMac(keyring.rowMac, ['idempotency_keys', principalId, procedure, key, canonicalJson(input)]);
}

/** Takes a key that nobody has, or whose time has passed. */
const claimKey = statement((db, { idempotencyKeys: k }) =>
  db
    .insert(k)
    .values({
      principal_id: placeholder('principalId'),
      procedure: placeholder('procedure'),
      key: placeholder('key'),
      input_hash: placeholder('inputHash'),
      answer: placeholder('answer'),
      created_at: placeholder('now'),
      expires_at: placeholder('expiresAt'),
    })
    .onConflictDoUpdate({
      target: [k.principal_id, k.procedure, k.key],
      set: {
        input_hash: sql`excluded.input_hash`,
        answer: sql`excluded.answer`,
        created_at: sql`excluded.created_at`,
        expires_at: sql`excluded.expires_at`,
      },
      setWhere: sql`${k.expires_at} <= excluded.created_at`,
    })
    .returning({ key: k.key })
    .prepare('idempotency_key_claim'),
);

const isPlace = (k: Rows['tables']['idempotencyKeys']) =>
  and(
    eq(k.principal_id, placeholder('principalId')),
    eq(k.procedure, placeholder('procedure')),
    eq(k.key, placeholder('key')),
  );

const readAnswer = statement((db, { idempotencyKeys: k }) =>
  db
    .select({ inputHash: k.input_hash, answer: k.answer, expiresAt: k.expires_at })
    .from(k)
    .where(isPlace(k))
    .prepare('idempotency_key_read'),
);

const saveAnswer = statement((db, { idempotencyKeys: k }) =>
  db
    .update(k)
    .set({ answer: sql`${placeholder('answer')}` })
    .where(isPlace(k))
    .prepare('idempotency_key_save'),
);

/** Deletes up to `limit` keys whose time has passed, those of longest ago first; answers how many. */
export async function deleteExpiredIdempotencyKeys(
  { store, now }: Pick<Deps, 'store' | 'now'>,
  limit: number,
): Promise<number> {
  const { idempotencyKeys: k } = store.read.tables;
  const hasExpired = lte(k.expires_at, now());
  const [any] = await store.read.db.select({ key: k.key }).from(k).where(hasExpired).limit(1);
  if (!any) return 0;
  const deleted = await store.tx((tx) => {
    const oldest = tx.db
      .select({ principal_id: k.principal_id, procedure: k.procedure, key: k.key })
      .from(k)
      .where(hasExpired)
      .orderBy(asc(k.expires_at))
      .limit(limit);
    // Once more outside the list: one that was taken again in the meantime is somebody's.
    return tx.db
      .delete(k)
      .where(and(sql`(${k.principal_id}, ${k.procedure}, ${k.key}) in ${oldest}`, hasExpired))
      .returning({ key: k.key });
  }, 'sweeping');
  return deleted.length;
}
