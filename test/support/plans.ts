/** Which statements are read with, and by which indexes SQLite would answer them. */
import type { TestDeps } from './deps.ts';

/** What drizzle keeps of better-sqlite3's connection. */
interface Connection {
  prepare(source: string): { all(...parameters: unknown[]): unknown[] };
}

/** The statements that `work` reads with. */
export async function statementsOf(deps: TestDeps, work: () => Promise<unknown>): Promise<string[]> {
  const connection = (deps.store.read.db as unknown as { $client: Connection }).$client;
  const { prepare } = connection;
  const statements: string[] = [];
  connection.prepare = (source) => {
    statements.push(source);
    return prepare.call(connection, source);
  };
  try {
    await work();
  } finally {
    connection.prepare = prepare;
  }
  return statements;
}

/** The steps of SQLite's plan for a statement. */
export function planOf(deps: TestDeps, statement: string): string[] {
  const connection = (deps.store.read.db as unknown as { $client: Connection }).$client;
  const parameters = Array(statement.split('?').length - 1).fill(1);
  const steps = connection.prepare(`EXPLAIN QUERY PLAN ${statement}`).all(...parameters);
  return (steps as { detail: string }[]).map(({ detail }) => detail);
}
