/** What the authorization server can do, at both places where clients look (RFC 8414; OpenID Connect Discovery 1.0). */
import { SIGNING_ALGS } from '../crypto/jwt.ts';
import type { Deps } from '../deps.ts';
import { GRANT_TYPES } from '../domain/oauth-applications.ts';
import { advertisedScopes } from '../domain/oauth-scopes.ts';
import { readOauthSettings } from '../domain/oauth-settings.ts';
import { AUTHENTICATION_METHODS } from './client-authentication.ts';
import { json, type OauthEndpoint } from './endpoint.ts';

const MAX_AGE_SECONDS = 300;

const metadataEndpoint = (path: string): OauthEndpoint => ({
  path,
  methods: ['GET'],
  body: 'none',
  bytesMax: 0,
  cors: true,
  refusals: 'json',
  answer: async ({ deps }) =>
    json(200, await readMetadata(deps), { 'Cache-Control': `public, max-age=${MAX_AGE_SECONDS}` }),
});

/** An issuer without a path, as ours is, has no inserted form (RFC 8414, section 3.1). */
export const metadataEndpoints: readonly OauthEndpoint[] = [
  metadataEndpoint('/.well-known/oauth-authorization-server'),
  metadataEndpoint('/.well-known/openid-configuration'),
];

async function readMetadata(deps: Deps): Promise<object> {
  const { publicUrl } = deps;
  const { registration, metadataDocuments } = await readOauthSettings(deps);
  return {
    issuer: publicUrl,
    authorization_endpoint: `${publicUrl}/oauth/authorize`,
    token_endpoint: `${publicUrl}/oauth/token`,
    userinfo_endpoint: `${publicUrl}/oauth/userinfo`,
    introspection_endpoint: `${publicUrl}/oauth/introspect`,
    revocation_endpoint: `${publicUrl}/oauth/revoke`,
    ...(registration !== 'off' && { registration_endpoint: `${publicUrl}/oauth/register` }),
    ...(metadataDocuments !== 'off' && { client_id_metadata_document_supported: true }),
    jwks_uri: `${publicUrl}/.well-known/jwks.json`,
    scopes_supported: await advertisedScopes(deps),
    response_types_supported: ['code'],
    response_modes_supported: ['query', 'form_post'],
    grant_types_supported: GRANT_TYPES,
    code_challenge_methods_supported: ['S256'],
    token_endpoint_auth_methods_supported: AUTHENTICATION_METHODS,
    introspection_endpoint_auth_methods_supported: AUTHENTICATION_METHODS.filter(
      (method) => method !== 'none',
    ),
    revocation_endpoint_auth_methods_supported: AUTHENTICATION_METHODS,
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: SIGNING_ALGS,
    claims_supported: [
      'iss',
      'sub',
      'aud',
      'exp',
      'iat',
      'auth_time',
      'nonce',
      'at_hash',
      'name',
      'given_name',
      'family_name',
      'preferred_username',
      'picture',
      'email',
      'email_verified',
    ],
    prompt_values_supported: ['none', 'login', 'consent', 'select_account'],
    authorization_response_iss_parameter_supported: true,
    request_parameter_supported: false,
    request_uri_parameter_supported: false,
    claims_parameter_supported: false,
    service_documentation: `${publicUrl}/docs`,
  };
}
