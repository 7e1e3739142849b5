import { describe, expect, it } from 'vitest';
import { creditsAt } from '../../../server/domain/credit-grants.ts';
import { REVOCATIONS } from '../../../server/domain/event-types.ts';
import { listEvents } from '../../../server/domain/events.ts';
import {
  getSubject,
  listSubjects,
  listSubjectsInput,
  setSubject,
  setSubjectCredits,
  setSubjectCreditsInput,
  setSubjectEnabled,
  setSubjectInput,
} from '../../../server/domain/subjects.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';

const issuer = callerWith('issuer');
const LIMIT = { count: 10, windowSeconds: 60 };

const get = (deps: TestDeps, id = 'user_1') => getSubject(deps, { id });
const set = (deps: TestDeps, rateLimit: typeof LIMIT | null, id = 'user_1') =>
  setSubject(deps, issuer, setSubjectInput.parse({ id, rateLimit }));
const setEnabled = (deps: TestDeps, enabled: boolean, id = 'user_1') =>
  setSubjectEnabled(deps, issuer, { id }, enabled);
const setCredits = (deps: TestDeps, given: Record<string, unknown>, id = 'user_1') =>
  setSubjectCredits(deps, issuer, setSubjectCreditsInput.parse({ id, ...given }));
const ids = async (deps: TestDeps) =>
  (await listSubjects(deps, listSubjectsInput.parse({}))).data.map(({ id }) => id);
const eventsOf = async (deps: TestDeps) => (await listEvents(deps, { after: 1, limit: 500 })).data;

const UNKNOWN = {
  id: 'user_1',
  enabled: true,
  rateLimit: null,
  remainingCredits: null,
  createdAt: null,
  updatedAt: null,
};

describe('setSubjectCreditsInput', () => {
  it('refuses half a refill, one without credits, and numbers below zero', () => {
    const isTaken = (given: object) => setSubjectCreditsInput.safeParse({ id: 'user_1', ...given }).success;
    const refill = { refillAmount: 1, refillIntervalSeconds: 1 };
    for (const given of [
      {},
      { remaining: -1 },
      { remaining: 1.5 },
      { remaining: 1, refillAmount: 1 },
      { remaining: 1, refillIntervalSeconds: 1 },
      { remaining: 1, ...refill, refillAmount: 0 },
      { remaining: null, ...refill },
    ])
      expect([given, isTaken(given)]).toEqual([given, false]);
    for (const given of [{ remaining: 0 }, { remaining: null }, { remaining: 0, ...refill }])
      expect([given, isTaken(given)]).toEqual([given, true]);
  });
});

describeOnEachDialect('subjects', (dialect) => {
  it('one that was never heard of is enabled and has no limits', async () => {
    const deps = await openTestDeps(dialect);
    expect(await get(deps)).toEqual(UNKNOWN);
    expect(await ids(deps)).toEqual([]);
  });

  it('setSubject() sets and takes away the rate limit, naming it in the event', async () => {
    const deps = await openTestDeps(dialect);
    const start = deps.clock.now;
    expect(await set(deps, LIMIT)).toEqual({
      ...UNKNOWN,
      rateLimit: LIMIT,
      createdAt: start,
      updatedAt: start,
    });
    deps.clock.now += 1;
    const removed = await set(deps, null);
    expect(removed).toEqual({ ...UNKNOWN, createdAt: start, updatedAt: start + 1 });
    expect(await get(deps)).toEqual(removed);
    expect(await eventsOf(deps)).toMatchObject(
      Array(2).fill({
        type: 'subject.updated',
        objectId: 'user_1',
        subject: 'user_1',
        data: { changed: ['rateLimit'] },
      }),
    );
  });

  it('setSubjectEnabled() disables and enables, with a selector for whoever remembers its keys', async () => {
    const deps = await openTestDeps(dialect);
    expect(await setEnabled(deps, false)).toMatchObject({ enabled: false });
    expect(await get(deps)).toMatchObject({ enabled: false });
    expect(await setEnabled(deps, true)).toMatchObject({ enabled: true });
    expect(await eventsOf(deps)).toMatchObject([
      { type: 'subject.disabled', objectId: 'user_1', data: { selector: { subject: 'user_1' } } },
      { type: 'subject.enabled', objectId: 'user_1', subject: 'user_1' },
    ]);
    expect(REVOCATIONS.has('subject.disabled')).toBe(true);
  });

  it('what already is as wanted leaves no event and no row', async () => {
    const deps = await openTestDeps(dialect);
    expect(await setEnabled(deps, true)).toEqual(UNKNOWN);
    expect(await set(deps, null)).toEqual(UNKNOWN);
    expect(await setCredits(deps, { remaining: null })).toEqual(UNKNOWN);
    expect(await ids(deps)).toEqual([]);
    expect(await eventsOf(deps)).toEqual([]);
    await set(deps, LIMIT);
    await setCredits(deps, { remaining: 3 });
    const before = await get(deps);
    deps.clock.now += 1;
    await set(deps, LIMIT);
    await setCredits(deps, { remaining: 3 });
    expect(await get(deps)).toEqual(before);
    expect(await eventsOf(deps)).toHaveLength(2);
  });

  it('setSubjectCredits() sets what all keys may spend, tells verifying to ask, and takes it away', async () => {
    const deps = await openTestDeps(dialect);
    const row = async () => {
      const { db, tables } = deps.store.read;
      const [subject] = await db.select().from(tables.subjects);
      return [subject?.has_credits, ...(await db.select().from(tables.credits))];
    };
    const refill = { refillAmount: 100, refillIntervalSeconds: 60 };
    expect(await setCredits(deps, { remaining: 5, ...refill })).toMatchObject({ remainingCredits: 5 });
    expect(await row()).toEqual([
      true,
      {
        owner_kind: 'subject',
        owner_id: 'user_1',
        remaining: 5,
        refill_amount: 100,
        refill_interval_seconds: 60,
        refilled_at: deps.clock.now,
      },
    ]);
    deps.clock.now += 10_000;
    await setCredits(deps, { remaining: 7 });
    expect(await row()).toMatchObject([
      true,
      { remaining: 7, refill_amount: null, refill_interval_seconds: null, refilled_at: deps.clock.now },
    ]);
    expect(await setCredits(deps, { remaining: null })).toMatchObject({ remainingCredits: null });
    expect(await row()).toEqual([false]);
    expect((await eventsOf(deps)).map(({ type, data }) => [type, data['credits']])).toEqual([
      ['subject.credits_changed', { remaining: 5, ...refill }],
      ['subject.credits_changed', { remaining: 7, refillAmount: null, refillIntervalSeconds: null }],
      ['subject.credits_changed', null],
    ]);
  });

  it('getSubject() counts a refill from the instant it is due, and leaves more than that alone', async () => {
    const deps = await openTestDeps(dialect);
    const refill = { refillAmount: 100, refillIntervalSeconds: 60 };
    await setCredits(deps, { remaining: 5, ...refill });
    await setCredits(deps, { remaining: 500, ...refill }, 'user_2');
    deps.clock.now += 59_999;
    expect(await get(deps)).toMatchObject({ remainingCredits: 5 });
    deps.clock.now += 1;
    expect(await get(deps)).toMatchObject({ remainingCredits: 100 });
    expect(await get(deps, 'user_2')).toMatchObject({ remainingCredits: 500 });
    expect(await creditsAt(deps.store.read, { kind: 'api_key', id: 'user_1' }, deps.now())).toBeNull();
  });

  it('changes of one subject at once all come about, each as one event', async () => {
    const deps = await openTestDeps(dialect);
    for (let round = 0; round < 10; round++) {
      const id = `user_${round}`;
      await Promise.all([
        set(deps, LIMIT, id),
        setEnabled(deps, false, id),
        setCredits(deps, { remaining: 3 }, id),
        setEnabled(deps, false, id),
        setEnabled(deps, false, id),
      ]);
      expect(await get(deps, id)).toMatchObject({ rateLimit: LIMIT, enabled: false, remainingCredits: 3 });
    }
    const types = (await eventsOf(deps)).map(({ type }) => type);
    for (const type of ['subject.credits_changed', 'subject.disabled', 'subject.updated'])
      expect(types.filter((each) => each === type)).toHaveLength(10);
    expect(types).toHaveLength(30);
  });

  it('listSubjects() walks those for which something was set, the newest first', async () => {
    const deps = await openTestDeps(dialect);
    for (let i = 0; i < 5; i++) {
      deps.clock.now += i % 2;
      await set(deps, LIMIT, `org_${i}`);
    }
    await get(deps, 'user_unknown');
    const walked: string[] = [];
    for (let cursor: string | null | undefined; cursor !== null; ) {
      const page = await listSubjects(deps, listSubjectsInput.parse({ limit: 2, ...(cursor && { cursor }) }));
      walked.push(...page.data.map(({ id }) => id));
      cursor = page.nextCursor;
    }
    expect(walked).toEqual(await ids(deps));
    expect([...walked].sort()).toEqual(['org_0', 'org_1', 'org_2', 'org_3', 'org_4']);
  });
});
