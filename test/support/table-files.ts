/** What whoever copies a database's files has of some tables: not only what their rows show. */
import { readFileSync } from 'node:fs';
import pg from 'pg';
import { isPostgres } from '../../db/store.ts';

/** On SQLite the whole database, with its write-ahead log; on PostgreSQL the tables and their indexes. */
export async function readTableFiles(location: string, tables: readonly string[]): Promise<Buffer> {
  if (!isPostgres(location)) return Buffer.concat([location, `${location}-wal`].map(readIfThere));
  const client = new pg.Client({ connectionString: location });
  await client.connect();
  try {
    await client.query('CHECKPOINT');
    const { rows } = await client.query(
      `SELECT pg_read_binary_file(pg_relation_filepath(oid)) AS file FROM pg_class
       WHERE relkind = 'r' AND relname = ANY($1)
       OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN (SELECT oid FROM pg_class WHERE relname = ANY($1)))`,
      [tables],
    );
    return Buffer.concat(rows.map(({ file }) => file));
  } finally {
    await client.end();
  }
}

function readIfThere(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ENOENT') return Buffer.alloc(0);
    throw error;
  }
}
