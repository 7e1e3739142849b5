import { expect, it } from 'vitest';
import { listEvents, listEventsInput } from '../../../server/domain/events.ts';
import { reachableFrom } from '../../../server/domain/machine-scopes.ts';
import {
  countMachines,
  createMachine,
  createMachineInput,
  deleteMachine,
  getMachine,
  getOwnMachine,
  listMachines,
  listMachinesInput,
  setMachineEnabled,
  updateMachine,
} from '../../../server/domain/machines.ts';
import { findCaller } from '../../../server/domain/secrets.ts';
import {
  anywhere,
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';

const admin = callerWith('admin');

const create = (deps: TestDeps, name: string) =>
  createMachine(deps, admin, createMachineInput.parse({ name }));
const list = (deps: TestDeps, input: Record<string, unknown> = {}) =>
  listMachines(deps, listMachinesInput.parse(input));

describeOnEachDialect('machines', (dialect) => {
  it('createMachine() answers a secret by which the machine is recognised', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await create(deps, 'billing');
    expect(await findCaller(deps, secret, anywhere)).toMatchObject({ kind: 'machine', id, mayVerify: false });
    expect(await getMachine(deps, { id })).toMatchObject({
      name: 'billing',
      enabled: true,
      defaultTokenTtlSeconds: 3600,
    });
  });

  it('getOwnMachine() shows a machine itself, and nobody else anything', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await create(deps, 'billing');
    await create(deps, 'ledger');
    const principal = await findCaller(deps, secret, anywhere);
    if (!principal) throw new Error('The machine is not recognised by its secret');
    const own = await getOwnMachine(deps, { principal, requestId: 'req_test' });
    expect(own).toEqual(await getMachine(deps, { id }));
    expect(own).not.toHaveProperty('secret');
    await expect(getOwnMachine(deps, admin)).rejects.toMatchObject({ code: 'forbidden' });
  });

  it('createMachine() refuses a name that is taken, and changes nothing', async () => {
    const deps = await openTestDeps(dialect);
    await create(deps, 'billing');
    await expect(create(deps, 'billing')).rejects.toMatchObject({ code: 'name_taken', field: 'name' });
    expect((await list(deps)).data).toHaveLength(1);
    expect((await listEvents(deps, { after: 1, limit: 10 })).data.map((event) => event.type)).toEqual([
      'machine.created',
    ]);
  });

  it('createMachine() has it call others from the beginning, as one event; one that is missing, and nothing is made', async () => {
    const deps = await openTestDeps(dialect);
    const [one, other] = [await create(deps, 'ledger'), await create(deps, 'archive')];
    const { nextAfter: after } = await listEvents(deps, listEventsInput.parse({}));
    const mayCall = [other.id, one.id];
    const { id } = await createMachine(deps, admin, createMachineInput.parse({ name: 'billing', mayCall }));
    const { data } = await listEvents(deps, listEventsInput.parse({ after }));
    expect(data).toMatchObject([
      { type: 'machine.created', objectId: id, data: { name: 'billing', toMachineIds: mayCall.toSorted() } },
    ]);
    const reachable = await reachableFrom(deps, [id, one.id]);
    expect(
      reachable
        .get(id)
        ?.map(({ name }) => name)
        .toSorted(),
    ).toEqual(['archive', 'ledger']);
    expect(reachable.has(one.id)).toBe(false);
    const missing = createMachineInput.parse({ name: 'x', mayCall: [one.id, `mch_${'0'.repeat(27)}`] });
    await expect(createMachine(deps, admin, missing)).rejects.toMatchObject({ code: 'not_found' });
    expect(await countMachines(deps, {})).toBe(3);
    expect(await countMachines(deps, { query: 'BILL' })).toBe(1);
  });

  it('updateMachine() raises the longest lifetime with the default one only where it is told to', async () => {
    const deps = await openTestDeps(dialect);
    const { id, maxTokenTtlSeconds } = await create(deps, 'billing');
    const changes = { id, defaultTokenTtlSeconds: maxTokenTtlSeconds + 1 };
    await expect(updateMachine(deps, admin, changes)).rejects.toMatchObject({ code: 'invalid_input' });
    expect(await updateMachine(deps, admin, changes, { raisesMaximum: true })).toMatchObject({
      maxTokenTtlSeconds: maxTokenTtlSeconds + 1,
    });
    const lower = { id, defaultTokenTtlSeconds: 60 };
    expect(await updateMachine(deps, admin, lower, { raisesMaximum: true })).toMatchObject({
      maxTokenTtlSeconds: maxTokenTtlSeconds + 1,
    });
  });

  it('createMachine() lets exactly one of many that want the same name have it', async () => {
    const deps = await openTestDeps(dialect);
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => create(deps, 'billing')));
    expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1);
  });

  it('listMachines() walks every machine once, in both orders, by cursor', async () => {
    const deps = await openTestDeps(dialect);
    for (const name of ['delta', 'Alpha', 'charlie', 'bravo', 'Ärger']) {
      deps.clock.now += name.length % 2;
      await create(deps, name);
    }
    for (const orderBy of ['name', 'created_at'] as const) {
      for (const direction of ['ascending', 'descending'] as const) {
        const whole = (await list(deps, { orderBy, direction })).data.map((machine) => machine.name);
        const walked: string[] = [];
        for (let cursor: string | null | undefined; cursor !== null; ) {
          const page = await list(deps, { orderBy, direction, limit: 2, ...(cursor && { cursor }) });
          walked.push(...page.data.map((machine) => machine.name));
          cursor = page.nextCursor;
        }
        expect(walked).toEqual(whole);
        if (orderBy === 'name' && direction === 'ascending') {
          expect(whole).toEqual(['Alpha', 'bravo', 'charlie', 'delta', 'Ärger']);
        }
      }
    }
  });

  it('listMachines() finds by an exact id and by part of a name, with wild cards taken literally', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await create(deps, 'Billing EU');
    await create(deps, 'search');
    const names = async (query: string) => (await list(deps, { query })).data.map((machine) => machine.name);
    expect(await names(id)).toEqual(['Billing EU']);
    expect(await names('ing e')).toEqual(['Billing EU']);
    expect(await names('%')).toEqual([]);
    await create(deps, 'Ärger');
    expect(await names('ÄRG')).toEqual(['Ärger']);
  });

  it('listMachines() refuses a cursor that is none of this list', async () => {
    const deps = await openTestDeps(dialect);
    await expect(list(deps, { cursor: 'x' })).rejects.toMatchObject({
      code: 'invalid_input',
      field: 'cursor',
    });
  });

  it('updateMachine() changes what it is told to and refuses a default lifetime above the maximum', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await create(deps, 'billing');
    await create(deps, 'search');
    expect(await updateMachine(deps, admin, { id, name: 'invoices' })).toMatchObject({
      name: 'invoices',
      description: null,
    });
    await expect(updateMachine(deps, admin, { id, name: 'search' })).rejects.toMatchObject({
      code: 'name_taken',
    });
    await expect(updateMachine(deps, admin, { id, maxTokenTtlSeconds: 60 })).rejects.toMatchObject({
      code: 'invalid_input',
    });
    expect(await getMachine(deps, { id })).toMatchObject({
      name: 'invoices',
      maxTokenTtlSeconds: 30 * 86_400,
    });
  });

  it('updateMachine() lets exactly one of many machines take a name', async () => {
    const deps = await openTestDeps(dialect);
    const ids = [];
    for (let i = 0; i < 8; i++) ids.push((await create(deps, `machine ${i}`)).id);
    const outcomes = await Promise.allSettled(
      ids.map((id) => updateMachine(deps, admin, { id, name: 'billing' })),
    );
    const refusals = outcomes.filter((outcome) => outcome.status === 'rejected');
    expect(refusals).toHaveLength(7);
    expect(new Set(refusals.map(({ reason }) => reason.code))).toEqual(new Set(['name_taken']));
  });

  it('setMachineEnabled() refuses the secret of a disabled machine until it is enabled', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await create(deps, 'billing');
    await setMachineEnabled(deps, admin, id, false);
    expect(await findCaller(deps, secret, anywhere)).toBeNull();
    await setMachineEnabled(deps, admin, id, true);
    expect(await findCaller(deps, secret, anywhere)).toMatchObject({ id });
  });

  it('deleteMachine() takes its secret with it and is not found twice', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret = '' } = await create(deps, 'billing');
    expect(await deleteMachine(deps, admin, id)).toEqual({ id, deleted: true });
    expect(await findCaller(deps, secret, anywhere)).toBeNull();
    await expect(deleteMachine(deps, admin, id)).rejects.toMatchObject({ code: 'not_found' });
  });
});
