import { randomBytes, randomFillSync } from 'node:crypto';

/** A call for a few bytes costs as much as one for thousands, and every credential and id makes one or two. */
const POOL_LENGTH = 8_192;

const pool = Buffer.alloc(POOL_LENGTH);
let used = POOL_LENGTH;

/** Fresh bytes of the system's generator; what was handed out is not kept. */
export function freshBytes(length: number): Buffer {
  if (length > POOL_LENGTH) return randomBytes(length);
  if (used + length > POOL_LENGTH) {
    randomFillSync(pool);
    used = 0;
  }
  const bytes = Buffer.from(pool.subarray(used, used + length));
  pool.fill(0, used, used + length);
  used += length;
  return bytes;
}
