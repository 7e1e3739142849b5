import { eq, sql } from 'drizzle-orm';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { openStore, type Rows, type Store, storeFailure } from '../../db/store.ts';
import { freshDatabase, openTestStore } from '../support/deps.ts';
import { freePort } from '../support/services.ts';
import { addRow, rowIds, settle, touchRow } from './rows.ts';

const { url, missing } = inject('postgres');

const failureOf = async (work: Promise<unknown>) =>
  storeFailure(
    await work.then(
      () => 'no error',
      (error: unknown) => error,
    ),
  );

describe.skipIf(!url)(`the store on PostgreSQL${url ? '' : ` [skipped: ${missing}]`}`, () => {
  it('reports a server that cannot be reached as unavailable, reading and writing', async () => {
    const store = openStore({ location: `postgres://postgres@127.0.0.1:${await freePort()}/none` });
    onTestFinished(() => store.close());
    expect(await failureOf(store.tx((tx) => addRow(tx, 'a')))).toBe('unavailable');
    expect(await failureOf(rowIds(store))).toBe('unavailable');
    expect(await failureOf(store.exclusively(async () => {}))).toBe('unavailable');
  });

  it('reports a database that does not exist as unavailable', async () => {
    const store = openStore({ location: `${url}/does_not_exist` });
    onTestFinished(() => store.close());
    expect(await failureOf(rowIds(store))).toBe('unavailable');
  });

  it('reports a backend that ends within a transaction as unavailable, keeps nothing of it, and goes on', async () => {
    const store = await openTestStore('postgres');
    const cut = store.tx(async (tx) => {
      await addRow(tx, 'cut');
      await tx.db.execute(sql`select pg_terminate_backend(pg_backend_pid())`);
    });
    expect(await failureOf(cut)).toBe('unavailable');
    await store.tx((tx) => addRow(tx, 'next'));
    expect(await rowIds(store)).toEqual(['next']);
  });

  it('survives every connection of its pool being ended, idle or in use', async () => {
    const store = await openTestStore('postgres');
    const others = sql`select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid()`;
    await settle(Array.from({ length: 5 }, (_, i) => store.tx((tx) => addRow(tx, `${i}`))));
    await Promise.all([
      store.tx((tx) => tx.db.execute(others)).catch(() => {}),
      store.tx((tx) => tx.db.execute(sql`select pg_sleep(0.2)`)).catch(() => {}),
    ]);
    const retried = await settle(Array.from({ length: 20 }, (_, i) => store.tx((tx) => addRow(tx, `b${i}`))));
    expect(new Set(retried.refused.map(storeFailure)).size).toBeLessThanOrEqual(1);
    expect((await rowIds(store)).filter((id) => id.startsWith('b'))).toEqual(retried.acknowledged);
    await store.tx((tx) => addRow(tx, 'next'));
  });

  it('refuses writers that wait too long for a lock, and reads go on meanwhile', async () => {
    const location = await freshDatabase('postgres');
    const holder = openStore({ location });
    const store = openStore({ location, poolSize: 4, lockTimeoutMs: 300 });
    onTestFinished(async () => {
      await Promise.all([holder.close(), store.close()]);
    });
    await holder.tx((tx) => addRow(tx, 'wanted'));
    let letGo = () => {};
    const held = holder.tx(async (tx) => {
      await touchRow(tx, 'wanted');
      await new Promise<void>((resolve) => {
        letGo = resolve;
      });
    });
    const waiting = Array.from({ length: 12 }, () => failureOf(store.tx((tx) => touchRow(tx, 'wanted'))));
    expect(await rowIds(store)).toEqual(['wanted']);
    expect(new Set(await Promise.all(waiting))).toEqual(new Set(['unavailable']));
    letGo();
    await held;
    await store.tx((tx) => touchRow(tx, 'wanted'));
  });

  it('gives every connection back, whatever becomes of its transaction', async () => {
    const store = await openTestStore('postgres');
    for (let i = 0; i < 12; i++) {
      await failureOf(store.tx(() => Promise.reject(new Error('refused by the domain'))));
      await failureOf(store.tx((tx) => tx.db.execute(sql`select pg_terminate_backend(pg_backend_pid())`)));
    }
    await store.tx((tx) => addRow(tx, 'a'));
    expect(await rowIds(store)).toEqual(['a']);
  });

  it('does not report a transaction as committed that went on after a statement had failed', async () => {
    const store = await openTestStore('postgres');
    await store.tx((tx) => addRow(tx, 'taken'));
    const regardless = store.tx(async (tx) => {
      await addRow(tx, 'within');
      await addRow(tx, 'taken').catch(() => {});
    });
    await expect(regardless).rejects.toThrow('after one of its statements had failed');
    expect(await rowIds(store)).toEqual(['taken']);
  });

  it('runs a transaction again that was the victim of a deadlock', async () => {
    const store = await openTestStore('postgres');
    await store.tx((tx) => addRow(tx, 'a'));
    await store.tx((tx) => addRow(tx, 'b'));
    const bothHoldOne = barrier(2);
    let runs = 0;
    const increment = (first: string, second: string) =>
      store.tx(async (tx) => {
        runs++;
        await bump(tx, first);
        await bothHoldOne();
        await bump(tx, second);
      });
    await Promise.all([increment('a', 'b'), increment('b', 'a')]);
    expect(runs).toBeGreaterThan(2);
    expect(await counts(store)).toEqual([2, 2]);
  });
});

/** Resolves for all once that many have come, and at once for whoever comes later. */
function barrier(parties: number): () => Promise<void> {
  let open: () => void;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  let arrived = 0;
  return () => {
    if (++arrived === parties) open();
    return opened;
  };
}

async function bump({ db, tables }: Rows, id: string) {
  const { usage } = tables;
  await db
    .update(usage)
    .set({ valid_count: sql`${usage.valid_count} + 1` })
    .where(eq(usage.credential_id, id));
}

async function counts(store: Store): Promise<number[]> {
  const { db, tables } = store.read;
  return (await db.select().from(tables.usage)).map((row) => row.valid_count);
}
