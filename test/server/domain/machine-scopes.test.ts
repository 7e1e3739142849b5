import { expect, it } from 'vitest';
import { listEvents } from '../../../server/domain/events.ts';
import {
  createMachineScope,
  createMachineScopeInput,
  deleteMachineScope,
  listMachineScopes,
  listMachineScopesInput,
  updateMachineScope,
  updateMachineScopeInput,
} from '../../../server/domain/machine-scopes.ts';
import {
  createMachine,
  createMachineInput,
  deleteMachine,
  MACHINE_SCOPES_MAX,
} from '../../../server/domain/machines.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';

const admin = callerWith('admin');
const NOBODY = `mch_${'0'.repeat(27)}`;

const machine = async (deps: TestDeps, name: string) =>
  (await createMachine(deps, admin, createMachineInput.parse({ name }))).id;
const create = (deps: TestDeps, fromMachineId: string, toMachineId: string, scopes?: string[]) =>
  createMachineScope(
    deps,
    admin,
    createMachineScopeInput.parse({ fromMachineId, toMachineId, ...(scopes && { scopes }) }),
  );
const update = (deps: TestDeps, fromMachineId: string, toMachineId: string, scopes: string[]) =>
  updateMachineScope(deps, admin, updateMachineScopeInput.parse({ fromMachineId, toMachineId, scopes }));
const list = (deps: TestDeps, input: Record<string, unknown> = {}) =>
  listMachineScopes(deps, listMachineScopesInput.parse(input));
const edges = async (deps: TestDeps, input: Record<string, unknown> = {}) =>
  (await list(deps, input)).data.map((scope) => [scope.fromMachineId, scope.toMachineId]);
const scopeEvents = async (deps: TestDeps) =>
  (await listEvents(deps, { after: 0, limit: 500 })).data.filter((event) =>
    event.type.startsWith('machine_scope'),
  );

/** Rows of machines and machine scopes from one machine, as many as asked for, without an event. */
async function insertEdges(deps: TestDeps, from: string, count: number) {
  const ids = Array.from({ length: count }, (_, i) => `mch_${`${i}`.padStart(27, 'x')}`);
  await deps.store.tx(async (tx) => {
    const { machines, machineScopes } = tx.tables;
    const times = { created_at: 0, updated_at: 0 };
    await tx.db.insert(machines).values(
      ids.map((id) => ({
        id,
        name: id,
        enabled: true,
        default_token_ttl_seconds: 60,
        max_token_ttl_seconds: 60,
        may_verify: false,
        token_generation: 0,
        ...times,
      })),
    );
    await tx.db
      .insert(machineScopes)
      .values(ids.map((id) => ({ from_machine_id: from, to_machine_id: id, scopes: [], ...times })));
  });
}

describeOnEachDialect('machine scopes', (dialect) => {
  it('createMachineScope() allows one way and leaves one event', async () => {
    const deps = await openTestDeps(dialect);
    const [a, b] = [await machine(deps, 'a'), await machine(deps, 'b')];
    const scope = await create(deps, a, b, ['orders:read']);
    expect(scope).toEqual({
      fromMachineId: a,
      toMachineId: b,
      scopes: ['orders:read'],
      createdAt: deps.clock.now,
      updatedAt: deps.clock.now,
    });
    expect((await list(deps)).data).toEqual([scope]);
    expect(await create(deps, b, a)).toMatchObject({ scopes: [] });
    expect((await scopeEvents(deps))[0]).toMatchObject({
      type: 'machine_scope.created',
      objectId: `${a}:${b}`,
      data: { fromMachineId: a, toMachineId: b, scopes: ['orders:read'] },
    });
  });

  it('createMachineScope() refuses a machine scope that is there, one to itself, and one of no machine', async () => {
    const deps = await openTestDeps(dialect);
    const [a, b] = [await machine(deps, 'a'), await machine(deps, 'b')];
    await create(deps, a, b);
    await expect(create(deps, a, b, ['read'])).rejects.toMatchObject({ code: 'already_exists' });
    await expect(create(deps, a, a)).rejects.toMatchObject({ code: 'invalid_input', field: 'toMachineId' });
    for (const [from, to] of [
      [NOBODY, b],
      [a, NOBODY],
    ] as const) {
      await expect(create(deps, from, to)).rejects.toMatchObject({
        code: 'not_found',
        message: expect.stringContaining(NOBODY),
      });
    }
    await deleteMachine(deps, admin, b);
    await expect(create(deps, a, b)).rejects.toMatchObject({
      code: 'not_found',
      message: expect.stringContaining(b),
    });
    expect((await scopeEvents(deps)).map((event) => event.type)).toEqual(['machine_scope.created']);
  });

  it('inputs refuse scopes that look like a machine, twice the same, and more than 100', () => {
    const ends = { fromMachineId: NOBODY, toMachineId: NOBODY };
    const accepts = (scopes: string[]) =>
      [createMachineScopeInput, updateMachineScopeInput].map(
        (schema) => schema.safeParse({ ...ends, scopes }).success,
      );
    expect(accepts(['read', 'mch_'])).toEqual([false, false]);
    expect(accepts(['read', 'read'])).toEqual([false, false]);
    expect(accepts(['two words'])).toEqual([false, false]);
    const many = Array.from({ length: 101 }, (_, i) => `scope:${i}`);
    expect(accepts(many)).toEqual([false, false]);
    expect(accepts(many.slice(1))).toEqual([true, true]);
  });

  it('createMachineScope() holds its limit for one machine however many create at once', async () => {
    const deps = await openTestDeps(dialect);
    const from = await machine(deps, 'from');
    const others = [];
    for (let i = 0; i < 6; i++) others.push(await machine(deps, `other ${i}`));
    await insertEdges(deps, from, MACHINE_SCOPES_MAX - 2);
    const outcomes = await Promise.allSettled(others.map((to) => create(deps, from, to)));
    const refusals = outcomes.filter((outcome) => outcome.status === 'rejected');
    expect(new Set(refusals.map(({ reason }) => reason.code))).toEqual(new Set(['limit_reached']));
    expect(refusals).toHaveLength(4);
    expect((await list(deps, { fromMachineId: from, limit: 500 })).data).toHaveLength(MACHINE_SCOPES_MAX);
    expect(await create(deps, others[0] ?? '', from)).toMatchObject({ toMachineId: from });
  });

  it('listMachineScopes() walks all, those from a machine, those to one, and the one between two', async () => {
    const deps = await openTestDeps(dialect);
    const ids: string[] = [];
    for (const name of ['a', 'b', 'c', 'd']) ids.push(await machine(deps, name));
    const [a = '', b = '', c = ''] = ids.sort();
    for (const from of ids) for (const to of ids) if (from !== to) await create(deps, from, to);
    const all = ids.flatMap((from) => ids.filter((to) => to !== from).map((to) => [from, to]));
    expect(await edges(deps)).toEqual(all);
    const inputs = [{}, { fromMachineId: b }, { toMachineId: c }, { fromMachineId: a, toMachineId: c }];
    for (const input of inputs) {
      const expected = all.filter(
        ([from, to]) => (input.fromMachineId ?? from) === from && (input.toMachineId ?? to) === to,
      );
      const walked: unknown[] = [];
      for (let cursor: string | null | undefined; cursor !== null; ) {
        const page = await list(deps, { ...input, limit: 2, ...(cursor && { cursor }) });
        walked.push(...page.data.map((scope) => [scope.fromMachineId, scope.toMachineId]));
        cursor = page.nextCursor;
      }
      expect(walked).toEqual(expected);
      expect(await edges(deps, { ...input, offset: 1, limit: 1 })).toEqual(expected.slice(1, 2));
    }
  });

  it('updateMachineScope() replaces the scopes, and leaves no event for the same in another order', async () => {
    const deps = await openTestDeps(dialect);
    const [a, b] = [await machine(deps, 'a'), await machine(deps, 'b')];
    await create(deps, a, b, ['read', 'write']);
    deps.clock.now += 1000;
    expect(await update(deps, a, b, ['write', 'read'])).toMatchObject({ scopes: ['read', 'write'] });
    expect(await update(deps, a, b, ['read'])).toMatchObject({
      scopes: ['read'],
      updatedAt: deps.clock.now,
    });
    expect((await list(deps)).data).toMatchObject([{ scopes: ['read'] }]);
    await expect(update(deps, b, a, ['read'])).rejects.toMatchObject({ code: 'not_found' });
    expect((await scopeEvents(deps)).map(({ type, data }) => [type, data['scopes']])).toEqual([
      ['machine_scope.created', ['read', 'write']],
      ['machine_scope.updated', ['read']],
    ]);
  });

  it('deleteMachineScope() takes it away once', async () => {
    const deps = await openTestDeps(dialect);
    const [a, b] = [await machine(deps, 'a'), await machine(deps, 'b')];
    await create(deps, a, b);
    const ends = { fromMachineId: a, toMachineId: b };
    expect(await deleteMachineScope(deps, admin, ends)).toEqual({ ...ends, deleted: true });
    await expect(deleteMachineScope(deps, admin, ends)).rejects.toMatchObject({ code: 'not_found' });
    expect(await edges(deps)).toEqual([]);
    expect((await scopeEvents(deps)).map((event) => event.type)).toEqual([
      'machine_scope.created',
      'machine_scope.deleted',
    ]);
  });

  it('creating in both directions while machines are deleted ends in order: no failure, no edge of a deleted machine', async () => {
    const deps = await openTestDeps(dialect);
    for (let round = 0; round < 5; round++) {
      const [a, b] = [await machine(deps, `a${round}`), await machine(deps, `b${round}`)];
      const outcomes = await Promise.allSettled([
        create(deps, a, b),
        create(deps, b, a),
        deleteMachine(deps, admin, a),
        deleteMachine(deps, admin, b),
        create(deps, a, b),
      ]);
      const codes = outcomes.map((outcome) =>
        outcome.status === 'rejected' ? outcome.reason.code : 'fulfilled',
      );
      for (const code of codes) expect(['fulfilled', 'not_found', 'already_exists']).toContain(code);
      expect(codes.slice(2, 4)).toEqual(['fulfilled', 'fulfilled']);
    }
    expect(await edges(deps)).toEqual([]);
  });
});
