import Database from 'better-sqlite3';
import pg from 'pg';
import { describe, expect, inject, it, onTestFinished } from 'vitest';
import * as postgresSchema from '../../db/schema-postgres.ts';
import * as sqliteSchema from '../../db/schema-sqlite.ts';
import { openStore } from '../../db/store.ts';
import { emptyDatabase } from '../support/deps.ts';
import { builtTables, describeBuilt, describePostgres, describeSqlite } from './schema-description.ts';

const { url, missing } = inject('postgres');

/** A database that was empty and has been migrated. */
async function migrated(dialect: 'sqlite' | 'postgres'): Promise<string> {
  const location = await emptyDatabase(dialect);
  const store = await openStore({ location });
  onTestFinished(() => store.close());
  await store.exclusively(() => store.migrate());
  return location;
}

async function connect(connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString });
  onTestFinished(() => client.end());
  await client.connect();
  return client;
}

/** The kit's type of each column, told by what Drizzle reads it as. */
function kinds(dialect: 'sqlite' | 'postgres') {
  const KINDS: Record<string, string> = {
    'text collate "C" custom': 'str',
    'bigint number': 'int',
    'boolean boolean': 'bool',
    'bytea custom': 'bytes',
    'text string': 'str',
    'integer number': 'int',
    'integer boolean': 'bool',
    'blob buffer': 'bytes',
    'text custom': 'json',
  };
  return builtTables(dialect).map(({ name, columns }) => [
    name,
    columns.map((c) => `${c.name} ${KINDS[`${c.getSQLType()} ${c.dataType}`]}`),
  ]);
}

describe('the two dialects', () => {
  it('are built with the same columns, keys and indexes', () => {
    expect(describeBuilt('sqlite')).toEqual(describeBuilt('postgres'));
  });

  it('read every column as the same type', () => {
    expect(kinds('sqlite')).toEqual(kinds('postgres'));
    expect(JSON.stringify(kinds('sqlite'))).not.toContain('undefined');
  });

  it('offer drizzle-kit every table there is', () => {
    const tableCount = builtTables('sqlite').length;
    expect(Object.keys(sqliteSchema)).toHaveLength(tableCount);
    expect(Object.keys(postgresSchema)).toEqual(Object.keys(sqliteSchema));
  });

  it('never delete by cascade: what a deletion takes along is written out', () => {
    expect(JSON.stringify(describeBuilt('sqlite'))).not.toContain('cascade');
  });
});

describe('a migrated SQLite file', () => {
  it('holds the schema that is built', async () => {
    const db = new Database(await migrated('sqlite'), { readonly: true });
    onTestFinished(() => void db.close());
    expect(describeSqlite(db)).toEqual(describeBuilt('sqlite'));
  });
});

describe.skipIf(!url)(`a migrated PostgreSQL database${url ? '' : ` [skipped: ${missing}]`}`, () => {
  it('holds the schema that is built', async () => {
    const client = await connect(await migrated('postgres'));
    expect(await describePostgres(client)).toEqual(describeBuilt('postgres'));
  });

  it('compares and sorts every text but JSON by bytes', async () => {
    const client = await connect(await migrated('postgres'));
    const { rows } = await client.query<{ place: string }>(
      `select table_name || '.' || column_name as place from information_schema.columns
       where table_schema = 'public' and data_type = 'text' and collation_name is distinct from 'C'
         and table_name <> '__drizzle_migrations' order by 1`,
    );
    const json = builtTables('postgres').flatMap(({ name, columns }) =>
      columns.filter((c) => c.getSQLType() === 'text').map((c) => `${name}.${c.name}`),
    );
    expect(rows.map(({ place }) => place)).toEqual(json.sort());
  });
});
