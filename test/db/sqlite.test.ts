import { copyFileSync, readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { type SQL, sql } from 'drizzle-orm';
import { describe, expect, it, onTestFinished } from 'vitest';
import { type Db, type Lane, openStore, type Store } from '../../db/store.ts';
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

/** By its number: https://www.sqlite.org/pragma.html#pragma_synchronous. */
const SYNCHRONOUS = { FULL: 2 };

describe('the write connection', () => {
  it('logs ahead, holds foreign keys, and never waits on the event loop', async () => {
    const store = await openTestStore('sqlite');
    const pragma = (name: string) => store.tx(async ({ db }) => answers(db, sql.raw(`PRAGMA ${name}`)));
    expect(await pragma('journal_mode')).toEqual(['wal']);
    expect(await pragma('foreign_keys')).toEqual([1]);
    expect(await pragma('busy_timeout')).toEqual([0]);
  });

  it('waits for the disk at every commit but one of nothing else than what is done again if it is lost', async () => {
    const store = await openTestStore('sqlite');
    const flushes = async (lane: Lane) =>
      store.tx(async ({ db }) => {
        const [level] = answers(db, sql.raw('PRAGMA synchronous'));
        return `${lane} ${level === SYNCHRONOUS.FULL}`;
      }, lane);
    const alone: string[] = [];
    for (const lane of ['sweeping', 'revocation', 'claiming', 'normal', 'unhurried', 'minting'] as const)
      alone.push(await flushes(lane));
    expect(alone).toEqual([
      'sweeping false',
      'revocation true',
      'claiming false',
      'normal true',
      'unhurried false',
      'minting true',
    ]);
    const together = await Promise.all([flushes('sweeping'), flushes('claiming'), flushes('minting')]);
    expect(together).toEqual(['sweeping true', 'claiming true', 'minting true']);
  });
});
