import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { eq, sql } from 'drizzle-orm';
import pg from 'pg';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import { type Lane, openStore, type Rows, type Store, storeFailure } from '../../db/store.ts';
import { freshDatabase, openTestStore } from '../support/deps.ts';
import { freePort } from '../support/services.ts';
import { readTableFiles } from '../support/table-files.ts';
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
    const store = await openStore({ location: `postgres://postgres@127.0.0.1:${await freePort()}/none` });
    onTestFinished(() => store.close());
    expect(await failureOf(store.tx((tx) => addRow(tx, 'a')))).toBe('unavailable');
    expect(await failureOf(rowIds(store))).toBe('unavailable');
    expect(await failureOf(store.exclusively(async () => {}))).toBe('unavailable');
  });

  it('reports a database that does not exist as unavailable', async () => {
    const store = await openStore({ location: `${url}/does_not_exist` });
    onTestFinished(() => store.close());
    expect(await failureOf(rowIds(store))).toBe('unavailable');
  });

  it('gives each of many reads of one statement the rows it asked for, or what is wrong with it', async () => {
    const { read } = await openTestStore('postgres');
    const text =
      'select $1::text, $2::text from generate_series(1, $3::bigint) where $4::boolean is not false';
    const select = read.prepare('merged', text);
    const asked = Array.from({ length: 150 }, (_, i) => [`${i}`, i % 2 ? null : 'even', i % 3, true]);
    const found = await Promise.all(asked.map((values) => select(values)));
    expect(found).toEqual(asked.map(([a, b, times]) => Array.from({ length: Number(times) }, () => [a, b])));
    const divide = read.prepare('divided', 'select 1 / $1::bigint');
    const outcomes = await Promise.allSettled([divide([1]), divide([0])]);
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    expect(await divide([1])).toEqual([['1']]);
  });

  it('waits for the disk at every commit but those of what is done again if it is lost', async () => {
    const store = await openTestStore('postgres');
    const flushes = async (lane: Lane) =>
      store.tx(async ({ db }) => {
        const { rows } = (await db.execute(sql`show synchronous_commit`)) as unknown as {
          rows: { synchronous_commit: string }[];
        };
        return `${lane} ${rows[0]?.synchronous_commit}`;
      }, lane);
    const found: string[] = [];
    for (const lane of ['sweeping', 'revocation', 'claiming', 'normal', 'unhurried', 'minting'] as const)
      found.push(await flushes(lane));
    expect(found).toEqual([
      'sweeping off',
      'revocation on',
      'claiming off',
      'normal on',
      'unhurried off',
      'minting on',
    ]);
  });

  it('compact() goes on until nobody may see what rows held before, or says that somebody still may', async () => {
    const location = await freshDatabase('postgres');
    const patient = await openStore({ location, lockTimeoutMs: 20_000 });
    onTestFinished(() => patient.close());
    const impatient = await openStore({ location, lockTimeoutMs: 100 });
    onTestFinished(() => impatient.close());
    await patient.migrate();
    await patient.tx((tx) => addRow(tx, 'was-here'));
    const reader = new pg.Client({ connectionString: location });
    await reader.connect();
    await reader.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    await reader.query('SELECT 1');
    await patient.tx(({ db, tables: { usage } }) => db.delete(usage));
    const isThere = async () => (await readTableFiles(location, ['usage'])).includes('was-here');
    await expect(impatient.compact(['usage'])).rejects.toThrow('still sees what rows held before');
    expect(await isThere()).toBe(true);
    const compacted = patient.compact(['usage']);
    await sleep(200);
    await reader.end();
    await compacted;
    expect(await isThere()).toBe(false);
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

  it('reports a session that the server ended while it was silent as unavailable, at a statement and at the commit', async () => {
    const store = await openTestStore('postgres');
    const fallSilent = async ({ db }: Rows) => {
      await db.execute(sql`set local idle_in_transaction_session_timeout = 50`);
      await sleep(500);
    };
    const statement = store.tx(async (tx) => {
      await fallSilent(tx);
      await addRow(tx, 'late');
    });
    expect(await Promise.all([statement, store.tx(fallSilent)].map(failureOf))).toEqual([
      'unavailable',
      'unavailable',
    ]);
    expect(await rowIds(store)).toEqual([]);
  });

  it('takes a server that no longer answers for unavailable', () => {
    expect(storeFailure(new Error('Query read timeout'))).toBe('unavailable');
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
    const holder = await openStore({ location });
    const store = await openStore({ location, poolSize: 4, lockTimeoutMs: 300 });
    onTestFinished(async () => {
      await Promise.all([holder.close(), store.close()]);
    });
    await holder.tx((tx) => addRow(tx, 'wanted'));
    let letGo = () => {};
    const until = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    let held: Promise<void> | undefined;
    await new Promise<void>((hasLock, fail) => {
      held = holder.tx(async (tx) => {
        await touchRow(tx, 'wanted');
        hasLock();
        await until;
      });
      held.catch(fail);
    });
    onTestFinished(letGo);
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

type OnCommit = (between: { client: Socket; database: Socket; commit: Buffer }) => void;

/** A store that reaches its database through a proxy, which does as it is told with a COMMIT; and the same without one. */
async function openBehindProxy(onCommit: OnCommit) {
  const location = await freshDatabase('postgres');
  const direct = await openStore({ location });
  onTestFinished(() => direct.close());
  await direct.migrate();
  const { hostname, port } = new URL(location);
  const open = new Set<Socket>();
  const proxy = createServer((client) => {
    const database = connect(Number(port), hostname);
    for (const [from, to] of [
      [client, database],
      [database, client],
    ] as const) {
      open.add(from);
      from.on('error', () => {}).on('close', () => to.destroy());
    }
    client.on('data', (chunk) => {
      if (chunk.includes('COMMIT\0')) onCommit({ client, database, commit: chunk });
      else database.write(chunk);
    });
    database.pipe(client);
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const through = new URL(location);
  through.port = `${(proxy.address() as AddressInfo).port}`;
  const store = await openStore({ location: through.href });
  onTestFinished(async () => {
    await store.close();
    proxy.close();
  });
  const cut = () => {
    for (const socket of open) socket.destroy();
  };
  return { store, direct, cut };
}

const refuseNothing: OnCommit = ({ database, commit }) => void database.write(commit);

/** An ErrorResponse of PostgreSQL's protocol. */
function errorResponse(code: string, message: string): Buffer {
  const fields = Buffer.from(`SFATAL\0VFATAL\0C${code}\0M${message}\0\0`);
  const head = Buffer.from('E\0\0\0\0');
  head.writeInt32BE(fields.length + 4, 1);
  return Buffer.concat([head, fields]);
}

describe.skipIf(!url)(`a commit on PostgreSQL${url ? '' : ` [skipped: ${missing}]`}`, () => {
  it('whose connection is lost before the database hears of it has an unknown outcome', async () => {
    const { store, direct } = await openBehindProxy(({ client }) => client.destroy());
    expect(await failureOf(store.tx((tx) => addRow(tx, 'a')))).toBe('outcome_unknown');
    expect(await rowIds(direct)).toEqual([]);
  });

  it('whose answer is lost has an unknown outcome, and is kept', async () => {
    const { store, direct } = await openBehindProxy(({ client, database, commit }) => {
      database.unpipe(client);
      database.once('data', () => client.destroy()).resume();
      database.write(commit);
    });
    expect(await failureOf(store.tx((tx) => addRow(tx, 'a')))).toBe('outcome_unknown');
    expect(await rowIds(direct)).toEqual(['a']);
  });

  it('that a pooler answers, having lost the database, has an unknown outcome', async () => {
    const { store } = await openBehindProxy(({ client }) => {
      client.end(errorResponse('08P01', 'server conn crashed?'));
    });
    expect(await failureOf(store.tx((tx) => addRow(tx, 'a')))).toBe('outcome_unknown');
  });

  it('that is never asked for, the connection being lost before, changes nothing and is known to', async () => {
    const { store, direct, cut } = await openBehindProxy(refuseNothing);
    const lost = store.tx(async (tx) => {
      await addRow(tx, 'a');
      cut();
      await sleep(50);
    });
    expect(await failureOf(lost)).toBe('unavailable');
    expect(await rowIds(direct)).toEqual([]);
    await store.tx((tx) => addRow(tx, 'next'));
    expect(await rowIds(direct)).toEqual(['next']);
  });

  it('that the database refuses is refused, with its reason', async () => {
    const store = await openTestStore('postgres');
    const refused = store.tx(async ({ db }) => {
      await db.execute(sql`create temp table late (a int unique deferrable initially deferred)`);
      await db.execute(sql`insert into late values (1), (1)`);
    });
    await expect(refused).rejects.toMatchObject({ code: '23505' });
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
