/** M2M tokens as Clerk's wire has them, with our additions `audience` and `custom_scopes`. */
import { z } from 'zod';
import type { Caller, Deps } from '../deps.ts';
import { credential, description } from '../domain/fields.ts';
import {
  countM2mTokens,
  createM2mToken,
  createM2mTokenInput,
  describeM2mToken,
  getM2mToken,
  listM2mTokens,
  listM2mTokensInput,
  type M2mToken,
  m2mTokenIdInput,
  revokeAllM2mTokens,
  revokeAllM2mTokensInput,
  revokeM2mToken,
  revokeM2mTokenByValue,
  revokeM2mTokenByValueInput,
} from '../domain/m2m-tokens.ts';
import { CountersignError } from '../errors.ts';
import { inWireNames } from './errors.ts';
import { acceptedOutput, at, claimsOutput, clerkLimit, count, named } from './fields.ts';
import { hotRoute, type Route, route } from './route.ts';

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

/** Instants in milliseconds; `scopes` are the machines it is for. */
const m2mTokenOutput = named(
  'M2mToken',
  z.object({
    object: z.literal('machine_to_machine_token'),
    id: z.string(),
    subject: z.string(),
    claims: claimsOutput,
    scopes: z.array(z.string()),
    audience: z.array(z.string()),
    custom_scopes: z.array(z.string()),
    revoked: z.boolean(),
    revocation_reason: z.string().nullable(),
    expired: z.boolean(),
    expiration: at,
    last_used_at: at.nullable(),
    created_at: at,
    updated_at: at,
  }),
);

const mintedTokenOutput = named(
  'MintedM2mToken',
  // Absent where an idempotency key had the answer of before repeated.
  z.object({ ...m2mTokenOutput.shape, token: z.string().optional() }),
);

type M2mTokenObject = z.output<typeof mintedTokenOutput>;

export const verifyM2mTokenRequest = z
  .strictObject({
    token: credential.optional(),
    /** What Clerk's helper for Python calls it. */
    secret: credential.optional(),
  })
  .refine(({ token, secret }) => (token === undefined) !== (secret === undefined), {
    error: "wanted one of 'token' and 'secret'",
    path: ['token'],
  });

const clerk = 'machine_secret_key_invalid';

export const m2mTokenRoutes: readonly Route[] = [
  hotRoute('POST /v1/m2m_tokens', 'm2mTokens.create', {
    clerk,
    status: 201,
    input: createM2mTokenRequest.extend({ idempotencyKey: createM2mTokenInput.shape.idempotencyKey }),
    output: mintedTokenOutput,
  }),
  route('GET /v1/m2m_tokens', 'm2mTokens.list', {
    clerk,
    naming: { machineId: 'subject' },
    input: listM2mTokensInput.omit({ state: true }).extend({
      revoked: z.boolean().default(false),
      expired: z.boolean().default(false),
      limit: clerkLimit,
    }),
    output: z.object({
      m2m_tokens: z.array(m2mTokenOutput),
      total_count: count,
      next_cursor: z.string().nullable(),
    }),
    async run({ deps, caller }, { revoked, expired, ...input }) {
      const included = { revoked, expired };
      const { data, nextCursor } = await listM2mTokens(deps, caller, input, included);
      return {
        m2m_tokens: data.map((token) => toM2mTokenObject(token, deps.now())),
        total_count: await countM2mTokens(deps, caller, input, included),
        next_cursor: nextCursor,
      };
    },
  }),
  route('GET /v1/m2m_tokens/{id}', 'm2mTokens.get', {
    clerk,
    input: m2mTokenIdInput,
    output: m2mTokenOutput,
    run: async ({ deps, caller }, input) =>
      toM2mTokenObject(await getM2mToken(deps, caller, input), deps.now()),
  }),
  route('POST /v1/m2m_tokens/{id}/revoke', 'm2mTokens.revoke', {
    clerk,
    naming: { reason: 'revocation_reason' },
    input: m2mTokenIdInput.extend({ reason: description.nullish() }),
    output: m2mTokenOutput,
    run: async ({ deps, caller }, input) =>
      toM2mTokenObject(await revokeM2mToken(deps, caller, input), deps.now()),
  }),
  hotRoute('POST /v1/m2m_tokens/verify', 'credentials.verify', {
    clerk,
    summary:
      'Answer the M2M token with this value; 404 for whatever is not valid. To a machine it must be addressed; a secret key may ask for any',
    input: verifyM2mTokenRequest,
    output: m2mTokenOutput,
  }),
  route('POST /v1/m2m_tokens/revoke_by_value', 'm2mTokens.revokeByValue', {
    input: revokeM2mTokenByValueInput,
    output: acceptedOutput,
    run: ({ deps, caller, address }, input) => revokeM2mTokenByValue(deps, caller, address, input),
  }),
  route('POST /v1/m2m_tokens/revoke_all', 'm2mTokens.revokeAll', {
    input: revokeAllM2mTokensInput,
    output: z.object({ machineId: z.string(), revokedAt: at }),
    run: ({ deps, caller }, input) => revokeAllM2mTokens(deps, caller, input),
  }),
];

/** A token that was just found valid, by its id; null if it went or was revoked meanwhile. */
export async function presentVerifiedToken(deps: Deps, id: string): Promise<M2mTokenObject | null> {
  const token = await describeM2mToken(deps, id);
  return token?.state === 'live' ? toM2mTokenObject(token, deps.now()) : null;
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
    throw error instanceof CountersignError
      ? inWireNames(error, (field) => WIRE_NAMES[field] ?? field)
      : error;
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
