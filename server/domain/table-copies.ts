/** Copies of all tables from one database to another, counted and checked, whatever their dialects. */
import { createHash } from 'node:crypto';
import { insertRows, type Row, type Snapshot, type TableName } from '../../db/snapshot.ts';
import type { Rows } from '../../db/store.ts';
import { canonicalJson } from './canonical-json.ts';

/** What a table holds: two that hold the same rows have the same, in whatever order. */
export interface TableSum {
  count: number;
  /** Sum modulo 2²⁵⁶ of the SHA-256 of each row, in hex. */
  checksum: string;
}

export type TableSums = Partial<Record<TableName, TableSum>>;

export interface CopyProgress {
  table: TableName;
  rows: number;
}

const MODULUS = 1n << 256n;

/** Copies table after table, and answers what they held. */
export async function copyTables(
  from: Snapshot,
  names: readonly TableName[],
  insert: (name: TableName, rows: readonly Row[]) => Promise<void>,
  tell: (progress: CopyProgress) => void,
): Promise<TableSums> {
  const sums: TableSums = {};
  for (const table of names) {
    const sum = createSum();
    for await (const rows of from.batches(table)) {
      await insert(table, rows);
      for (const row of rows) sum.add(row);
      tell({ table, rows: sum.read().count });
    }
    sums[table] = sum.read();
  }
  return sums;
}

export const insertInto = (rows: Rows) => (name: TableName, added: readonly Row[]) =>
  insertRows(rows, name, added);

/** What tables hold, without copying them. */
export const sumTables = (from: Snapshot, names: readonly TableName[]): Promise<TableSums> =>
  copyTables(
    from,
    names,
    async () => {},
    () => {},
  );

function createSum() {
  let count = 0;
  let total = 0n;
  return {
    add(row: Row) {
      const digest = createHash('sha256')
        .update(canonicalJson(plain(row)))
        .digest('hex');
      total = (total + BigInt(`0x${digest}`)) % MODULUS;
      count += 1;
    },
    read: (): TableSum => ({ count, checksum: total.toString(16).padStart(64, '0') }),
  };
}

/** As JSON has it: bytes in hex. */
const plain = (row: Row): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(row).map(([name, value]) => [
      name,
      Buffer.isBuffer(value) ? value.toString('hex') : value,
    ]),
  );

/** The tables whose counts or checksums differ. */
export function differing(one: TableSums, other: TableSums): TableName[] {
  const names = [...new Set([...Object.keys(one), ...Object.keys(other)])] as TableName[];
  return names.filter(
    (name) => one[name]?.count !== other[name]?.count || one[name]?.checksum !== other[name]?.checksum,
  );
}
