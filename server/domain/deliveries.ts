/** Deliveries: events owed to webhook endpoints. Jobs only say "try"; everything that is known of a delivery is its row. */
import {
  and,
  asc,
  desc,
  eq,
  exists,
  gt,
  gte,
  inArray,
  isNull,
  lt,
  lte,
  or,
  placeholder,
  type SQL,
  sql,
} from 'drizzle-orm';
import { z } from 'zod';
import { skipLocked } from '../../db/kit.ts';
import { flatStatement, statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { attemptsOf, type DeliveryAttempt, type DeliveryRef } from './delivery-attempts.ts';
import {
  isPending,
  maySendTo,
  ORDINARY_PRIORITY,
  owedEndpoints,
  PRIORITIES,
  REVOCATION_PRIORITY,
} from './delivery-expansion.ts';
import { change } from './events.ts';
import { deliveryId, instant, webhookEndpointId } from './fields.ts';
import { afterCursor, orderOf, type Page, pageInput, searchPage } from './pages.ts';

type DeliveryRow = Rows['tables']['deliveries']['$inferSelect'];

/**
 * How long after it was claimed an attempt counts as lost, and the delivery is due again: longer than waiting in a
 * queue and a request may take together.
 */
export const GRACE_MS = 60_000;

/** Attempts under way at one endpoint: one that hangs must not hold up the others. Several processes may exceed it. */
export const ATTEMPTS_AT_ONCE_MAX = 4;

interface Claim extends DeliveryRef {
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
  readonly #taken = new Map<string, number>();
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
    const waiting = await readWaiting(deps.store.read, { now });
    this.#ahead = turnsOf(waiting, now);
    this.#nextAt = nextOf(waiting, now);
    this.#full.clear();
    this.#taken.clear();
    this.#readAt = readAt;
    return true;
  }

  get #isFresh(): boolean {
    return this.#clock() - this.#readAt < TURNS_MS_MAX;
  }

  get areOver(): boolean {
    return this.#ahead.length === 0;
  }

  /** The next one with room for more, where there is one. It has had its turn until it is looked again. */
  next(): Turn | undefined {
    for (let turn = this.#ahead.shift(); turn; turn = this.#ahead.shift()) {
      const room = turn.room - this.#takenOf(turn.endpointId);
      if (room > 0) return { ...turn, room };
      this.#awaitEnd(turn);
    }
    return undefined;
  }

  /** Notes how many were claimed in a turn, of as many as were asked for; where it was all of them there may be more. */
  take(turn: Turn, count: number, atMost: number): void {
    const before = this.#takenOf(turn.endpointId);
    this.#taken.set(turn.endpointId, before + count);
    if (count < atMost) return;
    const rest = { ...turn, room: turn.room + before };
    if (atMost < turn.room) this.#ahead.unshift(rest);
    else this.#awaitEnd(rest);
  }

  /**
   * Notes that an attempt at an endpoint ended, and answers whether something may have waited for that alone. Where there
   * are turns ahead it is not so: they wait for room in the process. What is not known any more may be so, since
   * attempts are made that others have claimed.
   */
  ended(endpointId: string): boolean {
    if (!this.#isFresh) return true;
    const isFirst = this.areOver;
    this.#taken.set(endpointId, this.#takenOf(endpointId) - 1);
    const turns = this.#full.get(endpointId) ?? [];
    this.#full.delete(endpointId);
    for (const turn of turns) {
      const place = this.#ahead.findIndex(({ priority }) => priority > turn.priority);
      this.#ahead.splice(place < 0 ? this.#ahead.length : place, 0, turn);
    }
    return isFirst && turns.length > 0;
  }

  #takenOf(endpointId: string): number {
    return this.#taken.get(endpointId) ?? 0;
  }

  #awaitEnd(turn: Turn): void {
    this.#full.set(turn.endpointId, [...(this.#full.get(turn.endpointId) ?? []), turn]);
  }
}

const isClaimed = sql`claimed_at is not null`;

/** Of each endpoint that is owed something and may be sent to: how much is under way, and since when something is due. */
const readWaiting = statement((db, { deliveries: d, webhookEndpoints: w }) => {
  const ofEndpoint = eq(d.endpoint_id, w.id);
  const now = placeholder('now');
  const underWay = db
    .select({ count: sql`count(*)` })
    .from(d)
    .where(and(isClaimed, isPending, ofEndpoint, gt(d.next_at, now)));
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
      revocationAt: dueSince(REVOCATION_PRIORITY),
      ordinaryAt: dueSince(ORDINARY_PRIORITY),
    })
    .from(w)
    .where(and(sql`${w.id} in (${owedEndpoints(db, d)})`, maySendTo(w, now)))
    .prepare('deliveries_waiting');
});

type Waiting = Awaited<ReturnType<typeof readWaiting>>[number];

function turnsOf(waiting: readonly Waiting[], now: number): Turn[] {
  return PRIORITIES.flatMap((priority) =>
    waiting
      .map((one) => ({
        endpointId: one.endpointId,
        priority,
        room: ATTEMPTS_AT_ONCE_MAX - one.underWay,
        dueAt: dueAtOf(one, priority),
      }))
      .filter(({ dueAt }) => dueAt <= now)
      .sort((a, b) => a.dueAt - b.dueAt),
  );
}

const dueAtOf = ({ revocationAt, ordinaryAt }: Waiting, priority: number) =>
  (priority === REVOCATION_PRIORITY ? revocationAt : ordinaryAt) ?? Number.POSITIVE_INFINITY;

function nextOf(waiting: readonly Waiting[], now: number): number {
  const all = waiting.flatMap((one) => PRIORITIES.map((priority) => dueAtOf(one, priority)));
  return all.reduce((next, dueAt) => (dueAt > now && dueAt < next ? dueAt : next), Number.POSITIVE_INFINITY);
}

async function claimTurns(deps: Deps, limit: number, turns: Turns): Promise<Claim[]> {
  const now = deps.now();
  return deps.store.tx(async (tx) => {
    const claimed: Claim[] = [];
    for (let turn = turns.next(); turn; turn = claimed.length < limit ? turns.next() : undefined) {
      const { endpointId, priority, room } = turn;
      const atMost = Math.min(room, limit - claimed.length);
      const rows = await claimOfEndpoint(tx, { endpointId, priority, now, lostAt: now + GRACE_MS, atMost });
      turns.take(turn, rows.length, atMost);
      const urgent = priority === REVOCATION_PRIORITY;
      rows.sort((a, b) => a.seq - b.seq);
      for (const { id, attempt } of rows) claimed.push({ id, attempt, urgent });
    }
    return claimed;
  });
}

const claimOfEndpoint = flatStatement<
  { endpointId: string; priority: number; now: number; lostAt: number; atMost: number },
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
      next_at: sql`${placeholder('lostAt')}`,
      claimed_at: sql`${placeholder('now')}`,
    })
    .where(inArray(d.id, due))
    .returning(fields);
  return { fields, query };
});

export interface Delivery {
  id: string;
  endpointId: string;
  eventSeq: number;
  state: 'pending' | 'delivered' | 'dead';
  /** Attempts begun so far. */
  attempt: number;
  /** When the next attempt is due, or the one under way counts as lost; null when there will be none. */
  nextAt: number | null;
  createdAt: number;
  firstAttemptAt: number | null;
  deliveredAt: number | null;
  lastStatus: number | null;
  lastError: string | null;
}

export const listDeliveriesInput = z.strictObject({
  endpointId: webhookEndpointId.optional(),
  state: z.enum(['pending', 'delivered', 'dead']).optional(),
  ...pageInput,
});

type ListDeliveriesInput = z.output<typeof listDeliveriesInput>;

/** Deliveries, those of the latest events first. No index answers a state: see `searchPage`. */
export async function listDeliveries(deps: Deps, input: ListDeliveriesInput): Promise<Page<Delivery>> {
  const { read } = deps.store;
  const { deliveries: d } = read.tables;
  const filter = input.state === undefined ? undefined : eq(d.state, input.state);
  const page = await searchPage(input, {
    isFiltered: filter !== undefined,
    rows(candidatesMax) {
      const candidates = candidatesOf(read, input).limit(candidatesMax).as('candidates');
      return read.db
        .select()
        .from(d)
        .where(and(inArray(d.id, read.db.select({ id: candidates.id }).from(candidates)), filter))
        .orderBy(desc(d.event_seq), desc(d.endpoint_id))
        .limit(input.limit + 1)
        .offset(input.offset);
    },
    candidate: (place) => candidatesOf(read, input).limit(1).offset(place),
    key: cursorKey,
  });
  return { ...page, data: page.data.map(toDelivery) };
}

function candidatesOf({ db, tables: { deliveries: d } }: Rows, input: ListDeliveriesInput) {
  return db
    .select({ id: d.id, event_seq: d.event_seq, endpoint_id: d.endpoint_id })
    .from(d)
    .where(
      and(
        input.endpointId === undefined ? undefined : eq(d.endpoint_id, input.endpointId),
        afterCursor(input.cursor, d.event_seq, d.endpoint_id, true),
      ),
    )
    .orderBy(...orderOf(d.event_seq, d.endpoint_id, true));
}

/** An event is owed to an endpoint once, so the two tell deliveries apart. */
const cursorKey = (row: Pick<DeliveryRow, 'event_seq' | 'endpoint_id'>): [number, string] => [
  row.event_seq,
  row.endpoint_id,
];

function toDelivery(row: DeliveryRow): Delivery {
  return {
    id: row.id,
    endpointId: row.endpoint_id,
    eventSeq: row.event_seq,
    state: row.state,
    attempt: row.attempt,
    nextAt: row.state === 'pending' ? row.next_at : null,
    createdAt: row.created_at,
    firstAttemptAt: row.first_attempt_at,
    deliveredAt: row.delivered_at,
    lastStatus: row.last_status,
    lastError: row.last_error,
  };
}

export const deliveryIdInput = z.strictObject({ id: deliveryId.meta({ positional: true }) });
type DeliveryIdInput = z.output<typeof deliveryIdInput>;

/** A delivery and the attempts at it, the latest first. Throws `not_found`. */
export async function getDelivery(
  deps: Deps,
  { id }: DeliveryIdInput,
): Promise<Delivery & { attempts: DeliveryAttempt[] }> {
  const { read } = deps.store;
  const { deliveries: d } = read.tables;
  const [row] = await read.db.select().from(d).where(eq(d.id, id));
  if (!row) throw notFound(id);
  return { ...toDelivery(row), attempts: await attemptsOf(read, id) };
}

const notFound = (id: string) => new CountersignError('not_found', `No delivery has the id '${id}'`);

/** Due at once, with the whole of its schedule before it. */
const dueAgain = (now: number) => ({
  state: 'pending' as const,
  failures: 0,
  next_at: now,
  claimed_at: null,
  delivered_at: null,
});

/**
 * Sends a delivery once more, whatever became of it; one that waits for its next attempt need not wait longer. Throws
 * `not_found`, also where its endpoint was deleted, and `wrong_state` while an attempt is under way.
 */
export async function resendDelivery(deps: Deps, caller: Caller, { id }: DeliveryIdInput): Promise<Delivery> {
  return change(deps, caller, async (tx) => {
    const { deliveries: d } = tx.tables;
    const now = deps.now();
    const isIdle = or(isNull(d.claimed_at), lte(d.next_at, now));
    const [row] = await tx.db
      .update(d)
      .set(dueAgain(now))
      .where(and(eq(d.id, id), isIdle, hasEndpoint(tx)))
      .returning();
    if (!row) throw await refusalOf(tx, id);
    const data = { endpointId: row.endpoint_id, eventSeq: row.event_seq };
    return { result: toDelivery(row), event: { type: 'delivery.resent', objectId: id, data } };
  });
}

/** To an endpoint that was deleted nothing is sent: put back, its deliveries would be owed for ever. */
const hasEndpoint = ({ db, tables: { deliveries: d, webhookEndpoints: w } }: Rows) =>
  exists(db.select({ id: w.id }).from(w).where(eq(w.id, d.endpoint_id)));

/** Why a delivery cannot be sent once more. */
async function refusalOf(tx: Rows, id: string): Promise<CountersignError> {
  const { deliveries: d } = tx.tables;
  const [row] = await tx.db
    .select({ hasEndpoint: hasEndpoint(tx).mapWith(Boolean) })
    .from(d)
    .where(eq(d.id, id));
  if (!row) return notFound(id);
  if (!row.hasEndpoint) {
    return new CountersignError(
      'not_found',
      `Cannot resend: the endpoint of the delivery '${id}' was deleted`,
    );
  }
  return new CountersignError(
    'wrong_state',
    `Cannot resend: an attempt at the delivery '${id}' is under way`,
  );
}

/** Deliveries put back in one call: SQLite's writer is held for no longer than that takes. */
const REPLAY_ROWS_MAX = 1_000;

/** By how much the clocks of processes that write deliveries out may differ, at most. */
const SKEW_MS_MAX = 3_600_000;

export const replayDeliveriesInput = z.strictObject({
  endpointId: webhookEndpointId.optional(),
  /** Deliveries made out from this instant on. */
  from: instant.optional(),
  /** And before this one. */
  to: instant.optional(),
  /** Those given up alone, unless told; `all` takes what was delivered too. */
  which: z.enum(['dead', 'all']).default('dead'),
  /** The `nextCursor` of the call before. */
  cursor: pageInput.cursor,
});

type ReplayDeliveriesInput = z.output<typeof replayDeliveriesInput>;

export interface Replayed {
  /** Deliveries put back by this call; perhaps none, and still not the last. */
  count: number;
  isComplete: boolean;
  /** Pass it back as `cursor` for the next; null once complete. */
  nextCursor: string | null;
}

/**
 * Sends once more what was given up, or all that is done, of an endpoint, a time, or both, in the order of events.
 * Bounded: call it again with `nextCursor` until `isComplete`, and the same filters. Throws `invalid_input` where
 * neither is given, and for a cursor of something else.
 */
export async function replayDeliveries(
  deps: Deps,
  caller: Caller,
  input: ReplayDeliveriesInput,
): Promise<Replayed> {
  if (input.endpointId === undefined && input.from === undefined) {
    throw new CountersignError(
      'invalid_input',
      "Cannot replay: wanted 'endpointId' or 'from' or both, found neither",
      { field: 'endpointId' },
    );
  }
  // Outside the transaction: many may be looked at for one that is found.
  const { ids, nextCursor } = await findReplayed(deps.store.read, input);
  const count = ids.length === 0 ? 0 : await putBack(deps, caller, input, ids);
  return { count, isComplete: nextCursor === null, nextCursor };
}

async function putBack(
  deps: Deps,
  caller: Caller,
  { endpointId, from, to, which }: ReplayDeliveriesInput,
  ids: string[],
): Promise<number> {
  return change(deps, caller, async (tx) => {
    const { deliveries: d } = tx.tables;
    const rows = await tx.db
      .update(d)
      .set(dueAgain(deps.now()))
      .where(and(inArray(d.id, ids), isDone(d, which), hasEndpoint(tx)))
      .returning({ id: d.id });
    const count = rows.length;
    if (count === 0) return { result: 0, event: null };
    const data = { endpointId, from, to, which, count };
    return {
      result: count,
      event: { type: 'delivery.replayed', objectId: endpointId ?? 'deliveries', data },
    };
  });
}

type DeliveriesTable = Rows['tables']['deliveries'];

const isDone = (d: DeliveriesTable, which: 'dead' | 'all') =>
  inArray(d.state, which === 'dead' ? ['dead'] : ['dead', 'delivered']);

/** The deliveries that the next call puts back, in the order of events, and where the one after begins. */
async function findReplayed(
  rows: Rows,
  input: ReplayDeliveriesInput,
): Promise<{ ids: string[]; nextCursor: string | null }> {
  const { db, tables } = rows;
  const { deliveries: d } = tables;
  const { endpointId, from, to, which, cursor } = input;
  const within = await seqsOf(rows, from, to);
  const candidates = (limit: number, offset = 0) =>
    db
      .select({ id: d.id, event_seq: d.event_seq, endpoint_id: d.endpoint_id })
      .from(d)
      .where(
        and(
          endpointId === undefined ? undefined : eq(d.endpoint_id, endpointId),
          within,
          afterCursor(cursor, d.event_seq, d.endpoint_id, false),
        ),
      )
      .orderBy(...orderOf(d.event_seq, d.endpoint_id, false))
      .limit(limit)
      .offset(offset);
  const page = await searchPage(
    { limit: REPLAY_ROWS_MAX, offset: 0 },
    {
      isFiltered: true,
      rows(candidatesMax) {
        const some = candidates(candidatesMax).as('candidates');
        return db
          .select({ id: d.id, event_seq: d.event_seq, endpoint_id: d.endpoint_id })
          .from(d)
          .where(
            and(
              inArray(d.id, db.select({ id: some.id }).from(some)),
              isDone(d, which),
              from === undefined ? undefined : gte(d.created_at, from),
              to === undefined ? undefined : lt(d.created_at, to),
            ),
          )
          .orderBy(...orderOf(d.event_seq, d.endpoint_id, false))
          .limit(REPLAY_ROWS_MAX + 1);
      },
      candidate: (place) => candidates(1, place),
      key: cursorKey,
    },
  );
  return { ids: page.data.map(({ id }) => id), nextCursor: page.nextCursor };
}

/**
 * Between which sequences the deliveries of a time are, so that nobody walks through all others to find them: they are
 * written out in the order of events, by processes whose clocks differ a little.
 */
async function seqsOf({ db, tables }: Rows, from?: number, to?: number): Promise<SQL | undefined> {
  const { deliveries: d } = tables;
  const first = (condition: SQL, order: SQL) =>
    db.select({ seq: d.event_seq }).from(d).where(condition).orderBy(order).limit(1);
  const [before] =
    from === undefined ? [] : await first(lt(d.created_at, from - SKEW_MS_MAX), desc(d.created_at));
  const [after] = to === undefined ? [] : await first(gte(d.created_at, to + SKEW_MS_MAX), asc(d.created_at));
  return and(before && gte(d.event_seq, before.seq), after && lte(d.event_seq, after.seq));
}
