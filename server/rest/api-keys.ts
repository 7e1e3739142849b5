/** API keys: Clerk's wire, with what ours have beyond. */
import { z } from 'zod';
import {
  IMPORT_ITEMS_MAX,
  importApiKeys,
  importApiKeysInput,
  importedApiKey,
} from '../domain/api-key-imports.ts';
import {
  API_KEY_STATES,
  type ApiKey,
  type ApiKeyDescription,
  apiKeyIdInput,
  cancelApiKeyRotation,
  completeApiKeyRotation,
  countApiKeys,
  createApiKey,
  createApiKeyInput,
  deleteApiKey,
  describeApiKey,
  getApiKey,
  listApiKeys,
  listApiKeysInput,
  REVOCATION_REASONS,
  type RevocationReason,
  revokeAllApiKeys,
  revokeAllApiKeysInput,
  revokeApiKey,
  revokeApiKeyByValue,
  revokeApiKeyByValueInput,
  rotateApiKey,
  rotateApiKeyInput,
  setApiKeyCredits,
  setApiKeyCreditsInput,
  setApiKeyEnabled,
  updateApiKey,
  updateApiKeyInput,
} from '../domain/api-keys.ts';
import type { ValidCredential } from '../domain/credentials.ts';
import { credential, description, subject, ttlSeconds } from '../domain/fields.ts';
import type { Rotated } from '../domain/rotation.ts';
import { CountersignError } from '../errors.ts';
import {
  acceptedOutput,
  at,
  claimsOutput,
  clerkLimit,
  count,
  countedPageOf,
  limitOutput,
  named,
  rotationOutput,
} from './fields.ts';
import { type Call, hotRoute, type Route, route } from './route.ts';

const clerk = 'clerk_key_invalid';
const naming = { ttlSeconds: 'seconds_until_expiration' };

/** There is one type of key here. */
const type = z.literal('api_key').optional();

/** What Clerk's wire has of a key. */
const verifiedKeyOutput = named(
  'VerifiedApiKey',
  z.object({
    object: z.literal('api_key'),
    id: z.string(),
    type: z.literal('api_key'),
    subject: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    claims: claimsOutput,
    scopes: z.array(z.string()),
    revoked: z.boolean(),
    revocation_reason: z.string().nullable(),
    expired: z.boolean(),
    expiration: at.nullable(),
    created_by: z.string().nullable(),
    last_used_at: at.nullable(),
    created_at: at,
    updated_at: at,
  }),
);

const apiKeyOutput = named(
  'ApiKey',
  z.object({
    ...verifiedKeyOutput.shape,
    enabled: z.boolean(),
    state: z.enum(API_KEY_STATES),
    start: z.string(),
    policy_id: z.string().nullable(),
    rate_limit: limitOutput,
    allowed_cidrs: z.array(z.string()).nullable(),
    rotation: rotationOutput,
    rotate_by: at.nullable(),
    // Of one key, where it was looked up.
    remaining_credits: count.nullable().optional(),
  }),
);

const createdKeyOutput = named(
  'CreatedApiKey',
  // Absent where an idempotency key had the answer of before repeated.
  z.object({ ...apiKeyOutput.shape, secret: z.string().optional() }),
);

const rotatedKeyOutput = named(
  'RotatedApiKey',
  z.object({ ...createdKeyOutput.shape, previous_expires_at: at.nullable() }),
);

/** A text of people's, or one of our reasons. */
const revocationReason = description.nullish();

export const verifyApiKeyRequest = z.strictObject({ secret: credential });

export const apiKeyRoutes: readonly Route[] = [
  route('POST /v1/api_keys', 'apiKeys.create', {
    clerk,
    naming,
    input: createApiKeyInput.extend({ type, ttlSeconds: ttlSeconds.nullish() }),
    output: createdKeyOutput,
    async run({ deps, caller }, { type: _, ttlSeconds: ttl, ...input }) {
      // Null asks for a key that never expires, as on Clerk's wire.
      const expiry = ttl === null ? { expiresAt: input.expiresAt ?? null } : { ttlSeconds: ttl };
      const { secret, ...key } = await createApiKey(deps, caller, { ...input, ...expiry });
      return { ...present(key, deps.now()), ...(secret !== undefined && { secret }) };
    },
  }),
  route('GET /v1/api_keys', 'apiKeys.list', {
    clerk,
    input: listApiKeysInput.extend({
      type: z.string().min(1).max(25).optional(),
      includeInvalid: z.enum(['true', 'false']).default('false'),
      limit: clerkLimit,
    }),
    output: countedPageOf(apiKeyOutput),
    async run({ deps }, { type: wanted = 'api_key', includeInvalid, ...asked }) {
      if (wanted !== 'api_key') return { data: [], total_count: 0, next_cursor: null };
      const state = asked.state ?? (includeInvalid === 'true' ? undefined : 'live');
      const input = { ...asked, state };
      const { data, nextCursor } = await listApiKeys(deps, input);
      return {
        data: data.map((key) => present(key, deps.now())),
        total_count: await countApiKeys(deps, input),
        next_cursor: nextCursor,
      };
    },
  }),
  route('GET /v1/api_keys/{id}', 'apiKeys.get', {
    clerk,
    input: apiKeyIdInput,
    output: apiKeyOutput,
    run: async ({ deps }, input) => present(await getApiKey(deps, input), deps.now()),
  }),
  route('PATCH /v1/api_keys/{id}', 'apiKeys.update', {
    clerk,
    naming,
    input: updateApiKeyInput.extend({ subject: subject.optional(), ttlSeconds: ttlSeconds.nullish() }),
    output: apiKeyOutput,
    async run({ deps, caller }, { subject: named, ttlSeconds: ttl, ...changes }) {
      if (named !== undefined) await assertIsOf(deps, changes.id, named);
      const expiresAt = ttl == null ? ttl : deps.now() + ttl * 1000;
      const input = { ...changes, ...(expiresAt !== undefined && { expiresAt }) };
      return present(await updateApiKey(deps, caller, input), deps.now());
    },
  }),
  route('DELETE /v1/api_keys/{id}', 'apiKeys.delete', {
    clerk,
    input: apiKeyIdInput,
    output: z.object({ object: z.literal('api_key'), id: z.string(), deleted: z.literal(true) }),
    run: async ({ deps, caller }, { id }) => ({
      object: 'api_key' as const,
      ...(await deleteApiKey(deps, caller, id)),
    }),
  }),
  route('GET /v1/api_keys/{id}/secret', 'apiKeys.get', {
    clerk,
    summary: 'Answers 410: a secret is answered once, when it is made',
    status: 410,
    input: apiKeyIdInput,
    output: z.never(),
    async run({ deps }, { id }) {
      await getApiKey(deps, { id });
      throw new CountersignError(
        'secret_not_retrievable',
        `The secret of '${id}' was answered once, when it was made, and is kept as a hash; rotate it instead`,
      );
    },
  }),
  route('POST /v1/api_keys/{id}/revoke', 'apiKeys.revoke', {
    clerk,
    input: apiKeyIdInput.extend({ revocationReason }),
    output: apiKeyOutput,
    run: async ({ deps, caller }, { id, revocationReason: given }) =>
      present(await revokeApiKey(deps, caller, { id, ...whyOf(given) }), deps.now()),
  }),
  hotRoute('POST /v1/api_keys/verify', 'credentials.verify', {
    clerk,
    summary: 'Answer the API key with this value; 404 for whatever is not valid',
    input: verifyApiKeyRequest,
    output: verifiedKeyOutput,
  }),
  route('POST /v1/api_keys/import', 'apiKeys.import', {
    bytesMax: 1024 * 1024,
    input: importApiKeysInput,
    inputShape: importApiKeysInput.extend({ items: z.array(importedApiKey).min(1).max(IMPORT_ITEMS_MAX) }),
    output: z.object({
      imported: count,
      existing: count,
      refused: count,
      results: z.array(
        z.object({
          outcome: z.enum(['imported', 'exists', 'refused']),
          id: z.string().optional(),
          code: z.string().optional(),
          message: z.string().optional(),
          field: z.string().nullable().optional(),
        }),
      ),
    }),
    run: ({ deps, caller }, input) => importApiKeys(deps, caller, input),
  }),
  route('PUT /v1/api_keys/{id}/credits', 'apiKeys.setCredits', {
    input: setApiKeyCreditsInput,
    output: apiKeyOutput,
    run: async ({ deps, caller }, input) => present(await setApiKeyCredits(deps, caller, input), deps.now()),
  }),
  route('POST /v1/api_keys/{id}/enable', 'apiKeys.enable', {
    input: apiKeyIdInput,
    output: apiKeyOutput,
    run: async (call, { id }) => presentFor(call, await setApiKeyEnabled(call.deps, call.caller, id, true)),
  }),
  route('POST /v1/api_keys/{id}/disable', 'apiKeys.disable', {
    input: apiKeyIdInput,
    output: apiKeyOutput,
    run: async (call, { id }) => presentFor(call, await setApiKeyEnabled(call.deps, call.caller, id, false)),
  }),
  route('POST /v1/api_keys/{id}/rotate', 'apiKeys.rotate', {
    input: rotateApiKeyInput,
    output: rotatedKeyOutput,
    run: async (call, input) => presentRotated(call, await rotateApiKey(call.deps, call.caller, input)),
  }),
  route('POST /v1/api_keys/{id}/cancel_rotation', 'apiKeys.cancelRotation', {
    input: apiKeyIdInput,
    output: apiKeyOutput,
    run: async (call, { id }) => presentFor(call, await cancelApiKeyRotation(call.deps, call.caller, id)),
  }),
  route('POST /v1/api_keys/{id}/complete_rotation', 'apiKeys.completeRotation', {
    input: apiKeyIdInput,
    output: apiKeyOutput,
    run: async (call, { id }) => presentFor(call, await completeApiKeyRotation(call.deps, call.caller, id)),
  }),
  route('POST /v1/api_keys/revoke_by_value', 'apiKeys.revokeByValue', {
    input: revokeApiKeyByValueInput,
    output: acceptedOutput,
    run: ({ deps, caller, address }, input) => revokeApiKeyByValue(deps, caller, address, input),
  }),
  route('POST /v1/api_keys/revoke_all', 'apiKeys.revokeAll', {
    input: revokeAllApiKeysInput,
    output: z.object({ revoked: count }),
    run: ({ deps, caller }, input) => revokeAllApiKeys(deps, caller, input),
  }),
];

/** Clerk's SDK repeats a key's subject with every change; here it stays what it is. */
async function assertIsOf(deps: Call['deps'], id: string, wanted: string) {
  const { subject: found } = await getApiKey(deps, { id });
  if (found === wanted) return;
  throw new CountersignError(
    'invalid_input',
    "Cannot change API key: 'subject' must be the one that it was made for",
    { field: 'subject' },
  );
}

function whyOf(given: string | null | undefined): { reason: RevocationReason; note?: string } {
  const reason = REVOCATION_REASONS.find((each) => each === given);
  return reason ? { reason } : { reason: 'unspecified', ...(given && { note: given }) };
}

const presentFor = ({ deps }: Call, key: ApiKey) => present(key, deps.now());

const presentRotated = ({ deps }: Call, { secret, previousExpiresAt, ...key }: ApiKey & Rotated) => ({
  ...present(key, deps.now()),
  ...(secret !== undefined && { secret }),
  previous_expires_at: previousExpiresAt,
});

const present = (key: ApiKey & { remainingCredits?: number | null }, now: number) => ({
  object: 'api_key' as const,
  id: key.id,
  type: 'api_key' as const,
  subject: key.subject,
  name: key.name,
  description: key.description,
  claims: key.claims,
  scopes: key.scopes,
  revoked: key.revokedAt !== null,
  revocation_reason: key.revocationNote ?? key.revocationReason,
  expired: key.expiresAt !== null && key.expiresAt <= now,
  expiration: key.expiresAt,
  created_by: key.createdBy,
  last_used_at: key.lastUsedAt,
  created_at: key.createdAt,
  updated_at: key.updatedAt,
  enabled: key.enabled,
  state: key.state,
  start: key.start,
  policy_id: key.policyId,
  rate_limit: key.rateLimit,
  allowed_cidrs: key.allowedCidrs,
  rotation: key.rotation,
  rotate_by: key.rotateBy,
  ...(key.remainingCredits !== undefined && { remaining_credits: key.remainingCredits }),
});

/** A key that was just found valid, as Clerk's wire has it; null if it went meanwhile. */
export async function presentVerifiedKey(
  deps: Call['deps'],
  verified: Extract<ValidCredential, { kind: 'api_key' }>,
): Promise<z.output<typeof verifiedKeyOutput> | null> {
  const described: ApiKeyDescription | null = await describeApiKey(deps, verified.id);
  return (
    described && {
      object: 'api_key',
      id: verified.id,
      type: 'api_key',
      subject: verified.subject,
      name: verified.name,
      description: described.description,
      claims: verified.claims,
      scopes: verified.scopes,
      revoked: false,
      revocation_reason: null,
      expired: false,
      expiration: verified.expiresAt,
      created_by: described.createdBy,
      last_used_at: described.lastUsedAt,
      created_at: described.createdAt,
      updated_at: described.updatedAt,
    }
  );
}
