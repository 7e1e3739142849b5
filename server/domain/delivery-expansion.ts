/** Which webhook endpoints are owed which events: the log, written out as deliveries. */
import { and, asc, eq, gt, lte, placeholder, type SQL, sql } from 'drizzle-orm';
import { flatStatement, statement } from '../../db/statement.ts';
import type { Db, Rows } from '../../db/store.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Deps } from '../deps.ts';
import {
  type Claim,
  GRACE_MS,
  mayBeClaimedAtOnce,
  ORDINARY_PRIORITY,
  REVOCATION_PRIORITY,
  type Turns,
} from './delivery-claims.ts';
import { type EventType, REVOCATIONS } from './event-types.ts';
import { lockHead } from './events.ts';

type DeliveryRow = Rows['tables']['deliveries']['$inferSelect'];
type WebhookEndpointRow = Rows['tables']['webhookEndpoints']['$inferSelect'];

/** Rows written in one transaction, and events read for them: SQLite's writer is held for no longer than that takes. */
const EXPAND_ROWS_MAX = 1_000;
const EXPAND_EVENTS_MAX = 500;
const INSERT_ROWS = 250;
/** So few are written by a prepared statement each; of more it is faster to build one for all. */
const SINGLE_ROWS_MAX = 16;

/** What was written out, by whoever did it. */
export interface Expanded {
  /** From which sequence on there was something to write out. */
  from: number;
  /** Up to which sequence it is written out. */
  upTo: number;
  /** What was claimed as it was written out. */
  claimed: readonly Claim[];
  /** Whether something else was. */
  isLeft: boolean;
}

export interface Step extends Expanded {
  /** Up to where there was something to write out when it began. */
  head: number;
  /** Whether it is not written out up to there yet. */
  mayBeMore: boolean;
}

/** Who claims what can be sent at once: so many deliveries at most. */
export interface Claimant {
  turns: Turns;
  claimMax: number;
}

/**
 * Writes out all that has happened, step by step. What could be sent at once is claimed with that, where a claimant is
 * given: then nobody need look for it.
 */
export async function expandEvents(deps: Deps, claimant?: Claimant): Promise<Expanded> {
  let step = await expandSome(deps, claimant);
  const all = { ...step, claimed: [...step.claimed] };
  // What is appended meanwhile is for the next call: otherwise a steady stream of events would keep the caller here.
  const { head } = step;
  while (step.mayBeMore) {
    const rest = claimant && { ...claimant, claimMax: claimant.claimMax - all.claimed.length };
    step = await expandSome(deps, rest, head);
    all.upTo = step.upTo;
    all.claimed.push(...step.claimed);
    all.isLeft ||= step.isLeft;
  }
  return all;
}

/**
 * One step: writes out which endpoints are owed the next events of the log. Of several processes that do so at once
 * exactly one moves the cursor. None writes out what comes after `until`.
 */
export async function expandSome(
  deps: Deps,
  claimant?: Claimant,
  until = Number.MAX_SAFE_INTEGER,
): Promise<Step> {
  const at = await whereToBegin(deps.store.read);
  const { from } = at;
  const head = Math.min(at.head, until);
  if (from >= head) return { ...nothingNew(from), head, mayBeMore: false };
  const upTo = Math.min(head, from + eventsAtOnce(await endpointCount(deps.store.read)));
  const written = await deps.store.tx((tx) => writeOut(tx, deps, { from, upTo }, claimant), 'claiming');
  return { from, upTo, head, ...written, mayBeMore: upTo < head || written === BY_OTHERS };
}

/**
 * Writes out events that are not committed yet, in a transaction that is committed with theirs where there is time for that:
 * nobody else does so meanwhile. Where it would hold them up, because many endpoints may be owed them, it leaves them to `expandEvents`.
 */
export async function expandAhead(deps: Deps, claimant: Claimant): Promise<Expanded> {
  return deps.store.tx(async (tx) => {
    const { from, head: upTo } = await whereToBegin(tx);
    const rowsMax = (upTo - from) * (await endpointCount(tx));
    if (rowsMax === 0 || rowsMax > SINGLE_ROWS_MAX) return nothingNew(from);
    return { from, upTo, ...(await writeOut(tx, deps, { from, upTo }, claimant)) };
  }, 'claiming');
}

async function whereToBegin(rows: Rows): Promise<{ from: number; head: number }> {
  const [at] = await readCursor(rows, {});
  if (!at) throw new Error('The log has no head: the database was never set up');
  return { from: at.cursor, head: at.head };
}

const nothingNew = (from: number): Expanded => ({ from, upTo: from, claimed: [], isLeft: false });

async function endpointCount(rows: Rows): Promise<number> {
  const [counted] = await countEndpoints(rows, {});
  return counted?.count ?? 0;
}

type Written = Pick<Expanded, 'claimed' | 'isLeft'>;

async function writeOut(
  tx: Rows,
  deps: Deps,
  { from, upTo }: { from: number; upTo: number },
  claimant?: Claimant,
): Promise<Written> {
  // First, because it takes the lock on PostgreSQL: whoever comes second finds the cursor moved.
  const moved = await moveCursor(tx, { from, to: upTo });
  return moved.length > 0 ? insertDeliveries(tx, deps, { after: from, upTo }, claimant) : BY_OTHERS;
}

const NOTHING: Written = { claimed: [], isLeft: false };
const BY_OTHERS: Written = { claimed: [], isLeft: true };

/**
 * Writes out all that has happened, in a transaction that is about to change what an endpoint is owed: what happened
 * before is judged by what it wanted then. Takes the lock of the log's head on PostgreSQL, so that nothing happens
 * between. Short where `expandEvents` was called just before.
 */
export async function expandUntilNow(tx: Rows, deps: Deps): Promise<void> {
  await lockHead(tx);
  for (;;) {
    const [at] = await readCursor(tx, {});
    if (!at || at.cursor >= at.head) return;
    const moved = await moveCursor(tx, { from: at.cursor, to: at.head });
    if (moved.length > 0) await insertDeliveries(tx, deps, { after: at.cursor, upTo: at.head });
  }
}

const readCursor = flatStatement<Record<never, never>, { cursor: number; head: number }>(
  'webhook_cursor_read',
  (db, { webhookCursor: c, eventHead: h }) => {
    const fields = { cursor: c.event_seq, head: h.seq };
    return { fields, query: db.select(fields).from(c).innerJoin(h, eq(h.id, c.id)) };
  },
);

const countEndpoints = statement((db, { webhookEndpoints }) =>
  db
    .select({ count: sql`count(*)`.mapWith(Number) })
    .from(webhookEndpoints)
    .prepare('webhook_endpoints_count'),
);

const moveCursor = flatStatement<{ from: number; to: number }, { id: number }>(
  'webhook_cursor_move',
  (db, { webhookCursor: c }) => {
    const fields = { id: c.id };
    const query = db
      .update(c)
      .set({ event_seq: sql`${placeholder('to')}` })
      .where(eq(c.event_seq, placeholder('from')))
      .returning(fields);
    return { fields, query };
  },
);

/** Without endpoints nothing is owed to anybody, however much happened. */
function eventsAtOnce(endpointCount: number): number {
  if (endpointCount === 0) return Number.MAX_SAFE_INTEGER;
  return Math.min(EXPAND_EVENTS_MAX, Math.ceil(EXPAND_ROWS_MAX / endpointCount));
}

async function insertDeliveries(
  tx: Rows,
  deps: Deps,
  { after, upTo }: { after: number; upTo: number },
  claimant?: Claimant,
): Promise<Written> {
  const endpoints = await enabledEndpoints(tx);
  if (endpoints.length === 0) return NOTHING;
  const begin = Math.max(after, Math.min(...endpoints.map((endpoint) => endpoint.created_seq)));
  const happened = await readHappened(tx, { begin, upTo });
  const now = deps.now();
  const owed = happened.flatMap((event) =>
    endpoints
      .filter((endpoint) => isOwed(endpoint, event))
      .map((endpoint) => newDelivery(event.seq, event.type, endpoint.id, now)),
  );
  if (owed.length <= SINGLE_ROWS_MAX) return insertSingly(tx, owed, claimant);
  for (let i = 0; i < owed.length; i += INSERT_ROWS) {
    await tx.db
      .insert(tx.tables.deliveries)
      .values(owed.slice(i, i + INSERT_ROWS))
      .onConflictDoNothing();
  }
  return { claimed: [], isLeft: true };
}

/** In the order of events, so that of one endpoint none is claimed before an earlier one of its kind. */
async function insertSingly(tx: Rows, owed: readonly DeliveryRow[], claimant?: Claimant): Promise<Written> {
  const claimed: Claim[] = [];
  for (const row of owed) {
    const { id, endpoint_id: endpointId, priority, next_at: now } = row;
    const mayClaim = claimant !== undefined && claimed.length < claimant.claimMax;
    const isClaimed = mayClaim && (await mayBeClaimedAtOnce(tx, row, claimant.turns));
    if (isClaimed) claimed.push({ id, attempt: 1, endpointId, urgent: priority === REVOCATION_PRIORITY });
    const claim = isClaimed && { attempt: 1, claimed_at: now, next_at: now + GRACE_MS };
    await insertDelivery(tx, { ...row, ...claim });
  }
  return { claimed, isLeft: claimed.length < owed.length };
}

/** Without those whose row cannot be read: what they want is not known, and they must not stop the others. */
async function enabledEndpoints(tx: Rows): Promise<Subscriber[]> {
  const all = await unlessUnreadable(readEnabled(tx, {}));
  if (all) return all;
  const { db, tables } = tx;
  const { webhookEndpoints: w } = tables;
  const readable: Subscriber[] = [];
  for (const { id } of await db.select({ id: w.id }).from(w).where(eq(w.enabled, true)))
    readable.push(...((await unlessUnreadable(readEnabledOne(tx, { id }))) ?? []));
  return readable;
}

/** Null where a column holds no JSON. */
const unlessUnreadable = <T>(reading: Promise<T>): Promise<T | null> =>
  reading.catch((error: unknown) => {
    if (error instanceof SyntaxError) return null;
    throw error;
  });

type Subscriber = Pick<WebhookEndpointRow, 'id' | 'created_seq' | 'event_types' | 'subjects'>;

const subscribers = (db: Db, w: Rows['tables']['webhookEndpoints'], which?: SQL) =>
  db
    .select({ id: w.id, created_seq: w.created_seq, event_types: w.event_types, subjects: w.subjects })
    .from(w)
    .where(and(eq(w.enabled, true), which));

const readEnabled = statement((db, { webhookEndpoints: w }) =>
  subscribers(db, w).prepare('webhook_endpoints_enabled'),
);

const readEnabledOne = statement((db, { webhookEndpoints: w }) =>
  subscribers(db, w, eq(w.id, placeholder('id'))).prepare('webhook_endpoint_enabled'),
);

const readHappened = flatStatement<{ begin: number; upTo: number }, Happened>(
  'events_happened',
  (db, { events: e }) => {
    const fields = { seq: e.seq, type: e.type, object_id: e.object_id, subject: e.subject };
    const query = db
      .select(fields)
      .from(e)
      .where(and(gt(e.seq, placeholder('begin')), lte(e.seq, placeholder('upTo'))))
      .orderBy(asc(e.seq));
    return { fields, query };
  },
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
        claimed_at: placeholder('claimed_at'),
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
function isOwed(endpoint: Subscriber, event: Happened): boolean {
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
