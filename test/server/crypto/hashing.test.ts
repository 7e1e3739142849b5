import { createHmac } from 'node:crypto';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { parseValue } from '../../../server/crypto/format.ts';
import { hmacOfDigests, newValue, rowMac, startOf } from '../../../server/crypto/hashing.ts';

const pepper = Buffer.alloc(32, 1);

it('hmacOfDigests() is HMAC-SHA-256, whatever was hashed before', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 0, maxLength: 64 }),
      fc.array(fc.uint8Array({ minLength: 32, maxLength: 32 }), { minLength: 1, maxLength: 4 }),
      (key, digests) => {
        const keyed = hmacOfDigests(Buffer.from(key));
        for (const digest of digests)
          expect(keyed(Buffer.from(digest).toString('latin1'))).toBe(
            createHmac('sha256', key).update(digest).digest('binary'),
          );
      },
    ),
  );
  expect(() => hmacOfDigests(pepper)('a'.repeat(31))).toThrow('wanted 32 bytes, got 31');
  expect(() => hmacOfDigests(Buffer.alloc(65))).toThrow('at most 64 bytes');
});

it('newValue() never makes the same value twice, and shows of it its prefix and six characters', () => {
  const values = Array.from({ length: 1_000 }, () => newValue('ak_'));
  expect(new Set(values.map(({ value }) => value)).size).toBe(1_000);
  for (const { value, start } of values) {
    expect(parseValue(value)).toEqual({ prefix: 'ak_' });
    expect(start).toBe(value.slice(0, 9));
  }
});

it('startOf() counts from behind the prefix', () => {
  expect(startOf('acme_live_0123456789', 'acme_live_')).toBe('acme_live_012345');
});

it('rowMac() tells rows apart whose columns would read alike when joined', () => {
  const rows = [
    ['a', 'b'],
    ['a,b'],
    ['ab', ''],
    ['a', null, 'b'],
    ['1'],
    [1],
    [true],
    ['true'],
    [null],
    ['null'],
    [],
  ];
  expect(new Set(rows.map((row) => rowMac(pepper, row).toString('hex'))).size).toBe(rows.length);
});
