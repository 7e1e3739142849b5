/** End users of whom there is a row here: local accounts, and whom another issuer vouched for. */
import { and, eq, ne, placeholder } from 'drizzle-orm';
import { z } from 'zod';
import { lockStatement } from '../../db/lock.ts';
import { statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { PREFIXES } from '../crypto/format.ts';
import { rowMac } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { change } from './events.ts';
import { name, userId } from './fields.ts';
import { takeBack, type UserClaims } from './oauth-grants.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';

/** The source of those who have a password here. */
export const LOCAL = 'local';

export interface User {
  /** What tokens call them. */
  id: string;
  /** `local`, or the issuer they sign in at. */
  source: string;
  /** What the source calls them; of a local account, the name it is signed in with. */
  sourceSubject: string;
  name: string | null;
  email: string | null;
  emailVerified: boolean;
  enabled: boolean;
  lastSignedInAt: number | null;
  createdAt: number;
  updatedAt: number;
}

export type UserRow = Rows['tables']['users']['$inferSelect'];

/** Begins of what is not a user: machines, organizations, applications, and values of credentials (threats.md, JWTs). */
const NO_USER = ['mch_', 'org_', 'oauthapp_', ...Object.values(PREFIXES)];

/** Whether a subject may be somebody who signs in. */
export const isUserSubject = (text: string) => !NO_USER.some((prefix) => text.startsWith(prefix));

const signInNameText = z
  .string()
  .transform((text) => text.trim().toLowerCase())
  .pipe(z.string().regex(/^[a-z0-9][a-z0-9._@+-]{2,127}$/));

/** The one form of a name to sign in with; null for what is none. ASCII alone: no two of them look alike. */
export const signInNameOf = (text: string): string | null => signInNameText.safeParse(text).data ?? null;

export const SIGN_IN_NAME_RULE =
  '3 to 128 letters, digits or any of . _ @ + - (capitals count as small letters)';

export const email = z.email().max(254);

export const userIdInput = z.strictObject({ id: userId.meta({ positional: true }) });

export async function getUser(deps: Deps, { id }: z.output<typeof userIdInput>): Promise<User> {
  const row = await readUser(deps.store.read, id);
  if (!row) throw userNotFound(id);
  return toUser(row);
}

export async function readUser(rows: Rows, id: string): Promise<UserRow | null> {
  const [row] = await readById(rows, { id });
  return row ?? null;
}

const readById = statement((db, { users: u }) =>
  db
    .select()
    .from(u)
    .where(eq(u.id, placeholder('id')))
    .prepare('user'),
);

export const listUsersInput = z.strictObject({
  /** The one who signs in to a local account with that name. */
  signInName: z.string().max(128).optional(),
  ...pageInput,
});

/** The newest first. */
export async function listUsers(
  deps: Deps,
  { signInName, cursor, limit, offset }: z.output<typeof listUsersInput>,
): Promise<Page<User>> {
  const { db, tables } = deps.store.read;
  const { users: u } = tables;
  const named =
    signInName === undefined
      ? undefined
      : and(eq(u.source, LOCAL), eq(u.source_subject, signInNameOf(signInName) ?? ''));
  const rows = await db
    .select()
    .from(u)
    .where(and(named, afterCursor(cursor, u.created_at, u.id, true)))
    .orderBy(...orderOf(u.created_at, u.id, true))
    .limit(limit + 1)
    .offset(offset);
  return toPage(rows, limit, (row) => [row.created_at, row.id], toUser);
}

export const updateUserInput = z.strictObject({
  id: userId.meta({ positional: true }),
  name: name.nullish(),
  email: email.nullish(),
  /** That the address is theirs: nobody checks it here. */
  emailVerified: z.boolean().optional(),
});

const UPDATABLE = ['name', 'email', 'emailVerified'] as const satisfies (keyof User)[];

/**
 * Changes what it is told to; what already is so leaves no event. Another address is not verified unless that is said. Throws
 * `not_found`, and `wrong_state` for a row that is not as we wrote it.
 */
export async function updateUser(
  deps: Deps,
  caller: Caller,
  { id, ...changes }: z.output<typeof updateUserInput>,
): Promise<User> {
  return change(deps, caller, async (tx) => {
    const before = await lockUser(tx, deps, id);
    const row = { ...before };
    if (changes.name !== undefined) row.name = changes.name;
    if (changes.email !== undefined && changes.email !== before.email) {
      row.email = changes.email;
      row.email_verified = false;
    }
    if (changes.emailVerified !== undefined) row.email_verified = changes.emailVerified;
    const changed = changedIn(before, row);
    if (changed.length === 0) return { result: toUser(before), event: null };
    return {
      result: toUser(await saveUser(tx, deps, before, row)),
      event: { type: 'user.updated', objectId: id, subject: id, data: { changed } },
    };
  });
}

/** What another row says that others are told of a user. */
export const changedIn = (before: UserRow, after: UserRow): string[] => {
  const [was, is] = [toUser(before), toUser(after)];
  return UPDATABLE.filter((field) => was[field] !== is[field]);
};

/**
 * Lets a user sign in, or no longer: then they are signed out, and no access token that acts for them is accepted. A user
 * who already is as wanted leaves no event. Throws `not_found`; a row that is not as we wrote it may be disabled, and to enable
 * it throws `wrong_state`.
 */
export async function setUserEnabled(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof userIdInput>,
  enabled: boolean,
): Promise<User> {
  return change(
    deps,
    caller,
    async (tx) => {
      const before = enabled ? await lockUser(tx, deps, id) : await lockAny(tx, id);
      if (before.enabled === enabled) return { result: toUser(before), event: null };
      if (!enabled) await endWays(tx, id);
      const result = toUser(await saveUser(tx, deps, before, { ...before, enabled }));
      if (enabled) return { result, event: { type: 'user.enabled', objectId: id, subject: id } };
      const data = { selector: { subject: id } };
      return { result, event: { type: 'user.disabled', objectId: id, subject: id, data } };
    },
    enabled ? 'normal' : 'revocation',
  );
}

/** Deletes a user with what they allowed applications: every token that acts for them is revoked. */
export async function deleteUser(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof userIdInput>,
): Promise<{ id: string; deleted: true }> {
  return change(
    deps,
    caller,
    async (tx) => {
      const { users: u } = tx.tables;
      const [row] = await tx.db.delete(u).where(eq(u.id, id)).returning({ id: u.id });
      if (!row) throw userNotFound(id);
      await endWays(tx, id);
      const data = { selector: { subject: id } };
      await takeBack(tx, data.selector, 'user_deleted', deps.now());
      return {
        result: { id, deleted: true as const },
        event: { type: 'user.deleted', objectId: id, subject: id, data },
      };
    },
    'revocation',
  );
}

/** Ends a user's sessions, and links by which they could begin others; but for one session. */
export async function endWays(tx: Rows, id: string, butSession = ''): Promise<void> {
  const { userSessions: s, userInvitations: i } = tx.tables;
  await tx.db.delete(s).where(and(eq(s.subject, id), ne(s.id, butSession)));
  await tx.db.delete(i).where(eq(i.user_id, id));
}

/**
 * Reads a user whom this transaction is about to change; others that want to, wait. Throws `not_found`, and `wrong_state` for
 * a row that is not as we wrote it: what somebody else wrote into it is not to be ours with the next change.
 */
export async function lockUser(tx: Rows, deps: Deps, id: string): Promise<UserRow> {
  const row = await lockAny(tx, id);
  if (isGenuine(deps, row)) return row;
  throw new CountersignError(
    'wrong_state',
    `Cannot change user '${id}': the row is not as this server wrote it, and can only be disabled or deleted`,
  );
}

async function lockAny(tx: Rows, id: string): Promise<UserRow> {
  const row = await readLocked(tx, id);
  if (!row) throw userNotFound(id);
  return row;
}

/** The same of a user who may be signed in; null of any other, and of none. */
export async function lockSignable(tx: Rows, deps: Deps, id: string): Promise<UserRow | null> {
  const row = await readLocked(tx, id);
  return row && mayBeSignedIn(deps, row) ? row : null;
}

const readLocked = lockStatement('user_lock', 'users');

type NewUser = Pick<UserRow, 'source' | 'source_subject' | 'name' | 'email' | 'email_verified'> & {
  id: string;
  password_hash: Buffer | null;
};

export const newUserId = (deps: Pick<Deps, 'now'>) => sortableId('user_', deps.now());

/** Answers null where the source knows somebody else by that. */
export async function insertUser(tx: Rows, deps: Deps, given: NewUser): Promise<UserRow | null> {
  const now = deps.now();
  const judged = { ...given, enabled: true };
  const row: UserRow = {
    ...judged,
    mac: macOf(deps, judged),
    last_signed_in_at: null,
    created_at: now,
    updated_at: now,
  };
  const [inserted] = await tx.db.insert(tx.tables.users).values(row).onConflictDoNothing().returning();
  return inserted ?? null;
}

/** Writes a row that was changed. One that was not genuine does not become so by that. */
export async function saveUser(tx: Rows, deps: Deps, before: UserRow, changed: UserRow): Promise<UserRow> {
  const mac = isGenuine(deps, before) ? macOf(deps, changed) : before.mac;
  const row = { ...changed, mac, updated_at: deps.now() };
  await tx.db.update(tx.tables.users).set(row).where(eq(tx.tables.users.id, row.id));
  return row;
}

/** Those whose rows are as we wrote them and enabled. */
export const mayBeSignedIn = (deps: Deps, row: UserRow): boolean => row.enabled && isGenuine(deps, row);

const isGenuine = (deps: Deps, row: UserRow): boolean => row.mac.equals(macOf(deps, row));

type Judged = Omit<UserRow, 'mac' | 'last_signed_in_at' | 'created_at' | 'updated_at'>;

const macOf = ({ keyring }: Pick<Deps, 'keyring'>, row: Judged) =>
  rowMac(keyring.rowMac, [
    'users',
    row.id,
    row.source,
    row.source_subject,
    row.name,
    row.email,
    row.email_verified,
    row.password_hash?.toString('base64') ?? null,
    row.enabled,
  ]);

/** What applications may be told of a user (OpenID Connect Core 1.0, section 5.1). */
export const claimsOf = (row: UserRow): UserClaims => ({
  ...(row.name !== null && { name: row.name }),
  ...(row.source === LOCAL && { preferred_username: row.source_subject }),
  ...(row.email !== null && { email: row.email, email_verified: row.email_verified }),
});

/**
 * The same of what was said when they signed in, as it is now: an address that is no longer theirs, or no longer verified, is
 * told nobody. Where the host application signs them in it says who they are, whatever row there is from before.
 */
export function claimsNow(
  { signIn }: Pick<Deps, 'signIn'>,
  user: UserRow | null,
  said: UserClaims,
): UserClaims {
  if (user === null || signIn.kind === 'handoff') return said;
  const { name, email: address, email_verified, ...others } = said;
  return { ...others, ...claimsOf(user) };
}

const userNotFound = (id: string) => new CountersignError('not_found', `No user has the id '${id}'`);

export const toUser = (row: UserRow): User => ({
  id: row.id,
  source: row.source,
  sourceSubject: row.source_subject,
  name: row.name,
  email: row.email,
  emailVerified: row.email_verified,
  enabled: row.enabled,
  lastSignedInAt: row.last_signed_in_at,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
});
