/** Signing in to the console: one-time links and secret keys, exchanged for sessions that have the key's role and die with it. */
import { randomBytes } from 'node:crypto';
import { and, asc, eq, gt, inArray, lte, placeholder } from 'drizzle-orm';
import { z } from 'zod';
import { statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { formatValue } from '../crypto/format.ts';
import { rowMac } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps, Principal, Role } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { Limit } from '../limits.ts';
import { isWithin, networkOf } from './addresses.ts';
import { change } from './events.ts';
import { deleteExpired } from './expired-rows.ts';
import { credential, operatorSessionId } from './fields.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';
import { takeOne } from './rate-limits.ts';
import { type Address, findCaller, hasExpired, secretKeyMac } from './secrets.ts';

type SessionRow = Rows['tables']['operatorSessions']['$inferSelect'];
type LinkRow = Rows['tables']['signInLinks']['$inferSelect'];
type SecretKeyRow = Rows['tables']['secretKeys']['$inferSelect'];

const HOUR_MS = 3_600_000;
/** A session ends so long after its last request, and so long after it was begun. */
export const IDLE_MS = 12 * HOUR_MS;
export const SESSION_MS = 7 * 24 * HOUR_MS;
export const LINK_MS = 15 * 60_000;
const SEEN_NOTED_MS = 60_000;

/** Live sessions of one key; the oldest goes for a new one. */
export const SESSIONS_MAX = 20;

/** Links made with one secret key. */
const ISSUED: Limit = { count: 60, windowSeconds: 60 };

/** Sign-ins tried from one network. */
const SIGN_IN: Limit = { count: 20, windowSeconds: 60 };

/** Who is signed in. */
export interface SignedIn {
  /** Of the session. */
  id: string;
  role: Role;
  /** Of the secret key. */
  name: string;
  secretKeyId: string;
}

/** A session that others may be shown. */
export interface OperatorSession extends SignedIn {
  createdAt: number;
  /** To the minute. */
  lastSeenAt: number;
  /** Whatever it does; it ends before, 12 hours after its last request. */
  expiresAt: number;
}

/** Makes a link for the caller's own key; it is answered this once, for `LINK_MS`. */
export async function createSignInLink(
  deps: Deps,
  principal: Principal,
): Promise<{ url: string; expiresAt: number }> {
  if (principal.kind !== 'secret_key')
    throw new CountersignError('forbidden', 'Cannot make a link: wanted a secret key');
  // A session that could make links would outlive itself.
  if (principal.bySession)
    throw new CountersignError('forbidden', 'Cannot make a link: wanted a secret key, found a session');
  await assertMayIssue(deps, principal.id);
  const now = deps.now();
  const value = newValue('csl_');
  const judged = {
    id: sortableId('csl_', now),
    hash: deps.keyring.hash(value),
    secret_key_id: principal.id,
    expires_at: now + LINK_MS,
  };
  await deps.store.tx(async (tx) => {
    const { signInLinks } = tx.tables;
    await tx.db.insert(signInLinks).values({ ...judged, created_at: now, mac: macOf(deps, judged) });
  }, 'minting');
  // A fragment is never sent to a server, and so is in no log.
  return { url: `${deps.publicUrl}/console/#link=${value}`, expiresAt: judged.expires_at };
}

export const beginSessionInput = z.union([
  z.strictObject({ link: credential }),
  z.strictObject({ secretKey: credential }),
]);

/**
 * Begins a session; its value is new, whatever the browser had before. Throws `unauthenticated` for a link that was used
 * or has expired, or a key that is not live, and `rate_limited`.
 */
export async function beginSession(
  deps: Deps,
  input: z.output<typeof beginSessionInput>,
  address: Address,
): Promise<{ value: string; session: SignedIn }> {
  await assertMayTry(deps, address);
  const secretKeyId =
    'link' in input ? await takeLink(deps, input.link) : await keyOf(deps, input.secretKey, address);
  const key = secretKeyId === null ? null : await readLiveKey(deps, secretKeyId, address);
  if (!key) {
    throw new CountersignError(
      'unauthenticated',
      'link' in input
        ? 'Cannot sign in: the link was used before, or has expired'
        : 'Cannot sign in: wanted a live secret key',
    );
  }
  const { id, value } = await insertSession(deps, key.id);
  return { value, session: toSignedIn(id, key) };
}

async function assertMayIssue(deps: Deps, secretKeyId: string) {
  await takeOne(
    deps,
    `sign_in_links:${secretKeyId}`,
    ISSUED,
    `Cannot make a link: wanted at most ${ISSUED.count} in a minute with one secret key`,
  );
}

async function assertMayTry(deps: Deps, address: Address) {
  await takeOne(
    deps,
    `sign_in:${networkOf(address())}`,
    SIGN_IN,
    `Cannot sign in: wanted at most ${SIGN_IN.count} attempts in a minute from one network`,
  );
}

/** Whose link it is, null where it is nobody's. Gone with that: it signs in once. */
async function takeLink(deps: Deps, value: string): Promise<string | null> {
  const now = deps.now();
  const [link] = await deps.store.tx((tx) => {
    const { signInLinks } = tx.tables;
    return tx.db
      .delete(signInLinks)
      .where(eq(signInLinks.hash, deps.keyring.hash(value)))
      .returning();
  });
  return link && isGenuine(deps, link) && link.expires_at > now ? link.secret_key_id : null;
}

async function keyOf(deps: Deps, value: string, address: Address): Promise<string | null> {
  const principal = await findCaller(deps, value, address);
  return principal?.kind === 'secret_key' ? principal.id : null;
}

async function readLiveKey(deps: Deps, id: string, address: Address): Promise<SecretKeyRow | null> {
  const { db, tables } = deps.store.read;
  const [key] = await db.select().from(tables.secretKeys).where(eq(tables.secretKeys.id, id));
  return key && isLive(deps, key, address) ? key : null;
}

async function insertSession(deps: Deps, secretKeyId: string): Promise<{ id: string; value: string }> {
  const now = deps.now();
  const value = newValue('ses_');
  const judged = {
    id: sortableId('ses_', now),
    hash: deps.keyring.hash(value),
    secret_key_id: secretKeyId,
    expires_at: now + SESSION_MS,
  };
  await deps.store.tx(async (tx) => {
    const { operatorSessions: s } = tx.tables;
    const older = await tx.db
      .select({ id: s.id })
      .from(s)
      .where(eq(s.secret_key_id, secretKeyId))
      .orderBy(asc(s.created_at), asc(s.id));
    const surplus = older.slice(0, Math.max(0, older.length - SESSIONS_MAX + 1)).map(({ id }) => id);
    if (surplus.length > 0) await tx.db.delete(s).where(inArray(s.id, surplus));
    await tx.db.insert(s).values({ ...judged, created_at: now, last_seen_at: now, mac: macOf(deps, judged) });
  });
  return { id: judged.id, value };
}

/** Who a session's value says is there; null where it has ended, or its key has. */
export async function findSession(
  deps: Deps,
  value: string,
  address: Address,
): Promise<{ principal: Principal; session: SignedIn } | null> {
  const [found] = await readSession(deps.store.read, { hash: deps.keyring.hash(value) });
  if (!found) return null;
  const { session, key } = found;
  const now = deps.now();
  if (!isGenuine(deps, session) || session.expires_at <= now || session.last_seen_at + IDLE_MS <= now)
    return null;
  if (!isLive(deps, key, address)) return null;
  if (now - session.last_seen_at >= SEEN_NOTED_MS) await noteSeen(deps, session, now);
  return {
    principal: { kind: 'secret_key', id: key.id, role: key.role, bySession: true },
    session: toSignedIn(session.id, key),
  };
}

const readSession = statement((db, { operatorSessions: s, secretKeys: k }) =>
  db
    .select({ session: s, key: k })
    .from(s)
    .innerJoin(k, eq(k.id, s.secret_key_id))
    .where(eq(s.hash, placeholder('hash')))
    .prepare('operator_session'),
);

/** That it was seen is not worth refusing what it asks for. */
async function noteSeen(deps: Deps, { id }: SessionRow, now: number) {
  const noted = deps.store.tx(({ db, tables: { operatorSessions: s } }) =>
    db
      .update(s)
      .set({ last_seen_at: now })
      .where(and(eq(s.id, id), lte(s.last_seen_at, now))),
  );
  await noted.catch(() => {});
}

export async function endSession(deps: Deps, value: string): Promise<void> {
  await deps.store.tx(({ db, tables: { operatorSessions: s } }) =>
    db.delete(s).where(eq(s.hash, deps.keyring.hash(value))),
  );
}

export const listOperatorSessionsInput = z.strictObject(pageInput);

/** Sessions that may still be used, whoever began them, the newest first. */
export async function listOperatorSessions(
  deps: Deps,
  { cursor, limit, offset }: z.output<typeof listOperatorSessionsInput>,
): Promise<Page<OperatorSession>> {
  const { db, tables } = deps.store.read;
  const { operatorSessions: s, secretKeys: k } = tables;
  const now = deps.now();
  const rows = await db
    .select({ session: s, key: { id: k.id, name: k.name, role: k.role } })
    .from(s)
    .innerJoin(k, eq(k.id, s.secret_key_id))
    .where(
      and(
        gt(s.expires_at, now),
        gt(s.last_seen_at, now - IDLE_MS),
        afterCursor(cursor, s.expires_at, s.id, true),
      ),
    )
    .orderBy(...orderOf(s.expires_at, s.id, true))
    .limit(limit + 1)
    .offset(offset);
  return toPage(
    rows,
    limit,
    ({ session }) => [session.expires_at, session.id],
    ({ session, key }) => ({
      ...toSignedIn(session.id, key),
      createdAt: session.created_at,
      lastSeenAt: session.last_seen_at,
      expiresAt: session.expires_at,
    }),
  );
}

export const operatorSessionIdInput = z.strictObject({ id: operatorSessionId.meta({ positional: true }) });

/** Signs somebody out, the caller too; the key with which the session was begun goes on. Throws `not_found`. */
export async function endOperatorSession(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof operatorSessionIdInput>,
): Promise<{ id: string; deleted: true }> {
  return change(deps, caller, async (tx) => {
    const { operatorSessions: s } = tx.tables;
    const [row] = await tx.db.delete(s).where(eq(s.id, id)).returning();
    if (!row) throw new CountersignError('not_found', `No session has the id '${id}'`);
    // Whoever is signed out by this has no link left that would sign them in again.
    const { signInLinks: l } = tx.tables;
    await tx.db.delete(l).where(eq(l.secret_key_id, row.secret_key_id));
    return {
      result: { id, deleted: true as const },
      event: { type: 'operator_session.ended', objectId: id, data: { secretKeyId: row.secret_key_id } },
    };
  });
}

/** Deletes some sessions and links that have expired; answers how many. */
export async function deleteExpiredSignIns(
  deps: Pick<Deps, 'store' | 'now'>,
  limit: number,
): Promise<number> {
  const { operatorSessions, signInLinks } = deps.store.read.tables;
  return (
    (await deleteExpired(deps, operatorSessions, limit)) + (await deleteExpired(deps, signInLinks, limit))
  );
}

/** Ends all that was begun with a key that others may have. */
export async function endSessionsOf(tx: Rows, secretKeyId: string): Promise<void> {
  const { operatorSessions, signInLinks } = tx.tables;
  await tx.db.delete(operatorSessions).where(eq(operatorSessions.secret_key_id, secretKeyId));
  await tx.db.delete(signInLinks).where(eq(signInLinks.secret_key_id, secretKeyId));
}

function isLive(deps: Deps, key: SecretKeyRow, address: Address): boolean {
  if (!key.mac.equals(secretKeyMac(deps, key))) return false;
  if (key.revoked_at !== null || hasExpired(key.expires_at, deps.now())) return false;
  return key.allowed_cidrs === null || isWithin(address(), key.allowed_cidrs);
}

const toSignedIn = (id: string, key: Pick<SecretKeyRow, 'id' | 'name' | 'role'>): SignedIn => ({
  id,
  role: key.role,
  name: key.name,
  secretKeyId: key.id,
});

/** Of a shape that logs redact; no kind of credential has these prefixes. */
const newValue = (prefix: string) => formatValue(prefix, randomBytes(32));

type Judged = Pick<LinkRow, 'id' | 'hash' | 'secret_key_id' | 'expires_at'>;

const macOf = (deps: Pick<Deps, 'keyring'>, { id, hash, secret_key_id, expires_at }: Judged) =>
  rowMac(deps.keyring.rowMac, ['operator_sessions', id, hash.toString('hex'), secret_key_id, expires_at]);

const isGenuine = (deps: Pick<Deps, 'keyring'>, row: SessionRow | LinkRow) =>
  row.mac.equals(macOf(deps, row));
