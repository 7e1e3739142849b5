/** M2M tokens as `/v1/m2m_tokens` has them, which is Clerk's way, and as the procedures have them. */
import { CountersignError } from '../server/errors.ts';
import type { Inputs, Outputs } from './countersign.ts';

type CreateInput = NonNullable<Inputs['m2mTokens']['create']>;
type MintedToken = Outputs['m2mTokens']['create'];

export interface MintedTokenWire {
  object: 'machine_to_machine_token';
  id: string;
  /** The machine's id. */
  subject: string;
  audience: string[];
  custom_scopes: string[];
  claims: MintedToken['claims'];
  token?: string;
  revoked: boolean;
  revocation_reason: string | null;
  expired: boolean;
  /** Milliseconds since 1970-01-01 UTC, as all instants. */
  expiration: number;
  last_used_at: number | null;
  created_at: number;
}

/** What the input's fields are called there; the last is a header. */
const WIRE_NAMES: Record<string, string> = {
  format: 'token_format',
  ttlSeconds: 'seconds_until_expiration',
  claims: 'claims',
  audience: 'audience',
  scopes: 'custom_scopes',
  minRemainingTtlSeconds: 'min_remaining_ttl_seconds',
  idempotencyKey: 'Idempotency-Key',
} satisfies Record<keyof CreateInput, string>;

const OWN_NAMES = new Map(Object.entries(WIRE_NAMES).map(([own, wire]) => [wire, own]));

export const toWire = ({ idempotencyKey: _, ...input }: CreateInput): Record<string, unknown> =>
  Object.fromEntries(Object.entries(input).map(([field, value]) => [WIRE_NAMES[field] ?? field, value]));

/** The header for a call that may be sent again. What cannot be a header is refused before anything is sent. */
export function idempotencyHeader({ idempotencyKey: key }: CreateInput): { 'idempotency-key'?: string } {
  if (key === undefined) return {};
  if (/^[\x21-\x7e]{1,255}$/.test(key)) return { 'idempotency-key': key };
  throw new CountersignError(
    'invalid_input',
    `Cannot create token: 'idempotencyKey' must be 1 to 255 characters of printable ASCII without spaces, got ${key.length} characters`,
    { field: 'idempotencyKey' },
  );
}

/** A refusal with the field named as the caller named it. */
export function inOwnNames(error: CountersignError): CountersignError {
  const { code, message, requestId, field, retryAfterMs } = error;
  const told = message.replace(/'([\w-]+)'/g, (quoted, name: string) => {
    const own = OWN_NAMES.get(name);
    return own === undefined ? quoted : `'${own}'`;
  });
  const ownField = field && (OWN_NAMES.get(field) ?? field);
  return new CountersignError(code, told, { requestId, field: ownField, retryAfterMs });
}

/** `format` is what was asked for: the answer does not repeat it. */
export function fromWire(wire: MintedTokenWire, { format = 'opaque' }: CreateInput): MintedToken {
  return {
    id: wire.id,
    machineId: wire.subject,
    format,
    audience: wire.audience,
    scopes: wire.custom_scopes,
    claims: wire.claims,
    state: wire.revoked ? 'revoked' : wire.expired ? 'expired' : 'live',
    createdAt: wire.created_at,
    expiresAt: wire.expiration,
    revokedAt: null,
    revocationReason: wire.revocation_reason,
    lastUsedAt: wire.last_used_at,
    ...(wire.token !== undefined && { token: wire.token }),
  };
}

export const isMintedToken = (json: unknown): json is MintedTokenWire =>
  typeof json === 'object' &&
  json !== null &&
  'object' in json &&
  json.object === 'machine_to_machine_token' &&
  'id' in json &&
  typeof json.id === 'string';
