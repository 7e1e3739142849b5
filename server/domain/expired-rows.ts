/** Rows that nobody asks for any more once an instant on them has passed. */
import { asc, type Column, inArray, lte, type Table } from 'drizzle-orm';
import type { Rows } from '../../db/store.ts';
import type { Deps } from '../deps.ts';

type ExpiringTable = Table & { id: Column; expires_at: Column };

/** Deletes some that have expired, the oldest first; answers how many. Where there are none, nobody waits for the writer. */
export async function deleteExpired(
  { store, now }: Pick<Deps, 'store' | 'now'>,
  table: ExpiringTable,
  limit: number,
): Promise<number> {
  const t = table as Rows['tables']['panelTokens'];
  const oldest = await store.read.db
    .select({ id: t.id })
    .from(t)
    .where(lte(t.expires_at, now()))
    .orderBy(asc(t.expires_at), asc(t.id))
    .limit(limit);
  const ids = oldest.map(({ id }) => id);
  if (ids.length > 0) await store.tx(({ db }) => db.delete(t).where(inArray(t.id, ids)), 'minting');
  return ids.length;
}
