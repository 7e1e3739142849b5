import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { expect, it } from 'vitest';
import { type Countersign, CountersignError, createCountersign } from '../../client/index.ts';
import { listEvents } from '../../server/domain/events.ts';
import { cancelMachineRotation, getMachine, setMachineEnabled } from '../../server/domain/machines.ts';
import { findCaller } from '../../server/domain/secrets.ts';
import { anywhere, callerWith, describeOnEachDialect, freshFolder, openTestDeps } from '../support/deps.ts';
import { newMachine } from '../support/machines.ts';
import { serveProcedures } from '../support/procedures.ts';

const admin = callerWith('admin');
const HOUR = 3_600_000;

async function open(dialect: 'sqlite' | 'postgres') {
  const deps = await openTestDeps(dialect);
  const machine = await newMachine(deps, 'billing');
  const { url } = await serveProcedures(deps);
  const client = (more: object = {}) =>
    createCountersign({ url, machineSecretKey: machine.secret, retries: 0, ...more });
  const isAccepted = async (secret: string) => (await findCaller(deps, secret, anywhere)) !== null;
  const rotations = async () =>
    (await listEvents(deps, { after: 0, limit: 500 })).data.filter(
      ({ type }) => type === 'machine.secret_rotated',
    ).length;
  return { deps, machine, url, client, isAccepted, rotations };
}

async function refusalOf(call: Promise<unknown>): Promise<CountersignError> {
  const thrown = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(CountersignError);
  return thrown as CountersignError;
}

/** Whether the client still calls with a secret that is accepted. */
const works = (client: Countersign) =>
  client.m2mTokens.list().then(
    () => true,
    () => false,
  );

describeOnEachDialect('machines.rotateOwnSecret({ store })', (dialect) => {
  it('stores the new secret, calls with it, and outlives the overlap; the one before does not', async () => {
    const { deps, machine, client, isAccepted } = await open(dialect);
    const [rotating, left] = [client(), client()];
    const file = join(freshFolder(), 'secret');
    const { rotateBy, ...rotated } = await rotating.machines.rotateOwnSecret({
      store: (secret) => writeFile(file, secret, { mode: 0o600 }),
    });
    const stored = await readFile(file, 'utf8');
    expect(rotated).toMatchObject({ id: machine.id, previousExpiresAt: deps.clock.now + HOUR });
    expect(inspect(rotated)).not.toContain('msk_');
    expect(stored).toMatch(/^msk_/);
    expect([await isAccepted(machine.secret), await isAccepted(stored)]).toEqual([true, true]);
    deps.clock.now += HOUR - 1;
    expect([await works(rotating), await works(left)]).toEqual([true, true]);
    deps.clock.now += 1;
    expect([await works(rotating), await works(left)]).toEqual([true, false]);
    // And so again: what the client calls with is the newest.
    await rotating.machines.rotateOwnSecret({
      store: (secret) => writeFile(file, secret),
      overlapSeconds: 1,
    });
    deps.clock.now += 1_000;
    expect([await works(rotating), await isAccepted(stored)]).toEqual([true, false]);
    expect(await isAccepted(await readFile(file, 'utf8'))).toBe(true);
  });

  it('is awaited before anything calls with the new secret', async () => {
    const { client } = await open(dialect);
    const rotating = client();
    const order: string[] = [];
    const used = async () => {
      await rotating.machines.rotateOwnSecret({ overlapSeconds: 1 });
    };
    await rotating.machines.rotateOwnSecret({
      async store() {
        // With the new one this would be `rotation_in_progress`: only the newest may.
        order.push((await refusalOf(used())).code);
      },
    });
    order.push((await refusalOf(used())).code);
    expect(order).toEqual(['forbidden', 'rotation_in_progress']);
    expect(await works(rotating)).toBe(true);
  });

  it('keeps the secret it has where store throws, says until when, and offers the same new one again', async () => {
    const { deps, machine, client, isAccepted, rotations } = await open(dialect);
    const rotating = client();
    const offered: string[] = [];
    const error = await refusalOf(
      rotating.machines.rotateOwnSecret({
        store(secret) {
          offered.push(secret);
          throw new Error('No space left on the device');
        },
      }),
    );
    expect(error).toMatchObject({ code: 'not_stored', status: 0, retryable: true });
    expect(error.message).toContain(`accepted until ${new Date(deps.clock.now + HOUR).toISOString()}`);
    expect(error.cause).toMatchObject({ message: 'No space left on the device' });
    expect(inspect(error, { depth: 9, showHidden: true })).not.toContain('msk_');
    expect([await works(rotating), await isAccepted(machine.secret)]).toEqual([true, true]);

    // Even after the overlap, when only the new one is accepted.
    deps.clock.now += HOUR;
    expect(await works(rotating)).toBe(false);
    await rotating.machines.rotateOwnSecret({ store: (secret) => offered.push(secret) });
    expect(offered[1]).toBe(offered[0]);
    expect(await works(rotating)).toBe(true);
    expect(await rotations()).toBe(1);
  });

  it('prints no secret that the error of store holds', async () => {
    const { client } = await open(dialect);
    const rotating = client();
    for (const thrown of [
      (secret: string) => new Error(`Cannot write ${secret}`),
      (secret: string) => Object.assign(new Error('no'), { request: { body: { secret } } }),
      (secret: string) => secret,
    ]) {
      const store = (secret: string) => Promise.reject(thrown(secret));
      const error = await refusalOf(rotating.machines.rotateOwnSecret({ store }));
      expect(error.code).toBe('not_stored');
      expect(inspect(error, { depth: 9, showHidden: true, maxStringLength: null })).not.toContain('msk_');
    }
  });

  it('of two instances at once exactly one wins, and both are accepted for the overlap', async () => {
    const { machine, client, isAccepted, rotations } = await open(dialect);
    const instances = [client(), client()];
    const stored: string[] = [];
    const outcomes = await Promise.all(
      instances.map((each) =>
        each.machines.rotateOwnSecret({ store: (secret) => stored.push(secret) }).then(
          () => 'ok',
          (error: CountersignError) => error.code,
        ),
      ),
    );
    expect(outcomes.sort()).toEqual(['forbidden', 'ok']);
    expect(stored).toHaveLength(1);
    expect(await rotations()).toBe(1);
    expect([await isAccepted(machine.secret), await isAccepted(stored[0] ?? '')]).toEqual([true, true]);
    expect(await Promise.all(instances.map(works))).toEqual([true, true]);
  });

  it('goes back to the secret before where the new one is refused, and tells of a trial that could not be made', async () => {
    const { deps, machine, client } = await open(dialect);
    const rotating = client();
    const cancelled = await refusalOf(
      rotating.machines.rotateOwnSecret({ store: () => cancelMachineRotation(deps, admin, machine.id) }),
    );
    expect(cancelled.code).toBe('unauthenticated');
    expect(cancelled.message).toMatch(/is stored and was refused: this client goes on with the one before/);
    expect(await works(rotating)).toBe(true);

    let isDown = false;
    const behind = client({
      fetch: (...request: Parameters<typeof fetch>) =>
        isDown ? Promise.reject(new Error('down')) : fetch(...request),
    });
    const untried = await refusalOf(
      behind.machines.rotateOwnSecret({
        store() {
          isDown = true;
        },
      }),
    );
    expect(untried).toMatchObject({
      code: 'network',
      message: expect.stringMatching(/is stored and is in use, but could not be tried out/),
    });
    isDown = false;
    deps.clock.now += HOUR;
    expect(await works(behind)).toBe(true);
    await setMachineEnabled(deps, admin, machine.id, false);
    expect(await works(behind)).toBe(false);
  });

  it('whose answer was lost may be called again: it is refused until an admin cancels what nobody has', async () => {
    const { deps, machine, client, rotations } = await open(dialect);
    let isLost = true;
    const losing = client({
      retries: 2,
      fetch: async (...request: Parameters<typeof fetch>) => {
        const response = await fetch(...request);
        if (isLost) throw new Error('connection reset');
        return response;
      },
    });
    const stored: string[] = [];
    const store = (secret: string) => stored.push(secret);
    expect((await refusalOf(losing.machines.rotateOwnSecret({ store }))).code).toBe('network');
    // Not sent again by itself: that would be another rotation.
    expect(await rotations()).toBe(1);
    isLost = false;
    expect((await refusalOf(losing.machines.rotateOwnSecret({ store }))).code).toBe('forbidden');
    expect([await rotations(), stored, await works(losing)]).toEqual([1, [], true]);
    await cancelMachineRotation(deps, admin, machine.id);
    await losing.machines.rotateOwnSecret({ store });
    expect(stored).toHaveLength(1);
    expect(await works(losing)).toBe(true);
  });

  it('refuses no store and no overlap before anything is rotated, and without store is the bare procedure', async () => {
    const { deps, machine, client, rotations } = await open(dialect);
    const bare = client();
    const store = undefined as unknown as () => void;
    for (const [input, field] of [
      [{ store }, 'store'],
      [{ store: () => {}, overlapSeconds: 0 }, 'overlapSeconds'],
    ] as const)
      expect(await refusalOf(bare.machines.rotateOwnSecret(input))).toMatchObject({
        code: 'invalid_input',
        field,
      });
    expect(await rotations()).toBe(0);
    const { secret } = await bare.machines.rotateOwnSecret({ overlapSeconds: 60 });
    expect(secret).toMatch(/^msk_/);
    deps.clock.now += 60_000;
    expect(await works(bare)).toBe(false);
    expect(await getMachine(deps, { id: machine.id })).toMatchObject({ rotation: null });
  });
});
