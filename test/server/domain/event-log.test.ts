import { eq, gt, inArray, sql } from 'drizzle-orm';
import { expect, it } from 'vitest';
import { makeCheckpoint } from '../../../server/domain/checkpoints.ts';
import { pruneEvents, verifyLog } from '../../../server/domain/event-log.ts';
import { listEvents } from '../../../server/domain/events.ts';
import { createMachine, createMachineInput } from '../../../server/domain/machines.ts';
import { call } from '../../support/calls.ts';
import {
  callerWith,
  type Dialect,
  describeOnEachDialect,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';

const admin = callerWith('admin');
const DAY = 86_400_000;

let machines = 0;

async function happens(deps: TestDeps, times: number) {
  for (let i = 0; i < times; i++)
    await createMachine(deps, admin, createMachineInput.parse({ name: `machine-${++machines}` }));
}

const check = (deps: TestDeps, checkpoint?: string) => verifyLog(deps, { checkpoint, now: deps.now() });

/** A log of 13 events; the checkpoint vouches for 6, and is itself the seventh. */
async function open(dialect: Dialect) {
  const deps = await openTestDeps(dialect);
  await happens(deps, 5);
  const checkpoint = await makeCheckpoint(deps);
  await happens(deps, 6);
  return { deps, jws: checkpoint?.jws ?? '' };
}

type Tables = TestDeps['store']['read']['tables'];
type Rows = Parameters<Parameters<TestDeps['store']['tx']>[0]>[0];

async function headAt({ db, tables: { events, eventHead } }: Rows, seq: number) {
  const [row] = await db.select().from(events).where(eq(events.seq, seq));
  await db.update(eventHead).set({ seq, hash: row?.hash ?? Buffer.alloc(32) });
}

const TAMPERINGS: [string, (tx: Rows, tables: Tables) => Promise<unknown>, object][] = [
  [
    'a row that was changed',
    ({ db }, { events }) => db.update(events).set({ actor_id: 'sk_other' }).where(eq(events.seq, 4)),
    { seq: 4, fault: 'changed' },
  ],
  [
    'data that is no JSON any more',
    ({ db }, { events }) => db.update(events).set({ data: sql`'{'` }).where(eq(events.seq, 5)),
    { seq: 5, fault: 'changed' },
  ],
  [
    'a row that was deleted in the middle',
    ({ db }, { events }) => db.delete(events).where(eq(events.seq, 8)),
    { seq: 8, fault: 'missing' },
  ],
  [
    'rows that were deleted at the beginning',
    ({ db }, { events }) => db.delete(events).where(inArray(events.seq, [1, 2])),
    { seq: 1, fault: 'missing' },
  ],
  [
    'rows deleted at the beginning that are said to be pruned',
    async ({ db }, { events, eventAnchor }) => {
      const [second] = await db.select().from(events).where(eq(events.seq, 2));
      await db.insert(eventAnchor).values({ id: 1, seq: 2, hash: second?.hash ?? Buffer.alloc(0), at: 0 });
      await db.delete(events).where(inArray(events.seq, [1, 2]));
    },
    { seq: 2, fault: 'anchor' },
  ],
  [
    'a tail that was cut',
    ({ db }, { events }) => db.delete(events).where(gt(events.seq, 10)),
    { seq: 11, fault: 'cut' },
  ],
  [
    'a tail that was cut, the head put back to fit, below a checkpoint',
    async (tx, { events }) => {
      await headAt(tx, 5);
      await tx.db.delete(events).where(gt(events.seq, 5));
    },
    { seq: 6, fault: 'cut' },
  ],
  ['a head that was put back', (tx) => headAt(tx, 10), { seq: 11, fault: 'beyond_head' }],
  [
    'a head with another hash',
    ({ db }, { eventHead }) => db.update(eventHead).set({ hash: Buffer.alloc(32, 1) }),
    { seq: 13, fault: 'head' },
  ],
  [
    'a checkpoint that somebody else made',
    ({ db }, { eventCheckpoints }) => db.update(eventCheckpoints).set({ jws: 'eyJhbGciOiJub25lIn0.e30.' }),
    { seq: 6, fault: 'checkpoint_forged' },
  ],
];

describeOnEachDialect('verifyLog()', (dialect) => {
  it('finds a log whole that nobody touched, and what a checkpoint vouches for', async () => {
    const { deps, jws } = await open(dialect);
    expect(await check(deps, jws)).toEqual({
      firstSeq: 1,
      headSeq: 13,
      events: 13,
      checkpoints: 1,
      fault: null,
    });
  });

  for (const [what, tamper, fault] of TAMPERINGS)
    it(`finds ${what}`, async () => {
      const { deps } = await open(dialect);
      await deps.store.tx((tx) => tamper(tx, tx.tables));
      expect((await check(deps)).fault).toMatchObject(fault);
    });

  it('holds it against a checkpoint that was kept elsewhere, where none is left in the database', async () => {
    const { deps, jws } = await open(dialect);
    await deps.store.tx(async (tx) => {
      await headAt(tx, 5);
      await tx.db.delete(tx.tables.events).where(gt(tx.tables.events.seq, 5));
      await tx.db.delete(tx.tables.eventCheckpoints);
    });
    expect((await check(deps)).fault).toBeNull();
    expect((await check(deps, jws)).fault).toMatchObject({ seq: 6, fault: 'cut' });
    await happens(deps, 3);
    expect((await check(deps)).fault).toBeNull();
    expect((await check(deps, jws)).fault).toMatchObject({ seq: 6, fault: 'checkpoint_contradicted' });
  });

  it('takes no checkpoint that another installation signed, nor one that was changed', async () => {
    const { deps, jws } = await open(dialect);
    const other = await open(dialect);
    expect((await check(deps, other.jws)).fault).toMatchObject({ fault: 'checkpoint_forged' });
    const [header, , signature] = jws.split('.');
    const payload = Buffer.from('{"epoch":"x","seq":1,"hash":"","at":0}').toString('base64url');
    expect((await check(deps, `${header}.${payload}.${signature}`)).fault).toMatchObject({
      fault: 'checkpoint_forged',
    });
  });
});

describeOnEachDialect('makeCheckpoint()', (dialect) => {
  it('says nothing where nothing happened since, and is no credential', async () => {
    const { deps, jws } = await open(dialect);
    expect(await makeCheckpoint(deps)).toMatchObject({ seq: 13 });
    expect(await makeCheckpoint(deps)).toBeNull();
    const events = (await listEvents(deps, { after: 0, limit: 500 })).data;
    expect(events.at(-1)).toMatchObject({ seq: 14, type: 'log.checkpoint', data: { seq: 13 } });
    expect(await call(deps, deps.adminKey, 'credentials.verify', { credential: jws })).toMatchObject({
      valid: false,
    });
  });

  it('of several processes at once one signs', async () => {
    const { deps } = await open(dialect);
    const made = await Promise.all(Array.from({ length: 5 }, () => makeCheckpoint(deps)));
    expect(made.filter((checkpoint) => checkpoint?.seq === 13)).toHaveLength(1);
  });
});

describeOnEachDialect('pruneEvents()', (dialect) => {
  it('deletes what is older than 400 days, and leaves a log that is whole', async () => {
    const { deps, jws } = await open(dialect);
    const { webhookCursor } = deps.store.read.tables;
    await deps.store.tx(({ db }) => db.update(webhookCursor).set({ event_seq: 100 }));
    expect(await pruneEvents(deps, 100)).toBe(0);
    deps.clock.now += 400 * DAY;
    await happens(deps, 1);
    // No checkpoint vouches for more than 6 events yet.
    expect(await pruneEvents(deps, 4)).toBe(4);
    expect(await pruneEvents(deps, 100)).toBe(2);
    expect(await pruneEvents(deps, 100)).toBe(0);
    expect(await check(deps, jws)).toMatchObject({ firstSeq: 7, fault: null });
    await makeCheckpoint(deps);
    const pruned = await Promise.all([1, 2, 3].map(() => pruneEvents(deps, 100)));
    expect(pruned.reduce((sum, count) => sum + count)).toBe(7);
    expect(await check(deps, jws)).toMatchObject({ firstSeq: 14, fault: null });
  });

  it('keeps what is still to be written out or delivered to a webhook endpoint', async () => {
    const { deps } = await open(dialect);
    deps.clock.now += 400 * DAY;
    await makeCheckpoint(deps);
    expect(await pruneEvents(deps, 100)).toBe(0);
    const { deliveries, webhookCursor } = deps.store.read.tables;
    const owed = { id: 'dlv_1', event_seq: 4, endpoint_id: 'ep_1', state: 'pending' as const };
    await deps.store.tx(async ({ db }) => {
      await db.update(webhookCursor).set({ event_seq: 9 });
      await db.insert(deliveries).values({ ...owed, priority: 1, attempt: 0, next_at: 0, created_at: 0 });
    });
    expect(await pruneEvents(deps, 100)).toBe(3);
    await deps.store.tx(({ db }) => db.update(deliveries).set({ state: 'dead' }));
    expect(await pruneEvents(deps, 100)).toBe(6);
    expect((await check(deps)).fault).toBeNull();
  });
});
