/** What is sent of an event to a webhook endpoint (Standard Webhooks 1.0.0). */
import { signWebhook, signWebhookAsymmetrically } from '../crypto/webhook-signature.ts';
import { EVENT_TYPES, type EventType } from './event-types.ts';
import type { Event } from './events.ts';

/** Standard Webhooks 1.0.0 asks for less than 20 kB. */
export const BODY_BYTES_MAX = 20_000;

/** The body, as JSON. Of an event with more data than a body may hold, all but what every event has is left out. */
export function webhookBodyOf(event: Event): string {
  const whole = JSON.stringify(payloadOf(event, dataOf(event)));
  if (Buffer.byteLength(whole) <= BODY_BYTES_MAX) return whole;
  return JSON.stringify(payloadOf(event, { truncated: true }));
}

/** Thin: what happened to what, from which a receiver can ask for more. Ours come last: event data cannot shadow them. */
function payloadOf(event: Event, data: Record<string, unknown>) {
  return {
    type: event.type,
    timestamp: new Date(event.at).toISOString(),
    data: {
      ...data,
      eventId: event.id,
      sequence: event.seq,
      objectId: event.objectId,
      subject: event.subject,
      actor: { kind: event.actor.kind },
      ...denyUntilOf(event),
    },
  };
}

/** Without `truncated`, which is ours to say. */
function dataOf({ data: { truncated: _, ...data } }: Event) {
  return data;
}

const TOKEN_REVOKED: ReadonlySet<EventType> = new Set(['m2m_token.revoked', 'oauth_token.revoked']);

/**
 * A token is denied as long as it could be presented; of what hangs together it is not known, and so for ever. Of a type
 * that takes something away at times only, the event says when it does.
 */
function denyUntilOf({ type, data }: Event): { denyUntil?: number | null } {
  const { payload } = EVENT_TYPES[type];
  if (!('denyUntil' in payload) && !('denyUntil?' in payload && 'denyUntil' in data)) return {};
  const until = data['denyUntil'] ?? (TOKEN_REVOKED.has(type) ? data['expiresAt'] : null);
  return { denyUntil: typeof until === 'number' ? until : null };
}

export interface WebhookKeys {
  /** Every secret that signs, the newest first. */
  secrets: readonly string[];
  /** As `whsk_…`; null without `v1a`. */
  privateKey: string | null;
}

/** The id is the event's: the same over all attempts, and over endpoints too. `sentAt` is by the clock that receivers have. */
export function webhookHeadersOf(
  { secrets, privateKey }: WebhookKeys,
  id: string,
  sentAt: number,
  body: string,
): Record<string, string> {
  const timestamp = Math.floor(sentAt / 1000);
  const signatures = secrets.map((secret) => signWebhook(secret, id, timestamp, body));
  if (privateKey !== null) signatures.push(signWebhookAsymmetrically(privateKey, id, timestamp, body));
  return {
    'content-type': 'application/json',
    'user-agent': 'Countersign',
    'webhook-id': id,
    'webhook-timestamp': `${timestamp}`,
    'webhook-signature': signatures.join(' '),
  };
}
