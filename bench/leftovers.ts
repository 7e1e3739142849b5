/** What a run leaves behind on the machine, and takes away however it ends: processes, and folders of gigabytes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const removals = new Set<() => void>();

process.once('exit', () => {
  for (const remove of removals) remove();
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130));

/** Has `remove` called at the end of the run. Answers a function that calls it now instead. */
export function leave(remove: () => void): () => void {
  removals.add(remove);
  return () => {
    removals.delete(remove);
    remove();
  };
}

export interface Scratch {
  folder: string;
  remove(): void;
}

/** A folder of its own in the system's folder for temporary files. */
export function makeScratch(): Scratch {
  const folder = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
  return { folder, remove: leave(() => rmSync(folder, { recursive: true, force: true, maxRetries: 10 })) };
}
