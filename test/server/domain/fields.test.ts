import { describe, expect, it } from 'vitest';
import type { z } from 'zod';
import {
  apiKeyId,
  assertFuture,
  CLAIMS_BYTES_MAX,
  CLAIMS_DEPTH_MAX,
  claims,
  credential,
  description,
  expiryOf,
  instant,
  m2mTokenId,
  machineId,
  name,
  RESERVED_CLAIMS,
  scope,
  scopes,
  secretKeyId,
  subject,
  TTL_SECONDS_MAX,
  ttlSeconds,
  webhookEndpointId,
} from '../../../server/domain/fields.ts';

const nested = (levels: number): unknown => (levels === 0 ? 1 : [nested(levels - 1)]);
const hex = 'a'.repeat(32);
const base62 = 'aZ9'.repeat(9);

const FIELDS: [string, z.ZodType, accepted: unknown[], refused: unknown[]][] = [
  [
    'name',
    name,
    ['a', 'two words', 'Ärger 🔑', 'x'.repeat(255)],
    ['', ' a', 'a ', 'a\nb', 'a\0', 'a\u0085b', 'a\ud800', 'x'.repeat(256), 1, null],
  ],
  ['description', description, ['', ' a '], ['x'.repeat(256), 'a\tb', '\udc00']],
  ['subject', subject, ['user_1', 'scim|a b', 'x'.repeat(255)], ['', 'a\u007f', 'x'.repeat(256)]],
  [
    'machineId',
    machineId,
    [`mch_${base62}`],
    [`mch_${base62}0`, `mch_${hex}`, `MCH_${base62}`, `mch_${base62}\n`],
  ],
  ['apiKeyId', apiKeyId, [`ak_${hex}`], [`ak_${hex}0`, `ak_${hex.toUpperCase()}`, `ak_${'g'.repeat(32)}`]],
  ['m2mTokenId', m2mTokenId, [`mt_${hex}`], [`ak_${hex}`, `mt_${hex}\n`]],
  ['secretKeyId', secretKeyId, [`sk_${hex}`], [`msk_${hex}`]],
  ['webhookEndpointId', webhookEndpointId, [`ep_${base62}`], [`ep_${hex}`]],
  [
    'scope',
    scope,
    ['read', 'orders:write', '!#[]~', 'x'.repeat(128)],
    ['', 'two words', 'quo"te', 'back\\slash', 'ä', 'x'.repeat(129)],
  ],
  [
    'scopes',
    scopes,
    [[], Array.from({ length: 100 }, (_, i) => `s${i}`)],
    [['a', 'a'], Array.from({ length: 101 }, (_, i) => `s${i}`), 'read', [1]],
  ],
  [
    'claims',
    claims,
    [{}, { plan: 'pro', seats: 3, nested: { a: [null, true] } }, { text: 'x'.repeat(CLAIMS_BYTES_MAX - 11) }],
    [
      { text: 'x'.repeat(CLAIMS_BYTES_MAX - 10) },
      { '': 1 },
      { 'a\nb': 1 },
      { a: 'NUL \0' },
      { a: { 'NUL \0': 1 } },
      { ['x'.repeat(129)]: 1 },
      [],
      'text',
      null,
      { a: undefined },
      { a: nested(CLAIMS_DEPTH_MAX) },
      { a: nested(1000) },
    ],
  ],
  ['ttlSeconds', ttlSeconds, [1, TTL_SECONDS_MAX], [0, -1, 1.5, TTL_SECONDS_MAX + 1, '60', Number.NaN]],
  ['instant', instant, [0, Date.now(), 8.64e15], [-1, 0.5, 8.64e15 + 1, Number.POSITIVE_INFINITY]],
  ['credential', credential, ['x', 'x'.repeat(16_384)], ['', 'x'.repeat(16_385), 1]],
];

describe.each(FIELDS)('%s', (_, schema, accepted, refused) => {
  it('accepts and answers unchanged what is within its limits', () => {
    for (const value of accepted) expect(schema.parse(value)).toEqual(value);
  });

  it('refuses everything else', () => {
    for (const value of refused) expect([value, schema.safeParse(value).success]).toEqual([value, false]);
  });
});

describe('claims', () => {
  it('refuses every name of the token format with a code of its own, at the top alone', () => {
    for (const reserved of RESERVED_CLAIMS) {
      const given = JSON.parse(`{"plan":"pro","${reserved}":1}`);
      expect(() => claims.parse(given)).toThrow(expect.objectContaining({ code: 'reserved_claim' }));
      if (reserved !== '__proto__') expect(claims.parse({ profile: { [reserved]: 1 } })).toBeDefined();
    }
  });

  it('refuses a field that parsing would drop, at any depth, instead of changing what was asked for', () => {
    for (const given of ['{"profile":{"__proto__":{"admin":true}}}', '{"list":[{"__proto__":1}]}']) {
      expect(() => claims.parse(JSON.parse(given))).toThrow(/__proto__/);
    }
  });
});

describe('expiryOf()', () => {
  it('is never, an instant, or a time from now', () => {
    expect(expiryOf('key', 1000, {})).toBeNull();
    expect(expiryOf('key', 1000, { expiresAt: null })).toBeNull();
    expect(expiryOf('key', 1000, { expiresAt: 1001 })).toBe(1001);
    expect(expiryOf('key', 1000, { ttlSeconds: 1 })).toBe(2000);
    expect(expiryOf('key', 1000, { ttlSeconds: 1, expiresAt: null })).toBe(2000);
  });

  it('refuses now and the past, and two answers to one question', () => {
    const refused = (field: string) => expect.objectContaining({ code: 'invalid_input', field });
    expect(() => expiryOf('key', 1000, { expiresAt: 1000 })).toThrow(refused('expiresAt'));
    expect(() => expiryOf('key', 1000, { expiresAt: 2000, ttlSeconds: 1 })).toThrow(refused('ttlSeconds'));
    expect(() => assertFuture('key', 1000, 999)).toThrow(
      "Cannot save key: 'expiresAt' must be after 1000, got 999",
    );
  });
});
