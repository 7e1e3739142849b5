/** OAuth access tokens: ours, and the two calls that Clerk's wire has of them. */
import { z } from 'zod';
import type { Deps } from '../deps.ts';
import { verifyOauthTokenInput } from '../domain/credentials.ts';
import { credential } from '../domain/fields.ts';
import {
  revokeOauthTokenByValue,
  revokeOauthTokenByValueInput,
  revokeTokenOfApplication,
  revokeTokenOfApplicationInput,
} from '../domain/oauth-token-revocation.ts';
import {
  describeOauthToken,
  getOauthToken,
  listOauthTokens,
  listOauthTokensInput,
  oauthTokenIdInput,
  revokeOauthToken,
  revokeOauthTokenInput,
} from '../domain/oauth-tokens.ts';
import { verificationOutput } from './credentials.ts';
import { acceptedOutput, at, named, pageOf } from './fields.ts';
import { hotRoute, type Route, route } from './route.ts';

const oauthTokenOutput = named(
  'OauthToken',
  z.object({
    id: z.string(),
    applicationId: z.string(),
    grantId: z.string().nullable(),
    subject: z.string(),
    organizationId: z.string().nullable(),
    format: z.enum(['opaque', 'jwt']),
    audience: z.array(z.string()),
    scopes: z.array(z.string()),
    state: z.enum(['live', 'revoked', 'expired']),
    createdAt: at,
    expiresAt: at,
    revokedAt: at.nullable(),
    revocationReason: z.string().nullable(),
    lastUsedAt: at.nullable(),
  }),
);

/** Instants in seconds since 1970-01-01 UTC, as Clerk has them of these alone. */
const seconds = z.number().int();

const verifiedTokenOutput = named(
  'VerifiedOauthToken',
  z.object({
    object: z.literal('clerk_idp_oauth_access_token'),
    id: z.string(),
    client_id: z.string(),
    subject: z.string(),
    scopes: z.array(z.string()),
    revoked: z.literal(false),
    revocation_reason: z.null(),
    expired: z.literal(false),
    expiration: seconds,
    created_at: seconds,
    updated_at: seconds,
    aud: z.array(z.string()).optional(),
  }),
);

export const verifyAccessTokenRequest = z
  .strictObject({
    access_token: credential.optional(),
    /** What it was called before, and by Clerk's helper for Python. */
    secret: credential.optional(),
  })
  .refine(({ access_token, secret }) => (access_token === undefined) !== (secret === undefined), {
    error: "wanted one of 'access_token' and 'secret'",
    path: ['access_token'],
  });

const clerk = 'clerk_key_invalid';

export const oauthTokenRoutes: readonly Route[] = [
  route('GET /v1/oauth_tokens', 'oauthTokens.list', {
    input: listOauthTokensInput,
    output: pageOf(oauthTokenOutput),
    run: ({ deps }, input) => listOauthTokens(deps, input),
  }),
  route('GET /v1/oauth_tokens/{id}', 'oauthTokens.get', {
    input: oauthTokenIdInput,
    output: oauthTokenOutput,
    run: ({ deps }, input) => getOauthToken(deps, input),
  }),
  hotRoute('POST /v1/oauth_tokens/verify', 'oauthTokens.verify', {
    naming: 'as is',
    input: verifyOauthTokenInput,
    output: verificationOutput,
  }),
  route('POST /v1/oauth_tokens/{id}/revoke', 'oauthTokens.revoke', {
    input: revokeOauthTokenInput,
    output: z.object({ id: z.string(), revokedAt: at }),
    run: ({ deps, caller }, input) => revokeOauthToken(deps, caller, input),
  }),
  route('POST /v1/oauth_tokens/revoke_by_value', 'oauthTokens.revokeByValue', {
    input: revokeOauthTokenByValueInput,
    output: acceptedOutput,
    run: ({ deps, caller, address }, input) => revokeOauthTokenByValue(deps, caller, address, input),
  }),
  hotRoute('POST /v1/oauth_applications/access_tokens/verify', 'credentials.verify', {
    clerk,
    summary: 'Answer the OAuth access token with this value; 404 for whatever is not valid',
    input: verifyAccessTokenRequest,
    output: verifiedTokenOutput,
  }),
  route('POST /v1/oauth_applications/{id}/revoke_token', 'oauthTokens.revokeByValue', {
    clerk,
    status: 204,
    summary:
      'Revoke what a user allowed with all tokens under it, by an access or refresh token of the application; the answer is the same whatever was found',
    input: revokeTokenOfApplicationInput,
    output: z.null(),
    async run({ deps, caller, address }, input) {
      await revokeTokenOfApplication(deps, caller, address, input);
      return null;
    },
  }),
];

/** A token that was just found valid, by its id; null if it went or was revoked meanwhile. */
export async function presentVerifiedAccessToken(
  deps: Deps,
  { id, clientId }: { id: string; clientId: string },
): Promise<z.output<typeof verifiedTokenOutput> | null> {
  const token = await describeOauthToken(deps, id);
  if (token?.state !== 'live') return null;
  return {
    object: 'clerk_idp_oauth_access_token',
    id,
    client_id: clientId,
    subject: token.subject,
    scopes: token.scopes,
    revoked: false,
    revocation_reason: null,
    expired: false,
    expiration: inSeconds(token.expiresAt),
    created_at: inSeconds(token.createdAt),
    updated_at: inSeconds(token.createdAt),
    ...(token.audience.length > 0 && { aud: token.audience }),
  };
}

const inSeconds = (instant: number) => Math.floor(instant / 1000);
