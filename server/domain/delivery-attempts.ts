/** Attempts at deliveries: what is sent, what came of it, and what that means for the delivery and its endpoint. */
import { and, desc, eq, lte, placeholder, sql } from 'drizzle-orm';
import { flatStatement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import type { Caller, Deps } from '../deps.ts';
import { OutboundError } from '../outbound.ts';
import { Slots } from './delivery-claims.ts';
import { change, type Event, type NewEvent, toEvent } from './events.ts';
import { disabledEvent, type SealedKeys, webhookKeysOf } from './webhook-endpoints.ts';
import { webhookBodyOf, webhookHeadersOf } from './webhook-messages.ts';

type DeliveryRow = Rows['tables']['deliveries']['$inferSelect'];
type EventRow = Rows['tables']['events']['$inferSelect'];
type AttemptRow = Rows['tables']['deliveryAttempts']['$inferSelect'];
type WebhookEndpointRow = Rows['tables']['webhookEndpoints']['$inferSelect'];

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

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

/** Too many requests, or a gateway that cannot reach who would answer: more requests would only make it worse. */
const BUSY_STATUSES: ReadonlySet<number | null> = new Set([429, 502, 504]);
export const BUSY_WAIT_MS = MINUTE;

/** The receiver says that it will never want webhooks again. */
const GONE = 410;

/**
 * An endpoint that did nothing but fail for so long is disabled, by a delivery that failed so often itself: two failures
 * with days between in which nothing was tried say little.
 */
export const FAILING_MS_MAX = 5 * DAY;
export const FAILURES_MIN = 6;

/** The instant of the last success is written down no more often: each would write the endpoint's row. */
const SUCCESS_NOTED_MS = MINUTE;

/** One attempt that was claimed. It is void once the delivery has been claimed again. */
export interface DeliveryRef {
  id: string;
  /** 1 for the first. */
  attempt: number;
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
  /** Why its endpoint was disabled by this attempt, or null. */
  disabled: 'gone' | 'failing' | null;
  /** How long after its event the first attempt began, if this was the first. */
  firstAttemptMs: number | undefined;
  /** How long after its event it was delivered; not told of what was put back, whose event may be of any age. */
  deliveredMs: number | undefined;
}

/** Who makes attempts. */
export interface Attempter {
  /** Shared by all who make attempts in a process. */
  slots: Slots;
  /** Told when nothing is under way at the endpoint any more on this account, which is before it is recorded. */
  onEnd: (endpointId: string) => void;
}

/**
 * Makes the attempt and records what became of it. Answers null when there was nothing to do: the delivery was claimed
 * again, is done, or its endpoint was deleted or disabled; or it was put back, because others at its endpoint did not end, or failed.
 */
export async function attemptDelivery(
  deps: Deps,
  ref: DeliveryRef,
  { slots, onEnd }: Attempter = { slots: new Slots(), onEnd() {} },
): Promise<Attempted | null> {
  let owed: Owed | undefined;
  try {
    [owed] = await readOwed(deps.store.read, { id: ref.id, attempt: ref.attempt });
  } catch (cause) {
    return failUnread(deps, ref, cause);
  }
  if (!owed?.enabled) return null;
  const first = owed;
  const made = await slots.run(first.endpoint_id, async (hasWaited) => {
    const one = await make(deps, ref, hasWaited ? null : first);
    if (one?.sent.error != null) slots.turnAway(first.endpoint_id);
    return one;
  });
  if (made === undefined) await putBack(deps, ref);
  onEnd(first.endpoint_id);
  if (!made) return null;
  const { delivery, endpoint, event, beganAt, sent } = made;
  const outcome = outcomeOf(delivery, sent, deps.now());
  const verdict = verdictOf(delivery, endpoint, sent, deps.now());
  if (!(await record(deps, { ref, sent, beganAt, outcome, verdict }))) return null;
  return {
    ...attemptedOf(delivery, sent, outcome),
    disabled: verdict?.disable ?? null,
    firstAttemptMs: delivery.first_attempt_at === null ? beganAt - event.at : undefined,
    deliveredMs:
      outcome.deliveredAt === null || isAgain(delivery) ? undefined : outcome.deliveredAt - event.at,
  };
}

/** Sends what is owed; null where nothing is any more. Whoever had to wait since it was read has it read anew. */
async function make(deps: Deps, { id, attempt }: DeliveryRef, read: Owed | null) {
  const owed = read ?? (await readOwed(deps.store.read, { id, attempt }))[0];
  if (!owed?.enabled) return null;
  const endpoint: AttemptedEndpoint = { ...owed, id: owed.endpoint_id };
  const event = toEvent({ ...owed, id: owed.event_id, seq: owed.event_seq });
  const beganAt = deps.now();
  return { delivery: owed, endpoint, event, beganAt, sent: await send(deps, event, endpoint, beganAt) };
}

/** Ends a claim without an attempt: whoever comes next may make it, ahead of what came later. */
async function putBack({ store }: Deps, { id, attempt }: DeliveryRef): Promise<void> {
  await store.tx(({ db, tables: { deliveries: d } }) => {
    const isOurs = and(eq(d.id, id), eq(d.attempt, attempt), eq(d.state, 'pending'));
    return db
      .update(d)
      .set({ claimed_at: null, next_at: sql`${d.created_at}` })
      .where(isOurs);
  }, 'claiming');
}

/**
 * A row that cannot be read is a failed attempt like any other, so that none is tried for ever. Throws where the
 * database answers nothing at all.
 */
async function failUnread(deps: Deps, ref: DeliveryRef, cause: unknown): Promise<Attempted | null> {
  const { db, tables } = deps.store.read;
  const { deliveries: d } = tables;
  const [delivery] = await db
    .select()
    .from(d)
    .where(and(eq(d.id, ref.id), eq(d.attempt, ref.attempt), eq(d.state, 'pending')));
  if (!delivery) return null;
  const beganAt = deps.now();
  const sent: Sent = { ...UNANSWERED, error: UNMADE, cause };
  const outcome = outcomeOf(delivery, sent, beganAt);
  if (!(await record(deps, { ref, sent, beganAt, outcome, verdict: null }))) return null;
  return {
    ...attemptedOf(delivery, sent, outcome),
    disabled: null,
    firstAttemptMs: undefined,
    deliveredMs: undefined,
  };
}

function attemptedOf(
  delivery: AttemptedDelivery,
  { status, error, cause }: Sent,
  { state }: Outcome,
): Omit<Attempted, 'disabled' | 'firstAttemptMs' | 'deliveredMs'> {
  const outcome = state === 'pending' ? 'failed' : state;
  return { outcome, endpointId: delivery.endpoint_id, eventSeq: delivery.event_seq, status, error, cause };
}

/** Whether it was put back since its first attempt, or one was lost on our side: either way not every attempt before failed. */
const isAgain = ({ attempt, failures }: AttemptedDelivery) => failures !== attempt - 1;

type AttemptedDelivery = Pick<
  DeliveryRow,
  'endpoint_id' | 'event_seq' | 'priority' | 'attempt' | 'failures' | 'first_attempt_at'
>;

type AttemptedEndpoint = Pick<WebhookEndpointRow, 'id' | 'url' | 'failing_since' | 'last_success_at'> &
  SealedKeys;

type Owed = AttemptedDelivery &
  Omit<EventRow, 'id' | 'seq' | 'hash'> &
  Omit<AttemptedEndpoint, 'id'> &
  Pick<WebhookEndpointRow, 'enabled'> & { event_id: string };

const readOwed = flatStatement<{ id: string; attempt: number }, Owed>('delivery_owed', (db, tables) => {
  const { deliveries: d, events: e, webhookEndpoints: w } = tables;
  const fields = {
    endpoint_id: d.endpoint_id,
    event_seq: d.event_seq,
    priority: d.priority,
    attempt: d.attempt,
    failures: d.failures,
    first_attempt_at: d.first_attempt_at,
    event_id: e.id,
    at: e.at,
    type: e.type,
    actor_kind: e.actor_kind,
    actor_id: e.actor_id,
    object_id: e.object_id,
    subject: e.subject,
    request_id: e.request_id,
    data: e.data,
    enabled: w.enabled,
    url: w.url,
    failing_since: w.failing_since,
    last_success_at: w.last_success_at,
    sealed_secret: w.sealed_secret,
    sealed_previous_secret: w.sealed_previous_secret,
    previous_secret_expires_at: w.previous_secret_expires_at,
    sealed_signing_key: w.sealed_signing_key,
  };
  const query = db
    .select(fields)
    .from(d)
    .innerJoin(e, eq(e.seq, d.event_seq))
    .innerJoin(w, eq(w.id, d.endpoint_id))
    .where(
      and(eq(d.id, placeholder('id')), eq(d.attempt, placeholder('attempt')), sql`${d.state} = 'pending'`),
    );
  return { fields, query };
});

interface Sent {
  status: number | null;
  error: string | null;
  cause: unknown;
  /** The first 4 KB of what was answered. */
  response: string | null;
  retryAfter: string | null;
}

const UNMADE = 'The webhook could not be made or sent';
const UNANSWERED = { status: null, response: null, retryAfter: null, cause: null };

/** Never throws: whatever goes wrong is a failed attempt, so that no row is tried forever. */
async function send(deps: Deps, event: Event, endpoint: AttemptedEndpoint, now: number): Promise<Sent> {
  try {
    const body = webhookBodyOf(event);
    const keys = webhookKeysOf(deps, endpoint, now);
    const headers = webhookHeadersOf(keys, event.id, deps.wallClock(), body);
    const { status, body: response, retryAfter } = await deps.outbound.post(endpoint.url, headers, body);
    const accepted = status >= 200 && status < 300;
    const error = accepted ? null : `Wanted a status from 200 to 299, got ${status}`;
    return { status, error, cause: null, response, retryAfter };
  } catch (error) {
    if (error instanceof OutboundError) return { ...UNANSWERED, error: error.message };
    return { ...UNANSWERED, error: UNMADE, cause: error };
  }
}

interface Outcome {
  state: DeliveryRow['state'];
  /** When the next attempt is due, where the state is `pending`. */
  nextAt: number;
  deliveredAt: number | null;
}

function outcomeOf(delivery: AttemptedDelivery, sent: Sent, now: number): Outcome {
  if (sent.error === null) return { state: 'delivered', nextAt: now, deliveredAt: now };
  const waitMs = SCHEDULES_MS[delivery.priority]?.[delivery.failures + 1];
  if (waitMs === undefined) return { state: 'dead', nextAt: now, deliveredAt: null };
  return { state: 'pending', nextAt: now + patience(waitMs, sent, now), deliveredAt: null };
}

/** How long to wait: by the schedule, or what the receiver asks for as long as that is once to twice as much. */
function patience(scheduledMs: number, sent: Sent, now: number): number {
  const isBusy = BUSY_STATUSES.has(sent.status);
  const baseMs = isBusy ? Math.max(scheduledMs, BUSY_WAIT_MS) : scheduledMs;
  const askedMs = retryAfterMs(sent.retryAfter, now);
  if (askedMs !== null) return Math.min(Math.max(askedMs, baseMs), 2 * baseMs);
  const jittered = Math.round(baseMs * (1 + JITTER * (2 * Math.random() - 1)));
  return isBusy ? Math.max(jittered, BUSY_WAIT_MS) : jittered;
}

/** RFC 9110, section 10.2.3: seconds, or a date. Null for neither. */
function retryAfterMs(header: string | null, now: number): number | null {
  if (header === null) return null;
  if (/^\d{1,10}$/.test(header)) return Number(header) * SECOND;
  const at = Date.parse(header);
  return Number.isNaN(at) ? null : at - now;
}

/** What an attempt means for its endpoint. */
interface Verdict {
  /** Whom it was sent to; what has another URL since is another receiver. */
  endpoint: AttemptedEndpoint;
  /** What changes of its row; empty for nothing. */
  changes: Partial<Pick<WebhookEndpointRow, 'failing_since' | 'last_success_at' | 'throttled_until'>>;
  disable: 'gone' | 'failing' | null;
}

/** Null for what is ours, and none of the receiver's doing. */
function verdictOf(
  delivery: AttemptedDelivery,
  endpoint: AttemptedEndpoint,
  sent: Sent,
  now: number,
): Verdict | null {
  if (sent.cause !== null) return null;
  if (sent.error === null) return { endpoint, changes: successOf(endpoint, now), disable: null };
  const changes: Verdict['changes'] = endpoint.failing_since === null ? { failing_since: now } : {};
  if (BUSY_STATUSES.has(sent.status)) changes.throttled_until = now + patience(BUSY_WAIT_MS, sent, now);
  if (sent.status === GONE) return { endpoint, changes, disable: 'gone' };
  const isFailing = hasFailedForLong(endpoint.failing_since, now) && delivery.failures + 1 >= FAILURES_MIN;
  return { endpoint, changes, disable: isFailing ? 'failing' : null };
}

const hasFailedForLong = (since: number | null, now: number) =>
  since !== null && now - since >= FAILING_MS_MAX;

function successOf({ failing_since, last_success_at }: AttemptedEndpoint, now: number): Verdict['changes'] {
  const isKnown = failing_since === null && now - (last_success_at ?? 0) < SUCCESS_NOTED_MS;
  return isKnown ? {} : { failing_since: null, last_success_at: now };
}

interface Ended {
  ref: DeliveryRef;
  sent: Sent;
  beganAt: number;
  outcome: Outcome;
  verdict: Verdict | null;
}

/** Who disables an endpoint that is gone or failing. */
const WEBHOOKS: Caller = { principal: { kind: 'system', id: 'webhooks' }, requestId: 'webhooks' };

/** Writes down an attempt, unless the delivery was claimed again or is done; answers whether it did. */
async function record(deps: Deps, ended: Ended): Promise<boolean> {
  const write = async (tx: Rows) => {
    if (!(await recordOutcome(tx, ended))) return { result: false, event: null };
    await recordAttempt(tx, ended, deps.now());
    return { result: true, event: ended.verdict && (await recordVerdict(tx, ended.verdict, deps.now())) };
  };
  if (ended.verdict?.disable) return change(deps, WEBHOOKS, write);
  return deps.store.tx(
    async (tx) => {
      const { result, event } = await write(tx);
      if (event) throw new Error('An event needs a lane that is flushed');
      return result;
      // What failed may change how much its endpoint is sent.
    },
    ended.sent.error === null ? 'unhurried' : 'claiming',
  );
}

async function recordOutcome(tx: Rows, { ref, sent, beganAt, outcome }: Ended): Promise<boolean> {
  const recorded = await endAttempt(tx, {
    id: ref.id,
    attempt: ref.attempt,
    state: outcome.state,
    nextAt: outcome.nextAt,
    beganAt,
    deliveredAt: outcome.deliveredAt,
    failed: sent.error === null ? 0 : 1,
    status: sent.status,
    error: sent.error,
  });
  return recorded.length > 0;
}

const endAttempt = flatStatement<
  {
    id: string;
    attempt: number;
    state: DeliveryRow['state'];
    nextAt: number;
    beganAt: number;
    deliveredAt: number | null;
    failed: 0 | 1;
    status: number | null;
    error: string | null;
  },
  { id: string }
>('delivery_end', (db, { deliveries: d }) => {
  const fields = { id: d.id };
  const query = db
    .update(d)
    .set({
      state: sql`${placeholder('state')}`,
      next_at: sql`${placeholder('nextAt')}`,
      claimed_at: null,
      first_attempt_at: sql`coalesce(${d.first_attempt_at}, ${placeholder('beganAt')})`,
      delivered_at: sql`${placeholder('deliveredAt')}`,
      failures: sql`${d.failures} + ${placeholder('failed')}`,
      last_status: sql`${placeholder('status')}`,
      last_error: sql`${placeholder('error')}`,
    })
    .where(
      and(eq(d.id, placeholder('id')), eq(d.attempt, placeholder('attempt')), sql`${d.state} = 'pending'`),
    )
    .returning(fields);
  return { fields, query };
});

async function recordAttempt(tx: Rows, { ref, sent, beganAt }: Ended, now: number) {
  const { status, error, response } = sent;
  await insertAttempt(tx, { ...ref, beganAt, endedAt: now, status, error, response });
}

const insertAttempt = flatStatement<
  Pick<AttemptRow, 'attempt' | 'status' | 'error' | 'response'> & {
    id: string;
    beganAt: number;
    endedAt: number;
  },
  object
>('delivery_attempt_insert', (db, { deliveryAttempts }) => ({
  fields: {},
  query: db.insert(deliveryAttempts).values({
    delivery_id: placeholder('id'),
    attempt: placeholder('attempt'),
    began_at: placeholder('beganAt'),
    ended_at: placeholder('endedAt'),
    status: placeholder('status'),
    error: placeholder('error'),
    response: placeholder('response'),
  }),
}));

/**
 * Of several attempts that find an endpoint gone or failing exactly one disables it, and appends the event. Judged again
 * by the row as it is: since the attempt began another may have succeeded, or somebody given it another URL.
 */
async function recordVerdict(
  { db, tables }: Rows,
  { endpoint, changes, disable }: Verdict,
  now: number,
): Promise<NewEvent | null> {
  const { webhookEndpoints: w } = tables;
  const isSame = and(eq(w.id, endpoint.id), eq(w.url, endpoint.url));
  if (Object.keys(changes).length > 0) {
    // Of failures at the same time the first counts.
    const failing = changes.failing_since && {
      failing_since: sql`coalesce(${w.failing_since}, ${changes.failing_since})`,
    };
    await db
      .update(w)
      .set({ ...changes, ...failing })
      .where(isSame);
  }
  if (disable === null) return null;
  const stillFailing = disable === 'failing' ? lte(w.failing_since, now - FAILING_MS_MAX) : undefined;
  const [disabled] = await db
    .update(w)
    .set({ enabled: false, disabled_reason: disable, updated_at: now })
    .where(and(isSame, eq(w.enabled, true), stillFailing))
    .returning();
  return disabled ? disabledEvent(disabled) : null;
}

export interface DeliveryAttempt {
  /** 1 for the first. Numbers of attempts that were lost on our side are left out. */
  attempt: number;
  beganAt: number;
  endedAt: number;
  status: number | null;
  error: string | null;
  /** The first 4 KB of what the receiver answered, as it is: show it as text alone. */
  response: string | null;
}

/** Of more than these the latest are answered; only replays make more. */
const ATTEMPTS_SHOWN_MAX = 100;

/** The attempts at a delivery whose outcome is known, the latest first. */
export async function attemptsOf({ db, tables }: Rows, deliveryId: string): Promise<DeliveryAttempt[]> {
  const { deliveryAttempts: a } = tables;
  const rows = await db
    .select()
    .from(a)
    .where(eq(a.delivery_id, deliveryId))
    .orderBy(desc(a.attempt))
    .limit(ATTEMPTS_SHOWN_MAX);
  return rows.map(toAttempt);
}

const toAttempt = (row: AttemptRow): DeliveryAttempt => ({
  attempt: row.attempt,
  beganAt: row.began_at,
  endedAt: row.ended_at,
  status: row.status,
  error: row.error,
  response: row.response,
});
