import { describe, expect, it } from 'vitest';
import type { Store } from '../../../db/store.ts';
import { purgeEndedApiKeys } from '../../../server/domain/api-key-retention.ts';
import {
  createApiKey,
  createApiKeyInput,
  listApiKeys,
  listApiKeysInput,
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
  updateKeyPolicy,
  updateKeyPolicyInput,
} from '../../../server/domain/key-policies.ts';
import { findOwner } from '../../../server/domain/secrets.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { planOf, statementsOf } from '../../support/plans.ts';

const admin = callerWith('admin');
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

const create = (deps: TestDeps, name: string, more: Record<string, unknown> = {}) =>
  createApiKey(deps, admin, createApiKeyInput.parse({ name, subject: 'user_1', ...more }));
const revoke = (deps: TestDeps, id: string) => revokeApiKey(deps, admin, revokeApiKeyInput.parse({ id }));
const createPolicy = async (deps: TestDeps, name: string, more: Record<string, unknown>) =>
  (await createKeyPolicy(deps, admin, createKeyPolicyInput.parse({ name, ...more }))).id;
const names = async (deps: TestDeps) => {
  const { data } = await listApiKeys(deps, listApiKeysInput.parse({ limit: 500 }));
  return data.map(({ name }) => name).sort();
};
const purges = async (deps: TestDeps) => {
  const { data } = await listEvents(deps, { after: 0, limit: 500 });
  return data.filter(({ type }) => type === 'api_key.purged');
};

/** Many revoked keys, as `revokeApiKey()` leaves them. */
async function insertRevoked(deps: TestDeps, count: number) {
  const at = deps.clock.now;
  const rows = Array.from({ length: count }, (_, i) => ({
    id: `ak_${i.toString(16).padStart(32, '0')}`,
    subject: 'user_many',
    name: `key ${i}`,
    scopes: [],
    enabled: true,
    revoked_at: at,
    created_at: at,
    updated_at: at,
  }));
  await deps.store.tx(({ db, tables }) => db.insert(tables.apiKeys).values(rows));
}

const countKeys = async ({ store: { read } }: TestDeps) =>
  (await read.db.select({ id: read.tables.apiKeys.id }).from(read.tables.apiKeys)).length;

describeOnEachDialect('purgeEndedApiKeys()', (dialect) => {
  it('keeps revoked and expired keys listed for 90 days, and deletes them at the instant after', async () => {
    const deps = await openTestDeps(dialect);
    const start = deps.clock.now;
    const revoked = await create(deps, 'revoked');
    await revoke(deps, revoked.id);
    await create(deps, 'expired', { expiresAt: start + HOUR });
    await create(deps, 'live');
    const disabled = await create(deps, 'disabled');
    await setApiKeyEnabled(deps, admin, disabled.id, false);
    deps.clock.now = start + 90 * DAY - 1;
    expect(await purgeEndedApiKeys(deps, 100)).toBe(0);
    deps.clock.now += 1;
    expect(await purgeEndedApiKeys(deps, 100)).toBe(1);
    expect(await names(deps)).toEqual(['disabled', 'expired', 'live']);
    deps.clock.now = start + HOUR + 90 * DAY - 1;
    expect(await purgeEndedApiKeys(deps, 100)).toBe(0);
    deps.clock.now += 1;
    expect(await purgeEndedApiKeys(deps, 100)).toBe(1);
    expect(await names(deps)).toEqual(['disabled', 'live']);
  });

  it('counts a key that is both revoked and expired from the first of the two', async () => {
    const deps = await openTestDeps(dialect);
    const start = deps.clock.now;
    const early = await create(deps, 'revoked first', { expiresAt: start + 50 * DAY });
    await revoke(deps, early.id);
    const late = await create(deps, 'expired first', { expiresAt: start + 1 });
    deps.clock.now = start + 50 * DAY;
    await revoke(deps, late.id);
    deps.clock.now = start + 90 * DAY;
    expect(await purgeEndedApiKeys(deps, 100)).toBe(1);
    expect(await names(deps)).toEqual(['expired first']);
    deps.clock.now += 1;
    expect(await purgeEndedApiKeys(deps, 100)).toBe(1);
  });

  it('keeps each key as long as its policy says now, and as without one where that is gone', async () => {
    const deps = await openTestDeps(dialect);
    const start = deps.clock.now;
    const retention = { none: 0, day: 24 * 3600, year: 365 * 24 * 3600, gone: 0 };
    const policies: Record<string, string> = {};
    for (const [name, retentionSeconds] of Object.entries(retention))
      policies[name] = await createPolicy(deps, name, { retentionSeconds });
    for (const [name, policyId] of Object.entries(policies)) {
      await create(deps, `${name} expired`, { policyId, expiresAt: start + 1 });
      await revoke(deps, (await create(deps, `${name} revoked`, { policyId })).id);
    }
    await deleteKeyPolicy(deps, admin, { id: policies['gone'] ?? '' });
    const leftAt = async (now: number) => {
      deps.clock.now = now;
      await purgeEndedApiKeys(deps, 100);
      return names(deps);
    };
    const [day, gone, year] = ['day', 'gone', 'year'].map((name) => [`${name} expired`, `${name} revoked`]);
    const all = [day, gone, year].flat();
    expect(await leftAt(start)).toEqual([...all, 'none expired'].sort());
    expect(await leftAt(start + 1)).toEqual(all);
    expect(await leftAt(start + DAY)).toEqual(['day expired', gone, year].flat());
    expect(await leftAt(start + DAY + 1)).toEqual([gone, year].flat());
    expect(await leftAt(start + 90 * DAY + 1)).toEqual(year);
    const id = policies['year'] ?? '';
    await updateKeyPolicy(deps, admin, updateKeyPolicyInput.parse({ id, retentionSeconds: 0 }));
    expect(await leftAt(start + 90 * DAY + 1)).toEqual([]);
  });

  it('takes with a key its secrets, credits and usage, and nothing of another', async () => {
    const deps = await openTestDeps(dialect);
    const given = { credits: { remaining: 5 } };
    const [ended, kept] = [await create(deps, 'ended', given), await create(deps, 'kept', given)];
    const { usage } = deps.store.read.tables;
    const hours = (id: string, count: number) =>
      Array.from({ length: count }, (_, hour) => ({
        credential_id: id,
        hour,
        valid_count: 1,
        refused_count: 0,
      }));
    await deps.store.tx(async ({ db }) => {
      await db.insert(usage).values(hours(ended.id, 2_500));
      await db.insert(usage).values(hours(kept.id, 3));
    });
    await revoke(deps, ended.id);
    deps.clock.now += 90 * DAY;
    let transactions = 0;
    const tx: Store['tx'] = (work, lane) => {
      transactions++;
      return deps.store.tx(work, lane);
    };
    expect(await purgeEndedApiKeys({ ...deps, store: { ...deps.store, tx } }, 100)).toBe(1);
    // A thousand rows of usage at a time, and the rest with the key.
    expect(transactions).toBe(3);
    const { db, tables } = deps.store.read;
    expect(await findOwner(deps, ended.secret ?? '')).toBeNull();
    expect(await findOwner(deps, kept.secret ?? '')).toMatchObject({ id: kept.id });
    expect(await db.select().from(tables.credits)).toMatchObject([{ owner_id: kept.id }]);
    expect(new Set((await db.select().from(usage)).map((row) => row.credential_id))).toEqual(
      new Set([kept.id]),
    );
  });

  it('deletes no more at a time than it may, each time as one event of the system that names them', async () => {
    const deps = await openTestDeps(dialect);
    const policyId = await createPolicy(deps, 'short', { retentionSeconds: 0 });
    const ids = new Set<string>();
    for (let i = 0; i < 7; i++) {
      const { id } = await create(deps, `key ${i}`, i % 2 ? { policyId, ttlSeconds: 1 } : { ttlSeconds: 1 });
      if (i % 3 === 0) await revoke(deps, id);
      ids.add(id);
    }
    deps.clock.now += 91 * DAY;
    const before = deps.woken.length;
    const sizes = [];
    for (let i = 0; i < 4; i++) sizes.push(await purgeEndedApiKeys(deps, 3));
    expect(sizes).toEqual([3, 3, 1, 0]);
    expect(deps.woken.length - before).toBe(3);
    const events = await purges(deps);
    expect(events.map(({ data }) => data['count'])).toEqual([3, 3, 1]);
    expect(events[0]).toMatchObject({
      objectId: 'api_keys',
      actor: { kind: 'system', id: 'retention' },
      subject: null,
    });
    const named = events.flatMap(({ data }) => (data['selector'] as { apiKeyIds: string[] }).apiKeyIds);
    expect([...named].sort()).toEqual([...ids].sort());
  });

  it('several at once delete each key once', async () => {
    const deps = await openTestDeps(dialect);
    await insertRevoked(deps, 30);
    deps.clock.now += 90 * DAY;
    const sizes = await Promise.all(Array.from({ length: 4 }, () => purgeEndedApiKeys(deps, 30)));
    expect(sizes.reduce((sum, size) => sum + size)).toBe(30);
    expect((await purges(deps)).reduce((sum, { data }) => sum + Number(data['count']), 0)).toBe(30);
    expect(await countKeys(deps)).toBe(0);
  });

  it('spares a key that is given a later expiry, or whose policy is to keep it longer, in between', async () => {
    const deps = await openTestDeps(dialect);
    const policyId = await createPolicy(deps, 'short', { retentionSeconds: 0 });
    const revived = await create(deps, 'revived', { ttlSeconds: 1 });
    await create(deps, 'kept longer', { policyId, ttlSeconds: 1 });
    await create(deps, 'due', { ttlSeconds: 1 });
    deps.clock.now += 91 * DAY;
    let interfered = 0;
    const tx: Store['tx'] = async (work, lane) => {
      if (interfered++ === 0) {
        await updateApiKey(deps, admin, updateApiKeyInput.parse({ id: revived.id, expiresAt: null }));
        const changes = { id: policyId, retentionSeconds: 100 * 24 * 3600 };
        await updateKeyPolicy(deps, admin, updateKeyPolicyInput.parse(changes));
      }
      return deps.store.tx(work, lane);
    };
    expect(await purgeEndedApiKeys({ ...deps, store: { ...deps.store, tx } }, 100)).toBe(1);
    expect(interfered).toBeGreaterThan(0);
    expect(await names(deps)).toEqual(['kept longer', 'revived']);
  });
});

describe('purgeEndedApiKeys() on SQLite', () => {
  it('finds what is due along the two indexes of ends, and walks nothing whole', async () => {
    const deps = await openTestDeps('sqlite');
    const policyId = await createPolicy(deps, 'standard', {});
    await create(deps, 'ci', { policyId, ttlSeconds: 1 });
    await revoke(deps, (await create(deps, 'revoked', { policyId })).id);
    deps.clock.now += 91 * DAY;
    const statements = await statementsOf(deps, () => purgeEndedApiKeys(deps, 100));
    const steps = statements.flatMap((statement) => planOf(deps, statement));
    expect(steps.filter((step) => step.includes(' api_keys ')).length).toBeGreaterThan(6);
    for (const step of steps)
      expect(step).toMatch(
        /^SEARCH (api_keys USING .*INDEX api_keys_policy_(revoked|expires)_at \(policy_id[>=]\?.*\)|key_policies USING .*\(id=\?\)|usage USING .*\(credential_id=\?\))$/,
      );
    expect(steps.filter((step) => /\(policy_id=\? AND .*_at<\?\)$/.test(step))).toHaveLength(4);
  });
});
