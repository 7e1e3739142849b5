/**
 * Rate limits: how much may be had in any window of time. Counters that may be lost: in this process's memory, or in
 * Redis for all processes together. No window holds more than its limit, wherever it begins: fixed windows let twice as
 * much through around their edge, and the usual estimate from the window before up to half as much again.
 */
import { hash } from 'node:crypto';
import { RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import type { RedisServers } from './config.ts';
import type { Logger } from './logger.ts';
import type { RedisConnection } from './redis.ts';

/** `count` in any window of `windowSeconds`; both whole. */
export interface Limit {
  count: number;
  windowSeconds: number;
}

export interface LimitAnswer {
  allowed: boolean;
  /** How much is left of the limit in the window that ends now. */
  remaining: number;
  /** How long until the same may be asked for again; 0 where it was allowed, the whole window where it never is. */
  retryAfterMs: number;
}

export interface Limits {
  /**
   * Takes `cost` of what a key may have, or nothing. Never throws: where Redis is away, this process counts alone.
   * Only answers that Redis had to be asked for are promises.
   */
  consume(key: string, limit: Limit, cost: number): LimitAnswer | Promise<LimitAnswer>;
  /** What works less well than it should, or null. */
  degraded(): string | null;
  close(): Promise<void>;
}

export interface LimitsOptions {
  /** Counts in Redis where given, else in this process's memory. */
  redis: RedisServers | undefined;
  /** Tells installations that share one Redis apart. */
  epoch?: string;
  /** Milliseconds, never going back. Redis counts by its own clock, which is one for all processes. */
  now: () => number;
  /** Told when Redis is no longer relied on, and when it is again. */
  logger?: Logger;
  /** Keys counted apart in memory at the same time; without it, 100,000. */
  keysMax?: number;
  /** How long an answer of Redis is waited for; without it, 100 ms. */
  redisMsMax?: number;
}

const REDIS_MS_MAX = 100;
/** Some 40 MB, and 160 MB where all of them are in use all the time. */
const KEYS_MAX = 100_000;

/** Counts in Redis where there is one, else in this process's memory. */
export async function createLimits(options: LimitsOptions): Promise<Limits> {
  if (options.redis === undefined) return createMemoryLimits(options);
  // Only those who have Redis pay for its client.
  const { connectRedis } = await import('./redis.ts');
  return createOverRedis(options, connectRedis(options.redis, IMPATIENT));
}

/** Counts in this process's memory. */
export function createMemoryLimits({
  now,
  keysMax = KEYS_MAX,
}: Pick<LimitsOptions, 'now' | 'keysMax'>): Limits {
  const memory = new Memory(keysMax);
  return {
    consume: (key, limit, cost) => memory.consume(key, limit, cost, now()),
    degraded: () => null,
    close: async () => {},
  };
}

/** What is taken within this part of a window leaves it together, with the last of it: up to 3 % late, never early. */
const GRAINS = 32;
/** A grain is three numbers: when it began, when something was last taken in it, and how much. */
const GRAIN_LENGTH = 3;

/** What was taken in the window that ends now: exact where little was, and never more than GRAINS + 2 grains. */
class Counter {
  /** When the last of it leaves the window. */
  until = 0;
  #total = 0;
  #grains: number[] = [];
  /** Where the oldest grain begins that is still in the window. */
  #oldest = 0;

  consume({ count, windowSeconds }: Limit, cost: number, now: number): LimitAnswer {
    const windowMs = windowSeconds * 1000;
    this.#forget(now - windowMs);
    const left = count - this.#total;
    if (cost <= left) {
      if (cost > 0) this.#add(cost, now, windowMs);
      return { allowed: true, remaining: left - cost, retryAfterMs: 0 };
    }
    const retryAfterMs = cost > count ? windowMs : this.#lastOf(cost - left) + windowMs - now;
    return { allowed: false, remaining: Math.max(0, left), retryAfterMs };
  }

  /** Takes back what was not allowed after all, from the oldest: what stays counts for longer, never for less long. */
  giveBack(cost: number): void {
    let rest = Math.min(cost, this.#total);
    this.#total -= rest;
    for (let i = this.#oldest; rest > 0; i += GRAIN_LENGTH) {
      const amount = this.#grains[i + 2] as number;
      const returned = Math.min(rest, amount);
      this.#grains[i + 2] = amount - returned;
      rest -= returned;
    }
  }

  /** Lets what was taken last count as taken at `now`. */
  postpone(now: number): void {
    const last = this.#grains.length - 2;
    if (last < this.#oldest) return;
    this.until += now - (this.#grains[last] as number);
    this.#grains[last] = now;
  }

  copy(): Counter {
    const copy = new Counter();
    copy.until = this.until;
    copy.#total = this.#total;
    copy.#grains = this.#grains.slice(this.#oldest);
    return copy;
  }

  #forget(horizon: number): void {
    const grains = this.#grains;
    let oldest = this.#oldest;
    while (oldest < grains.length && (grains[oldest + 1] as number) <= horizon) {
      this.#total -= grains[oldest + 2] as number;
      oldest += GRAIN_LENGTH;
    }
    this.#oldest = oldest;
  }

  #add(cost: number, now: number, windowMs: number): void {
    const grains = this.#grains;
    const newest = grains.length - GRAIN_LENGTH;
    this.#total += cost;
    this.until = now + windowMs;
    if (newest >= this.#oldest && now - (grains[newest] as number) < windowMs / GRAINS) {
      grains[newest + 1] = now;
      grains[newest + 2] = (grains[newest + 2] as number) + cost;
      return;
    }
    if (this.#oldest === grains.length) {
      this.#grains = [now, now, cost];
      this.#oldest = 0;
      return;
    }
    if (this.#oldest > GRAINS * GRAIN_LENGTH) {
      this.#grains = grains.slice(this.#oldest);
      this.#oldest = 0;
    }
    this.#grains.push(now, now, cost);
  }

  /** When the last of the oldest `amount` was taken. */
  #lastOf(amount: number): number {
    const grains = this.#grains;
    let i = this.#oldest;
    for (let rest = amount - (grains[i + 2] as number); rest > 0; rest -= grains[i + 2] as number) {
      i += GRAIN_LENGTH;
    }
    return grains[i + 1] as number;
  }
}

/** Counters looked at for each one that is made: more than one, so that those whose window is over go faster than others come. */
const SWEEP_STEPS = 4;

/**
 * The counters of one process. Where there are as many as there may be, a further key has one in common with others:
 * who makes up many keys gets no other forgotten and nobody more than their limit, but may get newcomers refused
 * that had nothing yet.
 */
class Memory {
  readonly #keysMax: number;
  readonly #counters = new Map<string, Counter>();
  #hand = this.#counters.entries();
  /** By length of window and hash of the key. Lengths are powers of two, so there is a bound to these as well. */
  readonly #common = new Map<string, Counter>();

  constructor(keysMax: number) {
    this.#keysMax = keysMax;
  }

  consume(key: string, limit: Limit, cost: number, now: number): LimitAnswer {
    const counter = this.find(key, limit, now);
    if (counter) return counter.consume(limit, cost, now);
    const name = commonName(key, limit);
    const common = this.#common.get(name) ?? new Counter();
    this.#common.set(name, common);
    return common.consume({ count: limit.count, windowSeconds: commonWindow(limit) }, cost, now);
  }

  /** The key's own counter, made where there is none yet; null where there is no room for it. */
  find(key: string, limit: Limit, now: number): Counter | null {
    const known = this.#counters.get(key);
    if (known) return known;
    this.#sweep(now);
    if (this.#counters.size >= this.#keysMax) return null;
    const common = this.#common.size > 0 ? this.#common.get(commonName(key, limit)) : undefined;
    const counter = common && common.until > now ? common.copy() : new Counter();
    this.#counters.set(key, counter);
    return counter;
  }

  /** A few steps on an endless walk around all counters. */
  #sweep(now: number): void {
    for (let step = 0; step < SWEEP_STEPS; step++) {
      const { done, value } = this.#hand.next();
      if (done) {
        this.#hand = this.#counters.entries();
        return;
      }
      const [key, counter] = value;
      if (counter.until <= now) this.#counters.delete(key);
    }
  }
}

const commonWindow = ({ windowSeconds }: Limit) => 2 ** Math.ceil(Math.log2(windowSeconds));
/** 256 for each length. */
const commonName = (key: string, limit: Limit) => `${commonWindow(limit)} ${hash('sha256', key).slice(0, 2)}`;

/**
 * What this process allows it counts in its own memory too. So it goes on from there when Redis is lost and after it is
 * back, and what its own count refuses need not be asked.
 */
function createOverRedis(options: LimitsOptions, redis: RedisConnection): Limits {
  const { now, logger, epoch = '', redisMsMax = REDIS_MS_MAX } = options;
  const memory = new Memory(options.keysMax ?? KEYS_MAX);
  // In braces, so that a Redis Cluster keeps them on one node, whatever they are of.
  const take = createTaker(redis, `{countersign}:limit:${epoch}`, redisMsMax);
  const trust = createTrust(redis, take, logger);

  return {
    consume(key, limit, cost) {
      const at = now();
      if (!trust.has()) return memory.consume(key, limit, cost, at);
      const counter = memory.find(key, limit, at);
      const alone = counter?.consume(limit, cost, at);
      if (alone && !alone.allowed) return alone;
      return take(key, limit, cost).then(
        (answer) => {
          if (!answer.allowed) counter?.giveBack(cost);
          // Redis noted it a moment later: who is told when to come again must not be too early for it.
          else if (cost > 0) counter?.postpone(now() + 1);
          return answer;
        },
        (error) => {
          trust.lose(error);
          return alone ?? memory.consume(key, limit, cost, now());
        },
      );
    },
    degraded: () =>
      trust.has() ? null : `${complaint(redis)}: rate limits are counted by each process alone`,
    async close() {
      trust.end();
      redis.disconnect();
    },
  };
}

const complaint = ({ status }: RedisConnection) =>
  status === 'ready' ? 'Redis does not answer in time or refuses' : 'Redis cannot be reached';

/** Fails at once while Redis is away, and leaves a connection that went silent for a new one. */
const IMPATIENT = {
  enableOfflineQueue: false,
  maxRetriesPerRequest: 0,
  socketTimeout: 2_000,
};

type Take = (key: string, limit: Limit, cost: number) => Promise<LimitAnswer>;

/** `Counter` in Redis, which runs it as one step: one round trip, and nobody in between. */
export const SLIDING_WINDOW = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local cost, count, window = tonumber(ARGV[1]), tonumber(ARGV[3]), ARGV[4] * 1000
local stored = redis.call('GET', KEYS[1])
local before = stored and cmsgpack.unpack(stored) or {}
-- Another Redis took over, and its clock is behind.
now = math.max(now, before[#before - 1] or 0)
local grains, total = {}, 0
for i = 1, #before, 3 do
  if before[i + 1] > now - window then
    for j = i, i + 2 do grains[#grains + 1] = before[j] end
    total = total + before[i + 2]
  end
end
if total + cost > count then
  local wait, excess = window, total + cost - count
  for i = 1, cost <= count and #grains or 0, 3 do
    excess = excess - grains[i + 2]
    if excess <= 0 then
      wait = grains[i + 1] + window - now
      break
    end
  end
  return { total + cost, wait }
end
if cost > 0 then
  local newest = #grains - 2
  if newest > 0 and now - grains[newest] < window / ${GRAINS} then
    grains[newest + 1] = now
    grains[newest + 2] = grains[newest + 2] + cost
  else
    for _, number in ipairs({ now, now, cost }) do grains[#grains + 1] = number end
  end
  redis.call('SET', KEYS[1], cmsgpack.pack(grains), 'PX', window)
end
return { total + cost, 0 }
`;

/** The library keeps one limiter for each limit; limits are settings of the operator, and few. */
const LIMITERS_MAX = 1_000;

/** Takes from Redis, or throws where it does not answer in time. Keys are hashed: they may hold what subjects are called. */
function createTaker(redis: RedisConnection, keyPrefix: string, msMax: number): Take {
  const limiters = new Map<string, RateLimiterRedis>();

  function limiterOf({ count, windowSeconds }: Limit): RateLimiterRedis {
    const name = `${count} ${windowSeconds}`;
    const known = limiters.get(name);
    if (known) return known;
    if (limiters.size >= LIMITERS_MAX) limiters.clear();
    const limiter = new RateLimiterRedis({
      storeClient: redis,
      keyPrefix,
      points: count,
      duration: windowSeconds,
      customIncrTtlLuaScript: SLIDING_WINDOW,
      rejectIfRedisNotReady: true,
    });
    limiters.set(name, limiter);
    return limiter;
  }

  return async (key, limit, cost) => {
    try {
      const taken = await inTime(msMax, limiterOf(limit).consume(hash('sha256', key, 'base64url'), cost));
      return { allowed: true, remaining: limit.count - taken.consumedPoints, retryAfterMs: 0 };
    } catch (refusal) {
      if (!(refusal instanceof RateLimiterRes)) throw refusal;
      const remaining = Math.max(0, limit.count - (refusal.consumedPoints - cost));
      return { allowed: false, remaining, retryAfterMs: refusal.msBeforeNext };
    }
  };
}

/** Rejects when Redis takes longer. What it answered while this process was busy with something else is in time. */
function inTime<T>(msMax: number, answer: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = () => reject(new Error(`Redis did not answer within ${msMax} ms`));
    const timer = setTimeout(() => setImmediate(late), msMax);
    answer.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

const PROBE_EVERY_MS = 1_000;
/** Its answer does not matter, only that there is one: it is taken, so that a Redis that is full is found out. */
const PROBE: Limit = { count: 1_000_000_000, windowSeconds: 1 };

/** Whether Redis is asked. It is no longer after the first failure, and again once it has counted something. */
function createTrust(redis: RedisConnection, take: Take, logger: Logger | undefined) {
  let isTrusted = false;
  let isEnded = false;
  let next: NodeJS.Timeout | undefined;

  function lose(err: unknown) {
    if (isEnded) return;
    if (isTrusted) logger?.warn({ err }, 'Redis does not count: each process counts rate limits alone');
    isTrusted = false;
    next ??= setTimeout(probe, PROBE_EVERY_MS).unref();
  }

  async function probe() {
    clearTimeout(next);
    next = undefined;
    try {
      await take('probe', PROBE, 1);
      if (!isTrusted) logger?.info('Redis counts rate limits for all processes together');
      isTrusted = true;
    } catch (error) {
      lose(error);
    }
  }

  redis.on('ready', probe);
  redis.on('close', () => lose(new Error('The connection to Redis was lost')));
  return {
    has: () => isTrusted,
    lose,
    end() {
      isEnded = true;
      isTrusted = false;
      clearTimeout(next);
    },
  };
}
