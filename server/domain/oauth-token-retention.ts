/** Retention: what OAuth leaves behind goes once nothing is asked of it any more, tokens first and then what they hung on. */
import { and, asc, eq, gt, inArray, lte, notExists, sql } from 'drizzle-orm';
import type { Rows } from '../../db/store.ts';
import type { Deps } from '../deps.ts';
import { deleteExpired } from './expired-rows.ts';
import { KEPT_MS } from './m2m-token-retention.ts';

type RetentionDeps = Pick<Deps, 'store' | 'now'>;

/**
 * Deletes up to `limit` each of access tokens, codes and refresh tokens that expired over a day ago; answers how many. Until
 * then a second use of a code or refresh token is known for one.
 */
export async function deleteExpiredOauthTokens(deps: RetentionDeps, limit: number): Promise<number> {
  const { oauthTokens, oauthCodes, oauthRefreshTokens } = deps.store.read.tables;
  let count = 0;
  for (const table of [oauthTokens, oauthCodes, oauthRefreshTokens])
    count += await deleteExpired(deps, table, limit, KEPT_MS);
  return count;
}

/** Deletes up to `limit` each of what is for minutes or days only, once its time is over; answers how many. */
export async function deleteExpiredUserRows(deps: RetentionDeps, limit: number): Promise<number> {
  const { oauthInteractions, userSessions, userInvitations, signInFailures, initialAccessTokens } =
    deps.store.read.tables;
  let count = 0;
  for (const table of [oauthInteractions, userSessions, userInvitations, signInFailures, initialAccessTokens])
    count += await deleteExpired(deps, table, limit);
  return count;
}

/** Where a pass goes on. */
export interface GrantKey {
  createdAt: number;
  id: string;
}

/**
 * Deletes of up to `limit` grants those that no code and no token is left of: what was allowed, and how it ended, is in the
 * log. Answers how many, and where to go on; null at the end.
 */
export async function deleteSpentGrants(
  { store, now }: RetentionDeps,
  after: GrantKey | null,
  limit: number,
): Promise<{ count: number; next: GrantKey | null }> {
  const { oauthGrants: g } = store.read.tables;
  const page = await store.read.db
    .select({ id: g.id, createdAt: g.created_at })
    .from(g)
    // One that was just made may have its code written in this moment.
    .where(and(lte(g.created_at, now() - KEPT_MS), after ? isAfter(g, after) : undefined))
    .orderBy(asc(g.created_at), asc(g.id))
    .limit(limit);
  const next = page.length < limit ? null : (page.at(-1) ?? null);
  const ids = page.map(({ id }) => id);
  if (ids.length === 0) return { count: 0, next };
  const spent = await spentAmong(store.read, ids);
  if (spent.length === 0) return { count: 0, next };
  const deleted = await store.tx(
    (tx) =>
      tx.db
        .delete(g)
        .where(and(inArray(g.id, spent), hasNothingLeft(tx)))
        .returning({ id: g.id }),
    'sweeping',
  );
  return { count: deleted.length, next };
}

const isAfter = (g: Rows['tables']['oauthGrants'], { createdAt, id }: GrantKey) =>
  sql`(${g.created_at}, ${g.id}) > (${createdAt}, ${id})`;

/** Looked for first, so that nobody waits for the writer where there are none. */
async function spentAmong(rows: Rows, ids: string[]): Promise<string[]> {
  const { oauthGrants: g } = rows.tables;
  const spent = await rows.db
    .select({ id: g.id })
    .from(g)
    .where(and(inArray(g.id, ids), hasNothingLeft(rows)));
  return spent.map(({ id }) => id);
}

function hasNothingLeft({ db, tables }: Rows) {
  const { oauthGrants: g, oauthCodes: c, oauthRefreshTokens: r, oauthTokens: t } = tables;
  return and(
    ...[c, r, t].map((table) => {
      const of = table as typeof c;
      return notExists(db.select({ id: of.id }).from(of).where(eq(of.grant_id, g.id)));
    }),
  );
}

/** Deletes of up to `limit` remembered consents those to applications that are gone. Answers as `deleteSpentGrants`. */
export async function deleteOrphanedConsents(
  { store }: RetentionDeps,
  after: string,
  limit: number,
): Promise<{ count: number; next: string | null }> {
  const { oauthConsents: c, oauthApplications: a } = store.read.tables;
  const page = await store.read.db
    .select({ id: c.id, application: a.id })
    .from(c)
    .leftJoin(a, eq(a.id, c.application_id))
    .where(gt(c.id, after))
    .orderBy(asc(c.id))
    .limit(limit);
  const next = page.length < limit ? null : (page.at(-1)?.id ?? null);
  const ids = page.filter(({ application }) => application === null).map(({ id }) => id);
  if (ids.length > 0) await store.tx(({ db }) => db.delete(c).where(inArray(c.id, ids)), 'sweeping');
  return { count: ids.length, next };
}
