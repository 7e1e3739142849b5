import { createHmac, createPrivateKey, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';

/** The prefix of a symmetric secret; what follows is base64 of its 24 to 64 bytes (Standard Webhooks 1.0.0). */
export const WEBHOOK_SECRET_PREFIX = 'whsec_';

/** The prefixes of an asymmetric key's halves; what follows is base64 of its 32 bytes (RFC 8032). */
const PRIVATE_KEY_PREFIX = 'whsk_';
const PUBLIC_KEY_PREFIX = 'whpk_';

/** What comes before an ed25519 private key of 32 bytes in PKCS #8 (RFC 8410, section 7). */
const PKCS8_HEADER = Buffer.from('302e020100300506032b657004220420', 'hex');
const KEY_BYTES = 32;

const messageOf = (id: string, timestamp: number, body: string) => `${id}.${timestamp}.${body}`;

/**
 * The `v1` signature of a webhook: HMAC-SHA-256 over `id.timestamp.body`, in base64 (Standard Webhooks 1.0.0).
 * `timestamp` is the attempt's, in whole seconds.
 */
export function signWebhook(secret: string, id: string, timestamp: number, body: string): string {
  const key = Buffer.from(secret.slice(WEBHOOK_SECRET_PREFIX.length), 'base64');
  return `v1,${createHmac('sha256', key)
    .update(messageOf(id, timestamp, body))
    .digest('base64')}`;
}

/** The `v1a` signature of a webhook: ed25519 over the same, by a private key as `whsk_…`. */
export function signWebhookAsymmetrically(
  privateKey: string,
  id: string,
  timestamp: number,
  body: string,
): string {
  const signature = sign(null, Buffer.from(messageOf(id, timestamp, body)), privateKeyOf(privateKey));
  return `v1a,${signature.toString('base64')}`;
}

/** A new ed25519 key: `whsk_…` signs and is kept, `whpk_…` is for receivers. */
export function generateWebhookKey(): { privateKey: string; publicKey: string } {
  const pair = generateKeyPairSync('ed25519');
  // In both encodings the key itself comes last.
  const last = (der: Buffer) => der.subarray(-KEY_BYTES).toString('base64');
  return {
    privateKey: PRIVATE_KEY_PREFIX + last(pair.privateKey.export({ type: 'pkcs8', format: 'der' })),
    publicKey: PUBLIC_KEY_PREFIX + last(pair.publicKey.export({ type: 'spki', format: 'der' })),
  };
}

function privateKeyOf(text: string): KeyObject {
  const key = Buffer.from(text.slice(PRIVATE_KEY_PREFIX.length), 'base64');
  return createPrivateKey({ key: Buffer.concat([PKCS8_HEADER, key]), type: 'pkcs8', format: 'der' });
}
