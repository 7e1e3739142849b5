import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { claims } from '../../../server/domain/fields.ts';
import { wireOf } from '../../../server/rest/wire.ts';

const schema = z.strictObject({
  displayName: z.string(),
  rateLimit: z.strictObject({ windowSeconds: z.number() }).nullish(),
  fallbackItems: z.array(z.strictObject({ itemId: z.string() })).optional(),
  claims: claims.nullish(),
  idempotencyKey: z.string().optional(),
});

const own = {
  displayName: 'a',
  rateLimit: { windowSeconds: 1 },
  fallbackItems: [{ itemId: 'b' }],
  claims: { teamName: 'c', deep: { teamName: 'd' } },
  idempotencyKey: 'k',
};

const onTheWire = {
  display_name: 'a',
  rate_limit: { window_seconds: 1 },
  fallback_items: [{ item_id: 'b' }],
  claims: { teamName: 'c', deep: { teamName: 'd' } },
  'Idempotency-Key': 'k',
};

describe('wireOf()', () => {
  const wire = wireOf(schema, 'input');

  it('renames fields at every depth and leaves alone what callers name', () => {
    expect(wire.toOwn(onTheWire)).toEqual(own);
    expect(wire.toWire(own)).toEqual(onTheWire);
    expect(wire.toOwn({ rate_limit: null })).toEqual({ rateLimit: null });
  });

  it('describes the same names', () => {
    const { properties = {}, required } = wire.schema();
    expect(Object.keys(properties).sort()).toEqual(Object.keys(onTheWire).sort());
    expect(required).toEqual(['display_name']);
    expect(properties['fallback_items']?.items?.required).toEqual(['item_id']);
  });

  it('takes names that were given for it before its own', () => {
    const named = wireOf(schema, 'input', { displayName: 'title' });
    expect(named.toOwn({ title: 'a' })).toEqual({ displayName: 'a' });
    expect(wireOf(schema, 'input', 'as is').toOwn(own)).toEqual(own);
  });

  it('refuses our names where the wire has others, and leaves strangers for the schema to refuse', () => {
    for (const value of [{ displayName: 'a' }, { rate_limit: { windowSeconds: 1 } }])
      expect(() => wire.toOwn(value)).toThrow(
        /^Cannot accept the input: wanted no other fields, found '\w+'$/,
      );
    expect(schema.safeParse(wire.toOwn({ display_name: 'a', nope: 1 })).success).toBe(false);
  });

  it('answers nothing that the schema does not have', () => {
    expect(wire.toWire({ ...own, sealedSecret: 'x' })).toEqual(onTheWire);
  });

  it('changes no prototype', () => {
    const hostile = JSON.parse('{"__proto__":{"admin":true},"display_name":"a"}');
    const read = wire.toOwn(hostile) as Record<string, unknown>;
    expect(Object.getPrototypeOf(read)).toBe(Object.prototype);
    expect(read['admin']).toBeUndefined();
  });

  it('says what fields are called there, and leaves other words alone', () => {
    expect(wire.nameOf('windowSeconds')).toBe('window_seconds');
    expect(wire.nameOf('someName')).toBe('someName');
  });
});
