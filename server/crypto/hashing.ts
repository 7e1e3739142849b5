import { createHmac, hash } from 'node:crypto';
import { formatValue } from './format.ts';
import { freshBytes } from './random.ts';

/** A fresh value and what is kept of it. */
export interface NewValue {
  value: string;
  start: string;
}

/** Characters of a value after its prefix that are shown for people to recognise it by. */
const START_LENGTH = 6;

export function newValue(prefix: string): NewValue {
  const value = formatValue(prefix, freshBytes(32));
  return { value, start: startOf(value, prefix) };
}

export const startOf = (value: string, prefix: string) => value.slice(0, prefix.length + START_LENGTH);

export function hmac(key: Buffer, data: Buffer | string): Buffer {
  return createHmac('sha256', key).update(data).digest();
}

/** Of SHA-256, in bytes (FIPS 180-4, section 1). */
const BLOCK_LENGTH = 64;
const DIGEST_LENGTH = 32;

/** SHA-256 as a string of 32 characters, one a byte: a fifth of the cost of a `Buffer` from the same function. */
export const digestOf = (data: Buffer | string): string => hash('sha256', data, 'binary');

/**
 * `hmac` under one key of at most 64 bytes, from digest to digest as `digestOf` has them: two one-shot hashes (RFC 2104,
 * section 2) cost a quarter of what `createHmac` does, and every verification makes two of these.
 */
export function hmacOfDigests(key: Buffer): (digest: string) => string {
  if (key.length > BLOCK_LENGTH)
    throw new RangeError(`Cannot key HMAC: wanted at most ${BLOCK_LENGTH} bytes`);
  const inner = Buffer.alloc(BLOCK_LENGTH + DIGEST_LENGTH, 0x36);
  const outer = Buffer.alloc(BLOCK_LENGTH + DIGEST_LENGTH, 0x5c);
  key.forEach((byte, i) => {
    inner[i] = byte ^ 0x36;
    outer[i] = byte ^ 0x5c;
  });
  return (digest) => {
    if (digest.length !== DIGEST_LENGTH)
      throw new RangeError(`Cannot hash: wanted ${DIGEST_LENGTH} bytes, got ${digest.length}`);
    inner.write(digest, BLOCK_LENGTH, 'latin1');
    outer.write(digestOf(inner), BLOCK_LENGTH, 'latin1');
    return digestOf(outer);
  };
}

/** HMAC over a list of columns, each written as JSON so that no two lists read alike. */
export function rowMac(key: Buffer, columns: readonly (string | number | boolean | null)[]): Buffer {
  return hmac(key, JSON.stringify(columns));
}
