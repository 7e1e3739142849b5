import { and, asc, desc, eq, gt, gte, lt, placeholder, type SQL, sql } from 'drizzle-orm';
import { z } from 'zod';
import { CHANGE_CHANNEL } from '../../db/changes.ts';
import { lockStatement } from '../../db/lock.ts';
import { flatStatement, insertStatement } from '../../db/statement.ts';
import type { DurableLane, Rows } from '../../db/store.ts';
import { hmac } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import { type ActorKind, EVENT_TYPES, type EventType } from './event-types.ts';
import { SEARCH_CANDIDATES_MAX } from './pages.ts';

export interface NewEvent {
  type: EventType;
  /** The id of the thing changed; for a cascade, what its selector names. */
  objectId: string;
  /** On whose behalf the changed credential acts. */
  subject?: string;
  /** Holds no secrets: it goes to every subscriber. */
  data?: Record<string, unknown>;
}

export interface Event {
  seq: number;
  id: string;
  at: number;
  type: EventType;
  actor: { kind: string; id: string };
  objectId: string;
  subject: string | null;
  requestId: string;
  data: Record<string, unknown>;
}

/**
 * Makes one administrative change: runs `work` in a transaction, appends its event last, and wakes the event's readers
 * once both are durable. A change that found nothing to do answers `event: null` and appends none.
 */
export async function change<T>(
  deps: Deps,
  caller: Caller,
  work: (tx: Rows) => Promise<{ result: T; event: NewEvent | null }>,
  lane: DurableLane = 'normal',
): Promise<T> {
  const done = await deps.store.tx(async (tx) => {
    const outcome = await work(tx);
    if (outcome.event) await appendEvent(tx, deps, caller, outcome.event);
    return outcome;
  }, lane);
  if (done.event) deps.wake('revocation-webhooks');
  return done.result;
}

/**
 * Reads the head of the log and makes appenders wait: nothing is appended until this transaction ends, and the next
 * sequence is its own.
 */
export async function lockHead(tx: Rows): Promise<{ seq: number }> {
  const head = await readHead(tx, 1);
  if (!head) throw new Error('The log has no head: the database was never set up');
  return head;
}

const readHead = lockStatement('event_head_lock', 'eventHead');

const advanceHead = flatStatement<{ now: number }, { seq: number; at: number; previousHash: Buffer }>(
  'event_head_advance',
  (db, { eventHead: h }) => {
    const fields = { seq: h.seq, at: h.at, previousHash: h.hash };
    const query = db
      .update(h)
      .set({
        seq: sql`${h.seq} + 1`,
        at: sql`case when ${h.at} > ${placeholder('now')} then ${h.at} else ${placeholder('now')} end`,
      })
      .returning(fields);
    return { fields, query };
  },
);

/** Tells those who wait for changes with the statement that seals the head: it goes out with the commit, or not at all. */
const sealHead = flatStatement<{ hash: Buffer }, object>('event_head_seal', (db, { eventHead: h }) => ({
  fields: {},
  query: db
    .update(h)
    .set({ hash: sql`${placeholder('hash')}` })
    .returning({ told: sql`pg_notify(${sql.raw(`'${CHANGE_CHANNEL}'`)}, '')` }),
}));

const insertEvent = insertStatement('event_insert', 'events');

/** Appends one event. Updating the head serialises appenders until commit, so sequence is commit order without gaps. */
export async function appendEvent(
  tx: Rows,
  deps: Pick<Deps, 'keyring' | 'now'>,
  { principal, requestId }: Caller,
  event: NewEvent,
): Promise<void> {
  const [head] = await advanceHead(tx, { now: deps.now() });
  if (!head) throw new Error('The log has no head: the database was never set up');
  const row = {
    seq: head.seq,
    id: sortableId('evt_', head.at),
    at: head.at,
    type: event.type,
    actor_kind: principal.kind satisfies ActorKind,
    actor_id: principal.id,
    object_id: event.objectId,
    subject: event.subject ?? null,
    request_id: requestId,
    data: event.data ?? {},
  };
  const hash = chainHash(deps.keyring.log, head.previousHash, row);
  await insertEvent(tx, { ...row, hash });
  await sealHead(tx, { hash });
}

/** The hash that chains an event to the one before: a keyed HMAC over that one's hash and this one's columns. */
export function chainHash(
  logKey: Buffer,
  previousHash: Buffer,
  row: {
    seq: number;
    id: string;
    at: number;
    type: string;
    actor_kind: string;
    actor_id: string;
    object_id: string;
    subject: string | null;
    request_id: string;
    data: Record<string, unknown>;
  },
): Buffer {
  const columns = [
    previousHash.toString('hex'),
    row.seq,
    row.id,
    row.at,
    row.type,
    row.actor_kind,
    row.actor_id,
    row.object_id,
    row.subject,
    row.request_id,
    row.data,
  ];
  return hmac(logKey, JSON.stringify(columns));
}

const exactly = z.string().min(1).max(255).optional();

export const listEventsInput = z.strictObject({
  /** Answers events after this sequence. */
  after: z.number().int().min(0).default(0),
  /** Answers events before this sequence. */
  before: z.number().int().min(1).optional(),
  newestFirst: z.boolean().optional(),
  limit: z.number().int().min(1).max(500).default(100),
  type: z.enum(Object.keys(EVENT_TYPES) as [EventType, ...EventType[]]).optional(),
  actorId: exactly,
  objectId: exactly,
  subject: exactly,
  /** From this instant on. */
  since: z.number().int().min(0).optional(),
  /** Until before this instant. */
  until: z.number().int().min(0).optional(),
});

type ListInput = z.output<typeof listEventsInput>;

export interface EventPage {
  data: Event[];
  /** The last sequence that was looked at: pass it back as `after` for what comes then. */
  nextAfter: number;
  /** Newest first: pass it back as `before` for the next page. Null on the last, and in commit order. */
  nextBefore: number | null;
}

/**
 * Events after a sequence, in commit order, or newest first. Of several filters one is looked up and the others are held
 * against `SEARCH_CANDIDATES_MAX` of its events at most: then a page may be short, even empty, and not the last.
 */
export async function listEvents(deps: Deps, input: ListInput): Promise<EventPage> {
  const { db, tables } = deps.store.read;
  const { events } = tables;
  const [lookedUp, ...others] = filtersOf(events, input);
  const direction = input.newestFirst ? desc : asc;
  const bounds = await boundsOf(deps.store.read, input);
  const first = (limit: number) =>
    db
      .select()
      .from(events)
      .where(and(lookedUp, ...bounds))
      .orderBy(direction(events.seq))
      .limit(limit);
  const candidates = first(SEARCH_CANDIDATES_MAX).as('events');
  const found =
    others.length > 0
      ? await db
          .select()
          .from(candidates)
          .where(and(...others))
          .orderBy(direction(candidates.seq))
          .limit(input.limit)
      : await first(input.limit);
  const data = found.map(toEvent);
  const isFull = data.length === input.limit;
  const [lastCandidate] =
    isFull || others.length === 0
      ? []
      : await db
          .select({ seq: candidates.seq })
          .from(candidates)
          .orderBy(direction(candidates.seq))
          .limit(1)
          .offset(SEARCH_CANDIDATES_MAX - 1);
  const end = lastCandidate?.seq ?? data.at(-1)?.seq;
  if (!input.newestFirst) return { data, nextAfter: end ?? input.after, nextBefore: null };
  return {
    data,
    nextAfter: data[0]?.seq ?? input.after,
    nextBefore: isFull || lastCandidate ? (end ?? null) : null,
  };
}

type EventsTable = Rows['tables']['events'];

/** The filters that are given, the one by which fewest are likely to be found first. */
function filtersOf(e: EventsTable, { objectId, subject, actorId, type }: ListInput): SQL[] {
  const wanted = [
    [e.object_id, objectId],
    [e.subject, subject],
    [e.actor_id, actorId],
    [e.type, type],
  ] as const;
  return wanted.flatMap(([column, value]) => (value === undefined ? [] : [eq(column, value)]));
}

/** Between which sequences. No event is dated before the one it follows, so instants are sequences too. */
async function boundsOf(rows: Rows, { after, before, since, until }: ListInput): Promise<SQL[]> {
  const { seq } = rows.tables.events;
  const bounds = [gt(seq, after)];
  if (before !== undefined) bounds.push(lt(seq, before));
  if (since !== undefined)
    bounds.push(gte(seq, (await firstSeqSince(rows, since)) ?? Number.MAX_SAFE_INTEGER));
  const end = until === undefined ? undefined : await firstSeqSince(rows, until);
  if (end !== undefined) bounds.push(lt(seq, end));
  return bounds;
}

async function firstSeqSince({ db, tables: { events: e } }: Rows, at: number): Promise<number | undefined> {
  const [first] = await db
    .select({ seq: e.seq })
    .from(e)
    .where(gte(e.at, at))
    .orderBy(asc(e.at), asc(e.seq))
    .limit(1);
  return first?.seq;
}

/** Up to `limit` events after a sequence, in commit order. */
export async function readEvents(
  { db, tables: { events } }: Rows,
  after: number,
  limit: number,
): Promise<Event[]> {
  const rows = await db
    .select()
    .from(events)
    .where(gt(events.seq, after))
    .orderBy(asc(events.seq))
    .limit(limit);
  return rows.map(toEvent);
}

export function toEvent(row: Omit<Rows['tables']['events']['$inferSelect'], 'hash'>): Event {
  return {
    seq: row.seq,
    id: row.id,
    at: row.at,
    type: row.type as EventType,
    actor: { kind: row.actor_kind, id: row.actor_id },
    objectId: row.object_id,
    subject: row.subject,
    requestId: row.request_id,
    data: row.data,
  };
}
