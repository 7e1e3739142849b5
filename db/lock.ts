import { type SQL, sql } from 'drizzle-orm';
import type { Rows, Store } from './store.ts';

/**
 * Makes transactions that name the same thing follow one another: whoever comes second waits until the first has ended,
 * and then sees all it did. For what no row stands for that could be locked. SQLite has one writer, and so needs none.
 */
export function lockName({ dialect }: Pick<Store, 'dialect'>, tx: Rows, name: string): Promise<void> {
  return lock(dialect, tx, sql`select pg_advisory_xact_lock(hashtextextended(${name}, 0))`);
}

/** The same for those who may go together, if only none of them goes with somebody who locks the name for himself. */
export function shareName({ dialect }: Pick<Store, 'dialect'>, tx: Rows, name: string): Promise<void> {
  return lock(dialect, tx, sql`select pg_advisory_xact_lock_shared(hashtextextended(${name}, 0))`);
}

async function lock(dialect: Store['dialect'], tx: Rows, query: SQL): Promise<void> {
  if (dialect === 'postgres') await tx.db.execute(query);
}
