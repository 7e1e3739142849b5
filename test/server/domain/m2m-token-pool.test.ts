import fc from 'fast-check';
import { expect, it } from 'vitest';
import { createMintedPool, poolKey } from '../../../server/domain/m2m-token-pool.ts';

const request = {
  machineId: 'mch_a',
  secretId: 'sec_1',
  audience: ['mch_b', 'mch_c'],
  scopes: ['read', 'write'],
  claims: { a: [1, { x: 1, y: 2 }], b: 'c' },
  ttlSeconds: 60,
};

it('poolKey() is one for the same request, in whatever order it is written', () => {
  const reordered = {
    ttlSeconds: 60,
    claims: { b: 'c', a: [1, { y: 2, x: 1 }] },
    scopes: ['write', 'read'],
    audience: ['mch_c', 'mch_b'],
    secretId: 'sec_1',
    machineId: 'mch_a',
  };
  expect(poolKey(reordered)).toBe(poolKey(request));
});

it.each([
  ['machine', { machineId: 'mch_b' }],
  ['secret', { secretId: 'sec_2' }],
  ['audience', { audience: ['mch_b'] }],
  ['scopes', { scopes: ['read'] }],
  ['lifetime', { ttlSeconds: 61 }],
  ['claims', { claims: null }],
  ['claims in part', { claims: { a: [1, { x: 1, y: 3 }], b: 'c' } }],
  ['order of a list in the claims', { claims: { a: [{ x: 1, y: 2 }, 1], b: 'c' } }],
])('poolKey() is another for another %s', (_, change) => {
  expect(poolKey({ ...request, ...change })).not.toBe(poolKey(request));
});

it('poolKey() tells any two claims apart that are not the same JSON', () => {
  const claims = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 3 }));
  fc.assert(
    fc.property(claims, claims, (a, b) => {
      const same = poolKey({ ...request, claims: a }) === poolKey({ ...request, claims: b });
      expect(same).toBe(sorted(a) === sorted(b));
    }),
  );
});

it('createMintedPool() is bounded', () => {
  const pool = createMintedPool();
  for (let i = 0; i < 10_001; i++) pool.set(`${i}`, { id: 'mt_', value: 'v', expiresAt: 1 });
  expect(pool.size).toBe(10_000);
  expect(pool.get('0')).toBeUndefined();
});

/** An independent canonical form: names in order, at every depth. */
function sorted(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(sorted).join()}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const record = value as Record<string, unknown>;
  const names = Object.keys(record).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${sorted(record[name])}`).join()}}`;
}
