import { join } from 'node:path';
import Database from 'better-sqlite3';
import { expect, it, onTestFinished } from 'vitest';
import { assertRoom, fill, keyValue } from '../../bench/fill.ts';
import { startCountersign } from '../../bench/processes.ts';
import { openStore } from '../../db/store.ts';
import { freshDatabase, freshFolder } from '../support/deps.ts';

it('fill() makes keys that verify like any other, each itself, under the same indexes', async () => {
  const dataDir = freshFolder();
  await fill(dataDir, 100, () => {});
  expect(indexesIn(join(dataDir, 'countersign.db'))).toEqual(await indexesAsMigrated());

  const server = await startCountersign({ dataDir });
  onTestFinished(() => server.stop());
  const answers = await server.admin.verifyBatch(
    [0, 41, 99].map((index) => ({ credential: keyValue(index), scopes: ['read', 'write'] })),
  );
  expect(answers).toMatchObject([
    { valid: true, name: 'key 0', subject: 'user_0' },
    { valid: true, name: 'key 41', subject: 'user_41' },
    { valid: true, name: 'key 99', subject: 'user_99' },
  ]);
  expect(await server.admin.verify({ credential: keyValue(100) })).toMatchObject({ reason: 'unknown' });
  const listed = await server.admin.apiKeys.list({ subject: 'user_41' });
  expect(listed.data).toMatchObject([{ name: 'key 41', start: keyValue(41).slice(0, 9), state: 'live' }]);
}, 120_000);

function indexesIn(file: string): unknown[] {
  const database = new Database(file, { readonly: true });
  onTestFinished(() => void database.close());
  expect(database.pragma('integrity_check', { simple: true })).toBe('ok');
  return database.prepare("SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name").all();
}

async function indexesAsMigrated(): Promise<unknown[]> {
  const location = await freshDatabase('sqlite');
  const store = await openStore({ location });
  await store.migrate();
  await store.close();
  return indexesIn(location);
}

it('assertRoom() refuses what the disk has no room for, and says how much it wanted', () => {
  expect(() => assertRoom(freshFolder(), 1)).not.toThrow();
  expect(() => assertRoom(freshFolder(), 1e12)).toThrow(/wanted 1500000\.0 GB free, found [\d.]+ GB; TMPDIR/);
});
