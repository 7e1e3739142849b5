import { type Column, eq, getTableColumns, placeholder, type SQL, sql } from 'drizzle-orm';
import { forChange } from './kit.ts';
import type { Tables } from './schema.ts';
import { flatStatement } from './statement.ts';
import type { Rows, Store } from './store.ts';

/**
 * Makes transactions that name the same thing follow one another: whoever comes second waits until the first has ended,
 * and then sees all it did. For what no row stands for that could be locked. SQLite has one writer, and so needs none.
 */
export function lockName({ dialect }: Pick<Store, 'dialect'>, tx: Rows, name: string): Promise<void> {
  return lock(dialect, tx, sql`select pg_advisory_xact_lock(hashtextextended(${name}, 0))`);
}

/** The same for those who may go together, if only none of them goes with somebody who locks the name for himself. */
export function shareName({ dialect }: Pick<Store, 'dialect'>, tx: Rows, name: string): Promise<void> {
  return lock(dialect, tx, sql`select pg_advisory_xact_lock_shared(hashtextextended(${name}, 0))`);
}

async function lock(dialect: Store['dialect'], tx: Rows, query: SQL): Promise<void> {
  if (dialect === 'postgres') await tx.db.execute(query);
}

/** Reads the row with this key and locks it, as `forChange` says; undefined where there is none. */
export function lockStatement<N extends keyof Tables>(
  name: string,
  table: N,
  key: string = 'id',
): (rows: Rows, value: string | number) => Promise<Tables[N]['$inferSelect'] | undefined> {
  const read = flatStatement<{ value: string | number }, object>(name, (db, tables) => {
    const fields: Record<string, Column> = getTableColumns(tables[table]);
    const query = db
      .select(fields as never)
      .from(tables[table] as never)
      .where(eq(fields[key] as Column, placeholder('value')));
    return { fields: fields as never, query: forChange(query) };
  });
  return async (rows, value) => (await read(rows, { value }))[0] as Tables[N]['$inferSelect'] | undefined;
}

/** For questions about all of something, of which no row stands for all: those who ask take turns on the installation's one row, 1. */
export const lockInstallation = lockStatement('installation_lock', 'installation');
