import { type Column, getTableColumns, is, Param, Placeholder, placeholder } from 'drizzle-orm';
import type { Tables } from './schema.ts';
import type { Db, PreparedText, Rows } from './store.ts';

interface Prepared<R> {
  execute(parameters: Record<string, unknown>): Promise<R>;
}

/**
 * A statement built and prepared once for each connection it is used on, for hot paths: preparing anew costs ten times
 * the reading. It is memoised by `db` object because a statement prepared on PostgreSQL's pool runs outside any
 * transaction and survives its rollback.
 */
export function statement<P extends Record<string, unknown>, R>(
  build: (db: Db, tables: Tables) => Prepared<R>,
): (rows: Rows, parameters: P) => Promise<R> {
  const prepared = new WeakMap<Db, Prepared<R>>();
  return (rows, parameters) => {
    let ready = prepared.get(rows.db);
    if (!ready) {
      ready = build(rows.db, rows.tables);
      prepared.set(rows.db, ready);
    }
    return ready.execute(parameters);
  };
}

/** A query whose columns are all named in `fields`, in the order in which it selects them; none for what answers no rows. */
interface FlatQuery<R> {
  fields: { [K in keyof R]: Column };
  query: { toSQL(): { sql: string; params: unknown[] } };
}

/**
 * As `statement`, for the few statements that every request executes: Drizzle builds the query and says how each column is
 * decoded, but its own mapping of a row, which costs more than reading it, is left out. The type of a row is the
 * caller's to state: what a left join did not find is null.
 */
export function flatStatement<P extends Record<string, unknown>, R extends object>(
  name: string,
  build: (db: Db, tables: Tables) => FlatQuery<R>,
): (rows: Rows, parameters: P) => R[] | Promise<R[]> {
  const prepared = new WeakMap<Db, (parameters: P) => R[] | Promise<R[]>>();
  return (rows, parameters) => {
    let execute = prepared.get(rows.db);
    if (!execute) {
      execute = flatExecution(rows, name, build(rows.db, rows.tables));
      prepared.set(rows.db, execute);
    }
    return execute(parameters);
  };
}

/** A flat statement that inserts a whole row. In a column of JSON that may be null it would write JSON's null. */
export function insertStatement<N extends keyof Tables>(
  name: string,
  table: N,
): (rows: Rows, row: Tables[N]['$inferSelect']) => object[] | Promise<object[]> {
  return flatStatement(name, (db, tables) => {
    const columns = Object.keys(getTableColumns(tables[table]));
    const values = Object.fromEntries(columns.map((column) => [column, placeholder(column)]));
    return { fields: {}, query: db.insert(tables[table]).values(values as never) };
  });
}

function flatExecution<P extends Record<string, unknown>, R>(
  rows: Rows,
  name: string,
  { fields, query }: FlatQuery<R>,
): (parameters: P) => R[] | Promise<R[]> {
  const { sql, params } = query.toSQL();
  const run: PreparedText = rows.prepare(name, sql);
  const fills = params.map(fillOf);
  const columns = Object.entries<Column>(fields).map(([key, column]) => ({ key, decode: decoderOf(column) }));

  function toRow(values: unknown[]): R {
    const row: Record<string, unknown> = {};
    for (let i = 0; i < columns.length; i++) {
      const { key, decode } = columns[i] as (typeof columns)[number];
      const value = values[i];
      row[key] = value === null || decode === null ? value : decode(value);
    }
    return row as R;
  }

  return (parameters) => {
    const found = run(fills.map((fill) => fill(parameters)));
    return found instanceof Promise ? found.then((all) => all.map(toRow)) : found.map(toRow);
  };
}

/** What Drizzle's `fillPlaceholders` finds out of a parameter at every execution, found out once. */
function fillOf(param: unknown): (parameters: Record<string, unknown>) => unknown {
  if (is(param, Placeholder)) return (parameters) => given(parameters, param.name);
  if (is(param, Param) && is(param.value, Placeholder)) {
    const { encoder, value } = param;
    return (parameters) => encoder.mapToDriverValue(given(parameters, value.name));
  }
  return () => param;
}

function given(parameters: Record<string, unknown>, name: string): unknown {
  const value = parameters[name];
  if (value === undefined) throw new Error(`Wanted a value for the placeholder '${name}', found none`);
  return value;
}

/** Null where the driver's value is ours already. */
function decoderOf(column: Column): ((value: unknown) => unknown) | null {
  switch (column.dataType) {
    case 'string':
      return null;
    case 'number':
      return (value) => (typeof value === 'number' ? value : Number(value));
    case 'boolean':
      return (value) => value === true || value === 1;
    default:
      return (value) => column.mapFromDriverValue(value);
  }
}
