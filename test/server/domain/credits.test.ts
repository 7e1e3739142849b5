import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { expect, it, onTestFinished } from 'vitest';
import { openStore } from '../../../db/store.ts';
import { type CreditsOwner, remainingCredits, spendCredits } from '../../../server/domain/credits.ts';
import { describeOnEachDialect, freshDatabase, openTestDeps, type TestDeps } from '../../support/deps.ts';

interface Credits {
  remaining: number;
  refill_amount: number | null;
  refill_interval_seconds: number | null;
  refilled_at: number;
}

const key = (): CreditsOwner => ({ kind: 'api_key', id: `ak_${randomBytes(16).toString('hex')}` });
const subject = (): CreditsOwner => ({ kind: 'subject', id: `user_${randomBytes(16).toString('hex')}` });

async function give(deps: TestDeps, owner: CreditsOwner, credits: Partial<Credits>) {
  await deps.store.tx(({ db, tables }) =>
    db.insert(tables.credits).values({
      owner_kind: owner.kind,
      owner_id: owner.id,
      remaining: 0,
      refill_amount: null,
      refill_interval_seconds: null,
      refilled_at: deps.clock.now,
      ...credits,
    }),
  );
}

async function rowOf({ store }: Pick<TestDeps, 'store'>, { kind, id }: CreditsOwner) {
  const { db, tables } = store.read;
  const rows = await db.select().from(tables.credits);
  return rows.find((row) => row.owner_kind === kind && row.owner_id === id);
}

const DAY_SECONDS = 86_400;
const DAY_MS = DAY_SECONDS * 1000;

describeOnEachDialect('credits', (dialect) => {
  it('spendCredits() takes what a verification costs while there is enough, and nothing when there is not', async () => {
    const deps = await openTestDeps(dialect);
    const owner = key();
    await give(deps, owner, { remaining: 5 });
    expect(await spendCredits(deps, [owner], 3)).toEqual({ spent: true, remaining: [2] });
    expect(await spendCredits(deps, [owner], 3)).toEqual({ spent: false, remaining: 2 });
    expect(await spendCredits(deps, [owner], 2)).toEqual({ spent: true, remaining: [0] });
    expect(await spendCredits(deps, [owner], 1)).toEqual({ spent: false, remaining: 0 });
    expect(await rowOf(deps, owner)).toMatchObject({ remaining: 0, refilled_at: deps.clock.now });
  });

  it('spendCredits() with a cost of 0 answers what remains and writes nothing', async () => {
    const deps = await openTestDeps(dialect);
    const owner = key();
    await give(deps, owner, { remaining: 0, refill_amount: 7, refill_interval_seconds: 60 });
    deps.clock.now += 60_000;
    const before = await rowOf(deps, owner);
    expect(await spendCredits(deps, [owner, subject()], 0)).toEqual({ spent: true, remaining: [7, null] });
    expect(await rowOf(deps, owner)).toEqual(before);
  });

  it('spendCredits() takes nothing from an owner without credits, and from one of a like id of another kind', async () => {
    const deps = await openTestDeps(dialect);
    const owner = key();
    await give(deps, { kind: 'subject', id: owner.id }, { remaining: 1 });
    expect(await spendCredits(deps, [owner], 1_000)).toEqual({ spent: true, remaining: [null] });
    expect(await spendCredits(deps, [], 1)).toEqual({ spent: true, remaining: [] });
    expect(await remainingCredits(deps.store.read, owner, deps.clock.now)).toBeNull();
    expect(await rowOf(deps, { kind: 'subject', id: owner.id })).toMatchObject({ remaining: 1 });
  });

  it('spendCredits() takes from a key and its subject, or from neither', async () => {
    const deps = await openTestDeps(dialect);
    const [ofKey, ofSubject] = [key(), subject()];
    await give(deps, ofKey, { remaining: 10 });
    await give(deps, ofSubject, { remaining: 4 });
    expect(await spendCredits(deps, [ofSubject, ofKey], 3)).toEqual({ spent: true, remaining: [1, 7] });
    expect(await spendCredits(deps, [ofKey, ofSubject], 3)).toEqual({ spent: false, remaining: 1 });
    expect(await rowOf(deps, ofKey)).toMatchObject({ remaining: 7 });
    expect(await spendCredits(deps, [ofKey, ofSubject, key()], 1)).toEqual({
      spent: true,
      remaining: [6, 0, null],
    });
  });

  it('credits are brought up at each interval, to the refill and from where they are above it not at all', async () => {
    const deps = await openTestDeps(dialect);
    const start = deps.clock.now;
    const owner = key();
    await give(deps, owner, { remaining: 25, refill_amount: 10, refill_interval_seconds: DAY_SECONDS });
    deps.clock.now = start + DAY_MS;
    expect(await spendCredits(deps, [owner], 20)).toEqual({ spent: true, remaining: [5] });
    deps.clock.now = start + 2 * DAY_MS - 1;
    expect(await spendCredits(deps, [owner], 6)).toEqual({ spent: false, remaining: 5 });
    deps.clock.now = start + 2 * DAY_MS;
    expect(await remainingCredits(deps.store.read, owner, deps.clock.now)).toBe(10);
    expect(await spendCredits(deps, [owner], 11)).toEqual({ spent: false, remaining: 10 });
    expect(await spendCredits(deps, [owner], 6)).toEqual({ spent: true, remaining: [4] });
    // Years later it is as much as after one interval, and intervals begin where they always did.
    deps.clock.now = start + 1_000 * DAY_MS + 12_345;
    expect(await spendCredits(deps, [owner], 1)).toEqual({ spent: true, remaining: [9] });
    expect(await rowOf(deps, owner)).toMatchObject({ remaining: 9, refilled_at: start + 1_000 * DAY_MS });
  });

  it('a clock that is behind the last refill brings nothing up and takes nothing away', async () => {
    const deps = await openTestDeps(dialect);
    const owner = key();
    const refilledAt = deps.clock.now + 10 * DAY_MS;
    await give(deps, owner, {
      remaining: 3,
      refill_amount: 9,
      refill_interval_seconds: 60,
      refilled_at: refilledAt,
    });
    expect(await spendCredits(deps, [owner], 1)).toEqual({ spent: true, remaining: [2] });
    expect(await rowOf(deps, owner)).toMatchObject({ refilled_at: refilledAt });
  });

  it('spendCredits() agrees with counting interval by interval, whatever is spent and when', async () => {
    const deps = await openTestDeps(dialect);
    const credits = fc.record({
      remaining: fc.nat(30),
      refill: fc.option(
        fc.record({ amount: fc.nat(20), seconds: fc.constantFrom(1, 7, 3_600, 30 * DAY_SECONDS) }),
      ),
    });
    const step = fc.record({
      pause: fc.oneof(fc.constant(0), fc.nat(4_000)),
      costs: fc.nat(12),
      of: fc.constantFrom('first', 'second', 'both'),
    });
    await fc.assert(
      fc.asyncProperty(credits, credits, fc.array(step, { maxLength: 12 }), async (first, second, steps) => {
        const models = [first, second].map((given) => ({ ...given, owner: key(), from: deps.clock.now }));
        for (const { owner, remaining, refill } of models) {
          const settings = refill && {
            refill_amount: refill.amount,
            refill_interval_seconds: refill.seconds,
          };
          await give(deps, owner, { remaining, ...settings });
        }
        const unit = Math.max(...models.map(({ refill }) => refill?.seconds ?? 1));
        for (const { pause, costs, of } of steps) {
          deps.clock.now += pause * unit;
          for (const model of models) bringUp(model, deps.clock.now);
          const asked = models.filter((_, i) => of === 'both' || (of === 'first') === (i === 0));
          const enough = asked.every(({ remaining }) => remaining >= costs);
          const spent = await spendCredits(
            deps,
            asked.map(({ owner }) => owner),
            costs,
          );
          expect(spent.spent).toBe(enough);
          if (enough) for (const model of asked) model.remaining -= costs;
          for (const { owner, remaining } of models) {
            expect(await remainingCredits(deps.store.read, owner, deps.clock.now)).toBe(remaining);
            expect((await rowOf(deps, owner))?.remaining).toBeGreaterThanOrEqual(0);
          }
        }
      }),
      { numRuns: 25 },
    );
  });

  it('of many who spend the last credit at once exactly one gets it, over several connections', async () => {
    const location = await freshDatabase(dialect);
    const stores = await Promise.all([1, 2, 3, 4].map(() => openStore({ location, poolSize: 6 })));
    for (const store of stores) onTestFinished(() => store.close());
    await stores[0]?.migrate();
    const now = Date.UTC(2026, 0, 6, 12);
    const processes = stores.map(
      (store) => ({ store, now: () => now, clock: { now } }) as unknown as TestDeps,
    );
    const [first] = processes as [TestDeps];
    const [ofKey, ofSubject] = [key(), subject()];
    await give(first, ofKey, { remaining: 0, refill_amount: 7, refill_interval_seconds: 60, refilled_at: 0 });
    await give(first, ofSubject, { remaining: 1_000 });
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, i) =>
        spendCredits(processes[i % 4] as TestDeps, i % 2 ? [ofSubject, ofKey] : [ofKey, ofSubject], 1),
      ),
    );
    expect(answers.filter((answer) => answer.spent)).toHaveLength(7);
    expect(answers.filter((answer) => !answer.spent)).toEqual(
      Array.from({ length: 93 }, () => ({ spent: false, remaining: 0 })),
    );
    expect(await rowOf(first, ofKey)).toMatchObject({ remaining: 0 });
    expect(await rowOf(first, ofSubject)).toMatchObject({ remaining: 993 });
  });
});

/** A model of one owner: steps from interval to interval. */
function bringUp(
  model: { remaining: number; refill: { amount: number; seconds: number } | null; from: number },
  now: number,
) {
  if (!model.refill) return;
  while (model.from + model.refill.seconds * 1000 <= now) {
    model.from += model.refill.seconds * 1000;
    model.remaining = Math.max(model.remaining, model.refill.amount);
  }
}
