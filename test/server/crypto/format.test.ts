import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  crc32,
  encodeBase62,
  formatValue,
  looksLikeJwt,
  PREFIXES,
  parseValue,
} from '../../../server/crypto/format.ts';

const bytes = fc.uint8Array({ minLength: 32, maxLength: 32 });
const prefix = fc.constantFrom(...Object.values(PREFIXES), 'acme_live_', 'x1_');

it('formatValue() makes a prefix, 43 characters of the number and 6 of the checksum, which parseValue() reads', () => {
  fc.assert(
    fc.property(prefix, bytes, (wanted, random) => {
      const value = formatValue(wanted, random);
      expect(value.slice(wanted.length)).toMatch(/^[0-9A-Za-z]{49}$/);
      expect(parseValue(value)).toEqual({ prefix: wanted });
    }),
  );
});

it('formatValue() pads to the left and reaches the largest number', () => {
  expect(formatValue('mt_', Buffer.alloc(32))).toMatch(/^mt_0{43}/);
  const largest = formatValue('mt_', Buffer.alloc(32, 0xff));
  expect(parseValue(largest)).toEqual({ prefix: 'mt_' });
  expect(() => formatValue('mt_', Buffer.alloc(31))).toThrow('wanted 32 bytes, got 31');
});

it.each([
  [
    'ak_',
    Buffer.from(Array.from({ length: 32 }, (_, i) => i)),
    'ak_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf3CBj32',
  ],
  ['mt_', Buffer.alloc(32), 'mt_00000000000000000000000000000000000000000000PLnyi'],
  ['msk_', Buffer.alloc(32, 0xff), 'msk_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp12ZVEJM'],
])(
  'formatValue() keeps to the vectors of an implementation in another language: %s',
  (wanted, bytes, value) => {
    expect(formatValue(wanted, bytes)).toBe(value);
  },
);

it('parseValue() refuses a number above 256 bits even with the right checksum', () => {
  const body = 'z'.repeat(43);
  const value = `mt_${body}`;
  expect(parseValue(value + encodeBase62(BigInt(crc32(value)), 6))).toBeNull();
  const one = encodeBase62(1n << 256n, 43);
  expect(parseValue(`mt_${one}${encodeBase62(BigInt(crc32(`mt_${one}`)), 6)}`)).toBeNull();
});

it('parseValue() refuses every value with one character changed', () => {
  const character = fc.constantFrom(...'0Aaz9Z_-. é');
  fc.assert(
    fc.property(prefix, bytes, fc.nat(60), character, (wanted, random, at, changed) => {
      const value = formatValue(wanted, random);
      const place = at % value.length;
      fc.pre(value[place] !== changed);
      expect(parseValue(value.slice(0, place) + changed + value.slice(place + 1))).toBeNull();
    }),
    { numRuns: 1_000 },
  );
});

it('parseValue() refuses what surrounds a value, and upper-case prefixes', () => {
  const value = formatValue('ak_', Buffer.alloc(32, 3));
  for (const wrong of [
    `${value}\n`,
    ` ${value}`,
    `${value} `,
    `Bearer ${value}`,
    value.toUpperCase(),
    `A${value}`,
    '',
  ]) {
    expect(parseValue(wrong)).toBeNull();
  }
});

it('crc32() is the IEEE 802.3 one', () => {
  expect(crc32('123456789')).toBe(0xcbf43926);
  expect(crc32('')).toBe(0);
});

it('encodeBase62() keeps the order of numbers of one length', () => {
  const number = fc.bigInt({ min: 0n, max: (1n << 256n) - 1n });
  fc.assert(
    fc.property(number, number, (a, b) => {
      expect(encodeBase62(a, 43) < encodeBase62(b, 43)).toBe(a < b);
    }),
  );
});

it('looksLikeJwt() knows three parts of base64url with JSON objects in front, of bounded length', () => {
  expect(looksLikeJwt('eyJhbGciOiJFUzI1NiJ9.eyJhIjoxfQ.c2ln')).toBe(true);
  for (const wrong of [
    'eyJhbGciOiJFUzI1NiJ9.eyJhIjoxfQ.',
    'eyJhbGciOiJFUzI1NiJ9.eyJhIjoxfQ',
    'eyJh.eyJh.c2ln.c2ln',
    'eyJh.eyJ+.c2ln',
    'abc.eyJh.c2ln',
    `eyJh.eyJ${'A'.repeat(12_289)}.c2ln`,
    ' eyJhbGciOiJFUzI1NiJ9.eyJhIjoxfQ.c2ln',
  ]) {
    expect(looksLikeJwt(wrong)).toBe(false);
  }
});
