import { expect, it } from 'vitest';
import type { Store } from '../../../db/store.ts';
import { createM2mToken, createM2mTokenInput, revokeM2mToken } from '../../../server/domain/m2m-tokens.ts';
import { createUsageCounter } from '../../../server/domain/usage.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newMachine } from '../../support/machines.ts';

const HOUR_MS = 3_600_000;

async function usageOf(deps: TestDeps, id: string) {
  const { db, tables } = deps.store.read;
  const rows = (await db.select().from(tables.usage)).filter((row) => row.credential_id === id);
  return rows.sort((a, b) => a.hour - b.hour).map((row) => [row.valid_count, row.refused_count]);
}

async function lastUse(deps: TestDeps, id: string) {
  const { db, tables } = deps.store.read;
  return (await db.select().from(tables.machines)).find((row) => row.id === id)?.last_used_at;
}

describeOnEachDialect('usage', (dialect) => {
  async function setup() {
    const deps = await openTestDeps(dialect);
    return { deps, id: (await newMachine(deps, 'a')).id, now: deps.clock.now };
  }

  it('flush() adds up what several servers counted at once, by hour', async () => {
    const { deps, id, now } = await setup();
    const ids = [
      id,
      ...(await Promise.all(['b', 'c', 'd'].map(async (name) => (await newMachine(deps, name)).id))),
    ];
    const counters = Array.from({ length: 4 }, () => createUsageCounter());
    for (const [i, counter] of counters.entries()) {
      for (const machine of i % 2 ? ids : ids.toReversed()) {
        for (let n = 0; n < 5; n++) counter.count('machine', machine, true, now);
        counter.count('machine', machine, false, now);
        counter.count('machine', machine, true, now + HOUR_MS);
      }
    }
    await Promise.all(counters.map((counter) => counter.flush(deps.store)));
    for (const machine of ids) {
      expect(await usageOf(deps, machine)).toEqual([
        [20, 4],
        [4, 0],
      ]);
    }
  });

  it('flush() moves last use forward and never back, and a refusal is no use', async () => {
    const { deps, id, now } = await setup();
    const flushOne = async (valid: boolean, at: number) => {
      const counter = createUsageCounter();
      counter.count('machine', id, valid, at);
      await counter.flush(deps.store);
    };
    await flushOne(false, now);
    expect(await lastUse(deps, id)).toBeNull();
    await flushOne(true, now + 5);
    await flushOne(true, now + 2);
    await flushOne(false, now + 9);
    expect(await lastUse(deps, id)).toBe(now + 5);
  });

  it('flush() keeps what it could not write for the next, together with what came meanwhile', async () => {
    const { deps, id, now } = await setup();
    const counter = createUsageCounter();
    const broken: Store = { ...deps.store, tx: () => Promise.reject(new Error('The disk is full')) };
    counter.count('machine', id, true, now);
    const failing = counter.flush(broken);
    counter.count('machine', id, true, now + 1);
    await expect(failing).rejects.toThrow('The disk is full');
    await counter.flush(deps.store);
    expect(await usageOf(deps, id)).toEqual([[2, 0]]);
    expect(await lastUse(deps, id)).toBe(now + 1);
    await counter.flush(deps.store);
    expect(await usageOf(deps, id)).toEqual([[2, 0]]);
  });

  it('flush() writes every one of many credentials once, also when a later batch fails', async () => {
    const { deps, now } = await setup();
    const counter = createUsageCounter();
    for (let i = 0; i < 250; i++) counter.count('m2m_token', `mt_${i}`, true, now);
    let writes = 0;
    const failingOnce: Store = {
      ...deps.store,
      tx: (work, lane) => (++writes === 2 ? Promise.reject(new Error('busy')) : deps.store.tx(work, lane)),
    };
    await expect(counter.flush(failingOnce)).rejects.toThrow('busy');
    await counter.flush(failingOnce);
    const { db, tables } = deps.store.read;
    const rows = await db.select().from(tables.usage);
    expect(rows).toHaveLength(250);
    expect(new Set(rows.map((row) => row.valid_count))).toEqual(new Set([1]));
  });

  it('flush() cannot write over a revocation', async () => {
    const deps = await openTestDeps(dialect);
    const { caller } = await newMachine(deps, 'a');
    const { id } = await createM2mToken(deps, caller, createM2mTokenInput.parse({}));
    deps.usage.count('m2m_token', id, true, deps.clock.now);
    await Promise.all([revokeM2mToken(deps, callerWith('admin'), { id }), deps.usage.flush(deps.store)]);
    const { db, tables } = deps.store.read;
    expect(await db.select().from(tables.m2mTokens)).toMatchObject([
      { revoked_at: deps.clock.now, last_used_at: deps.clock.now },
    ]);
  });

  it('flush() adds up for a subject what several servers counted of its keys, without touching any row of that name', async () => {
    const { deps, id, now } = await setup();
    // One is called like a machine, and one like a credential that is counted at the same time.
    const subjects = [id, 'user_1', 'mt_user_1_0'];
    const counters = Array.from({ length: 4 }, () => createUsageCounter());
    for (const [i, counter] of counters.entries()) {
      for (const subject of i % 2 ? subjects : subjects.toReversed()) {
        for (let n = 0; n < 3; n++) counter.count('m2m_token', `mt_${subject}_${n}`, true, now, subject);
        counter.count('m2m_token', `mt_${subject}_0`, false, now, subject);
        counter.count('m2m_token', `mt_${subject}_0`, true, now + HOUR_MS, subject);
      }
      counter.count('m2m_token', 'mt_without', true, now);
    }
    await Promise.all(counters.map((counter) => counter.flush(deps.store)));
    const { db, tables } = deps.store.read;
    const rows = await db.select().from(tables.subjectUsage);
    expect(
      rows.map((row) => [row.subject, row.hour * HOUR_MS - now, row.valid_count, row.refused_count]).sort(),
    ).toEqual(
      subjects
        .flatMap((subject) => [
          [subject, 0, 12, 4],
          [subject, HOUR_MS, 4, 0],
        ])
        .sort(),
    );
    expect(await usageOf(deps, 'mt_user_1_0')).toEqual([
      [4, 4],
      [4, 0],
    ]);
    expect(await usageOf(deps, id)).toEqual([]);
    expect(await lastUse(deps, id)).toBeNull();
  });

  it('count() holds no more credentials than its bound, and goes on counting those it holds', async () => {
    const { deps, now } = await setup();
    const counter = createUsageCounter(2);
    for (const id of ['mt_a', 'mt_b', 'mt_c', 'mt_a', 'mt_c']) counter.count('m2m_token', id, true, now);
    await counter.flush(deps.store);
    expect(await usageOf(deps, 'mt_a')).toEqual([[2, 0]]);
    expect(await usageOf(deps, 'mt_b')).toEqual([[1, 0]]);
    expect(await usageOf(deps, 'mt_c')).toEqual([]);
  });
});
