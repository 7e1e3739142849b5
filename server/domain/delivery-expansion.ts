/** Which webhook endpoints are owed which events: the log, written out as deliveries. */
import { and, asc, eq, gt, isNull, lte, or, type Placeholder, placeholder, type SQL, sql } from 'drizzle-orm';
import { flatStatement, statement } from '../../db/statement.ts';
import type { Db, Rows } from '../../db/store.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Deps } from '../deps.ts';
import { type EventType, REVOCATIONS } from './event-types.ts';

type DeliveryRow = Rows['tables']['deliveries']['$inferSelect'];
type WebhookEndpointRow = Rows['tables']['webhookEndpoints']['$inferSelect'];

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

/** Rows written in one transaction, and events read for them: SQLite's writer is held for no longer than that takes. */
const EXPAND_ROWS_MAX = 1_000;
const EXPAND_EVENTS_MAX = 500;
const INSERT_ROWS = 250;
/** So few are written by a prepared statement each; of more it is faster to build one for all. */
const SINGLE_ROWS_MAX = 16;

/** Writes out all that has happened, step by step. Answers up to which sequence it is written out, by whoever did it. */
export async function expandEvents(deps: Deps): Promise<number> {
  for (;;) {
    const { upTo, mayBeMore } = await expandSome(deps);
    if (!mayBeMore) return upTo;
  }
}

/**
 * One step: writes out which endpoints are owed the next events of the log. Of several processes that do so at once
 * exactly one moves the cursor.
 */
export async function expandSome(deps: Deps): Promise<{ upTo: number; mayBeMore: boolean }> {
  const [at] = await readCursor(deps.store.read, {});
  if (!at) throw new Error('The log has no head: the database was never set up');
  if (at.cursor >= at.head) return { upTo: at.cursor, mayBeMore: false };
  const [{ count } = { count: 0 }] = await countEndpoints(deps.store.read, {});
  const upTo = Math.min(at.head, at.cursor + eventsAtOnce(count));
  await deps.store.tx(async (tx) => {
    // First, because it takes the lock on PostgreSQL: whoever comes second finds the cursor moved.
    const moved = await moveCursor(tx, { from: at.cursor, to: upTo });
    if (moved.length > 0) await insertDeliveries(tx, deps, at.cursor, upTo);
  });
  return { upTo, mayBeMore: true };
}

/**
 * Writes out all that has happened, in a transaction that is about to change what an endpoint is owed: what happened
 * before is judged by what it wanted then. Takes the lock of the log's head on PostgreSQL, so that nothing happens
 * between. Short where `expandEvents` was called just before.
 */
export async function expandUntilNow(tx: Rows, deps: Deps): Promise<void> {
  await tx.db.update(tx.tables.eventHead).set({ id: 1 });
  for (;;) {
    const [at] = await readCursor(tx, {});
    if (!at || at.cursor >= at.head) return;
    const moved = await moveCursor(tx, { from: at.cursor, to: at.head });
    if (moved.length > 0) await insertDeliveries(tx, deps, at.cursor, at.head);
  }
}

const readCursor = statement((db, { webhookCursor, eventHead }) =>
  db
    .select({ cursor: webhookCursor.event_seq, head: eventHead.seq })
    .from(webhookCursor)
    .innerJoin(eventHead, eq(eventHead.id, webhookCursor.id))
    .prepare('webhook_cursor_read'),
);

const countEndpoints = statement((db, { webhookEndpoints }) =>
  db
    .select({ count: sql`count(*)`.mapWith(Number) })
    .from(webhookEndpoints)
    .prepare('webhook_endpoints_count'),
);

const moveCursor = statement((db, { webhookCursor: c }) =>
  db
    .update(c)
    .set({ event_seq: sql`${placeholder('to')}` })
    .where(eq(c.event_seq, placeholder('from')))
    .returning()
    .prepare('webhook_cursor_move'),
);

/** Without endpoints nothing is owed to anybody, however much happened. */
function eventsAtOnce(endpointCount: number): number {
  if (endpointCount === 0) return Number.MAX_SAFE_INTEGER;
  return Math.min(EXPAND_EVENTS_MAX, Math.ceil(EXPAND_ROWS_MAX / endpointCount));
}

async function insertDeliveries(tx: Rows, deps: Deps, after: number, upTo: number): Promise<void> {
  const endpoints = await readEnabled(tx, {});
  if (endpoints.length === 0) return;
  const begin = Math.max(after, Math.min(...endpoints.map((endpoint) => endpoint.created_seq)));
  const happened = await readHappened(tx, { begin, upTo });
  const now = deps.now();
  const owed = happened.flatMap((event) =>
    endpoints
      .filter((endpoint) => isOwed(endpoint, event))
      .map((endpoint) => newDelivery(event.seq, event.type, endpoint.id, now)),
  );
  if (owed.length <= SINGLE_ROWS_MAX) {
    for (const row of owed) await insertDelivery(tx, row);
    return;
  }
  for (let i = 0; i < owed.length; i += INSERT_ROWS) {
    await tx.db
      .insert(tx.tables.deliveries)
      .values(owed.slice(i, i + INSERT_ROWS))
      .onConflictDoNothing();
  }
}

const readEnabled = statement((db, { webhookEndpoints: w }) =>
  db
    .select({ id: w.id, created_seq: w.created_seq, event_types: w.event_types, subjects: w.subjects })
    .from(w)
    .where(eq(w.enabled, true))
    .prepare('webhook_endpoints_enabled'),
);

const readHappened = statement((db, { events: e }) =>
  db
    .select({ seq: e.seq, type: sql<EventType>`${e.type}`, object_id: e.object_id, subject: e.subject })
    .from(e)
    .where(and(gt(e.seq, placeholder('begin')), lte(e.seq, placeholder('upTo'))))
    .orderBy(asc(e.seq))
    .prepare('events_happened'),
);

const insertDelivery = flatStatement<DeliveryRow & Record<string, unknown>, object>(
  'delivery_insert',
  (db, { deliveries: d }) => ({
    fields: {},
    query: db
      .insert(d)
      .values({
        id: placeholder('id'),
        event_seq: placeholder('event_seq'),
        endpoint_id: placeholder('endpoint_id'),
        state: placeholder('state'),
        priority: placeholder('priority'),
        attempt: placeholder('attempt'),
        failures: placeholder('failures'),
        next_at: placeholder('next_at'),
        created_at: placeholder('created_at'),
      })
      .onConflictDoNothing(),
  }),
);

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
    claimed_at: null,
    created_at: now,
    first_attempt_at: null,
    delivered_at: null,
    last_status: null,
    last_error: null,
  };
}

/** What of an event decides to whom it is owed. */
interface Happened {
  seq: number;
  type: EventType;
  object_id: string;
  subject: string | null;
}

/** Whether an endpoint is to be sent an event: one after its own creation, of a type and a subject that it wants. */
function isOwed(
  endpoint: Pick<WebhookEndpointRow, 'id' | 'created_seq' | 'event_types' | 'subjects'>,
  event: Happened,
): boolean {
  if (event.seq <= endpoint.created_seq) return false;
  if (event.type === 'webhook_endpoint.test') return event.object_id === endpoint.id;
  const { subjects: only } = endpoint;
  if (only !== null && (event.subject === null || !only.includes(event.subject))) return false;
  return wantsEvent(endpoint.event_types, event.type);
}

/** Whether a type is among those wanted. */
export function wantsEvent(wanted: readonly string[], type: EventType): boolean {
  return wanted.length === 0 || wanted.includes(type) || wanted.includes(`${type.split('.')[0]}.*`);
}
