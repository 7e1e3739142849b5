import { randomBytes } from 'node:crypto';
import { and, eq, inArray, sql } from 'drizzle-orm';
import { z } from 'zod';
import { lockStatement } from '../../db/lock.ts';
import type { Rows } from '../../db/store.ts';
import { sortableId } from '../crypto/ids.ts';
import { generateWebhookKey, WEBHOOK_SECRET_PREFIX } from '../crypto/webhook-signature.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { URL_LENGTH_MAX } from '../outbound.ts';
import { isPending } from './delivery-claims.ts';
import { expandEvents, expandUntilNow } from './delivery-expansion.ts';
import { EVENT_TYPES, type EventType } from './event-types.ts';
import { change, lockHead, type NewEvent } from './events.ts';
import { description, subject, webhookEndpointId } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';
import type { WebhookKeys } from './webhook-messages.ts';

export interface WebhookEndpoint {
  id: string;
  url: string;
  description: string | null;
  /** Exact types or `noun.*`; empty means all. */
  eventTypes: string[];
  /** Only events of these subjects; null for those of any and of none. */
  subjects: string[] | null;
  enabled: boolean;
  /** Why it is not: an operator's doing, or it answered 410, or it did nothing but fail for five days. */
  disabledReason: 'operator' | 'gone' | 'failing' | null;
  /** Until when the secret before the last rotation signs too; null if it does not. */
  previousSecretExpiresAt: number | null;
  /** What `v1a` signatures are checked with, as `whpk_…`; null where only `v1` are made. */
  publicKey: string | null;
  /** The first failure since the last success. */
  failingSince: number | null;
  /** To the minute. */
  lastSuccessAt: number | null;
  /** Nothing is sent before this: the receiver asked for patience. */
  throttledUntil: number | null;
  createdAt: number;
  updatedAt: number;
}

type WebhookEndpointRow = Rows['tables']['webhookEndpoints']['$inferSelect'];

export const WEBHOOK_ENDPOINTS_MAX = 1_000;
/** Standard Webhooks 1.0.0 asks for 24 to 64 bytes. */
const SECRET_BYTES = 32;

const TYPES = Object.keys(EVENT_TYPES) as EventType[];
const WILDCARDS = [...new Set(TYPES.map((type) => `${type.split('.')[0]}.*`))];

const eventTypes = z
  .array(z.string().refine(isEventType, "wanted a type of event, or a noun and '.*'"))
  .max(TYPES.length)
  .refine((list) => new Set(list).size === list.length, 'wanted each type once');

function isEventType(text: string): boolean {
  return WILDCARDS.includes(text) || Object.hasOwn(EVENT_TYPES, text);
}

const SUBJECTS_MAX = 100;
const url = z
  .string()
  .min(1)
  .max(URL_LENGTH_MAX)
  .regex(/^[\x21-\x7e]+$/, 'wanted printable ASCII without spaces');

/** Only events of these subjects; null for those of any and of none. */
const subjects = z
  .array(subject)
  .min(1)
  .max(SUBJECTS_MAX)
  .refine((list) => new Set(list).size === list.length, 'wanted each subject once')
  .nullish();

export const createWebhookEndpointInput = z.strictObject({
  url: url.meta({ positional: true }),
  description: description.nullish(),
  /** Exact types or `noun.*`; empty means all. */
  eventTypes: eventTypes.default([]),
  subjects,
  /** Whether there are `v1a` signatures too, by an ed25519 key whose public half is answered. */
  asymmetric: z.boolean().default(false),
  ...idempotencyInput,
});

/**
 * Creates an endpoint that is sent every event after its own creation; its signing secret is answered this once. Throws
 * `url_not_allowed`, and `limit_reached` at 1,000 endpoints.
 */
export async function createWebhookEndpoint(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createWebhookEndpointInput>,
): Promise<WebhookEndpoint & { secret?: string }> {
  return create(deps, caller, { procedure: 'webhookEndpoints.create', input }, async (tx) => {
    assertUrlAllowed(deps, 'create', input.url);
    const secret = newSecret();
    const now = deps.now();
    const id = sortableId('ep_', now);
    const row: WebhookEndpointRow = {
      id,
      url: input.url,
      description: input.description ?? null,
      event_types: input.eventTypes,
      subjects: input.subjects ?? null,
      enabled: true,
      disabled_reason: null,
      sealed_secret: seal(deps, 'sealed_secret', id, secret),
      sealed_previous_secret: null,
      previous_secret_expires_at: null,
      ...(input.asymmetric ? newSigningKey(deps, id) : NO_SIGNING_KEY),
      failing_since: null,
      last_success_at: null,
      throttled_until: null,
      created_seq: await nextEventSeq(tx),
      created_at: now,
      updated_at: now,
    };
    await assertRoom(tx);
    await tx.db.insert(tx.tables.webhookEndpoints).values(row);
    return {
      result: { ...toWebhookEndpoint(row, now), secret },
      event: { type: 'webhook_endpoint.created', ...eventOf(row) },
    };
  });
}

const newSecret = () => WEBHOOK_SECRET_PREFIX + randomBytes(SECRET_BYTES).toString('base64');

const NO_SIGNING_KEY = { sealed_signing_key: null, public_key: null };

function newSigningKey(deps: Pick<Deps, 'keyring'>, id: string) {
  const { privateKey, publicKey } = generateWebhookKey();
  return { sealed_signing_key: seal(deps, 'sealed_signing_key', id, privateKey), public_key: publicKey };
}

function assertUrlAllowed(deps: Deps, verb: string, text: string) {
  const refusal = deps.outbound.refusal(text);
  if (refusal === null) return;
  throw new CountersignError('url_not_allowed', `Cannot ${verb} webhook endpoint: 'url': ${refusal}`, {
    field: 'url',
  });
}

/**
 * The sequence that this transaction's event will have. Taking the head's lock early makes it certain, and makes those
 * who create endpoints take turns, so that their number can be judged.
 */
const nextEventSeq = async (tx: Rows) => (await lockHead(tx)).seq + 1;

async function assertRoom({ db, tables: { webhookEndpoints } }: Rows) {
  const [counted] = await db.select({ count: sql`count(*)`.mapWith(Number) }).from(webhookEndpoints);
  if ((counted?.count ?? 0) < WEBHOOK_ENDPOINTS_MAX) return;
  throw new CountersignError(
    'limit_reached',
    `Cannot create webhook endpoint: there may be at most ${WEBHOOK_ENDPOINTS_MAX}`,
  );
}

export const listWebhookEndpointsInput = z.strictObject(pageInput);

/** Webhook endpoints, the newest first; never their secrets. */
export async function listWebhookEndpoints(
  deps: Deps,
  input: z.output<typeof listWebhookEndpointsInput>,
): Promise<Page<WebhookEndpoint>> {
  const { db, tables } = deps.store.read;
  const { webhookEndpoints } = tables;
  const rows = await db
    .select()
    .from(webhookEndpoints)
    .where(afterCursor(input.cursor, webhookEndpoints.created_at, webhookEndpoints.id, true))
    .orderBy(...orderOf(webhookEndpoints.created_at, webhookEndpoints.id, true))
    .limit(input.limit + 1)
    .offset(input.offset);
  const now = deps.now();
  return toPage(
    rows,
    input.limit,
    (row) => [row.created_at, row.id],
    (row) => toWebhookEndpoint(row, now),
  );
}

export const webhookEndpointIdInput = z.strictObject({ id: webhookEndpointId.meta({ positional: true }) });
type WebhookEndpointIdInput = z.output<typeof webhookEndpointIdInput>;

/** Throws `not_found`. */
export async function getWebhookEndpoint(
  deps: Deps,
  { id }: WebhookEndpointIdInput,
): Promise<WebhookEndpoint> {
  const { db, tables } = deps.store.read;
  const { webhookEndpoints } = tables;
  const [row] = await db.select().from(webhookEndpoints).where(eq(webhookEndpoints.id, id));
  if (!row) throw notFound(id);
  return toWebhookEndpoint(row, deps.now());
}

const notFound = (id: string) => new CountersignError('not_found', `No webhook endpoint has the id '${id}'`);

export const updateWebhookEndpointInput = z.strictObject({
  id: webhookEndpointId.meta({ positional: true }),
  url: url.optional(),
  description: description.nullish(),
  /** Exact types or `noun.*`; empty means all. */
  eventTypes: eventTypes.optional(),
  subjects,
  /** Whether there are `v1a` signatures too. Switched on anew there is a new key. */
  asymmetric: z.boolean().optional(),
});

const UPDATABLE = ['url', 'description', 'eventTypes', 'subjects', 'publicKey'] as const;

/**
 * Changes what it is told to; what already is so leaves no event. What happened before is owed by what it wanted then.
 * Throws `not_found`, `url_not_allowed`.
 */
export async function updateWebhookEndpoint(
  deps: Deps,
  caller: Caller,
  { id, ...changes }: z.output<typeof updateWebhookEndpointInput>,
): Promise<WebhookEndpoint> {
  // Most of it before, in steps: the transaction below writes out only the rest.
  await expandEvents(deps);
  return change(deps, caller, async (tx) => {
    const before = await lockWebhookEndpoint(tx, id);
    if (changes.url !== undefined) assertUrlAllowed(deps, 'update', changes.url);
    const now = deps.now();
    const row: WebhookEndpointRow = {
      ...before,
      url: changes.url ?? before.url,
      // At another URL nothing has failed yet, and nobody asked for patience.
      ...((changes.url ?? before.url) !== before.url && { failing_since: null, throttled_until: null }),
      description: changes.description === undefined ? before.description : changes.description,
      event_types: changes.eventTypes ?? before.event_types,
      subjects: changes.subjects === undefined ? before.subjects : changes.subjects,
      ...signingKeyChanges(deps, before, changes.asymmetric),
      updated_at: now,
    };
    const views = [toWebhookEndpoint(before, now), toWebhookEndpoint(row, now)] as const;
    const changed = UPDATABLE.filter(
      (field) => JSON.stringify(views[0][field]) !== JSON.stringify(views[1][field]),
    );
    if (changed.length === 0) return { result: views[0], event: null };
    await expandUntilNow(tx, deps);
    await save(tx, row);
    const { objectId, data } = eventOf(row);
    return {
      result: views[1],
      event: { type: 'webhook_endpoint.updated', objectId, data: { ...data, changed } },
    };
  });
}

function signingKeyChanges(deps: Deps, before: WebhookEndpointRow, asymmetric: boolean | undefined) {
  if (asymmetric === undefined || asymmetric === (before.public_key !== null)) return {};
  return asymmetric ? newSigningKey(deps, before.id) : NO_SIGNING_KEY;
}

/** Reads an endpoint that this transaction is about to change; others that want to, wait. Throws `not_found`. */
async function lockWebhookEndpoint(tx: Rows, id: string): Promise<WebhookEndpointRow> {
  const row = await readLocked(tx, id);
  if (!row) throw notFound(id);
  return row;
}

const readLocked = lockStatement('webhook_endpoint_lock', 'webhookEndpoints');

async function save({ db, tables: { webhookEndpoints } }: Rows, row: WebhookEndpointRow): Promise<void> {
  await db.update(webhookEndpoints).set(row).where(eq(webhookEndpoints.id, row.id));
}

/**
 * Enables or disables; one that already is as wanted is answered as it stands, without an event. What happens while it is
 * disabled is never owed to it; what happened before is, and waits. Throws `not_found`.
 */
export async function setWebhookEndpointEnabled(
  deps: Deps,
  caller: Caller,
  { id }: WebhookEndpointIdInput,
  enabled: boolean,
): Promise<WebhookEndpoint> {
  // Most of it before, in steps: the transaction below writes out only the rest.
  await expandEvents(deps);
  return change(deps, caller, async (tx) => {
    const before = await lockWebhookEndpoint(tx, id);
    const now = deps.now();
    if (before.enabled === enabled) return { result: toWebhookEndpoint(before, now), event: null };
    await expandUntilNow(tx, deps);
    const row: WebhookEndpointRow = {
      ...before,
      enabled,
      disabled_reason: enabled ? null : 'operator',
      // Whoever enables it says that it works again: it has its five days anew.
      ...(enabled && { failing_since: null, throttled_until: null }),
      updated_at: now,
    };
    await save(tx, row);
    return {
      result: toWebhookEndpoint(row, now),
      event: enabled ? { type: 'webhook_endpoint.enabled', ...eventOf(row) } : disabledEvent(row),
    };
  });
}

/** The event that an endpoint was disabled, by its row of then. */
export function disabledEvent(row: WebhookEndpointRow): NewEvent {
  const { objectId, data } = eventOf(row);
  return { type: 'webhook_endpoint.disabled', objectId, data: { ...data, reason: row.disabled_reason } };
}

const OVERLAP_SECONDS = 24 * 3600;
const OVERLAP_SECONDS_MAX = 7 * OVERLAP_SECONDS;

export const rotateWebhookSecretInput = z.strictObject({
  id: webhookEndpointId.meta({ positional: true }),
  /** How long the secret before signs beside the new one, from none to 7 days: 24 hours unless told. */
  overlapSeconds: z.number().int().min(0).max(OVERLAP_SECONDS_MAX).default(OVERLAP_SECONDS),
});

/**
 * Gives the endpoint a new signing secret, answered this once; the one before signs beside it for a while. Throws
 * `not_found`, and `rotation_in_progress` while one does, unless `overlapSeconds` is 0: then only the new one signs.
 */
export async function rotateWebhookSecret(
  deps: Deps,
  caller: Caller,
  { id, overlapSeconds }: z.output<typeof rotateWebhookSecretInput>,
): Promise<WebhookEndpoint & { secret: string }> {
  return change(deps, caller, async (tx) => {
    const before = await lockWebhookEndpoint(tx, id);
    const now = deps.now();
    if (overlapSeconds > 0 && (before.previous_secret_expires_at ?? 0) > now) throw rotationInProgress(id);
    const secret = newSecret();
    const previous = unseal(deps, 'sealed_secret', id, before.sealed_secret);
    const row: WebhookEndpointRow = {
      ...before,
      sealed_secret: seal(deps, 'sealed_secret', id, secret),
      sealed_previous_secret: overlapSeconds > 0 ? seal(deps, 'sealed_previous_secret', id, previous) : null,
      previous_secret_expires_at: overlapSeconds > 0 ? now + overlapSeconds * 1000 : null,
      updated_at: now,
    };
    await save(tx, row);
    const { objectId, data } = eventOf(row);
    const previousExpiresAt = row.previous_secret_expires_at;
    return {
      result: { ...toWebhookEndpoint(row, now), secret },
      event: {
        type: 'webhook_endpoint.secret_rotated',
        objectId,
        data: { ...data, previousExpiresAt },
      },
    };
  });
}

const rotationInProgress = (id: string) =>
  new CountersignError(
    'rotation_in_progress',
    `Cannot rotate: the secret before the last of '${id}' still signs: wait, or end it with 'overlapSeconds' 0`,
  );

/** Sends a test to this endpoint, whatever it otherwise wants, and to no other. Throws `not_found`, `wrong_state`. */
export async function testWebhookEndpoint(
  deps: Deps,
  caller: Caller,
  { id }: WebhookEndpointIdInput,
): Promise<WebhookEndpoint> {
  return change(deps, caller, async (tx) => {
    const row = await lockWebhookEndpoint(tx, id);
    if (!row.enabled) {
      throw new CountersignError(
        'wrong_state',
        `Cannot test: wanted an enabled endpoint, found '${id}' disabled`,
      );
    }
    return {
      result: toWebhookEndpoint(row, deps.now()),
      event: { type: 'webhook_endpoint.test', ...eventOf(row) },
    };
  });
}

/** Deletes the endpoint, and afterwards what is still owed to it. Throws `not_found`. */
export async function deleteWebhookEndpoint(
  deps: Deps,
  caller: Caller,
  { id }: WebhookEndpointIdInput,
): Promise<{ id: string; deleted: true }> {
  const result = await change(deps, caller, async (tx) => {
    const { webhookEndpoints } = tx.tables;
    const [row] = await tx.db.delete(webhookEndpoints).where(eq(webhookEndpoints.id, id)).returning();
    if (!row) throw notFound(id);
    return {
      result: { id, deleted: true as const },
      event: { type: 'webhook_endpoint.deleted', ...eventOf(row) } as const,
    };
  });
  while ((await removeOwed(deps, id)) > 0);
  return result;
}

const REMOVE_ROWS = 1_000;

/** Removes some of what is owed to an endpoint that was deleted; a long backlog at once would hold the writer. Answers how many. What a crash leaves is claimed by nobody, and goes with `delivery-prune`. */
export async function removeOwed(deps: Deps, endpointId: string): Promise<number> {
  return deps.store.tx(async ({ db, tables: { deliveries: d } }) => {
    const owed = db
      .select({ id: d.id })
      .from(d)
      .where(and(isPending, eq(d.endpoint_id, endpointId)))
      .limit(REMOVE_ROWS);
    const removed = await db.delete(d).where(inArray(d.id, owed)).returning({ id: d.id });
    return removed.length;
  });
}

/** What of an endpoint's row signs for it. */
export type SealedKeys = Pick<
  WebhookEndpointRow,
  'sealed_secret' | 'sealed_previous_secret' | 'previous_secret_expires_at' | 'sealed_signing_key'
>;

/** What signs for an endpoint at an instant; throws when its row was written by somebody else. */
export function webhookKeysOf(
  deps: Pick<Deps, 'keyring'>,
  row: Pick<WebhookEndpointRow, 'id'> & SealedKeys,
  now: number,
): WebhookKeys {
  const secrets = [unseal(deps, 'sealed_secret', row.id, row.sealed_secret)];
  if (row.sealed_previous_secret && (row.previous_secret_expires_at ?? 0) > now) {
    secrets.push(unseal(deps, 'sealed_previous_secret', row.id, row.sealed_previous_secret));
  }
  const sealedKey = row.sealed_signing_key;
  return { secrets, privateKey: sealedKey && unseal(deps, 'sealed_signing_key', row.id, sealedKey) };
}

type SealedColumn = 'sealed_secret' | 'sealed_previous_secret' | 'sealed_signing_key';

const sealPlace = (column: SealedColumn, id: string) => `webhook_endpoints.${column}.${id}`;

const seal = ({ keyring }: Pick<Deps, 'keyring'>, column: SealedColumn, id: string, value: string) =>
  keyring.seal(sealPlace(column, id), value);

const unseal = ({ keyring }: Pick<Deps, 'keyring'>, column: SealedColumn, id: string, sealed: Buffer) =>
  keyring.unseal(sealPlace(column, id), sealed).toString();

/** The host only: a path or query may hold a token of the receiver's. */
const eventOf = (row: WebhookEndpointRow) => ({ objectId: row.id, data: { host: new URL(row.url).host } });

function toWebhookEndpoint(row: WebhookEndpointRow, now: number): WebhookEndpoint {
  const future = (instant: number | null) => (instant !== null && instant > now ? instant : null);
  return {
    id: row.id,
    url: row.url,
    description: row.description,
    eventTypes: row.event_types,
    subjects: row.subjects,
    enabled: row.enabled,
    disabledReason: row.disabled_reason,
    previousSecretExpiresAt: future(row.previous_secret_expires_at),
    publicKey: row.public_key,
    failingSince: row.failing_since,
    lastSuccessAt: row.last_success_at,
    throttledUntil: future(row.throttled_until),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}
