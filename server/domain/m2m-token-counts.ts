/**
 * How many unexpired tokens a machine has: counted in memory, and added up in rows by the hour in which they expire.
 * Revoked ones count until then, so that revoking makes no room for more.
 */
import { and, asc, eq, gte, inArray, lt, placeholder, sql } from 'drizzle-orm';
import { LRUCache } from 'lru-cache';
import { statement } from '../../db/statement.ts';
import type { Rows, Store } from '../../db/store.ts';

/** Whether a machine may have one more token, and how many it may mint in a minute. */
export type Admission =
  | { admitted: true; mintsPerMinuteMax: number; release(): void }
  | { admitted: false; live: number; liveMax: number };

export interface M2mTokenCounter {
  /**
   * Sets a place aside for one more token, until it is released; null where there is no such machine. What this process
   * minted counts at once; what others minted, and other maxima, within 5 s and their flush.
   */
  admit(store: Store, machineId: string, now: number): Promise<Admission | null>;
  /** Notes one token minted at `now`. */
  count(machineId: string, expiresAt: number, now: number): void;
  /** Writes what was counted since the last flush; what could not be written is kept for the next. Sweeps old rows. */
  flush(store: Store, now: number): Promise<void>;
}

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
const MINUTES_OF_HOUR = 60;
/** Rows written in one transaction: a flush must not hold the writer while others wait. */
const FLUSH_BATCH = 100;
/** Rows looked at by one flush for those of hours that are over. */
const SWEEP_BATCH = 500;
const STANDING_MS_MAX = 5_000;
const STANDINGS_MAX = 10_000;
/** Machines and hours, and machines and minutes, kept at once: while a flush keeps failing, further ones go uncounted. */
const COUNTS_MAX = 100_000;

/** What rows say of a machine. */
interface Standing {
  live: number;
  liveMax: number;
  mintsPerMinuteMax: number;
}

export function createM2mTokenCounter(): M2mTokenCounter {
  const unwritten = new Tally();
  /** Of tokens that live an hour or less, by the minute they expire in: a row would count them until the hour ends. */
  const expiring = new Tally();
  const reserved = new Map<string, number>();
  const standings = new LRUCache<string, { readAt: number; standing: Promise<Standing | null> }>({
    max: STANDINGS_MAX,
  });
  let flushing: Promise<void> | undefined;
  let sweptTo: RowKey = FIRST_ROW;

  function standingOf(store: Store, machineId: string, now: number): Promise<Standing | null> {
    const known = standings.get(machineId);
    if (known && now - known.readAt < STANDING_MS_MAX) return known.standing;
    const standing = readStanding(store.read, { machineId, hour: hourOf(now) }).then(([row]) => row ?? null);
    standings.set(machineId, { readAt: now, standing });
    standing.catch(() => standings.delete(machineId));
    return standing;
  }

  function reserve(machineId: string): () => void {
    const shift = (by: number) => {
      const places = (reserved.get(machineId) ?? 0) + by;
      if (places === 0) reserved.delete(machineId);
      else reserved.set(machineId, places);
    };
    shift(1);
    return () => shift(-1);
  }

  /** What is over lives no longer: what rows count of it is taken from them. */
  function takeBackExpired(now: number) {
    for (const { machineId, at, count } of expiring.entries()) {
      if ((at + 1) * MINUTE_MS > now) continue;
      expiring.add(machineId, at, -count);
      unwritten.add(machineId, Math.floor(at / MINUTES_OF_HOUR), -count);
    }
  }

  async function write(store: Store, now: number) {
    takeBackExpired(now);
    unwritten.forgetBefore(hourOf(now));
    // In one order everywhere, so that two servers flushing at once cannot deadlock.
    const entries = unwritten.entries().sort(byMachineAndHour);
    for (let i = 0; i < entries.length; i += FLUSH_BATCH) {
      const batch = entries.slice(i, i + FLUSH_BATCH);
      await store.tx((tx) => writeBatch(tx, batch), 'minting');
      for (const { machineId, at, count } of batch) {
        unwritten.add(machineId, at, -count);
        standings.delete(machineId);
      }
    }
    sweptTo = await sweep(store, sweptTo, hourOf(now));
  }

  return {
    async admit(store, machineId, now) {
      const before = unwritten.sumFrom(machineId, hourOf(now));
      const standing = await standingOf(store, machineId, now);
      if (!standing) return null;
      const { liveMax, mintsPerMinuteMax } = standing;
      // Where a flush came between, it is in neither or in both: in both is the safe one.
      const own = Math.max(before, unwritten.sumFrom(machineId, hourOf(now)));
      const live = standing.live + own + (reserved.get(machineId) ?? 0);
      if (live >= liveMax) return { admitted: false, live, liveMax };
      return { admitted: true, mintsPerMinuteMax, release: reserve(machineId) };
    },
    count(machineId, expiresAt, now) {
      unwritten.add(machineId, hourOf(expiresAt), 1);
      if (expiresAt - now <= HOUR_MS) expiring.add(machineId, Math.floor(expiresAt / MINUTE_MS), 1);
    },
    flush(store, now) {
      flushing ??= write(store, now).finally(() => {
        flushing = undefined;
      });
      return flushing;
    },
  };
}

const hourOf = (at: number) => Math.floor(at / HOUR_MS);

interface Entry {
  machineId: string;
  /** A whole hour or minute since 1970-01-01 UTC. */
  at: number;
  count: number;
}

const byMachineAndHour = (a: Entry, b: Entry) =>
  a.machineId === b.machineId ? a.at - b.at : a.machineId < b.machineId ? -1 : 1;

/** Numbers by machine and time. */
class Tally {
  readonly #byMachine = new Map<string, Map<number, number>>();
  #size = 0;

  add(machineId: string, at: number, count: number): void {
    const counts = this.#byMachine.get(machineId) ?? new Map<number, number>();
    const known = counts.get(at);
    if (known === undefined && this.#size >= COUNTS_MAX) return;
    this.#byMachine.set(machineId, counts.set(at, (known ?? 0) + count));
    if (known === undefined) this.#size++;
    if (counts.get(at) === 0) this.#delete(machineId, counts, at);
  }

  sumFrom(machineId: string, from: number): number {
    let sum = 0;
    for (const [at, count] of this.#byMachine.get(machineId) ?? []) if (at >= from) sum += count;
    return sum;
  }

  entries(): Entry[] {
    return [...this.#byMachine].flatMap(([machineId, counts]) =>
      [...counts].map(([at, count]) => ({ machineId, at, count })),
    );
  }

  forgetBefore(from: number): void {
    for (const [machineId, counts] of this.#byMachine)
      for (const at of counts.keys()) if (at < from) this.#delete(machineId, counts, at);
  }

  #delete(machineId: string, counts: Map<number, number>, at: number) {
    counts.delete(at);
    this.#size--;
    if (counts.size === 0) this.#byMachine.delete(machineId);
  }
}

async function writeBatch(tx: Rows, batch: readonly Entry[]): Promise<void> {
  for (const { machineId, at, count } of batch) await addCount(tx, { machineId, hour: at, count });
}

const addCount = statement((db, { m2mTokenCounts: c }) =>
  db
    .insert(c)
    .values({
      machine_id: placeholder('machineId'),
      expires_hour: placeholder('hour'),
      count: placeholder('count'),
    })
    .onConflictDoUpdate({
      target: [c.machine_id, c.expires_hour],
      set: { count: sql`${c.count} + excluded.count` },
    })
    .prepare('m2m_token_counts_add'),
);

const readStanding = statement((db, { machines: m, m2mTokenCounts: c }) =>
  db
    .select({
      liveMax: m.live_tokens_max,
      mintsPerMinuteMax: m.mints_per_minute_max,
      live: sql`coalesce(sum(${c.count}), 0)`.mapWith(Number),
    })
    .from(m)
    .leftJoin(c, and(eq(c.machine_id, m.id), gte(c.expires_hour, placeholder('hour'))))
    .where(eq(m.id, placeholder('machineId')))
    .groupBy(m.id)
    .prepare('m2m_token_standing'),
);

interface RowKey {
  machineId: string;
  hour: number;
}

const FIRST_ROW: RowKey = { machineId: '', hour: 0 };

/** Deletes rows of hours before `hour` among the next few after `from`; answers where to go on, from the start at the end. */
async function sweep(store: Store, from: RowKey, hour: number): Promise<RowKey> {
  const page = await readPage(store.read, { ...from });
  const old = page.filter((row) => row.hour < hour).map(({ machineId }) => machineId);
  if (old.length > 0) {
    await store.tx(
      ({ db, tables: { m2mTokenCounts: c } }) =>
        db.delete(c).where(and(inArray(c.machine_id, [...new Set(old)]), lt(c.expires_hour, hour))),
      'sweeping',
    );
  }
  return page.length < SWEEP_BATCH ? FIRST_ROW : (page.at(-1) ?? FIRST_ROW);
}

const readPage = statement((db, { m2mTokenCounts: c }) =>
  db
    .select({ machineId: c.machine_id, hour: c.expires_hour })
    .from(c)
    .where(sql`(${c.machine_id}, ${c.expires_hour}) > (${placeholder('machineId')}, ${placeholder('hour')})`)
    .orderBy(asc(c.machine_id), asc(c.expires_hour))
    .limit(SWEEP_BATCH)
    .prepare('m2m_token_counts_page'),
);
