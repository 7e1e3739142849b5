import type { Database, Statement } from 'better-sqlite3';
import type { PreparedText } from './store.ts';

interface Waiting {
  statement: Statement;
  values: unknown[];
  resolve: (rows: unknown[][]) => void;
  reject: (error: unknown) => void;
}

/**
 * Reads of a SQLite file that were asked for in the same turn of the event loop, in one snapshot: beginning and ending
 * one costs more than the read of a row. It begins after the last of them was asked for, so that each sees all that was
 * committed before; none is answered from a snapshot that is older than its question.
 */
export class ReadGroup {
  readonly #connection: Database;
  readonly #begin: Statement;
  readonly #commit: Statement;
  #waiting: Waiting[] = [];

  constructor(connection: Database) {
    this.#connection = connection;
    this.#begin = connection.prepare('BEGIN');
    this.#commit = connection.prepare('COMMIT');
  }

  prepare(text: string): PreparedText {
    const statement = this.#connection.prepare(text).raw();
    return (values) =>
      new Promise((resolve, reject) => {
        if (this.#waiting.push({ statement, values, resolve, reject }) === 1)
          setImmediate(() => this.#read());
      });
  }

  #read(): void {
    const group = this.#waiting;
    this.#waiting = [];
    const inSnapshot = group.length > 1 && this.#tryBegin();
    for (const { statement, values, resolve, reject } of group) {
      try {
        resolve(statement.all(values) as unknown[][]);
      } catch (error) {
        reject(error);
      }
    }
    if (inSnapshot) this.#end();
  }

  /** A snapshot that stayed open would have all later reads see what was, and not what is. */
  #end(): void {
    try {
      if (this.#connection.inTransaction) this.#commit.run();
    } catch {
      // What is wrong with the file the next read will say.
    }
  }

  /** Without a snapshot each read has its own: what is wrong with the file is theirs to say. */
  #tryBegin(): boolean {
    try {
      if (this.#connection.inTransaction) this.#connection.exec('ROLLBACK');
      this.#begin.run();
      return true;
    } catch {
      return false;
    }
  }
}
