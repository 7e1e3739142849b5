import { copyFileSync, readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { type SQL, sql } from 'drizzle-orm';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type Db, openStore, type Store } from '../../db/store.ts';
import { freshDatabase, freshFolder, openTestStore } from '../support/deps.ts';
import { addRow, rowIds } from './rows.ts';

/** SQLite's own words, on the connection that writes. */
const answers = (db: Db, statement: SQL) =>
  (db as unknown as { values(query: SQL): unknown[][] }).values(statement).flat();

async function openAt(location: string): Promise<Store> {
  const store = await openStore({ location });
  onTestFinished(() => store.close());
  await store.migrate();
  return store;
}

describe('closing a store on SQLite', () => {
  it('leaves everything in the one file: it can be copied alone', async () => {
    const location = await freshDatabase('sqlite');
    const store = await openAt(location);
    await store.tx((tx) => addRow(tx, 'a'));
    expect(await rowIds(store)).toEqual(['a']);
    await store.close();
    expect(readdirSync(dirname(location))).toEqual([basename(location)]);
    const copy = join(freshFolder(), 'copy.db');
    copyFileSync(location, copy);
    expect(await rowIds(await openAt(copy))).toEqual(['a']);
  });

  it('lets transactions that it accepted read outside themselves before', async () => {
    const store = await openTestStore('sqlite');
    const reading = store.tx(async () => rowIds(store));
    await store.close();
    expect(await reading).toEqual([]);
  });
});

describe('the write connection', () => {
  it('flushes every commit to the disk, holds foreign keys, and never waits on the event loop', async () => {
    const store = await openTestStore('sqlite');
    const pragma = (name: string) => store.tx(async ({ db }) => answers(db, sql.raw(`PRAGMA ${name}`)));
    expect(await pragma('journal_mode')).toEqual(['wal']);
    // FULL, by its number.
    expect(await pragma('synchronous')).toEqual([2]);
    expect(await pragma('foreign_keys')).toEqual([1]);
    expect(await pragma('busy_timeout')).toEqual([0]);
  });
});
