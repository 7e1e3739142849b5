import { createHash } from 'node:crypto';
import { expect, it } from 'vitest';
import { createUsageCounter } from '../../../server/domain/usage.ts';
import {
  usageOfApiKeys,
  usageOfApiKeysInput,
  usageOfSubjects,
  usageOfSubjectsInput,
} from '../../../server/domain/usage-reports.ts';
import { describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

const keyId = (n: number) => `ak_${createHash('md5').update(String(n)).digest('hex')}`;
const [A, B, C] = [keyId(1), keyId(2), keyId(3)] as [string, string, string];

const ofKeys = (deps: TestDeps, input: Record<string, unknown>) =>
  usageOfApiKeys(deps, usageOfApiKeysInput.parse(input));
const ofSubjects = (deps: TestDeps, input: Record<string, unknown>) =>
  usageOfSubjects(deps, usageOfSubjectsInput.parse(input));

/** Verifications of a key of a subject's: [milliseconds before now, how many valid, how many refused]. */
async function used(deps: TestDeps, id: string, subject: string, uses: [number, number, number][]) {
  const counter = createUsageCounter();
  for (const [before, valid, refused] of uses) {
    const at = deps.clock.now - before;
    for (let i = 0; i < valid; i++) counter.count('api_key', id, true, at, subject);
    for (let i = 0; i < refused; i++) counter.count('api_key', id, false, at, subject);
  }
  await counter.flush(deps.store);
}

describeOnEachDialect('usage reports', (dialect) => {
  it('tell for a list of API keys, in its order, each hour and each day with any use, up to now', async () => {
    const deps = await openTestDeps(dialect);
    const midnight = deps.clock.now - 12 * HOUR;
    await used(deps, A, 'user_1', [
      [0, 3, 1],
      [HOUR, 2, 0],
      [13 * HOUR, 0, 5],
      [31 * DAY, 7, 7],
    ]);
    await used(deps, A, 'user_1', [[0, 1, 0]]);
    await used(deps, B, 'user_1', [[2 * DAY, 1, 0]]);
    expect(await ofKeys(deps, { ids: [B, C, A] })).toEqual({
      from: midnight - 30 * DAY,
      to: midnight + DAY,
      data: [
        { id: B, usage: [{ at: midnight - 2 * DAY, valid: 1, refused: 0 }] },
        { id: C, usage: [] },
        {
          id: A,
          usage: [
            { at: midnight - DAY, valid: 0, refused: 5 },
            { at: midnight, valid: 6, refused: 1 },
          ],
        },
      ],
    });
    const hourly = await ofKeys(deps, { ids: [A], granularity: 'hour' });
    expect(hourly).toEqual({
      from: deps.clock.now - 30 * DAY,
      to: deps.clock.now,
      data: [
        {
          id: A,
          usage: [
            { at: deps.clock.now - 13 * HOUR, valid: 0, refused: 5 },
            { at: deps.clock.now - HOUR, valid: 2, refused: 0 },
          ],
        },
      ],
    });
    deps.clock.now += 1;
    const { data } = await ofKeys(deps, { ids: [A], granularity: 'hour' });
    expect(data[0]?.usage.at(-1)).toEqual({ at: deps.clock.now - 1, valid: 4, refused: 1 });
  });

  it('tell for subjects what all of their API keys add up to, and what a credential of that name did not', async () => {
    const deps = await openTestDeps(dialect);
    await used(deps, A, 'user_1', [[0, 3, 1]]);
    await used(deps, B, 'user_1', [[HOUR, 2, 0]]);
    await used(deps, C, A, [[0, 5, 0]]);
    const from = deps.clock.now - 2 * HOUR;
    const to = deps.clock.now + HOUR;
    expect(await ofSubjects(deps, { subjects: [A, 'user_1', 'nobody'], from, to })).toMatchObject({
      data: [
        { id: A, usage: [{ valid: 5, refused: 0 }] },
        { id: 'user_1', usage: [{ valid: 5, refused: 1 }] },
        { id: 'nobody', usage: [] },
      ],
    });
    expect(await ofSubjects(deps, { subjects: ['user_1'], from, to, granularity: 'hour' })).toMatchObject({
      data: [
        {
          usage: [
            { at: deps.clock.now - HOUR, valid: 2, refused: 0 },
            { at: deps.clock.now, valid: 3, refused: 1 },
          ],
        },
      ],
    });
    expect(await ofKeys(deps, { ids: [A], from, to })).toMatchObject({
      data: [{ usage: [{ valid: 3, refused: 1 }] }],
    });
  });

  it('widen a period to whole hours or days, and hold nothing of what lies outside', async () => {
    const deps = await openTestDeps(dialect);
    const hours = [0, 1, 23, 24, 25, 47, 48].map((hour): [number, number, number] => [hour * HOUR, 1, 0]);
    await used(deps, A, 'user_1', hours);
    const midnight = deps.clock.now - 12 * HOUR;
    const report = (from: number, to: number, granularity: string) =>
      ofKeys(deps, { ids: [A], from, to, granularity });
    expect(await report(midnight - DAY + 1, midnight - 1, 'day')).toEqual({
      from: midnight - DAY,
      to: midnight,
      data: [{ id: A, usage: [{ at: midnight - DAY, valid: 3, refused: 0 }] }],
    });
    expect(await report(deps.clock.now - 25 * HOUR + 1, deps.clock.now - 24 * HOUR + 1, 'hour')).toEqual({
      from: deps.clock.now - 25 * HOUR,
      to: deps.clock.now - 23 * HOUR,
      data: [
        {
          id: A,
          usage: [
            { at: deps.clock.now - 25 * HOUR, valid: 1, refused: 0 },
            { at: deps.clock.now - 24 * HOUR, valid: 1, refused: 0 },
          ],
        },
      ],
    });
  });

  it('take 100 ids by default, and refuse more hours than can be told at once, and a period that ends before it begins', async () => {
    const deps = await openTestDeps(dialect);
    const ids = Array.from({ length: 100 }, (_, index) => keyId(index));
    await used(deps, ids[99] ?? '', 'user_1', [[0, 1, 0]]);
    const { data } = await ofKeys(deps, { ids });
    expect(data.map(({ id }) => id)).toEqual(ids);
    expect(data[99]?.usage).toHaveLength(1);
    const { now } = deps.clock;
    for (const given of [
      { ids, from: now - 801 * HOUR, granularity: 'hour' },
      { ids: [A], from: 0 },
    ]) {
      await expect(ofKeys(deps, given)).rejects.toMatchObject({
        code: 'invalid_input',
        field: 'from',
        message: expect.stringMatching(/must be at most 80000 hours, got \d+ times \d+$/),
      });
    }
    await expect(ofKeys(deps, { ids, from: now - 800 * HOUR, granularity: 'hour' })).resolves.toBeDefined();
    for (const given of [{ from: now }, { from: now - DAY, to: now - 2 * DAY }, { to: 0 }])
      await expect(ofKeys(deps, { ids: [A], ...given })).rejects.toMatchObject({ code: 'invalid_input' });
  });

  it('add up more than an integer of 32 bits holds', async () => {
    const deps = await openTestDeps(dialect);
    const hour = Math.floor(deps.clock.now / HOUR);
    await deps.store.tx(async ({ db, tables }) => {
      for (const back of [1, 2]) {
        const counted = { hour: hour - back, valid_count: 3_000_000_000, refused_count: 0 };
        await db.insert(tables.usage).values({ credential_id: A, ...counted });
      }
    });
    expect(await ofKeys(deps, { ids: [A] })).toMatchObject({
      data: [{ usage: [{ valid: 6_000_000_000, refused: 0 }] }],
    });
  });
});

it.each([
  { ids: [] },
  { ids: [A, A] },
  { ids: ['ak_1'] },
  { ids: Array.from({ length: 101 }, (_, index) => keyId(index)) },
  { ids: [A], granularity: 'minute' },
  { ids: [A], from: -1 },
  { ids: [A], from: 1.5 },
])('usageOfApiKeysInput refuses what is no list and no period', (input) => {
  expect(usageOfApiKeysInput.safeParse(input).success).toBe(false);
});
