import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { drizzle } from 'drizzle-orm/better-sqlite3';
import { migrate } from 'drizzle-orm/better-sqlite3/migrator';
import { Changes } from './changes.ts';
import { Checkpoints } from './checkpoints.ts';
import { holdForHost } from './host.ts';
import { sqliteKit } from './kit.ts';
import { migrationsFolder } from './migrations.ts';
import { ReadGroup } from './read-group.ts';
import { Reserve } from './reserve.ts';
import { buildTables, type Tables } from './schema.ts';
import {
  type Db,
  type Reader,
  type Rows,
  type Store,
  StoreError,
  type StoreOptions,
  storeFailure,
} from './store.ts';
import { WriteQueue, type Writer } from './write-queue.ts';

const tables = buildTables(sqliteKit);

/** Refused, before anything is opened, while another host is using the file. */
export async function openSqlite(options: StoreOptions): Promise<Store> {
  const { location, host } = options;
  const letGo = host && (await holdForHost(`${location}.host`, host));
  try {
    return open(options, () => letGo?.());
  } catch (error) {
    letGo?.();
    throw error;
  }
}

/**
 * Leaves every file as it is. A write-ahead log that is there is left to those whose it is: a connection that could
 * write would bring it into the file when it closes last. Where there is none, reading makes one, and only a connection
 * that could write takes it away again.
 */
export function openSqliteReader(location: string): Reader {
  const readonly = existsSync(`${location}-wal`);
  const connection = tuned(new Database(location, { readonly, fileMustExist: true }));
  try {
    connection.pragma('query_only = ON');
    connection.prepare('SELECT count(*) FROM sqlite_schema').get();
  } catch (error) {
    connection.close();
    throw error;
  }
  return { dialect: 'sqlite', read: rows(connection), close: async () => void connection.close() };
}

function open(
  { location, lockTimeoutMs = 5_000, onCommit, reserveBytes }: StoreOptions,
  onClose: () => void,
): Store {
  const reserve = reserveBytes === undefined ? undefined : new Reserve(`${location}.reserve`, reserveBytes);
  let hasAppended = false;
  const appends = new Changes(() => () => {});
  const appended = () => {
    hasAppended = true;
    appends.tell();
  };
  const queue = new WriteQueue(() => openWriter(location, lockTimeoutMs, appended), {
    lockTimeoutMs,
    reserve,
    onCommit(transactions) {
      onCommit?.(transactions);
      checkpoints.committed();
      if (hasAppended) changes.tell();
      hasAppended = false;
    },
  });
  const checkpoints = new Checkpoints(location, (pages) => queue.limitLog(pages));
  const reader = tuned(new Database(location, { readonly: true, timeout: lockTimeoutMs }));
  const reads = new ReadGroup(reader);
  const changes = new Changes((changed) => watchOtherConnections(reader, changed));

  return {
    dialect: 'sqlite',
    read: { ...rows(reader), prepare: (_name, text) => reads.prepare(text) },
    tx: (work, lane = 'normal') => queue.add(work, lane),
    onChange: (listener) => changes.add(listener),
    onAppend: (listener) => appends.add(listener),
    isFull: () => reserve?.isMissing() ?? false,
    exclusively: (work) => exclusively(`${location}.lock`, work),
    migrate: async () => migrateFile(location, lockTimeoutMs),
    async compact() {
      // It may be copying the log, which then cannot be emptied.
      await checkpoints.close();
      compactFile(location, lockTimeoutMs);
    },
    async close() {
      changes.close();
      appends.close();
      await queue.end();
      await checkpoints.close();
      // Who closes last brings the write-ahead log into the file, and a connection that only reads cannot.
      reader.close();
      queue.closeWriter();
      onClose();
    },
  };
}

/** Asking takes some microseconds, and an answer from another process is as old as this at most. */
const WATCH_MS = 20;

/** Calls `changed` when another connection than `reader` has committed: https://www.sqlite.org/pragma.html#pragma_data_version. */
function watchOtherConnections(reader: Database.Database, changed: () => void): () => void {
  let seen: unknown;
  const look = () => {
    try {
      const version = reader.pragma('data_version', { simple: true });
      if (seen !== undefined && version !== seen) changed();
      seen = version;
    } catch {
      // What is wrong with the file the next read will say.
    }
  };
  // What happens before the interval is over counts too.
  look();
  const timer = setInterval(look, WATCH_MS);
  timer.unref();
  return () => clearInterval(timer);
}

function openWriter(location: string, lockTimeoutMs: number, appended: () => void): Writer {
  const connection = tuned(new Database(location, { timeout: lockTimeoutMs }));
  // Under PostgreSQL's name, so that the statement that appends an event is the same one.
  connection.function('pg_notify', { directOnly: true }, (_channel: unknown, _payload: unknown) => {
    appended();
    return null;
  });
  connection.pragma('journal_mode = WAL');
  connection.pragma('synchronous = FULL');
  connection.pragma('foreign_keys = ON');
  // From here on the queue waits asynchronously, never SQLite on the event loop.
  connection.pragma('busy_timeout = 0');
  return {
    connection,
    begin: connection.prepare('SAVEPOINT member'),
    keep: connection.prepare('RELEASE member'),
    rows: rows(withinTransactionsOnly(connection)),
  };
}

function tuned(connection: Database.Database): Database.Database {
  connection.pragma('cache_size = -65536');
  connection.pragma('temp_store = MEMORY');
  return connection;
}

/**
 * Refuses a statement while no transaction is open. SQLite ends one by itself when the disk is full, and the next
 * statement of the same callback would then commit alone, although the callback's transaction is refused.
 */
function withinTransactionsOnly(connection: Database.Database): Database.Database {
  const prepare = connection.prepare.bind(connection);
  connection.prepare = ((source: string) => {
    const prepared = prepare(source);
    for (const method of ['run', 'get', 'all'] as const) {
      const execute = prepared[method].bind(prepared) as (...parameters: unknown[]) => never;
      prepared[method] = (...parameters: unknown[]) => {
        if (connection.inTransaction) return execute(...parameters);
        throw new StoreError('unavailable', 'Cannot write: the transaction has already ended');
      };
    }
    return prepared;
  }) as typeof connection.prepare;
  return connection;
}

/** Foreign keys are off meanwhile: rebuilding a table with them on would empty what refers to it. */
function migrateFile(location: string, lockTimeoutMs: number): void {
  const connection = new Database(location, { timeout: lockTimeoutMs });
  try {
    connection.pragma('foreign_keys = OFF');
    migrate(drizzle(connection), { migrationsFolder: migrationsFolder('sqlite') });
    const broken = connection.pragma('foreign_key_check') as unknown[];
    if (broken.length > 0) throw new Error(`Migration left ${broken.length} rows without their parent`);
  } finally {
    connection.close();
  }
}

/** What was deleted or overwritten stays in free space of pages, and in the write-ahead log, until both are written anew. */
function compactFile(location: string, lockTimeoutMs: number): void {
  const connection = new Database(location, { timeout: lockTimeoutMs });
  try {
    connection.exec('VACUUM');
    const [{ busy } = { busy: 1 }] = connection.pragma('wal_checkpoint(TRUNCATE)') as { busy: number }[];
    if (busy) throw new StoreError('unavailable', 'Cannot compact: another process is using the database');
  } finally {
    connection.close();
  }
}

function rows(connection: Database.Database): Rows {
  return {
    db: drizzle(connection) as unknown as Db,
    tables: tables as Tables,
    prepare(_name, text) {
      const prepared = connection.prepare(text);
      if (prepared.reader) prepared.raw();
      return (values) => {
        if (prepared.reader) return prepared.all(values) as unknown[][];
        prepared.run(values);
        return [];
      };
    },
  };
}

/** A lock across processes that the kernel lets go of when its holder dies: an exclusive lock on a file of its own. */
async function exclusively<T>(path: string, work: () => Promise<T>, waitMs = 60_000): Promise<T> {
  const lock = new Database(path, { timeout: 0 });
  try {
    const deadline = performance.now() + waitMs;
    while (!tryLock(lock)) {
      if (performance.now() > deadline) {
        throw new StoreError(
          'unavailable',
          `Cannot lock '${path}': another process has held it for ${waitMs} ms`,
        );
      }
      await sleep(20);
    }
    return await work();
  } finally {
    lock.close();
  }
}

function tryLock(lock: Database.Database): boolean {
  try {
    lock.exec('BEGIN EXCLUSIVE');
    return true;
  } catch (error) {
    if (storeFailure(error) === 'unavailable') return false;
    throw error;
  }
}
