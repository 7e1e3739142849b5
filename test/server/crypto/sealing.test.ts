import fc from 'fast-check';
import { expect, it } from 'vitest';
import { seal, unseal } from '../../../server/crypto/sealing.ts';

const key = Buffer.alloc(32, 1);
const PLACE = 'webhook_endpoints.sealed_secret.ep_1';

it('unseal() opens what seal() made, in its own place', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 500 }), (plaintext) => {
      expect(unseal(key, PLACE, seal(key, PLACE, Buffer.from(plaintext)))).toEqual(Buffer.from(plaintext));
    }),
  );
});

it('unseal() opens nothing in another place or with another key', () => {
  const sealed = seal(key, PLACE, 'secret');
  expect(() => unseal(key, 'webhook_endpoints.sealed_secret.ep_2', sealed)).toThrow();
  expect(() => unseal(Buffer.alloc(32, 2), PLACE, sealed)).toThrow();
});

it('unseal() opens nothing of which one bit was changed, or that was cut', () => {
  const sealed = seal(key, PLACE, 'secret');
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const changed = Buffer.from(sealed);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    expect(() => unseal(key, PLACE, changed)).toThrow();
  }
  for (let length = 0; length < sealed.length; length++) {
    expect(() => unseal(key, PLACE, sealed.subarray(0, length))).toThrow();
  }
});

it('seal() never makes the same twice', () => {
  const sealed = Array.from({ length: 100 }, () => seal(key, PLACE, 'secret').toString('hex'));
  expect(new Set(sealed).size).toBe(100);
});
