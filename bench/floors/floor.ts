/** What the floors share: values to verify that both sides can make, what they are told, and how one says its port. */
import { createHash } from 'node:crypto';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { formatValue, PREFIXES } from '../../server/crypto/format.ts';

export const CREDENTIALS = 1_000;

/** The same values in every process: a floor needs no other state. */
export function seedValues(): { caller: string; credentials: string[] } {
  const value = (prefix: string, seed: string) =>
    formatValue(prefix, createHash('sha256').update(seed).digest());
  return {
    caller: value(PREFIXES.secretKey, 'caller'),
    credentials: Array.from({ length: CREDENTIALS }, (_, i) => value(PREFIXES.apiKey, `credential ${i}`)),
  };
}

/** A folder of its own. */
export const givenFolder = () => process.argv[2] ?? '';

/** An answer of ours to a key that is valid, for the floor to send the same. */
export const givenAnswer = () => JSON.parse(process.argv[3] ?? '{}') as object;

export function announce(server: Server): void {
  server.listen(0, '127.0.0.1', () => {
    process.stdout.write(`listening on ${(server.address() as AddressInfo).port}\n`);
  });
}
