import { asc, gt, placeholder, sql } from 'drizzle-orm';
import { z } from 'zod';
import { statement } from '../../db/statement.ts';
import type { Lane, Rows } from '../../db/store.ts';
import { hmac } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import type { EventType } from './event-types.ts';

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
  lane: Lane = 'normal',
): Promise<T> {
  const done = await deps.store.tx(async (tx) => {
    const outcome = await work(tx);
    if (outcome.event) await appendEvent(tx, deps, caller, outcome.event);
    return outcome;
  }, lane);
  if (done.event) deps.wake('revocation-webhooks');
  return done.result;
}

const advanceHead = statement((db, { eventHead: h }) =>
  db
    .update(h)
    .set({
      seq: sql`${h.seq} + 1`,
      at: sql`case when ${h.at} > ${placeholder('now')} then ${h.at} else ${placeholder('now')} end`,
    })
    .returning({ seq: h.seq, at: h.at, previousHash: h.hash })
    .prepare('event_head_advance'),
);

const sealHead = statement((db, { eventHead: h }) =>
  db
    .update(h)
    .set({ hash: sql`${placeholder('hash')}` })
    .prepare('event_head_seal'),
);

const insertEvent = statement((db, { events: e }) =>
  db
    .insert(e)
    .values({
      seq: placeholder('seq'),
      id: placeholder('id'),
      at: placeholder('at'),
      type: placeholder('type'),
      actor_kind: placeholder('actor_kind'),
      actor_id: placeholder('actor_id'),
      object_id: placeholder('object_id'),
      subject: placeholder('subject'),
      request_id: placeholder('request_id'),
      data: placeholder('data'),
      hash: placeholder('hash'),
    })
    .prepare('event_insert'),
);

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
    actor_kind: principal.kind,
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

export const listEventsInput = z.strictObject({
  /** Answers events after this sequence. */
  after: z.number().int().min(0).default(0),
  limit: z.number().int().min(1).max(500).default(100),
});

/** Events after a sequence, in commit order. */
export async function listEvents(
  deps: Deps,
  input: z.output<typeof listEventsInput>,
): Promise<{ data: Event[]; nextAfter: number }> {
  const { db, tables } = deps.store.read;
  const rows = await db
    .select()
    .from(tables.events)
    .where(gt(tables.events.seq, input.after))
    .orderBy(asc(tables.events.seq))
    .limit(input.limit);
  return { data: rows.map(toEvent), nextAfter: rows.at(-1)?.seq ?? input.after };
}

export function toEvent(row: Rows['tables']['events']['$inferSelect']): Event {
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
