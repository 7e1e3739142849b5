import { eq } from 'drizzle-orm';
import { expect, it } from 'vitest';
import {
  attemptDelivery,
  claimDeliveries,
  expandEvents,
  GRACE_MS,
  JITTER,
  listDeliveries,
  listDeliveriesInput,
  recordOutcome,
  SCHEDULES_MS,
} from '../../../server/domain/deliveries.ts';
import { createMachine, createMachineInput, setMachineEnabled } from '../../../server/domain/machines.ts';
import {
  createWebhookEndpoint,
  createWebhookEndpointInput,
  deleteWebhookEndpoint,
} from '../../../server/domain/webhook-endpoints.ts';
import { OutboundError } from '../../../server/outbound.ts';
import {
  callerWith,
  type Dialect,
  describeOnEachDialect,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';

const admin = callerWith('admin');

interface Setting extends TestDeps {
  /** What every post is answered with. */
  answer: () => Promise<{ status: number }>;
  posts: { url: string; headers: Record<string, string>; body: string }[];
}

async function open(dialect: Dialect): Promise<Setting> {
  const posts: Setting['posts'] = [];
  const setting: Setting = {
    ...(await openTestDeps(dialect)),
    answer: async () => ({ status: 200 }),
    posts,
    outbound: {
      refusal: () => null,
      post(url, headers, body) {
        posts.push({ url, headers, body });
        return setting.answer();
      },
      close: async () => {},
    },
  };
  return setting;
}

const subscribe = async (deps: TestDeps, ...eventTypes: string[]) =>
  (
    await createWebhookEndpoint(
      deps,
      admin,
      createWebhookEndpointInput.parse({ url: 'https://example.com', eventTypes }),
    )
  ).id;

let machines = 0;
const happen = async (deps: TestDeps) =>
  (await createMachine(deps, admin, createMachineInput.parse({ name: `machine-${++machines}` }))).id;

async function expandAll(deps: TestDeps) {
  while (await expandEvents(deps));
}

const list = async (deps: TestDeps, input: Record<string, unknown> = {}) =>
  (await listDeliveries(deps, listDeliveriesInput.parse(input))).data;

describeOnEachDialect('deliveries', (dialect) => {
  it('expandEvents() owes an endpoint what it wants, from after its creation on, once', async () => {
    const deps = await open(dialect);
    await happen(deps);
    const all = await subscribe(deps);
    const id = await happen(deps);
    const machinesOnly = await subscribe(deps, 'machine.*');
    const scopesOnly = await subscribe(deps, 'machine_scope.created');
    await setMachineEnabled(deps, admin, id, false);
    await expandAll(deps);
    await expandAll(deps);
    // Sequences: 1 installation, 2 machine, 3 endpoint, 4 machine, 5 and 6 endpoints, 7 disabled.
    const owed = async (endpointId: string) => (await list(deps, { endpointId })).map((one) => one.eventSeq);
    expect(await owed(all)).toEqual([7, 6, 5, 4]);
    expect(await owed(machinesOnly)).toEqual([7]);
    expect(await owed(scopesOnly)).toEqual([]);
  });

  it('expandEvents() owes nothing of the past to an endpoint that came while nobody was expanding', async () => {
    const deps = await open(dialect);
    for (let i = 0; i < 3; i++) await happen(deps);
    await subscribe(deps);
    await expandAll(deps);
    expect(await list(deps)).toEqual([]);
    await happen(deps);
    await expandAll(deps);
    expect(await list(deps)).toHaveLength(1);
  });

  it('expandEvents() owes a disabled endpoint nothing', async () => {
    const deps = await open(dialect);
    const id = await subscribe(deps);
    await deps.store.tx(async ({ db, tables: { webhookEndpoints } }) => {
      await db.update(webhookEndpoints).set({ enabled: false }).where(eq(webhookEndpoints.id, id));
    });
    await happen(deps);
    await expandAll(deps);
    expect(await list(deps)).toEqual([]);
  });

  it('expandEvents() by many at once writes out every event exactly once', async () => {
    const deps = await open(dialect);
    for (let i = 0; i < 3; i++) await subscribe(deps, 'machine.*');
    await Promise.all(
      Array.from({ length: 40 }, async () => {
        await happen(deps);
        await expandEvents(deps);
      }),
    );
    await Promise.all(Array.from({ length: 4 }, () => expandAll(deps)));
    const owed = await list(deps, { limit: 500 });
    expect(owed).toHaveLength(120);
    expect(new Set(owed.map((one) => `${one.endpointId} ${one.eventSeq}`)).size).toBe(120);
  });

  it('expandEvents() writes out a long backlog in bounded transactions', async () => {
    const deps = await open(dialect);
    for (let i = 0; i < 20; i++) await subscribe(deps, 'machine.*');
    for (let i = 0; i < 120; i++) await happen(deps);
    expect(await expandEvents(deps)).toBe(true);
    const { read } = deps.store;
    expect(await read.db.$count(read.tables.deliveries)).toBeLessThanOrEqual(1_000);
    await expandAll(deps);
    expect(await read.db.$count(read.tables.deliveries)).toBe(2_400);
  });

  it('claimDeliveries() gives each to exactly one of many, revocations first', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    const ids: string[] = [];
    for (let i = 0; i < 30; i++) ids.push(await happen(deps));
    await setMachineEnabled(deps, admin, ids[0] ?? '', false);
    await expandAll(deps);
    const first = await claimDeliveries(deps, 1);
    expect(first).toMatchObject([{ attempt: 1, urgent: true }]);
    const claims = (await Promise.all(Array.from({ length: 10 }, () => claimDeliveries(deps, 4)))).flat();
    while (claims.length < 30) {
      const more = await claimDeliveries(deps, 4);
      expect(more).not.toEqual([]);
      claims.push(...more);
    }
    expect(new Set([...first, ...claims].map((claim) => claim.id)).size).toBe(31);
    expect(claims.every((claim) => !claim.urgent && claim.attempt === 1)).toBe(true);
    expect(await claimDeliveries(deps, 4)).toEqual([]);
  });

  it('claimDeliveries() takes the longest due first', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    for (let i = 0; i < 4; i++) {
      await happen(deps);
      await expandAll(deps);
      deps.clock.now += 10;
    }
    const claimed = (await claimDeliveries(deps, 4)).map((claim) => claim.id);
    const byAge = (await list(deps)).map((delivery) => delivery.id).reverse();
    expect(claimed).toEqual(byAge);
  });

  it('an attempt that was lost is due again at the end of its grace, not before, and is void from then on', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandAll(deps);
    const [lost] = await claimDeliveries(deps, 10);
    deps.clock.now += GRACE_MS - 1;
    expect(await claimDeliveries(deps, 10)).toEqual([]);
    deps.clock.now += 1;
    const [again] = await claimDeliveries(deps, 10);
    expect(again).toMatchObject({ id: lost?.id, attempt: 2 });

    expect(lost && (await attemptDelivery(deps, lost))).toBeNull();
    expect(deps.posts).toHaveLength(0);
    expect(again && (await attemptDelivery(deps, again))).toMatchObject({ outcome: 'delivered' });
    expect(again && (await attemptDelivery(deps, again))).toBeNull();
    expect(deps.posts).toHaveLength(1);
  });

  it('recordOutcome() writes nothing over a delivery that was claimed again or is done', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandAll(deps);
    const [late] = await claimDeliveries(deps, 1);
    deps.clock.now += GRACE_MS;
    const [current] = await claimDeliveries(deps, 1);
    if (!late || !current) throw new Error('Nothing was claimed');
    const died = {
      state: 'dead',
      nextAt: 0,
      beganAt: 1,
      deliveredAt: null,
      status: 500,
      error: 'x',
    } as const;
    const delivered = { ...died, state: 'delivered', deliveredAt: 2, status: 200, error: null } as const;
    expect(await recordOutcome(deps, late, died)).toBe(false);
    expect(await recordOutcome(deps, current, delivered)).toBe(true);
    expect(await recordOutcome(deps, current, died)).toBe(false);
    expect(await list(deps)).toMatchObject([{ state: 'delivered', lastStatus: 200, firstAttemptAt: 1 }]);
  });

  it('attemptDelivery() of an answer that comes after the grace leaves it to who claimed it since', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandAll(deps);
    const [slow] = await claimDeliveries(deps, 1);
    deps.answer = async () => {
      deps.clock.now += GRACE_MS;
      await claimDeliveries(deps, 1);
      return { status: 500 };
    };
    expect(slow && (await attemptDelivery(deps, slow))).toBeNull();
    expect(await list(deps)).toMatchObject([{ state: 'pending', attempt: 2, lastStatus: null }]);
  });

  it('attemptDelivery() removes what is owed to an endpoint that was deleted, and sends nothing', async () => {
    const deps = await open(dialect);
    const id = await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandAll(deps);
    await deleteWebhookEndpoint(deps, admin, { id });
    const [claim] = await claimDeliveries(deps, 1);
    expect(claim && (await attemptDelivery(deps, claim))).toBeNull();
    expect(await list(deps)).toEqual([]);
    expect(deps.posts).toEqual([]);
  });

  it('attemptDelivery() says how long after its event the first attempt and the delivery came', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandAll(deps);
    deps.clock.now += 70;
    deps.answer = async () => {
      deps.clock.now += 30;
      throw new OutboundError('No answer: ECONNRESET');
    };
    const [first] = await claimDeliveries(deps, 1);
    expect(first && (await attemptDelivery(deps, first))).toMatchObject({
      outcome: 'failed',
      status: null,
      error: 'No answer: ECONNRESET',
      cause: null,
      firstAttemptMs: 70,
      deliveredMs: undefined,
    });
    deps.clock.now += 10_000;
    deps.answer = async () => ({ status: 299 });
    const [second] = await claimDeliveries(deps, 1);
    expect(second && (await attemptDelivery(deps, second))).toMatchObject({
      outcome: 'delivered',
      firstAttemptMs: undefined,
      deliveredMs: 10_100,
    });
  });

  it.each([199, 300, 302, 404, 500])(
    'attemptDelivery() takes the status %i for a failure',
    async (status) => {
      const deps = await open(dialect);
      await subscribe(deps, 'machine.*');
      await happen(deps);
      await expandAll(deps);
      deps.answer = async () => ({ status });
      const [claim] = await claimDeliveries(deps, 1);
      expect(claim && (await attemptDelivery(deps, claim))).toMatchObject({ outcome: 'failed', status });
    },
  );

  it('a claim of which nothing is heard again uses up nothing of the schedule', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandAll(deps);
    const lost = SCHEDULES_MS[1]?.length ?? 0;
    for (let i = 0; i < lost; i++) {
      expect(await claimDeliveries(deps, 1)).toHaveLength(1);
      deps.clock.now += GRACE_MS;
    }
    deps.answer = async () => ({ status: 500 });
    const [claim] = await claimDeliveries(deps, 1);
    expect(claim && (await attemptDelivery(deps, claim))).toMatchObject({ outcome: 'failed' });
    expect(await list(deps)).toMatchObject([{ state: 'pending', attempt: lost + 1 }]);
  });

  it('attemptDelivery() waits by the schedule of its priority, with jitter, and gives up after its last row', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    const id = await happen(deps);
    await setMachineEnabled(deps, admin, id, false);
    await expandAll(deps);
    deps.answer = async () => ({ status: 500 });
    const waits = new Map<string, number[]>();
    for (;;) {
      const claimed = await claimDeliveries(deps, 10);
      for (const claim of claimed) await attemptDelivery(deps, claim);
      const all = await list(deps);
      for (const { id: deliveryId } of claimed) {
        const { nextAt } = all.find((one) => one.id === deliveryId) ?? {};
        if (nextAt) waits.set(deliveryId, [...(waits.get(deliveryId) ?? [0]), nextAt - deps.clock.now]);
      }
      const next = all.map((one) => one.nextAt ?? Number.POSITIVE_INFINITY);
      if (Math.min(...next) === Number.POSITIVE_INFINITY) break;
      deps.clock.now = Math.min(...next);
    }
    const [revocation, ordinary] = await list(deps);
    expect([revocation, ordinary]).toMatchObject([{ state: 'dead' }, { state: 'dead' }]);
    for (const [priority, delivery] of [revocation, ordinary].entries()) {
      const schedule = SCHEDULES_MS[priority] ?? [];
      const waited = waits.get(delivery?.id ?? '') ?? [];
      expect(delivery?.attempt).toBe(schedule.length);
      expect(waited).toHaveLength(schedule.length);
      for (const [attempt, ms] of waited.entries()) {
        expect(Math.abs(ms - (schedule[attempt] ?? 0))).toBeLessThanOrEqual(
          (schedule[attempt] ?? 0) * JITTER + 1,
        );
      }
      expect(waited.slice(1).some((ms, i) => ms !== schedule[i + 1])).toBe(true);
    }
  });

  it('attemptDelivery() lets no event shadow what a payload says about itself', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    await happen(deps);
    await deps.store.tx(async ({ db, tables: { events } }) => {
      await db
        .update(events)
        .set({ data: { eventId: 'evt_forged', sequence: 0, name: 'kept' } })
        .where(eq(events.type, 'machine.created'));
    });
    await expandAll(deps);
    const [claim] = await claimDeliveries(deps, 1);
    if (claim) await attemptDelivery(deps, claim);
    const { headers, body } = deps.posts[0] ?? {};
    const eventId = headers?.['webhook-id'];
    expect(eventId).toMatch(/^evt_[0-9A-Za-z]{27}$/);
    expect(JSON.parse(body ?? '')).toMatchObject({ data: { eventId, sequence: 3, name: 'kept' } });
  });

  it('listDeliveries() walks every delivery once, by endpoint and state, the latest first', async () => {
    const deps = await open(dialect);
    const one = await subscribe(deps, 'machine.*');
    await subscribe(deps, 'machine.*');
    for (let i = 0; i < 5; i++) await happen(deps);
    await expandAll(deps);
    for (const claim of await claimDeliveries(deps, 4)) await attemptDelivery(deps, claim);
    const walk = async (input: Record<string, unknown>) => {
      const walked: string[] = [];
      for (let cursor: string | null | undefined; cursor !== null; ) {
        const page = await listDeliveries(
          deps,
          listDeliveriesInput.parse({ ...input, limit: 2, ...(cursor && { cursor }) }),
        );
        walked.push(...page.data.map((delivery) => delivery.id));
        cursor = page.nextCursor;
      }
      return walked;
    };
    const ids = (found: { id: string }[]) => found.map((delivery) => delivery.id);
    expect(await walk({})).toEqual(ids(await list(deps)));
    expect(await walk({})).toHaveLength(10);
    expect(await walk({ endpointId: one })).toEqual(ids(await list(deps, { endpointId: one })));
    expect(await walk({ endpointId: one })).toHaveLength(5);
    expect(await walk({ state: 'delivered' })).toHaveLength(4);
    expect(await walk({ state: 'pending' })).toHaveLength(6);
    expect(await walk({ state: 'dead' })).toEqual([]);
    const seqs = (await list(deps, { endpointId: one })).map((delivery) => delivery.eventSeq);
    expect(seqs).toEqual([...seqs].sort((a, b) => b - a));
  });
});
