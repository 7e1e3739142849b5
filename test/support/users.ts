/** Local users, as an invitation makes them. */
import { hashPassword } from '../../server/domain/user-passwords.ts';
import { beginUserSession } from '../../server/domain/user-sessions.ts';
import { claimsOf, insertUser, LOCAL, newUserId, type UserRow } from '../../server/domain/users.ts';
import type { TestDeps } from './deps.ts';

export const PASSWORD = 'correct horse battery';

/** Somebody with the password `PASSWORD`, or, where nobody signs in, without any. */
export async function newUser(
  deps: TestDeps,
  name = 'ada',
  { withPassword = false, email = null as string | null } = {},
): Promise<UserRow> {
  const id = newUserId(deps);
  const password_hash = withPassword ? await hashPassword(deps, id, PASSWORD) : null;
  const row = await deps.store.tx((tx) =>
    insertUser(tx, deps, {
      id,
      source: LOCAL,
      source_subject: name,
      name: 'Ada Lovelace',
      email,
      email_verified: false,
      password_hash,
    }),
  );
  if (!row) throw new Error(`There is a user '${name}'`);
  return row;
}

/** A session of theirs. */
export const newUserSession = (deps: TestDeps, user: UserRow) =>
  beginUserSession(deps, {
    subject: user.id,
    source: LOCAL,
    claims: claimsOf(user),
    organizations: [],
    userMac: user.mac,
  });
