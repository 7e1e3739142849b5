import { eq, sql } from 'drizzle-orm';
import { describe, expect, it } from 'vitest';
import type { Rows } from '../../../db/store.ts';
import { EVENT_TYPES, type EventType, REVOCATIONS } from '../../../server/domain/event-types.ts';
import { chainHash, change, listEvents, listEventsInput } from '../../../server/domain/events.ts';
import {
  createMachine,
  createMachineInput,
  listMachines,
  listMachinesInput,
} from '../../../server/domain/machines.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { expectChained, fieldsOf } from '../../support/event-log.ts';

const admin = callerWith('admin');
const event = (objectId: string) => ({ type: 'machine.updated' as const, objectId });
const append = (deps: TestDeps, objectId: string) =>
  change(deps, admin, async () => ({ result: objectId, event: event(objectId) }));
const list = (deps: TestDeps, input: Record<string, unknown> = {}) =>
  listEvents(deps, listEventsInput.parse(input));
const nameMachine = (tx: Rows, name: string) =>
  tx.db.insert(tx.tables.machines).values({
    id: `mch_${name.padStart(27, '0')}`,
    name,
    enabled: true,
    default_token_ttl_seconds: 60,
    max_token_ttl_seconds: 60,
    may_verify: false,
    token_generation: 0,
    created_at: 0,
    updated_at: 0,
  });

const OTHER_RIGHTS = 'it goes on with other rights or limits, which a verification answers';
const OTHER_VALUE =
  'one of its values ended, another is accepted: who denied what the event names would deny both';

/** Revocations after which nothing is to be denied by what the event names, and why. */
const WITHOUT_DENY_UNTIL: Partial<Record<EventType, string>> = {
  'machine.updated': OTHER_RIGHTS,
  'api_key.updated': OTHER_RIGHTS,
  'api_key.credits_changed': OTHER_RIGHTS,
  'subject.updated': OTHER_RIGHTS,
  'subject.credits_changed': OTHER_RIGHTS,
  'machine.secret_rotation_cancelled': OTHER_VALUE,
  'machine.secret_rotation_completed': OTHER_VALUE,
  'api_key.secret_rotated': OTHER_VALUE,
  'api_key.secret_rotation_cancelled': OTHER_VALUE,
  'api_key.secret_rotation_completed': OTHER_VALUE,
  'secret_key.secret_rotated': OTHER_VALUE,
  'secret_key.secret_rotation_cancelled': OTHER_VALUE,
  'secret_key.secret_rotation_completed': OTHER_VALUE,
  'oauth_application.secret_rotation_cancelled': OTHER_VALUE,
  'oauth_application.secret_rotation_completed': OTHER_VALUE,
};

describe('event types', () => {
  it('every type is a noun and what became of it, and every revocation is a type', () => {
    for (const type of Object.keys(EVENT_TYPES))
      expect(type).toMatch(
        /^[a-z0-9_]+\.([a-z_]+d|resent|given|first_seen|password_set|withdrawn|test|expiring|checkpoint|rotation_due)$/,
      );
    for (const type of REVOCATIONS) expect(EVENT_TYPES).toHaveProperty([type]);
  });

  it("every example has its type's fields, and no others", () => {
    for (const type of Object.keys(EVENT_TYPES) as EventType[]) {
      const { objectId, subject, ...own } = EVENT_TYPES[type].example;
      expect({ type, ...fieldsOf(type).safeParse(own) }).toMatchObject({ success: true });
    }
  });

  it('every revocation says until when to deny, unless what it names goes on', () => {
    const silent = [...REVOCATIONS].filter((type) => {
      const { payload } = EVENT_TYPES[type];
      return !('denyUntil' in payload) && !('denyUntil?' in payload);
    });
    expect(silent.sort()).toEqual(Object.keys(WITHOUT_DENY_UNTIL).sort());
  });
});

describeOnEachDialect('the log', (dialect) => {
  it('begins with the setting up, without a gap and chained', async () => {
    const deps = await openTestDeps(dialect);
    expect((await list(deps)).data).toMatchObject([
      { seq: 1, type: 'installation.created', actor: { kind: 'system', id: 'setup' } },
    ]);
    expect(await expectChained(deps)).toBe(1);
  });

  it('change() answers its result, appends who did what in which request, and wakes readers', async () => {
    const deps = await openTestDeps(dialect);
    const result = await change(deps, admin, async () => ({
      result: 'done',
      event: { ...event('mch_1'), subject: 'user_1', data: { name: 'billing' } },
    }));
    expect(result).toBe('done');
    expect(deps.woken).toEqual(['revocation-webhooks']);
    expect((await list(deps, { after: 1 })).data).toEqual([
      {
        seq: 2,
        id: expect.stringMatching(/^evt_[0-9A-Za-z]{27}$/),
        at: deps.clock.now,
        type: 'machine.updated',
        actor: { kind: 'secret_key', id: admin.principal.id },
        objectId: 'mch_1',
        subject: 'user_1',
        requestId: 'req_test',
        data: { name: 'billing' },
      },
    ]);
  });

  it('concurrent appenders leave one chain without a gap, each event once', async () => {
    const deps = await openTestDeps(dialect);
    const ids = Array.from({ length: 60 }, (_, i) => `mch_${i}`);
    const answered = await Promise.all(ids.map((id) => append(deps, id)));
    expect(answered).toEqual(ids);
    expect(await expectChained(deps)).toBe(61);
    const logged = (await list(deps, { after: 1 })).data.map(({ objectId }) => objectId);
    expect(logged.sort()).toEqual([...ids].sort());
  });

  it('a failing transaction appends nothing, whether it fails before its event or with it', async () => {
    const deps = await openTestDeps(dialect);
    const failing = [
      () =>
        change(deps, admin, async (tx) => {
          await nameMachine(tx, 'lost');
          throw new Error('It failed');
        }),
      () =>
        change(deps, admin, async (tx) => {
          await nameMachine(tx, 'lost');
          const unwritable = {
            toJSON: () => {
              throw new Error('It cannot be written');
            },
          };
          return { result: null, event: { ...event('mch_1'), data: { unwritable } } };
        }),
    ];
    for (const fail of failing) await expect(fail()).rejects.toThrow(/It /);
    expect(await expectChained(deps)).toBe(1);
    expect(deps.woken).toEqual([]);
    expect((await listMachines(deps, listMachinesInput.parse({}))).data).toEqual([]);
  });

  it('failing and succeeding transactions at the same time leave one chain of those that succeeded', async () => {
    const deps = await openTestDeps(dialect);
    const outcomes = await Promise.allSettled(
      Array.from({ length: 40 }, (_, i) =>
        createMachine(deps, admin, createMachineInput.parse({ name: `machine ${i % 20}` })),
      ),
    );
    expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(20);
    expect(await expectChained(deps)).toBe(21);
  });

  it('a change that found nothing to do appends nothing and wakes nobody', async () => {
    const deps = await openTestDeps(dialect);
    expect(await change(deps, admin, async () => ({ result: 'as it stands', event: null }))).toBe(
      'as it stands',
    );
    expect(await expectChained(deps)).toBe(1);
    expect(deps.woken).toEqual([]);
  });

  it('no event is dated before the one it follows, whatever the clock says', async () => {
    const deps = await openTestDeps(dialect);
    await append(deps, 'mch_1');
    const { now } = deps.clock;
    deps.clock.now -= 3_600_000;
    await append(deps, 'mch_2');
    deps.clock.now = now + 1;
    await append(deps, 'mch_3');
    expect((await list(deps, { after: 1 })).data.map(({ at }) => at)).toEqual([now, now, now + 1]);
  });

  it('the chain breaks where a writer to the database changes or removes an event', async () => {
    const deps = await openTestDeps(dialect);
    for (const id of ['mch_1', 'mch_2', 'mch_3']) await append(deps, id);
    await deps.store.tx(async ({ db, tables: { events } }) => {
      await db.update(events).set({ actor_id: 'sk_somebody_else' }).where(eq(events.seq, 3));
    });
    await expect(expectChained(deps)).rejects.toThrow();
    await deps.store.tx(async ({ db, tables: { events } }) => {
      await db.delete(events).where(eq(events.seq, 3));
      await db
        .update(events)
        .set({ seq: sql`${events.seq} - 1` })
        .where(eq(events.seq, 4));
    });
    await expect(expectChained(deps)).rejects.toThrow();
  });

  it('listEvents() walks the log in commit order, after any sequence, in bounded pages', async () => {
    const deps = await openTestDeps(dialect);
    for (let i = 2; i <= 8; i++) await append(deps, `mch_${i}`);
    const walked: number[] = [];
    for (let after = 0; ; ) {
      const page = await list(deps, { after, limit: 3 });
      if (page.data.length === 0) {
        expect(page.nextAfter).toBe(after);
        break;
      }
      walked.push(...page.data.map(({ seq }) => seq));
      after = page.nextAfter;
    }
    expect(walked).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    for (const limit of [0, 501, 1.5]) expect(listEventsInput.safeParse({ limit }).success).toBe(false);
  });
});

describeOnEachDialect('listEvents()', (dialect) => {
  async function written() {
    const deps = await openTestDeps(dialect);
    const other = { principal: { kind: 'machine', id: 'mch_9' } as never, requestId: 'req_2' };
    const append = (
      caller: typeof admin,
      type: 'machine.updated' | 'api_key.revoked',
      objectId: string,
      subject: string,
    ) => change(deps, caller, async () => ({ result: null, event: { type, objectId, subject } }));
    for (let i = 0; i < 4; i++) {
      deps.clock.now += 1_000;
      await append(admin, 'machine.updated', `mch_${i % 2}`, 'user_1');
      await append(i < 2 ? admin : other, 'api_key.revoked', 'ak_1', `user_${i % 2}`);
    }
    const seqs = async (input: Record<string, unknown>) =>
      (await list(deps, input)).data.map(({ seq }) => seq);
    return { deps, seqs };
  }

  it('filters by type, actor, object, subject and time, alone and together', async () => {
    const { deps, seqs } = await written();
    const { now } = deps.clock;
    expect(await seqs({ type: 'api_key.revoked' })).toEqual([3, 5, 7, 9]);
    expect(await seqs({ actorId: 'mch_9' })).toEqual([7, 9]);
    expect(await seqs({ objectId: 'mch_0' })).toEqual([2, 6]);
    expect(await seqs({ subject: 'user_0' })).toEqual([3, 7]);
    expect(await seqs({ since: now - 1_000 })).toEqual([6, 7, 8, 9]);
    expect(await seqs({ since: now - 1_000, until: now })).toEqual([6, 7]);
    expect(await seqs({ since: now + 1 })).toEqual([]);
    expect(await seqs({ type: 'api_key.revoked', subject: 'user_1', actorId: 'mch_9' })).toEqual([9]);
    expect(await seqs({ type: 'machine.updated', objectId: 'ak_1' })).toEqual([]);
  });

  it('walks newest first, page by page, to the beginning', async () => {
    const { deps } = await written();
    const walked: number[] = [];
    for (let before: number | undefined; ; ) {
      const input = {
        newestFirst: true,
        subject: 'user_1',
        type: 'machine.updated',
        limit: 2,
        ...(before && { before }),
      };
      const page = await list(deps, input);
      walked.push(...page.data.map(({ seq }) => seq));
      if (page.nextBefore === null) break;
      before = page.nextBefore;
    }
    expect(walked).toEqual([8, 6, 4, 2]);
  });
});

describe('chainHash()', () => {
  const row = {
    seq: 1,
    id: 'evt_1',
    at: 1,
    type: 'machine.created',
    actor_kind: 'secret_key',
    actor_id: 'sk_1',
    object_id: 'mch_1',
    subject: null,
    request_id: 'req_1',
    data: { name: 'billing' },
  };
  const [key, previous] = [Buffer.alloc(32, 1), Buffer.alloc(32)];

  it('is another for another key, another event before, and any other column', () => {
    const changed = { ...row, seq: 2, id: 'evt_2', at: 2, type: 'machine.deleted', actor_kind: 'machine' };
    const more = { actor_id: 'sk_2', object_id: 'mch_2', subject: '', request_id: 'req_2', data: {} };
    const others = Object.entries({ ...changed, ...more }).map(([column, value]) =>
      chainHash(key, previous, { ...row, [column]: value }),
    );
    const hashes = [
      chainHash(key, previous, row),
      chainHash(Buffer.alloc(32, 2), previous, row),
      chainHash(key, Buffer.alloc(32, 1), row),
      ...others,
    ];
    expect(new Set(hashes.map((hash) => hash.toString('hex'))).size).toBe(13);
  });
});
