import { createHmac } from 'node:crypto';

/** The prefix of a symmetric secret; what follows is base64 of its 24 to 64 bytes (Standard Webhooks 1.0.0). */
export const WEBHOOK_SECRET_PREFIX = 'whsec_';

/**
 * The `v1` signature of a webhook: HMAC-SHA-256 over `id.timestamp.body`, in base64 (Standard Webhooks 1.0.0).
 * `timestamp` is the attempt's, in whole seconds.
 */
export function signWebhook(secret: string, id: string, timestamp: number, body: string): string {
  const key = Buffer.from(secret.slice(WEBHOOK_SECRET_PREFIX.length), 'base64');
  return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`;
}
