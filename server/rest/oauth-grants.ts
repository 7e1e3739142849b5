/** Grants: what users let OAuth applications do, in the style of the rest. */
import { z } from 'zod';
import {
  getOauthGrant,
  listOauthGrants,
  listOauthGrantsInput,
  type OauthGrant,
  oauthGrantIdInput,
  revokeAllOauthGrants,
  revokeAllOauthGrantsInput,
  revokeOauthGrant,
  revokeOauthGrantInput,
  withdrawOauthConsent,
  withdrawOauthConsentInput,
} from '../domain/oauth-grants.ts';
import { at, named, pageOf } from './fields.ts';
import { type Route, route } from './route.ts';

const grantOutput = named(
  'OAuthGrant',
  z.object({
    object: z.literal('oauth_grant'),
    id: z.string(),
    applicationId: z.string(),
    applicationName: z.string().nullable(),
    subject: z.string(),
    organizationId: z.string().nullable(),
    scopes: z.array(z.string()),
    resources: z.array(z.string()),
    redirectUri: z.string(),
    state: z.enum(['live', 'revoked', 'expired']),
    createdAt: at,
    expiresAt: at.nullable(),
    lastUsedAt: at.nullable(),
    revokedAt: at.nullable(),
    revocationReason: z.string().nullable(),
  }),
);

export const oauthGrantRoutes: readonly Route[] = [
  route('GET /v1/oauth_grants', 'oauthGrants.list', {
    input: listOauthGrantsInput,
    output: pageOf(grantOutput),
    async run({ deps }, input) {
      const { data, nextCursor } = await listOauthGrants(deps, input);
      return { data: data.map(present), nextCursor };
    },
  }),
  route('POST /v1/oauth_grants/withdraw', 'oauthGrants.withdraw', {
    input: withdrawOauthConsentInput,
    output: z.object({ subject: z.string(), applicationId: z.string(), revokedAt: at }),
    run: ({ deps, caller }, input) => withdrawOauthConsent(deps, caller, input),
  }),
  route('POST /v1/oauth_grants/revoke_all', 'oauthGrants.revokeAll', {
    input: revokeAllOauthGrantsInput,
    output: z.object({ subject: z.string(), revoked: z.number().int() }),
    run: ({ deps, caller }, input) => revokeAllOauthGrants(deps, caller, input),
  }),
  route('GET /v1/oauth_grants/{id}', 'oauthGrants.get', {
    input: oauthGrantIdInput,
    output: grantOutput,
    run: async ({ deps }, input) => present(await getOauthGrant(deps, input)),
  }),
  route('POST /v1/oauth_grants/{id}/revoke', 'oauthGrants.revoke', {
    input: revokeOauthGrantInput,
    output: z.object({ id: z.string(), revokedAt: at }),
    run: ({ deps, caller }, input) => revokeOauthGrant(deps, caller, input),
  }),
];

const present = (grant: OauthGrant) => ({ object: 'oauth_grant' as const, ...grant });
