/** OAuth applications and their secrets: Clerk's wire, with what ours have beyond. */
import { z } from 'zod';
import { instanceId } from '../domain/installation.ts';
import {
  cancelOauthApplicationRotation,
  completeOauthApplicationRotation,
  countOauthApplications,
  createOauthApplication,
  createOauthApplicationInput,
  deleteOauthApplication,
  GRANT_TYPES,
  getOauthApplication,
  listOauthApplications,
  listOauthApplicationsInput,
  type OauthApplication,
  oauthApplicationIdInput,
  revokeOauthApplicationTokens,
  rotateOauthApplicationSecret,
  rotateOauthApplicationSecretInput,
  setOauthApplicationEnabled,
  updateOauthApplication,
  updateOauthApplicationInput,
} from '../domain/oauth-applications.ts';
import { logoUrlOf } from '../domain/oauth-logos.ts';
import { at, clerkLimit, count, countedPageOf, named } from './fields.ts';
import { type Call, type Route, route } from './route.ts';

const clerk = 'clerk_key_invalid';
const naming = {
  consentRequired: 'consent_screen_enabled',
  accessTokenTtlSeconds: 'access_token_ttl',
  refreshTokenIdleSeconds: 'refresh_token_idle_ttl',
  refreshTokenMaxSeconds: 'refresh_token_max_ttl',
  codeTtlSeconds: 'code_ttl',
};

export const applicationOutput = named(
  'OAuthApplication',
  z.object({
    object: z.literal('oauth_application'),
    id: z.string(),
    instance_id: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    client_id: z.string(),
    client_uri: z.string().nullable(),
    client_image_url: z.string().nullable(),
    dynamically_registered: z.boolean(),
    source: z.enum(['administrator', 'registration', 'metadata_document']),
    enabled: z.boolean(),
    consent_screen_enabled: z.boolean(),
    pkce_required: z.boolean(),
    public: z.boolean(),
    scopes: z.string(),
    default_scopes: z.string().nullable(),
    audiences: z.array(z.string()).nullable(),
    redirect_uris: z.array(z.string()),
    callback_url: z.string(),
    grant_types: z.array(z.enum(GRANT_TYPES)),
    access_token_format: z.enum(['opaque', 'jwt']),
    access_token_ttl: count,
    refresh_token_idle_ttl: count,
    refresh_token_max_ttl: count.nullable(),
    code_ttl: count,
    authorize_url: z.string(),
    token_fetch_url: z.string(),
    user_info_url: z.string(),
    discovery_url: z.string(),
    token_introspection_url: z.string(),
    last_used_at: at.nullable(),
    created_at: at,
    updated_at: at,
  }),
);

const createdOutput = named(
  'CreatedOAuthApplication',
  // Absent where an idempotency key had the answer of before repeated; empty for a public one, as Clerk has it.
  z.object({ ...applicationOutput.shape, client_secret: z.string().optional() }),
);

const ORDERS = ['name', '+name', '-name', 'created_at', '+created_at', '-created_at'] as const;

/** As Clerk has them: one text, with a space between. */
const scopeText = z.string().max(4096);
const fromText = (text: string) => text.split(' ').filter((scope) => scope !== '');

const clerkFields = {
  scopes: scopeText.optional(),
  defaultScopes: scopeText.nullish(),
  /** Deprecated by Clerk: one redirect URI. */
  callbackUrl: z.string().max(2048).optional(),
};

const createInput = createOauthApplicationInput.extend({
  ...clerkFields,
  // Off by default, as Clerk has it; public applications have it on all the same.
  pkceRequired: z.boolean().default(false),
});
const updateInput = updateOauthApplicationInput.extend(clerkFields);

/** The input of the domain: scopes as a list, and the one redirect URI of before among the others. */
function withLists<T extends { redirectUris?: string[] | undefined }>({
  scopes,
  defaultScopes,
  callbackUrl,
  ...input
}: T & {
  scopes?: string | undefined;
  defaultScopes?: string | null | undefined;
  callbackUrl?: string | undefined;
}) {
  const redirectUris =
    callbackUrl === undefined ? input.redirectUris : [callbackUrl, ...(input.redirectUris ?? [])];
  return {
    ...input,
    ...(redirectUris && { redirectUris: [...new Set(redirectUris)] }),
    ...(scopes !== undefined && { scopes: fromText(scopes) }),
    ...(defaultScopes !== undefined && {
      defaultScopes: defaultScopes === null ? null : fromText(defaultScopes),
    }),
  };
}

/** Clerk's default. */
const CLERK_SCOPES = 'profile email';

export const oauthApplicationRoutes: readonly Route[] = [
  route('POST /v1/oauth_applications', 'oauthApplications.create', {
    clerk,
    naming,
    input: createInput,
    output: createdOutput,
    async run(call, { scopes = CLERK_SCOPES, ...input }) {
      const given = createOauthApplicationInput.parse(withLists({ ...input, scopes }));
      const { secret, ...application } = await createOauthApplication(call.deps, call.caller, given);
      const client_secret = application.public ? '' : secret;
      return { ...present(call, application), ...(client_secret !== undefined && { client_secret }) };
    },
  }),
  route('GET /v1/oauth_applications', 'oauthApplications.list', {
    clerk,
    naming: { query: 'name_query' },
    input: listOauthApplicationsInput
      .omit({ direction: true })
      .extend({ limit: clerkLimit, orderBy: z.enum(ORDERS).default('-created_at') }),
    output: countedPageOf(applicationOutput),
    async run(call, { orderBy, ...input }) {
      const { data, nextCursor } = await listOauthApplications(call.deps, {
        ...input,
        orderBy: orderBy.endsWith('name') ? 'name' : 'created_at',
        direction: orderBy.startsWith('-') ? 'descending' : 'ascending',
      });
      return {
        data: data.map((application) => present(call, application)),
        total_count: await countOauthApplications(call.deps, input),
        next_cursor: nextCursor,
      };
    },
  }),
  route('GET /v1/oauth_applications/{id}', 'oauthApplications.get', {
    clerk,
    input: oauthApplicationIdInput,
    output: applicationOutput,
    run: async (call, input) => present(call, await getOauthApplication(call.deps, input)),
  }),
  route('PATCH /v1/oauth_applications/{id}', 'oauthApplications.update', {
    clerk,
    naming,
    input: updateInput,
    output: applicationOutput,
    async run(call, input) {
      const given = updateOauthApplicationInput.parse(withLists(input));
      return present(call, await updateOauthApplication(call.deps, call.caller, given));
    },
  }),
  route('DELETE /v1/oauth_applications/{id}', 'oauthApplications.delete', {
    clerk,
    input: oauthApplicationIdInput,
    output: z.object({ object: z.literal('oauth_application'), id: z.string(), deleted: z.literal(true) }),
    run: async ({ deps, caller }, input) => ({
      object: 'oauth_application' as const,
      ...(await deleteOauthApplication(deps, caller, input)),
    }),
  }),
  route('POST /v1/oauth_applications/{id}/rotate_secret', 'oauthApplications.rotateSecret', {
    clerk,
    naming: { overlapSeconds: 'previous_secret_ttl' },
    input: rotateOauthApplicationSecretInput,
    output: z.object({ ...createdOutput.shape, previous_expires_at: at.nullable() }),
    async run(call, input) {
      const { secret, previousExpiresAt, ...application } = await rotateOauthApplicationSecret(
        call.deps,
        call.caller,
        input,
      );
      return {
        ...present(call, application),
        ...(secret !== undefined && { client_secret: secret }),
        previous_expires_at: previousExpiresAt,
      };
    },
  }),
  route('POST /v1/oauth_applications/{id}/cancel_rotation', 'oauthApplications.cancelRotation', {
    input: oauthApplicationIdInput,
    output: applicationOutput,
    run: async (call, { id }) =>
      present(call, await cancelOauthApplicationRotation(call.deps, call.caller, id)),
  }),
  route('POST /v1/oauth_applications/{id}/complete_rotation', 'oauthApplications.completeRotation', {
    input: oauthApplicationIdInput,
    output: applicationOutput,
    run: async (call, { id }) =>
      present(call, await completeOauthApplicationRotation(call.deps, call.caller, id)),
  }),
  route('POST /v1/oauth_applications/{id}/enable', 'oauthApplications.enable', {
    input: oauthApplicationIdInput,
    output: applicationOutput,
    run: async (call, { id }) =>
      present(call, await setOauthApplicationEnabled(call.deps, call.caller, id, true)),
  }),
  route('POST /v1/oauth_applications/{id}/disable', 'oauthApplications.disable', {
    input: oauthApplicationIdInput,
    output: applicationOutput,
    run: async (call, { id }) =>
      present(call, await setOauthApplicationEnabled(call.deps, call.caller, id, false)),
  }),
  route('POST /v1/oauth_applications/{id}/revoke_tokens', 'oauthApplications.revokeTokens', {
    input: oauthApplicationIdInput,
    output: applicationOutput,
    run: async (call, input) =>
      present(call, await revokeOauthApplicationTokens(call.deps, call.caller, input)),
  }),
];

/** What an application looks like on Clerk's wire. */
export function present({ deps }: Pick<Call, 'deps'>, application: OauthApplication) {
  const { publicUrl } = deps;
  return {
    object: 'oauth_application' as const,
    id: application.id,
    instance_id: instanceId(deps),
    name: application.name,
    description: application.description,
    client_id: application.clientId,
    client_uri: application.clientUri,
    client_image_url: logoUrlOf(publicUrl, application),
    dynamically_registered: application.source === 'registration',
    source: application.source,
    enabled: application.enabled,
    consent_screen_enabled: application.consentRequired,
    pkce_required: application.pkceRequired,
    public: application.public,
    scopes: application.scopes.join(' '),
    default_scopes: application.defaultScopes?.join(' ') ?? null,
    audiences: application.audiences,
    redirect_uris: application.redirectUris,
    callback_url: application.redirectUris[0] ?? '',
    grant_types: application.grantTypes,
    access_token_format: application.accessTokenFormat,
    access_token_ttl: application.accessTokenTtlSeconds,
    refresh_token_idle_ttl: application.refreshTokenIdleSeconds,
    refresh_token_max_ttl: application.refreshTokenMaxSeconds,
    code_ttl: application.codeTtlSeconds,
    authorize_url: `${publicUrl}/oauth/authorize`,
    token_fetch_url: `${publicUrl}/oauth/token`,
    user_info_url: `${publicUrl}/oauth/userinfo`,
    discovery_url: `${publicUrl}/.well-known/openid-configuration`,
    token_introspection_url: `${publicUrl}/oauth/token_info`,
    last_used_at: application.lastUsedAt,
    created_at: application.createdAt,
    updated_at: application.updatedAt,
  };
}
