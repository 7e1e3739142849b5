import { execFile } from 'node:child_process';
import { cpSync, readdirSync, readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it, onTestFinished } from 'vitest';
import { migrationsFolder, schemaVersion } from '../../db/migrations.ts';
import { openStore } from '../../db/store.ts';
import { type Dialect, describeOnEachDialect, emptyDatabase, freshFolder } from '../support/deps.ts';
import { type AnyDatabase, migratedUntil } from './any-database.ts';
import { addRow, rowIds } from './rows.ts';
import { describeBuilt, type SchemaDescription, type TableDescription } from './schema-description.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const KIT_DIALECT: Record<Dialect, string> = { sqlite: 'sqlite', postgres: 'postgresql' };

/** What drizzle-kit would add to a copy of the migrations, had it been asked to. */
async function generate(dialect: Dialect) {
  const folder = freshFolder();
  cpSync(migrationsFolder(dialect), folder, { recursive: true });
  const before = readdirSync(folder);
  const flags = [
    `--dialect=${KIT_DIALECT[dialect]}`,
    `--schema=./db/schema-${dialect}.ts`,
    // drizzle-kit takes a folder relative to where it runs.
    `--out=${relative(ROOT, folder)}`,
  ];
  const { stdout } = await promisify(execFile)('npx', ['--no', 'drizzle-kit', 'generate', ...flags], {
    cwd: ROOT,
  });
  return { stdout, added: readdirSync(folder).filter((name) => !before.includes(name)) };
}

describeOnEachDialect('migrations', (dialect) => {
  it('bring an empty database to where it can be written, and do nothing the second time', async () => {
    const store = await openStore({ location: await emptyDatabase(dialect) });
    onTestFinished(() => store.close());
    await expect(store.tx((tx) => addRow(tx, 'too early'))).rejects.toThrow();
    await store.exclusively(() => store.migrate());
    await store.tx((tx) => addRow(tx, 'a'));
    await store.exclusively(() => store.migrate());
    expect(await rowIds(store)).toEqual(['a']);
  });

  it('are applied once when several processes start at the same time', async () => {
    const location = await emptyDatabase(dialect);
    const stores = await Promise.all(Array.from({ length: 4 }, () => openStore({ location })));
    onTestFinished(async () => void (await Promise.all(stores.map((store) => store.close()))));
    await Promise.all(stores.map((store) => store.exclusively(() => store.migrate())));
    await Promise.all(stores.map((store, i) => store.tx((tx) => addRow(tx, `${i}`))));
    for (const store of stores) expect(await rowIds(store)).toEqual(['0', '1', '2', '3']);
  });

  it('leave nothing for drizzle-kit to generate: every change of a table has its migration', async () => {
    const { stdout, added } = await generate(dialect);
    expect(stdout).toContain('No schema changes');
    expect(added).toEqual([]);
  });
});

/** Two rows of a table, told apart by every column; a column that names a parent has the parent's value. */
function rowsOf({ columns, foreignKeys }: TableDescription): Record<string, unknown>[] {
  const parents = new Map(
    foreignKeys.map((key) => {
      const [, column = '', , parent = ''] = /^\((\w+)\) → (\w+) \((\w+)\)/.exec(key) ?? [];
      return [column, parent];
    }),
  );
  const textOf = (column: string, type: string, i: number) => {
    if (type.startsWith('integer')) return `${i}`;
    if (type.startsWith('blob')) return Buffer.from(`${column} ${i}`);
    return `${parents.get(column) ?? column} ${i}`;
  };
  return [0, 1].map((i) =>
    Object.fromEntries(Object.entries(columns).map(([column, type]) => [column, textOf(column, type, i)])),
  );
}

async function fill(database: AnyDatabase) {
  const tables = Object.entries(await database.schema());
  const parentsFirst = tables.sort(([, a], [, b]) => a.foreignKeys.length - b.foreignKeys.length);
  for (const [table, description] of parentsFirst) {
    for (const row of rowsOf(description)) {
      const names = Object.keys(row).map((column) => `"${column}"`);
      const places = names.map((_, i) => `$${i + 1}`);
      await database.query(`insert into "${table}" (${names}) values (${places})`, Object.values(row));
    }
  }
}

/** What is in the columns of a schema, which the database may have grown beyond. */
async function contents(database: AnyDatabase, schema: SchemaDescription) {
  const found: Record<string, unknown[]> = {};
  for (const [table, { columns }] of Object.entries(schema)) {
    const names = Object.keys(columns).map((column) => `"${column}"`);
    found[table] = await database.query(`select ${names} from "${table}" order by ${names[0]}, ${names[1]}`);
  }
  return found;
}

describeOnEachDialect('migrating a database that is in use', (dialect) => {
  const earlier = Array.from({ length: schemaVersion() - 1 }, (_, i) => i + 1);

  it.each(earlier)(
    'after %i migrations keeps every row, children with their parents, and every column',
    async (count) => {
      const database = await migratedUntil(dialect, count);
      await fill(database);
      const schema = await database.schema();
      const before = await contents(database, schema);
      for (const rows of Object.values(before)) expect(rows).toHaveLength(2);
      expect(before['machine_scopes']).toMatchObject([
        { from_machine_id: 'id 0', to_machine_id: 'id 0' },
        { from_machine_id: 'id 1', to_machine_id: 'id 1' },
      ]);
      expect(await database.orphans()).toEqual([]);

      const store = await openStore({ location: database.location });
      onTestFinished(() => store.close());
      await store.exclusively(() => store.migrate());
      expect(await contents(database, schema)).toEqual(before);
      expect(await database.orphans()).toEqual([]);
      const after = await database.schema();
      expect(after).toEqual(describeBuilt(dialect));
      // Binaries of before go on beside us. What takes a column away raises `oldest_binary`, and says so here.
      for (const [table, { columns, primaryKey }] of Object.entries(schema))
        expect(after[table], table).toMatchObject({ columns, primaryKey });
    },
  );
});

it('schemaVersion() is the same in both dialects', () => {
  for (const dialect of ['sqlite', 'postgres'] as const) {
    const journal = readFileSync(`${migrationsFolder(dialect)}/meta/_journal.json`, 'utf8');
    expect((JSON.parse(journal) as { entries: unknown[] }).entries).toHaveLength(schemaVersion());
  }
});
