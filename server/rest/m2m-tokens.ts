/** M2M tokens as Clerk's wire has them, with our additions `audience` and `custom_scopes`. */
import { z } from 'zod';
import type { Caller, Deps } from '../deps.ts';
import { createM2mToken, createM2mTokenInput, type M2mToken } from '../domain/m2m-tokens.ts';
import { CountersignError } from '../errors.ts';

const { claims, audience, scopes, ttlSeconds, minRemainingTtlSeconds } = createM2mTokenInput.shape;

export const createM2mTokenRequest = z.strictObject({
  token_format: z.enum(['opaque', 'jwt']).default('opaque'),
  /** Null, as Clerk's SDK sends it, is the machine's default lifetime. */
  seconds_until_expiration: ttlSeconds.nullable(),
  claims,
  min_remaining_ttl_seconds: minRemainingTtlSeconds.nullable(),
  audience,
  custom_scopes: scopes,
});

/** `machine_to_machine_token`: instants in milliseconds; `scopes` are the machines it is for. */
export interface M2mTokenObject {
  object: 'machine_to_machine_token';
  id: string;
  subject: string;
  claims: Record<string, unknown> | null;
  scopes: string[];
  audience: string[];
  custom_scopes: string[];
  /** On creating only. */
  token?: string;
  revoked: boolean;
  revocation_reason: string | null;
  expired: boolean;
  expiration: number;
  last_used_at: number | null;
  created_at: number;
  updated_at: number;
}

/**
 * Mints a token from a request on the wire; refusals name the wire's fields.
 *
 * @param idempotencyKey the header `Idempotency-Key`.
 */
export async function postM2mToken(
  deps: Deps,
  caller: Caller,
  request: z.output<typeof createM2mTokenRequest>,
  idempotencyKey?: string,
): Promise<M2mTokenObject> {
  const input = {
    idempotencyKey: parseIdempotencyKey(idempotencyKey),
    format: request.token_format,
    ttlSeconds: request.seconds_until_expiration ?? undefined,
    claims: request.claims,
    minRemainingTtlSeconds: request.min_remaining_ttl_seconds ?? undefined,
    audience: request.audience,
    scopes: request.custom_scopes,
  };
  try {
    return toM2mTokenObject(await createM2mToken(deps, caller, input), deps.now());
  } catch (error) {
    throw error instanceof CountersignError ? inWireNames(error) : error;
  }
}

function parseIdempotencyKey(header: string | undefined): string | undefined {
  const parsed = createM2mTokenInput.shape.idempotencyKey.safeParse(header);
  if (parsed.success) return parsed.data;
  throw new CountersignError(
    'invalid_input',
    `Cannot create token: 'Idempotency-Key' must be 1 to 255 characters of printable ASCII without spaces, got ${header?.length} characters`,
    { field: 'Idempotency-Key' },
  );
}

function toM2mTokenObject(token: M2mToken & { token?: string }, now: number): M2mTokenObject {
  return {
    object: 'machine_to_machine_token',
    id: token.id,
    subject: token.machineId,
    claims: token.claims,
    scopes: token.audience,
    audience: token.audience,
    custom_scopes: token.scopes,
    ...(token.token !== undefined && { token: token.token }),
    revoked: token.state === 'revoked',
    revocation_reason: token.revocationReason,
    expired: token.expiresAt <= now,
    expiration: token.expiresAt,
    last_used_at: token.lastUsedAt,
    created_at: token.createdAt,
    updated_at: token.revokedAt ?? token.createdAt,
  };
}

/** The fields of the domain's input that the wire calls otherwise. */
const WIRE_NAMES: Record<string, string> = {
  idempotencyKey: 'Idempotency-Key',
  format: 'token_format',
  ttlSeconds: 'seconds_until_expiration',
  minRemainingTtlSeconds: 'min_remaining_ttl_seconds',
  scopes: 'custom_scopes',
};

function inWireNames(error: CountersignError): CountersignError {
  const { code, message, field, retryAfterMs } = error;
  const told = message.replace(/'(\w+)'/g, (quoted, name: string) =>
    Object.hasOwn(WIRE_NAMES, name) ? `'${WIRE_NAMES[name]}'` : quoted,
  );
  const wireField = field && (WIRE_NAMES[field] ?? field);
  return new CountersignError(code, told, { field: wireField, retryAfterMs, cause: error });
}
