import type { Tables } from './schema.ts';
import type { Db, Rows } from './store.ts';

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
