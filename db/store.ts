import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core';
import type { HostOptions } from './host.ts';
import type { Tables } from './schema.ts';

export type { HostOptions };

/** PostgreSQL's query builder is the canonical type on both dialects (see kit.ts). */
export type Db = PgDatabase<PgQueryResultHKT, Record<string, never>>;

/** Something rows can be read and written through: the store outside a transaction, or one transaction. */
export interface Rows {
  readonly db: Db;
  readonly tables: Tables;
  /** Prepares SQL text once on this connection, under a name of its own. */
  readonly prepare: (name: string, text: string) => PreparedText;
}

/** Executes with values in place of the parameters, and answers rows as lists of columns; at once where it can. */
export type PreparedText = (values: unknown[]) => unknown[][] | Promise<unknown[][]>;

/** The lanes of what is kept through a loss of power: only these append events. */
export type DurableLane = 'revocation' | 'normal' | 'minting';

/** The lanes of what does not wait for the disk, as whoever finds it lost does it again. */
export const REPEATED_LANES = ['claiming', 'unhurried', 'sweeping'] as const;

/**
 * Which transactions go first when several wait for the one writer of SQLite. Revocations overtake everything; minting,
 * which may come in floods, comes last, and with it, in turn, the deletion of what nobody asks for. Nobody waits for what
 * is unhurried, so it waits some milliseconds to be committed together with something else.
 */
export type Lane = DurableLane | (typeof REPEATED_LANES)[number];

export const isRepeated = (lane: Lane): boolean => (REPEATED_LANES as readonly Lane[]).includes(lane);

export interface Store {
  readonly dialect: 'sqlite' | 'postgres';
  /** For reading outside a transaction; on SQLite its connection cannot write. */
  readonly read: Rows;
  /**
   * Runs `work` in a transaction and answers once it is durable, or in one of `REPEATED_LANES` once others see it. `work`
   * may await nothing but the database, and may run again from its start after a deadlock.
   */
  tx<T>(work: (tx: Rows) => Promise<T>, lane?: Lane): Promise<T>;
  /** Runs `work` while no other process on this database runs any: migrations and bootstrap. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
  /**
   * Calls `listener` after commits that appended events, of this process or another; answers how to end that. A call
   * says only that the log may be longer: several commits may be one call, and on PostgreSQL one is lost with the
   * connection that would have brought it, and made good when there is another.
   */
  onChange(listener: () => void): () => void;
  /**
   * SQLite: calls `listener` while a transaction that appended an event is not committed yet. One that begins in the call, and
   * not later, sees the event and is committed with it; or where there is no time left for that, next, and then sees
   * the event if it was committed. The listener may ask the database for nothing else, and never throws. On PostgreSQL it is
   * never called. Answers how to end that.
   */
  onAppend(listener: () => void): () => void;
  /** Whether the disk is full, so that of all transactions only revocations are made, from the reserve. */
  isFull(): boolean;
  /** Brings the schema up to date. Call it within `exclusively`. */
  migrate(): Promise<void>;
  /**
   * Rewrites tables, on SQLite the whole file, so that nothing is left on disk of what their rows held before. Nobody
   * else should be working: it takes its time, and others wait.
   */
  compact(tables: readonly (keyof Tables)[]): Promise<void>;
  /** Waits for transactions already accepted, then closes every connection. */
  close(): Promise<void>;
}

export interface StoreOptions {
  /** `postgres://…`, or the path of a SQLite file. */
  location: string;
  /** PostgreSQL connections of this process. */
  poolSize?: number;
  /** How long a write waits for another process's lock before it is refused. */
  lockTimeoutMs?: number;
  /** Told of each SQLite commit: how many transactions it carried. */
  onCommit?: (transactions: number) => void;
  /** SQLite: how much of the disk is kept for revocations; without it nothing is. */
  reserveBytes?: number;
  /** SQLite: refuses a file that another host is using; without it nobody asks. */
  host?: HostOptions;
}

/** A database that is looked at and left as it is. */
export type Reader = Pick<Store, 'dialect' | 'read' | 'close'>;

/** Only the dialect that is used is loaded: the other's driver would cost some 10 MB. */
export async function openStore(options: StoreOptions): Promise<Store> {
  if (isPostgres(options.location)) return (await import('./postgres.ts')).openPostgres(options);
  return (await import('./sqlite.ts')).openSqlite(options);
}

/** Opens a database that is there, to look at it; throws where it cannot be read. Nothing of it is changed. */
export async function openReader(location: string): Promise<Reader> {
  if (!isPostgres(location)) return (await import('./sqlite.ts')).openSqliteReader(location);
  const reader = (await import('./postgres.ts')).openPostgres({ location, poolSize: 2 });
  try {
    await reader.read.prepare('reachable', 'SELECT 1')([]);
    return reader;
  } catch (error) {
    await reader.close();
    throw error;
  }
}

export const isPostgres = (location: string) => /^postgres(ql)?:\/\//.test(location);

/**
 * How a database fails: it cannot be reached or is busy, or it has no room, and then nothing of the transaction was
 * kept; or it was lost while it committed, and then all of the transaction was kept or nothing.
 */
export type StoreFailure = 'unavailable' | 'full' | 'outcome_unknown';

/** The database could not do what was asked. */
export class StoreError extends Error {
  override readonly name = 'StoreError';
  readonly code: StoreFailure;
  constructor(code: StoreFailure, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

const FULL = new Set(['SQLITE_FULL', 'ENOSPC', '53100']);
const UNAVAILABLE =
  /^(SQLITE_(BUSY|LOCKED|IOERR|CANTOPEN|CORRUPT|NOTADB|READONLY|PROTOCOL|NOMEM)|ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENOTFOUND|EAI_AGAIN|08|25P03|53|55P03|57P|28|3D000)/;
/** What pg says in words only. */
const UNAVAILABLE_IN_WORDS =
  /timeout exceeded when trying to connect|Connection terminated|Cannot use a pool after|is not queryable|Query read timeout/;

/** Which of the store's failures an error means, or null when it is none of the database's doing. */
export function storeFailure(error: unknown): StoreFailure | null {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 8; cause = cause.cause, depth++) {
    if (cause instanceof StoreError) return cause.code;
    const code = (cause as { code?: unknown }).code;
    if (typeof code === 'string') {
      if (FULL.has(code)) return 'full';
      if (UNAVAILABLE.test(code)) return 'unavailable';
    }
    if (UNAVAILABLE_IN_WORDS.test(cause.message)) return 'unavailable';
  }
  return null;
}

/** Whether a unique index refused a row: SQLite's extended codes, and 23505 unique_violation (PostgreSQL, appendix A). */
export function isUniqueViolation(error: unknown): boolean {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 8; cause = cause.cause, depth++) {
    const code = String((cause as { code?: unknown }).code);
    if (code === '23505' || /^SQLITE_CONSTRAINT_(UNIQUE|PRIMARYKEY)$/.test(code)) return true;
  }
  return false;
}

/** Whether a table is not there: SQLite says so in words only; 42P01 undefined_table (PostgreSQL, appendix A). */
export function isMissingTable(error: unknown): boolean {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 8; cause = cause.cause, depth++) {
    const code = String((cause as { code?: unknown }).code);
    if (code === '42P01' || (code === 'SQLITE_ERROR' && /^no such table/.test(cause.message))) return true;
  }
  return false;
}
