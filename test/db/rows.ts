/** The simplest rows there are, for tests of the store: lines of `usage`, told apart by their id. */
import { eq } from 'drizzle-orm';
import type { Rows, Store } from '../../db/store.ts';

export async function addRow({ db, tables }: Rows, id: string): Promise<string> {
  await db.insert(tables.usage).values({ credential_id: id, hour: 0, valid_count: 0, refused_count: 0 });
  return id;
}

/** Changes a row, and so locks it until the transaction ends. */
export async function touchRow({ db, tables }: Rows, id: string): Promise<void> {
  await db.update(tables.usage).set({ valid_count: 1 }).where(eq(tables.usage.credential_id, id));
}

/** The ids of the rows that whoever reads outside a transaction sees. */
export async function rowIds(store: Store): Promise<string[]> {
  const { db, tables } = store.read;
  const rows = await db.select({ id: tables.usage.credential_id }).from(tables.usage);
  return rows.map((row) => row.id).sort();
}

/** What became of many transactions at once: the ids acknowledged, and the errors of the rest. */
export async function settle(transactions: Promise<string>[]) {
  const outcomes = await Promise.allSettled(transactions);
  return {
    acknowledged: outcomes.flatMap((o) => (o.status === 'fulfilled' ? [o.value] : [])).sort(),
    refused: outcomes.flatMap((o) => (o.status === 'rejected' ? [o.reason as unknown] : [])),
  };
}
