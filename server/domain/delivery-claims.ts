/** Which deliveries are due, and who makes the next attempt at them. */
import {
  and,
  asc,
  eq,
  gt,
  inArray,
  isNull,
  lte,
  or,
  type Placeholder,
  placeholder,
  type SQL,
  sql,
} from 'drizzle-orm';
import { skipLocked } from '../../db/kit.ts';
import { flatStatement, statement } from '../../db/statement.ts';
import type { Db, Rows } from '../../db/store.ts';
import type { Deps } from '../deps.ts';
import type { DeliveryRef } from './delivery-attempts.ts';

type DeliveryRow = Rows['tables']['deliveries']['$inferSelect'];

export const REVOCATION_PRIORITY = 0;
export const ORDINARY_PRIORITY = 1;
export const PRIORITIES = [REVOCATION_PRIORITY, ORDINARY_PRIORITY] as const;

/** Written out, because a partial index serves only a query that repeats its condition to the letter. */
export const isPending = sql`state = 'pending'`;

/** A query of the ids that deliveries are owed to: it walks from one to the next along the index, past none of what each is owed. */
export function owedEndpoints(db: Db, d: Rows['tables']['deliveries']): SQL {
  const next = (after?: SQL) =>
    db
      .select({ id: d.endpoint_id })
      .from(d)
      .where(and(isPending, after && gt(d.endpoint_id, after)))
      .orderBy(asc(d.endpoint_id))
      .limit(1);
  return sql`with recursive owed(id) as (
    select (${next()}) union all select (${next(sql`owed.id`)}) from owed where owed.id is not null
  ) select id from owed where id is not null`;
}

/** Whether something may be sent to an endpoint now: it is enabled, and did not ask for patience. */
export const maySendTo = (w: Rows['tables']['webhookEndpoints'], now: number | Placeholder) =>
  and(eq(w.enabled, true), or(isNull(w.throttled_until), lte(w.throttled_until, now)));

/**
 * How long after it was claimed an attempt counts as lost, and the delivery is due again: longer than waiting in a
 * queue and a request may take together.
 */
export const GRACE_MS = 60_000;

/**
 * How long after it was claimed an attempt counts as under way: a request takes 15 s at most. The process that claimed it
 * may have been killed, and then what happens next must not wait for its endpoint for as long as the attempt itself.
 */
export const UNDER_WAY_MS = 20_000;

/** Attempts under way at one endpoint: one that hangs must not hold up the others. Several processes may exceed it. */
export const ATTEMPTS_AT_ONCE_MAX = 4;

/** Of revocations as many more are claimed that begin as soon as those end: claiming takes as long as an attempt. */
export const REVOCATIONS_AT_ONCE_MAX = 2 * ATTEMPTS_AT_ONCE_MAX;

/** How long one may wait for that, with `UNDER_WAY_MS` in mind, before it is put back. */
const SLOT_MS_MAX = 2_000;

/** Whoever did not answer well within so long, or failed since, is made one attempt at a time. */
const TRUSTED_MS = 3_600_000;

export interface Claim extends DeliveryRef {
  endpointId: string;
  /** Whether it goes ahead of what waits already. */
  urgent: boolean;
}

/**
 * Takes up to `limit` deliveries that are due, revocations first, so that nobody else takes them for `GRACE_MS`; of one
 * endpoint no more than may be under way at once. Fewer than `limit` means that nothing more is due, or only what has to
 * wait until an attempt at the same endpoint ends. Who claims often gives the same `turns` each time.
 */
export async function claimDeliveries(deps: Deps, limit: number, turns = new Turns()): Promise<Claim[]> {
  const claimed: Claim[] = [];
  for (let isLast = false; !isLast && claimed.length < limit; ) {
    // Outside a transaction: most often nothing is due, and then nobody need wait for the writer.
    isLast = await turns.look(deps);
    if (!turns.areOver) claimed.push(...(await claimTurns(deps, limit - claimed.length, turns)));
  }
  return claimed;
}

/**
 * Takes what was seen of revocations that are next, and nothing that something new could go before: so it need not be written
 * out first.
 */
export async function claimUrgent(deps: Deps, limit: number, turns: Turns): Promise<Claim[]> {
  return turns.areUrgent ? claimTurns(deps, limit, turns, REVOCATION_PRIORITY) : [];
}

/** An endpoint with something due of one priority, and how many may be claimed of it. */
interface Turn {
  endpointId: string;
  priority: number;
  room: number;
}

/** With many endpoints looking costs milliseconds, so what was seen, also that nothing was, is used for as long as this. */
const TURNS_MS_MAX = 50;

/** Whose turn it is: revocations first, and among endpoints who has waited longest. What it knows belongs to one process. */
export class Turns {
  readonly #clock: () => number;
  #ahead: Turn[] = [];
  /** By endpoint, the turns that wait until an attempt there ends: as many as may be are under way. */
  readonly #full = new Map<string, Turn[]>();
  /** By endpoint, what was claimed since it was looked, less what ended. */
  readonly #taken = new Counts();
  /** By endpoint, attempts that ended and whose rows do not say so yet: they take no room from others. */
  readonly #unrecorded = new Counts();
  #readAt = Number.NEGATIVE_INFINITY;
  /** When something falls due that was not when it was looked. */
  #nextAt = Number.NEGATIVE_INFINITY;

  constructor(clock = () => performance.now()) {
    this.#clock = clock;
  }

  /** Something new may go ahead of what was seen. */
  forget(): void {
    this.#readAt = Number.NEGATIVE_INFINITY;
  }

  /** Looks, unless what was seen a moment ago still holds; answers whether all of it that is due is ahead now. */
  async look(deps: Deps): Promise<boolean> {
    const now = deps.now();
    if (this.#isFresh && now < this.#nextAt) return this.areOver;
    const readAt = this.#clock();
    const all = await readWaiting(deps.store.read, { now, lostAt: lostAt(now) });
    this.#ahead = turnsOf(all, now, (one, priority) => this.roomAt(one, priority, now));
    this.#nextAt = nextOf(all, now);
    this.#full.clear();
    this.#taken.clear();
    this.#readAt = readAt;
    return true;
  }

  /** How many of a priority may be claimed of an endpoint whose rows say that so many are under way. */
  roomAt(one: Waiting, priority: number, now: number): number {
    return claimsAtOnce(one, priority, now) - one.underWay + this.#unrecorded.of(one.endpointId);
  }

  get #isFresh(): boolean {
    return this.#clock() - this.#readAt < TURNS_MS_MAX;
  }

  get areOver(): boolean {
    return this.#ahead.length === 0;
  }

  /** Whether a revocation was seen to be next, and recently: nothing new goes ahead of that. */
  get areUrgent(): boolean {
    return this.#isFresh && this.#ahead[0]?.priority === REVOCATION_PRIORITY;
  }

  /** The next one with room for more, where there is one of this priority or before. It has had its turn until it is looked again. */
  next(lowest: number = ORDINARY_PRIORITY): Turn | undefined {
    const shift = () => ((this.#ahead[0]?.priority ?? lowest) > lowest ? undefined : this.#ahead.shift());
    for (let turn = shift(); turn; turn = shift()) {
      const room = turn.room - this.#taken.of(turn.endpointId);
      if (room > 0) return { ...turn, room };
      this.#awaitEnd(turn);
    }
    return undefined;
  }

  /** Notes how many were claimed in a turn, of as many as were asked for; where it was all of them there may be more. */
  take(turn: Turn, count: number, atMost: number): void {
    const before = this.#taken.of(turn.endpointId);
    this.#taken.add(turn.endpointId, count);
    if (count < atMost) return;
    const rest = { ...turn, room: turn.room + before };
    if (atMost < turn.room) this.#ahead.unshift(rest);
    else this.#awaitEnd(rest);
  }

  /** Notes what was claimed by other means than a turn. */
  began(endpointId: string): void {
    this.#taken.add(endpointId, 1);
  }

  /**
   * Notes that an attempt at an endpoint ended, and answers whether something may have waited for that alone. Where there
   * are turns ahead it is not so: they wait for room in the process. What is not known any more may be so, since
   * attempts are made that others have claimed. Call `recorded` once the rows say so too, or never will.
   */
  ended(endpointId: string): boolean {
    this.#unrecorded.add(endpointId, 1);
    if (!this.#isFresh) return true;
    const isFirst = this.areOver;
    this.#taken.add(endpointId, -1);
    const turns = this.#full.get(endpointId) ?? [];
    this.#full.delete(endpointId);
    for (const turn of turns) {
      const place = this.#ahead.findIndex(({ priority }) => priority > turn.priority);
      this.#ahead.splice(place < 0 ? this.#ahead.length : place, 0, turn);
    }
    return isFirst && turns.length > 0;
  }

  recorded(endpointId: string): void {
    this.#unrecorded.add(endpointId, -1);
  }

  #awaitEnd(turn: Turn): void {
    this.#full.set(turn.endpointId, [...(this.#full.get(turn.endpointId) ?? []), turn]);
  }
}

/** The attempts of one process that are under way at each endpoint: no more than may be. */
export class Slots {
  readonly #taken = new Counts();
  readonly #waiting = new Map<string, Waiter[]>();

  /** Makes an attempt, once others have ended where it must; undefined where that takes too long, or one of them failed. */
  async run<T>(endpointId: string, attempt: (hasWaited: boolean) => Promise<T>): Promise<T | undefined> {
    const mayBegin = this.#enter(endpointId);
    if (mayBegin !== true && !(await mayBegin)) return undefined;
    try {
      return await attempt(mayBegin !== true);
    } finally {
      this.#leave(endpointId);
    }
  }

  #enter(endpointId: string): true | Promise<boolean> {
    if (this.#taken.of(endpointId) < ATTEMPTS_AT_ONCE_MAX) {
      this.#taken.add(endpointId, 1);
      return true;
    }
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(endpointId) ?? [];
      this.#waiting.set(endpointId, waiting);
      const timer = setTimeout(() => {
        waiting.splice(waiting.indexOf(waiter), 1);
        this.#tidy(endpointId);
        resolve(false);
      }, SLOT_MS_MAX);
      const waiter = (mayBegin: boolean) => {
        clearTimeout(timer);
        resolve(mayBegin);
      };
      waiting.push(waiter);
    });
  }

  /** Lets nobody in of those who wait at an endpoint: one that failed is not sent to as if it had not. */
  turnAway(endpointId: string): void {
    for (const waiter of this.#waiting.get(endpointId) ?? []) waiter(false);
    this.#waiting.delete(endpointId);
  }

  /** The next that waits takes the place of the one that ended. */
  #leave(endpointId: string): void {
    const next = this.#waiting.get(endpointId)?.shift();
    this.#tidy(endpointId);
    if (next) next(true);
    else this.#taken.add(endpointId, -1);
  }

  #tidy(endpointId: string): void {
    if (this.#waiting.get(endpointId)?.length === 0) this.#waiting.delete(endpointId);
  }
}

type Waiter = (mayBegin: boolean) => void;

/** A number for each endpoint, 0 unless something was added. */
class Counts {
  readonly #counts = new Map<string, number>();

  of(endpointId: string): number {
    return this.#counts.get(endpointId) ?? 0;
  }

  add(endpointId: string, count: number): void {
    const sum = this.of(endpointId) + count;
    if (sum === 0) this.#counts.delete(endpointId);
    else this.#counts.set(endpointId, sum);
  }

  clear(): void {
    this.#counts.clear();
  }
}

const isClaimed = sql`claimed_at is not null`;

/** What was claimed longer ago than an attempt takes falls due again at this instant or before. */
const lostAt = (now: number) => now + GRACE_MS - UNDER_WAY_MS;

/** Of endpoints that may be sent to: how much is under way, and since when something is due. */
function waiting(db: Db, { deliveries: d, webhookEndpoints: w }: Rows['tables'], which: SQL) {
  const ofEndpoint = eq(d.endpoint_id, w.id);
  const now = placeholder('now');
  const underWay = db
    .select({ count: sql`count(*)` })
    .from(d)
    .where(and(isClaimed, isPending, ofEndpoint, gt(d.next_at, placeholder('lostAt'))));
  const dueSince = (priority: number) =>
    sql<number | null>`(${db
      .select({ next_at: d.next_at })
      .from(d)
      .where(and(isPending, ofEndpoint, eq(d.priority, priority)))
      .orderBy(asc(d.next_at))
      .limit(1)})`.mapWith((value) => (value === null ? null : Number(value)));
  return db
    .select({
      endpointId: w.id,
      underWay: sql`(${underWay})`.mapWith(Number),
      failingSince: w.failing_since,
      lastSuccessAt: w.last_success_at,
      revocationAt: dueSince(REVOCATION_PRIORITY),
      ordinaryAt: dueSince(ORDINARY_PRIORITY),
    })
    .from(w)
    .where(and(which, maySendTo(w, now)));
}

const readWaiting = statement((db, tables) => {
  const { deliveries, webhookEndpoints: w } = tables;
  return waiting(db, tables, sql`${w.id} in (${owedEndpoints(db, deliveries)})`).prepare(
    'deliveries_waiting',
  );
});

const readWaitingOf = statement((db, tables) =>
  waiting(db, tables, eq(tables.webhookEndpoints.id, placeholder('endpointId'))).prepare(
    'deliveries_waiting_of_endpoint',
  ),
);

/**
 * Whether a delivery that is about to be written out may be claimed with that, which saves a transaction: its endpoint
 * has room, and is owed nothing that goes before it.
 */
export async function mayBeClaimedAtOnce(
  tx: Rows,
  { endpoint_id: endpointId, priority, next_at: now }: DeliveryRow,
  turns: Turns,
): Promise<boolean> {
  const [waits] = await readWaitingOf(tx, { endpointId, now, lostAt: lostAt(now) });
  if (!waits || turns.roomAt(waits, priority, now) <= 0) return false;
  return PRIORITIES.every((other) => other > priority || dueAtOf(waits, other) > now);
}

type Waiting = Awaited<ReturnType<typeof readWaiting>>[number];

function claimsAtOnce({ failingSince, lastSuccessAt }: Waiting, priority: number, now: number): number {
  const isTrusted = failingSince === null && lastSuccessAt !== null && now - lastSuccessAt <= TRUSTED_MS;
  if (!isTrusted) return 1;
  // Only of revocations, lest one that comes waits for more than those that are under way.
  return priority === REVOCATION_PRIORITY ? REVOCATIONS_AT_ONCE_MAX : ATTEMPTS_AT_ONCE_MAX;
}

function turnsOf(
  all: readonly Waiting[],
  now: number,
  roomAt: (one: Waiting, priority: number) => number,
): Turn[] {
  return PRIORITIES.flatMap((priority) =>
    all
      .map((one) => ({
        endpointId: one.endpointId,
        priority,
        room: roomAt(one, priority),
        dueAt: dueAtOf(one, priority),
      }))
      .filter(({ dueAt }) => dueAt <= now)
      .sort((a, b) => a.dueAt - b.dueAt),
  );
}

const dueAtOf = ({ revocationAt, ordinaryAt }: Waiting, priority: number) =>
  (priority === REVOCATION_PRIORITY ? revocationAt : ordinaryAt) ?? Number.POSITIVE_INFINITY;

function nextOf(all: readonly Waiting[], now: number): number {
  const dueAts = all.flatMap((one) => PRIORITIES.map((priority) => dueAtOf(one, priority)));
  return dueAts.reduce(
    (next, dueAt) => (dueAt > now && dueAt < next ? dueAt : next),
    Number.POSITIVE_INFINITY,
  );
}

async function claimTurns(deps: Deps, limit: number, turns: Turns, lowest?: number): Promise<Claim[]> {
  const now = deps.now();
  return deps.store.tx(async (tx) => {
    const claimed: Claim[] = [];
    const next = () => (claimed.length < limit ? turns.next(lowest) : undefined);
    for (let turn = next(); turn; turn = next()) {
      const { endpointId, priority, room } = turn;
      const atMost = Math.min(room, limit - claimed.length);
      const nextAt = now + GRACE_MS;
      const rows = await claimOfEndpoint(tx, { endpointId, priority, now, nextAt, atMost });
      turns.take(turn, rows.length, atMost);
      const urgent = priority === REVOCATION_PRIORITY;
      rows.sort((a, b) => a.seq - b.seq);
      for (const { id, attempt } of rows) claimed.push({ id, attempt, endpointId, urgent });
    }
    return claimed;
  }, 'claiming');
}

const claimOfEndpoint = flatStatement<
  { endpointId: string; priority: number; now: number; nextAt: number; atMost: number },
  { id: string; attempt: number; seq: number }
>('deliveries_claim', (db, { deliveries: d }) => {
  const due = skipLocked(
    db
      .select({ id: d.id })
      .from(d)
      .where(
        and(
          isPending,
          eq(d.endpoint_id, placeholder('endpointId')),
          eq(d.priority, placeholder('priority')),
          lte(d.next_at, placeholder('now')),
        ),
      )
      .orderBy(asc(d.next_at))
      .limit(placeholder('atMost')),
  );
  const fields = { id: d.id, attempt: d.attempt, seq: d.event_seq };
  const query = db
    .update(d)
    .set({
      attempt: sql`${d.attempt} + 1`,
      next_at: sql`${placeholder('nextAt')}`,
      claimed_at: sql`${placeholder('now')}`,
    })
    .where(inArray(d.id, due))
    .returning(fields);
  return { fields, query };
});
