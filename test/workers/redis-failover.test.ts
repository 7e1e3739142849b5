import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, onTestFinished, vi } from 'vitest';
import { listDeliveries, listDeliveriesInput } from '../../server/domain/deliveries.ts';
import { GRACE_MS } from '../../server/domain/delivery-claims.ts';
import { createLimits } from '../../server/limits.ts';
import { connectRedis } from '../../server/redis.ts';
import { startReceiver } from '../support/receiver.ts';
import { ownCluster, ownSentinels, redisAt } from '../support/redis.ts';
import { freePort } from '../support/services.ts';
import { describeMode, type House, openHouse, somethingHappens, subscribe } from './transports.ts';

/** Further than a failover takes, and a worker needs to be given what a dead connection held. */
const RECOVERY_MS_MAX = 20_000;
/** What a caller may be made to wait on a busy machine; Redis is waited for for 100 ms. */
const CALL_MS_MAX = 1_000;

async function longest(calls: readonly Promise<unknown>[]): Promise<number> {
  const began = performance.now();
  const took = await Promise.all(calls.map(async (each) => each.then(() => performance.now() - began)));
  return Math.max(...took);
}

const owed = async ({ deps }: House) =>
  (await listDeliveries(deps, listDeliveriesInput.parse({ state: 'pending', limit: 500 }))).data.length;

interface Servers {
  url: string;
  kill(): Promise<void>;
}

/** Events, webhooks and rate limits go on while the Redis that has our keys is ended. */
function suite(start: () => Promise<Servers>) {
  it('whose master is killed under load: nothing waits, nothing is lost, and it is relied on again', {
    timeout: 90_000,
  }, async () => {
    const { url, kill } = await start();
    const house = await openHouse({ dialect: 'sqlite', redisUrl: url });
    const limits = await createLimits({ redis: redisAt(url), now: () => performance.now() });
    onTestFinished(() => limits.close());
    const receiver = await startReceiver();
    const consumer = await house.start({ role: 'consumer' });
    const producer = await house.start({ role: 'producer' });
    const degraded = () => [consumer.status().degraded, producer.status().degraded, limits.degraded()];
    await vi.waitFor(() => expect(degraded()).toEqual([null, null, null]), { timeout: 10_000 });
    await subscribe(house.deps, receiver.url);

    let events = 0;
    let allowed = 0;
    let waitedMs = 0;
    const complaints = new Set<string>();
    async function work() {
      const happening = somethingHappens(house.deps);
      const limiting = Promise.resolve(limits.consume('key', { count: 1_000_000, windowSeconds: 60 }, 1));
      waitedMs = Math.max(waitedMs, await longest([happening, limiting]));
      events++;
      if ((await limiting).allowed) allowed++;
      for (const complaint of degraded()) if (complaint !== null) complaints.add(complaint);
      await sleep(10);
    }
    for (let i = 0; i < 50; i++) await work();
    await kill();
    const killedAt = performance.now();
    await work();
    while (degraded().some((complaint) => complaint !== null) || performance.now() - killedAt < 5_000) {
      expect(performance.now() - killedAt).toBeLessThan(RECOVERY_MS_MAX);
      await work();
    }
    for (let i = 0; i < 50; i++) await work();

    expect(waitedMs).toBeLessThan(CALL_MS_MAX);
    expect(allowed).toBe(events);
    expect([...complaints].join()).toMatch(/Redis/);
    // What the dead master alone knew of was claimed, and is claimed again.
    await sleep(1_000);
    house.deps.clock.now += GRACE_MS;
    await vi.waitFor(async () => expect(await owed(house)).toBe(0), { timeout: RECOVERY_MS_MAX });
    const ids = new Set(receiver.received.map(({ headers }) => headers['webhook-id']));
    expect(ids.size).toBe(events);
  });

  it('wakes workers from another process, and counts for all processes together', async () => {
    const { url } = await start();
    const house = await openHouse({ dialect: 'sqlite', redisUrl: url });
    const ear = connectRedis(redisAt(url), { maxRetriesPerRequest: null });
    onTestFinished(() => ear.disconnect());
    const heard: string[] = [];
    ear.on('pmessage', (_pattern, _channel, message) => heard.push(message));
    await ear.psubscribe('{countersign}:wake:*');
    const producer = await house.start({ role: 'producer' });
    await vi.waitFor(() => expect(producer.status().degraded).toBeNull(), { timeout: 10_000 });
    producer.wake('revocation-webhooks');
    await vi.waitFor(() => expect(heard).toEqual(['revocation-webhooks']));

    const processes = await Promise.all(
      [1, 2].map(() =>
        createLimits({ redis: redisAt(url), now: () => performance.now(), redisMsMax: 5_000 }),
      ),
    );
    onTestFinished(() => Promise.all(processes.map((each) => each.close())).then(() => {}));
    await vi.waitFor(() => expect(processes.map((each) => each.degraded())).toEqual([null, null]), {
      timeout: 10_000,
    });
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, i) =>
        processes[i % 2]?.consume('shared', { count: 10, windowSeconds: 60 }, 1),
      ),
    );
    expect(answers.filter((answer) => answer?.allowed)).toHaveLength(10);
  });
}

describeMode('Redis with Sentinels', ['redis'], () =>
  suite(async () => {
    const { url, killMaster } = await ownSentinels();
    return { url, kill: killMaster };
  }),
);

describeMode('a Redis Cluster', ['redis'], () =>
  suite(async () => {
    const { url, killMasterOf } = await ownCluster();
    return { url, kill: () => killMasterOf('{countersign}') };
  }),
);

describeMode('Redis of which no node answers', [], () => {
  it.each(['redis+sentinel://127.0.0.1:PORT/main', 'redis+cluster://127.0.0.1:PORT'])(
    'keeps neither the start nor any delivery nor the end waiting: %s',
    async (pattern) => {
      const house = await openHouse({
        dialect: 'sqlite',
        redisUrl: pattern.replace('PORT', `${await freePort()}`),
      });
      const receiver = await startReceiver();
      const began = performance.now();
      const consumer = await house.start({ role: 'consumer' });
      const producer = await house.start({ role: 'producer' });
      expect(consumer.status().degraded).toMatch(/^Redis cannot be reached/);
      expect(producer.status().degraded).toMatch(/^Redis cannot be reached/);
      await subscribe(house.deps, receiver.url);
      await somethingHappens(house.deps);
      await receiver.arrived(1);
      await Promise.all([consumer.close(), producer.close()]);
      expect(performance.now() - began).toBeLessThan(10_000);
    },
  );
});
