import { closeSync, openSync, rmSync, statfsSync, statSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

const CHUNK = Buffer.alloc(1 << 20);
/** After an attempt to make it that failed, although the file system told of room for it: there may be a quota. */
const REST_MS = 5_000;

/**
 * Room on the disk that is kept for revocations: a file beside the database. Once it is given up it is missing, and that
 * is how every process on the database knows that the disk is full, also one that starts then.
 */
export class Reserve {
  readonly #path: string;
  readonly #bytes: number;
  #rests = false;

  constructor(path: string, bytes: number) {
    this.#path = path;
    this.#bytes = bytes;
  }

  /** Whether it is missing and there is no room to make it again. */
  isMissing(): boolean {
    if (this.#isThere()) return false;
    if (!this.#rests && this.#hasRoom()) this.#make();
    return !this.#isThere();
  }

  /** Answers whether it was there to be given up. */
  giveUp(): boolean {
    if (!this.#isThere()) return false;
    rmSync(this.#path, { force: true });
    return true;
  }

  #isThere(): boolean {
    return statSync(this.#path, { throwIfNoEntry: false })?.size === this.#bytes;
  }

  /** For as much again, or it would be given up for the next transaction. */
  #hasRoom(): boolean {
    const { bavail, bsize } = statfsSync(dirname(this.#path));
    return bavail * bsize >= 2 * this.#bytes;
  }

  #make(): void {
    try {
      // Written and not just made long: a hole in a file takes no room.
      const file = openSync(this.#path, 'w', 0o600);
      try {
        for (let left = this.#bytes; left > 0; )
          left -= writeSync(file, CHUNK, 0, Math.min(left, CHUNK.length));
      } finally {
        closeSync(file);
      }
    } catch {
      rmSync(this.#path, { force: true });
      this.#rests = true;
      setTimeout(() => {
        this.#rests = false;
      }, REST_MS).unref();
    }
  }
}
