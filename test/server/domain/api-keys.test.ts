import { expect, it } from 'vitest';
import { newValue } from '../../../server/crypto/hashing.ts';
import {
  createApiKey,
  createApiKeyInput,
  deleteApiKey,
  getApiKey,
  listApiKeys,
  listApiKeysInput,
  revokeAllApiKeys,
  revokeAllApiKeysInput,
  revokeApiKey,
  revokeApiKeyByValue,
  revokeApiKeyByValueInput,
  revokeApiKeyInput,
  setApiKeyCredits,
  setApiKeyCreditsInput,
  setApiKeyEnabled,
  updateApiKey,
  updateApiKeyInput,
} from '../../../server/domain/api-keys.ts';
import { listEvents } from '../../../server/domain/events.ts';
import { SEARCH_CANDIDATES_MAX } from '../../../server/domain/pages.ts';
import { findOwner } from '../../../server/domain/secrets.ts';
import {
  anywhere,
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';

const issuer = callerWith('issuer');
const HOUR = 3_600_000;

const create = (deps: TestDeps, name: string, more: Record<string, unknown> = {}) =>
  createApiKey(deps, issuer, createApiKeyInput.parse({ name, subject: 'user_1', ...more }));
const update = (deps: TestDeps, id: string, changes: Record<string, unknown>) =>
  updateApiKey(deps, issuer, updateApiKeyInput.parse({ id, ...changes }));
const setCredits = (deps: TestDeps, id: string, given: Record<string, unknown>) =>
  setApiKeyCredits(deps, issuer, setApiKeyCreditsInput.parse({ id, ...given }));
const revoke = (deps: TestDeps, id: string, more: Record<string, unknown> = {}) =>
  revokeApiKey(deps, issuer, revokeApiKeyInput.parse({ id, ...more }));
const revokeByValue = (deps: TestDeps, value: string) =>
  revokeApiKeyByValue(deps, issuer, anywhere, revokeApiKeyByValueInput.parse({ value }));
const revokeAll = (deps: TestDeps, subject: string, more: Record<string, unknown> = {}) =>
  revokeAllApiKeys(deps, issuer, revokeAllApiKeysInput.parse({ subject, reason: 'owner_left', ...more }));
const list = (deps: TestDeps, input: Record<string, unknown> = {}) =>
  listApiKeys(deps, listApiKeysInput.parse(input));
const names = async (deps: TestDeps, input: Record<string, unknown> = {}) =>
  (await list(deps, input)).data.map((key) => key.name);
const eventsOf = async (deps: TestDeps) => (await listEvents(deps, { after: 1, limit: 500 })).data;

describeOnEachDialect('API keys', (dialect) => {
  it('createApiKey() answers the value once and shows how it begins ever after', async () => {
    const deps = await openTestDeps(dialect);
    const { secret = '', ...key } = await create(deps, 'ci', {
      description: 'deploys',
      scopes: ['read', 'write'],
      claims: { plan: 'pro' },
      createdBy: 'user_2',
    });
    expect(secret).toMatch(/^ak_[0-9A-Za-z]{49}$/);
    expect(key).toEqual({
      id: expect.stringMatching(/^ak_[0-9a-f]{32}$/),
      subject: 'user_1',
      name: 'ci',
      description: 'deploys',
      scopes: ['read', 'write'],
      claims: { plan: 'pro' },
      createdBy: 'user_2',
      enabled: true,
      start: secret.slice(0, 9),
      state: 'live',
      expiresAt: null,
      revokedAt: null,
      revocationReason: null,
      revocationNote: null,
      policyId: null,
      rateLimit: null,
      allowedCidrs: null,
      rotation: null,
      rotateBy: null,
      lastUsedAt: null,
      createdAt: deps.clock.now,
      updatedAt: deps.clock.now,
    });
    expect(await getApiKey(deps, { id: key.id })).toEqual({ ...key, remainingCredits: null });
    expect((await list(deps)).data).toEqual([key]);
    expect(await findOwner(deps, secret)).toEqual({ kind: 'api_key', id: key.id });
  });

  it('createApiKey() takes an expiry as an exact instant or as a time from now, in the future, and not both', async () => {
    const deps = await openTestDeps(dialect);
    const at = deps.clock.now + 1;
    expect(await create(deps, 'instant', { expiresAt: at })).toMatchObject({ expiresAt: at });
    expect(await create(deps, 'from now', { ttlSeconds: 60 })).toMatchObject({
      expiresAt: deps.clock.now + 60_000,
    });
    await expect(create(deps, 'now', { expiresAt: deps.clock.now })).rejects.toMatchObject({
      code: 'invalid_input',
      field: 'expiresAt',
    });
    await expect(create(deps, 'both', { expiresAt: at, ttlSeconds: 60 })).rejects.toMatchObject({
      code: 'invalid_input',
      field: 'ttlSeconds',
    });
    expect(await eventsOf(deps)).toHaveLength(2);
  });

  it('createApiKey() refuses a name that a live key of the subject has, and that of no other subject', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await create(deps, 'ci');
    await setApiKeyEnabled(deps, issuer, id, false);
    await expect(create(deps, 'ci')).rejects.toMatchObject({ code: 'name_taken', field: 'name' });
    expect(await create(deps, 'ci', { subject: 'user_2' })).toMatchObject({ name: 'ci' });
  });

  it('createApiKey() lets exactly one of many that want the same name have it', async () => {
    const deps = await openTestDeps(dialect);
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => create(deps, 'ci')));
    const refusals = outcomes.filter((outcome) => outcome.status === 'rejected');
    expect(refusals).toHaveLength(19);
    expect(new Set(refusals.map(({ reason }) => reason.code))).toEqual(new Set(['name_taken']));
    expect(await names(deps)).toEqual(['ci']);
    expect(await eventsOf(deps)).toHaveLength(1);
  });

  it('createApiKey() gives the name of an expired key to exactly one of many', async () => {
    const deps = await openTestDeps(dialect);
    await create(deps, 'ci', { ttlSeconds: 60 });
    deps.clock.now += 59_999;
    await expect(create(deps, 'ci')).rejects.toMatchObject({ code: 'name_taken' });
    deps.clock.now += 1;
    const outcomes = await Promise.allSettled(Array.from({ length: 10 }, () => create(deps, 'ci')));
    expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1);
  });

  it('revoking and deleting free the name at once', async () => {
    const deps = await openTestDeps(dialect);
    const first = await create(deps, 'ci');
    await revoke(deps, first.id);
    const second = await create(deps, 'ci');
    await deleteApiKey(deps, issuer, second.id);
    expect(await create(deps, 'ci')).toMatchObject({ state: 'live' });
  });

  it('createApiKeyInput refuses reserved claims, claims above 4 KB, scopes twice and unknown fields', () => {
    const parse = (more: Record<string, unknown>) =>
      createApiKeyInput.parse({ name: 'ci', subject: 'user_1', ...more });
    for (const claim of ['sub', 'scope', 'act']) {
      expect(() => parse({ claims: { [claim]: 1 } })).toThrow(
        expect.objectContaining({ code: 'reserved_claim' }),
      );
    }
    expect(() => parse({ claims: JSON.parse('{"__proto__":{"admin":true}}') })).toThrow(
      expect.objectContaining({ code: 'reserved_claim' }),
    );
    expect(() => parse({ claims: { text: 'x'.repeat(4096) } })).toThrow();
    expect(() => parse({ scopes: ['read', 'read'] })).toThrow();
    expect(() => parse({ enabled: false })).toThrow();
    expect(parse({ claims: { text: 'x'.repeat(4000) } }).claims).toBeDefined();
  });

  it('updateApiKey() changes what it is told to and names it in the event, without any value', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await create(deps, 'ci', {
      description: 'old',
      scopes: ['read'],
      claims: { plan: 'pro' },
    });
    deps.clock.now += HOUR;
    const expiresAt = deps.clock.now + HOUR;
    expect(
      await update(deps, id, {
        name: 'deploy',
        description: null,
        scopes: ['read', 'write'],
        claims: { plan: 'hidden plan' },
        expiresAt,
      }),
    ).toMatchObject({
      name: 'deploy',
      description: null,
      scopes: ['read', 'write'],
      claims: { plan: 'hidden plan' },
      expiresAt,
      updatedAt: deps.clock.now,
    });
    expect(await update(deps, id, { claims: null, expiresAt: null })).toMatchObject({
      claims: null,
      expiresAt: null,
    });
    const [, updated, cleared] = await eventsOf(deps);
    expect(updated).toMatchObject({
      type: 'api_key.updated',
      objectId: id,
      subject: 'user_1',
      data: { name: 'deploy', changed: ['name', 'description', 'scopes', 'claims', 'expiresAt'] },
    });
    expect(cleared).toMatchObject({ data: { changed: ['claims', 'expiresAt'] } });
    expect(JSON.stringify([updated, cleared])).not.toContain('hidden plan');
  });

  it('a key has a rate limit and CIDR blocks where it is given some, and updateApiKey() changes them', async () => {
    const deps = await openTestDeps(dialect);
    const rateLimit = { count: 5, windowSeconds: 60 };
    const allowedCidrs = ['192.0.2.0/24', '2001:db8::/32'];
    const { id, secret, ...key } = await create(deps, 'ci', { rateLimit, allowedCidrs });
    expect(key).toMatchObject({ rateLimit, allowedCidrs });
    expect(await update(deps, id, { rateLimit, allowedCidrs })).toEqual({ id, ...key });
    const changed = { rateLimit: { count: 5, windowSeconds: 61 }, allowedCidrs: ['192.0.2.0/25'] };
    expect(await update(deps, id, changed)).toMatchObject(changed);
    await update(deps, id, { rateLimit: null, allowedCidrs: null });
    expect(await getApiKey(deps, { id })).toMatchObject({ rateLimit: null, allowedCidrs: null });
    expect((await eventsOf(deps)).slice(1).map(({ data }) => data['changed'])).toEqual(
      Array(2).fill(['rateLimit', 'allowedCidrs']),
    );
    for (const refused of [
      { allowedCidrs: [] },
      { allowedCidrs: ['192.0.2.1/24'] },
      { rateLimit: { count: 0, windowSeconds: 1 } },
      { credits: { remaining: 1 } },
    ])
      expect([refused, updateApiKeyInput.safeParse({ id, ...refused }).success]).toEqual([refused, false]);
  });

  it('setApiKeyCredits() sets what a key may spend, tells verifying to ask, and takes it away', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret, ...key } = await create(deps, 'ci');
    const row = async () => {
      const { db, tables } = deps.store.read;
      const [found] = await db.select({ has: tables.apiKeys.has_credits }).from(tables.apiKeys);
      return [found?.has, ...(await db.select().from(tables.credits))];
    };
    expect(await setCredits(deps, id, { remaining: 3 })).toEqual({ id, ...key, remainingCredits: 3 });
    expect(await setCredits(deps, id, { remaining: 3 })).toMatchObject({ remainingCredits: 3 });
    expect(await row()).toMatchObject([true, { owner_kind: 'api_key', owner_id: id, remaining: 3 }]);
    expect(await getApiKey(deps, { id })).toMatchObject({ remainingCredits: 3 });
    expect((await list(deps)).data[0]).not.toHaveProperty('remainingCredits');
    expect(await setCredits(deps, id, { remaining: null })).toMatchObject({ remainingCredits: null });
    expect(await row()).toEqual([false]);
    expect((await eventsOf(deps)).slice(1)).toMatchObject([
      {
        type: 'api_key.credits_changed',
        objectId: id,
        subject: 'user_1',
        data: { credits: { remaining: 3 } },
      },
      { type: 'api_key.credits_changed', data: { credits: null } },
    ]);
    await setCredits(deps, id, { remaining: 0 });
    expect(await getApiKey(deps, { id })).toMatchObject({ remainingCredits: 0 });
    await revoke(deps, id);
    await expect(setCredits(deps, id, { remaining: 1 })).rejects.toMatchObject({ code: 'already_revoked' });
    await deleteApiKey(deps, issuer, id);
    expect(await row()).toEqual([undefined]);
  });

  it('updateApiKey() leaves no event where everything is as wanted', async () => {
    const deps = await openTestDeps(dialect);
    const { secret, ...key } = await create(deps, 'ci', { scopes: ['read'], claims: { plan: 'pro' } });
    deps.clock.now += HOUR;
    const same = { name: 'ci', scopes: ['read'], claims: { plan: 'pro' }, description: null };
    expect(await update(deps, key.id, same)).toEqual(key);
    expect(await update(deps, key.id, {})).toEqual(key);
    expect(await eventsOf(deps)).toHaveLength(1);
  });

  it('updateApiKey() refuses an expiry that is not in the future, and a name that is taken', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await create(deps, 'ci');
    await create(deps, 'deploy');
    await expect(update(deps, id, { expiresAt: deps.clock.now })).rejects.toMatchObject({
      code: 'invalid_input',
    });
    await expect(update(deps, id, { name: 'deploy' })).rejects.toMatchObject({ code: 'name_taken' });
    expect(await getApiKey(deps, { id })).toMatchObject({ name: 'ci', expiresAt: null });
  });

  it('updateApiKey() lets exactly one of many keys take a name, and frees the one it had', async () => {
    const deps = await openTestDeps(dialect);
    const keys = [];
    for (let i = 0; i < 8; i++) keys.push(await create(deps, `key ${i}`));
    const outcomes = await Promise.allSettled(keys.map(({ id }) => update(deps, id, { name: 'ci' })));
    const refusals = outcomes.filter((outcome) => outcome.status === 'rejected');
    expect(refusals).toHaveLength(7);
    expect(new Set(refusals.map(({ reason }) => reason.code))).toEqual(new Set(['name_taken']));
    const winner = outcomes.findIndex((outcome) => outcome.status === 'fulfilled');
    expect(await create(deps, `key ${winner}`)).toMatchObject({ state: 'live' });
  });

  it('updateApiKey() makes an expired key live again only while its name is free', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await create(deps, 'ci', { ttlSeconds: 60 });
    deps.clock.now += HOUR;
    expect(await update(deps, id, { description: 'over' })).toMatchObject({ state: 'expired' });
    const successor = await create(deps, 'ci');
    await expect(update(deps, id, { expiresAt: null })).rejects.toMatchObject({ code: 'name_taken' });
    await deleteApiKey(deps, issuer, successor.id);
    expect(await update(deps, id, { expiresAt: null })).toMatchObject({ state: 'live' });
    await expect(create(deps, 'ci')).rejects.toMatchObject({ code: 'name_taken' });
  });

  it('a revoked key can neither be changed nor enabled nor disabled', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await create(deps, 'ci');
    await revoke(deps, id);
    const attempts = [
      () => update(deps, id, { name: 'other' }),
      () => update(deps, id, { expiresAt: null }),
      () => setApiKeyEnabled(deps, issuer, id, true),
      () => setApiKeyEnabled(deps, issuer, id, false),
    ];
    for (const attempt of attempts)
      await expect(attempt()).rejects.toMatchObject({ code: 'already_revoked' });
    expect(await getApiKey(deps, { id })).toMatchObject({ name: 'ci', state: 'revoked' });
  });

  it('setApiKeyEnabled() changes the state, and leaves no event where it already is', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await create(deps, 'ci');
    expect(await setApiKeyEnabled(deps, issuer, id, false)).toMatchObject({
      enabled: false,
      state: 'disabled',
    });
    expect(await setApiKeyEnabled(deps, issuer, id, false)).toMatchObject({ state: 'disabled' });
    expect(await setApiKeyEnabled(deps, issuer, id, true)).toMatchObject({ enabled: true, state: 'live' });
    expect((await eventsOf(deps)).map((event) => event.type)).toEqual([
      'api_key.created',
      'api_key.disabled',
      'api_key.enabled',
    ]);
  });

  it('revokeApiKey() keeps the first reason, and answers a second time without an event', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await create(deps, 'ci');
    const revoked = await revoke(deps, id, { reason: 'compromised', note: 'found on a forum' });
    expect(revoked).toMatchObject({
      state: 'revoked',
      revokedAt: deps.clock.now,
      revocationReason: 'compromised',
      revocationNote: 'found on a forum',
    });
    deps.clock.now += HOUR;
    expect(await revoke(deps, id, { reason: 'superseded' })).toEqual(revoked);
    const events = await eventsOf(deps);
    expect(events.map((event) => event.type)).toEqual(['api_key.created', 'api_key.revoked']);
    expect(events[1]).toMatchObject({ subject: 'user_1', data: { name: 'ci', reason: 'compromised' } });
  });

  it('revokeApiKey() leaves one event however many revoke at once', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await create(deps, 'ci');
    await Promise.all(Array.from({ length: 10 }, () => revoke(deps, id)));
    expect((await eventsOf(deps)).map((event) => event.type)).toEqual(['api_key.created', 'api_key.revoked']);
  });

  it('revokeApiKeyByValue() revokes the key, and answers the same for a value that is none', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await create(deps, 'ci');
    for (const value of [
      newValue('ak_').value,
      'garbage',
      secret.slice(0, -1),
      newValue('mt_').value,
      secret,
    ]) {
      expect(await revokeByValue(deps, value)).toEqual({ accepted: true });
    }
    expect(await revokeByValue(deps, secret)).toEqual({ accepted: true });
    expect(await getApiKey(deps, { id })).toMatchObject({ state: 'revoked' });
    expect(await eventsOf(deps)).toHaveLength(2);
    await deleteApiKey(deps, issuer, id);
    expect(await revokeByValue(deps, secret)).toEqual({ accepted: true });
  });

  it("revokeApiKeyByValue() refuses callers' credentials without repeating them", async () => {
    const deps = await openTestDeps(dialect);
    for (const value of [deps.adminKey, newValue('msk_').value]) {
      const refusal = await revokeByValue(deps, value).catch((error: unknown) => error);
      expect(refusal).toMatchObject({ code: 'invalid_input', field: 'value' });
      expect(String(refusal)).not.toContain(value);
    }
  });

  it('revokeAllApiKeys() leaves no key alive whose creation comes before it in the log, nor revokes one after', async () => {
    const deps = await openTestDeps(dialect);
    for (let round = 0; round < 20; round++) {
      const subject = `user_race_${round}`;
      await Promise.all([
        ...Array.from({ length: 4 }, (_, i) => create(deps, `key ${i}`, { subject })),
        revokeAll(deps, subject),
      ]);
    }
    let checked = 0;
    const revokedAt = new Map<string, number>();
    const created: { seq: number; id: string; subject: string }[] = [];
    for (let after = 1, more = true; more; ) {
      const { data, nextAfter } = await listEvents(deps, { after, limit: 500 });
      for (const { seq, type, objectId, subject } of data) {
        if (type === 'subject.api_keys_revoked') revokedAt.set(objectId, seq);
        if (type === 'api_key.created') created.push({ seq, id: objectId, subject: subject ?? '' });
      }
      more = nextAfter !== after;
      after = nextAfter;
    }
    for (const { seq, id, subject } of created) {
      const comesBefore = seq < (revokedAt.get(subject) ?? 0);
      expect((await getApiKey(deps, { id })).state).toBe(comesBefore ? 'revoked' : 'live');
      checked++;
    }
    expect(checked).toBe(80);
  });

  it('revokeAllApiKeys() revokes the keys of one subject as one event with a selector', async () => {
    const deps = await openTestDeps(dialect);
    const earlier = await create(deps, 'earlier');
    await revoke(deps, earlier.id, { reason: 'superseded' });
    for (const name of ['a', 'b', 'c']) await create(deps, name);
    await create(deps, 'of another', { subject: 'user_2' });
    const before = (await eventsOf(deps)).length;
    expect(await revokeAll(deps, 'user_1')).toEqual({ revoked: 3 });
    expect(await revokeAll(deps, 'user_1')).toEqual({ revoked: 0 });
    expect((await eventsOf(deps)).slice(before)).toMatchObject([
      {
        type: 'subject.api_keys_revoked',
        objectId: 'user_1',
        subject: 'user_1',
        data: { selector: { subject: 'user_1' }, count: 3, reason: 'owner_left' },
      },
    ]);
    expect(await names(deps, { state: 'live' })).toEqual(['of another']);
    expect(await getApiKey(deps, { id: earlier.id })).toMatchObject({ revocationReason: 'superseded' });
    expect(await create(deps, 'a')).toMatchObject({ state: 'live' });
  });

  it('revokeAllApiKeys() revokes, of a member who left, the keys that they made and no other', async () => {
    const deps = await openTestDeps(dialect);
    const org = { subject: 'org_1' };
    for (const name of ['a', 'b']) await create(deps, name, { ...org, createdBy: 'user_1' });
    await create(deps, 'of another member', { ...org, createdBy: 'user_2' });
    await create(deps, 'of nobody', org);
    await create(deps, 'of another organization', { subject: 'org_2', createdBy: 'user_1' });
    const before = (await eventsOf(deps)).length;
    expect(await revokeAll(deps, 'org_1', { createdBy: 'user_1' })).toEqual({ revoked: 2 });
    expect(await revokeAll(deps, 'org_1', { createdBy: 'user_1' })).toEqual({ revoked: 0 });
    expect(await revokeAll(deps, 'org_1', { createdBy: 'user_3' })).toEqual({ revoked: 0 });
    expect((await names(deps, { state: 'revoked' })).sort()).toEqual(['a', 'b']);
    expect((await eventsOf(deps)).slice(before)).toMatchObject([
      {
        type: 'subject.api_keys_revoked',
        objectId: 'org_1',
        subject: 'org_1',
        data: { selector: { subject: 'org_1', createdBy: 'user_1' }, count: 2, reason: 'owner_left' },
      },
    ]);
    expect((await eventsOf(deps)).at(-1)?.data['selector']).toEqual({
      subject: 'org_1',
      createdBy: 'user_1',
    });
    expect(await revokeAll(deps, 'org_1')).toEqual({ revoked: 2 });
    expect((await eventsOf(deps)).at(-1)?.data['selector']).toEqual({ subject: 'org_1' });
  });

  it('deleteApiKey() takes its secret with it and is not found twice', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await create(deps, 'ci');
    expect(await deleteApiKey(deps, issuer, id)).toEqual({ id, deleted: true });
    expect(await findOwner(deps, secret)).toBeNull();
    await expect(getApiKey(deps, { id })).rejects.toMatchObject({ code: 'not_found' });
    await expect(deleteApiKey(deps, issuer, id)).rejects.toMatchObject({ code: 'not_found' });
    await expect(revoke(deps, id)).rejects.toMatchObject({ code: 'not_found' });
  });

  it('no event carries a claim, a value or a hash', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await create(deps, 'ci', { claims: { plan: 'hidden plan' } });
    await update(deps, id, { claims: { plan: 'another hidden plan' } });
    await revoke(deps, id, { note: 'a private note' });
    await deleteApiKey(deps, issuer, id);
    const log = JSON.stringify(await eventsOf(deps));
    for (const hidden of [
      'hidden plan',
      secret.slice(9),
      deps.keyring.hash(secret).toString('hex'),
      'private',
    ])
      expect(log).not.toContain(hidden);
  });
});

describeOnEachDialect('listApiKeys()', (dialect) => {
  /** One key in each state, the oldest first. */
  async function withKeysInEachState() {
    const deps = await openTestDeps(dialect);
    const start = deps.clock.now;
    await create(deps, 'live');
    deps.clock.now += 1;
    await create(deps, 'expired', { expiresAt: start + HOUR });
    deps.clock.now += 1;
    const disabled = await create(deps, 'disabled', { expiresAt: start + HOUR });
    await setApiKeyEnabled(deps, issuer, disabled.id, false);
    deps.clock.now += 1;
    const revoked = await create(deps, 'revoked', { subject: 'user_2', expiresAt: start + HOUR });
    await setApiKeyEnabled(deps, issuer, revoked.id, false);
    await revoke(deps, revoked.id);
    deps.clock.now = start + HOUR;
    return deps;
  }

  it('finds each key in exactly one state, the one it says it is in', async () => {
    const deps = await withKeysInEachState();
    for (const state of ['live', 'expired', 'disabled', 'revoked'] as const) {
      const { data } = await list(deps, { state });
      expect(data.map((key) => [key.name, key.state])).toEqual([[state, state]]);
    }
    deps.clock.now -= 1;
    expect(await names(deps, { state: 'live' })).toEqual(['expired', 'live']);
  });

  it('finds by subject, exact name, part of a name in any case, and how the value begins, also together', async () => {
    const deps = await openTestDeps(dialect);
    const ci = await create(deps, 'CI deploy');
    deps.clock.now += 1;
    await create(deps, 'CI deploy', { subject: 'user_2' });
    deps.clock.now += 1;
    await create(deps, '100% off');
    expect(await names(deps, { subject: 'user_1' })).toEqual(['100% off', 'CI deploy']);
    expect(await names(deps, { subject: 'user_3' })).toEqual([]);
    expect(await names(deps, { name: 'CI deploy' })).toHaveLength(2);
    expect(await names(deps, { name: 'ci deploy' })).toEqual([]);
    expect(await names(deps, { name: 'CI deploy', subject: 'user_2' })).toHaveLength(1);
    expect(await names(deps, { query: 'i DEP' })).toHaveLength(2);
    expect(await names(deps, { query: '%' })).toEqual(['100% off']);
    expect(await names(deps, { start: ci.start })).toEqual(['CI deploy']);
    expect(await names(deps, { start: ci.start.slice(0, 6), subject: 'user_1', name: 'CI deploy' })).toEqual([
      'CI deploy',
    ]);
    expect(await names(deps, { start: ci.start, subject: 'user_2' })).toEqual([]);
    expect(await names(deps, { start: `${ci.start}x` })).toEqual([]);
  });

  it('finds by how the value begins no machine and no secret key', async () => {
    const deps = await openTestDeps(dialect);
    await create(deps, 'ci');
    expect(await names(deps, { start: deps.adminKey.slice(0, 9) })).toEqual([]);
  });

  it('walks every key once, in both directions, by cursor and by offset, with and without a filter', async () => {
    const deps = await openTestDeps(dialect);
    for (let i = 0; i < 7; i++) {
      deps.clock.now += i % 2;
      await create(deps, `key ${i}`);
    }
    for (const input of [{}, { state: 'live' }, { subject: 'user_1', query: 'key' }]) {
      for (const direction of ['ascending', 'descending']) {
        const whole = await names(deps, { ...input, direction });
        expect(new Set(whole).size).toBe(7);
        const walked: string[] = [];
        for (let cursor: string | null | undefined; cursor !== null; ) {
          const page = await list(deps, { ...input, direction, limit: 3, ...(cursor && { cursor }) });
          walked.push(...page.data.map((key) => key.name));
          cursor = page.nextCursor;
        }
        expect(walked).toEqual(whole);
        expect(await names(deps, { ...input, direction, limit: 3, offset: 5 })).toEqual(whole.slice(5, 8));
      }
    }
  });

  it('stops looking for a rare state after as many keys as one page may cost, and goes on by cursor', async () => {
    const deps = await openTestDeps(dialect);
    const rare = await create(deps, 'rare');
    await revoke(deps, rare.id);
    await insertLiveKeys(deps, SEARCH_CANDIDATES_MAX);
    const first = await list(deps, { state: 'revoked' });
    expect(first.data).toEqual([]);
    expect(first.nextCursor).not.toBeNull();
    const second = await list(deps, { state: 'revoked', cursor: first.nextCursor ?? '' });
    expect(second.data.map((key) => key.name)).toEqual(['rare']);
    expect(second.nextCursor).toBeNull();
  });
});

/** Rows as `createApiKey()` writes them, newer than all before, many at once. */
async function insertLiveKeys(deps: TestDeps, count: number) {
  const batch = 500;
  for (let from = 0; from < count; from += batch) {
    const rows = Array.from({ length: batch }, (_, i) => {
      const name = `key ${from + i}`;
      const at = deps.clock.now + 1 + from + i;
      return {
        id: `ak_${(from + i).toString(16).padStart(32, '0')}`,
        subject: 'user_many',
        name,
        live_name: name,
        scopes: [],
        enabled: true,
        created_at: at,
        updated_at: at,
      };
    });
    await deps.store.tx(async (tx) => {
      await tx.db.insert(tx.tables.apiKeys).values(rows);
    });
  }
}
