import { randomBytes } from 'node:crypto';
import { eq, sql } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import { sortableId } from '../crypto/ids.ts';
import { WEBHOOK_SECRET_PREFIX } from '../crypto/webhook-signature.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { URL_LENGTH_MAX } from '../outbound.ts';
import { EVENT_TYPES, type EventType } from './event-types.ts';
import { change } from './events.ts';
import { description, webhookEndpointId } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';

export interface WebhookEndpoint {
  id: string;
  url: string;
  description: string | null;
  /** Exact types or `noun.*`; empty means all. */
  eventTypes: string[];
  enabled: boolean;
  createdAt: number;
  updatedAt: number;
}

type WebhookEndpointRow = Rows['tables']['webhookEndpoints']['$inferSelect'];

export const WEBHOOK_ENDPOINTS_MAX = 100;
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

export const createWebhookEndpointInput = z.strictObject({
  url: z
    .string()
    .min(1)
    .max(URL_LENGTH_MAX)
    .regex(/^[\x21-\x7e]+$/, 'wanted printable ASCII without spaces')
    .meta({ positional: true }),
  description: description.nullish(),
  /** Exact types or `noun.*`; empty means all. */
  eventTypes: eventTypes.default([]),
  ...idempotencyInput,
});

/**
 * Creates an endpoint that is sent every event after its own creation; its signing secret is answered this once. Throws
 * `url_not_allowed`, and `limit_reached` at 100 endpoints.
 */
export async function createWebhookEndpoint(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createWebhookEndpointInput>,
): Promise<WebhookEndpoint & { secret?: string }> {
  return create(deps, caller, { procedure: 'webhookEndpoints.create', input }, async (tx) => {
    assertUrlAllowed(deps, input.url);
    const secret = WEBHOOK_SECRET_PREFIX + randomBytes(SECRET_BYTES).toString('base64');
    const now = deps.now();
    const id = sortableId('ep_', now);
    const row: WebhookEndpointRow = {
      id,
      url: input.url,
      description: input.description ?? null,
      event_types: input.eventTypes,
      enabled: true,
      sealed_secret: deps.keyring.seal(sealPlace(id), secret),
      created_seq: await nextEventSeq(tx),
      created_at: now,
      updated_at: now,
    };
    await assertRoom(tx);
    await tx.db.insert(tx.tables.webhookEndpoints).values(row);
    return {
      result: { ...toWebhookEndpoint(row), secret },
      event: { type: 'webhook_endpoint.created', ...eventOf(row) },
    };
  });
}

function assertUrlAllowed(deps: Deps, url: string) {
  const refusal = deps.outbound.refusal(url);
  if (refusal === null) return;
  throw new CountersignError('url_not_allowed', `Cannot create webhook endpoint: 'url': ${refusal}`, {
    field: 'url',
  });
}

/**
 * The sequence that this transaction's event will have. Taking the head's lock early makes it certain, and makes those
 * who create endpoints take turns, so that their number can be judged.
 */
async function nextEventSeq({ db, tables: { eventHead } }: Rows): Promise<number> {
  const [head] = await db.update(eventHead).set({ id: 1 }).returning({ seq: eventHead.seq });
  if (!head) throw new Error('The log has no head: the database was never set up');
  return head.seq + 1;
}

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
  return toPage(rows, input.limit, (row) => [row.created_at, row.id], toWebhookEndpoint);
}

export const webhookEndpointIdInput = z.strictObject({ id: webhookEndpointId.meta({ positional: true }) });

/** Deletes the endpoint. Deliveries still owed to it fail by join when they come due, and are removed then. */
export async function deleteWebhookEndpoint(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof webhookEndpointIdInput>,
): Promise<{ id: string; deleted: true }> {
  return change(deps, caller, async (tx) => {
    const { webhookEndpoints } = tx.tables;
    const [row] = await tx.db.delete(webhookEndpoints).where(eq(webhookEndpoints.id, id)).returning();
    if (!row) throw new CountersignError('not_found', `No webhook endpoint has the id '${id}'`);
    return {
      result: { id, deleted: true as const },
      event: { type: 'webhook_endpoint.deleted', ...eventOf(row) },
    };
  });
}

/** The signing secret of an endpoint; throws when the row was written by somebody else. */
export function webhookSecretOf(
  deps: Pick<Deps, 'keyring'>,
  row: Pick<WebhookEndpointRow, 'id' | 'sealed_secret'>,
): string {
  return deps.keyring.unseal(sealPlace(row.id), row.sealed_secret).toString();
}

/** Whether an endpoint is to be sent a type of event. */
export function wantsEvent(wanted: readonly string[], type: EventType): boolean {
  return wanted.length === 0 || wanted.includes(type) || wanted.includes(`${type.split('.')[0]}.*`);
}

const sealPlace = (id: string) => `webhook_endpoints.sealed_secret.${id}`;

/** The host only: a path or query may hold a token of the receiver's. */
const eventOf = (row: WebhookEndpointRow) => ({ objectId: row.id, data: { host: new URL(row.url).host } });

function toWebhookEndpoint(row: WebhookEndpointRow): WebhookEndpoint {
  return {
    id: row.id,
    url: row.url,
    description: row.description,
    eventTypes: row.event_types,
    enabled: row.enabled,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}
