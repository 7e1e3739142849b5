import { expect, it } from 'vitest';
import type { Overview } from '../../../server/domain/overview.ts';
import { call } from '../../support/calls.ts';
import { describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newMachine } from '../../support/machines.ts';

const DAY_SECONDS = 86_400;

const byAdmin = (deps: TestDeps, path: string, input?: object) =>
  call(deps, deps.adminKey, path, input) as Promise<{ id: string; secret: string }>;

const look = async (deps: TestDeps) => (await byAdmin(deps, 'overview.get')) as unknown as Overview;

describeOnEachDialect('overview', (dialect) => {
  it('counts credentials by kind and state', async () => {
    const deps = await openTestDeps(dialect);
    const keys = [];
    for (const name of ['live', 'disabled', 'revoked', 'both'])
      keys.push(await byAdmin(deps, 'apiKeys.create', { name, subject: 'user_1' }));
    await byAdmin(deps, 'apiKeys.create', { name: 'expired', subject: 'user_1', ttlSeconds: 1 });
    await byAdmin(deps, 'apiKeys.disable', { id: keys[1]?.id });
    await byAdmin(deps, 'apiKeys.disable', { id: keys[3]?.id });
    for (const i of [2, 3]) await byAdmin(deps, 'apiKeys.revoke', { id: keys[i]?.id });
    const machine = await newMachine(deps, 'one');
    await newMachine(deps, 'two');
    await byAdmin(deps, 'machines.disable', { id: machine.id });
    deps.clock.now += 1_000;
    expect((await look(deps)).credentials).toEqual({
      apiKeys: { states: { live: 1, disabled: 1, expired: 1, revoked: 2 }, isCapped: false },
      machines: { states: { enabled: 1, disabled: 1 }, isCapped: false },
      secretKeys: { states: { live: 1, expired: 0, revoked: 0 }, isCapped: false },
      unexpiredM2mTokens: 0,
    });
  });

  it('lists what expires within a week, the soonest first, and nothing that was revoked', async () => {
    const deps = await openTestDeps(dialect);
    const expiring = (name: string, days: number) =>
      byAdmin(deps, 'apiKeys.create', { name, subject: 'user_1', ttlSeconds: days * DAY_SECONDS });
    await expiring('later', 6);
    await expiring('too late', 8);
    const { id } = await expiring('revoked', 1);
    await byAdmin(deps, 'apiKeys.revoke', { id });
    await byAdmin(deps, 'secretKeys.create', { name: 'soon', role: 'read', ttlSeconds: DAY_SECONDS });
    expect((await look(deps)).expiring.map(({ kind, name }) => [kind, name])).toEqual([
      ['secret_key', 'soon'],
      ['api_key', 'later'],
    ]);
  });

  it('counts verifications by outcome and minute, for an hour', async () => {
    const deps = await openTestDeps(dialect);
    const { secret } = await byAdmin(deps, 'apiKeys.create', { name: 'ci', subject: 'user_1' });
    const verify = (credential: string) => byAdmin(deps, 'credentials.verify', { credential });
    await verify(secret);
    await verify('garbage');
    deps.clock.now += 60_000;
    await verify(secret);
    const { verifications } = await look(deps);
    expect(verifications).toHaveLength(60);
    expect(verifications.slice(-2).map(({ outcomes }) => outcomes)).toEqual([
      { valid: 1, malformed: 1 },
      { valid: 1 },
    ]);
    deps.clock.now += 59 * 60_000;
    expect(
      (await look(deps)).verifications.map(({ outcomes }) => outcomes).filter((each) => each['valid']),
    ).toEqual([{ valid: 1 }]);
    deps.clock.now += 60_000;
    expect((await look(deps)).verifications.every(({ outcomes }) => Object.keys(outcomes).length === 0)).toBe(
      true,
    );
  });

  it('says when the signing key rotates, and which endpoints fail', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await byAdmin(deps, 'webhookEndpoints.create', { url: 'https://receiver.example/' });
    await byAdmin(deps, 'webhookEndpoints.create', { url: 'https://other.example/' });
    const { webhookEndpoints } = deps.store.read.tables;
    await deps.store.tx(({ db }) => db.update(webhookEndpoints).set({ failing_since: 5, enabled: true }));
    const { signing, failingEndpoints, troubledJobs } = await look(deps);
    expect(signing?.rotatesAt).toBe((signing?.activatedAt ?? 0) + deps.keyRotationMs);
    expect(failingEndpoints).toContainEqual({
      id,
      url: 'https://receiver.example/',
      enabled: true,
      failingSince: 5,
    });
    expect(troubledJobs).toEqual([]);
  });
});
