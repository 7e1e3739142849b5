import { sql } from 'drizzle-orm';
import type { Rows, Store } from './store.ts';

/**
 * Makes transactions that name the same thing follow one another: whoever comes second waits until the first has ended,
 * and then sees all it did. For what no row stands for that could be locked. SQLite has one writer, and so needs none.
 */
export async function lockName({ dialect }: Pick<Store, 'dialect'>, tx: Rows, name: string): Promise<void> {
  if (dialect !== 'postgres') return;
  await tx.db.execute(sql`select pg_advisory_xact_lock(hashtextextended(${name}, 0))`);
}
