/** Deliveries: events owed to webhook endpoints. Jobs only say "try"; everything that is known of a delivery is its row. */
import { and, asc, desc, eq, exists, gte, inArray, isNull, lt, lte, or, type SQL, sql } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import type { Caller, Deps, ReadingDeps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { attemptsOf, type DeliveryAttempt } from './delivery-attempts.ts';
import { change } from './events.ts';
import { deliveryId, instant, webhookEndpointId } from './fields.ts';
import { afterCursor, orderOf, type Page, pageInput, searchPage } from './pages.ts';

type DeliveryRow = Rows['tables']['deliveries']['$inferSelect'];

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

/** More are not walked through: those who look at what was attempted lately want to know whether, not how often. */
const ATTEMPTS_LOOKED_AT_MAX = 10_000;

/** Deliveries that were attempted since, and given up. */
export async function countGivenUp({ store }: Pick<ReadingDeps, 'store'>, since: number): Promise<number> {
  const { db, tables } = store.read;
  const { deliveries: d, deliveryAttempts: a } = tables;
  const attempted = db
    .select({ id: a.delivery_id })
    .from(a)
    .where(gte(a.ended_at, since))
    .orderBy(desc(a.ended_at))
    .limit(ATTEMPTS_LOOKED_AT_MAX)
    .as('attempted');
  const [row] = await db
    .select({ count: sql`count(*)`.mapWith(Number) })
    .from(d)
    .where(and(inArray(d.id, db.select({ id: attempted.id }).from(attempted)), eq(d.state, 'dead')));
  return row?.count ?? 0;
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
