import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import type { Redis } from 'ioredis';
import { RateLimiterRedis, type RateLimiterRes } from 'rate-limiter-flexible';
import { describe, expect, inject, it, onTestFinished, vi } from 'vitest';
import {
  createLimits,
  createMemoryLimits,
  type Limit,
  type LimitAnswer,
  type Limits,
  type LimitsOptions,
  SLIDING_WINDOW,
} from '../../server/limits.ts';
import { createLogger } from '../../server/logger.ts';
import { connectTo, ownRedis, redisAt } from '../support/redis.ts';
import { describeMode } from '../workers/transports.ts';

interface Taken {
  at: number;
  cost: number;
}

/** What was taken in the window that ends at `at`. */
const within = (taken: readonly Taken[], windowMs: number, at: number) =>
  taken.filter((one) => one.at > at - windowMs && one.at <= at).reduce((sum, one) => sum + one.cost, 0);

const windowMsOf = ({ windowSeconds }: Limit) => windowSeconds * 1000;

/** Limits in memory, with a clock that is moved by hand. */
function inMemory(options: Partial<LimitsOptions> = {}) {
  const clock = { now: 1_767_700_800_000 };
  const limits = createMemoryLimits({ now: () => clock.now, ...options });
  const take = (key: string, limit: Limit, cost = 1) => limits.consume(key, limit, cost) as LimitAnswer;
  return { clock, limits, take };
}

const limitOf = fc.record({
  count: fc.integer({ min: 0, max: 40 }),
  windowSeconds: fc.constantFrom(1, 7, 60, 86_400, 30 * 86_400),
});

/**
 * Requests and the pauses before them, in parts of a window: bursts, steady streams, long silences, and now and then the
 * moment at which an earlier request leaves the window, or the one before.
 */
const requests = fc.array(
  fc.record({
    /** In thousandths of a window. */
    pause: fc.oneof(fc.constant(0), fc.nat(50), fc.nat(1_200)),
    afterEarlier: fc.option(fc.nat(), { freq: 3 }),
    early: fc.nat(1),
    cost: fc.oneof({ weight: 4, arbitrary: fc.constant(1) }, fc.integer({ min: 0, max: 45 })),
  }),
  { maxLength: 200 },
);

type Request = typeof requests extends fc.Arbitrary<(infer R)[]> ? R : never;

/** When a request comes, after those that were allowed. */
function timeOf(request: Request, limit: Limit, taken: readonly Taken[], now: number): number {
  const { pause, afterEarlier, early } = request;
  const earlier = afterEarlier === null ? undefined : taken[afterEarlier % taken.length];
  const leaves = earlier ? earlier.at + windowMsOf(limit) - early : 0;
  return leaves > now ? leaves : now + (pause * windowMsOf(limit)) / 1000;
}

describe('limits in memory', () => {
  it('consume() lets no window hold more than the limit, wherever it begins', () => {
    fc.assert(
      fc.property(limitOf, requests, (limit, steps) => {
        const { clock, take } = inMemory();
        const taken: Taken[] = [];
        for (const step of steps) {
          clock.now = timeOf(step, limit, taken, clock.now);
          if (take('key', limit, step.cost).allowed) taken.push({ at: clock.now, cost: step.cost });
        }
        for (const { at } of taken)
          expect(within(taken, windowMsOf(limit), at)).toBeLessThanOrEqual(limit.count);
      }),
    );
  });

  it('consume() refuses only what a window longer by a 32nd would refuse, and says how much is left', () => {
    fc.assert(
      fc.property(limitOf, requests, (limit, steps) => {
        const { clock, take } = inMemory();
        const taken: Taken[] = [];
        const held = (windowMs: number) => within(taken, windowMs, clock.now);
        for (const step of steps) {
          const { cost } = step;
          clock.now = timeOf(step, limit, taken, clock.now);
          const answer = take('key', limit, cost);
          if (answer.allowed) taken.push({ at: clock.now, cost });
          else expect(held((windowMsOf(limit) * 33) / 32) + cost).toBeGreaterThan(limit.count);
          expect(answer.remaining).toBeLessThanOrEqual(limit.count - held(windowMsOf(limit)));
          expect(answer.remaining).toBeGreaterThanOrEqual(limit.count - held((windowMsOf(limit) * 33) / 32));
        }
      }),
    );
  });

  it('consume() says when the same may be asked for again: then it is allowed, and a moment before it is not', () => {
    fc.assert(
      fc.property(limitOf, requests, (limit, steps) => {
        const { clock, take } = inMemory();
        for (const { pause, cost } of steps) {
          clock.now += (pause * windowMsOf(limit)) / 1000;
          const answer = take('key', limit, cost);
          if (answer.allowed) expect(answer.retryAfterMs).toBe(0);
          if (answer.allowed || cost > limit.count) continue;
          expect(answer.retryAfterMs).toBeGreaterThan(0);
          clock.now += answer.retryAfterMs - 1;
          expect(take('key', limit, cost)).toMatchObject({ allowed: false, retryAfterMs: 1 });
          clock.now += 1;
          expect(take('key', limit, cost).allowed).toBe(true);
        }
      }),
    );
  });

  it('consume() lets what was taken at once go at once, exactly a window later', () => {
    const { clock, take } = inMemory();
    const limit = { count: 3, windowSeconds: 60 };
    for (const remaining of [2, 1, 0]) {
      expect(take('key', limit)).toEqual({ allowed: true, remaining, retryAfterMs: 0 });
    }
    expect(take('key', limit)).toEqual({ allowed: false, remaining: 0, retryAfterMs: 60_000 });
    clock.now += 59_999;
    expect(take('key', limit)).toEqual({ allowed: false, remaining: 0, retryAfterMs: 1 });
    clock.now += 1;
    expect(take('key', limit, 3)).toEqual({ allowed: true, remaining: 0, retryAfterMs: 0 });
  });

  it('consume() lets what was taken one shortly after the other go together, with the last of it', () => {
    const { clock, take } = inMemory();
    const limit = { count: 2, windowSeconds: 64 };
    take('key', limit);
    clock.now += 1_999;
    take('key', limit);
    clock.now += 64_000 - 1_999;
    expect(take('key', limit)).toEqual({ allowed: false, remaining: 0, retryAfterMs: 1_999 });
  });

  it('consume() never allows more than the whole limit at once, and takes nothing for what it refuses', () => {
    const { clock, take } = inMemory();
    const limit = { count: 3, windowSeconds: 60 };
    expect(take('key', limit, 4)).toEqual({ allowed: false, remaining: 3, retryAfterMs: 60_000 });
    expect(take('key', limit, 2)).toMatchObject({ allowed: true, remaining: 1 });
    clock.now += 10;
    for (let i = 0; i < 10; i++) {
      expect(take('key', limit, 2)).toEqual({ allowed: false, remaining: 1, retryAfterMs: 59_990 });
    }
    expect(take('key', limit, 1)).toMatchObject({ allowed: true, remaining: 0 });
    expect(take('none', { count: 0, windowSeconds: 60 })).toMatchObject({ allowed: false, remaining: 0 });
  });

  it('consume() with a cost of 0 tells what remains and takes nothing', () => {
    const { take } = inMemory();
    const limit = { count: 2, windowSeconds: 60 };
    take('key', limit);
    for (let i = 0; i < 3; i++) expect(take('key', limit, 0)).toMatchObject({ allowed: true, remaining: 1 });
  });

  it('consume() judges by the limit as it is now, lower or higher than it was', () => {
    const { take } = inMemory();
    take('key', { count: 10, windowSeconds: 60 }, 8);
    expect(take('key', { count: 5, windowSeconds: 60 })).toMatchObject({ allowed: false, remaining: 0 });
    expect(take('key', { count: 9, windowSeconds: 60 })).toMatchObject({ allowed: true, remaining: 0 });
  });

  it('consume() of keys, and of processes, knows nothing of each other', () => {
    const limit = { count: 1, windowSeconds: 60 };
    const [one, other] = [inMemory(), inMemory()];
    for (const { take } of [one, other])
      for (const key of ['a', 'b'])
        expect([take(key, limit).allowed, take(key, limit).allowed]).toEqual([true, false]);
    expect(one.limits.degraded()).toBeNull();
  });

  it('1,000 at the same time get a limit of 100 exactly once', async () => {
    const { limits } = inMemory();
    expect(await allowedOf([limits], 'key', 1_000)).toBe(100);
  });

  it('who makes up keys without end gets no other forgotten, and none of them more than the limit', () => {
    const { take } = inMemory({ keysMax: 50 });
    const limit = { count: 5, windowSeconds: 60 };
    expect(take('used up', limit, 5).allowed).toBe(true);
    expect(take('half', limit, 3).allowed).toBe(true);
    const allowed = new Map<string, number>();
    for (let i = 0; i < 20_000; i++) {
      const key = `made up ${i % 10_000}`;
      if (take(key, limit, 5).allowed) allowed.set(key, (allowed.get(key) ?? 0) + 1);
    }
    expect(take('used up', limit).allowed).toBe(false);
    expect(take('half', limit, 0).remaining).toBe(2);
    // 48 have a counter of their own, the others 256 in common.
    expect(allowed.size).toBeLessThanOrEqual(48 + 256);
    expect([...allowed.values()].every((times) => times === 1)).toBe(true);
  });

  it('counters whose window is over make room for others', () => {
    const { clock, take } = inMemory({ keysMax: 20 });
    const limit = { count: 1, windowSeconds: 60 };
    for (let round = 0; round < 5; round++) {
      const allowed = Array.from({ length: 300 }, (_, i) => take(`${round} ${i}`, limit).allowed);
      expect(allowed.slice(0, 20)).not.toContain(false);
      clock.now += 60_000;
      // A few keys find the counters that are to go.
      for (let i = 0; i < 10; i++) take('nobody', limit, 0);
    }
  });

  it('a key that gets a counter of its own is charged what it took while it had none', () => {
    const { clock, take } = inMemory({ keysMax: 1 });
    const limit = { count: 6, windowSeconds: 1 };
    take('first', limit);
    clock.now += 500;
    expect(take('second', limit, 5)).toMatchObject({ allowed: true, remaining: 1 });
    clock.now += 500;
    expect(take('second', limit, 2)).toEqual({ allowed: false, remaining: 1, retryAfterMs: 500 });
    // It has the only one.
    expect(take('third', limit, 6).allowed).toBe(true);
    expect(take('second', limit, 0).remaining).toBe(1);
  });

  it('consume() lets no window of any of too many keys hold more than the limit, however they change places', () => {
    const step = fc.record({ key: fc.nat(5), pause: fc.integer({ min: 0, max: 600 }), cost: fc.nat(5) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
        const { clock, take } = inMemory({ keysMax: 2 });
        const limit = { count: 6, windowSeconds: 1 };
        const taken = new Map<number, Taken[]>();
        for (const { key, pause, cost } of steps) {
          clock.now += pause;
          const own = taken.get(key) ?? [];
          taken.set(key, own);
          if (take(`key ${key}`, limit, cost).allowed) own.push({ at: clock.now, cost });
          expect(within(own, 1_000, clock.now)).toBeLessThanOrEqual(6);
        }
      }),
    );
  });
});

/** How many of `times` at the same time were allowed, with a limit of 100, asked of these in turn. */
async function allowedOf(limits: readonly Limits[], key: string, times: number): Promise<number> {
  const limit = { count: 100, windowSeconds: 600 };
  const answers = await Promise.all(
    Array.from({ length: times }, (_, i) => limits[i % limits.length]?.consume(key, limit, 1)),
  );
  return answers.filter((answer) => answer?.allowed).length;
}

const monotonic = () => Math.floor(performance.now());

/** Limits over a Redis; they end with the test. A slow machine is no failure, unless a test is about that. */
async function over(redisUrl: string, options: Partial<LimitsOptions> = {}): Promise<Limits> {
  const patient = { epoch: 'epoch', now: monotonic, redisMsMax: 20_000 };
  const limits = await createLimits({ redis: redisAt(redisUrl), ...patient, ...options });
  onTestFinished(() => limits.close());
  return limits;
}

const untilRelied = (...limits: Limits[]) =>
  vi.waitFor(() => expect(limits.map((each) => each.degraded())).toEqual(limits.map(() => null)), {
    timeout: 10_000,
  });

const untilDegraded = (limits: Limits, reason: RegExp) =>
  vi.waitFor(() => expect(limits.degraded()).toMatch(reason), { timeout: 10_000 });

async function reliedOver(redisUrl: string, options: Partial<LimitsOptions> = {}): Promise<Limits> {
  const limits = await over(redisUrl, options);
  await untilRelied(limits);
  return limits;
}

/** How many scripts this Redis began and did not end. */
async function scriptsFailed(redis: Redis): Promise<number> {
  const [, failed] = /cmdstat_evalsha:.*failed_calls=(\d+)/.exec(await redis.info('commandstats')) ?? [];
  return Number(failed);
}

describeMode('limits over Redis', ['redis'], () => {
  const redisUrl = inject('redis').url ?? '';
  const freshKey = () => randomBytes(8).toString('hex');
  const hour = (count: number) => ({ count, windowSeconds: 3_600 });

  it('Redis answers what memory answers, at every moment', async () => {
    const redis = connectTo(redisUrl);
    const clockKey = `clock ${freshKey()}`;
    // As it is, but for the clock.
    const script = SLIDING_WINDOW.replace(
      "redis.call('TIME')",
      `{ math.floor(redis.call('GET', '${clockKey}') / 1000), redis.call('GET', '${clockKey}') % 1000 * 1000 }`,
    );
    expect(script).toContain(clockKey);
    await fc.assert(
      fc.asyncProperty(limitOf, requests, async (limit, steps) => {
        const { clock, take } = inMemory();
        const key = freshKey();
        const limiter = new RateLimiterRedis({
          storeClient: redis,
          points: limit.count,
          duration: limit.windowSeconds,
          customIncrTtlLuaScript: script,
        });
        const taken: Taken[] = [];
        for (const step of steps) {
          const { cost } = step;
          clock.now = timeOf(step, limit, taken, clock.now);
          await redis.set(clockKey, clock.now);
          const { consumedPoints, msBeforeNext, allowed } = await limiter.consume(key, cost).then(
            (answer) => ({ ...answer.toJSON(), allowed: true }),
            (refusal: RateLimiterRes) => ({ ...refusal.toJSON(), allowed: false }),
          );
          const left = limit.count - consumedPoints + (allowed ? 0 : cost);
          expect({ allowed, remaining: left, retryAfterMs: msBeforeNext }).toEqual(take('key', limit, cost));
          if (allowed) taken.push({ at: clock.now, cost });
        }
      }),
      { numRuns: 30 },
    );
  });

  it('1,000 at the same time, over several connections, get a limit of 100 exactly once', async () => {
    const processes = await Promise.all([1, 2, 3, 4].map(() => over(redisUrl)));
    await untilRelied(...processes);
    expect(await allowedOf(processes, freshKey(), 1_000)).toBe(100);
    expect(processes.map((each) => each.degraded())).toEqual([null, null, null, null]);
  });

  it('processes on one Redis count together, installations and keys apart', async () => {
    const [one, other, foreign] = await Promise.all([
      reliedOver(redisUrl),
      reliedOver(redisUrl),
      reliedOver(redisUrl, { epoch: 'another' }),
    ]);
    const key = freshKey();
    expect(await one.consume(key, hour(3), 2)).toEqual({ allowed: true, remaining: 1, retryAfterMs: 0 });
    expect(await other.consume(key, hour(3), 2)).toMatchObject({ allowed: false, remaining: 1 });
    expect(await other.consume(key, hour(3), 1)).toMatchObject({ allowed: true, remaining: 0 });
    expect(await one.consume(key, hour(3), 1)).toMatchObject({ allowed: false, remaining: 0 });
    expect(await one.consume(freshKey(), hour(3), 3)).toMatchObject({ allowed: true });
    expect(await foreign.consume(key, hour(3), 3)).toMatchObject({ allowed: true });
  });

  it('who comes again when it was told to is allowed, at this process and at another', async () => {
    const [one, other] = await Promise.all([reliedOver(redisUrl), reliedOver(redisUrl)]);
    const limit = { count: 2, windowSeconds: 1 };
    for (const limits of [one, other]) {
      const key = freshKey();
      expect(await one.consume(key, limit, 2)).toMatchObject({ allowed: true });
      const { allowed, retryAfterMs } = await limits.consume(key, limit, 1);
      expect(allowed).toBe(false);
      await sleep(retryAfterMs);
      expect(await limits.consume(key, limit, 1)).toMatchObject({ allowed: true });
    }
  });

  it('what Redis noted late is not asked for again too early', async () => {
    const clock = { now: 0 };
    const limits = await reliedOver(redisUrl, { now: () => clock.now });
    const key = freshKey();
    const asked = limits.consume(key, hour(1), 1);
    clock.now += 50;
    await asked;
    expect(limits.consume(key, hour(1), 1)).toMatchObject({ allowed: false, retryAfterMs: 3_600_001 });
  });

  it('what another process got refused here is not counted here', async () => {
    const [one, other] = await Promise.all([reliedOver(redisUrl), reliedOver(redisUrl)]);
    const key = freshKey();
    await one.consume(key, hour(10), 8);
    for (let i = 0; i < 5; i++)
      expect(await other.consume(key, hour(10), 3)).toMatchObject({ allowed: false, remaining: 2 });
    expect(await other.consume(key, hour(10), 2)).toMatchObject({ allowed: true, remaining: 0 });
  });

  it('Redis holds nothing that a key says, and forgets it after its window', async () => {
    const redis = await ownRedis();
    await redis.start();
    const limits = await reliedOver(redis.url);
    await limits.consume('subject:jane@example.com', hour(5), 1);
    const control = connectTo(redis.url);
    const keys = (await control.keys('*')).filter((key) => !key.includes('probe'));
    const named = keys.filter((key) => /^\{countersign\}:limit:epoch:[\w-]{43}$/.test(key));
    expect(named).toEqual(keys);
    expect(keys.join()).not.toContain('jane');
    const lives = await Promise.all(keys.map((key) => control.pttl(key)));
    for (const live of lives) expect(live).toBeGreaterThan(0);
    expect(Math.max(...lives)).toBeLessThanOrEqual(3_600_000);
  });

  it('with Redis killed each process goes on from what it allowed itself, says so, and hands back', async () => {
    const redis = await ownRedis();
    await redis.start();
    const lines: string[] = [];
    const logger = createLogger('info', { write: (line) => void lines.push(line) });
    const [one, other] = await Promise.all([reliedOver(redis.url, { logger }), reliedOver(redis.url)]);
    expect(await one.consume('key', hour(10), 6)).toMatchObject({ allowed: true, remaining: 4 });
    expect(await other.consume('key', hour(10), 1)).toMatchObject({ allowed: true, remaining: 3 });

    await redis.kill();
    await untilDegraded(one, /^Redis cannot be reached: rate limits are counted by each process alone$/);
    expect(one.consume('key', hour(10), 5)).toMatchObject({ allowed: false, remaining: 4 });
    expect(one.consume('key', hour(10), 4)).toMatchObject({ allowed: true, remaining: 0 });
    expect(one.consume('key', hour(10), 1)).toMatchObject({ allowed: false });
    await untilDegraded(other, /^Redis cannot be reached/);
    expect(other.consume('key', hour(10), 9)).toMatchObject({ allowed: true, remaining: 0 });

    await redis.start();
    await untilRelied(one, other);
    // Redis knows of nothing; each process still does.
    expect(await one.consume('key', hour(10), 1)).toMatchObject({ allowed: false });
    expect(await other.consume('key', hour(10), 1)).toMatchObject({ allowed: false });
    expect(await one.consume('fresh', hour(10), 6)).toMatchObject({ allowed: true });
    expect(await other.consume('fresh', hour(10), 6)).toMatchObject({ allowed: false, remaining: 4 });
    expect(lines.filter((line) => line.includes('each process counts rate limits alone'))).toHaveLength(1);
    expect(lines.filter((line) => line.includes('for all processes together'))).toHaveLength(2);
  });

  it('with Redis killed under 1,000 at the same time, a process lets through no more than the limit', async () => {
    const redis = await ownRedis();
    await redis.start();
    const limits = await reliedOver(redis.url);
    const asking = allowedOf([limits], 'key', 1_000);
    await redis.kill();
    expect(await asking).toBe(100);
    await untilDegraded(limits, /./);
    expect(await allowedOf([limits], 'key', 1_000)).toBe(0);
  });

  it('a Redis that hangs is not waited for, and relied on again when it answers', async () => {
    const redis = await ownRedis();
    await redis.start();
    const limits = await reliedOver(redis.url, { redisMsMax: 100 });
    await limits.consume('key', hour(3), 1);
    redis.pause();
    expect(await limits.consume('key', hour(3), 1)).toMatchObject({ allowed: true, remaining: 1 });
    expect(limits.degraded()).toMatch(/^Redis does not answer in time or refuses: rate limits/);
    // No longer asked at all.
    expect(limits.consume('key', hour(3), 1)).toMatchObject({ allowed: true, remaining: 0 });
    expect(limits.consume('key', hour(3), 1)).toMatchObject({ allowed: false });
    redis.resume();
    await untilRelied(limits);
  });

  it('a Redis that is full, or holds something else, is not relied on, and nothing throws', async () => {
    const redis = await ownRedis();
    await redis.start();
    const limits = await reliedOver(redis.url);
    const control = connectTo(redis.url);
    await control.config('SET', 'maxmemory', '1');
    expect(await limits.consume('key', hour(1), 1)).toMatchObject({ allowed: true });
    expect(limits.degraded()).toMatch(/^Redis does not answer in time or refuses/);
    expect(limits.consume('key', hour(1), 1)).toMatchObject({ allowed: false });
    // It is tried again, and still refuses.
    await vi.waitFor(async () => expect(await scriptsFailed(control)).toBeGreaterThan(1), {
      timeout: 10_000,
    });
    expect(limits.degraded()).toMatch(/^Redis does not answer in time or refuses/);
    await control.config('SET', 'maxmemory', '0');
    await untilRelied(limits);

    await limits.consume('spoilt', hour(2), 1);
    for (const key of await control.keys('*')) await control.set(key, 'not ours');
    expect(await limits.consume('spoilt', hour(2), 1)).toMatchObject({ allowed: true, remaining: 0 });
    expect(limits.consume('spoilt', hour(2), 1)).toMatchObject({ allowed: false });
  });

  it('a Redis that is away at the start is relied on once it is there', async () => {
    const redis = await ownRedis();
    const limits = await over(redis.url);
    expect(limits.degraded()).toMatch(/^Redis cannot be reached/);
    expect(limits.consume('key', hour(1), 1)).toMatchObject({ allowed: true });
    expect(limits.consume('key', hour(1), 1)).toMatchObject({ allowed: false });
    await redis.start();
    await untilRelied(limits);
  });

  it('where memory has no room for a key, Redis alone counts it, and without Redis it is counted with others', async () => {
    const redis = await ownRedis();
    await redis.start();
    const limits = await reliedOver(redis.url, { keysMax: 1 });
    await limits.consume('first', hour(5), 1);
    for (const key of ['second', 'third'])
      expect(await limits.consume(key, hour(5), 5)).toMatchObject({ allowed: true });
    expect(await limits.consume('second', hour(5), 1)).toMatchObject({ allowed: false });
    await redis.kill();
    await untilDegraded(limits, /./);
    expect(limits.consume('fourth', hour(5), 5)).toMatchObject({ allowed: true });
    expect(limits.consume('fourth', hour(5), 1)).toMatchObject({ allowed: false });
  });

  it('close() ends it, whether Redis is there or not; who asks later is counted alone', async () => {
    const limits = await reliedOver(redisUrl);
    await limits.close();
    expect(limits.consume('key', hour(1), 1)).toMatchObject({ allowed: true });
    expect(limits.consume('key', hour(1), 1)).toMatchObject({ allowed: false });
    await (await over((await ownRedis()).url)).close();
  });
});
