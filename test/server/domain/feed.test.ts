import { describe, expect, it } from 'vitest';
import type { Principal } from '../../../server/deps.ts';
import { makeCheckpoint } from '../../../server/domain/checkpoints.ts';
import { pruneEvents } from '../../../server/domain/event-log.ts';
import { EVENT_TYPES, type EventType, REVOCATIONS } from '../../../server/domain/event-types.ts';
import { type Event, readEvents } from '../../../server/domain/events.ts';
import {
  type Concern,
  canResume,
  concerns,
  formatCursor,
  framesOf,
  INVALIDATIONS,
  parseCursor,
  readSnapshot,
} from '../../../server/domain/feed.ts';
import {
  createM2mToken,
  createM2mTokenInput,
  revokeM2mToken,
  revokeM2mTokenInput,
} from '../../../server/domain/m2m-tokens.ts';
import { deleteMachineScope } from '../../../server/domain/machine-scopes.ts';
import { deleteMachine, setMachineEnabled, updateMachine } from '../../../server/domain/machines.ts';
import {
  emergencyRetireSigningKey,
  emergencyRetireSigningKeyInput,
} from '../../../server/domain/signing-keys.ts';
import { setSubjectEnabled } from '../../../server/domain/subjects.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { allow, newMachine } from '../../support/machines.ts';
import { planOf, statementsOf } from '../../support/plans.ts';

const admin = callerWith('admin');

const eventOf = (type: EventType, data: Record<string, unknown> = {}): Event => ({
  seq: 7,
  id: 'evt_1',
  at: 1,
  type,
  actor: { kind: 'secret_key', id: 'sk_actor' },
  objectId: 'object_1',
  subject: 'user_1',
  requestId: 'req_1',
  data: { name: 'confidential', ...data },
});

/** As if nobody was owed anything of it. */
async function pruneAll(deps: TestDeps): Promise<void> {
  await deps.store.tx(({ db, tables }) => db.update(tables.webhookCursor).set({ event_seq: 1_000 }));
  await makeCheckpoint(deps);
  expect(await pruneEvents(deps, 1_000)).toBeGreaterThan(0);
}

describe('what events tell', () => {
  const rows = {} as Parameters<typeof framesOf>[0];
  const framesFor = async (type: EventType, data?: Record<string, unknown>) =>
    (await framesOf(rows, [eventOf(type, data)], false))[0]?.frames ?? [];

  it('has a row for every revocation, and for what makes valid again what was not', () => {
    const types = Object.keys(INVALIDATIONS);
    expect([...REVOCATIONS].filter((type) => !types.includes(type))).toEqual([]);
    const widening: EventType[] = [
      'machine.enabled',
      'machine_scope.created',
      'api_key.enabled',
      'subject.enabled',
    ];
    expect(types).toEqual(expect.arrayContaining(widening));
  });

  it('is a frame of closed fields for every type, without what the event says of actors and names', async () => {
    for (const type of Object.keys(EVENT_TYPES) as EventType[]) {
      for (const { event, data } of await framesFor(type)) {
        const fields =
          event === 'signing_key'
            ? ['kid', 'state']
            : ['seq', 'at', 'kind', 'id', 'selector', 'until', 'reason'];
        expect(fields).toEqual(expect.arrayContaining(Object.keys(data)));
        for (const word of ['confidential', 'sk_actor', 'req_1'])
          expect(JSON.stringify(data)).not.toContain(word);
      }
    }
  });

  it('of a rotation names the tokens of a machine only if its secret was compromised', async () => {
    const quiet = await framesFor('machine.secret_rotated', { compromised: false });
    expect(quiet[0]?.data).toEqual({ seq: 7, at: 1, kind: 'machine', id: 'object_1', reason: 'rotated' });
    const loud = await framesFor('machine.secret_rotated', { compromised: true });
    expect(loud[0]?.data).toMatchObject({ selector: { machineId: 'object_1' } });
  });

  it('of an emergency names the tokens, the key and its successor', async () => {
    const frames = await framesFor('signing_key.emergency_retired', { successorKid: 'key_2' });
    expect(frames.map(({ data }) => data)).toEqual([
      { kid: 'key_2', state: 'active' },
      { kid: 'object_1', state: 'retired' },
      { seq: 7, at: 1, kind: 'm2m_token', selector: { signingKeyId: 'object_1' }, reason: 'revoked' },
    ]);
  });
});

describeOnEachDialect('framesOf()', (dialect) => {
  it('of a machine that is gone concerns those it could call last, whatever was pruned of the log', async () => {
    const deps = await openTestDeps(dialect);
    const [a, b, c, d] = await Promise.all(['a', 'b', 'c', 'd'].map((name) => newMachine(deps, name)));
    // No event tells of these.
    await allow(deps, a?.id ?? '', b?.id ?? '');
    await allow(deps, a?.id ?? '', c?.id ?? '');
    await allow(deps, d?.id ?? '', a?.id ?? '');
    await deleteMachine(deps, admin, a?.id ?? '');
    const events = (await readEvents(deps.store.read, 0, 100)).slice(-1);
    const [told] = await framesOf(deps.store.read, events, true);
    expect(told?.frames).toMatchObject([
      { to: [a?.id, ...[b?.id, c?.id].sort()], data: { kind: 'machine', id: a?.id, reason: 'deleted' } },
    ]);
  });
});

it('concerns() tells secret keys everything, and machines what is theirs', () => {
  const machine = (mayVerify: boolean): Principal => ({
    kind: 'machine',
    id: 'mch_1',
    secretId: 'sec_1',
    mayVerify,
  });
  const told = (principal: Principal, concernsOf: Concern[]) =>
    concernsOf.map((to) => concerns(principal, to));
  const all: Concern[] = ['everyone', 'key_verifiers', 'nobody_else', ['mch_2', 'mch_1'], ['mch_2'], []];
  expect(told({ kind: 'secret_key', id: 'sk_1', role: 'verify' }, all)).toEqual(all.map(() => true));
  expect(told(machine(false), all)).toEqual([true, false, false, true, false, false]);
  expect(told(machine(true), all)).toEqual([true, true, false, true, false, false]);
});

it('a cursor is read as it was written, and resumes only where nothing is missing', () => {
  const position = { epoch: 'ab12', seq: 9, prunedSeq: 4 };
  expect(parseCursor(formatCursor({ epoch: 'ab12', seq: 5 }))).toEqual({ epoch: 'ab12', seq: 5 });
  for (const text of ['', 'ab12', 'ab12-', 'ab12-1-2', '-5', 'ab12-1e3', 'AB12-5'])
    expect(parseCursor(text)).toBeNull();
  const resumable = (epoch: string, seq: number) => canResume({ epoch, seq }, position);
  expect([3, 4, 9, 10].map((seq) => resumable('ab12', seq))).toEqual([false, true, true, false]);
  expect(resumable('ab13', 5)).toBe(false);
});

describeOnEachDialect('readSnapshot()', (dialect) => {
  it('holds what is in force and nothing else, with a selector for what was revoked all at once', async () => {
    const deps = await openTestDeps(dialect);
    const a = await newMachine(deps, 'a');
    const b = await newMachine(deps, 'b');
    const gone = await newMachine(deps, 'gone');
    await allow(deps, a.id, b.id);
    await allow(deps, gone.id, b.id);
    const mint = (machine: typeof a, input = {}) =>
      createM2mToken(deps, machine.caller, createM2mTokenInput.parse(input));
    const [revoked, brief] = [await mint(a), await mint(a, { ttlSeconds: 60 })];
    await mint(a);
    const left = await mint(gone);
    for (const { id } of [revoked, brief])
      await revokeM2mToken(deps, admin, revokeM2mTokenInput.parse({ id }));
    await deleteMachine(deps, admin, gone.id);
    await setMachineEnabled(deps, admin, b.id, false);
    for (const id of ['user_1', 'user_2']) await setSubjectEnabled(deps, admin, { id }, false);
    await setSubjectEnabled(deps, admin, { id: 'user_2' }, true);
    await deleteMachineScope(deps, admin, { fromMachineId: a.id, toMachineId: b.id });
    const [key] = (await readSnapshot(deps)).signingKeys;
    await emergencyRetireSigningKey(deps, admin, emergencyRetireSigningKeyInput.parse({ kid: key?.kid }));
    deps.clock.now += 61_000;
    const { items, signingKeys } = await readSnapshot(deps);
    expect(items.map(({ data: { at: _, ...data }, to }) => ({ ...data, to }))).toEqual([
      { to: 'everyone', kind: 'm2m_token', selector: { signingKeyId: key?.kid }, reason: 'revoked' },
      { to: [b.id], kind: 'machine', id: b.id, selector: { machineId: b.id }, reason: 'disabled' },
      {
        to: 'nobody_else',
        kind: 'machine',
        id: gone.id,
        selector: { machineId: gone.id },
        reason: 'deleted',
      },
      {
        to: [b.id],
        kind: 'machine_scope',
        selector: { fromMachineId: a.id, toMachineId: b.id },
        reason: 'deleted',
      },
      { to: [b.id], kind: 'm2m_token', id: revoked.id, reason: 'revoked', until: revoked.expiresAt },
      {
        to: [b.id],
        kind: 'machine',
        id: gone.id,
        selector: { machineId: gone.id },
        reason: 'deleted',
        until: left.expiresAt,
      },
      {
        to: 'key_verifiers',
        kind: 'subject',
        id: 'user_1',
        selector: { subject: 'user_1' },
        reason: 'disabled',
      },
    ]);
    expect(signingKeys).toMatchObject([{ state: 'active' }]);
  });

  it('knows of machine scopes that were deleted, or are there again, as long as a token for them may live', async () => {
    const deps = await openTestDeps(dialect);
    const [a, b, c, d] = await Promise.all(['a', 'b', 'c', 'd'].map((name) => newMachine(deps, name)));
    if (!a || !b || !c || !d) throw new Error('There are four');
    const ttlSeconds = 900 * 24 * 3_600;
    await updateMachine(deps, admin, { id: a.id, maxTokenTtlSeconds: ttlSeconds });
    for (const { id } of [b, c, d]) await allow(deps, a.id, id);
    const { expiresAt } = await createM2mToken(deps, a.caller, createM2mTokenInput.parse({ ttlSeconds }));
    for (const { id } of [b, c])
      await deleteMachineScope(deps, admin, { fromMachineId: a.id, toMachineId: id });
    deps.clock.now += 1_000;
    const againAt = deps.clock.now;
    await allow(deps, a.id, c.id);
    deps.clock.now += 401 * 24 * 3_600_000;
    await pruneAll(deps);
    const deleted = (to: string, at: number) => ({
      to: [to],
      data: {
        at,
        kind: 'machine_scope',
        reason: 'deleted',
        selector: { fromMachineId: a.id, toMachineId: to },
      },
    });
    const { items } = await readSnapshot(deps);
    expect(items.sort((one, other) => one.data.at - other.data.at)).toEqual([
      deleted(b.id, againAt - 1_000),
      deleted(c.id, againAt),
    ]);
    deps.clock.now = expiresAt + 1;
    expect((await readSnapshot(deps)).items).toEqual([]);
  });

  it('misses none of more revoked tokens than one window holds, at the same instant or not', async () => {
    const deps = await openTestDeps(dialect);
    const a = await newMachine(deps, 'a');
    const now = deps.clock.now;
    const tokens = Array.from({ length: 2_500 }, (_, i) => ({
      id: `mt_${`${i}`.padStart(32, '0')}`,
      machine_id: a.id,
      format: 'jwt' as const,
      secret_id: 'sec_1',
      generation: 0,
      audience: [],
      scopes: [],
      created_at: now,
      expires_at: i < 1_500 ? now + 1 : now + i,
      revoked_at: i % 2 === 0 ? now : null,
    }));
    await deps.store.tx(async ({ db, tables }) => {
      for (let i = 0; i < tokens.length; i += 500)
        await db.insert(tables.m2mTokens).values(tokens.slice(i, i + 500));
    });
    const { items } = await readSnapshot(deps);
    expect(items.map(({ data }) => data.id).sort()).toEqual(
      tokens.flatMap(({ id, revoked_at }) => (revoked_at === null ? [] : [id])),
    );
  });
});

it('readSnapshot() follows an index in everything it reads', async () => {
  const deps = await openTestDeps('sqlite');
  await setSubjectEnabled(deps, admin, { id: 'user_1' }, false);
  const statements = await statementsOf(deps, () => readSnapshot(deps));
  const steps = statements.flatMap((statement) => planOf(deps, statement));
  const small = /installation|event_anchor|event_head|signing_keys/;
  expect(steps.filter((step) => /^SCAN(?!.* USING)/.test(step) && !small.test(step))).toEqual([]);
});
