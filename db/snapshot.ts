/** Everything a database holds at one instant, read table by table while others write on. */
import Database from 'better-sqlite3';
import { getTableColumns, sql } from 'drizzle-orm';
import { drizzle as drizzleSqlite } from 'drizzle-orm/better-sqlite3';
import { drizzle as drizzlePostgres } from 'drizzle-orm/node-postgres';
import pg from 'pg';
import { pgKit, sqliteKit } from './kit.ts';
import { buildTables, type Tables } from './schema.ts';
import { type Db, isPostgres, type Rows, type Store, StoreError } from './store.ts';

export type TableName = keyof Tables;

/** A row as our tables have it, whatever the dialect. */
export type Row = Record<string, unknown>;

/** All rows of a table, some at a time, in the order in which they lie. */
export type Batches = (name: TableName) => AsyncGenerator<Row[]>;

export interface Snapshot {
  db: Db;
  tables: Tables;
  batches: Batches;
  close(): Promise<void>;
}

/** A snapshot of a SQLite file that nobody else may open meanwhile. */
export interface HeldFile extends Snapshot {
  /** Keeps what was written through it. Closing without that leaves the file as it was. */
  commit(): void;
}

/** Within the number of parameters that a statement may have, whatever the table. */
const BATCH = 500;

/** Opens a snapshot, of a server's database or of a file. On SQLite the log grows until it is closed. */
export const openSnapshot = (location: string): Promise<Snapshot> =>
  isPostgres(location) ? openPostgresSnapshot(location) : openSqliteSnapshot(location);

async function openSqliteSnapshot(location: string): Promise<Snapshot> {
  const database = new Database(location, { readonly: true, fileMustExist: true });
  database.exec('BEGIN');
  // A read transaction begins with what it reads first.
  database.prepare('SELECT count(*) FROM sqlite_schema').get();
  return sqliteSnapshot(database);
}

/** Throws `StoreError` while anybody else has the file open. */
export async function holdFile(location: string): Promise<HeldFile> {
  const database = new Database(location, { fileMustExist: true, timeout: 0 });
  try {
    // Who leaves the write-ahead log has to be alone: every other connection, at work or not, holds a lock on the file
    // (https://www.sqlite.org/wal.html).
    database.pragma('journal_mode = DELETE');
    database.exec('BEGIN EXCLUSIVE');
  } catch (cause) {
    database.close();
    throw new StoreError('unavailable', 'Somebody else has the file open', { cause });
  }
  return { ...sqliteSnapshot(database), commit: () => void database.exec('COMMIT') };
}

function sqliteSnapshot(database: Database.Database): Snapshot {
  const db = drizzleSqlite(database) as unknown as Db;
  const tables = buildTables(sqliteKit);
  return { db, tables, batches: sqliteBatches({ db, tables }), close: async () => void database.close() };
}

async function openPostgresSnapshot(location: string): Promise<Snapshot> {
  const client = new pg.Client({ connectionString: location, application_name: 'countersign backup' });
  client.on('error', () => {});
  await client.connect();
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  const db = drizzlePostgres(client) as unknown as Db;
  const tables = buildTables(pgKit);
  return { db, tables, batches: postgresBatches({ db, tables }), close: () => client.end() };
}

/** Reads tables within a transaction of a store; between the batches of one table nobody may write to it. */
export const batchesOf = ({ dialect }: Pick<Store, 'dialect'>, rows: Rows): Batches =>
  dialect === 'postgres' ? postgresBatches(rows) : sqliteBatches(rows);

/** By the place of each row, of which SQLite's tables are the index; it stays as it is in a transaction. */
const sqliteBatches = ({ db, tables }: Pick<Rows, 'db' | 'tables'>): Batches =>
  async function* (name) {
    const table = tables[name] as Tables['events'];
    let at: unknown;
    for (;;) {
      const found = await db
        .select({ at: sql`rowid`, row: table })
        .from(table)
        .where(at === undefined ? undefined : sql`rowid > ${at}`)
        .orderBy(sql`rowid`)
        .limit(BATCH);
      if (found.length === 0) return;
      at = found.at(-1)?.at;
      yield found.map(({ row }) => row as Row);
    }
  };

/** By a cursor: PostgreSQL would sort a whole table for each batch that begins after a place. */
const postgresBatches = ({ db, tables }: Pick<Rows, 'db' | 'tables'>): Batches =>
  async function* (name) {
    const table = tables[name] as Tables['events'];
    const columns = Object.entries(getTableColumns(table));
    const cursor = sql.identifier(`batches_of_${name}`);
    await db.execute(sql`declare ${cursor} no scroll cursor for select * from ${table}`);
    for (;;) {
      const { rows } = (await db.execute(sql`fetch ${sql.raw(`${BATCH}`)} from ${cursor}`)) as unknown as {
        rows: Row[];
      };
      if (rows.length === 0) break;
      yield rows.map((raw) =>
        Object.fromEntries(
          columns.map(([key, column]) => {
            const value = raw[column.name] ?? null;
            return [key, value === null ? null : column.mapFromDriverValue(value)];
          }),
        ),
      );
    }
    await db.execute(sql`close ${cursor}`);
  };

/** Adds rows to a table as they are. */
export async function insertRows({ db, tables }: Rows, name: TableName, rows: readonly Row[]): Promise<void> {
  await db.insert(tables[name] as Tables['events']).values(rows as Tables['events']['$inferInsert'][]);
}

const MANIFEST_TABLE = 'backup_manifest';

/** Makes a file of SQLite whole by itself, without a log beside it, and says in it what it is. */
export function sealFile(location: string, manifest: object): void {
  const database = new Database(location);
  try {
    database.exec(`CREATE TABLE ${MANIFEST_TABLE} (manifest TEXT NOT NULL)`);
    database.prepare(`INSERT INTO ${MANIFEST_TABLE} VALUES (?)`).run(JSON.stringify(manifest));
    database.pragma('journal_mode = DELETE');
  } finally {
    database.close();
  }
}

/** What `sealFile` said of a file, or null where it is none of its, or is damaged. */
export function readManifest(location: string): unknown {
  const database = new Database(location, { readonly: true, fileMustExist: true });
  try {
    if (database.pragma('integrity_check', { simple: true }) !== 'ok') return null;
    const row = database.prepare(`SELECT manifest FROM ${MANIFEST_TABLE}`).get() as { manifest: string };
    return JSON.parse(row.manifest) as unknown;
  } catch {
    return null;
  } finally {
    database.close();
  }
}

/** Takes what `sealFile` said out again: what is left is a database as any other. */
export function unsealFile(location: string): void {
  const database = new Database(location);
  try {
    database.exec(`DROP TABLE ${MANIFEST_TABLE}`);
  } finally {
    database.close();
  }
}
