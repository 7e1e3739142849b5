/** A file system of a test's own that is small enough to be filled. */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { freshFolder } from './deps.ts';

/** Why a small file system cannot be mounted here, or null when it can. */
export function whyNoSmallDisk(): string | null {
  if (process.getuid?.() !== 0) return 'only root may mount a small file system';
  const { status } = spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', '/mnt']);
  return status === 0 ? null : 'this machine does not let root mount a file system';
}

export interface SmallDisk {
  folder: string;
  /** Leaves no byte free. */
  fill(): void;
  /** Takes away what filled it. */
  makeRoom(): void;
}

/** It goes when the test ends, after whatever the test began on it later. */
export function smallDisk(megabytes: number): SmallDisk {
  const folder = freshFolder();
  const options = ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', folder];
  expect(spawnSync('mount', options).status).toBe(0);
  onTestFinished(() => void spawnSync('umount', ['--lazy', folder]));
  const filler = join(folder, 'filler');
  return {
    folder,
    fill() {
      const file = openSync(filler, 'a');
      for (let length = 1 << 20; length > 0; ) {
        try {
          if (writeSync(file, Buffer.alloc(length, 1)) < length) length >>= 1;
        } catch {
          length >>= 1;
        }
      }
      closeSync(file);
    },
    makeRoom: () => rmSync(filler),
  };
}
