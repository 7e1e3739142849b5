import { describe, expect, it } from 'vitest';
import { InForce } from '../../../client/verifier/in-force.ts';
import { type Invalidation, nameOf, namesIn, Told } from '../../../client/verifier/told.ts';

describe('Told', () => {
  it('knows what was told of since a message, and of what it was not', () => {
    const told = new Told();
    told.tell(['a']);
    const { mark } = told;
    expect(told.isTouchedSince(mark, ['a', 'b'])).toBe(false);
    told.tell(['b']);
    expect(told.isTouchedSince(mark, ['a', 'b'])).toBe(true);
    expect(told.isTouchedSince(mark, ['a'])).toBe(false);
    expect(told.isTouchedSince(told.mark, ['a', 'b'])).toBe(false);
  });

  it('where it forgot when something was told of, takes it for told of', () => {
    const told = new Told(2);
    told.tell(['a']);
    const { mark } = told;
    told.tell(['b']);
    told.tell(['c']);
    told.tell(['d']);
    expect(told.isTouchedSince(mark, ['never told of'])).toBe(true);
    expect(told.isTouchedSince(told.mark, ['never told of'])).toBe(false);
  });
});

describe('namesIn()', () => {
  it.each<[string, Partial<Invalidation>, string[]]>([
    ['an API key', { kind: 'api_key', id: 'ak_1' }, [nameOf.credential('ak_1')]],
    [
      'a subject',
      { kind: 'subject', id: 'mch_1', selector: { subject: 'mch_1' } },
      [nameOf.subject('mch_1')],
    ],
    [
      'a machine with its tokens',
      { kind: 'machine', id: 'mch_1', selector: { machineId: 'mch_1' } },
      [nameOf.machine('mch_1')],
    ],
    [
      'a way',
      { kind: 'machine_scope', selector: { fromMachineId: 'a', toMachineId: 'b' } },
      [nameOf.way('a', 'b')],
    ],
    [
      'keys that were purged',
      { kind: 'api_key', selector: { apiKeyIds: ['x', 'y'] } },
      [nameOf.credential('x'), nameOf.credential('y')],
    ],
    ['what a key signed', { kind: 'm2m_token', selector: { signingKeyId: 'k' } }, [nameOf.signingKey('k')]],
    ['all of a kind', { kind: 'api_key' }, [nameOf.every('api_key')]],
  ])('of %s', (_, item, names) => {
    const told = namesIn({ at: 0, reason: 'changed', kind: 'api_key', ...item });
    expect(new Set(told)).toEqual(new Set([nameOf.any(item.kind ?? 'api_key'), ...names]));
  });
});

describe('InForce', () => {
  const AT = 1_000_000_000;
  const jwt = { id: 'mt_1', machineId: 'mch_a', audience: 'mch_b', kid: 'k', issuedAt: AT };
  const item = (more: Partial<Invalidation>): Invalidation => ({
    at: AT,
    kind: 'm2m_token',
    reason: 'revoked',
    ...more,
  });

  it.each<[string, Invalidation, boolean]>([
    ['itself', item({ id: 'mt_1', until: AT + 1 }), true],
    ['another token', item({ id: 'mt_2' }), false],
    ['its machine, after it', item({ selector: { machineId: 'mch_a' }, at: AT + 1 }), true],
    [
      'its machine, by a clock that is behind',
      item({ selector: { machineId: 'mch_a' }, at: AT - 59_999 }),
      true,
    ],
    ['its machine, long before it', item({ selector: { machineId: 'mch_a' }, at: AT - 60_000 }), false],
    [
      'its way',
      item({ kind: 'machine_scope', selector: { fromMachineId: 'mch_a', toMachineId: 'mch_b' } }),
      true,
    ],
    [
      'the way back',
      item({ kind: 'machine_scope', selector: { fromMachineId: 'mch_b', toMachineId: 'mch_a' } }),
      false,
    ],
    ['its signing key', item({ selector: { signingKeyId: 'k' } }), true],
    ['all tokens', item({}), true],
    [
      'its way, which was made',
      item({
        kind: 'machine_scope',
        reason: 'created',
        selector: { fromMachineId: 'mch_a', toMachineId: 'mch_b' },
      }),
      false,
    ],
    ['an API key', item({ kind: 'api_key', id: 'mt_1' }), false],
  ])('may concern a JWT: %s', (_, told, concerns) => {
    const inForce = new InForce();
    inForce.take(told);
    expect(inForce.mayConcern(jwt)).toBe(concerns);
  });

  it('forgets what has expired, and concerns every token once there is more than it keeps', () => {
    const inForce = new InForce(2);
    inForce.take(item({ id: 'mt_1', until: AT }));
    inForce.prune(AT + 120_000);
    expect(inForce.mayConcern(jwt)).toBe(false);
    for (const id of ['mt_7', 'mt_8', 'mt_9']) inForce.take(item({ id }));
    expect(inForce.mayConcern(jwt)).toBe(true);
    inForce.clear();
    expect(inForce.mayConcern(jwt)).toBe(false);
  });
});
