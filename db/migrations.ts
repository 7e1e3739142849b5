import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Reader } from './store.ts';

/** The folder of one dialect's migrations: beside the sources, or above `dist` when built. */
export function migrationsFolder(dialect: 'sqlite' | 'postgres'): string {
  const beside = fileURLToPath(new URL(`./migrations/${dialect}`, import.meta.url));
  return existsSync(beside)
    ? beside
    : fileURLToPath(new URL(`../../db/migrations/${dialect}`, import.meta.url));
}

/** How many migrations this binary knows: the number a database compares with its `oldest_binary`. */
export function schemaVersion(): number {
  const journal = readFileSync(`${migrationsFolder('sqlite')}/meta/_journal.json`, 'utf8');
  return (JSON.parse(journal) as { entries: unknown[] }).entries.length;
}

/** How many of them a database has. */
export async function appliedMigrations({ read }: Pick<Reader, 'read'>): Promise<number> {
  const [[count] = []] = await read.prepare(
    'applied_migrations',
    'SELECT count(*) FROM __drizzle_migrations',
  )([]);
  return Number(count);
}
