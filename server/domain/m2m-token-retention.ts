/** Retention: M2M tokens leave the database once nothing is asked of them any more, and status lists after them. */
import { and, asc, eq, gt, inArray, notExists } from 'drizzle-orm';
import type { Rows } from '../../db/store.ts';
import type { Deps } from '../deps.ts';
import { deleteExpired } from './expired-rows.ts';
import { BLOCK_HELD_MS_MAX, BLOCKS_OF_LIST } from './status-indexes.ts';

/**
 * How long after it expired a token can still be told from one that never was. A revocation outlives the expiry it
 * concerns, also by clocks that are behind ours.
 */
export const KEPT_MS = 24 * 3_600_000;

/** Deletes up to `limit` tokens that expired over a day ago, the oldest first; answers how many. */
export const deleteExpiredM2mTokens = (deps: Pick<Deps, 'store' | 'now'>, limit: number) =>
  deleteExpired(deps, deps.store.read.tables.m2mTokens, limit, KEPT_MS);

/** Twice as long as a process hands out what it took: its clock may be another. */
const UNTAKEN_MS = 2 * BLOCK_HELD_MS_MAX;

/**
 * Deletes of up to `limit` status lists those of which no index is handed out any more and no token has one; a token's row
 * outlives the token, however long it lives. Answers how many, and the id to go on after; null at the end.
 */
export async function deleteUnusedStatusLists(
  { store, now }: Pick<Deps, 'store' | 'now'>,
  after: string,
  limit: number,
): Promise<{ count: number; next: string | null }> {
  const { statusLists: l } = store.read.tables;
  const page = await store.read.db
    .select({ id: l.id, takenAt: l.updated_at })
    .from(l)
    .where(and(eq(l.blocks_taken, BLOCKS_OF_LIST), gt(l.id, after)))
    .orderBy(asc(l.id))
    .limit(limit);
  const next = page.length < limit ? null : (page.at(-1)?.id ?? null);
  const untaken = page.filter(({ takenAt }) => takenAt <= now() - UNTAKEN_MS).map(({ id }) => id);
  if (untaken.length === 0) return { count: 0, next };
  const deleted = await store.tx(
    (tx) =>
      tx.db
        .delete(l)
        .where(and(inArray(l.id, untaken), hasNoTokens(tx)))
        .returning({ id: l.id }),
    'sweeping',
  );
  return { count: deleted.length, next };
}

const hasNoTokens = ({ db, tables: { m2mTokens: m, oauthTokens: o, statusLists: l } }: Rows) =>
  and(
    notExists(db.select({ id: m.id }).from(m).where(eq(m.status_list_id, l.id))),
    notExists(db.select({ id: o.id }).from(o).where(eq(o.status_list_id, l.id))),
  );
