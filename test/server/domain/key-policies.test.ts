import { eq } from 'drizzle-orm';
import type { Pool } from 'pg';
import { describe, expect, it, vi } from 'vitest';
import {
  countLiveKeys,
  createApiKey,
  createApiKeyInput,
  deleteApiKey,
  getApiKey,
  revokeApiKey,
  revokeApiKeyInput,
  setApiKeyEnabled,
  updateApiKey,
  updateApiKeyInput,
} from '../../../server/domain/api-keys.ts';
import { listEvents } from '../../../server/domain/events.ts';
import {
  createKeyPolicy,
  createKeyPolicyInput,
  deleteKeyPolicy,
  getKeyPolicy,
  type KeyPolicy,
  listKeyPolicies,
  listKeyPoliciesInput,
  updateKeyPolicy,
  updateKeyPolicyInput,
} from '../../../server/domain/key-policies.ts';
import { createKeyPrefix } from '../../../server/domain/key-shapes.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { planOf, statementsOf } from '../../support/plans.ts';

const admin = callerWith('admin');
const DAY = 86_400_000;
const LIMIT = { count: 10, windowSeconds: 60 };
const NOBODY = `kp_${'0'.repeat(27)}`;

const createPolicy = (deps: TestDeps, more: Record<string, unknown> = {}) =>
  createKeyPolicy(deps, admin, createKeyPolicyInput.parse({ name: 'standard', ...more }));
const updatePolicy = (deps: TestDeps, id: string, changes: Record<string, unknown>) =>
  updateKeyPolicy(deps, admin, updateKeyPolicyInput.parse({ id, ...changes }));
const createKey = (deps: TestDeps, name: string, more: Record<string, unknown> = {}) =>
  createApiKey(deps, admin, createApiKeyInput.parse({ name, subject: 'user_1', ...more }));
const updateKey = (deps: TestDeps, id: string, changes: Record<string, unknown>) =>
  updateApiKey(deps, admin, updateApiKeyInput.parse({ id, ...changes }));
const codesOf = (outcomes: PromiseSettledResult<unknown>[]) =>
  outcomes.map((outcome) => (outcome.status === 'fulfilled' ? 'ok' : outcome.reason.code)).sort();
const eventsAfter = async (deps: TestDeps, seq: number) =>
  (await listEvents(deps, { after: seq, limit: 500 })).data;
const lastSeq = async (deps: TestDeps) => (await listEvents(deps, { after: 0, limit: 500 })).nextAfter;

async function defaults(deps: TestDeps): Promise<string[]> {
  const { data } = await listKeyPolicies(deps, listKeyPoliciesInput.parse({}));
  return data.filter(({ isDefault }) => isDefault).map(({ name }) => name);
}

describe('createKeyPolicyInput', () => {
  it('refuses half a refill, bounds of nothing, and lifetimes and limits out of range', () => {
    const refused: Record<string, unknown>[] = [
      { credits: { amount: 1, refillAmount: 1 } },
      { credits: { amount: 1, refillIntervalSeconds: 1 } },
      { credits: { amount: -1 } },
      { credits: {} },
      { rateLimit: { count: 0, windowSeconds: 1 } },
      { rateLimit: { count: 1, windowSeconds: 86_401 } },
      { rateLimit: { count: 1 } },
      { maxTtlSeconds: 0 },
      { defaultTtlSeconds: 315_360_001 },
      { liveKeysMax: 0 },
      { liveKeysMax: 10_001 },
      { retentionSeconds: -1 },
      { retentionSeconds: 315_360_001 },
      { prefix: 'Acme_' },
      { allowedScopes: ['a', 'a'] },
      { unknown: 1 },
    ];
    for (const more of refused)
      expect([more, createKeyPolicyInput.safeParse({ name: 'x', ...more }).success]).toEqual([more, false]);
    expect(createKeyPolicyInput.parse({ name: 'x', retentionSeconds: 0 }).retentionSeconds).toBe(0);
  });
});

describeOnEachDialect('key policies', (dialect) => {
  it('createKeyPolicy() leaves open what is not asked for, and keeps ended keys for 90 days', async () => {
    const deps = await openTestDeps(dialect);
    const policy = await createPolicy(deps);
    expect(policy).toEqual({
      id: expect.stringMatching(/^kp_[0-9A-Za-z]{27}$/),
      name: 'standard',
      description: null,
      isDefault: false,
      prefix: 'ak_',
      allowedScopes: null,
      defaultTtlSeconds: null,
      maxTtlSeconds: null,
      liveKeysMax: null,
      rateLimit: null,
      credits: null,
      retentionSeconds: 90 * 24 * 3600,
      createdAt: deps.clock.now,
      updatedAt: deps.clock.now,
    } satisfies KeyPolicy);
    expect(await getKeyPolicy(deps, { id: policy.id })).toEqual(policy);
    expect((await listKeyPolicies(deps, listKeyPoliciesInput.parse({}))).data).toEqual([policy]);
  });

  it('createKeyPolicy() keeps all that is asked for', async () => {
    const deps = await openTestDeps(dialect);
    await createKeyPrefix(deps, admin, { prefix: 'acme_' });
    const asked = {
      name: 'trial',
      description: 'for a month',
      isDefault: true,
      prefix: 'acme_',
      allowedScopes: ['read'],
      defaultTtlSeconds: 60,
      maxTtlSeconds: 60,
      liveKeysMax: 3,
      rateLimit: LIMIT,
      credits: { amount: 5, refillAmount: 5, refillIntervalSeconds: 60 },
      retentionSeconds: 0,
    };
    const policy = await createPolicy(deps, asked);
    expect(policy).toMatchObject(asked);
    expect(await getKeyPolicy(deps, { id: policy.id })).toEqual(policy);
    const [, event] = await eventsAfter(deps, (await lastSeq(deps)) - 2);
    expect(event).toMatchObject({
      type: 'key_policy.created',
      objectId: policy.id,
      data: { name: 'trial', previousDefaultId: null },
    });
  });

  it('refuses a name that is taken, a prefix that is not registered, and a default lifetime above the maximum', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await createPolicy(deps);
    const other = await createPolicy(deps, { name: 'other', maxTtlSeconds: 60 });
    await expect(createPolicy(deps)).rejects.toMatchObject({ code: 'name_taken', field: 'name' });
    await expect(updatePolicy(deps, other.id, { name: 'standard' })).rejects.toMatchObject({
      code: 'name_taken',
    });
    for (const attempt of [
      () => createPolicy(deps, { name: 'third', prefix: 'acme_' }),
      () => updatePolicy(deps, id, { prefix: 'acme_' }),
    ])
      await expect(attempt()).rejects.toMatchObject({ code: 'invalid_input', field: 'prefix' });
    for (const attempt of [
      () => createPolicy(deps, { name: 'third', defaultTtlSeconds: 61, maxTtlSeconds: 60 }),
      () => updatePolicy(deps, other.id, { defaultTtlSeconds: 61 }),
    ])
      await expect(attempt()).rejects.toMatchObject({ code: 'invalid_input', field: 'defaultTtlSeconds' });
    expect(await lastSeq(deps)).toBe(3);
  });

  it('of many policies created with one name at once, exactly one is', async () => {
    const deps = await openTestDeps(dialect);
    const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => createPolicy(deps)));
    expect(codesOf(outcomes)).toEqual([...Array(9).fill('name_taken'), 'ok']);
  });

  it('createKeyPolicy() takes a hundred policies and no more, however many are created at once', async () => {
    const deps = await openTestDeps(dialect);
    const { id, ...first } = await createPolicy(deps, { name: 'first' });
    const { keyPolicies } = deps.store.read.tables;
    const [row] = await deps.store.read.db.select().from(keyPolicies).where(eq(keyPolicies.id, id));
    const copies = Array.from({ length: 97 }, (_, i) => ({
      ...row,
      id: `kp_${i}`,
      name: `${first.name} ${i}`,
    }));
    await deps.store.tx(({ db }) =>
      db.insert(keyPolicies).values(copies as (typeof keyPolicies.$inferInsert)[]),
    );
    const outcomes = await Promise.allSettled(
      Array.from({ length: 6 }, (_, i) => createPolicy(deps, { name: `more ${i}` })),
    );
    expect(codesOf(outcomes)).toEqual([...Array(4).fill('limit_reached'), 'ok', 'ok']);
  });

  it('updateKeyPolicy() changes what it is told to, clears with null, and leaves no event for nothing', async () => {
    const deps = await openTestDeps(dialect);
    const policy = await createPolicy(deps, {
      allowedScopes: ['read'],
      rateLimit: LIMIT,
      credits: { amount: 5, refillAmount: 5, refillIntervalSeconds: 60 },
      maxTtlSeconds: 60,
    });
    const before = await lastSeq(deps);
    deps.clock.now += DAY;
    const { id, name } = policy;
    expect(await updatePolicy(deps, id, { name, allowedScopes: ['read'], rateLimit: LIMIT })).toEqual(policy);
    expect(await updatePolicy(deps, id, { credits: { amount: 7 }, maxTtlSeconds: null })).toEqual({
      ...policy,
      credits: { amount: 7, refillAmount: null, refillIntervalSeconds: null },
      maxTtlSeconds: null,
      updatedAt: deps.clock.now,
    });
    const cleared = await updatePolicy(deps, id, { allowedScopes: null, rateLimit: null, credits: null });
    expect(cleared).toMatchObject({ allowedScopes: null, rateLimit: null, credits: null });
    expect(await getKeyPolicy(deps, { id })).toEqual(cleared);
    expect((await eventsAfter(deps, before)).map(({ data }) => data['changed'])).toEqual([
      ['maxTtlSeconds', 'credits'],
      ['allowedScopes', 'rateLimit', 'credits'],
    ]);
    await expect(updatePolicy(deps, NOBODY, {})).rejects.toMatchObject({ code: 'not_found' });
  });

  it('a policy that becomes the default takes the place of the one that was, in one event', async () => {
    const deps = await openTestDeps(dialect);
    const a = await createPolicy(deps, { name: 'a', isDefault: true });
    const b = await createPolicy(deps, { name: 'b', isDefault: true });
    expect(await defaults(deps)).toEqual(['b']);
    const before = await lastSeq(deps);
    await updatePolicy(deps, a.id, { isDefault: true });
    expect(await defaults(deps)).toEqual(['a']);
    expect(await eventsAfter(deps, before)).toMatchObject([
      { type: 'key_policy.updated', objectId: a.id, data: { previousDefaultId: b.id } },
    ]);
    await updatePolicy(deps, a.id, { isDefault: true, description: 'still' });
    expect(await defaults(deps)).toEqual(['a']);
    await updatePolicy(deps, a.id, { isDefault: false });
    expect(await defaults(deps)).toEqual([]);
  });

  it('of many policies that become the default at once, one is', async () => {
    const deps = await openTestDeps(dialect);
    const policies = [];
    for (let i = 0; i < 6; i++) policies.push(await createPolicy(deps, { name: `${i}` }));
    await Promise.all(policies.map(({ id }) => updatePolicy(deps, id, { isDefault: true })));
    expect(await defaults(deps)).toHaveLength(1);
  });

  it('deleteKeyPolicy() leaves its keys what they have, and no longer holds them to anything', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await createPolicy(deps, { allowedScopes: ['read'], maxTtlSeconds: 60, rateLimit: LIMIT });
    const key = await createKey(deps, 'ci', { policyId: id, scopes: ['read'] });
    expect(await deleteKeyPolicy(deps, admin, { id })).toEqual({ id, deleted: true });
    await expect(deleteKeyPolicy(deps, admin, { id })).rejects.toMatchObject({ code: 'not_found' });
    await expect(getKeyPolicy(deps, { id })).rejects.toMatchObject({ code: 'not_found' });
    expect(await getApiKey(deps, { id: key.id })).toMatchObject({
      policyId: id,
      rateLimit: LIMIT,
      scopes: ['read'],
      expiresAt: key.expiresAt,
    });
    expect(await updateKey(deps, key.id, { scopes: ['write'], expiresAt: null })).toMatchObject({
      scopes: ['write'],
      expiresAt: null,
    });
    await expect(createKey(deps, 'next', { policyId: id })).rejects.toMatchObject({
      code: 'not_found',
      field: 'policyId',
    });
  });
});

describeOnEachDialect('keys under a policy', (dialect) => {
  it('the named policy applies, or else the default one, or none', async () => {
    const deps = await openTestDeps(dialect);
    expect((await createKey(deps, 'free')).policyId).toBeNull();
    const standard = await createPolicy(deps, { isDefault: true });
    const other = await createPolicy(deps, { name: 'other' });
    expect((await createKey(deps, 'by default')).policyId).toBe(standard.id);
    expect((await createKey(deps, 'by name', { policyId: other.id })).policyId).toBe(other.id);
    await expect(createKey(deps, 'of nobody', { policyId: NOBODY })).rejects.toMatchObject({
      code: 'not_found',
      field: 'policyId',
    });
  });

  it('no key escapes the default policy while another becomes the default', async () => {
    const deps = await openTestDeps(dialect);
    const a = await createPolicy(deps, { name: 'a', isDefault: true });
    const b = await createPolicy(deps, { name: 'b' });
    for (let round = 0; round < 10; round++) {
      const next = round % 2 ? a : b;
      const subjects = Array.from({ length: 4 }, (_, i) => `user_${round}_${i}`);
      const [, ...keys] = await Promise.all([
        updatePolicy(deps, next.id, { isDefault: true }).then(() => null),
        ...subjects.map((subject) => createKey(deps, 'ci', { subject })),
      ]);
      for (const key of keys) expect([a.id, b.id]).toContain(key?.policyId);
      expect(keys).toHaveLength(4);
    }
  });

  if (dialect === 'postgres')
    it('a key that has to wait for such a change has the new default policy', async () => {
      const deps = await openTestDeps(dialect);
      await createPolicy(deps, { name: 'a', isDefault: true });
      const b = await createPolicy(deps, { name: 'b' });
      const pool = (deps.store.read.db as unknown as { $client: Pool }).$client;
      const change = await pool.connect();
      await change.query('begin');
      await change.query('update key_policies set is_default = false where is_default');
      await change.query('update key_policies set is_default = true where id = $1', [b.id]);
      const key = createKey(deps, 'ci');
      const waiting =
        "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
      await vi.waitFor(async () => expect((await pool.query(waiting)).rowCount).toBeGreaterThan(0), 10_000);
      await change.query('commit');
      change.release();
      expect((await key).policyId).toBe(b.id);
    });

  it('has only scopes that it allows', async () => {
    const deps = await openTestDeps(dialect);
    const { id: policyId } = await createPolicy(deps, { allowedScopes: ['read', 'write'] });
    const none = await createPolicy(deps, { name: 'none', allowedScopes: [] });
    const key = await createKey(deps, 'ci', { policyId, scopes: ['write'] });
    await createKey(deps, 'none', { policyId: none.id });
    for (const attempt of [
      () => createKey(deps, 'admin', { policyId, scopes: ['read', 'admin'] }),
      () => createKey(deps, 'any', { policyId: none.id, scopes: ['read'] }),
      () => updateKey(deps, key.id, { scopes: ['write', 'admin'] }),
    ])
      await expect(attempt()).rejects.toMatchObject({ code: 'scope_not_allowed', field: 'scopes' });
    expect(await updateKey(deps, key.id, { scopes: ['read'] })).toMatchObject({ scopes: ['read'] });
  });

  it('keeps scopes that the policy no longer allows, and may give them up one by one', async () => {
    const deps = await openTestDeps(dialect);
    const { id: policyId } = await createPolicy(deps);
    const { id } = await createKey(deps, 'ci', { policyId, scopes: ['a', 'b', 'c'] });
    await updatePolicy(deps, policyId, { allowedScopes: ['a'] });
    expect(await updateKey(deps, id, { name: 'renamed' })).toMatchObject({ scopes: ['a', 'b', 'c'] });
    expect(await updateKey(deps, id, { scopes: ['a', 'b'] })).toMatchObject({ scopes: ['a', 'b'] });
    await expect(updateKey(deps, id, { scopes: ['a', 'b', 'c'] })).rejects.toMatchObject({
      code: 'scope_not_allowed',
    });
  });

  it('without an expiry lives for the default, or else for the longest, or else for good', async () => {
    const deps = await openTestDeps(dialect);
    const start = deps.clock.now;
    const expiryUnder = async (bounds: Record<string, unknown>) => {
      const name = JSON.stringify(bounds);
      const { id: policyId } = await createPolicy(deps, { name, ...bounds });
      return (await createKey(deps, name, { policyId })).expiresAt;
    };
    expect(await expiryUnder({ defaultTtlSeconds: 60, maxTtlSeconds: 600 })).toBe(start + 60_000);
    expect(await expiryUnder({ defaultTtlSeconds: 60 })).toBe(start + 60_000);
    expect(await expiryUnder({ maxTtlSeconds: 600 })).toBe(start + 600_000);
    expect(await expiryUnder({})).toBeNull();
  });

  it('never lives longer than the longest, to the millisecond; null asks to live for good', async () => {
    const deps = await openTestDeps(dialect);
    const { id: policyId } = await createPolicy(deps, { maxTtlSeconds: 600, defaultTtlSeconds: 60 });
    const open = await createPolicy(deps, { name: 'open', defaultTtlSeconds: 60 });
    const latest = deps.clock.now + 600_000;
    expect(await createKey(deps, 'instant', { policyId, expiresAt: latest })).toMatchObject({
      expiresAt: latest,
    });
    expect(await createKey(deps, 'ttl', { policyId, ttlSeconds: 600 })).toMatchObject({ expiresAt: latest });
    for (const more of [{ expiresAt: latest + 1 }, { ttlSeconds: 601 }, { expiresAt: null }])
      await expect(createKey(deps, 'longer', { policyId, ...more })).rejects.toMatchObject({
        code: 'invalid_input',
        field: 'expiresAt',
      });
    expect(await createKey(deps, 'for good', { policyId: open.id, expiresAt: null })).toMatchObject({
      expiresAt: null,
    });
  });

  it('is not given longer by updates either, counted from its creation; an earlier expiry it may always have', async () => {
    const deps = await openTestDeps(dialect);
    const { id: policyId } = await createPolicy(deps, { maxTtlSeconds: 600 });
    const { id, createdAt } = await createKey(deps, 'ci', { policyId, ttlSeconds: 60 });
    const latest = createdAt + 600_000;
    deps.clock.now += 30_000;
    for (const expiresAt of [latest + 1, null])
      await expect(updateKey(deps, id, { expiresAt })).rejects.toMatchObject({ code: 'invalid_input' });
    expect(await updateKey(deps, id, { expiresAt: latest })).toMatchObject({ expiresAt: latest });
    await updatePolicy(deps, policyId, { maxTtlSeconds: 60 });
    expect(await updateKey(deps, id, { expiresAt: latest - 1 })).toMatchObject({ expiresAt: latest - 1 });
    await expect(updateKey(deps, id, { expiresAt: latest })).rejects.toMatchObject({ code: 'invalid_input' });
  });

  it('is given the limits of its policy, unless it asks for others or for none', async () => {
    const deps = await openTestDeps(dialect);
    const { id: policyId } = await createPolicy(deps, {
      rateLimit: LIMIT,
      credits: { amount: 5, refillAmount: 5, refillIntervalSeconds: 60 },
    });
    const limitsOf = async (name: string, more: Record<string, unknown>) => {
      const { id } = await createKey(deps, name, { policyId, ...more });
      const { rateLimit, remainingCredits } = await getApiKey(deps, { id });
      return { rateLimit, remainingCredits };
    };
    expect(await limitsOf('given', {})).toEqual({ rateLimit: LIMIT, remainingCredits: 5 });
    const others = { rateLimit: { count: 1, windowSeconds: 1 }, credits: { remaining: 7 } };
    expect(await limitsOf('others', others)).toEqual({ rateLimit: others.rateLimit, remainingCredits: 7 });
    expect(await limitsOf('none', { rateLimit: null, credits: null })).toEqual({
      rateLimit: null,
      remainingCredits: null,
    });
    const { db, tables } = deps.store.read;
    const flags = await db.select({ has: tables.apiKeys.has_credits }).from(tables.apiKeys);
    expect(flags.filter(({ has }) => has)).toHaveLength(2);
    expect(await db.select().from(tables.credits)).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ remaining: 5, refill_amount: 5, refilled_at: deps.clock.now }),
        expect.objectContaining({ remaining: 7, refill_amount: null }),
      ]),
    );
  });
});

describeOnEachDialect('live keys of a subject under a policy', (dialect) => {
  async function setup(liveKeysMax: number) {
    const deps = await openTestDeps(dialect);
    const { id: policyId } = await createPolicy(deps, { liveKeysMax });
    const create = (name: string, more: Record<string, unknown> = {}) =>
      createKey(deps, name, { policyId, ...more });
    return { deps, policyId, create };
  }

  it('are exactly as many as it allows, however many are created at once', async () => {
    const { deps, create, policyId } = await setup(5);
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => create(`key ${i}`)));
    expect(codesOf(outcomes)).toEqual([...Array(15).fill('limit_reached'), ...Array(5).fill('ok')]);
    expect(await countLiveKeys(deps.store.read, policyId, 'user_1', deps.clock.now)).toBe(5);
  });

  it('are counted for each subject and policy alone', async () => {
    const { deps, create } = await setup(1);
    await create('ci');
    await expect(create('next')).rejects.toMatchObject({ code: 'limit_reached' });
    expect(await create('next', { subject: 'user_2' })).toMatchObject({ state: 'live' });
    expect(await createKey(deps, 'next')).toMatchObject({ policyId: null });
    const other = await createPolicy(deps, { name: 'other', liveKeysMax: 1 });
    expect(await createKey(deps, 'third', { policyId: other.id })).toMatchObject({ state: 'live' });
  });

  it('are not those revoked, deleted or expired, at the instant of expiry; disabled ones are', async () => {
    const { deps, create } = await setup(1);
    const refused = async (name: string) =>
      expect(create(name)).rejects.toMatchObject({ code: 'limit_reached' });
    const disabled = await create('disabled');
    await setApiKeyEnabled(deps, admin, disabled.id, false);
    await refused('a');
    await deleteApiKey(deps, admin, disabled.id);
    const revoked = await create('revoked');
    await refused('b');
    await revokeApiKey(deps, admin, revokeApiKeyInput.parse({ id: revoked.id }));
    await create('expiring', { ttlSeconds: 60 });
    deps.clock.now += 59_999;
    await refused('c');
    deps.clock.now += 1;
    await create('d');
    await refused('e');
  });

  it('are not exceeded by an expired key that is to live again', async () => {
    const { deps, create, policyId } = await setup(1);
    for (let round = 0; round < 10; round++) {
      const of = { subject: `user_${round}` };
      const expired = await create('expired', { ...of, ttlSeconds: 60 });
      deps.clock.now += 60_000;
      const outcomes = await Promise.allSettled([
        create('a', of),
        updateKey(deps, expired.id, { expiresAt: null }),
        create('b', of),
      ]);
      expect(codesOf(outcomes)).toEqual(['limit_reached', 'limit_reached', 'ok']);
      expect(await countLiveKeys(deps.store.read, policyId, of.subject, deps.clock.now)).toBe(1);
    }
  });

  it('may be changed while there are as many as it allows, or more', async () => {
    const { deps, create, policyId } = await setup(2);
    const { id } = await create('a', { ttlSeconds: 60 });
    await create('b');
    await updatePolicy(deps, policyId, { liveKeysMax: 1 });
    expect(await updateKey(deps, id, { expiresAt: null, name: 'c' })).toMatchObject({ expiresAt: null });
  });
});

describe('live keys of a subject on SQLite', () => {
  it('are counted along the index of live names', async () => {
    const deps = await openTestDeps('sqlite');
    const [statement = ''] = await statementsOf(deps, () =>
      countLiveKeys(deps.store.read, NOBODY, 'user_1', 0),
    );
    expect(planOf(deps, statement)).toEqual([
      'SEARCH api_keys USING INDEX api_keys_subject_live_name (subject=? AND live_name>?)',
    ]);
  });
});
