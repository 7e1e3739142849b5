import { eq } from 'drizzle-orm';
import { expect, it } from 'vitest';
import { listEvents } from '../../../server/domain/events.ts';
import {
  createSecretKey,
  createSecretKeyInput,
  listSecretKeys,
  listSecretKeysInput,
  revokeSecretKey,
  shouldKeepFirstSecretKeyFile,
} from '../../../server/domain/secret-keys.ts';
import { findCaller } from '../../../server/domain/secrets.ts';
import {
  anywhere,
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';

const admin = callerWith('admin');
const ROLES = ['admin', 'issuer', 'interaction', 'read', 'verify'];

const create = (deps: TestDeps, role: string, more: Record<string, unknown> = {}) =>
  createSecretKey(deps, admin, createSecretKeyInput.parse({ name: `a ${role} key`, role, ...more }));
const revoke = (deps: TestDeps, id: string) => revokeSecretKey(deps, admin, { id });
const list = (deps: TestDeps, input: Record<string, unknown> = {}) =>
  listSecretKeys(deps, listSecretKeysInput.parse(input));
const firstKeyId = async (deps: TestDeps) => (await findCaller(deps, deps.adminKey, anywhere))?.id ?? '';

describeOnEachDialect('secret keys', (dialect) => {
  it('createSecretKey() answers a value by which its holder is recognised with its role', async () => {
    const deps = await openTestDeps(dialect);
    for (const role of ROLES) {
      const { secret = '', ...key } = await create(deps, role);
      expect(secret).toMatch(/^sk_[0-9A-Za-z]{49}$/);
      expect(key).toEqual({
        id: expect.stringMatching(/^sk_[0-9a-f]{32}$/),
        name: `a ${role} key`,
        role,
        start: secret.slice(0, 9),
        state: 'live',
        allowedCidrs: null,
        rotation: null,
        rotateBy: null,
        expiresAt: null,
        revokedAt: null,
        lastUsedAt: null,
        createdAt: deps.clock.now,
      });
      expect(await findCaller(deps, secret, anywhere)).toEqual({ kind: 'secret_key', id: key.id, role });
    }
  });

  it('a secret key is nobody from the instant of its expiry', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await create(deps, 'read', { ttlSeconds: 60 });
    deps.clock.now += 59_999;
    expect(await findCaller(deps, secret, anywhere)).toMatchObject({ id });
    deps.clock.now += 1;
    expect(await findCaller(deps, secret, anywhere)).toBeNull();
    expect((await list(deps)).data.find((key) => key.id === id)).toMatchObject({ state: 'expired' });
  });

  it('listSecretKeys() walks every key once, the newest first, and shows how each begins', async () => {
    const deps = await openTestDeps(dialect);
    const starts: (string | undefined)[] = [deps.adminKey.slice(0, 9)];
    for (const role of ROLES) {
      deps.clock.now += 1;
      starts.unshift((await create(deps, role)).secret?.slice(0, 9));
    }
    expect((await list(deps)).data.map((key) => key.start)).toEqual(starts);
    const walked: string[] = [];
    for (let cursor: string | null | undefined; cursor !== null; ) {
      const page = await list(deps, { limit: 4, ...(cursor && { cursor }) });
      walked.push(...page.data.map((key) => key.start));
      cursor = page.nextCursor;
    }
    expect(walked).toEqual(starts);
  });

  it('revokeSecretKey() makes its holder nobody, and answers a second time without an event', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await create(deps, 'issuer');
    const revoked = await revoke(deps, id);
    expect(revoked).toMatchObject({ id, state: 'revoked', revokedAt: deps.clock.now });
    expect(await findCaller(deps, secret, anywhere)).toBeNull();
    deps.clock.now += 1000;
    expect(await revoke(deps, id)).toEqual(revoked);
    await expect(revoke(deps, `sk_${'f'.repeat(32)}`)).rejects.toMatchObject({ code: 'not_found' });
    const events = (await listEvents(deps, { after: 1, limit: 10 })).data;
    expect(events.map((event) => event.type)).toEqual(['secret_key.created', 'secret_key.revoked']);
    expect(events[1]).toMatchObject({ objectId: id, data: { name: 'a issuer key', role: 'issuer' } });
  });

  it('a revoked secret key is not revived by a writer who clears the revocation in the database', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await create(deps, 'read');
    await revoke(deps, id);
    await deps.store.tx(async ({ db, tables: { secretKeys, secrets } }) => {
      await db.update(secretKeys).set({ revoked_at: null }).where(eq(secretKeys.id, id));
      await db.update(secrets).set({ revoked_at: null }).where(eq(secrets.owner_id, id));
    });
    expect(await findCaller(deps, secret, anywhere)).toBeNull();
  });

  it('revokeSecretKey() refuses the last admin key that will not expire, whoever asks, and takes any other', async () => {
    const deps = await openTestDeps(dialect);
    const first = await firstKeyId(deps);
    const itself = {
      principal: { kind: 'secret_key', id: first, role: 'admin' },
      requestId: 'req_test',
    } as const;
    await create(deps, 'issuer');
    await expect(revokeSecretKey(deps, itself, { id: first })).rejects.toMatchObject({
      code: 'last_admin_key',
    });
    const passing = await create(deps, 'admin', { ttlSeconds: 60 });
    await expect(revoke(deps, first)).rejects.toMatchObject({ code: 'last_admin_key' });
    expect(await revoke(deps, passing.id)).toMatchObject({ state: 'revoked' });
    const second = await create(deps, 'admin');
    expect(await revokeSecretKey(deps, itself, { id: first })).toMatchObject({ state: 'revoked' });
    await expect(revoke(deps, second.id)).rejects.toMatchObject({ code: 'last_admin_key' });
    expect(await findCaller(deps, second.secret ?? '', anywhere)).toMatchObject({ role: 'admin' });
  });

  it('an expired, a revoked or a forged admin key is no other admin key', async () => {
    const deps = await openTestDeps(dialect);
    const first = await firstKeyId(deps);
    await create(deps, 'admin', { ttlSeconds: 60 });
    const revoked = await create(deps, 'admin');
    await revoke(deps, revoked.id);
    const forged = await create(deps, 'read');
    await deps.store.tx(async ({ db, tables: { secretKeys } }) => {
      await db.update(secretKeys).set({ role: 'admin' }).where(eq(secretKeys.id, forged.id));
    });
    deps.clock.now += 60_000;
    await expect(revoke(deps, first)).rejects.toMatchObject({ code: 'last_admin_key' });
    expect(await shouldKeepFirstSecretKeyFile(deps)).toBe(true);
  });

  it('revokeSecretKey() leaves one admin when all are revoked at once', async () => {
    const deps = await openTestDeps(dialect);
    const ids = [await firstKeyId(deps)];
    for (let i = 0; i < 5; i++) ids.push((await create(deps, 'admin')).id);
    const outcomes = await Promise.allSettled(ids.map((id) => revoke(deps, id)));
    const refusals = outcomes.filter((outcome) => outcome.status === 'rejected');
    expect(refusals.map(({ reason }) => reason.code)).toEqual(['last_admin_key']);
    expect((await list(deps)).data.filter((key) => key.state === 'live')).toHaveLength(1);
  });

  it('shouldKeepFirstSecretKeyFile() says so as long as the first key is the only admin key that lasts', async () => {
    const deps = await openTestDeps(dialect);
    expect(await shouldKeepFirstSecretKeyFile(deps)).toBe(true);
    await create(deps, 'issuer');
    expect(await shouldKeepFirstSecretKeyFile(deps)).toBe(true);
    await create(deps, 'admin', { ttlSeconds: 60 });
    expect(await shouldKeepFirstSecretKeyFile(deps)).toBe(true);
    const other = await create(deps, 'admin');
    expect(await shouldKeepFirstSecretKeyFile(deps)).toBe(false);
    await revoke(deps, other.id);
    expect(await shouldKeepFirstSecretKeyFile(deps)).toBe(true);
    await create(deps, 'admin');
    await revoke(deps, await firstKeyId(deps));
    expect(await shouldKeepFirstSecretKeyFile(deps)).toBe(false);
  });
});
