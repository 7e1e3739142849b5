/** End users who are signed in: a session for each browser, whichever way they signed in by. */
import { and, asc, eq, gt, inArray, lte, placeholder } from 'drizzle-orm';
import { z } from 'zod';
import { statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { PREFIXES } from '../crypto/format.ts';
import { newValue, rowMac } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { canonicalJson } from './canonical-json.ts';
import { change } from './events.ts';
import { subject, userSessionId } from './fields.ts';
import type { UserClaims } from './oauth-grants.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';
import { wrongPassword } from './user-passwords.ts';
import { claimsNow, isUserSubject, LOCAL, lockSignable, mayBeSignedIn, type UserRow } from './users.ts';

const HOUR_MS = 3_600_000;
/** A session ends so long after its last request, and so long after it was begun. */
export const IDLE_MS = 24 * HOUR_MS;
export const SESSION_MS = 14 * 24 * HOUR_MS;
const SEEN_NOTED_MS = 60_000;

/** How long the host application may have a session of a hand-off answer further requests. */
export const REMEMBERED_SECONDS_MIN = 600;
export const REMEMBERED_SECONDS_MAX = SESSION_MS / 1000;

/** A session that is not remembered ends so long after it was begun: too short to be one that is. */
export const UNREMEMBERED_MS = 5 * 60_000;

/** Live sessions of one user; the oldest goes for a new one. */
export const SESSIONS_MAX = 20;

/** Sessions of users of a hand-off, who are the host application's. */
export const HANDED_OFF = 'handoff';

export interface SignedInUser {
  sessionId: string;
  /** What tokens call them. */
  subject: string;
  /** The way they signed in by: `local`, `handoff`, or an upstream's issuer. */
  source: string;
  /** When they proved who they are. */
  authTime: number;
  claims: UserClaims;
  /** Those they may act for. */
  organizations: { id: string; name: string }[];
  /** Whether the session answers authorization requests, or is of use to our own pages alone. */
  isRemembered: boolean;
}

/** A session that others may be shown. */
export interface UserSession {
  id: string;
  subject: string;
  source: string;
  createdAt: number;
  /** To the minute. */
  lastSeenAt: number;
  /** Whatever it does; it ends before, 24 hours after its last request. */
  expiresAt: number;
}

type SessionRow = Rows['tables']['userSessions']['$inferSelect'];

/** Whom a session is begun for. */
export interface NewlySignedIn extends Omit<SignedInUser, 'sessionId' | 'authTime' | 'isRemembered'> {
  /** Now, unless whoever signed them in says when it was. */
  authTime?: number;
  /** Of users of a hand-off; 0 as without it, for one that is not remembered. */
  rememberSeconds?: number;
  /** That of their row when it was judged; users of a hand-off have none. */
  userMac?: Buffer;
}

/**
 * Begins a session; its value is new, whatever the browser had before. Throws `forbidden` for what is no user, and
 * `unauthenticated` where the user was changed since they were judged, or is disabled as a subject.
 */
export async function beginUserSession(
  deps: Deps,
  { authTime, userMac, rememberSeconds = 0, ...who }: NewlySignedIn,
): Promise<{ value: string; user: SignedInUser }> {
  if (!isUserSubject(who.subject))
    throw new CountersignError(
      'forbidden',
      'Wanted a user, found the prefix of a machine, an organization, an application or a credential',
    );
  const now = deps.now();
  const { value } = newValue(PREFIXES.userSession);
  const judged = {
    id: sortableId('uss_', now),
    hash: deps.keyring.hash(value),
    subject: who.subject,
    source: who.source,
    claims: { ...who.claims },
    organizations: who.organizations,
    auth_time: Math.min(authTime ?? now, now),
    created_at: now,
    expires_at: now + (who.source === HANDED_OFF ? rememberSeconds * 1000 || UNREMEMBERED_MS : SESSION_MS),
  };
  const row = { ...judged, last_seen_at: now, mac: macOf(deps, judged) };
  await deps.store.tx(async (tx) => {
    await assertAsJudged(tx, deps, who, userMac);
    await assertSubjectEnabled(tx, who);
    await endSurplus(tx, who.subject);
    await tx.db.insert(tx.tables.userSessions).values(row);
    const { users: u } = tx.tables;
    await tx.db.update(u).set({ last_signed_in_at: now }).where(eq(u.id, who.subject));
  });
  return { value, user: toSignedIn(row, row.claims) };
}

/**
 * Hashing a password takes long enough for another to be set, or its user to be disabled or deleted: that ended every session
 * there was, and may not leave this one.
 */
async function assertAsJudged(
  tx: Rows,
  deps: Deps,
  { subject: whose, source }: Pick<SignedInUser, 'subject' | 'source'>,
  userMac: Buffer | undefined,
) {
  if (source === HANDED_OFF) return;
  const user = await lockSignable(tx, deps, whose);
  if (user && userMac?.equals(user.mac)) return;
  throw refusalBy(source);
}

/** Nothing else disables somebody whom the host application signs in. */
async function assertSubjectEnabled(
  { db, tables: { subjects: j } }: Rows,
  { subject: whose, source }: Pick<SignedInUser, 'subject' | 'source'>,
) {
  const [found] = await db.select({ enabled: j.enabled }).from(j).where(eq(j.id, whose));
  if (found?.enabled === false) throw refusalBy(source);
}

const refusalBy = (source: string) =>
  source === LOCAL ? wrongPassword() : new CountersignError('unauthenticated', 'This user may not sign in');

async function endSurplus(tx: Rows, whose: string) {
  const { userSessions: s } = tx.tables;
  const older = await tx.db
    .select({ id: s.id })
    .from(s)
    .where(eq(s.subject, whose))
    .orderBy(asc(s.created_at), asc(s.id));
  const surplus = older.slice(0, Math.max(0, older.length - SESSIONS_MAX + 1)).map(({ id }) => id);
  if (surplus.length > 0) await tx.db.delete(s).where(inArray(s.id, surplus));
}

/** Who is signed in by a value; null where the session has ended, its user may not sign in, or users sign in another way now. */
export async function findUserSession(deps: Deps, value: string | undefined): Promise<SignedInUser | null> {
  if (value === undefined) return null;
  const [found] = await readSession(deps.store.read, { hash: deps.keyring.hash(value) });
  if (!found || !isLive(deps, found.session)) return null;
  const { session, user, subjectEnabled } = found;
  if (session.source !== sourceNow(deps) || subjectEnabled === false) return null;
  if (!isTheirs(deps, session, user)) return null;
  await noteSeen(deps, session);
  return toSignedIn(session, claimsNow(deps, user, session.claims));
}

const readSession = statement((db, { userSessions: s, users: u, subjects: j }) =>
  db
    .select({ session: s, user: u, subjectEnabled: j.enabled })
    .from(s)
    .leftJoin(u, eq(u.id, s.subject))
    .leftJoin(j, eq(j.id, s.subject))
    .where(eq(s.hash, placeholder('hash')))
    .prepare('user_session'),
);

function isLive(deps: Deps, session: SessionRow): boolean {
  const now = deps.now();
  return (
    session.mac.equals(macOf(deps, session)) &&
    session.expires_at > now &&
    session.last_seen_at + IDLE_MS > now
  );
}

/** Where users sign in another way, no host application may say who they are, nor sign them out. Throws `not_found`. */
export function assertHandedOff({ signIn }: Pick<Deps, 'signIn'>): void {
  if (signIn.kind === 'handoff') return;
  throw new CountersignError(
    'not_found',
    `Wanted users to be handed to the host application, found COUNTERSIGN_SIGN_IN=${signIn.kind}`,
  );
}

/** The source of sessions that are begun now. */
function sourceNow({ signIn }: Pick<Deps, 'signIn'>): string {
  if (signIn.kind === 'oidc') return signIn.issuer;
  return signIn.kind === 'handoff' ? HANDED_OFF : LOCAL;
}

/** Users of a hand-off have no row; of all others it has to be there. */
const isTheirs = (deps: Deps, { source }: SessionRow, user: UserRow | null) =>
  source === HANDED_OFF || (user !== null && mayBeSignedIn(deps, user));

/** That it was seen is not worth refusing what it asks for. */
async function noteSeen(deps: Deps, { id, last_seen_at }: SessionRow) {
  const now = deps.now();
  if (now - last_seen_at < SEEN_NOTED_MS) return;
  const noted = deps.store.tx(({ db, tables: { userSessions: s } }) =>
    db
      .update(s)
      .set({ last_seen_at: now })
      .where(and(eq(s.id, id), lte(s.last_seen_at, now))),
  );
  await noted.catch(() => {});
}

export async function endUserSession(deps: Deps, value: string): Promise<void> {
  await deps.store.tx(({ db, tables: { userSessions: s } }) =>
    db.delete(s).where(eq(s.hash, deps.keyring.hash(value))),
  );
}

export const listUserSessionsInput = z.strictObject({ subject: subject.optional(), ...pageInput });

/** Sessions that may still be used, the newest first: of one user, or of all. */
export async function listUserSessions(
  deps: Deps,
  { subject: whose, cursor, limit, offset }: z.output<typeof listUserSessionsInput>,
): Promise<Page<UserSession>> {
  const { db, tables } = deps.store.read;
  const { userSessions: s } = tables;
  const now = deps.now();
  // Of one user there are few, in the order they were begun; of all, the index of expiry is in the same order.
  const column = whose === undefined ? s.expires_at : s.created_at;
  const rows = await db
    .select()
    .from(s)
    .where(
      and(
        whose === undefined ? undefined : eq(s.subject, whose),
        gt(s.expires_at, now),
        gt(s.last_seen_at, now - IDLE_MS),
        afterCursor(cursor, column, s.id, true),
      ),
    )
    .orderBy(...orderOf(column, s.id, true))
    .limit(limit + 1)
    .offset(offset);
  const keyOf = (row: SessionRow) => (whose === undefined ? row.expires_at : row.created_at);
  return toPage(rows, limit, (row) => [keyOf(row), row.id], toUserSession);
}

export const userSessionIdInput = z.strictObject({ id: userSessionId.meta({ positional: true }) });

/** Signs a user out of one browser; what applications were allowed goes on. Throws `not_found`. */
export async function endUserSessionById(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof userSessionIdInput>,
  whose?: string,
): Promise<{ id: string; deleted: true }> {
  return change(deps, caller, async (tx) => {
    const { userSessions: s } = tx.tables;
    const [row] = await tx.db
      .delete(s)
      .where(and(eq(s.id, id), whose === undefined ? undefined : eq(s.subject, whose)))
      .returning();
    if (!row) throw new CountersignError('not_found', `No session has the id '${id}'`);
    return {
      result: { id, deleted: true as const },
      event: {
        type: 'user_session.ended',
        objectId: row.subject,
        subject: row.subject,
        data: { sessionId: id },
      },
    };
  });
}

export const endAllUserSessionsInput = z.strictObject({ subject: subject.meta({ positional: true }) });

/**
 * Signs a user out everywhere; where there was no session there is no event. Throws `not_found` for a host application that
 * users are not handed to.
 */
export async function endAllUserSessions(
  deps: Deps,
  caller: Caller,
  { subject: whose }: z.output<typeof endAllUserSessionsInput>,
): Promise<{ subject: string; ended: number }> {
  const { principal } = caller;
  if (principal.kind === 'secret_key' && principal.role === 'interaction') assertHandedOff(deps);
  return change(deps, caller, async (tx) => {
    const { userSessions: s } = tx.tables;
    const ended = await tx.db.delete(s).where(eq(s.subject, whose)).returning({ id: s.id });
    return {
      result: { subject: whose, ended: ended.length },
      event:
        ended.length === 0 ? null : { type: 'user_session.ended', objectId: whose, subject: whose, data: {} },
    };
  });
}

const macOf = ({ keyring }: Pick<Deps, 'keyring'>, row: Omit<SessionRow, 'last_seen_at' | 'mac'>) =>
  rowMac(keyring.rowMac, [
    'user_sessions',
    row.id,
    row.hash.toString('hex'),
    row.subject,
    row.source,
    canonicalJson(row.claims),
    canonicalJson(row.organizations),
    row.auth_time,
    row.created_at,
    row.expires_at,
  ]);

/**
 * Whether a session answers authorization requests. One of a hand-off does where the host application had it remembered: it
 * alone knows whether its user is still signed in there, which organizations are theirs, and what it asks them itself. How
 * long the session was begun for says so, and is under the row's MAC.
 */
const isRemembered = ({ source, created_at, expires_at }: SessionRow): boolean =>
  source !== HANDED_OFF || expires_at - created_at > UNREMEMBERED_MS;

const toSignedIn = (row: SessionRow, claims: UserClaims): SignedInUser => ({
  sessionId: row.id,
  subject: row.subject,
  source: row.source,
  authTime: row.auth_time,
  claims,
  organizations: row.organizations,
  isRemembered: isRemembered(row),
});

const toUserSession = (row: SessionRow): UserSession => ({
  id: row.id,
  subject: row.subject,
  source: row.source,
  createdAt: row.created_at,
  lastSeenAt: row.last_seen_at,
  expiresAt: row.expires_at,
});
