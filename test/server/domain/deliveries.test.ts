import { setTimeout as sleep } from 'node:timers/promises';
import { eq, sql } from 'drizzle-orm';
import { expect, it, vi } from 'vitest';
import { createApiKey, createApiKeyInput, revokeApiKey } from '../../../server/domain/api-keys.ts';
import {
  getDelivery,
  listDeliveries,
  listDeliveriesInput,
  replayDeliveries,
  replayDeliveriesInput,
  resendDelivery,
} from '../../../server/domain/deliveries.ts';
import {
  attemptDelivery,
  BUSY_WAIT_MS,
  type DeliveryRef,
  FAILING_MS_MAX,
  FAILURES_MIN,
  JITTER,
  SCHEDULES_MS,
} from '../../../server/domain/delivery-attempts.ts';
import {
  ATTEMPTS_AT_ONCE_MAX,
  claimDeliveries,
  claimUrgent,
  GRACE_MS,
  REVOCATIONS_AT_ONCE_MAX,
  Slots,
  Turns,
  UNDER_WAY_MS,
} from '../../../server/domain/delivery-claims.ts';
import {
  type Expanded,
  expandAhead,
  expandEvents,
  expandSome,
  expandUntilNow,
} from '../../../server/domain/delivery-expansion.ts';
import { listEvents } from '../../../server/domain/events.ts';
import { createMachine, createMachineInput, setMachineEnabled } from '../../../server/domain/machines.ts';
import { setSubjectEnabled } from '../../../server/domain/subjects.ts';
import {
  createWebhookEndpoint,
  createWebhookEndpointInput,
  deleteWebhookEndpoint,
  getWebhookEndpoint,
  setWebhookEndpointEnabled,
  testWebhookEndpoint,
  updateWebhookEndpoint,
  updateWebhookEndpointInput,
} from '../../../server/domain/webhook-endpoints.ts';
import { BODY_BYTES_MAX } from '../../../server/domain/webhook-messages.ts';
import { OutboundError, type OutboundResponse } from '../../../server/outbound.ts';
import {
  callerWith,
  type Dialect,
  describeOnEachDialect,
  failingAfter,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';

const admin = callerWith('admin');

interface Setting extends TestDeps {
  /** What every post is answered with. */
  answer: () => Promise<Partial<OutboundResponse> & { status: number }>;
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
      async post(url, headers, body) {
        posts.push({ url, headers, body });
        return { body: '', retryAfter: null, ...(await setting.answer()) };
      },
      get: () => Promise.reject(new Error('This test fetches nothing')),
      read: () => Promise.reject(new Error('This test fetches nothing')),
      close: async () => {},
    },
  };
  return setting;
}

/** One that has answered well, so that as many attempts as may be are made at once. */
async function subscribe(deps: TestDeps, ...eventTypes: string[]): Promise<string> {
  const input = createWebhookEndpointInput.parse({ url: 'https://example.com', eventTypes });
  const { id } = await createWebhookEndpoint(deps, admin, input);
  await deps.store.tx(({ db, tables: { webhookEndpoints: w } }) =>
    db.update(w).set({ last_success_at: deps.now() }).where(eq(w.id, id)),
  );
  return id;
}

let machines = 0;
const happen = async (deps: TestDeps) =>
  (await createMachine(deps, admin, createMachineInput.parse({ name: `machine-${++machines}` }))).id;

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
    await expandEvents(deps);
    await expandEvents(deps);
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
    await expandEvents(deps);
    expect(await list(deps)).toEqual([]);
    await happen(deps);
    await expandEvents(deps);
    expect(await list(deps)).toHaveLength(1);
  });

  it('expandEvents() owes a disabled endpoint nothing', async () => {
    const deps = await open(dialect);
    const id = await subscribe(deps);
    await deps.store.tx(async ({ db, tables: { webhookEndpoints } }) => {
      await db.update(webhookEndpoints).set({ enabled: false }).where(eq(webhookEndpoints.id, id));
    });
    await happen(deps);
    await expandEvents(deps);
    expect(await list(deps)).toEqual([]);
  });

  if (dialect === 'sqlite') {
    it('expandEvents() passes over an endpoint whose filter is no JSON, and owes the others', async () => {
      const deps = await open(dialect);
      const spoilt = await subscribe(deps, 'machine.*');
      const good = await subscribe(deps, 'machine.*');
      await deps.store.tx(async ({ db, tables: { webhookEndpoints: w } }) => {
        await db.update(w).set({ event_types: sql`'["machine.'` }).where(eq(w.id, spoilt));
      });
      await happen(deps);
      await expandEvents(deps);
      const owed = await deps.store.read.db
        .select({ endpointId: deps.store.read.tables.deliveries.endpoint_id })
        .from(deps.store.read.tables.deliveries);
      expect(owed).toEqual([{ endpointId: good }]);
    });
  }

  it('expandEvents() by many at once writes out every event exactly once', async () => {
    const deps = await open(dialect);
    for (let i = 0; i < 3; i++) await subscribe(deps, 'machine.*');
    await Promise.all(
      Array.from({ length: 40 }, async () => {
        await happen(deps);
        await expandEvents(deps);
      }),
    );
    await Promise.all(Array.from({ length: 4 }, () => expandEvents(deps)));
    const owed = await list(deps, { limit: 500 });
    expect(owed).toHaveLength(120);
    expect(new Set(owed.map((one) => `${one.endpointId} ${one.eventSeq}`)).size).toBe(120);
  });

  it('expandEvents() writes out a long backlog in bounded transactions', async () => {
    const deps = await open(dialect);
    for (let i = 0; i < 20; i++) await subscribe(deps, 'machine.*');
    for (let i = 0; i < 120; i++) await happen(deps);
    expect(await expandSome(deps)).toMatchObject({ mayBeMore: true });
    const { read } = deps.store;
    expect(await read.db.$count(read.tables.deliveries)).toBeLessThanOrEqual(1_000);
    await expandEvents(deps);
    expect(await read.db.$count(read.tables.deliveries)).toBe(2_400);
  });

  it('claimDeliveries() tells that a revocation is next, for as long as that is known', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    const ids = await Promise.all([happen(deps), happen(deps)]);
    await expandEvents(deps);
    const turns = new Turns();
    expect(turns.areUrgent).toBe(false);
    await turns.look(deps);
    expect(turns.areUrgent).toBe(false);
    for (const id of ids) await setMachineEnabled(deps, admin, id, false);
    await expandEvents(deps);
    turns.forget();
    await turns.look(deps);
    expect(turns.areUrgent).toBe(true);
    await claimDeliveries(deps, 1, turns);
    expect(turns.areUrgent).toBe(true);
    turns.forget();
    expect(turns.areUrgent).toBe(false);
  });

  /** With 400 endpoints a thousand rows are that many events. */
  const EVENTS_A_STEP = 3;

  /** Another like the first, by hand: there may be none by the API beyond a number. */
  async function insertEndpoint({ store }: TestDeps, i: number): Promise<void> {
    await store.tx(async ({ db, tables: { webhookEndpoints: w } }) => {
      const [first] = await db.select().from(w).orderBy(w.id).limit(1);
      if (first) await db.insert(w).values({ ...first, id: `${first.id}${i}` });
    });
  }

  it('expandEvents() leaves to the next call what is appended meanwhile, so that a stream of events does not keep it', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    for (let i = 1; i < 400; i++) await insertEndpoint(deps, i);
    let steps = 0;
    const amidStream: TestDeps = {
      ...deps,
      store: {
        ...deps.store,
        async tx(work, lane) {
          const done = await deps.store.tx(work, lane);
          if (lane === 'claiming' && steps++ < 10) for (let i = 0; i < EVENTS_A_STEP; i++) await happen(deps);
          return done;
        },
      },
    };
    // Of two steps.
    for (let i = 0; i < EVENTS_A_STEP + 1; i++) await happen(deps);
    await expandEvents(amidStream);
    expect(steps).toBe(2);
    await expandEvents(deps);
    const { db, tables } = deps.store.read;
    expect(await db.$count(tables.deliveries)).toBe((3 * EVENTS_A_STEP + 1) * 400);
  });

  if (dialect === 'sqlite') {
    /** What is claimed within `store.onAppend` until `work` is done. */
    async function ahead(deps: TestDeps, work: () => Promise<unknown>) {
      const expanding: Promise<Expanded>[] = [];
      // No time passes, or the batch might take no more transactions.
      const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now());
      const claimant = { turns: new Turns(), claimMax: 8 };
      const stop = deps.store.onAppend(() => expanding.push(expandAhead(deps, claimant)));
      await work();
      stop();
      const written = await list(deps);
      clock.mockRestore();
      return { written, all: await Promise.all(expanding) };
    }

    it('expandAhead() writes out and claims what falls due with a transaction that is not committed yet, with it', async () => {
      const deps = await open(dialect);
      const endpointId = await subscribe(deps, 'machine.*');
      const { written, all } = await ahead(deps, () => happen(deps));
      // Both were there as soon as the change was.
      expect(written).toMatchObject([{ endpointId, attempt: 1 }]);
      expect(all).toMatchObject([{ claimed: [{ endpointId, attempt: 1, urgent: false }], isLeft: false }]);
      expect(await claimDeliveries(deps, 8)).toEqual([]);
      const [claim] = all[0]?.claimed ?? [];
      expect(await attemptDelivery(deps, claim as DeliveryRef)).toMatchObject({ outcome: 'delivered' });
    });

    it('expandAhead() finds nothing of a transaction that failed', async () => {
      const deps = await open(dialect);
      await subscribe(deps, 'machine.*');
      const failing = failingAfter(deps, async () => true);
      const { written, all } = await ahead(deps, () => expect(happen(failing)).rejects.toThrow('poisoned'));
      expect(written).toEqual([]);
      expect(all).toMatchObject([{ claimed: [], isLeft: false }]);
      await happen(deps);
      await expandEvents(deps);
      expect(await list(deps)).toHaveLength(1);
    });

    it('expandAhead() leaves to others what would hold up the transaction', async () => {
      const deps = await open(dialect);
      for (let i = 0; i < 17; i++) await subscribe(deps, 'machine.*');
      const { written, all } = await ahead(deps, () => happen(deps));
      expect(written).toEqual([]);
      expect(all).toMatchObject([{ claimed: [] }]);
      await expandEvents(deps);
      expect(await list(deps)).toHaveLength(17);
    });
  }

  it('expandEvents() claims with the writing out what can be sent at once, and nothing that something goes before', async () => {
    const deps = await open(dialect);
    const one = await subscribe(deps, 'machine.*');
    const turns = new Turns();
    const expand = (claimMax: number) => expandEvents(deps, { turns, claimMax });
    const id = await happen(deps);
    expect(await expand(0)).toMatchObject({ claimed: [], isLeft: true });
    // The one before it is due.
    await happen(deps);
    expect(await expand(8)).toMatchObject({ claimed: [], isLeft: true });
    // A revocation goes before both.
    await setMachineEnabled(deps, admin, id, false);
    const { claimed, isLeft } = await expand(8);
    expect(claimed).toEqual([{ id: expect.any(String), attempt: 1, endpointId: one, urgent: true }]);
    expect(isLeft).toBe(false);
    const rest = await claimDeliveries(deps, 32);
    expect(rest.map((claim) => claim.id)).not.toContain(claimed[0]?.id);
    expect(rest).toHaveLength(2);
    expect(await attemptDelivery(deps, claimed[0] as DeliveryRef)).toMatchObject({ outcome: 'delivered' });
  });

  it('expandEvents() claims no more than it is told, nor than may be under way at an endpoint', async () => {
    const deps = await open(dialect);
    const one = await subscribe(deps, 'machine.*');
    const turns = new Turns();
    for (let i = 0; i < 3; i++) await happen(deps);
    const few = await expandEvents(deps, { turns, claimMax: 2 });
    expect(few).toMatchObject({ claimed: [{ attempt: 1 }, { attempt: 1 }], isLeft: true });
    expect(await claimDeliveries(deps, 1)).toHaveLength(1);

    for (let i = 0; i < 3; i++) await happen(deps);
    const more = await expandEvents(deps, { turns, claimMax: 32 });
    expect(more).toMatchObject({ claimed: [{ endpointId: one }], isLeft: true });
    expect(await claimDeliveries(deps, 32)).toEqual([]);
  });

  it('expandEvents() claims nothing twice where others were faster at the first step', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    const claimed: string[] = [];
    for (let i = 0; i < 3; i++) {
      await happen(deps);
      const claimant = { turns: new Turns(), claimMax: 4 };
      const [faster, slower] = await Promise.all([
        expandSome(deps, claimant),
        expandEvents(deps, claimant),
        happen(deps),
      ]);
      const claims = [...faster.claimed, ...slower.claimed];
      claimed.push(...claims.map(({ id, attempt }) => `${id} ${attempt}`));
      for (const claim of [...claims, ...(await claimDeliveries(deps, 32))])
        await attemptDelivery(deps, claim);
    }
    expect(claimed.length).toBeGreaterThan(0);
    expect(new Set(claimed).size).toBe(claimed.length);
  });

  it('expandEvents() claims nothing for an endpoint that asked for patience', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    deps.answer = async () => ({ status: 429 });
    await happen(deps);
    const turns = new Turns();
    const { claimed } = await expandEvents(deps, { turns, claimMax: 8 });
    await attemptDelivery(deps, claimed[0] as DeliveryRef);
    await happen(deps);
    expect(await expandEvents(deps, { turns, claimMax: 8 })).toMatchObject({ claimed: [], isLeft: true });
  });

  it('attempts that were lost take room no longer than an attempt may last', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    for (let i = 0; i < ATTEMPTS_AT_ONCE_MAX + 1; i++) await happen(deps);
    await expandEvents(deps);
    const lost = (await claimDeliveries(deps, 32)).map(({ id }) => id);
    expect(lost).toHaveLength(ATTEMPTS_AT_ONCE_MAX);
    deps.clock.now += UNDER_WAY_MS - 1;
    expect(await claimDeliveries(deps, 32)).toEqual([]);
    deps.clock.now += 1;
    const [next] = await claimDeliveries(deps, 32);
    expect(lost).not.toContain(next?.id);
    await happen(deps);
    const { claimed } = await expandEvents(deps, { turns: new Turns(), claimMax: 8 });
    expect(claimed).toHaveLength(1);
    deps.clock.now += GRACE_MS - UNDER_WAY_MS;
    const again = await claimDeliveries(deps, 2);
    expect(lost).toEqual(expect.arrayContaining(again.map(({ id }) => id)));
  });

  it('an attempt that ended takes no room, also before its row says so', async () => {
    const deps = await open(dialect);
    const one = await subscribe(deps, 'machine.*');
    for (let i = 0; i < ATTEMPTS_AT_ONCE_MAX + 2; i++) await happen(deps);
    await expandEvents(deps);
    const turns = new Turns();
    expect(await claimDeliveries(deps, 32, turns)).toHaveLength(ATTEMPTS_AT_ONCE_MAX);
    const claimAnew = () => {
      turns.forget();
      return claimDeliveries(deps, 32, turns);
    };
    expect(await claimAnew()).toEqual([]);
    turns.ended(one);
    expect(await claimAnew()).toHaveLength(1);
    expect(await claimAnew()).toEqual([]);
    // As if it was written down: had it been, one more could begin.
    turns.recorded(one);
    expect(await claimAnew()).toEqual([]);
  });

  it('revocations are claimed ahead of their attempts, which begin as others end, and no more of them are under way', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    const ids: string[] = [];
    for (let i = 0; i < REVOCATIONS_AT_ONCE_MAX + 1; i++) ids.push(await happen(deps));
    await expandEvents(deps);
    expect(await claimDeliveries(deps, 32)).toHaveLength(ATTEMPTS_AT_ONCE_MAX);
    for (const id of ids) await setMachineEnabled(deps, admin, id, false);
    await expandEvents(deps);
    // Beside what is under way, of other events.
    const claims = await claimDeliveries(deps, 32);
    expect(claims).toHaveLength(REVOCATIONS_AT_ONCE_MAX - ATTEMPTS_AT_ONCE_MAX);
    expect(claims.every(({ urgent }) => urgent)).toBe(true);
    expect(await claimDeliveries(deps, 32)).toEqual([]);

    const slots = new Slots();
    const ends: (() => void)[] = [];
    let underWay = 0;
    const attempts = Array.from({ length: REVOCATIONS_AT_ONCE_MAX }, () =>
      slots.run('one', async (hasWaited) => {
        underWay++;
        expect(underWay).toBeLessThanOrEqual(ATTEMPTS_AT_ONCE_MAX);
        await new Promise<void>((resolve) => ends.push(resolve));
        underWay--;
        return hasWaited;
      }),
    );
    const elsewhere = await slots.run('other', async () => 'at once');
    expect(elsewhere).toBe('at once');
    for (let i = 0; i < attempts.length; i++) {
      await vi.waitFor(() => expect(ends.length).toBeGreaterThan(i));
      ends[i]?.();
    }
    const waited = await Promise.all(attempts);
    expect(waited.filter((one) => one === true)).toHaveLength(REVOCATIONS_AT_ONCE_MAX - ATTEMPTS_AT_ONCE_MAX);
  });

  it('attemptDelivery() puts back what waits too long for others at its endpoint, and then it can be claimed again', async () => {
    const deps = await open(dialect);
    const one = await subscribe(deps, 'machine.*');
    const id = await happen(deps);
    await setMachineEnabled(deps, admin, id, false);
    await expandEvents(deps);
    const claims = await claimDeliveries(deps, 1);
    const slots = new Slots();
    const hanging = Array.from({ length: ATTEMPTS_AT_ONCE_MAX }, () => slots.run(one, () => sleep(5_000)));
    const ended: string[] = [];
    const attempter = { slots, onEnd: (endpointId: string) => void ended.push(endpointId) };
    expect(await attemptDelivery(deps, claims[0] as DeliveryRef, attempter)).toBeNull();
    expect(ended).toEqual([one]);
    expect(deps.posts).toEqual([]);
    expect(await claimDeliveries(deps, 1)).toMatchObject([{ id: claims[0]?.id, attempt: 2, urgent: true }]);
    await Promise.all(hanging);
  });

  it('attemptDelivery() puts back what waits at an endpoint where an attempt fails', async () => {
    const deps = await open(dialect);
    const one = await subscribe(deps, 'machine.*');
    const ids: string[] = [];
    for (let i = 0; i < REVOCATIONS_AT_ONCE_MAX; i++) ids.push(await happen(deps));
    for (const id of ids) await setMachineEnabled(deps, admin, id, false);
    await expandEvents(deps);
    const claims = await claimDeliveries(deps, REVOCATIONS_AT_ONCE_MAX);
    expect(claims).toHaveLength(REVOCATIONS_AT_ONCE_MAX);
    deps.answer = async () => ({ status: 500 });
    const attempter = { slots: new Slots(), onEnd() {} };
    const outcomes = await Promise.all(claims.map((claim) => attemptDelivery(deps, claim, attempter)));
    expect(outcomes.map((outcome) => outcome?.outcome ?? null)).toEqual([
      ...Array(ATTEMPTS_AT_ONCE_MAX).fill('failed'),
      ...Array(ATTEMPTS_AT_ONCE_MAX).fill(null),
    ]);
    expect(deps.posts).toHaveLength(ATTEMPTS_AT_ONCE_MAX);
    // One at a time, as it is with who has failed.
    expect(await claimDeliveries(deps, 32)).toMatchObject([{ endpointId: one, attempt: 2, urgent: true }]);
  });

  it('claimUrgent() takes revocations that were seen to be next, and nothing else', async () => {
    const deps = await open(dialect);
    const [one, two] = [await subscribe(deps, 'machine.*'), await subscribe(deps, 'machine.created')];
    const id = await happen(deps);
    await setMachineEnabled(deps, admin, id, false);
    await expandEvents(deps);
    const turns = new Turns(() => 0);
    expect(await claimUrgent(deps, 32, turns)).toEqual([]);
    await turns.look(deps);
    expect(await claimUrgent(deps, 32, turns)).toMatchObject([{ endpointId: one, urgent: true }]);
    expect(await claimUrgent(deps, 32, turns)).toEqual([]);
    const rest = await claimDeliveries(deps, 32, turns);
    expect(new Set(rest.map(({ endpointId }) => endpointId))).toEqual(new Set([one, two]));
    expect(rest.some(({ urgent }) => urgent)).toBe(false);
  });

  it('attemptDelivery() sends nothing to an endpoint that was disabled while it waited for others there', async () => {
    const deps = await open(dialect);
    const one = await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandEvents(deps);
    const [claim] = await claimDeliveries(deps, 1);
    const slots = new Slots();
    let end: () => void = () => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const others = Array.from({ length: ATTEMPTS_AT_ONCE_MAX }, () => slots.run(one, () => ended));
    const attempt = attemptDelivery(deps, claim as DeliveryRef, { slots, onEnd() {} });
    await setWebhookEndpointEnabled(deps, admin, { id: one }, false);
    end();
    await Promise.all(others);
    expect(await attempt).toBeNull();
    expect(deps.posts).toEqual([]);
  });

  it('attemptDelivery() says that an attempt ended before it is recorded', async () => {
    const deps = await open(dialect);
    const one = await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandEvents(deps);
    const [claim] = await claimDeliveries(deps, 1);
    const states: string[] = [];
    let read: Promise<unknown> | undefined;
    await attemptDelivery(deps, claim as DeliveryRef, {
      slots: new Slots(),
      onEnd(endpointId) {
        states.push(endpointId);
        read = list(deps).then(([delivery]) => states.push(delivery?.state ?? 'none'));
      },
    });
    await read;
    expect(states).toEqual([one, 'pending']);
  });

  it('claimDeliveries() gives each to exactly one of many, revocations first', async () => {
    const deps = await open(dialect);
    for (let i = 0; i < 10; i++) await subscribe(deps, 'machine.*');
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) ids.push(await happen(deps));
    await setMachineEnabled(deps, admin, ids[0] ?? '', false);
    await expandEvents(deps);
    const first = await claimDeliveries(deps, 10);
    expect(first).toHaveLength(10);
    expect(first.every((claim) => claim.urgent && claim.attempt === 1)).toBe(true);
    const claims = (await Promise.all(Array.from({ length: 10 }, () => claimDeliveries(deps, 4)))).flat();
    while (claims.length < 30) {
      const more = await claimDeliveries(deps, 4);
      expect(more).not.toEqual([]);
      claims.push(...more);
    }
    expect(new Set([...first, ...claims].map((claim) => claim.id)).size).toBe(40);
    expect(claims.every((claim) => !claim.urgent && claim.attempt === 1)).toBe(true);
    expect(await claimDeliveries(deps, 4)).toEqual([]);
  });

  it('claimDeliveries() with turns seen before keeps to the cap, and ends where others were faster', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    await subscribe(deps, 'machine.*');
    const ids: string[] = [];
    for (let i = 0; i < 3; i++) ids.push(await happen(deps));
    for (const id of ids) await setMachineEnabled(deps, admin, id, false);
    await expandEvents(deps);
    // Three revocations and three others of each of two endpoints, claimed one by one without looking again.
    const turns = new Turns();
    const claimed: { id: string; urgent: boolean }[] = [];
    for (let more = await claimDeliveries(deps, 1, turns); more.length > 0; ) {
      claimed.push(...more);
      more = await claimDeliveries(deps, 1, turns);
    }
    expect(new Set(claimed.map(({ id }) => id)).size).toBe(2 * ATTEMPTS_AT_ONCE_MAX);
    expect(claimed.map(({ urgent }) => urgent)).toEqual([...Array(6).fill(true), ...Array(2).fill(false)]);

    // What these turns promise is claimed by somebody else before they are taken.
    deps.clock.now += GRACE_MS;
    const late = new Turns();
    await late.look(deps);
    const faster = await claimDeliveries(deps, 32);
    expect(faster).toHaveLength(2 * ATTEMPTS_AT_ONCE_MAX);
    const rest = [...(await claimDeliveries(deps, 1, late)), ...(await claimDeliveries(deps, 31, late))];
    const all = [...faster, ...rest].map(({ id }) => id);
    expect(new Set(all).size).toBe(all.length);
  });

  it('claimDeliveries() finds nothing without looking for a moment, unless something new or due is to be seen', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    let at = 0;
    const turns = new Turns(() => at);
    const claim = async () => (await claimDeliveries(deps, 32, turns)).length;
    expect(await claim()).toBe(0);
    await happen(deps);
    await expandEvents(deps);
    at = 49;
    expect(await claim()).toBe(0);
    turns.forget();
    expect(await claim()).toBe(1);

    // The one that was claimed is due again after its grace, and that is known.
    turns.forget();
    expect(await claim()).toBe(0);
    deps.clock.now += GRACE_MS;
    expect(await claim()).toBe(1);
    await happen(deps);
    await expandEvents(deps);
    expect(await claim()).toBe(0);
    at += 50;
    expect(await claim()).toBe(1);
  });

  it('an endpoint whose attempts are as many as may be goes on when one of them ends, without looking', async () => {
    const deps = await open(dialect);
    const one = await subscribe(deps, 'machine.created');
    for (let i = 0; i < 10; i++) await happen(deps);
    await expandEvents(deps);
    let at = 0;
    const turns = new Turns(() => at);
    const [first, ...others] = await claimDeliveries(deps, 32, turns);
    expect(others).toHaveLength(ATTEMPTS_AT_ONCE_MAX - 1);
    expect(await claimDeliveries(deps, 32, turns)).toEqual([]);
    if (first) await attemptDelivery(deps, first);
    expect(turns.ended('ep_of_nothing')).toBe(false);
    expect(await claimDeliveries(deps, 32, turns)).toEqual([]);
    expect(turns.ended(one)).toBe(true);
    expect(await claimDeliveries(deps, 32, turns)).toHaveLength(1);
    expect(await claimDeliveries(deps, 32, turns)).toEqual([]);

    // Somebody who finds them all under way hears of the end of one too.
    const late = new Turns(() => at);
    expect(await claimDeliveries(deps, 32, late)).toEqual([]);
    if (others[0]) await attemptDelivery(deps, others[0]);
    expect(late.ended(one)).toBe(true);
    expect(await claimDeliveries(deps, 32, late)).toHaveLength(1);
    at = 50;
    expect(turns.ended('ep_of_nothing')).toBe(true);
  });

  it('while others wait for room in the process nothing waits for an end alone, and a revocation stays ahead', async () => {
    const deps = await open(dialect);
    const one = await subscribe(deps, 'machine.created');
    const two = await subscribe(deps, 'machine.*');
    const ids: string[] = [];
    for (let i = 0; i < 10; i++) ids.push(await happen(deps));
    for (const id of ids) await setMachineEnabled(deps, admin, id, false);
    await expandEvents(deps);
    const turns = new Turns(() => 0);
    const claim = async (limit: number) => {
      const claimed = await claimDeliveries(deps, limit, turns);
      return Promise.all(
        claimed.map(async (ref) => [(await getDelivery(deps, ref)).endpointId, ref.urgent] as const),
      );
    };
    const urgent = Array(REVOCATIONS_AT_ONCE_MAX).fill([two, true]);
    expect(await claim(REVOCATIONS_AT_ONCE_MAX + 2)).toEqual([...urgent, [one, false], [one, false]]);
    expect(turns.ended(two)).toBe(false);
    expect(await claim(2)).toEqual([
      [two, true],
      [one, false],
    ]);
  });

  it('claimDeliveries() takes no more of one endpoint than may be under way, and of the others what is due', async () => {
    const deps = await open(dialect);
    const hanging = await subscribe(deps, 'machine.*');
    for (let i = 0; i < 100; i++) await happen(deps);
    await expandEvents(deps);
    deps.clock.now += 10;
    const other = await subscribe(deps, 'machine.*');
    const id = await happen(deps);
    await setMachineEnabled(deps, admin, id, false);
    await expandEvents(deps);
    const claimed = await claimDeliveries(deps, 32);
    const endpointOf = async (ref: { id: string }) => (await getDelivery(deps, ref)).endpointId;
    const of = async (endpointId: string) =>
      (await Promise.all(claimed.map(endpointOf))).filter((one) => one === endpointId).length;
    expect([await of(hanging), await of(other)]).toEqual([ATTEMPTS_AT_ONCE_MAX, 2]);
    expect(await claimDeliveries(deps, 32)).toEqual([]);

    // The end of one attempt makes room for one.
    const [ended] = claimed.filter((claim) => !claim.urgent);
    if (ended) await attemptDelivery(deps, ended);
    expect(await claimDeliveries(deps, 32)).toHaveLength(1);
    // And a lost one counts no longer than it may take.
    deps.clock.now += GRACE_MS;
    expect((await claimDeliveries(deps, 32)).length).toBeGreaterThanOrEqual(ATTEMPTS_AT_ONCE_MAX);
  });

  it.each<[string, (deps: TestDeps) => Record<string, number | null>, number]>([
    ['never answered', () => ({ last_success_at: null }), 1],
    ['answered well over an hour ago', (deps) => ({ last_success_at: deps.now() - 3_600_001 }), 1],
    ['failed since it answered well', (deps) => ({ failing_since: deps.now() }), 1],
    ['answered well an hour ago', (deps) => ({ last_success_at: deps.now() - 3_600_000 }), 4],
  ])('claimDeliveries() of an endpoint that %s', async (_, rowOf, count) => {
    const deps = await open(dialect);
    const id = await subscribe(deps, 'machine.*');
    await deps.store.tx(({ db, tables: { webhookEndpoints: w } }) =>
      db.update(w).set(rowOf(deps)).where(eq(w.id, id)),
    );
    for (let i = 0; i < 6; i++) await happen(deps);
    await expandEvents(deps);
    expect(await claimDeliveries(deps, 32)).toHaveLength(count);
  });

  it('claimDeliveries() takes the longest due first', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    for (let i = 0; i < 4; i++) {
      await happen(deps);
      await expandEvents(deps);
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
    await expandEvents(deps);
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

  it('attemptDelivery() of an answer that comes after the grace leaves it to who claimed it since', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandEvents(deps);
    const [slow] = await claimDeliveries(deps, 1);
    deps.answer = async () => {
      deps.clock.now += GRACE_MS;
      await claimDeliveries(deps, 1);
      return { status: 500 };
    };
    expect(slow && (await attemptDelivery(deps, slow))).toBeNull();
    expect(await list(deps)).toMatchObject([{ state: 'pending', attempt: 2, lastStatus: null }]);
  });

  it('what is owed to an endpoint that is deleted is removed with it, and not sent', async () => {
    const deps = await open(dialect);
    const id = await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandEvents(deps);
    const [claim] = await claimDeliveries(deps, 1);
    await deleteWebhookEndpoint(deps, admin, { id });
    expect(claim && (await attemptDelivery(deps, claim))).toBeNull();
    expect(await list(deps)).toEqual([]);
    expect(deps.posts).toEqual([]);
  });

  it('attemptDelivery() says how long after its event the first attempt and the delivery came', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandEvents(deps);
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
      await expandEvents(deps);
      deps.answer = async () => ({ status });
      const [claim] = await claimDeliveries(deps, 1);
      expect(claim && (await attemptDelivery(deps, claim))).toMatchObject({ outcome: 'failed', status });
    },
  );

  it('a claim of which nothing is heard again uses up nothing of the schedule', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandEvents(deps);
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
    await expandEvents(deps);
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
    await expandEvents(deps);
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
    await expandEvents(deps);
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

  /** One delivery to one endpoint, and the first attempt at it, which is answered so. */
  async function attempted(answer: Partial<OutboundResponse> & { status: number }, isUrgent = false) {
    const deps = await open(dialect);
    const endpointId = await subscribe(deps, isUrgent ? 'machine.disabled' : 'machine.created');
    const id = await happen(deps);
    if (isUrgent) await setMachineEnabled(deps, admin, id, false);
    await expandEvents(deps);
    deps.answer = async () => answer;
    const attempt = async () => {
      const [claim] = await claimDeliveries(deps, 1);
      return claim && attemptDelivery(deps, claim);
    };
    const result = await attempt();
    const [delivery] = await list(deps);
    const waitMs = (delivery?.nextAt ?? 0) - deps.clock.now;
    const endpoint = () => getWebhookEndpoint(deps, { id: endpointId });
    return { deps, endpointId, delivery, deliveryId: delivery?.id ?? '', waitMs, result, attempt, endpoint };
  }

  it.each([
    ['1', 5_000],
    ['7', 7_000],
    ['3600', 10_000],
    ['-1', null],
    ['soon', null],
  ])('Retry-After %s is honoured from once to twice the scheduled wait', async (retryAfter, wantedMs) => {
    const { waitMs } = await attempted({ status: 503, retryAfter });
    if (wantedMs === null) expect(Math.abs(waitMs - 5_000)).toBeLessThanOrEqual(1_000);
    else expect(waitMs).toBe(wantedMs);
  });

  it('Retry-After may be a date', async () => {
    const retryAfter = new Date(Date.UTC(2026, 0, 6, 12) + 8_000).toUTCString();
    expect((await attempted({ status: 503, retryAfter })).waitMs).toBe(8_000);
  });

  it.each([429, 502, 504])('after %i the endpoint is left alone for a minute', async (status) => {
    const { deps, waitMs, endpoint, attempt } = await attempted({ status }, true);
    expect(waitMs).toBeGreaterThanOrEqual(BUSY_WAIT_MS);
    const { throttledUntil } = await endpoint();
    expect(throttledUntil).toBeGreaterThanOrEqual(deps.clock.now + BUSY_WAIT_MS);
    await subscribe(deps, 'machine.deleted');
    await setMachineEnabled(deps, admin, await happen(deps), false);
    await expandEvents(deps);
    deps.clock.now += BUSY_WAIT_MS - 1;
    expect(await claimDeliveries(deps, 10)).toEqual([]);
    deps.clock.now = Math.max(throttledUntil ?? 0, deps.clock.now + waitMs);
    deps.answer = async () => ({ status: 200 });
    expect(await attempt()).toMatchObject({ outcome: 'delivered' });
    expect(await endpoint()).toMatchObject({ throttledUntil: null, failingSince: null });
  });

  it('410 disables the endpoint at once, by one event; what is owed waits until it is enabled', async () => {
    const { deps, endpointId, result, endpoint, deliveryId } = await attempted({ status: 410 });
    expect(result).toMatchObject({ outcome: 'failed', disabled: 'gone' });
    expect(await endpoint()).toMatchObject({ enabled: false, disabledReason: 'gone' });
    const { data } = await listEvents(deps, { after: 3, limit: 10 });
    expect(data).toMatchObject([
      {
        type: 'webhook_endpoint.disabled',
        objectId: endpointId,
        actor: { kind: 'system', id: 'webhooks' },
        data: { host: 'example.com', reason: 'gone' },
      },
    ]);
    deps.clock.now += 86_400_000;
    expect(await claimDeliveries(deps, 10)).toEqual([]);
    await happen(deps);
    await expandEvents(deps);
    expect(await list(deps)).toMatchObject([{ id: deliveryId, state: 'pending' }]);
    await setWebhookEndpointEnabled(deps, admin, { id: endpointId }, true);
    expect(await endpoint()).toMatchObject({ enabled: true, disabledReason: null, failingSince: null });
    expect(await claimDeliveries(deps, 10)).toMatchObject([{ id: deliveryId, attempt: 2 }]);
  });

  /** An endpoint that failed for the first time five days ago less a moment, and a delivery that failed all but once too often. */
  async function failing() {
    const setting = await attempted({ status: 500 });
    const since = setting.deps.clock.now;
    for (let failures = 2; failures < FAILURES_MIN; failures++) {
      setting.deps.clock.now += FAILING_MS_MAX / FAILURES_MIN;
      expect(await setting.attempt()).toMatchObject({ disabled: null });
    }
    setting.deps.clock.now = since + FAILING_MS_MAX - 1;
    return { ...setting, since };
  }

  it('an endpoint that only fails for five days is disabled, and not a moment before', async () => {
    const { deps, endpointId, endpoint, attempt, since } = await failing();
    expect(await attempt()).toMatchObject({ disabled: null });
    expect(await endpoint()).toMatchObject({ enabled: true, failingSince: since });
    deps.clock.now = since + 10 * FAILING_MS_MAX;
    expect(await attempt()).toMatchObject({ disabled: 'failing' });
    expect(await endpoint()).toMatchObject({ enabled: false, disabledReason: 'failing' });
    await setWebhookEndpointEnabled(deps, admin, { id: endpointId }, true);
    await happen(deps);
    await expandEvents(deps);
    expect(await attempt()).toMatchObject({ disabled: null });
  });

  it('two failures with five days between, in which nothing was tried, disable nobody', async () => {
    const { deps, attempt, endpoint } = await attempted({ status: 500 });
    deps.clock.now += 2 * FAILING_MS_MAX;
    expect(await attempt()).toMatchObject({ outcome: 'failed', disabled: null });
    expect(await endpoint()).toMatchObject({ enabled: true });
  });

  it('an endpoint is not disabled for what another attempt, or another URL, has made untrue meanwhile', async () => {
    for (const meanwhile of ['success', 'url'] as const) {
      for (const status of meanwhile === 'url' ? [500, 410, 429] : [500]) {
        const { deps, endpointId, attempt, endpoint } = await failing();
        deps.clock.now += 1;
        const { webhookEndpoints: w } = deps.store.read.tables;
        deps.answer = async () => {
          if (meanwhile === 'success')
            await deps.store.tx(({ db }) => db.update(w).set({ failing_since: null }));
          else await updateWebhookEndpoint(deps, admin, { id: endpointId, url: 'https://example.com/new' });
          return { status };
        };
        expect(await attempt()).toMatchObject({ outcome: 'failed' });
        expect(await endpoint()).toMatchObject({ enabled: true, failingSince: null, throttledUntil: null });
      }
    }
  });

  it('one success within five days begins them anew', async () => {
    const { deps, endpoint, attempt } = await attempted({ status: 500 });
    deps.answer = async () => ({ status: 200 });
    deps.clock.now += 10_000;
    await attempt();
    expect(await endpoint()).toMatchObject({ failingSince: null, lastSuccessAt: deps.clock.now });
  });

  it('what goes wrong on our side is not held against the endpoint', async () => {
    const { deps, endpointId, attempt, endpoint } = await attempted({ status: 200 });
    await deps.store.tx(async ({ db, tables: { webhookEndpoints } }) => {
      const broken = { sealed_secret: Buffer.from('not sealed by us') };
      await db.update(webhookEndpoints).set(broken).where(eq(webhookEndpoints.id, endpointId));
    });
    await happen(deps);
    await expandEvents(deps);
    expect(await attempt()).toMatchObject({ outcome: 'failed', cause: expect.any(Error) });
    expect(await endpoint()).toMatchObject({ failingSince: null });
  });

  it('a row that cannot be read is a failed attempt, and dies by the schedule', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.*');
    await happen(deps);
    await expandEvents(deps);
    await deps.store.tx(async ({ db, tables: { events } }) => {
      await db.update(events).set({ data: sql`'not JSON'` });
    });
    const outcomes: unknown[] = [];
    for (let i = 0; i < (SCHEDULES_MS[1]?.length ?? 0); i++) {
      const [claim] = await claimDeliveries(deps, 1);
      const attempted = claim && (await attemptDelivery(deps, claim));
      expect(attempted).toMatchObject({ disabled: null, status: null, cause: expect.any(Error) });
      outcomes.push(attempted?.outcome);
      deps.clock.now += 2 * 86_400_000;
    }
    expect(outcomes).toEqual([...Array(outcomes.length - 1).fill('failed'), 'dead']);
    expect(await list(deps)).toMatchObject([
      { state: 'dead', lastError: 'The webhook could not be made or sent' },
    ]);
    expect(deps.posts).toEqual([]);
  });

  it.each(['delivered', 'failed', 'waiting'] as const)(
    'what is sent once more after it was %s is not counted among how long deliveries take',
    async (before) => {
      const { deps, deliveryId, attempt } = await attempted({ status: before === 'delivered' ? 200 : 500 });
      if (before === 'failed') {
        const { deliveries } = deps.store.read.tables;
        await deps.store.tx(({ db }) => db.update(deliveries).set({ state: 'dead' }));
      }
      deps.clock.now += 86_400_000;
      await resendDelivery(deps, admin, { id: deliveryId });
      deps.answer = async () => ({ status: 500 });
      await attempt();
      deps.clock.now += 10_000;
      deps.answer = async () => ({ status: 200 });
      expect(await attempt()).toMatchObject({
        outcome: 'delivered',
        firstAttemptMs: undefined,
        deliveredMs: undefined,
      });
    },
  );

  it('what happened before an endpoint was disabled or changed is owed by what it wanted then', async () => {
    const deps = await open(dialect);
    const disabled = await subscribe(deps, 'machine.created');
    const narrowed = await subscribe(deps, 'machine.created');
    const disable = (enabled: boolean) => setWebhookEndpointEnabled(deps, admin, { id: disabled }, enabled);
    const want = (...eventTypes: string[]) =>
      updateWebhookEndpoint(deps, admin, updateWebhookEndpointInput.parse({ id: narrowed, eventTypes }));
    await happen(deps);
    await disable(false);
    await want('machine.deleted');
    await happen(deps);
    await disable(true);
    await want('machine.created');
    await expandEvents(deps);
    // Sequences: 1 installation, 2 and 3 endpoints, 4 machine, 5 and 6 changes, 7 machine.
    const owed = async (endpointId: string) => (await list(deps, { endpointId })).map((one) => one.eventSeq);
    expect([await owed(disabled), await owed(narrowed)]).toEqual([[4], [4]]);
  });

  it('what happens in the moment of disabling is owed too, and nothing happens between that and its event', async () => {
    const deps = await open(dialect);
    const id = await subscribe(deps, 'machine.created');
    await expandEvents(deps);
    /** As if a machine were created after all was written out, and before the transaction. */
    const lateDeps = (): TestDeps => {
      let isFirst = true;
      const tx: TestDeps['store']['tx'] = async (work, lane) => {
        if (isFirst) await happen(deps);
        isFirst = false;
        return deps.store.tx(work, lane);
      };
      return { ...deps, store: { ...deps.store, tx } };
    };
    await updateWebhookEndpoint(lateDeps(), admin, { id, subjects: ['user_1'] });
    expect((await list(deps)).map((one) => one.eventSeq)).toEqual([3]);
    await updateWebhookEndpoint(deps, admin, { id, subjects: null });
    await expandEvents(deps);
    await setWebhookEndpointEnabled(lateDeps(), admin, { id }, false);
    expect((await list(deps)).map((one) => one.eventSeq)).toEqual([6, 3]);
    // SQLite has one writer anyhow.
    if (dialect === 'sqlite') return;

    const last = async () => (await listEvents(deps, { after: 0, limit: 100 })).data.at(-1)?.type;
    let happening: Promise<unknown> | undefined;
    await deps.store.tx(async (tx) => {
      await expandUntilNow(tx, deps);
      happening = happen(deps);
      await new Promise((resolve) => setTimeout(resolve, 200));
      expect(await last()).toBe('webhook_endpoint.disabled');
    });
    await happening;
    expect(await last()).toBe('machine.created');
  });

  it('getDelivery() answers the attempts with what the receiver said, the latest first', async () => {
    const { deps, deliveryId, attempt } = await attempted({ status: 500, body: 'no <b>thanks</b>' });
    deps.clock.now += 10_000;
    deps.answer = async () => {
      deps.clock.now += 30;
      return { status: 200, body: 'ok' };
    };
    await attempt();
    const end = deps.clock.now;
    expect(await getDelivery(deps, { id: deliveryId })).toMatchObject({
      state: 'delivered',
      attempts: [
        { attempt: 2, beganAt: end - 30, endedAt: end, status: 200, error: null, response: 'ok' },
        {
          attempt: 1,
          status: 500,
          error: 'Wanted a status from 200 to 299, got 500',
          response: 'no <b>thanks</b>',
        },
      ],
    });
    await expect(getDelivery(deps, { id: `dlv_${'0'.repeat(27)}` })).rejects.toMatchObject({
      code: 'not_found',
    });
  });

  it('resendDelivery() sends once more what was delivered, with the same id, and not while it is under way', async () => {
    const { deps, deliveryId, attempt } = await attempted({ status: 200 });
    const again = { id: deliveryId };
    expect(await resendDelivery(deps, admin, again)).toMatchObject({
      state: 'pending',
      nextAt: deps.clock.now,
    });
    deps.answer = async () => {
      await expect(resendDelivery(deps, admin, again)).rejects.toMatchObject({ code: 'wrong_state' });
      return { status: 200 };
    };
    expect(await attempt()).toMatchObject({ outcome: 'delivered' });
    expect(deps.posts.map((post) => post.headers['webhook-id'])).toEqual(
      Array(2).fill(deps.posts[0]?.headers['webhook-id']),
    );
    await expect(resendDelivery(deps, admin, { id: `dlv_${'0'.repeat(27)}` })).rejects.toMatchObject({
      code: 'not_found',
    });
  });

  it('replayDeliveries() puts back what was given up, or all, of an endpoint or a time', async () => {
    const deps = await open(dialect);
    const one = await subscribe(deps, 'machine.created');
    await subscribe(deps, 'machine.created');
    for (let i = 0; i < 4; i++) {
      await happen(deps);
      await expandEvents(deps);
      deps.clock.now += 1_000;
    }
    const { deliveries } = deps.store.read.tables;
    const end = (state: 'dead' | 'delivered') =>
      deps.store.tx(async ({ db }) => void (await db.update(deliveries).set({ state, failures: 10 })));
    const replay = (input: Record<string, unknown>) =>
      replayDeliveries(deps, admin, replayDeliveriesInput.parse(input));
    await end('dead');
    expect(await replay({ endpointId: one })).toMatchObject({ count: 4, isComplete: true });
    expect(await replay({ endpointId: one })).toMatchObject({ count: 0, isComplete: true });
    const from = deps.clock.now - 3_000;
    expect(await replay({ from, to: from + 1_000 })).toMatchObject({ count: 1, isComplete: true });
    expect(await list(deps, { state: 'pending' })).toHaveLength(5);
    await end('delivered');
    expect(await replay({ from })).toMatchObject({ count: 0 });
    expect(await replay({ from, which: 'all' })).toMatchObject({ count: 6 });
    await expect(replay({})).rejects.toMatchObject({ code: 'invalid_input' });
  });

  /** Rows of deliveries that ended, as if of events long ago; one a second. */
  const endedRows = (deps: TestDeps, endpointId: string, count: number) =>
    Array.from({ length: count }, (_, i) => ({
      id: `dlv_${String(i).padStart(27, '0')}`,
      event_seq: 1_000 + i,
      endpoint_id: endpointId,
      state: 'delivered' as const,
      priority: 1,
      attempt: 1,
      next_at: deps.clock.now + i * 1_000,
      created_at: deps.clock.now + i * 1_000,
    }));

  async function insertRows(deps: TestDeps, rows: ReturnType<typeof endedRows>) {
    const { deliveries } = deps.store.read.tables;
    await deps.store.tx(async ({ db }) => {
      for (let i = 0; i < rows.length; i += 500) await db.insert(deliveries).values(rows.slice(i, i + 500));
    });
  }

  it('replayDeliveries() of all sends each once more and ends, though what it put back is delivered meanwhile', async () => {
    const deps = await open(dialect);
    const endpointId = await subscribe(deps);
    await insertRows(deps, endedRows(deps, endpointId, 2_300));
    const { deliveries } = deps.store.read.tables;
    const counts: number[] = [];
    for (let cursor: string | null | undefined; cursor !== null && counts.length < 10; ) {
      const input = { endpointId, which: 'all', ...(cursor && { cursor }) };
      const replayed = await replayDeliveries(deps, admin, replayDeliveriesInput.parse(input));
      counts.push(replayed.count);
      expect(replayed.isComplete).toBe(replayed.nextCursor === null);
      cursor = replayed.nextCursor;
      await deps.store.tx(async ({ db }) => {
        await db.update(deliveries).set({ state: 'delivered' }).where(eq(deliveries.state, 'pending'));
      });
    }
    expect(counts).toEqual([1_000, 1_000, 300]);
  });

  it('replayDeliveries() of a time looks at that time alone, however much there is besides', async () => {
    const deps = await open(dialect);
    const endpointId = await subscribe(deps);
    await insertRows(deps, endedRows(deps, endpointId, 30_000));
    const from = deps.clock.now + 25_000_000;
    const input = replayDeliveriesInput.parse({ from, to: from + 5_000, which: 'all' });
    expect(await replayDeliveries(deps, admin, input)).toEqual({
      count: 5,
      isComplete: true,
      nextCursor: null,
    });
    // The first 10,000 are looked at, and hold none.
    const dead = { endpointId, which: 'dead' };
    const replayed = await replayDeliveries(deps, admin, replayDeliveriesInput.parse(dead));
    expect(replayed).toMatchObject({ count: 0, isComplete: false, nextCursor: expect.any(String) });
  });

  it('what was owed to an endpoint that was deleted is not sent once more', async () => {
    const { deps, endpointId, deliveryId } = await attempted({ status: 200 });
    await deleteWebhookEndpoint(deps, admin, { id: endpointId });
    await expect(resendDelivery(deps, admin, { id: deliveryId })).rejects.toMatchObject({
      code: 'not_found',
    });
    const input = replayDeliveriesInput.parse({ endpointId, which: 'all' });
    expect(await replayDeliveries(deps, admin, input)).toMatchObject({ count: 0, isComplete: true });
    expect(await getDelivery(deps, { id: deliveryId })).toMatchObject({ state: 'delivered' });
  });

  it('a test goes to its endpoint whatever that wants, and to no other; not to a disabled one', async () => {
    const deps = await open(dialect);
    const id = await subscribe(deps, 'api_key.*');
    await subscribe(deps);
    await testWebhookEndpoint(deps, admin, { id });
    await expandEvents(deps);
    const tests = (await list(deps)).filter((delivery) => delivery.eventSeq === 4);
    expect(tests).toMatchObject([{ endpointId: id }]);
    const [claim] = (await claimDeliveries(deps, 10)).filter((ref) => ref.id === tests[0]?.id);
    if (claim) await attemptDelivery(deps, claim);
    expect(JSON.parse(deps.posts[0]?.body ?? '')).toMatchObject({
      type: 'webhook_endpoint.test',
      data: { objectId: id },
    });
    await setWebhookEndpointEnabled(deps, admin, { id }, false);
    await expect(testWebhookEndpoint(deps, admin, { id })).rejects.toMatchObject({ code: 'wrong_state' });
  });

  it('an endpoint for some subjects is owed their events alone', async () => {
    const deps = await open(dialect);
    const input = { url: 'https://example.com', subjects: ['user_1', 'user_2'] };
    await createWebhookEndpoint(deps, admin, createWebhookEndpointInput.parse(input));
    await happen(deps);
    for (const id of ['user_1', 'user_3', 'user_2']) await setSubjectEnabled(deps, admin, { id }, false);
    await expandEvents(deps);
    // Sequences: 1 installation, 2 endpoint, 3 machine, 4 to 6 subjects.
    expect((await list(deps)).map((delivery) => delivery.eventSeq)).toEqual([6, 4]);
  });

  it('a payload is never larger than a webhook may be', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'machine.created');
    await happen(deps);
    await deps.store.tx(async ({ db, tables: { events } }) => {
      const data = { name: 'ä'.repeat(BODY_BYTES_MAX / 2) };
      await db.update(events).set({ data }).where(eq(events.type, 'machine.created'));
    });
    await expandEvents(deps);
    const [claim] = await claimDeliveries(deps, 1);
    if (claim) await attemptDelivery(deps, claim);
    const body = deps.posts[0]?.body ?? '';
    expect(Buffer.byteLength(body)).toBeLessThan(BODY_BYTES_MAX);
    expect(JSON.parse(body)).toMatchObject({ data: { truncated: true, sequence: 3 } });
  });

  it('a revoked API key is to be denied until it would have expired', async () => {
    const deps = await open(dialect);
    await subscribe(deps, 'api_key.revoked');
    const expiresAt = deps.now() + 3_600_000;
    for (const input of [{ name: 'a', expiresAt }, { name: 'b' }]) {
      const key = createApiKeyInput.parse({ subject: 'user_1', ...input });
      const { id } = await createApiKey(deps, admin, key);
      await revokeApiKey(deps, admin, { id, reason: 'unspecified' });
    }
    await expandEvents(deps);
    for (const claim of await claimDeliveries(deps, 2)) await attemptDelivery(deps, claim);
    const denied = deps.posts.map(({ body }) => JSON.parse(body).data);
    expect(denied.map(({ name, denyUntil }) => [name, denyUntil])).toEqual([
      ['a', expiresAt],
      ['b', null],
    ]);
  });

  it('a revocation says until when to deny: for ever, where it is not known better', async () => {
    const { deps } = await attempted({ status: 200 }, true);
    expect(JSON.parse(deps.posts[0]?.body ?? '')).toMatchObject({
      type: 'machine.disabled',
      data: { denyUntil: null },
    });
  });
});
