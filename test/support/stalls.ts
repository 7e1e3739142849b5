/**
 * Points at which a process of ours stands still, so that a test can kill it just there: in the middle of a transaction,
 * by a trigger that takes a minute or so, or at the renaming of a file.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import pg from 'pg';
import { isPostgres } from '../../db/store.ts';

export interface Stall {
  /** Resolves once a process stands still there. */
  reached(): Promise<void>;
  /** Takes it away, with what it may still hold of a process that was killed. */
  clear(): Promise<void>;
}

export interface StallPoint {
  table: string;
  on: 'INSERT' | 'UPDATE' | 'DELETE';
  /** SQL about the row as it will be, which is `NEW`, or as it was, `OLD`. */
  when: string;
}

const PATIENCE_MS = 40_000;

/** Has whoever writes such a row of this database stand still before its transaction can end. */
export const stallAt = (location: string, point: StallPoint): Promise<Stall> =>
  isPostgres(location) ? stallPostgres(location, point) : stallSqlite(location, point);

async function stallSqlite(location: string, { table, on, when }: StallPoint): Promise<Stall> {
  const withDatabase = (work: (db: Database.Database) => void, timeout = 5_000) => {
    const db = new Database(location, { timeout });
    try {
      work(db);
    } finally {
      db.close();
    }
  };
  withDatabase((db) =>
    db.exec(`
      CREATE VIEW ages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000000) SELECT max(i) FROM n;
      CREATE TRIGGER stall AFTER ${on} ON ${table} WHEN ${when} BEGIN SELECT * FROM ages; END;`),
  );
  const isLocked = () => {
    try {
      withDatabase((db) => db.exec('BEGIN IMMEDIATE; ROLLBACK'), 0);
      return false;
    } catch (error) {
      // Also SQLITE_BUSY_RECOVERY: after a kill, whoever opens the log first reads it through, and others wait.
      if (/^SQLITE_BUSY/.test(String((error as { code?: unknown }).code))) return true;
      throw error;
    }
  };
  return {
    // An ordinary transaction holds the lock for some milliseconds.
    reached: () => until('the lock is held for good', 40, async () => isLocked()),
    clear: async () => withDatabase((db) => db.exec('DROP TRIGGER stall; DROP VIEW ages')),
  };
}

async function stallPostgres(location: string, { table, on, when }: StallPoint): Promise<Stall> {
  const query = async (text: string) => {
    const client = new pg.Client({ connectionString: location });
    await client.connect();
    try {
      return (await client.query(text)).rows;
    } finally {
      await client.end();
    }
  };
  const asleep =
    "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep' AND pid <> pg_backend_pid()";
  await query(`
    CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';
    CREATE TRIGGER stall AFTER ${on} ON ${table} FOR EACH ROW WHEN (${when}) EXECUTE FUNCTION stall()`);
  return {
    reached: () => until('a statement sleeps', 1, async () => (await query(`SELECT 1 ${asleep}`)).length > 0),
    async clear() {
      // Its process is gone, but PostgreSQL notices only when it next writes to it.
      await query(`SELECT pg_terminate_backend(pid, 5000) ${asleep}`);
      await query(`DROP TRIGGER stall ON ${table}; DROP FUNCTION stall`);
    },
  };
}

/** Resolves once `holds` was true that many times in a row. */
async function until(what: string, timesInARow: number, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  for (let times = 0; times < timesInARow; ) {
    if (performance.now() > deadline) throw new Error(`Waited ${PATIENCE_MS} ms until ${what}`);
    times = (await holds()) ? times + 1 : 0;
    await sleep(10);
  }
}

/** The environment of a process that stands still when it renames a file to this path, and says so on standard error. */
export const stallingAtRename = (to: string): NodeJS.ProcessEnv => ({
  NODE_OPTIONS: `--import ${new URL('./stall-rename.mjs', import.meta.url).href}`,
  STALL_AT_RENAME_TO: to,
});
