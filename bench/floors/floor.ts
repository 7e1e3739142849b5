/** What the floors share: values to verify that both sides can make, a body of our size, and how a floor says its port. */
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

/** An answer of the shape and size of ours. */
export const VALID_ANSWER = {
  valid: true,
  kind: 'api_key',
  id: 'ak_00000000000000000000000000000000',
  subject: 'user_0',
  name: 'key 0',
  scopes: ['read', 'write'],
  claims: null,
  expiresAt: null,
};

export function announce(server: Server): void {
  server.listen(0, '127.0.0.1', () => {
    process.stdout.write(`listening on ${(server.address() as AddressInfo).port}\n`);
  });
}
