/** Retention: M2M tokens leave the database once nothing is asked of them any more. */
import { and, asc, inArray, lte } from 'drizzle-orm';
import type { Deps } from '../deps.ts';

/**
 * How long after it expired a token can still be told from one that never was. A revocation outlives the expiry it
 * concerns, also by clocks that are behind ours.
 */
const KEPT_MS = 24 * 3_600_000;

/** Deletes up to `limit` tokens that expired over a day ago, the oldest first; answers how many. */
export async function deleteExpiredM2mTokens(
  { store, now }: Pick<Deps, 'store' | 'now'>,
  limit: number,
): Promise<number> {
  const { m2mTokens: t } = store.read.tables;
  const isOver = lte(t.expires_at, now() - KEPT_MS);
  const due = await store.read.db
    .select({ id: t.id })
    .from(t)
    .where(isOver)
    .orderBy(asc(t.expires_at), asc(t.id))
    .limit(limit);
  if (due.length === 0) return 0;
  const ids = due.map(({ id }) => id);
  const deleted = await store.tx(
    ({ db }) =>
      db
        .delete(t)
        .where(and(inArray(t.id, ids), isOver))
        .returning({ id: t.id }),
    'minting',
  );
  return deleted.length;
}
