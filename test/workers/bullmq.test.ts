import { Queue } from 'bullmq';
import type { Redis } from 'ioredis';
import { expect, inject, it, onTestFinished, vi } from 'vitest';
import { listDeliveries, listDeliveriesInput } from '../../server/domain/deliveries.ts';
import { ATTEMPTS_AT_ONCE_MAX, GRACE_MS } from '../../server/domain/delivery-claims.ts';
import { parseJobId } from '../../workers/bullmq.ts';
import { startReceiver } from '../support/receiver.ts';
import { connectTo, ownRedis } from '../support/redis.ts';
import { describeMode, type House, openHouse, somethingHappens, subscribe } from './transports.ts';

const deliveries = async ({ deps }: House) =>
  (await listDeliveries(deps, listDeliveriesInput.parse({ limit: 500 }))).data;

const untilDelivered = (house: House, count: number) =>
  vi.waitFor(
    async () =>
      expect((await deliveries(house)).filter((delivery) => delivery.state === 'delivered')).toHaveLength(
        count,
      ),
    { timeout: 20_000 },
  );

async function queueOf({ deps }: House, redis: Redis): Promise<Queue> {
  const { db, tables } = deps.store.read;
  const [row] = await db.select().from(tables.installation);
  const queue = new Queue(`bundles-${row?.epoch}`, { connection: redis, prefix: '{countersign}' });
  onTestFinished(() => queue.close());
  return queue;
}

/** A receiver that answers nobody until it is told to. */
async function startHoldingReceiver() {
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const receiver = await startReceiver(async () => {
    await held;
    return 200;
  });
  return { receiver, release };
}

/** Has the queue keep what it is given, until it is told to go on. */
async function pause(house: House, redis: Redis): Promise<Queue> {
  const queue = await queueOf(house, redis);
  await queue.pause();
  return queue;
}

/** Resolves once all that is owed was claimed. */
const untilClaimed = (house: House, count: number) =>
  vi.waitFor(async () =>
    expect((await deliveries(house)).map(({ attempt }) => attempt)).toEqual(Array(count).fill(1)),
  );

/** Everything a Redis holds, as text. */
async function contentsOf(redis: Redis): Promise<string> {
  const contents: unknown[] = [];
  for (const key of await redis.keys('*')) {
    const read: Record<string, () => Promise<unknown>> = {
      string: () => redis.get(key),
      list: () => redis.lrange(key, 0, -1),
      hash: () => redis.hgetall(key),
      set: () => redis.smembers(key),
      zset: () => redis.zrange(key, '0', '-1'),
      stream: () => redis.xrange(key, '-', '+'),
    };
    const type = await redis.type(key);
    contents.push(key, await read[type]?.());
  }
  return JSON.stringify(contents);
}

describeMode('the transport over BullMQ', ['redis'], () => {
  const redisUrl = inject('redis').url ?? '';

  it('a Redis that was emptied between claim and attempt costs nothing but the grace', async () => {
    const redis = await ownRedis();
    await redis.start();
    const house = await openHouse({ dialect: 'sqlite', redisUrl: redis.url });
    const receiver = await startReceiver();
    for (let i = 0; i < 10; i++) await subscribe(house.deps, receiver.url, 'machine.created');
    await pause(house, connectTo(redis.url));
    await house.start();
    await somethingHappens(house.deps);
    await untilClaimed(house, 10);
    await connectTo(redis.url).flushall();
    house.deps.clock.now += GRACE_MS;
    await untilDelivered(house, 10);
    expect(receiver.received).toHaveLength(10);
    expect((await deliveries(house)).map(({ attempt }) => attempt)).toEqual(Array(10).fill(2));
  });

  it('a Redis that dies and comes back: this process takes over, says so, and hands work back', async () => {
    const redis = await ownRedis();
    await redis.start();
    const house = await openHouse({ dialect: 'sqlite', redisUrl: redis.url });
    const receiver = await startReceiver();
    const workers = await house.start();
    await subscribe(house.deps, receiver.url);
    await somethingHappens(house.deps);
    await untilDelivered(house, 1);
    expect(workers.status()).toEqual({ transport: 'bullmq', degraded: null });

    await redis.kill();
    await vi.waitFor(() => expect(workers.status().degraded).toMatch(/^Redis cannot be reached/));
    for (let i = 0; i < 100; i++) await somethingHappens(house.deps);
    await untilDelivered(house, 101);
    expect(workers.status().degraded).toMatch(/^Redis cannot be reached/);

    await redis.start();
    await vi.waitFor(() => expect(workers.status().degraded).toBeNull(), { timeout: 10_000 });
    await somethingHappens(house.deps);
    await untilDelivered(house, 102);
    await vi.waitFor(async () => expect(await contentsOf(connectTo(redis.url))).toContain('completed'));
    expect(receiver.received).toHaveLength(102);
  });

  it('a Redis that is away at the start keeps neither the start nor any delivery waiting', async () => {
    const redis = await ownRedis();
    const house = await openHouse({ dialect: 'sqlite', redisUrl: redis.url });
    const receiver = await startReceiver();
    const workers = await house.start();
    expect(workers.status().degraded).toMatch(/^Redis cannot be reached/);
    await subscribe(house.deps, receiver.url);
    await somethingHappens(house.deps);
    await untilDelivered(house, 1);
    await redis.start();
    await vi.waitFor(() => expect(workers.status().degraded).toBeNull(), { timeout: 10_000 });
    await somethingHappens(house.deps);
    await untilDelivered(house, 2);
  });

  it('workers leave in order although Redis is gone', async () => {
    const redis = await ownRedis();
    await redis.start();
    const house = await openHouse({ dialect: 'sqlite', redisUrl: redis.url });
    const { receiver, release } = await startHoldingReceiver();
    const workers = await house.start();
    await subscribe(house.deps, receiver.url);
    await somethingHappens(house.deps);
    await receiver.arrived(1);
    await redis.kill();
    const closed = workers.close();
    release();
    await closed;
    await untilDelivered(house, 1);
  });

  it('a Redis that is full takes no jobs: this process does them, and says so until it takes them again', async () => {
    const redis = await ownRedis();
    await redis.start();
    const house = await openHouse({ dialect: 'sqlite', redisUrl: redis.url });
    const receiver = await startReceiver();
    const workers = await house.start();
    await subscribe(house.deps, receiver.url);
    await somethingHappens(house.deps);
    await untilDelivered(house, 1);

    const control = connectTo(redis.url);
    await control.call('CONFIG', 'SET', 'maxmemory', '1');
    await somethingHappens(house.deps);
    await untilDelivered(house, 2);
    expect(workers.status().degraded).toMatch(/^Redis takes no jobs/);

    await control.config('SET', 'maxmemory', '0');
    await somethingHappens(house.deps);
    await untilDelivered(house, 3);
    expect(workers.status().degraded).toBeNull();
  });

  it('a job that comes twice, late or from somebody else sends nothing', async () => {
    const house = await openHouse({ dialect: 'sqlite', redisUrl });
    const receiver = await startReceiver();
    await house.start();
    await subscribe(house.deps, receiver.url);
    await somethingHappens(house.deps);
    await untilDelivered(house, 1);
    const [delivery] = await deliveries(house);
    const queue = await queueOf(house, connectTo(redisUrl));
    const name = 'revocation-webhooks';
    await queue.add(name, {}, { jobId: `${delivery?.id}-1` });
    await queue.add(name, {}, { jobId: `${delivery?.id}-2` });
    await queue.add(name, {}, { jobId: `${delivery?.id}` });
    await queue.add('delete-everything', {}, { jobId: `${delivery?.id}-3` });
    await vi.waitFor(async () =>
      expect(await queue.getJobCounts('wait', 'active', 'completed', 'failed')).toEqual({
        wait: 0,
        active: 0,
        completed: 0,
        failed: 0,
      }),
    );
    expect(receiver.received).toHaveLength(1);
    expect(house.lines.filter((line) => line.includes('Dropped a job that is none of ours'))).toHaveLength(2);
  });

  it('what is owed to one endpoint travels as one job, as much of it as may be under way there', async () => {
    const house = await openHouse({ dialect: 'sqlite', redisUrl });
    const receiver = await startReceiver();
    await subscribe(house.deps, receiver.url);
    await house.deps.store.tx(({ db, tables: { webhookEndpoints } }) =>
      db.update(webhookEndpoints).set({ last_success_at: house.deps.now() }),
    );
    for (let i = 0; i <= ATTEMPTS_AT_ONCE_MAX; i++) await somethingHappens(house.deps);
    const queue = await pause(house, connectTo(redisUrl));
    await house.start();
    await vi.waitFor(async () => expect(await queue.getJobs(['wait'])).toHaveLength(1));
    const [job] = await queue.getJobs(['wait']);
    expect(parseJobId(job?.id)).toHaveLength(ATTEMPTS_AT_ONCE_MAX);
    await queue.resume();
    await untilDelivered(house, ATTEMPTS_AT_ONCE_MAX + 1);
    expect(receiver.received).toHaveLength(ATTEMPTS_AT_ONCE_MAX + 1);
  });

  it('Redis holds ids and attempts, and neither content nor secrets', async () => {
    const redis = await ownRedis();
    await redis.start();
    const house = await openHouse({ dialect: 'sqlite', redisUrl: redis.url });
    const receiver = await startReceiver();
    const { secret } = await subscribe(house.deps, receiver.url, 'machine.created');
    for (let i = 0; i < 9; i++) await subscribe(house.deps, receiver.url, 'machine.created');
    const queue = await pause(house, connectTo(redis.url));
    await house.start();
    await somethingHappens(house.deps);
    await untilClaimed(house, 10);
    const all = await deliveries(house);
    const contents = await vi.waitFor(async () => {
      const found = await contentsOf(connectTo(redis.url));
      for (const { id } of all) expect(found).toContain(`${id}-1`);
      return found;
    });
    for (const absent of ['whsec_', secret.slice(6), receiver.url, 'machine', 'evt_', 'ep_']) {
      expect(contents).not.toContain(absent);
    }
    await queue.resume();
    await untilDelivered(house, 10);
  });

  it('a process without jobs wakes those that have them, and never throws when it cannot', async () => {
    const redis = await ownRedis();
    await redis.start();
    const house = await openHouse({ dialect: 'sqlite', redisUrl: redis.url });
    const ear = connectTo(redis.url);
    const heard: string[] = [];
    ear.on('pmessage', (_pattern, _channel, message) => heard.push(message));
    await ear.psubscribe('{countersign}:wake:*');
    const producer = await house.start({ role: 'producer' });
    expect(producer.status()).toEqual({ transport: 'bullmq', degraded: null });
    for (let i = 0; i < 1000; i++) producer.wake('revocation-webhooks');
    // Those that came while the first message was under way are one more.
    await vi.waitFor(() => expect(heard).toEqual(['revocation-webhooks', 'revocation-webhooks']));
    // It would subscribe again, and what that came to when the test ends is heard by nobody.
    ear.disconnect();

    await redis.kill();
    await vi.waitFor(() => expect(producer.status().degraded).toMatch(/^Redis cannot be reached/));
    producer.wake('revocation-webhooks');
    await redis.start();
    await vi.waitFor(() => expect(producer.status().degraded).toBeNull(), { timeout: 10_000 });
    expect(house.lines.some((line) => line.includes('workers were not woken'))).toBe(true);
  });

  it('what a server records, workers apart from it deliver', async () => {
    const house = await openHouse({ dialect: 'sqlite', redisUrl });
    const receiver = await startReceiver();
    await house.start({ role: 'consumer' });
    await house.start({ role: 'producer' });
    await subscribe(house.deps, receiver.url);
    await somethingHappens(house.deps);
    await receiver.arrived(1);
    await untilDelivered(house, 1);
  });

  it('installations that share a Redis do not take each other’s jobs', async () => {
    const houses = await Promise.all([1, 2].map(() => openHouse({ dialect: 'sqlite', redisUrl })));
    const receiver = await startReceiver();
    for (const house of houses) {
      await house.start();
      await subscribe(house.deps, receiver.url);
    }
    for (let i = 0; i < 20; i++) for (const house of houses) await somethingHappens(house.deps);
    for (const house of houses) {
      await untilDelivered(house, 20);
      expect((await deliveries(house)).every((delivery) => delivery.attempt === 1)).toBe(true);
    }
  });

  it('parseJobId() reads up to four ids with an attempt each, and nothing else', () => {
    const id = `dlv_${'0aZ'.repeat(9)}`;
    expect(parseJobId(`${id}-12`)).toEqual([{ id, attempt: 12 }]);
    const four = Array.from({ length: 4 }, (_, i) => `${id}-${i + 1}`);
    expect(parseJobId(four.join('+'))).toEqual([1, 2, 3, 4].map((attempt) => ({ id, attempt })));
    for (const bad of [
      undefined,
      '',
      id,
      `${id}-`,
      `${id}-0`,
      `${id}-01`,
      `${id}-1234567`,
      `${id}-1\n`,
      `x${id}-1x`,
      `${id}-1+`,
      `${id}-1+${id}`,
      `${id}-1,${id}-2`,
      [...four, `${id}-5`].join('+'),
    ]) {
      expect(parseJobId(bad)).toBeNull();
    }
  });
});
