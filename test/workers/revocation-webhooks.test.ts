import { expect, it, vi } from 'vitest';
import { listDeliveries, listDeliveriesInput } from '../../server/domain/deliveries.ts';
import { JITTER, SCHEDULES_MS } from '../../server/domain/delivery-attempts.ts';
import { listEvents } from '../../server/domain/events.ts';
import { startReceiver, verifySignature } from '../support/receiver.ts';
import {
  describeOnEachTransport,
  type House,
  openHouse,
  somethingHappens,
  somethingIsRevoked,
  subscribe,
} from './transports.ts';

const deliveries = async ({ deps }: House, input: Record<string, unknown> = {}) =>
  (await listDeliveries(deps, listDeliveriesInput.parse(input))).data;

const untilState = (house: House, state: 'delivered' | 'dead', count = 1) =>
  vi.waitFor(async () => expect(await deliveries(house, { state, limit: 500 })).toHaveLength(count), {
    timeout: 20_000,
  });

/** Resolves once the only delivery has failed for the nth time and waits for its next attempt. */
const untilFailed = (house: House, attempt: number) =>
  vi.waitFor(
    async () => {
      const [delivery] = await deliveries(house);
      expect(delivery).toMatchObject({ attempt, state: 'pending' });
      expect(delivery?.lastError).not.toBeNull();
      expect(delivery?.firstAttemptAt).not.toBeNull();
      // While an attempt is under way this is its deadline, a minute after it was claimed.
      expect(delivery?.nextAt).not.toBe(house.deps.clock.now + 60_000);
      return delivery;
    },
    { timeout: 20_000 },
  );

describeOnEachTransport('revocation-webhooks', (mode) => {
  it('an event reaches the receiver, signed so that the official library accepts it and nothing else', async () => {
    const house = await openHouse(mode);
    const receiver = await startReceiver();
    await house.start();
    const { secret } = await subscribe(house.deps, receiver.url);
    const machineId = await somethingHappens(house.deps);
    const received = await receiver.arrived(1);

    verifySignature(secret, received);
    expect(() =>
      verifySignature(secret, { ...received, body: received.body.replace(machineId, 'x') }),
    ).toThrow('No matching signature');
    const [event] = (await listEvents(house.deps, { after: 2, limit: 1 })).data;
    expect(received.payload).toEqual({
      type: 'machine.created',
      timestamp: new Date(house.deps.clock.now).toISOString(),
      data: {
        name: expect.any(String),
        eventId: event?.id,
        sequence: 3,
        objectId: machineId,
        subject: null,
        actor: { kind: 'secret_key' },
      },
    });
    expect(received.headers).toMatchObject({
      'webhook-id': event?.id,
      'webhook-timestamp': `${Math.floor(house.deps.clock.now / 1000)}`,
      'content-type': 'application/json',
      'user-agent': 'Countersign',
    });
    await untilState(house, 'delivered');
    expect(await deliveries(house)).toMatchObject([
      { attempt: 1, nextAt: null, lastStatus: 200, lastError: null, deliveredAt: house.deps.clock.now },
    ]);
  });

  if (mode.dialect === 'sqlite' && mode.redisUrl === undefined)
    it('what an event owes is claimed in the transaction of the event', async () => {
      const house = await openHouse(mode);
      const receiver = await startReceiver();
      await house.start();
      await subscribe(house.deps, receiver.url);
      let happened = 0;
      // Not while something else is claimed, nor where the transaction took so long that another does not join it.
      await vi.waitFor(
        async () => {
          await somethingHappens(house.deps);
          const [latest, ...others] = await deliveries(house);
          expect(others).toHaveLength(happened++);
          expect(latest).toMatchObject({ attempt: 1 });
        },
        { timeout: 10_000, interval: 100 },
      );
      await receiver.arrived(1);
    });

  it('a failure is tried again on schedule, with the same id and a new timestamp and signature', async () => {
    const house = await openHouse(mode);
    const receiver = await startReceiver(() => (receiver.received.length === 1 ? 500 : 204));
    await house.start();
    const { secret } = await subscribe(house.deps, receiver.url);
    await somethingHappens(house.deps);
    const failed = await untilFailed(house, 1);
    expect(failed).toMatchObject({ lastStatus: 500, lastError: 'Wanted a status from 200 to 299, got 500' });
    const waitMs = (failed?.nextAt ?? 0) - house.deps.clock.now;
    expect(Math.abs(waitMs - 5_000)).toBeLessThanOrEqual(5_000 * JITTER);

    house.deps.clock.now += waitMs;
    const second = await receiver.arrived(2);
    verifySignature(secret, second);
    const [first] = receiver.received;
    expect(second.body).toBe(first?.body);
    expect(second.headers['webhook-id']).toBe(first?.headers['webhook-id']);
    expect(second.headers['webhook-timestamp']).not.toBe(first?.headers['webhook-timestamp']);
    await untilState(house, 'delivered');
  });

  it('a redirect is a failure and is not followed', async () => {
    const house = await openHouse(mode);
    const receiver = await startReceiver(() => 302);
    await house.start();
    await subscribe(house.deps, receiver.url);
    await somethingHappens(house.deps);
    expect(await untilFailed(house, 1)).toMatchObject({ lastStatus: 302 });
    expect(receiver.received).toHaveLength(1);
  });

  it('what a receiver that was down missed reaches it when it is up again', async () => {
    const house = await openHouse(mode);
    const receiver = await startReceiver();
    await receiver.down();
    await house.start();
    await subscribe(house.deps, receiver.url);
    await somethingHappens(house.deps);
    expect(await untilFailed(house, 1)).toMatchObject({
      lastStatus: null,
      lastError: 'No answer: ECONNREFUSED',
    });
    await receiver.up();
    house.deps.clock.now += 10_000;
    await receiver.arrived(1);
    await untilState(house, 'delivered');
  });

  it('a delivery that fails at every attempt of its schedule is dead, and is not tried any more', async () => {
    const house = await openHouse(mode);
    const receiver = await startReceiver(() => 503);
    const machineId = await somethingHappens(house.deps);
    await house.start();
    await subscribe(house.deps, receiver.url, 'machine.disabled');
    await somethingIsRevoked(house.deps, machineId);
    const schedule = SCHEDULES_MS[0] ?? [];
    for (let attempt = 1; attempt < schedule.length; attempt++) {
      const nextAt = (await untilFailed(house, attempt))?.nextAt ?? 0;
      const wantedMs = schedule[attempt] ?? 0;
      expect(Math.abs(nextAt - house.deps.clock.now - wantedMs)).toBeLessThanOrEqual(wantedMs * JITTER + 1);
      house.deps.clock.now = nextAt;
    }
    await untilState(house, 'dead');
    expect(await deliveries(house)).toMatchObject([
      { attempt: schedule.length, nextAt: null, lastStatus: 503 },
    ]);
    expect(receiver.received).toHaveLength(schedule.length);
  });

  it('of two workers on one database exactly one delivers each event', async () => {
    const house = await openHouse(mode);
    const receiver = await startReceiver();
    await subscribe(house.deps, receiver.url);
    for (let i = 0; i < 60; i++) await somethingHappens(house.deps);
    const both = await Promise.all([house.start(), house.start()]);
    for (let i = 0; i < 60; i++) {
      await somethingHappens(house.deps);
      for (const workers of both) workers.wake('revocation-webhooks');
    }
    await untilState(house, 'delivered', 120);
    const ids = receiver.received.map((item) => item.headers['webhook-id']);
    expect(ids).toHaveLength(120);
    expect(new Set(ids).size).toBe(120);
  });

  it('a revocation overtakes a backlog of 500 other deliveries', async () => {
    const house = await openHouse(mode);
    const receiver = await startReceiver();
    await subscribe(house.deps, receiver.url);
    const ids: string[] = [];
    for (let i = 0; i < 10; i++)
      ids.push(...(await Promise.all(Array.from({ length: 50 }, () => somethingHappens(house.deps)))));
    const [first = ''] = ids;
    await somethingIsRevoked(house.deps, first);
    await house.start();
    await receiver.arrived(501);
    const place = receiver.received.findIndex((item) => item.payload.type === 'machine.disabled');
    // It was claimed first; those that were under way at the same time may have been faster.
    expect(place).toBeLessThan(64);
  });

  it.each([8, 200])('what is revoked is told to who answers, also while %i others hang', async (others) => {
    const house = await openHouse(mode);
    let open = () => {};
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    const hanging = await startReceiver(() => opened.then(() => 200));
    const receiver = await startReceiver();
    for (let i = 0; i < others; i++) await subscribe(house.deps, hanging.url, 'machine.*');
    await subscribe(house.deps, receiver.url, 'machine.disabled');
    const ids = await Promise.all(Array.from({ length: 10 }, () => somethingHappens(house.deps)));
    await house.start();
    await hanging.arrived(8);
    const beganAt = performance.now();
    await Promise.all(ids.map((id) => somethingIsRevoked(house.deps, id)));
    await receiver.arrived(10);
    // A request that hangs is given up after fifteen seconds.
    expect(performance.now() - beganAt).toBeLessThan(8_000);
    open();
  });

  it('close() lets an attempt under way end and records what became of it', async () => {
    const house = await openHouse(mode);
    let open = () => {};
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    const receiver = await startReceiver(() => opened.then(() => 200));
    const workers = await house.start();
    await subscribe(house.deps, receiver.url);
    await somethingHappens(house.deps);
    await receiver.arrived(1);
    const closed = workers.close();
    await somethingHappens(house.deps);
    open();
    await closed;
    // The second event may have been claimed in the moment of closing: then it was delivered too.
    const delivered = await deliveries(house, { state: 'delivered' });
    expect(delivered.length).toBeGreaterThan(0);
    expect(delivered).toHaveLength(receiver.received.length);
    const pending = await deliveries(house, { state: 'pending' });
    expect(pending.filter(({ attempt }) => attempt > 0)).toEqual([]);
  });

  it('an endpoint whose row cannot be read stops no other, and is tried on schedule', async () => {
    const house = await openHouse(mode);
    const receiver = await startReceiver();
    const poisoned = await subscribe(house.deps, receiver.url, 'machine.*');
    await house.deps.store.tx(async ({ db, tables: { webhookEndpoints } }) => {
      await db.update(webhookEndpoints).set({ sealed_secret: Buffer.from('not sealed by us') });
    });
    await subscribe(house.deps, receiver.url, 'machine.*');
    await house.start();
    await somethingHappens(house.deps);
    await receiver.arrived(1);
    await untilState(house, 'delivered');
    await vi.waitFor(async () =>
      expect(await deliveries(house, { endpointId: poisoned.id })).toMatchObject([
        { state: 'pending', attempt: 1, lastError: 'The webhook could not be made or sent' },
      ]),
    );
  });

  it('no secret is in a delivery, in the log or in what the workers logged', async () => {
    const house = await openHouse(mode);
    const receiver = await startReceiver(() => (receiver.received.length === 1 ? 500 : 200));
    await house.start();
    const { secret } = await subscribe(house.deps, receiver.url);
    await somethingHappens(house.deps);
    await untilFailed(house, 1);
    const { read } = house.deps.store;
    const rows = [
      await read.db.select().from(read.tables.deliveries),
      await read.db.select().from(read.tables.events),
      await read.db.select().from(read.tables.webhookEndpoints),
    ];
    const everything = JSON.stringify([rows, house.lines, receiver.received]);
    expect(everything).toContain('machine.created');
    expect(everything).not.toContain('whsec_');
    expect(everything).not.toContain(secret.slice('whsec_'.length));
  });
});
