/** Copies of all tables from one database to another, counted and checked, whatever their dialects. */
import { createHash } from 'node:crypto';
import { type Batches, batchesOf, insertRows, type Row, type TableName } from '../../db/snapshot.ts';
import type { Rows, Store } from '../../db/store.ts';
import { canonicalJson } from './canonical-json.ts';

/** What a table holds: two that hold the same rows have the same, in whatever order. */
export interface TableSum {
  count: number;
  /** Sum modulo 2²⁵⁶ of the SHA-256 of each row, in hex. */
  checksum: string;
}

export type TableSums = Partial<Record<TableName, TableSum>>;

export interface CopyProgress {
  step: 'copied' | 'read back';
  table: TableName;
  rows: number;
}

/** Where rows are read from: a snapshot, or a transaction. */
interface Source {
  batches: Batches;
}

const MODULUS = 1n << 256n;

/**
 * Copies tables into a store and reads them back, in one transaction: what differs from what was read is not kept.
 * Answers what they held.
 */
export async function copyInto(
  to: Store,
  from: Source,
  names: readonly TableName[],
  tell: (progress: CopyProgress) => void,
): Promise<TableSums> {
  return to.tx(async (tx) => {
    const copied = await copyTables(from, names, insertInto(tx), tell);
    const found = await sumTables({ batches: batchesOf(to, tx) }, names, tell);
    const wrong = differing(copied, found);
    if (wrong.length > 0)
      throw new Error(`The database does not hold what was read: ${wrong.join(', ')} differ`);
    return copied;
  });
}

/** Copies table after table, and answers what they held. */
export const copyTables = (
  from: Source,
  names: readonly TableName[],
  insert: (name: TableName, rows: readonly Row[]) => Promise<void>,
  tell: (progress: CopyProgress) => void,
): Promise<TableSums> =>
  readTables(from, names, async (table, batch, rows) => {
    await insert(table, batch);
    tell({ step: 'copied', table, rows });
  });

export const insertInto = (rows: Rows) => (name: TableName, added: readonly Row[]) =>
  insertRows(rows, name, added);

/** What tables hold, without copying them. */
export const sumTables = (
  from: Source,
  names: readonly TableName[],
  tell: (progress: CopyProgress) => void = () => {},
): Promise<TableSums> =>
  readTables(from, names, async (table, _batch, rows) => tell({ step: 'read back', table, rows }));

async function readTables(
  from: Source,
  names: readonly TableName[],
  handle: (table: TableName, batch: readonly Row[], rows: number) => Promise<void>,
): Promise<TableSums> {
  const sums: TableSums = {};
  for (const table of names) {
    const sum = createSum();
    for await (const batch of from.batches(table)) {
      for (const row of batch) sum.add(row);
      await handle(table, batch, sum.read().count);
    }
    sums[table] = sum.read();
  }
  return sums;
}

/** How many rows tables hold together. */
export const rowsIn = (sums: TableSums): number =>
  Object.values(sums).reduce((total, { count }) => total + count, 0);

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
