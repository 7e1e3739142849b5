/** A database of either dialect as it is, at whatever migration: statements in SQL that both understand, and its schema. */
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { drizzle as drizzleSqlite } from 'drizzle-orm/better-sqlite3';
import { migrate as migrateSqlite } from 'drizzle-orm/better-sqlite3/migrator';
import { drizzle as drizzlePostgres } from 'drizzle-orm/node-postgres';
import { migrate as migratePostgres } from 'drizzle-orm/node-postgres/migrator';
import pg from 'pg';
import { onTestFinished } from 'vitest';
import { migrationsFolder } from '../../db/migrations.ts';
import { type Dialect, emptyDatabase, freshFolder } from '../support/deps.ts';
import { describePostgres, describeSqlite, type SchemaDescription } from './schema-description.ts';

type Row = Record<string, unknown>;

export interface AnyDatabase {
  location: string;
  /** Parameters are `$1`, `$2` and so on. */
  query(sql: string, parameters?: readonly unknown[]): Promise<Row[]>;
  schema(): Promise<SchemaDescription>;
  /** Rows that name a parent which is not there. */
  orphans(): Promise<unknown[]>;
}

/** A fresh database after the first `count` migrations. */
export async function migratedUntil(dialect: Dialect, count: number): Promise<AnyDatabase> {
  const folder = migrationsUntil(dialect, count);
  const location = await emptyDatabase(dialect);
  return dialect === 'sqlite' ? sqliteAfter(location, folder) : postgresAfter(location, folder);
}

/** A copy of the migrations as they were when there were no more than these. */
function migrationsUntil(dialect: Dialect, count: number): string {
  const folder = freshFolder();
  cpSync(migrationsFolder(dialect), folder, { recursive: true });
  const path = join(folder, 'meta', '_journal.json');
  const journal = JSON.parse(readFileSync(path, 'utf8')) as { entries: unknown[] };
  writeFileSync(path, JSON.stringify({ ...journal, entries: journal.entries.slice(0, count) }));
  return folder;
}

function sqliteAfter(location: string, migrations: string): AnyDatabase {
  const db = new Database(location);
  onTestFinished(() => void db.close());
  migrateSqlite(drizzleSqlite(db), { migrationsFolder: migrations });
  return {
    location,
    async query(sql, parameters = []) {
      const statement = db.prepare(sql.replaceAll(/\$\d+/g, '?'));
      if (statement.reader) return statement.all(...parameters) as Row[];
      statement.run(...parameters);
      return [];
    },
    schema: async () => describeSqlite(db),
    orphans: async () => db.pragma('foreign_key_check') as unknown[],
  };
}

async function postgresAfter(location: string, migrations: string): Promise<AnyDatabase> {
  const client = new pg.Client({ connectionString: location });
  await client.connect();
  onTestFinished(() => client.end());
  await migratePostgres(drizzlePostgres(client), {
    migrationsFolder: migrations,
    migrationsSchema: 'public',
  });
  return {
    location,
    query: async (sql, parameters = []) => (await client.query<Row>(sql, [...parameters])).rows,
    schema: () => describePostgres(client),
    // PostgreSQL checks each row as it is written; a constraint may only be added without looking at what is there.
    orphans: async () =>
      (await client.query<Row>('select conname from pg_constraint where not convalidated')).rows,
  };
}
