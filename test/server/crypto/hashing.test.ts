import { createHash, createHmac } from 'node:crypto';
import { expect, it } from 'vitest';
import { parseValue } from '../../../server/crypto/format.ts';
import { newValue, pepperedHash, rowMac, startOf } from '../../../server/crypto/hashing.ts';

const pepper = Buffer.alloc(32, 1);

it('pepperedHash() is HMAC-SHA-256 under the pepper over the SHA-256 of the value', () => {
  const inner = createHash('sha256').update('value').digest();
  expect(pepperedHash(pepper, 'value')).toEqual(createHmac('sha256', pepper).update(inner).digest());
});

it('pepperedHash() is another under another pepper', () => {
  expect(pepperedHash(Buffer.alloc(32, 2), 'value')).not.toEqual(pepperedHash(pepper, 'value'));
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
