/** Token Status Lists (draft-ietf-oauth-status-list): the bits as they are published, and the order indexes are handed out in. */
import { createCipheriv } from 'node:crypto';
import { promisify } from 'node:util';
import { constants, deflate } from 'node:zlib';

/** Indexes of one list, one bit each: 16 KB. */
export const STATUS_LIST_LENGTH = 2 ** 17;

export const newStatusBits = (): Buffer => Buffer.alloc(STATUS_LIST_LENGTH / 8);

/** Section 4.1: from the least significant bit of each byte to the most significant. */
export function setStatusBit(bits: Buffer, index: number): void {
  bits[index >> 3] = (bits[index >> 3] as number) | (1 << (index & 7));
}

const compress = promisify(deflate);

/** `lst` of section 4.2: base64url of the bits in the ZLIB format. Compressed off the event loop. */
export async function encodeStatusBits(bits: Buffer): Promise<string> {
  return (await compress(bits, { level: constants.Z_BEST_COMPRESSION })).toString('base64url');
}

/**
 * Every index of a list, in an order drawn from 32 bytes: Fisher-Yates over the key stream of AES-256-CTR. It takes about a
 * millisecond. With 32 bits for each draw no place is likelier than another by more than one in 2¹⁵.
 */
export function shuffledIndexes(seed: Buffer): Uint32Array {
  const draws = createCipheriv('aes-256-ctr', seed, Buffer.alloc(16)).update(
    Buffer.alloc(STATUS_LIST_LENGTH * 4),
  );
  const indexes = Uint32Array.from({ length: STATUS_LIST_LENGTH }, (_, i) => i);
  for (let i = STATUS_LIST_LENGTH - 1; i > 0; i--) {
    const j = Math.floor((draws.readUInt32LE(i * 4) * (i + 1)) / 2 ** 32);
    const moved = indexes[i] as number;
    indexes[i] = indexes[j] as number;
    indexes[j] = moved;
  }
  return indexes;
}
