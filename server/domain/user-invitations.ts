/** Links by which somebody becomes a local user, or a local user sets a new password: each is good once. */
import { and, eq, gt } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import { PREFIXES } from '../crypto/format.ts';
import { newValue, rowMac } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { Limit } from '../limits.ts';
import { networkOf } from './addresses.ts';
import { change } from './events.ts';
import { name, userId, userInvitationId } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';
import { takeOne } from './rate-limits.ts';
import type { Address } from './secrets.ts';
import { acceptPassword, hashPassword, whileFewHash } from './user-passwords.ts';
import {
  email,
  endWays,
  insertUser,
  LOCAL,
  lockUser,
  newUserId,
  readUser,
  SIGN_IN_NAME_RULE,
  saveUser,
  signInNameOf,
  toUser,
  type User,
} from './users.ts';

export interface UserInvitation {
  id: string;
  /** The user whose password it sets; null where it makes one. */
  userId: string | null;
  email: string | null;
  name: string | null;
  createdAt: number;
  expiresAt: number;
}

type InvitationRow = Rows['tables']['userInvitations']['$inferSelect'];

const DAY_SECONDS = 86_400;
const TTL_SECONDS = 7 * DAY_SECONDS;
const TTL_SECONDS_MIN = 300;
const TTL_SECONDS_MAX = 30 * DAY_SECONDS;

/** Looked at, or tried, from one network. */
const TRIED: Limit = { count: 30, windowSeconds: 60 };

export const inviteUserInput = z.strictObject({
  /** A user of before, who is to set a new password; without one, the link makes a user. */
  userId: userId.optional(),
  email: email.nullish(),
  name: name.nullish(),
  ttlSeconds: z.number().int().min(TTL_SECONDS_MIN).max(TTL_SECONDS_MAX).default(TTL_SECONDS),
  ...idempotencyInput,
});

/**
 * Makes a link; it is answered this once. Whoever has it chooses a password, and of a new user the name to sign in with.
 * Throws `not_found`, `invalid_input` for a user whose password is not ours to set, and `wrong_state` for one whose row is not
 * as we wrote it.
 */
export async function inviteUser(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof inviteUserInput>,
): Promise<UserInvitation & { link?: string }> {
  const now = deps.now();
  const { value } = newValue(PREFIXES.userInvitation);
  const judged = {
    id: sortableId('inv_', now),
    hash: deps.keyring.hash(value),
    user_id: input.userId ?? null,
    email: input.email ?? null,
    name: input.name ?? null,
    expires_at: now + input.ttlSeconds * 1000,
  };
  const row = { ...judged, created_at: now, mac: macOf(deps, judged) };
  return create(deps, caller, { procedure: 'users.invite', input }, async (tx) => {
    if (row.user_id !== null) await assertHasPassword(tx, deps, row.user_id);
    await tx.db.insert(tx.tables.userInvitations).values(row);
    const link = `${deps.publicUrl}/oauth/invitation?value=${value}`;
    return {
      result: { ...toInvitation(row), link },
      event: { type: 'user.invited', objectId: row.id, data: { userId: row.user_id } },
    };
  });
}

async function assertHasPassword(tx: Rows, deps: Deps, id: string) {
  const user = await lockUser(tx, deps, id);
  if (user.source === LOCAL) return;
  throw new CountersignError(
    'invalid_input',
    `Cannot make a link: wanted a user with a password here, found one who signs in at ${user.source}`,
    { field: 'userId' },
  );
}

export const listUserInvitationsInput = z.strictObject(pageInput);

/** Those that may still be used, the last to expire first. */
export async function listUserInvitations(
  deps: Deps,
  { cursor, limit, offset }: z.output<typeof listUserInvitationsInput>,
): Promise<Page<UserInvitation>> {
  const { db, tables } = deps.store.read;
  const { userInvitations: i } = tables;
  const rows = await db
    .select()
    .from(i)
    .where(and(gt(i.expires_at, deps.now()), afterCursor(cursor, i.expires_at, i.id, true)))
    .orderBy(...orderOf(i.expires_at, i.id, true))
    .limit(limit + 1)
    .offset(offset);
  return toPage(rows, limit, (row) => [row.expires_at, row.id], toInvitation);
}

export const userInvitationIdInput = z.strictObject({ id: userInvitationId.meta({ positional: true }) });

/** Takes a link back. Throws `not_found`, also for one that was used. */
export async function deleteUserInvitation(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof userInvitationIdInput>,
): Promise<{ id: string; deleted: true }> {
  return change(deps, caller, async (tx) => {
    const { userInvitations: i } = tx.tables;
    const [row] = await tx.db.delete(i).where(eq(i.id, id)).returning();
    if (!row) throw new CountersignError('not_found', `No invitation has the id '${id}'`);
    return {
      result: { id, deleted: true as const },
      event: { type: 'user.uninvited', objectId: id, data: { userId: row.user_id } },
    };
  });
}

/** What a link is for, as whoever has it is shown. */
export interface OpenInvitation {
  email: string | null;
  name: string | null;
  /** Of the user whose password it sets; null where it makes one. */
  signInName: string | null;
}

/** null for a link that was used, was taken back, has expired or never was: they look alike. Throws `rate_limited`. */
export async function findInvitation(
  deps: Deps,
  value: string,
  address: Address,
): Promise<OpenInvitation | null> {
  await assertMayTry(deps, address);
  const { read } = deps.store;
  const { userInvitations: i } = read.tables;
  const [row] = await read.db
    .select()
    .from(i)
    .where(eq(i.hash, deps.keyring.hash(value)));
  if (!row || !isOpen(deps, row)) return null;
  const user = row.user_id === null ? null : await readUser(read, row.user_id);
  return { email: row.email, name: row.name, signInName: user?.source_subject ?? null };
}

async function assertMayTry(deps: Deps, address: Address) {
  await takeOne(
    deps,
    `user_invitations:${networkOf(address())}`,
    TRIED,
    `Wanted at most ${TRIED.count} invitations in a minute from one network`,
  );
}

export interface Acceptance {
  value: string;
  /** Of a new user. */
  signInName: string;
  password: string;
}

/**
 * Makes the user, or sets their password; the link is gone with that, and whoever was signed in as that user is signed
 * out. Throws `not_found` for a link that is none, `invalid_input`, `name_taken` and `rate_limited`: then it is still good.
 */
export async function acceptInvitation(
  deps: Deps,
  requestId: string,
  given: Acceptance,
  address: Address,
): Promise<User> {
  const invitation = await findInvitation(deps, given.value, address);
  if (!invitation) throw invitationNotFound();
  const signInName = invitation.signInName ?? chosenName(given.signInName, invitation);
  const password = acceptPassword(given.password, [signInName, invitation.name, invitation.email]);
  return whileFewHash(async () => {
    const { id, hash } = await hashFor(deps, given.value, password);
    const caller: Caller = { principal: { kind: 'user', id }, requestId };
    return change(deps, caller, async (tx) => {
      const row = await takeInvitation(tx, deps, given.value);
      if (row.user_id !== null) return setPassword(tx, deps, id, hash);
      return makeUser(tx, deps, { id, signInName, hash, row });
    });
  });
}

/** An address is only whom it was sent to; any other name is anybody's. */
function chosenName(given: string, { email: invited }: OpenInvitation): string {
  const signInName = signInNameOf(given);
  if (signInName === null)
    throw new CountersignError('invalid_input', `Wanted a name to sign in with: ${SIGN_IN_NAME_RULE}`, {
      field: 'signInName',
    });
  if (!signInName.includes('@') || signInName === invited?.toLowerCase()) return signInName;
  throw new CountersignError(
    'invalid_input',
    'Wanted another name to sign in with: an address has to be the one that was invited',
    { field: 'signInName' },
  );
}

/** Whose password it will be decides how it is sealed, so that is read before: of one link it never changes. */
async function hashFor(deps: Deps, value: string, password: string) {
  const { db, tables } = deps.store.read;
  const { userInvitations: i } = tables;
  const [row] = await db
    .select({ userId: i.user_id })
    .from(i)
    .where(eq(i.hash, deps.keyring.hash(value)));
  const id = row?.userId ?? newUserId(deps);
  return { id, hash: await hashPassword(deps, id, password) };
}

async function takeInvitation(tx: Rows, deps: Deps, value: string): Promise<InvitationRow> {
  const { userInvitations: i } = tx.tables;
  const [row] = await tx.db
    .delete(i)
    .where(eq(i.hash, deps.keyring.hash(value)))
    .returning();
  if (!row || !isOpen(deps, row)) throw invitationNotFound();
  return row;
}

async function setPassword(tx: Rows, deps: Deps, id: string, hash: Buffer) {
  const before = await lockUser(tx, deps, id);
  await endWays(tx, id);
  const row = await saveUser(tx, deps, before, { ...before, password_hash: hash });
  return {
    result: toUser(row),
    event: { type: 'user.password_set' as const, objectId: id, subject: id },
  };
}

async function makeUser(
  tx: Rows,
  deps: Deps,
  { id, signInName, hash, row }: { id: string; signInName: string; hash: Buffer; row: InvitationRow },
) {
  const user = await insertUser(tx, deps, {
    id,
    source: LOCAL,
    source_subject: signInName,
    name: row.name,
    email: row.email,
    email_verified: false,
    password_hash: hash,
  });
  if (!user)
    throw new CountersignError(
      'name_taken',
      `Wanted another name to sign in with: '${signInName}' is taken`,
      {
        field: 'signInName',
      },
    );
  return {
    result: toUser(user),
    event: { type: 'user.created' as const, objectId: id, subject: id, data: { source: LOCAL } },
  };
}

const invitationNotFound = () =>
  new CountersignError('not_found', 'This link was used before, was taken back or has expired');

const isOpen = (deps: Deps, row: InvitationRow) =>
  row.expires_at > deps.now() && row.mac.equals(macOf(deps, row));

const macOf = (
  { keyring }: Pick<Deps, 'keyring'>,
  { id, hash, user_id, email: address, name: called, expires_at }: Omit<InvitationRow, 'created_at' | 'mac'>,
) =>
  rowMac(keyring.rowMac, [
    'user_invitations',
    id,
    hash.toString('hex'),
    user_id,
    address,
    called,
    expires_at,
  ]);

const toInvitation = (row: InvitationRow): UserInvitation => ({
  id: row.id,
  userId: row.user_id,
  email: row.email,
  name: row.name,
  createdAt: row.created_at,
  expiresAt: row.expires_at,
});
