import { createHmac, hash, randomBytes } from 'node:crypto';
import { formatValue } from './format.ts';

/** A fresh value and what is kept of it. */
export interface NewValue {
  value: string;
  start: string;
}

/** Characters of a value after its prefix that are shown for people to recognise it by. */
const START_LENGTH = 6;

export function newValue(prefix: string): NewValue {
  const value = formatValue(prefix, randomBytes(32));
  return { value, start: startOf(value, prefix) };
}

export const startOf = (value: string, prefix: string) => value.slice(0, prefix.length + START_LENGTH);

/** What is stored of a value: HMAC-SHA-256(pepper, SHA-256(value)). SHA-256 first lets keys be imported by hash. */
export function pepperedHash(pepper: Buffer, value: string): Buffer {
  return hmac(pepper, hash('sha256', value, 'buffer'));
}

export function hmac(key: Buffer, data: Buffer | string): Buffer {
  return createHmac('sha256', key).update(data).digest();
}

/** HMAC over a list of columns, each written as JSON so that no two lists read alike. */
export function rowMac(key: Buffer, columns: readonly (string | number | boolean | null)[]): Buffer {
  return hmac(key, JSON.stringify(columns));
}
