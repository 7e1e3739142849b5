/** `countersign/webhooks`: for those who receive webhooks. */
import { createHmac, createPublicKey, type KeyObject, timingSafeEqual, verify } from 'node:crypto';
import type { WebhookEvent } from '../server/domain/event-types.ts';

export type { EventType, WebhookEvent } from '../server/domain/event-types.ts';

export interface VerifyWebhookOptions {
  /** As it arrived, to the byte: parsed and written anew it has another signature. */
  body: string | Uint8Array;
  /** Of the request: a `Headers`, or Node's own. */
  headers: Headers | Readonly<Record<string, string | readonly string[] | undefined>>;
  /** The endpoint's secret as `whsec_…`, or several while it rotates. Any of them will do. */
  secret?: string | readonly string[];
  /** The endpoint's public key as `whpk_…`; it will do instead of a secret. */
  publicKey?: string;
  /** How far the time of sending may lie from now, either way; 300 by default. */
  toleranceSeconds?: number;
}

/** What arrived is not what an endpoint with this secret was sent, or not now. */
export class WebhookVerificationError extends Error {
  override readonly name = 'WebhookVerificationError';
}

const TOLERANCE_SECONDS = 300;
const SECRET_PREFIX = 'whsec_';
const PUBLIC_KEY_PREFIX = 'whpk_';
/** What comes before an ed25519 public key of 32 bytes in SPKI (RFC 8410, section 4). */
const SPKI_HEADER = Buffer.from('302a300506032b6570032100', 'hex');
const KEY_BYTES = 32;
/** Ours hold three at most; each costs a verification. */
const SIGNATURES_MAX = 16;

/**
 * The event of a webhook whose signature and time are right (Standard Webhooks 1.0.0); throws
 * `WebhookVerificationError` otherwise, and `TypeError` for options that are not as wanted. The same event may arrive
 * more than once: `data.eventId`, which is the header `webhook-id`, tells.
 */
export function verifyWebhook(options: VerifyWebhookOptions): WebhookEvent {
  const { toleranceSeconds = TOLERANCE_SECONDS } = options;
  const checks = checksOf(options);
  const id = headerOf(options.headers, 'webhook-id');
  const timestamp = headerOf(options.headers, 'webhook-timestamp');
  const signatures = headerOf(options.headers, 'webhook-signature').split(' ').slice(0, SIGNATURES_MAX);
  assertRecent(timestamp, toleranceSeconds);
  const body = Buffer.from(options.body as Uint8Array);
  const message = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  if (!signatures.some((signature) => checks.some((check) => check(signature, message)))) {
    throw new WebhookVerificationError('Cannot verify webhook: no signature is by a key of this endpoint');
  }
  return JSON.parse(body.toString()) as WebhookEvent;
}

type Check = (signature: string, message: Buffer) => boolean;

function checksOf({ secret, publicKey }: VerifyWebhookOptions): Check[] {
  const secrets = secret === undefined ? [] : [secret].flat();
  const checks = [
    ...secrets.map((one) => symmetricCheck(secretBytes(one))),
    ...(publicKey === undefined ? [] : [asymmetricCheck(publicKeyOf(publicKey))]),
  ];
  if (checks.length > 0) return checks;
  throw new TypeError("Cannot verify webhook: wanted 'secret' or 'publicKey', found neither");
}

function symmetricCheck(key: Buffer): Check {
  return (signature, message) => {
    const given = signatureBytes(signature, 'v1,');
    const wanted = createHmac('sha256', key).update(message).digest();
    return given !== null && given.length === wanted.length && timingSafeEqual(given, wanted);
  };
}

function asymmetricCheck(key: KeyObject): Check {
  return (signature, message) => {
    const given = signatureBytes(signature, 'v1a,');
    return given !== null && verify(null, message, key, given);
  };
}

const signatureBytes = (signature: string, version: string) =>
  signature.startsWith(version) ? Buffer.from(signature.slice(version.length), 'base64') : null;

function secretBytes(secret: string): Buffer {
  const bytes = Buffer.from(secret.slice(SECRET_PREFIX.length), 'base64');
  if (secret.startsWith(SECRET_PREFIX) && bytes.length > 0) return bytes;
  // Never the text itself: it may be another secret.
  throw new TypeError(`Cannot verify webhook: 'secret' must be '${SECRET_PREFIX}' and base64`);
}

function publicKeyOf(text: string): KeyObject {
  const bytes = Buffer.from(text.slice(PUBLIC_KEY_PREFIX.length), 'base64');
  if (!text.startsWith(PUBLIC_KEY_PREFIX) || bytes.length !== KEY_BYTES) {
    throw new TypeError(
      `Cannot verify webhook: 'publicKey' must be '${PUBLIC_KEY_PREFIX}' and base64 of ${KEY_BYTES} bytes`,
    );
  }
  return createPublicKey({ key: Buffer.concat([SPKI_HEADER, bytes]), type: 'spki', format: 'der' });
}

function headerOf(headers: VerifyWebhookOptions['headers'], name: string): string {
  const value = headers instanceof Headers ? headers.get(name) : [fieldOf(headers, name)].flat()[0];
  if (value) return value;
  throw new WebhookVerificationError(`Cannot verify webhook: wanted a header '${name}', found none`);
}

/** Node writes names in lower case; others hand them on as they came. */
function fieldOf(headers: Readonly<Record<string, string | readonly string[] | undefined>>, name: string) {
  if (headers[name] !== undefined) return headers[name];
  const key = Object.keys(headers).find((each) => each.toLowerCase() === name);
  return key === undefined ? undefined : headers[key];
}

function assertRecent(timestamp: string, toleranceSeconds: number) {
  const sentAt = /^\d{1,12}$/.test(timestamp) ? Number(timestamp) : Number.NaN;
  const offsetSeconds = Math.abs(Date.now() / 1000 - sentAt);
  if (offsetSeconds <= toleranceSeconds) return;
  throw new WebhookVerificationError(
    Number.isNaN(sentAt)
      ? "Cannot verify webhook: wanted whole seconds in the header 'webhook-timestamp', found something else"
      : `Cannot verify webhook: it must be sent within ${toleranceSeconds} s of now, got one ${Math.round(offsetSeconds)} s away`,
  );
}
