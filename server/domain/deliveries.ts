/** Deliveries: events owed to webhook endpoints. Jobs only say "try"; everything that is known of a delivery is its row. */
import { and, asc, desc, eq, gt, inArray, lte, placeholder, sql } from 'drizzle-orm';
import { z } from 'zod';
import { statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { sortableId } from '../crypto/ids.ts';
import { signWebhook } from '../crypto/webhook-signature.ts';
import type { Deps } from '../deps.ts';
import { OutboundError } from '../outbound.ts';
import { type EventType, REVOCATIONS } from './event-types.ts';
import { type Event, toEvent } from './events.ts';
import { webhookEndpointId } from './fields.ts';
import { afterCursor, orderOf, type Page, pageInput, searchPage } from './pages.ts';
import { wantsEvent, webhookSecretOf } from './webhook-endpoints.ts';

type DeliveryRow = Rows['tables']['deliveries']['$inferSelect'];
type WebhookEndpointRow = Rows['tables']['webhookEndpoints']['$inferSelect'];

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** How long to wait before each attempt, in milliseconds: the example of Standard Webhooks 1.0.0, 75 hours in all. */
const SCHEDULE_MS = [
  0,
  5 * SECOND,
  5 * MINUTE,
  30 * MINUTE,
  2 * HOUR,
  5 * HOUR,
  10 * HOUR,
  14 * HOUR,
  20 * HOUR,
  24 * HOUR,
];

/** By priority: a receiver that only hiccuped hears of a revocation within seconds. */
export const SCHEDULES_MS: readonly (readonly number[])[] = [
  [0, 1 * SECOND, 5 * SECOND, 15 * SECOND, ...SCHEDULE_MS.slice(2)],
  SCHEDULE_MS,
];

/** The share of a wait by which it is made longer or shorter, so that what failed together is not tried together. */
export const JITTER = 0.2;

/**
 * How long after it was claimed an attempt counts as lost, and the delivery is due again: longer than waiting in a
 * queue and a request may take together.
 */
export const GRACE_MS = 60 * SECOND;

const REVOCATION_PRIORITY = 0;
const ORDINARY_PRIORITY = 1;
const PRIORITIES = [REVOCATION_PRIORITY, ORDINARY_PRIORITY];

/** Rows written in one transaction, and events read for them: SQLite's writer is held for no longer than that takes. */
const EXPAND_ROWS_MAX = 1_000;
const EXPAND_EVENTS_MAX = 500;
const INSERT_ROWS = 250;

/**
 * Writes out which endpoints are owed the next events of the log. Of several processes that do so at once exactly one
 * moves the cursor. Answers whether there may be more.
 */
export async function expandEvents(deps: Deps): Promise<boolean> {
  const [at] = await readCursor(deps.store.read, {});
  if (!at || at.cursor >= at.head) return false;
  const { webhookEndpoints } = deps.store.read.tables;
  const endpointCount = await deps.store.read.db.$count(webhookEndpoints);
  const upTo = Math.min(at.head, at.cursor + eventsAtOnce(endpointCount));
  await deps.store.tx(async (tx) => {
    const { webhookCursor } = tx.tables;
    // First, because it takes the lock on PostgreSQL: whoever comes second finds the cursor moved.
    const moved = await tx.db
      .update(webhookCursor)
      .set({ event_seq: upTo })
      .where(eq(webhookCursor.event_seq, at.cursor))
      .returning();
    if (moved.length > 0) await insertDeliveries(tx, deps, at.cursor, upTo);
  });
  return true;
}

const readCursor = statement((db, { webhookCursor, eventHead }) =>
  db
    .select({ cursor: webhookCursor.event_seq, head: eventHead.seq })
    .from(webhookCursor)
    .innerJoin(eventHead, eq(eventHead.id, webhookCursor.id))
    .prepare('webhook_cursor_read'),
);

/** Without endpoints nothing is owed to anybody, however much happened. */
function eventsAtOnce(endpointCount: number): number {
  if (endpointCount === 0) return Number.MAX_SAFE_INTEGER;
  return Math.min(EXPAND_EVENTS_MAX, Math.ceil(EXPAND_ROWS_MAX / endpointCount));
}

async function insertDeliveries(tx: Rows, deps: Deps, after: number, upTo: number): Promise<void> {
  const { webhookEndpoints, events, deliveries } = tx.tables;
  const endpoints = await tx.db.select().from(webhookEndpoints).where(eq(webhookEndpoints.enabled, true));
  if (endpoints.length === 0) return;
  const begin = Math.max(after, Math.min(...endpoints.map((endpoint) => endpoint.created_seq)));
  const happened = await tx.db
    .select({ seq: events.seq, type: events.type })
    .from(events)
    .where(and(gt(events.seq, begin), lte(events.seq, upTo)))
    .orderBy(asc(events.seq));
  const now = deps.now();
  const owed = happened.flatMap(({ seq, type }) =>
    endpoints
      .filter((endpoint) => isOwed(endpoint, seq, type as EventType))
      .map((endpoint) => newDelivery(seq, type as EventType, endpoint.id, now)),
  );
  for (let i = 0; i < owed.length; i += INSERT_ROWS) {
    await tx.db
      .insert(deliveries)
      .values(owed.slice(i, i + INSERT_ROWS))
      .onConflictDoNothing();
  }
}

const isOwed = (endpoint: WebhookEndpointRow, seq: number, type: EventType) =>
  seq > endpoint.created_seq && wantsEvent(endpoint.event_types, type);

function newDelivery(seq: number, type: EventType, endpointId: string, now: number): DeliveryRow {
  return {
    id: sortableId('dlv_', now),
    event_seq: seq,
    endpoint_id: endpointId,
    state: 'pending',
    priority: REVOCATIONS.has(type) ? REVOCATION_PRIORITY : ORDINARY_PRIORITY,
    attempt: 0,
    failures: 0,
    next_at: now,
    created_at: now,
    first_attempt_at: null,
    delivered_at: null,
    last_status: null,
    last_error: null,
  };
}

/** One attempt that was claimed. It is void once the delivery has been claimed again. */
export interface DeliveryRef {
  id: string;
  /** 1 for the first. */
  attempt: number;
}

/**
 * Takes up to `limit` deliveries that are due, revocations first, so that nobody else takes them for `GRACE_MS`. Fewer
 * than `limit` means that nothing more is due.
 */
export async function claimDeliveries(
  deps: Deps,
  limit: number,
): Promise<(DeliveryRef & { urgent: boolean })[]> {
  const now = deps.now();
  // A look outside a transaction first: most often nothing is due, and then nobody need wait for the writer.
  if (!(await isAnyDue(deps, now))) return [];
  return deps.store.tx(async (tx) => {
    const ids: string[] = [];
    for (const priority of PRIORITIES) {
      if (ids.length < limit) ids.push(...(await lockDue(tx, deps, priority, now, limit - ids.length)));
    }
    if (ids.length === 0) return [];
    const { deliveries } = tx.tables;
    const claimed = await tx.db
      .update(deliveries)
      .set({ attempt: sql`${deliveries.attempt} + 1`, next_at: now + GRACE_MS })
      .where(inArray(deliveries.id, ids))
      .returning({ id: deliveries.id, attempt: deliveries.attempt, priority: deliveries.priority });
    return claimed
      .sort((a, b) => ids.indexOf(a.id) - ids.indexOf(b.id))
      .map(({ id, attempt, priority }) => ({ id, attempt, urgent: priority === REVOCATION_PRIORITY }));
  });
}

/** Written out, because a partial index serves only a query that repeats its condition to the letter. */
const isPending = sql`state = 'pending'`;

const readDue = statement((db, { deliveries: d }) =>
  db
    .select({ id: d.id })
    .from(d)
    .where(and(isPending, eq(d.priority, placeholder('priority')), lte(d.next_at, placeholder('now'))))
    .limit(1)
    .prepare('delivery_due'),
);

async function isAnyDue(deps: Deps, now: number): Promise<boolean> {
  for (const priority of PRIORITIES) {
    if ((await readDue(deps.store.read, { priority, now })).length > 0) return true;
  }
  return false;
}

/** One priority at a time: over both, the index would be walked past all that wait for a later attempt. */
async function lockDue(
  tx: Rows,
  deps: Deps,
  priority: number,
  now: number,
  limit: number,
): Promise<string[]> {
  const { deliveries: d } = tx.tables;
  const due = tx.db
    .select({ id: d.id })
    .from(d)
    .where(and(isPending, eq(d.priority, priority), lte(d.next_at, now)))
    .orderBy(asc(d.next_at))
    .limit(limit);
  // SQLite has one writer, and no such clause.
  const rows = await (deps.store.dialect === 'postgres' ? due.for('update', { skipLocked: true }) : due);
  return rows.map((row) => row.id);
}

/** What became of an attempt. */
export interface Attempted {
  outcome: 'delivered' | 'failed' | 'dead';
  endpointId: string;
  eventSeq: number;
  /** The HTTP status answered, if any. */
  status: number | null;
  /** Why it failed; holds nothing the receiver sent. */
  error: string | null;
  /** What was thrown, for the log, where it was none of the receiver's doing. */
  cause: unknown;
  /** How long after its event the first attempt began, if this was the first. */
  firstAttemptMs: number | undefined;
  /** How long after its event it was delivered. */
  deliveredMs: number | undefined;
}

/**
 * Makes the attempt and records what became of it. Answers null when there was nothing to do: the delivery was claimed
 * again, is done, or its endpoint was deleted.
 */
export async function attemptDelivery(deps: Deps, ref: DeliveryRef): Promise<Attempted | null> {
  const [owed] = await readOwed(deps.store.read, { id: ref.id, attempt: ref.attempt });
  if (!owed) return null;
  if (!owed.endpoint) {
    await removeDelivery(deps, ref);
    return null;
  }
  const event = toEvent(owed.event);
  const beganAt = deps.now();
  const sent = await send(deps, event, owed.endpoint, beganAt);
  const outcome = outcomeOf(owed.delivery, sent, beganAt, deps.now());
  if (!(await recordOutcome(deps, ref, outcome))) return null;
  return {
    outcome: outcome.state === 'pending' ? 'failed' : outcome.state,
    endpointId: owed.endpoint.id,
    eventSeq: event.seq,
    ...sent,
    firstAttemptMs: owed.delivery.first_attempt_at === null ? beganAt - event.at : undefined,
    deliveredMs: outcome.deliveredAt === null ? undefined : outcome.deliveredAt - event.at,
  };
}

const readOwed = statement((db, { deliveries, events, webhookEndpoints }) =>
  db
    .select({ delivery: deliveries, event: events, endpoint: webhookEndpoints })
    .from(deliveries)
    .innerJoin(events, eq(events.seq, deliveries.event_seq))
    .leftJoin(webhookEndpoints, eq(webhookEndpoints.id, deliveries.endpoint_id))
    .where(
      and(
        eq(deliveries.id, placeholder('id')),
        eq(deliveries.attempt, placeholder('attempt')),
        eq(deliveries.state, 'pending'),
      ),
    )
    .prepare('delivery_owed'),
);

const isClaimedBy = ({ deliveries: d }: Rows['tables'], { id, attempt }: DeliveryRef) =>
  and(eq(d.id, id), eq(d.attempt, attempt), eq(d.state, 'pending'));

async function removeDelivery(deps: Deps, ref: DeliveryRef): Promise<void> {
  await deps.store.tx(async ({ db, tables }) => {
    await db.delete(tables.deliveries).where(isClaimedBy(tables, ref));
  });
}

type Sent = Pick<Attempted, 'status' | 'error' | 'cause'>;

/** Never throws: whatever goes wrong is a failed attempt, so that no row is tried forever. */
async function send(deps: Deps, event: Event, endpoint: WebhookEndpointRow, now: number): Promise<Sent> {
  if (!endpoint.enabled) return { status: null, error: 'The endpoint is disabled', cause: null };
  try {
    const body = JSON.stringify(payloadOf(event));
    const headers = headersOf(webhookSecretOf(deps, endpoint), event, now, body);
    const { status } = await deps.outbound.post(endpoint.url, headers, body);
    const accepted = status >= 200 && status < 300;
    return { status, error: accepted ? null : `Wanted a status from 200 to 299, got ${status}`, cause: null };
  } catch (error) {
    if (error instanceof OutboundError) return { status: null, error: error.message, cause: null };
    return { status: null, error: 'The webhook could not be made or sent', cause: error };
  }
}

/** Standard Webhooks 1.0.0. The id is the event's: the same over all attempts, and over endpoints too. */
function headersOf(secret: string, event: Event, now: number, body: string): Record<string, string> {
  const timestamp = Math.floor(now / 1000);
  return {
    'content-type': 'application/json',
    'user-agent': 'Countersign',
    'webhook-id': event.id,
    'webhook-timestamp': `${timestamp}`,
    'webhook-signature': signWebhook(secret, event.id, timestamp, body),
  };
}

/** Thin: what happened to what, from which a receiver can ask for more. Ours come last: event data cannot shadow them. */
function payloadOf(event: Event) {
  return {
    type: event.type,
    timestamp: new Date(event.at).toISOString(),
    data: {
      ...event.data,
      eventId: event.id,
      sequence: event.seq,
      objectId: event.objectId,
      subject: event.subject,
      actor: { kind: event.actor.kind },
    },
  };
}

/** What is recorded of an attempt. */
export interface DeliveryOutcome {
  state: DeliveryRow['state'];
  /** When the next attempt is due, where the state is `pending`. */
  nextAt: number;
  beganAt: number;
  deliveredAt: number | null;
  status: number | null;
  error: string | null;
}

function outcomeOf(delivery: DeliveryRow, sent: Sent, beganAt: number, now: number): DeliveryOutcome {
  const known = { beganAt, status: sent.status, error: sent.error };
  if (sent.error === null) return { ...known, state: 'delivered', nextAt: now, deliveredAt: now };
  const waitMs = SCHEDULES_MS[delivery.priority]?.[delivery.failures + 1];
  if (waitMs === undefined) return { ...known, state: 'dead', nextAt: now, deliveredAt: null };
  const jitter = 1 + JITTER * (2 * Math.random() - 1);
  return { ...known, state: 'pending', nextAt: now + Math.round(waitMs * jitter), deliveredAt: null };
}

/** Writes down what became of an attempt, unless the delivery was claimed again or is done; answers whether it did. */
export async function recordOutcome(
  deps: Deps,
  ref: DeliveryRef,
  outcome: DeliveryOutcome,
): Promise<boolean> {
  return deps.store.tx(async ({ db, tables }) => {
    const { deliveries: d } = tables;
    const recorded = await db
      .update(d)
      .set({
        state: outcome.state,
        next_at: outcome.nextAt,
        first_attempt_at: sql`coalesce(${d.first_attempt_at}, ${outcome.beganAt})`,
        delivered_at: outcome.deliveredAt,
        ...(outcome.error !== null && { failures: sql`${d.failures} + 1` }),
        last_status: outcome.status,
        last_error: outcome.error,
      })
      .where(isClaimedBy(tables, ref))
      .returning({ id: d.id });
    return recorded.length > 0;
  });
}

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
