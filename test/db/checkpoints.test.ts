import { existsSync } from 'node:fs';
import Database from 'better-sqlite3';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { Checkpoints } from '../../db/checkpoints.ts';
import { openStore, type Store } from '../../db/store.ts';
import { freshDatabase } from '../support/deps.ts';
import { addRow, rowIds } from './rows.ts';

const BUSY_COMMITS = 50;

async function open(): Promise<{ store: Store; location: string }> {
  const location = await freshDatabase('sqlite');
  const store = await openStore({ location });
  onTestFinished(() => store.close());
  await store.migrate();
  return { store, location };
}

let rows = 0;
async function write(store: Store, transactions: number): Promise<string[]> {
  const ids = Array.from({ length: transactions }, () => `row ${String(rows++).padStart(6, '0')}`);
  for (const id of ids) await store.tx((tx) => addRow(tx, id));
  return ids;
}

/** Pages in the write-ahead log, and how many of them are in the file too. */
function lookAt(location: string): { log: number; checkpointed: number } {
  const connection = new Database(location);
  const [state] = connection.pragma('wal_checkpoint(NOOP)') as { log: number; checkpointed: number }[];
  connection.close();
  if (!state) throw new Error('Wanted the state of the log, found none');
  return state;
}

describe('the write-ahead log', () => {
  it('is copied on a thread while much is written, long before COMMIT would do so', async () => {
    const { store, location } = await open();
    await write(store, BUSY_COMMITS - 1);
    expect(lookAt(location)).toMatchObject({ checkpointed: 0 });
    await write(store, 100);
    await vi.waitFor(() => expect(lookAt(location).checkpointed).toBeGreaterThan(0));
    expect(lookAt(location).log).toBeLessThan(1_000);
  });

  it('is begun anew once it has a thousand pages, and nothing that was answered is lost', async () => {
    const { store, location } = await open();
    const written: string[] = [];
    let longest = 0;
    await vi.waitFor(
      async () => {
        written.push(...(await write(store, 100)));
        const { log } = lookAt(location);
        longest = Math.max(longest, log);
        expect(log).toBeLessThan(longest);
      },
      { timeout: 20_000, interval: 1 },
    );
    expect(await rowIds(store)).toEqual(written);
  });

  it('is in the file, which is whole without it, once the store is closed', async () => {
    const { store, location } = await open();
    const written = await write(store, 200);
    await store.close();
    expect(existsSync(`${location}-wal`)).toBe(false);
    const connection = new Database(location, { readonly: true });
    onTestFinished(() => void connection.close());
    expect(connection.pragma('integrity_check', { simple: true })).toBe('ok');
    expect(written).toHaveLength(200);
  });
});

describe('the thread', () => {
  it('begins under load and ends when nothing more is written, and COMMIT copies less only in between', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] });
    onTestFinished(() => void vi.useRealTimers());
    const limits: number[] = [];
    const checkpoints = new Checkpoints(await freshDatabase('sqlite'), (pages) => limits.push(pages));
    onTestFinished(() => checkpoints.close());
    for (let i = 0; i < BUSY_COMMITS - 1; i++) checkpoints.committed();
    vi.advanceTimersByTime(1_001);
    for (let i = 0; i < BUSY_COMMITS - 1; i++) checkpoints.committed();
    expect(limits).toEqual([]);
    checkpoints.committed();
    expect(limits).toEqual([8_000]);
    vi.advanceTimersByTime(4_999);
    expect(limits).toEqual([8_000]);
    vi.advanceTimersByTime(10_000);
    expect(limits).toEqual([8_000, 1_000]);
  });

  it('that cannot open the file is done without', async () => {
    const limits: number[] = [];
    const checkpoints = new Checkpoints('/nowhere/at/all.db', (pages) => limits.push(pages));
    onTestFinished(() => checkpoints.close());
    for (let i = 0; i < BUSY_COMMITS; i++) checkpoints.committed();
    await vi.waitFor(() => expect(limits).toEqual([8_000, 1_000]));
  });
});
