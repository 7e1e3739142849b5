import { setTimeout as sleep } from 'node:timers/promises';
import { getTableName } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { migrate } from 'drizzle-orm/node-postgres/migrator';
import pg from 'pg';
import { CHANGE_CHANNEL, Changes } from './changes.ts';
import { pgKit } from './kit.ts';
import { mergedReads } from './merged-reads.ts';
import { migrationsFolder } from './migrations.ts';
import { buildTables, type Tables } from './schema.ts';
import {
  type Db,
  isRepeated,
  type Lane,
  type Rows,
  type Store,
  StoreError,
  type StoreOptions,
} from './store.ts';

const tables = buildTables(pgKit);

/** Any constant will do, as long as every process uses the same: "countersi" in ASCII, cut to 62 bits. */
const MIGRATION_LOCK = '4062863521187857417';

const ATTEMPTS_MAX = 4;

/** Each try rewrites a whole table. */
const COMPACTION_PAUSE_MS = 500;

/** A transaction whose process went silent in the middle holds its locks, and everyone who waits for them, no longer. */
const IDLE_IN_TRANSACTION_MS_MAX = 10_000;

export function openPostgres({ location, poolSize = 10, lockTimeoutMs = 5_000 }: StoreOptions): Store {
  // Two pools: writers that wait for each other's locks must not keep verification from its connections.
  const writers = openPool(location, Math.ceil(poolSize / 2), lockTimeoutMs);
  const readers = openPool(location, Math.floor(poolSize / 2), lockTimeoutMs);
  const accepted = new Set<Promise<unknown>>();
  const changes = new Changes((changed) => listen(location, lockTimeoutMs, changed));
  let closed = false;

  function tx<T>(work: (tx: Rows) => Promise<T>, lane: Lane = 'normal'): Promise<T> {
    if (closed) return Promise.reject(new StoreError('unavailable', 'Cannot write: the store is closed'));
    const running = retryDeadlocks(() => transact(writers, work, isRepeated(lane) ? BEGIN_UNFLUSHED : BEGIN));
    accepted.add(running);
    const forget = () => accepted.delete(running);
    running.then(forget, forget);
    return running;
  }

  return {
    dialect: 'postgres',
    read: {
      db: drizzle(readers) as unknown as Db,
      tables,
      prepare: (name, text) => mergedReads(readers, name, text),
    },
    tx,
    onChange: (listener) => changes.add(listener),
    onAppend: () => () => {},
    // Its disk is its own, and what it keeps in reserve.
    isFull: () => false,
    exclusively: (work) => exclusively(location, lockTimeoutMs, work),
    migrate: () => migrateDatabase(location, lockTimeoutMs),
    compact: (names) => compactTables(location, lockTimeoutMs, names),
    async close() {
      closed = true;
      changes.close();
      // A pool that is ending serves nobody who still waits for a connection.
      await Promise.allSettled(accepted);
      await Promise.all([writers.end(), readers.end()]);
    },
  };
}

function openPool(location: string, max: number, lockTimeoutMs: number): pg.Pool {
  const pool = new pg.Pool({
    connectionString: location,
    max,
    connectionTimeoutMillis: lockTimeoutMs,
    application_name: 'countersign',
    lock_timeout: lockTimeoutMs,
    idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS_MAX,
    // The server ends what waits for a lock; this ends what waits for a server that no longer answers.
    query_timeout: lockTimeoutMs + IDLE_IN_TRANSACTION_MS_MAX,
  });
  // A connection that the server ends, idle or in use, is replaced at the next query; without a listener it would end us.
  pool.on('error', () => {});
  pool.on('connect', (client) => client.on('error', () => lost.add(client)));
  return pool;
}

/** Connections that broke: nothing is sent over them any more. */
const lost = new WeakSet<pg.ClientBase>();

const RECONNECT_MS = 250;

/** Hears of commits on a connection of its own, and on another when that is lost. */
function listen(location: string, connectionTimeoutMillis: number, changed: () => void): () => void {
  let stopped = false;
  let current: pg.Client | undefined;
  let pause: NodeJS.Timeout | undefined;

  function connect() {
    const client = new pg.Client({
      connectionString: location,
      connectionTimeoutMillis,
      application_name: 'countersign changes',
      // Nothing is ever sent over it, so a network that forgot it would not be noticed otherwise.
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
    });
    current = client;
    client.on('error', () => {});
    client.on('notification', changed);
    client.once('end', () => {
      if (stopped) return;
      pause = setTimeout(connect, RECONNECT_MS + Math.random() * RECONNECT_MS);
      pause.unref();
    });
    client
      .connect()
      .then(() => client.query(`LISTEN "${CHANGE_CHANNEL}"`))
      // What was committed while nobody listened was told to nobody.
      .then(changed)
      .catch(() => client.end())
      .catch(() => {});
  }

  connect();
  return () => {
    stopped = true;
    clearTimeout(pause);
    current?.end().catch(() => {});
  };
}

/** On a connection of its own, without the limits of a query: a migration may take its time. */
async function migrateDatabase(location: string, connectionTimeoutMillis: number): Promise<void> {
  const pool = new pg.Pool({
    connectionString: location,
    max: 1,
    connectionTimeoutMillis,
    application_name: 'countersign migration',
  });
  try {
    await migrate(drizzle(pool), {
      migrationsFolder: migrationsFolder('postgres'),
      migrationsSchema: 'public',
    });
  } finally {
    await pool.end();
  }
}

/** On a connection of its own, without the limit of a query: it may take its time once it has the lock. */
async function compactTables(location: string, lockTimeoutMs: number, names: readonly (keyof Tables)[]) {
  const client = new pg.Client({
    connectionString: location,
    connectionTimeoutMillis: lockTimeoutMs,
    application_name: 'countersign compaction',
    lock_timeout: lockTimeoutMs,
  });
  client.on('error', () => {});
  await client.connect();
  const pauses = Math.ceil(lockTimeoutMs / COMPACTION_PAUSE_MS);
  try {
    for (const name of names) await rewriteWhole(client, getTableName(tables[name]), pauses);
  } finally {
    await client.end();
  }
}

async function rewriteWhole(client: pg.Client, table: string, pausesMax: number) {
  for (let pauses = 0; (await rewriteTable(client, table)) > 0; pauses++) {
    if (pauses >= pausesMax)
      throw new StoreError('unavailable', 'Cannot compact: a transaction still sees what rows held before');
    await sleep(COMPACTION_PAUSE_MS);
  }
}

/**
 * Answers how many dead rows were copied too, because an older transaction of this database may still see them (one of
 * autovacuum's is enough). Only the server's notice tells: "N dead row versions cannot be removed yet", in its language.
 */
async function rewriteTable(client: pg.Client, table: string): Promise<number> {
  let kept: number | undefined;
  const listen = ({ detail }: { detail?: string | undefined }) => {
    const [, dead] = /^\D*(\d+)/.exec(detail ?? '') ?? [];
    if (dead !== undefined) kept ??= Number(dead);
  };
  client.on('notice', listen);
  try {
    await client.query(`VACUUM (FULL, VERBOSE) "${table}"`);
  } finally {
    client.off('notice', listen);
  }
  if (kept === undefined)
    throw new StoreError('unavailable', 'Cannot compact: PostgreSQL did not say what it kept');
  return kept;
}

/** One `db` for each connection, so that what is prepared on it is prepared once (see statement.ts). */
const databases = new WeakMap<pg.PoolClient, Db>();

function databaseOf(client: pg.PoolClient): Db {
  const known = databases.get(client);
  if (known) return known;
  const db = drizzle(client) as unknown as Db;
  databases.set(client, db);
  return db;
}

/** PostgreSQL prepares a named query once for each connection it arrives on. */
function preparer(client: pg.PoolClient): Rows['prepare'] {
  return (name, text) => async (values) =>
    (await client.query<unknown[]>({ name, text, values, rowMode: 'array' })).rows;
}

const BEGIN = 'BEGIN ISOLATION LEVEL READ COMMITTED';
/** COMMIT does not wait for the disk: https://www.postgresql.org/docs/15/wal-async-commit.html */
const BEGIN_UNFLUSHED = `${BEGIN}; SET LOCAL synchronous_commit = off`;

/** Drizzle's own `transaction` loses a connection on which BEGIN fails, and the error on which ROLLBACK does. */
async function transact<T>(pool: pg.Pool, work: (tx: Rows) => Promise<T>, begin: string): Promise<T> {
  const client = await pool.connect();
  let broken = false;
  try {
    await client.query(begin);
    const value = await work({ db: databaseOf(client), tables, prepare: preparer(client) });
    await commit(client);
    return value;
  } catch (error) {
    broken = !(await rolledBack(client, error));
    throw error;
  } finally {
    client.release(broken);
  }
}

/** Throws `outcome_unknown` when the connection fails between the question and its answer. */
async function commit(client: pg.PoolClient): Promise<void> {
  if (lost.has(client)) {
    throw new StoreError('unavailable', 'Cannot write: the connection was lost before the transaction ended');
  }
  const { command } = await client.query('COMMIT').catch((error: unknown) => {
    if (isRefusal(error)) throw error;
    throw new StoreError('outcome_unknown', 'The connection was lost while the transaction was committed', {
      cause: error,
    });
  });
  // So it answers, without an error, when a statement had failed and `work` went on regardless.
  if (command === 'ROLLBACK') throw new Error('A transaction went on after one of its statements had failed');
}

/**
 * Whether the database itself said that it did not commit. A pooler between us, when it loses the database, answers with
 * an error of class 08 connection_exception (PostgreSQL, appendix A).
 */
const isRefusal = (error: unknown) =>
  error instanceof pg.DatabaseError && !/^(08|40003)/.test(error.code ?? '08');

/** A connection that did not answer COMMIT is not asked again. */
async function rolledBack(client: pg.PoolClient, failure: unknown): Promise<boolean> {
  if (failure instanceof StoreError && failure.code === 'outcome_unknown') return false;
  return client.query('ROLLBACK').then(
    () => true,
    () => false,
  );
}

async function retryDeadlocks<T>(run: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await run();
    } catch (error) {
      if (attempt === ATTEMPTS_MAX || !isRetryable(error)) throw error;
      // PostgreSQL may end both parties to a deadlock: each waits for a time of its own, or they would meet again.
      await sleep(Math.random() * 20 * attempt);
    }
  }
}

/** 40001 serialization_failure, 40P01 deadlock_detected (PostgreSQL, appendix A). */
function isRetryable(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const code = (cause as { code?: unknown }).code;
    if (code === '40001' || code === '40P01') return true;
  }
  return false;
}

/** A session lock on a connection of its own: PostgreSQL lets go of it when its holder dies. */
async function exclusively<T>(
  location: string,
  connectionTimeoutMillis: number,
  work: () => Promise<T>,
): Promise<T> {
  const client = new pg.Client({
    connectionString: location,
    connectionTimeoutMillis,
    application_name: 'countersign migration lock',
  });
  // It is idle while `work` runs; should it break, the lock is gone and the next query on it says so.
  client.on('error', () => {});
  await client.connect();
  try {
    await client.query("SET lock_timeout = '60s'");
    await client.query('SELECT pg_advisory_lock($1)', [MIGRATION_LOCK]);
    return await work();
  } finally {
    await client.end();
  }
}
