import { and, eq, isNull } from 'drizzle-orm';
import { expect, it } from 'vitest';
import {
  cancelApiKeyRotation,
  completeApiKeyRotation,
  createApiKey,
  createApiKeyInput,
  getApiKey,
  revokeApiKey,
  revokeApiKeyInput,
  rotateApiKey,
  rotateApiKeyInput,
  setApiKeyEnabled,
  updateApiKey,
  updateApiKeyInput,
} from '../../../server/domain/api-keys.ts';
import { verify } from '../../../server/domain/credentials.ts';
import { REVOCATIONS } from '../../../server/domain/event-types.ts';
import { listEvents } from '../../../server/domain/events.ts';
import { framesOf } from '../../../server/domain/feed.ts';
import type { JobCursor } from '../../../server/domain/jobs.ts';
import { createM2mToken, createM2mTokenInput } from '../../../server/domain/m2m-tokens.ts';
import {
  createMachine,
  createMachineInput,
  getMachine,
  rotateMachineSecret,
  rotateMachineSecretInput,
  updateMachine,
  updateMachineInput,
} from '../../../server/domain/machines.ts';
import {
  createSecretKey,
  createSecretKeyInput,
  listSecretKeys,
  listSecretKeysInput,
  revokeSecretKey,
  updateSecretKey,
  updateSecretKeyInput,
} from '../../../server/domain/secret-keys.ts';
import { enforceRotationPolicies } from '../../../server/domain/secret-rotation.ts';
import { findCaller } from '../../../server/domain/secrets.ts';
import { readStanding } from '../../../server/domain/standing.ts';
import {
  anywhere,
  callerWith,
  describeOnEachDialect,
  failingAfter,
  openTestDeps,
  presented,
  type TestDeps,
} from '../../support/deps.ts';
import { expectAsDescribed, expectChained } from '../../support/event-log.ts';
import { allow, newMachine } from '../../support/machines.ts';
import { planOf, statementsOf } from '../../support/plans.ts';

const admin = callerWith('admin');
const HOUR = 3_600_000;
const DAY = 24 * HOUR;

const policy = (days: number, atDeadline?: 'warn' | 'expire') => ({
  periodSeconds: days * 86_400,
  ...(atDeadline && { atDeadline }),
});

const newKey = (deps: TestDeps, rotation: object | null, more: object = {}) =>
  createApiKey(deps, admin, createApiKeyInput.parse({ name: 'ci', subject: 'user_1', rotation, ...more }));

const newSecretKey = (deps: TestDeps, rotation: object, role = 'read') =>
  createSecretKey(deps, admin, createSecretKeyInput.parse({ name: 'ci', role, rotation }));

const updateKey = (deps: TestDeps, id: string, changes: object) =>
  updateApiKey(deps, admin, updateApiKeyInput.parse({ id, ...changes }));

/** One whole pass. */
async function pass(deps: TestDeps) {
  const errors: unknown[] = [];
  for (let cursor: JobCursor | null = null; ; ) {
    const step = await enforceRotationPolicies(deps, cursor);
    errors.push(...(step.errors ?? []));
    if (step.done) return errors;
    cursor = step.cursor;
  }
}

async function told(deps: TestDeps) {
  const { data } = await listEvents(deps, { after: 0, limit: 500 });
  return data.filter(({ type }) => /rotation_due|secret_expired/.test(type));
}

/** What was told, in days from now until then, as it was seen by a clock that began at `start`. */
const sequence = async (deps: TestDeps, start: number) =>
  (await told(deps)).map(({ type, at, data }) => [
    type.split('.')[1],
    Math.round((at - start) / DAY),
    ...(data['daysLeft'] === undefined ? [] : [data['daysLeft'], data['isOverdue']]),
  ]);

const recognised = async (deps: TestDeps, secret = '') => (await findCaller(deps, secret, anywhere)) !== null;

const ask = (deps: TestDeps, credential = '', audience?: string) =>
  verify(deps, presented(deps.adminKey), { credential, ...(audience && { audience }) }, (principal) => {
    if (!principal) throw new Error('The admin key is not recognised');
    return principal;
  });

describeOnEachDialect('rotateBy', (dialect) => {
  it('is what the newest secret and the policy say, through rotating, cancelling, completing and changing', async () => {
    const deps = await openTestDeps(dialect);
    const start = deps.clock.now;
    const { id, rotation, rotateBy } = await newKey(deps, policy(30));
    expect({ rotation, rotateBy }).toEqual({
      rotation: { periodSeconds: 30 * 86_400, atDeadline: 'warn' },
      rotateBy: start + 30 * DAY,
    });
    const shown = async () => {
      const { data } = await listEvents(deps, { after: 0, limit: 1, newestFirst: true });
      return { rotateBy: (await getApiKey(deps, { id })).rotateBy, event: data[0]?.type };
    };
    const rotate = (options: object) =>
      rotateApiKey(deps, admin, rotateApiKeyInput.parse({ id, ...options }));

    deps.clock.now += DAY;
    expect(await rotate({ overlapSeconds: 60 })).toMatchObject({ rotateBy: start + 31 * DAY });
    expect(await cancelApiKeyRotation(deps, admin, id)).toMatchObject({ rotateBy: start + 30 * DAY });
    expect(await rotate({ overlapSeconds: 60 })).toMatchObject({ rotateBy: start + 31 * DAY });
    expect(await completeApiKeyRotation(deps, admin, id)).toMatchObject({ rotateBy: start + 31 * DAY });
    deps.clock.now += DAY;
    expect(await rotate({ compromised: true })).toMatchObject({ rotateBy: start + 32 * DAY });
    expect(await updateKey(deps, id, { rotation: policy(10) })).toMatchObject({ rotateBy: start + 12 * DAY });
    expect(await shown()).toEqual({ rotateBy: start + 12 * DAY, event: 'api_key.updated' });
    expect(await updateKey(deps, id, { rotation: null })).toMatchObject({ rotation: null, rotateBy: null });
    expect(await rotate({})).toMatchObject({ rotateBy: null });
    expect(await updateKey(deps, id, { rotation: policy(5) })).toMatchObject({ rotateBy: start + 7 * DAY });
    const { secrets: s } = deps.store.read.tables;
    const rows = await deps.store.read.db.select({ at: s.rotate_by }).from(s).where(eq(s.owner_id, id));
    expect(rows.filter(({ at }) => at !== null)).toHaveLength(1);
  });

  it('is none for an owner that expires before, and is judged anew when that changes', async () => {
    const deps = await openTestDeps(dialect);
    const { id, rotateBy } = await newKey(deps, policy(30), { ttlSeconds: 20 * 86_400 });
    expect(rotateBy).toBeNull();
    expect(await updateKey(deps, id, { expiresAt: null })).toMatchObject({
      rotateBy: deps.clock.now + 30 * DAY,
    });
    const expiresAt = deps.clock.now + DAY;
    expect(await updateKey(deps, id, { expiresAt })).toMatchObject({ rotateBy: null });
  });

  it('is kept for machines and secret keys too, shown in lists, and not of what was revoked', async () => {
    const deps = await openTestDeps(dialect);
    const rotation = policy(30, 'expire');
    const machine = await createMachine(deps, admin, createMachineInput.parse({ name: 'billing', rotation }));
    const key = await newSecretKey(deps, rotation);
    const apiKey = await newKey(deps, rotation);
    const wanted = { rotation, rotateBy: deps.clock.now + 30 * DAY };
    for (const owner of [machine, key, apiKey]) expect(owner).toMatchObject(wanted);
    const listed = async () => (await listSecretKeys(deps, listSecretKeysInput.parse({}))).data;
    expect((await listed()).find(({ id }) => id === key.id)).toMatchObject(wanted);

    const shorter = { rotation: policy(1) };
    const until = { rotateBy: deps.clock.now + DAY };
    const { id } = machine;
    expect(await updateMachine(deps, admin, updateMachineInput.parse({ id, ...shorter }))).toMatchObject(
      until,
    );
    expect(await getMachine(deps, { id })).toMatchObject(until);
    const changes = updateSecretKeyInput.parse({ id: key.id, name: 'ci 2', ...shorter });
    expect(await updateSecretKey(deps, admin, changes)).toMatchObject({ name: 'ci 2', ...until });
    expect(await revokeSecretKey(deps, admin, { id: key.id })).toMatchObject({ rotateBy: null });
    expect(await revokeApiKey(deps, admin, revokeApiKeyInput.parse({ id: apiKey.id }))).toMatchObject({
      rotateBy: null,
    });
    await expect(updateSecretKey(deps, admin, changes)).rejects.toMatchObject({ code: 'already_revoked' });
  });
});

describeOnEachDialect('enforceRotationPolicies()', (dialect) => {
  it('tells of each secret 7 days ahead, 1 day ahead, at its deadline and every 7 days after, once whoever looks', async () => {
    const deps = await openTestDeps(dialect);
    const start = deps.clock.now;
    const { id: machineId } = await createMachine(
      deps,
      admin,
      createMachineInput.parse({ name: 'billing', rotation: policy(30) }),
    );
    const apiKey = await newKey(deps, policy(30));
    const secretKey = await newSecretKey(deps, policy(30));
    for (let hours = 0; hours <= 45 * 24; hours += 12) {
      await Promise.all([pass(deps), pass(deps)]);
      deps.clock.now += 12 * HOUR;
    }
    const expected = [
      ['rotation_due', 23, 7, false],
      ['rotation_due', 29, 1, false],
      ['rotation_due', 30, 0, true],
      ['rotation_due', 37, 0, true],
      ['rotation_due', 44, 0, true],
    ];
    const all = await told(deps);
    expect(all).toHaveLength(15);
    for (const objectId of [machineId, apiKey.id, secretKey.id]) {
      const own = all.filter((event) => event.objectId === objectId);
      expect(
        own.map(({ at, data }) => ['rotation_due', (at - start) / DAY, data['daysLeft'], data['isOverdue']]),
      ).toEqual(expected);
    }
    expect(all[0]?.data).toEqual({
      rotateBy: start + 30 * DAY,
      daysLeft: 7,
      isOverdue: false,
      atDeadline: 'warn',
    });
    expect(all.find(({ type }) => type === 'api_key.rotation_due')?.subject).toBe('user_1');
    expect((await readStanding(deps)).overdueSecrets).toBe(3);
    expect(await recognised(deps, secretKey.secret)).toBe(true);
    await expectChained(deps);
  });

  it.each([
    [
      3,
      [
        ['rotation_due', 2, 1, false],
        ['rotation_due', 3, 0, true],
      ],
    ],
    [
      7,
      [
        ['rotation_due', 6, 1, false],
        ['rotation_due', 7, 0, true],
      ],
    ],
    [
      1,
      [
        ['rotation_due', 1, 0, true],
        ['rotation_due', 8, 0, true],
      ],
    ],
  ])('of a period of %i days it tells what makes sense', async (days, expected) => {
    const deps = await openTestDeps(dialect);
    const start = deps.clock.now;
    await newKey(deps, policy(days));
    for (let hours = 0; hours <= 9 * 24; hours += 12) {
      await pass(deps);
      deps.clock.now += 12 * HOUR;
    }
    expect(await sequence(deps, start)).toEqual(expected);
  });

  it('tells who slept the nearest only, and of another deadline anew', async () => {
    const deps = await openTestDeps(dialect);
    const start = deps.clock.now;
    const { id } = await newKey(deps, policy(30));
    deps.clock.now += 24 * DAY;
    await pass(deps);
    deps.clock.now += 20 * DAY;
    await pass(deps);
    await pass(deps);
    expect(await sequence(deps, start)).toEqual([
      ['rotation_due', 24, 6, false],
      ['rotation_due', 44, 0, true],
    ]);
    await rotateApiKey(deps, admin, rotateApiKeyInput.parse({ id, overlapSeconds: 3600 }));
    await pass(deps);
    expect(await told(deps)).toHaveLength(2);
    await cancelApiKeyRotation(deps, admin, id);
    await pass(deps);
    expect(await told(deps)).toHaveLength(2);
    await updateKey(deps, id, { rotation: policy(40) });
    await pass(deps);
    expect((await told(deps))[2]?.data).toMatchObject({ rotateBy: start + 40 * DAY, isOverdue: true });
  });

  it('at the deadline expires what the policy says, and tells verifiers and subscribers so', async () => {
    const deps = await openTestDeps(dialect);
    const ledger = await newMachine(deps, 'ledger');
    const rotation = policy(30, 'expire');
    const machine = await createMachine(deps, admin, createMachineInput.parse({ name: 'billing', rotation }));
    await allow(deps, machine.id, ledger.id);
    const principal = await findCaller(deps, machine.secret ?? '', anywhere);
    if (!principal) throw new Error('Not recognised');
    const { token } = await createM2mToken(
      deps,
      { principal, requestId: 'req_test' },
      createM2mTokenInput.parse({ ttlSeconds: 30 * 86_400 }),
    );
    deps.clock.now += HOUR;
    const apiKey = await newKey(deps, rotation);
    const secretKey = await newSecretKey(deps, rotation);
    deps.clock.now += 30 * DAY - HOUR - 1;
    await pass(deps);
    expect(await recognised(deps, machine.secret)).toBe(true);
    const before = (await told(deps)).length;
    deps.clock.now += 1;
    await Promise.all([pass(deps), pass(deps)]);
    expect(await recognised(deps, machine.secret)).toBe(false);
    expect(await ask(deps, apiKey.secret)).toMatchObject({ valid: true });
    expect(await ask(deps, token, ledger.id)).toMatchObject({ valid: false, reason: 'expired' });
    deps.clock.now += HOUR - 1;
    expect(await recognised(deps, secretKey.secret)).toBe(true);
    deps.clock.now += 1;
    await Promise.all([pass(deps), pass(deps)]);
    expect(await recognised(deps, secretKey.secret)).toBe(false);
    expect(await ask(deps, apiKey.secret)).toMatchObject({ valid: false, reason: 'expired' });

    const events = (await told(deps)).slice(before);
    expect(events.map(({ type, objectId }) => [type, objectId]).sort()).toEqual([
      ['api_key.secret_expired', apiKey.id],
      ['machine.secret_expired', machine.id],
      ['secret_key.secret_expired', secretKey.id],
    ]);
    expect(events.find(({ objectId }) => objectId === apiKey.id)).toMatchObject({
      subject: 'user_1',
      data: { name: 'ci', rotateBy: deps.clock.now },
    });
    for (const { type } of events) expect(REVOCATIONS.has(type)).toBe(true);
    await expectAsDescribed(deps);
    const frames = await framesOf(deps.store.read, events, true);
    expect(frames.flatMap((each) => each.frames).map(({ data }) => data)).toEqual(
      events.map(({ seq, at, type, objectId: id }) => ({
        ...{ seq, at, id },
        kind: type.split('.')[0],
        reason: 'expired',
      })),
    );
    deps.clock.now += 30 * DAY;
    await pass(deps);
    expect(await told(deps)).toHaveLength(before + 3);
    await expectChained(deps);
  });

  it('with the newest value the one of before expires, though its overlap is not over', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret } = await newKey(deps, policy(1, 'expire'));
    const rotated = await rotateApiKey(
      deps,
      admin,
      rotateApiKeyInput.parse({ id, overlapSeconds: 2 * 86_400 }),
    );
    deps.clock.now += DAY;
    expect(await ask(deps, secret)).toMatchObject({ valid: true });
    await pass(deps);
    for (const value of [secret, rotated.secret])
      expect(await ask(deps, value)).toMatchObject({ valid: false, reason: 'expired' });
    expect(await told(deps)).toHaveLength(1);
  });

  it('a machine whose secret expired keeps its tokens, and is given another secret by an admin', async () => {
    const deps = await openTestDeps(dialect);
    const ledger = await newMachine(deps, 'ledger');
    const { id, secret } = await createMachine(
      deps,
      admin,
      createMachineInput.parse({ name: 'billing', rotation: policy(1, 'expire') }),
    );
    await allow(deps, id, ledger.id);
    const principal = await findCaller(deps, secret ?? '', anywhere);
    if (!principal) throw new Error('Not recognised');
    const { token } = await createM2mToken(
      deps,
      { principal, requestId: 'req_test' },
      createM2mTokenInput.parse({ ttlSeconds: 2 * 86_400 }),
    );
    deps.clock.now += DAY;
    await pass(deps);
    expect(await getMachine(deps, { id })).toMatchObject({ rotateBy: null });
    expect(await ask(deps, token, ledger.id)).toMatchObject({ valid: true });
    const rotated = await rotateMachineSecret(deps, admin, rotateMachineSecretInput.parse({ id }));
    expect(rotated).toMatchObject({ previousExpiresAt: null, rotateBy: deps.clock.now + DAY });
    expect([await recognised(deps, secret), await recognised(deps, rotated.secret)]).toEqual([false, true]);
  });

  it('the last admin key is complained of and never expires, and no other is revoked in its place', async () => {
    const deps = await openTestDeps(dialect);
    const first = await findCaller(deps, deps.adminKey, anywhere);
    const firstId = first?.id ?? '';
    const second = await newSecretKey(deps, policy(2, 'expire'), 'admin');
    const rotation = policy(1, 'expire');
    await updateSecretKey(deps, admin, updateSecretKeyInput.parse({ id: firstId, rotation }));
    deps.clock.now += 3 * DAY;
    await Promise.all([pass(deps), pass(deps)]);
    await pass(deps);
    const alive = [await recognised(deps, deps.adminKey), await recognised(deps, second.secret)];
    expect(alive.filter(Boolean)).toHaveLength(1);
    expect((await told(deps)).map(({ type }) => type).sort()).toEqual([
      'secret_key.rotation_due',
      'secret_key.secret_expired',
    ]);
    const lastId = alive[0] ? firstId : second.id;
    await expect(revokeSecretKey(deps, admin, { id: lastId })).rejects.toMatchObject({
      code: 'last_admin_key',
    });
  });

  it('leaves alone what is disabled, revoked or expired, and what it is not sure of the time for', async () => {
    const deps = await openTestDeps(dialect);
    const named = (name: string) => newKey(deps, policy(2, 'expire'), { name });
    const disabled = await named('disabled');
    const revoked = await named('revoked');
    const ended = await newKey(deps, policy(2), { name: 'ended', ttlSeconds: 3 * 86_400 });
    await setApiKeyEnabled(deps, admin, disabled.id, false);
    await revokeApiKey(deps, admin, revokeApiKeyInput.parse({ id: revoked.id }));
    deps.clock.now += 4 * DAY;
    await pass(deps);
    expect(await told(deps)).toEqual([]);
    const { secrets: s } = deps.store.read.tables;
    const due = await deps.store.read.db.select({ id: s.owner_id, at: s.rotate_by }).from(s);
    // What ended is not looked at again; that it is revived is a change of its own.
    expect(due.filter(({ at }) => at !== null).map(({ id }) => id)).toEqual([disabled.id]);
    expect(await updateKey(deps, ended.id, { expiresAt: null })).toMatchObject({
      rotateBy: deps.clock.now - 2 * DAY,
    });
    // As a version that knows no deadlines leaves one.
    const replaced = await named('replaced');
    const { rotateBy } = replaced;
    await rotateApiKey(
      deps,
      admin,
      rotateApiKeyInput.parse({ id: replaced.id, overlapSeconds: 30 * 86_400 }),
    );
    await deps.store.tx(({ db }) =>
      db
        .update(s)
        .set({ rotate_by: (rotateBy ?? 0) - 2 * DAY })
        .where(and(eq(s.owner_id, replaced.id), isNull(s.rotate_by))),
    );

    const doubtful = { ...deps, isTimeDoubtful: () => true };
    await setApiKeyEnabled(deps, admin, disabled.id, true);
    await pass(doubtful);
    expect(await ask(deps, disabled.secret)).toMatchObject({ valid: true });
    expect((await told(deps)).map(({ type, objectId }) => [type, objectId]).sort()).toEqual(
      [
        ['api_key.rotation_due', disabled.id],
        ['api_key.rotation_due', ended.id],
      ].sort(),
    );
    await pass(deps);
    expect(await ask(deps, disabled.secret)).toMatchObject({ valid: false, reason: 'expired' });
    expect(await ask(deps, replaced.secret)).toMatchObject({ valid: true });
  });

  it('a secret that nothing can be done about, or that somebody else wrote, keeps no other from it', async () => {
    const deps = await openTestDeps(dialect);
    const rotation = policy(1, 'expire');
    const forged = await newSecretKey(deps, rotation);
    const { secretKeys: k } = deps.store.read.tables;
    await deps.store.tx(({ db }) => db.update(k).set({ role: 'admin' }).where(eq(k.id, forged.id)));
    const poisoned = await newKey(deps, rotation, { name: 'poisoned' });
    deps.clock.now += 1;
    const others = [];
    for (let i = 0; i < 60; i++) others.push(await newKey(deps, rotation, { name: `key-${i}` }));
    deps.clock.now += DAY;
    const broken = failingAfter(deps, async ({ db, tables: { events: e } }) => {
      const [found] = await db.select().from(e).where(eq(e.type, 'api_key.secret_expired'));
      return found?.object_id === poisoned.id;
    });
    expect(await pass(broken)).toHaveLength(1);
    const ids = async () => (await told(deps)).map(({ objectId }) => objectId);
    expect((await ids()).sort()).toEqual(others.map(({ id }) => id).sort());
    expect(await pass(deps)).toEqual([]);
    expect(await ids()).toHaveLength(61);
    expect(await ids()).toContain(poisoned.id);
  });

  it('goes on in another process where one was killed half-way', async () => {
    const deps = await openTestDeps(dialect);
    for (let i = 0; i < 45; i++) await newKey(deps, policy(1), { name: `key-${i}` });
    deps.clock.now += DAY;
    const half = await enforceRotationPolicies(deps, null);
    expect(half).toMatchObject({ done: false, count: 30 });
    const rest = await enforceRotationPolicies(deps, JSON.parse(JSON.stringify(half.cursor)));
    expect(rest).toMatchObject({ done: true, cursor: null, count: 15 });
    // Its cursor was not kept: nothing is said twice.
    expect(await enforceRotationPolicies(deps, null)).toMatchObject({ count: 0 });
    expect(await told(deps)).toHaveLength(45);
  });

  it.each<[string, (deps: TestDeps, id: string) => Promise<unknown>]>([
    ['rotated', (deps, id) => rotateApiKey(deps, admin, rotateApiKeyInput.parse({ id, overlapSeconds: 60 }))],
    ['only to be complained of', (deps, id) => updateKey(deps, id, { rotation: policy(1) })],
  ])('a secret that is %s since it was read does not expire', async (_, meanwhile) => {
    const deps = await openTestDeps(dialect);
    const { id, secret } = await newKey(deps, policy(1, 'expire'));
    deps.clock.now += DAY;
    const slow: TestDeps = {
      ...deps,
      store: {
        ...deps.store,
        tx: async (work, lane) => {
          await meanwhile(deps, id);
          return deps.store.tx(work, lane);
        },
      },
    };
    expect(await pass(slow)).toEqual([]);
    expect(await told(deps)).toEqual([]);
    expect(await ask(deps, secret)).toMatchObject({ valid: true });
  });
});

it('enforceRotationPolicies() walks the deadlines, and rotateBy is read by the owners', async () => {
  const deps = await openTestDeps('sqlite');
  const { id } = await newKey(deps, policy(1));
  const [walk = ''] = await statementsOf(deps, () => enforceRotationPolicies(deps, null));
  expect(planOf(deps, walk).join('\n')).toMatch(/^SEARCH secrets USING INDEX secrets_rotate_by/);
  expect(planOf(deps, walk).join('\n')).not.toMatch(/SCAN|TEMP B-TREE/);
  const reads = await statementsOf(deps, () => getApiKey(deps, { id }));
  const own = reads.find((read) => /rotate_by/.test(read)) ?? '';
  expect(planOf(deps, own)).toEqual([expect.stringContaining('INDEX secrets_owner')]);
});
