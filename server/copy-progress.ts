import type { CopyProgress } from './domain/table-copies.ts';

/** How often progress is told. */
const TOLD_MS = 2_000;

/** Tells on standard error, now and then, how far a copy is. */
export function createCopyProgress(): (progress: CopyProgress) => void {
  let toldAt = performance.now();
  return ({ step, table, rows }) => {
    if (performance.now() - toldAt < TOLD_MS) return;
    toldAt = performance.now();
    process.stderr.write(`${table}: ${rows} rows ${step}\n`);
  };
}
