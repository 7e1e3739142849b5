import { execFile } from 'node:child_process';
import { cpSync, readdirSync, readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it, onTestFinished } from 'vitest';
import { migrationsFolder, schemaVersion } from '../../db/migrations.ts';
import { openStore } from '../../db/store.ts';
import { type Dialect, describeOnEachDialect, emptyDatabase, freshFolder } from '../support/deps.ts';
import { addRow, rowIds } from './rows.ts';

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
    const store = openStore({ location: await emptyDatabase(dialect) });
    onTestFinished(() => store.close());
    await expect(store.tx((tx) => addRow(tx, 'too early'))).rejects.toThrow();
    await store.exclusively(() => store.migrate());
    await store.tx((tx) => addRow(tx, 'a'));
    await store.exclusively(() => store.migrate());
    expect(await rowIds(store)).toEqual(['a']);
  });

  it('are applied once when several processes start at the same time', async () => {
    const location = await emptyDatabase(dialect);
    const stores = Array.from({ length: 4 }, () => openStore({ location }));
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

it('schemaVersion() is the same in both dialects', () => {
  for (const dialect of ['sqlite', 'postgres'] as const) {
    const journal = readFileSync(`${migrationsFolder(dialect)}/meta/_journal.json`, 'utf8');
    expect((JSON.parse(journal) as { entries: unknown[] }).entries).toHaveLength(schemaVersion());
  }
});
