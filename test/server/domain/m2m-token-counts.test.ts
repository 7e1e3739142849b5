import { expect, it } from 'vitest';
import { openStore, type Store } from '../../../db/store.ts';
import { createM2mTokenCounter, type M2mTokenCounter } from '../../../server/domain/m2m-token-counts.ts';
import { createM2mToken, createM2mTokenInput } from '../../../server/domain/m2m-tokens.ts';
import { deleteMachine, updateMachine } from '../../../server/domain/machines.ts';
import {
  callerWith,
  describeOnEachDialect,
  freshDatabase,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';
import { newMachine, type TestMachine } from '../../support/machines.ts';

const admin = callerWith('admin');
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const HOUR_SECONDS = 3_600;

const mint = (deps: TestDeps, { caller }: TestMachine, input: Record<string, unknown> = {}) =>
  createM2mToken(deps, caller, createM2mTokenInput.parse(input));

/** How many of these calls succeeded, and the code with which the others were refused. */
async function outcomes(calls: Promise<unknown>[]) {
  const settled = await Promise.allSettled(calls);
  const codes = settled.flatMap((call) => (call.status === 'rejected' ? [call.reason.code] : []));
  return { succeeded: calls.length - codes.length, codes: [...new Set(codes)] };
}

/** A database that does something between reading and answering what is prepared on it. */
function answeringAfter<T extends object>(builder: T, work: () => Promise<void>): T {
  return new Proxy(builder, {
    get(target, name) {
      const method = Reflect.get(target, name, target);
      if (typeof method !== 'function') return method;
      if (name !== 'execute')
        return (...given: unknown[]) => answeringAfter(method.apply(target, given), work);
      return async (...given: unknown[]) => {
        const answer = await method.apply(target, given);
        await work();
        return answer;
      };
    },
  });
}

describeOnEachDialect('counts of m2m tokens', (dialect) => {
  /** A machine that may have `liveTokensMax`, at noon. */
  async function setup(liveTokensMax = 1_000_000) {
    const deps = await openTestDeps(dialect);
    const machine = await newMachine(deps, 'a');
    await updateMachine(deps, admin, { id: machine.id, liveTokensMax });
    return { deps, machine, id: machine.id, now: deps.clock.now };
  }

  async function rowsOf({ store }: TestDeps) {
    const { db, tables } = store.read;
    const rows = await db.select().from(tables.m2mTokenCounts);
    return rows.sort((a, b) => a.expires_hour - b.expires_hour).map((row) => [row.expires_hour, row.count]);
  }

  /** What a counter holds a machine to have; asks for a place and lets it go. */
  async function liveOf(counter: M2mTokenCounter, { store }: TestDeps, id: string, now: number) {
    const { tables } = store.read;
    await store.tx(({ db }) => db.update(tables.machines).set({ live_tokens_max: 0 }));
    const admission = await counter.admit(store, id, now);
    return admission?.admitted === false ? admission.live : null;
  }

  it('createM2mToken() refuses the token beyond the maximum with what there is, until another has expired', async () => {
    const { deps, machine } = await setup(3);
    await mint(deps, machine, { ttlSeconds: 600 });
    await mint(deps, machine, { ttlSeconds: 1_200, format: 'jwt' });
    await mint(deps, machine, { ttlSeconds: 1_200 });
    await expect(mint(deps, machine)).rejects.toMatchObject({
      code: 'limit_reached',
      message: 'Cannot create token: the machine may have 3 unexpired tokens at a time, and has 3',
    });
    deps.clock.now += 11 * MINUTE_MS;
    await deps.mintCounts.flush(deps.store, deps.clock.now);
    await mint(deps, machine);
    await expect(mint(deps, machine)).rejects.toMatchObject({ code: 'limit_reached' });
    const { db, tables } = deps.store.read;
    expect(await db.select().from(tables.m2mTokens)).toHaveLength(4);
  });

  it('of many who mint at once only as many as may be get a token', async () => {
    const { deps, machine } = await setup(5);
    expect(await outcomes(Array.from({ length: 40 }, () => mint(deps, machine)))).toEqual({
      succeeded: 5,
      codes: ['limit_reached'],
    });
    const { db, tables } = deps.store.read;
    expect(await db.select().from(tables.m2mTokens)).toHaveLength(5);
  });

  it('a token that was refused, or answered from the pool, counts for nothing', async () => {
    const { deps, machine } = await setup(2);
    for (let i = 0; i < 5; i++) await expect(mint(deps, machine, { scopes: ['x'] })).rejects.toThrow();
    const first = await mint(deps, machine, { minRemainingTtlSeconds: 1 });
    for (let i = 0; i < 5; i++)
      expect((await mint(deps, machine, { minRemainingTtlSeconds: 1 })).id).toBe(first.id);
    await mint(deps, machine);
    await expect(mint(deps, machine)).rejects.toMatchObject({ code: 'limit_reached' });
    expect((await mint(deps, machine, { minRemainingTtlSeconds: 1 })).id).toBe(first.id);
  });

  it('createM2mToken() refuses what is asked for too often and says when to come again', async () => {
    const { deps, machine, id } = await setup();
    await updateMachine(deps, admin, { id, mintsPerMinuteMax: 3 });
    const asked = await outcomes(Array.from({ length: 20 }, () => mint(deps, machine)));
    expect(asked).toEqual({ succeeded: 3, codes: ['rate_limited'] });
    deps.clock.now += 10_000;
    await expect(mint(deps, machine)).rejects.toMatchObject({
      code: 'rate_limited',
      status: 429,
      retryAfterMs: 50_000,
      message: 'Cannot create token: the machine may mint 3 in a minute, the next in 50000 ms',
    });
    const other = await newMachine(deps, 'b');
    await mint(deps, other);
    deps.clock.now += 50_000;
    await mint(deps, machine);
    // Whoever was refused for the rate holds no place.
    await deps.mintCounts.flush(deps.store, deps.clock.now);
    expect(await liveOf(deps.mintCounts, deps, id, deps.clock.now)).toBe(4);
  });

  it('createM2mToken() lets an admin change the maxima, within five seconds', async () => {
    const { deps, machine, id } = await setup(1);
    await mint(deps, machine);
    await expect(mint(deps, machine)).rejects.toMatchObject({ code: 'limit_reached' });
    await updateMachine(deps, admin, { id, liveTokensMax: 2, mintsPerMinuteMax: 1 });
    deps.clock.now += 5_000;
    await expect(mint(deps, machine)).rejects.toMatchObject({ code: 'rate_limited' });
    await updateMachine(deps, admin, { id, mintsPerMinuteMax: 2 });
    deps.clock.now += 5_000;
    await mint(deps, machine);
  });

  it('a machine that is gone has no place, and minting says so', async () => {
    const { deps, machine, id } = await setup();
    await deleteMachine(deps, admin, id);
    expect(await deps.mintCounts.admit(deps.store, id, deps.clock.now)).toBeNull();
    await expect(mint(deps, machine)).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  it('admit() counts what several servers minted, once they have written it', async () => {
    const { deps, id, now } = await setup(10);
    const [one, other] = [createM2mTokenCounter(), createM2mTokenCounter()];
    for (let i = 0; i < 4; i++) {
      one.count(id, now + 2 * HOUR_MS, now);
      other.count(id, now + 3 * HOUR_MS, now);
    }
    await Promise.all([one.flush(deps.store, now), other.flush(deps.store, now)]);
    const hour = now / HOUR_MS;
    expect(await rowsOf(deps)).toEqual([
      [hour + 2, 4],
      [hour + 3, 4],
    ]);
    one.count(id, now + 2 * HOUR_MS, now);
    expect(await liveOf(one, deps, id, now)).toBe(9);
    expect(await liveOf(other, deps, id, now)).toBe(8);
    await one.flush(deps.store, now);
    expect(await liveOf(other, deps, id, now + 4_999)).toBe(8);
    expect(await liveOf(other, deps, id, now + 5_000)).toBe(9);
    expect(await liveOf(one, deps, id, now + 3 * HOUR_MS - 1)).toBe(9);
    expect(await liveOf(one, deps, id, now + 3 * HOUR_MS + 5_000)).toBe(4);
    expect(await liveOf(one, deps, id, now + 4 * HOUR_MS)).toBe(0);
  });

  it('flush() takes back what lived an hour or less once its minute is over, and nothing twice', async () => {
    const { deps, id, now } = await setup();
    const counter = createM2mTokenCounter();
    const liveAt = async (at: number) => {
      await counter.flush(deps.store, at);
      return liveOf(counter, deps, id, at);
    };
    counter.count(id, now + 30_000, now);
    expect(await liveAt(now)).toBe(1);
    counter.count(id, now + HOUR_MS, now);
    counter.count(id, now + HOUR_MS + 10 * MINUTE_MS, now + 10 * MINUTE_MS);
    counter.count(id, now + HOUR_MS + 1, now);
    expect(await liveAt(now + MINUTE_MS - 1)).toBe(4);
    expect(await liveAt(now + MINUTE_MS)).toBe(3);
    expect(await liveAt(now + HOUR_MS)).toBe(3);
    // The one that lived longer than an hour counts until the hour of its expiry is over.
    expect(await liveAt(now + HOUR_MS + MINUTE_MS)).toBe(2);
    expect(await liveAt(now + HOUR_MS + 11 * MINUTE_MS)).toBe(1);
    expect(await liveAt(now + 2 * HOUR_MS - 1)).toBe(1);
    expect(await liveAt(now + 2 * HOUR_MS + 5_000)).toBe(0);
    expect(await liveAt(now + 3 * HOUR_MS)).toBe(0);
  });

  it('flush() keeps what it could not write for the next, together with what came meanwhile', async () => {
    const { deps, id, now } = await setup();
    const counter = createM2mTokenCounter();
    const broken: Store = { ...deps.store, tx: () => Promise.reject(new Error('The disk is full')) };
    counter.count(id, now + 2 * HOUR_MS, now);
    const failing = counter.flush(broken, now);
    counter.count(id, now + 2 * HOUR_MS, now);
    await expect(failing).rejects.toThrow('The disk is full');
    expect(await liveOf(counter, deps, id, now)).toBe(2);
    await counter.flush(deps.store, now);
    await counter.flush(deps.store, now);
    expect(await rowsOf(deps)).toEqual([[now / HOUR_MS + 2, 2]]);
    expect(await liveOf(counter, deps, id, now)).toBe(2);
  });

  it('flush() writes all of many once, also when a later batch fails, and when it is called twice at once', async () => {
    const { deps, now } = await setup();
    const counter = createM2mTokenCounter();
    for (let i = 0; i < 250; i++) counter.count(`mch_${i}`, now + 2 * HOUR_MS, now);
    let writes = 0;
    const failingOnce: Store = {
      ...deps.store,
      tx: (work, lane) => (++writes === 2 ? Promise.reject(new Error('busy')) : deps.store.tx(work, lane)),
    };
    await expect(counter.flush(failingOnce, now)).rejects.toThrow('busy');
    await Promise.all([counter.flush(failingOnce, now), counter.flush(failingOnce, now)]);
    const rows = await rowsOf(deps);
    expect(rows).toHaveLength(250);
    expect(new Set(rows.map(([, count]) => count))).toEqual(new Set([1]));
  });

  it('flush() of several servers at once, each with many machines, does not deadlock', async () => {
    const { deps, now } = await setup();
    const counters = Array.from({ length: 4 }, () => createM2mTokenCounter());
    const ids = Array.from({ length: 80 }, (_, i) => `mch_${i}`);
    for (const [i, counter] of counters.entries())
      for (const id of i % 2 ? ids : ids.toReversed()) counter.count(id, now + 2 * HOUR_MS, now);
    await Promise.all(counters.map((counter) => counter.flush(deps.store, now)));
    const rows = await rowsOf(deps);
    expect(rows).toHaveLength(80);
    expect(new Set(rows.map(([, count]) => count))).toEqual(new Set([4]));
  });

  it('flush() deletes rows of hours that are over, some at each call and all in the end', async () => {
    const { deps, now } = await setup();
    const writer = createM2mTokenCounter();
    const hours = (ahead: number) => now + ahead * HOUR_MS;
    // More that live than are looked at by one call come before one that does not.
    for (let i = 0; i < 550; i++) writer.count(`mch_a${i}`, hours(4), now);
    for (const machineId of ['mch_', 'mch_a1', 'mch_b']) writer.count(machineId, hours(2), now);
    await writer.flush(deps.store, now);
    const counter = createM2mTokenCounter();
    const oldAfter = async () => {
      await counter.flush(deps.store, hours(4));
      return (await rowsOf(deps)).filter(([hour]) => hour !== hours(4) / HOUR_MS).length;
    };
    expect(await oldAfter()).toBe(1);
    expect(await oldAfter()).toBe(0);
    writer.count('mch_', hours(3), now);
    await writer.flush(deps.store, now);
    expect(await oldAfter()).toBe(0);
    expect(await rowsOf(deps)).toHaveLength(550);
  });

  it('flush() writes nothing of what is over by then', async () => {
    const { deps, id, now } = await setup();
    const counter = createM2mTokenCounter();
    counter.count(id, now + 30_000, now);
    counter.count(id, now + 2 * HOUR_MS, now);
    const broken: Store = { ...deps.store, tx: () => Promise.reject(new Error('Nothing is to be written')) };
    await counter.flush(broken, now + 3 * HOUR_MS);
    await counter.flush(deps.store, now);
    expect(await rowsOf(deps)).toEqual([]);
  });

  it('a flush between reading and admitting hides no token', async () => {
    const { deps, id, now } = await setup(3);
    const counter = createM2mTokenCounter();
    for (let i = 0; i < 3; i++) counter.count(id, now + 2 * HOUR_MS, now);
    // Rows as they were before the flush, answered after it.
    const { read } = deps.store;
    const slow = answeringAfter(read.db, () => counter.flush(deps.store, now));
    expect(await counter.admit({ ...deps.store, read: { ...read, db: slow } }, id, now)).toEqual({
      admitted: false,
      live: 3,
      liveMax: 3,
    });
    expect(await counter.admit(deps.store, id, now)).toEqual({ admitted: false, live: 3, liveMax: 3 });
  });

  it('a reading that failed is not kept', async () => {
    const { deps, id, now } = await setup(3);
    const counter = createM2mTokenCounter();
    const closed = await openStore({ location: await freshDatabase(dialect) });
    await closed.close();
    await expect(counter.admit(closed, id, now)).rejects.toThrow();
    expect(await counter.admit(deps.store, id, now)).toMatchObject({ admitted: true });
  });

  it('tokens of more than an hour count by the hour also across many hours', async () => {
    const { deps, machine, id } = await setup(2);
    await mint(deps, machine, { ttlSeconds: 48 * HOUR_SECONDS });
    await mint(deps, machine, { ttlSeconds: 24 * HOUR_SECONDS });
    await expect(mint(deps, machine)).rejects.toMatchObject({ code: 'limit_reached' });
    await deps.mintCounts.flush(deps.store, deps.clock.now);
    deps.clock.now += 25 * HOUR_MS;
    await mint(deps, machine);
    expect(await liveOf(deps.mintCounts, deps, id, deps.clock.now + 5_000)).toBe(2);
  });
});
