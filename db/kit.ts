/**
 * Drizzle has no schema that serves two dialects, so a table is written once as a function of this small kit and
 * built with both. The canonical types are PostgreSQL's; SQLite is cast to them, never the other way round: then
 * `.get`, `.run` and `.changes` do not compile anywhere, and "exactly one wins" is always asked with `.returning()`.
 */
import * as pg from 'drizzle-orm/pg-core';
import * as sqlite from 'drizzle-orm/sqlite-core';

/** Byte order in both dialects: PostgreSQL would otherwise sort and compare by the cluster's locale. */
const pgText = pg.customType<{ data: string; driverData: string }>({
  dataType: () => 'text collate "C"',
});

const pgBytes = pg.customType<{ data: Buffer; driverData: Buffer }>({
  dataType: () => 'bytea',
});

/** JSON kept as text in both dialects: jsonb would reorder keys, and a driver that parses would parse twice. */
const jsonText = {
  dataType: () => 'text',
  toDriver: (value: unknown) => JSON.stringify(value),
  fromDriver: (text: string) => JSON.parse(text) as unknown,
};
const pgJson = pg.customType<{ data: unknown; driverData: string }>(jsonText);
const sqliteJson = sqlite.customType<{ data: unknown; driverData: string }>(jsonText);

export const pgKit = {
  table: pg.pgTable,
  /** Text, compared and sorted by bytes. */
  str: (name: string) => pgText(name),
  /** A whole number up to 2⁵³. */
  int: (name: string) => pg.bigint(name, { mode: 'number' }),
  /** An instant in milliseconds since 1970-01-01 UTC. */
  ts: (name: string) => pg.bigint(name, { mode: 'number' }),
  bool: (name: string) => pg.boolean(name),
  bytes: (name: string) => pgBytes(name),
  json: <T>(name: string) => pgJson(name).$type<T>(),
  index: pg.index,
  uniqueIndex: pg.uniqueIndex,
  primaryKey: pg.primaryKey,
  foreignKey: pg.foreignKey,
  check: pg.check,
};

export type Kit = typeof pgKit;

export const sqliteKit = {
  table: sqlite.sqliteTable,
  str: (name: string) => sqlite.text(name),
  int: (name: string) => sqlite.integer(name, { mode: 'number' }),
  ts: (name: string) => sqlite.integer(name, { mode: 'number' }),
  bool: (name: string) => sqlite.integer(name, { mode: 'boolean' }),
  bytes: (name: string) => sqlite.blob(name, { mode: 'buffer' }),
  json: (name: string) => sqliteJson(name),
  index: sqlite.index,
  uniqueIndex: sqlite.uniqueIndex,
  primaryKey: sqlite.primaryKey,
  foreignKey: sqlite.foreignKey,
  check: sqlite.check,
} as unknown as Kit;

/**
 * A second name for a table that one query joins twice. Both dialects wrap the table in the same proxy, so
 * PostgreSQL's serves both.
 */
export const alias = pg.alias;

/**
 * Keeps the rows a query reads as they are until the transaction ends; others may read them so too. SQLite has one
 * writer, so within a transaction they stay as they are.
 */
export function forShare<Q extends { for(strength: 'share'): unknown }>(query: Q): Q {
  if ('for' in query) query.for('share');
  return query;
}

/**
 * Has a query lock the rows it reads until the transaction ends, for who is about to change them or to hang something on
 * them: others that want to, wait. In SQLite they wait for the one writer.
 */
export function forChange<Q extends { for(strength: 'no key update'): unknown }>(query: Q): Q {
  if ('for' in query) query.for('no key update');
  return query;
}

/** Has a query lock the rows it reads, past those that somebody else has locked. SQLite has one writer, and no such clause. */
export function skipLocked<Q extends { for(strength: 'update', config: { skipLocked: true }): unknown }>(
  query: Q,
): Q {
  if ('for' in query) query.for('update', { skipLocked: true });
  return query;
}
