/** Loaded into a process of ours before its main: it stands still at one renaming (stalls.ts). */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const { renameSync } = fs;

fs.renameSync = (from, to) => {
  if (to === process.env.STALL_AT_RENAME_TO) {
    fs.writeSync(2, 'stalled\n');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  }
  renameSync(from, to);
};
syncBuiltinESMExports();
