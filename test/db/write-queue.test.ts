import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { type SQL, sql } from 'drizzle-orm';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  type Db,
  type Lane,
  openStore,
  type Rows,
  type Store,
  StoreError,
  type StoreOptions,
  storeFailure,
} from '../../db/store.ts';
import { freshDatabase, openTestStore } from '../support/deps.ts';
import { smallDisk, whyNoSmallDisk } from '../support/small-disk.ts';
import { addRow, rowIds, settle } from './rows.ts';

/** SQLite's own words, on the connection that writes. */
const run = (db: Db, statement: SQL) => (db as unknown as { run(query: SQL): unknown }).run(statement);

async function openAt(location: string, options: Partial<StoreOptions> = {}): Promise<Store> {
  const store = await openStore({ location, ...options });
  onTestFinished(() => store.close());
  await store.migrate();
  return store;
}

describe('group commit', () => {
  it('answers everyone of a batch in which a member cannot be undone alone, and keeps what it acknowledged', async () => {
    const store = await openTestStore('sqlite');
    const neighbour = store.tx((tx) => addRow(tx, 'neighbour'));
    const spoil = store.tx(async (tx) => {
      await addRow(tx, 'spoilt');
      // Takes away the savepoint to which the queue would go back.
      run(tx.db, sql.raw('RELEASE member'));
      throw new Error('spoilt');
    });
    const { acknowledged, refused } = await settle([neighbour, spoil.then(() => 'spoilt')]);
    // The neighbour shares its fate, unless a slow machine put it into a batch of its own.
    expect(acknowledged).not.toContain('spoilt');
    expect(acknowledged.length + refused.length).toBe(2);
    expect(await rowIds(store)).toEqual(acknowledged);
    await store.tx((tx) => addRow(tx, 'next'));
    expect(await rowIds(store)).toContain('next');
  });

  it('answers each of many waiting transactions, and commits fewer times than there are', async () => {
    const location = await freshDatabase('sqlite');
    const carried: number[] = [];
    const store = await openStore({ location, onCommit: (transactions) => carried.push(transactions) });
    onTestFinished(() => store.close());
    await store.migrate();
    const { acknowledged } = await settle(
      Array.from({ length: 64 }, (_, i) => store.tx((tx) => addRow(tx, `${i}`))),
    );
    expect(acknowledged).toHaveLength(64);
    expect(carried.reduce((sum, transactions) => sum + transactions)).toBe(64);
    expect(carried.length).toBeLessThan(64);
  });

  it.each([
    ['minting', 'sweeping'],
    ['normal', 'claiming'],
  ] as const)(
    'lets none of a lane wait for ever beside a flood of its rank: %s, %s',
    async (flood, waiting) => {
      const store = await openTestStore('sqlite');
      // Each takes a millisecond, so that a batch has room for four.
      let now = 0;
      const clock = vi.spyOn(performance, 'now').mockImplementation(() => now);
      onTestFinished(() => clock.mockRestore());
      let added = 0;
      let mayAdd = 1_000;
      const flooding = Array.from({ length: 64 }, async () => {
        while (mayAdd-- > 0) {
          await store.tx(async (tx) => {
            now += 1;
            await addRow(tx, `${added++}`);
          }, flood);
        }
      });
      await store.tx((tx) => addRow(tx, 'waits'), waiting);
      const before = added;
      await Promise.all(flooding);
      expect({ before: before < 128, added }).toEqual({ before: true, added: 1_000 });
    },
  );

  it('commits what must survive a loss of power as such, also where it came while another process held the lock', async () => {
    const location = await freshDatabase('sqlite');
    const store = await openAt(location);
    const other = new Database(location);
    onTestFinished(() => void other.close());
    other.exec('BEGIN IMMEDIATE');
    const level = (lane: Lane) =>
      store.tx(async ({ db }) => {
        const answered = (db as unknown as { values(query: SQL): unknown[][] }).values(
          sql.raw('PRAGMA synchronous'),
        );
        return answered[0]?.[0];
      }, lane);
    const sweep = level('sweeping');
    await sleep(50);
    const revocation = level('revocation');
    await sleep(20);
    other.exec('ROLLBACK');
    expect(await Promise.all([sweep, revocation])).toEqual([2, 2]);
  });

  it.each([
    ['four of a millisecond each', 1, [4, 4]],
    ['one that takes longer than a batch may', 5, [1, 1, 1, 1, 1, 1, 1, 1]],
    ['as many as wait when they take no time', 0, [8]],
  ])('takes into one batch %s', async (_, milliseconds, expected) => {
    const location = await freshDatabase('sqlite');
    const carried: number[] = [];
    const store = await openStore({ location, onCommit: (transactions) => carried.push(transactions) });
    onTestFinished(() => store.close());
    await store.migrate();
    let now = 0;
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => now);
    onTestFinished(() => clock.mockRestore());
    const waiting = Array.from({ length: 8 }, (_, i) =>
      store.tx(async (tx) => {
        now += milliseconds;
        return addRow(tx, `${i}`);
      }),
    );
    await Promise.all(waiting);
    expect(carried).toEqual(expected);
  });

  it('commits what is unhurried with the next that is not, and by itself when nothing else comes or many wait', async () => {
    const location = await freshDatabase('sqlite');
    const carried: number[] = [];
    const store = await openStore({ location, onCommit: (transactions) => carried.push(transactions) });
    onTestFinished(() => store.close());
    await store.migrate();
    const unhurried = (count: number) =>
      Array.from({ length: count }, (_, i) =>
        store.tx((tx) => addRow(tx, `${carried.length} ${i}`), 'unhurried'),
      );

    // No time passes, so that nobody loses patience, however busy the machine is.
    const withoutTime = () => vi.useFakeTimers({ toFake: ['setTimeout', 'performance'] });
    onTestFinished(() => void vi.useRealTimers());
    withoutTime();
    const accompanied = unhurried(2);
    await new Promise(setImmediate);
    await new Promise(setImmediate);
    expect(carried).toEqual([]);
    await Promise.all([...accompanied, store.tx((tx) => addRow(tx, 'hurried'))]);
    expect(carried).toEqual([3]);

    vi.useRealTimers();
    await Promise.all(unhurried(1));
    expect(carried).toEqual([3, 1]);

    withoutTime();
    await Promise.all(unhurried(8));
    expect(carried).toEqual([3, 1, 8]);
  });

  it('commits what is unhurried before it closes', async () => {
    const location = await freshDatabase('sqlite');
    const store = await openStore({ location });
    await store.migrate();
    vi.useFakeTimers({ toFake: ['setTimeout'] });
    onTestFinished(() => void vi.useRealTimers());
    const waiting = store.tx((tx) => addRow(tx, 'last'), 'unhurried');
    await store.close();
    await waiting;
    vi.useRealTimers();
    expect(await rowIds(await openAt(location))).toEqual(['last']);
  });

  it('runs revocations before all else and minting last, each in the order they came', async () => {
    const store = await openTestStore('sqlite');
    const order: string[] = [];
    const note = (name: string) => async () => void order.push(name);
    await Promise.all([
      store.tx(note('mint 1'), 'minting'),
      store.tx(note('mint 2'), 'minting'),
      store.tx(note('record 1'), 'unhurried'),
      store.tx(note('change 1')),
      store.tx(note('revoke 1'), 'revocation'),
      store.tx(note('change 2')),
      store.tx(note('revoke 2'), 'revocation'),
    ]);
    expect(order).toEqual(['revoke 1', 'revoke 2', 'change 1', 'change 2', 'record 1', 'mint 1', 'mint 2']);
  });
});

describe('the guard', () => {
  it('refuses a transaction that awaits a timer, commits its neighbours, and the store works afterwards', async () => {
    const store = await openTestStore('sqlite');
    const { acknowledged, refused } = await settle([
      store.tx((tx) => addRow(tx, 'before')),
      store.tx(async (tx) => {
        await addRow(tx, 'within');
        await sleep(20);
        return 'within';
      }),
      store.tx((tx) => addRow(tx, 'after')),
    ]);
    expect(refused).toEqual([new Error('A transaction may await nothing but the database')]);
    expect(acknowledged).toEqual(['after', 'before']);
    expect(await rowIds(store)).toEqual(acknowledged);
  });

  it('keeps a refused transaction that goes on from writing into a later one', async () => {
    const store = await openTestStore('sqlite');
    const held: Rows[] = [];
    const culprit = store.tx(async (tx) => {
      held.push(tx);
      await sleep(20);
    });
    await expect(culprit).rejects.toThrow('nothing but the database');
    await store.tx(async (tx) => {
      for (const rows of held) {
        expect(await addRow(rows, 'late').catch((error: unknown) => error)).toBeInstanceOf(Error);
      }
      await addRow(tx, 'b');
    });
    expect(await rowIds(store)).toEqual(['b']);
  });
});

describe('the read connection', () => {
  it('cannot write', async () => {
    const store = await openTestStore('sqlite');
    const error = await addRow(store.read, 'a').catch((cause: unknown) => cause);
    expect(error).toMatchObject({ code: 'SQLITE_READONLY' });
    expect(await rowIds(store)).toEqual([]);
  });
});

describe("another process's write lock", () => {
  it('is waited for', async () => {
    const location = await freshDatabase('sqlite');
    const store = await openAt(location, { lockTimeoutMs: 20_000 });
    const other = new Database(location);
    onTestFinished(() => void other.close());
    other.exec('BEGIN IMMEDIATE');
    let settled = false;
    const write = store
      .tx((tx) => addRow(tx, 'a'))
      .finally(() => {
        settled = true;
      });
    await sleep(50);
    expect(settled).toBe(false);
    other.exec('COMMIT');
    expect(await write).toBe('a');
  });

  it('is reported as unavailable to all who waited, once it has been held for too long', async () => {
    const location = await freshDatabase('sqlite');
    const store = await openAt(location, { lockTimeoutMs: 30 });
    const other = new Database(location);
    onTestFinished(() => void other.close());
    other.exec('BEGIN IMMEDIATE');
    const { refused } = await settle([store.tx((tx) => addRow(tx, 'a')), store.tx((tx) => addRow(tx, 'b'))]);
    expect(refused.map(storeFailure)).toEqual(['unavailable', 'unavailable']);
    expect(refused[0]).toBeInstanceOf(StoreError);
    other.exec('COMMIT');
    await store.tx((tx) => addRow(tx, 'c'));
    expect(await rowIds(store)).toEqual(['c']);
  });
});

describe('a full disk in the middle of a batch', () => {
  it('takes no more than revocations then, also of what begins while one is made', async () => {
    // More than any disk has room for.
    const store = await openAt(await freshDatabase('sqlite'), { reserveBytes: 2 ** 50 });
    await store.migrate();
    // No time passes, or the batch might take no more transactions.
    const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now());
    onTestFinished(() => clock.mockRestore());
    const joining: Promise<unknown>[] = [];
    const revoked = store.tx(async (tx) => {
      for (const lane of ['claiming', 'revocation'] as const)
        joining.push(store.tx((own) => addRow(own, lane), lane).catch(storeFailure));
      await addRow(tx, 'first');
    }, 'revocation');
    await revoked;
    expect(await Promise.all(joining)).toEqual(['full', 'revocation']);
    expect(await rowIds(store)).toEqual(['first', 'revocation']);
  });

  const BIG = 'x'.repeat(3_000_000);

  /** Small transactions around big ones; each caller must be answered, and exactly what was acknowledged be there. */
  async function writeAround(store: Store, big: number) {
    const transactions = Array.from({ length: 40 }, (_, i) =>
      store.tx((tx) => addRow(tx, i % 10 === 4 ? `${i}${BIG.slice(0, big)}` : `${i}`)),
    );
    const outcome = await settle(transactions);
    expect(await rowIds(store)).toEqual(outcome.acknowledged);
    return outcome;
  }

  it('answers every caller; what was acknowledged is there, what was refused is not', async () => {
    const store = await openTestStore('sqlite');
    await store.tx(async ({ db }) => run(db, sql`PRAGMA max_page_count = 300`));
    const { acknowledged, refused } = await writeAround(store, 3_000_000);
    expect(acknowledged.length + refused.length).toBe(40);
    expect(refused.length).toBeGreaterThanOrEqual(4);
    expect(new Set(refused.map(storeFailure))).toEqual(new Set(['full']));

    await store.tx(async ({ db }) => run(db, sql`PRAGMA max_page_count = 100000`));
    await store.tx((tx) => addRow(tx, 'room again'));
    expect(await rowIds(store)).toContain('room again');
  });

  it('refuses the whole transaction whose callback went on after the refused statement', async () => {
    const store = await openTestStore('sqlite');
    await store.tx(async ({ db }) => run(db, sql`PRAGMA max_page_count = 300`));
    const { refused } = await settle([
      store.tx(async (tx) => {
        await addRow(tx, BIG).catch(() => {});
        return addRow(tx, 'alone');
      }),
      store.tx(async (tx) => {
        const [, second] = await Promise.all([addRow(tx, BIG), addRow(tx, 'beside')]);
        return second;
      }),
    ]);
    expect(refused).toHaveLength(2);
    expect(await rowIds(store)).toEqual([]);
  });

  const tmpfs = whyNoSmallDisk();

  it.skipIf(tmpfs !== null)(
    `holds on a file system that is really full${tmpfs === null ? '' : ` [skipped: ${tmpfs}]`}`,
    async () => {
      const store = await openAt(`${smallDisk(2).folder}/countersign.db`);
      await store.migrate();
      const { refused } = await writeAround(store, 1_500_000);
      expect(refused.length).toBeGreaterThan(0);
      expect(new Set(refused.map(storeFailure))).toEqual(new Set(['full']));
    },
  );

  it.skipIf(tmpfs !== null)(
    `leaves revocations their reserve, and everybody else as soon as there is room again${tmpfs === null ? '' : ` [skipped: ${tmpfs}]`}`,
    async () => {
      const disk = smallDisk(8);
      const store = await openAt(`${disk.folder}/countersign.db`, { reserveBytes: 2 << 20 });
      await store.tx((tx) => addRow(tx, 'before'));
      expect(store.isFull()).toBe(false);
      disk.fill();
      const row = BIG.slice(0, 20_000);
      const mixed = (round: number) =>
        Array.from({ length: 12 }, (_, i) =>
          store.tx((tx) => addRow(tx, `${round}-${i}${row}`), LANES[i % LANES.length]),
        );
      const first = await settle(mixed(1));
      // SQLite's log had some room left: but no revocation is refused, and soon everything else is.
      expect(first.refused.length).toBeGreaterThan(0);
      expect(new Set(first.refused.map(storeFailure))).toEqual(new Set(['full']));
      expect(first.acknowledged.filter((id) => isRevocation(id))).toHaveLength(4);
      expect(store.isFull()).toBe(true);
      const second = await settle(mixed(2));
      expect(second.acknowledged.every(isRevocation)).toBe(true);
      expect(second.acknowledged).toHaveLength(4);
      expect(await rowIds(store)).toEqual(['before', ...first.acknowledged, ...second.acknowledged].sort());

      disk.makeRoom();
      expect((await settle(mixed(3))).refused).toEqual([]);
      expect(store.isFull()).toBe(false);
    },
  );

  const LANES = ['normal', 'revocation', 'minting'] as const;
  const isRevocation = (id: string) => Number(/^\d-(\d+)/.exec(id)?.[1]) % LANES.length === 1;
});
