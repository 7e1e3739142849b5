/** Signing in to a local account: by a name and a password. */
import { and, eq } from 'drizzle-orm';
import type { Deps } from '../deps.ts';
import type { Address } from './secrets.ts';
import { countTry, forgiveTry } from './sign-in-throttle.ts';
import { isPasswordOf, whileFewHash, wrongPassword } from './user-passwords.ts';
import type { NewlySignedIn } from './user-sessions.ts';
import { claimsOf, LOCAL, mayBeSignedIn, signInNameOf, type UserRow } from './users.ts';

/**
 * Who that is. Throws `unauthenticated`, which is said in the same words and after as long of a name that nobody has, a
 * wrong password and a user who may not sign in; and `rate_limited`.
 */
export async function signInLocally(
  deps: Deps,
  given: { signInName: string; password: string },
  address: Address,
): Promise<NewlySignedIn> {
  const name = signInNameOf(given.signInName);
  return whileFewHash(async () => {
    const tried = await countTry(deps, name ?? '', address);
    const user = await findSignable(deps, name ?? '');
    const isRight = await isPasswordOf(deps, user, given.password);
    if (!user || !isRight) throw wrongPassword();
    await forgiveTry(deps, tried);
    return { subject: user.id, source: LOCAL, claims: claimsOf(user), organizations: [], userMac: user.mac };
  });
}

/** Whoever is not found here is no different from somebody who was and gave a wrong password. */
async function findSignable(deps: Deps, name: string): Promise<UserRow | null> {
  const { db, tables } = deps.store.read;
  const { users: u } = tables;
  const [user] = await db
    .select()
    .from(u)
    .where(and(eq(u.source, LOCAL), eq(u.source_subject, name)));
  return user && mayBeSignedIn(deps, user) ? user : null;
}
