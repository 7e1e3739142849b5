import { like } from 'drizzle-orm';
import { expect, it, onTestFinished } from 'vitest';
import { openStore, storeFailure } from '../../db/store.ts';
import { startChild } from '../support/children.ts';
import { describeOnEachDialect, freshDatabase, openTestStore } from '../support/deps.ts';
import { readTableFiles } from '../support/table-files.ts';
import { addRow, rowIds, settle } from './rows.ts';

const WRITER = new URL('./writer-process.ts', import.meta.url);
const LOCK_HOLDER = new URL('./lock-process.ts', import.meta.url);

describeOnEachDialect('store', (dialect) => {
  async function openAt(location: string) {
    const store = await openStore({ location });
    onTestFinished(() => store.close());
    await store.migrate();
    return store;
  }

  it('tx() answers what its callback answered, and the rows are there for another opener', async () => {
    const location = await freshDatabase(dialect);
    const store = await openAt(location);
    expect(await store.tx((tx) => addRow(tx, 'a'))).toBe('a');
    expect(await rowIds(await openAt(location))).toEqual(['a']);
  });

  it('tx() rolls back a callback that throws, passes its error on, and leaves its neighbours alone', async () => {
    const store = await openTestStore(dialect);
    const failure = new Error('refused by the domain');
    const { acknowledged, refused } = await settle([
      store.tx((tx) => addRow(tx, 'before')),
      store.tx(async (tx) => {
        await addRow(tx, 'within');
        throw failure;
      }),
      store.tx((tx) => addRow(tx, 'after')),
    ]);
    expect(refused).toEqual([failure]);
    expect(refused[0]).toBe(failure);
    expect(acknowledged).toEqual(['after', 'before']);
    expect(await rowIds(store)).toEqual(acknowledged);
  });

  it('tx() rolls back a callback whose statement the database refused', async () => {
    const store = await openTestStore(dialect);
    await store.tx((tx) => addRow(tx, 'taken'));
    const duplicate = store.tx(async (tx) => {
      await addRow(tx, 'within');
      return addRow(tx, 'taken');
    });
    const error = await duplicate.catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(Error);
    expect(storeFailure(error)).toBeNull();
    expect(await rowIds(store)).toEqual(['taken']);
  });

  it('read sees only what is committed; a transaction sees its own rows', async () => {
    const store = await openTestStore(dialect);
    await store.tx(async (tx) => {
      await addRow(tx, 'a');
      expect(await rowIds(store)).toEqual([]);
      const { db, tables } = tx;
      expect(await db.select().from(tables.usage)).toHaveLength(1);
    });
    expect(await rowIds(store)).toEqual(['a']);
  });

  it('tx() lets none of many concurrent increments get lost', async () => {
    const store = await openTestStore(dialect);
    const { acknowledged } = await settle(
      Array.from({ length: 50 }, (_, i) => store.tx((tx) => addRow(tx, `${i}`))),
    );
    expect(acknowledged).toHaveLength(50);
    expect(await rowIds(store)).toEqual(acknowledged);
  });

  it('close() waits for the transactions it accepted and refuses later ones', async () => {
    const location = await freshDatabase(dialect);
    // Fewer connections than transactions: on PostgreSQL some of them are still waiting for one.
    const store = await openStore({ location, poolSize: 2 });
    await store.migrate();
    const accepted = Array.from({ length: 20 }, (_, i) => store.tx((tx) => addRow(tx, `${i}`)));
    const closed = store.close();
    const late = await store.tx((tx) => addRow(tx, 'late')).catch((error: unknown) => error);
    await closed;
    expect(storeFailure(late)).toBe('unavailable');
    const { acknowledged } = await settle(accepted);
    expect(acknowledged).toHaveLength(20);
    expect(await rowIds(await openAt(location))).toEqual(acknowledged);
  });

  it('exclusively() lets in one process at a time', async () => {
    const location = await freshDatabase(dialect);
    const holder = startChild(LOCK_HOLDER, location);
    await holder.line((line) => line === 'held');
    const store = await openAt(location);
    const entered = store.exclusively(async () => Date.now());
    holder.tell('still here');
    await holder.line((line) => line.startsWith('still here'));
    holder.tell('leave');
    const left = await holder.line((line) => line.startsWith('leave'));
    expect(await entered).toBeGreaterThanOrEqual(Number(left.split(' ')[1]));
  });

  it('exclusively() is free again when its holder was killed with SIGKILL, or threw', async () => {
    const location = await freshDatabase(dialect);
    const holder = startChild(LOCK_HOLDER, location);
    await holder.line((line) => line === 'held');
    const store = await openAt(location);
    const entered = store.exclusively(async () => 'in');
    await holder.kill();
    expect(await entered).toBe('in');
    await expect(store.exclusively(() => Promise.reject(new Error('failed')))).rejects.toThrow('failed');
    expect(await store.exclusively(async () => 'in again')).toBe('in again');
  });

  it('compact() leaves nothing in the files of what rows held before, and the rows as they are', async () => {
    const location = await freshDatabase(dialect);
    const store = await openAt(location);
    const ids = Array.from({ length: 300 }, (_, i) => `was-here-${i}`);
    for (const id of ids) await store.tx((tx) => addRow(tx, id));
    await store.tx(({ db, tables: { usage } }) =>
      db.delete(usage).where(like(usage.credential_id, 'was-here-%')),
    );
    await store.tx((tx) => addRow(tx, 'is-here'));
    expect((await readTableFiles(location, ['usage'])).includes('was-here-')).toBe(true);
    await store.compact(['usage']);
    const files = await readTableFiles(location, ['usage']);
    expect([files.includes('was-here-'), files.includes('is-here')]).toEqual([false, true]);
    expect(await rowIds(store)).toEqual(['is-here']);
    await store.tx((tx) => addRow(tx, 'still-written'));
  });

  it('every row acknowledged before kill -9 is there after it', { timeout: 60_000 }, async () => {
    const location = await freshDatabase(dialect);
    const acknowledged: string[] = [];
    for (const [round, killAfter] of [1, 40, 400].entries()) {
      const store = await openStore({ location });
      await store.migrate();
      await store.close();
      const writer = startChild(WRITER, location, `${round}`);
      await writer.line(() => writer.lines.length >= killAfter);
      await writer.kill();
      acknowledged.push(...writer.lines);
    }
    const there = new Set(await rowIds(await openAt(location)));
    expect(acknowledged.length).toBeGreaterThan(440);
    expect(acknowledged.filter((id) => !there.has(id))).toEqual([]);
  });
});
