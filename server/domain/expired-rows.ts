/** Rows that nobody asks for any more once an instant on them has passed. */
import { and, asc, type Column, inArray, lte, type Table } from 'drizzle-orm';
import type { Rows } from '../../db/store.ts';
import type { Deps } from '../deps.ts';

type ExpiringTable = Table & { id: Column; expires_at: Column };

/**
 * Deletes some that expired `keptMs` ago, the oldest first; answers how many were due. Where there are none, nobody waits for
 * the writer.
 */
export async function deleteExpired(
  { store, now }: Pick<Deps, 'store' | 'now'>,
  table: ExpiringTable,
  limit: number,
  keptMs = 0,
): Promise<number> {
  const t = table as Rows['tables']['panelTokens'];
  const isOver = lte(t.expires_at, now() - keptMs);
  const oldest = await store.read.db
    .select({ id: t.id })
    .from(t)
    .where(isOver)
    .orderBy(asc(t.expires_at), asc(t.id))
    .limit(limit);
  const ids = oldest.map(({ id }) => id);
  // Some may have been given more time since.
  if (ids.length > 0)
    await store.tx(({ db }) => db.delete(t).where(and(inArray(t.id, ids), isOver)), 'sweeping');
  return ids.length;
}
