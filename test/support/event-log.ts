/** What tests ask of the log: that it has no gap, and that every event is chained to the one before. */
import { asc } from 'drizzle-orm';
import { expect } from 'vitest';
import type { Deps } from '../../server/deps.ts';
import { chainHash } from '../../server/domain/events.ts';

/** Computes the chain anew from the beginning; answers how many events there are. */
export async function expectChained({ store, keyring }: Pick<Deps, 'store' | 'keyring'>): Promise<number> {
  const { db, tables } = store.read;
  const rows = await db.select().from(tables.events).orderBy(asc(tables.events.seq));
  let previous: Buffer = Buffer.alloc(32);
  for (const [i, row] of rows.entries()) {
    expect(row.seq).toBe(i + 1);
    previous = chainHash(keyring.log, previous, row);
    expect(row.hash).toEqual(previous);
  }
  expect(await db.select().from(tables.eventHead)).toMatchObject([{ seq: rows.length, hash: previous }]);
  return rows.length;
}
