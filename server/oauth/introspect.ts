/** The introspection endpoint (RFC 7662). It starts from `active: false`. */
import { authenticate, authorize, bearerValue } from '../authenticate.ts';
import { PREFIXES, parseValue } from '../crypto/format.ts';
import type { AuthenticatedApplication } from '../domain/application-authentication.ts';
import { type ValidCredential, verify } from '../domain/credentials.ts';
import { describeM2mToken } from '../domain/m2m-tokens.ts';
import { OauthError } from '../domain/oauth-errors.ts';
import { findRefreshToken } from '../domain/oauth-refresh-tokens.ts';
import { audienceClaim, describeOauthToken, findLiveOauthToken } from '../domain/oauth-tokens.ts';
import { authenticateClient } from './client-authentication.ts';
import { json, type OauthEndpoint, type OauthRequest, parametersOf } from './endpoint.ts';

const BODY_BYTES_MAX = 24 * 1024;

/** `/oauth/token_info` is Clerk's. */
export const introspectionEndpoints: readonly OauthEndpoint[] = [
  '/oauth/introspect',
  '/oauth/token_info',
].map((path) => ({
  path,
  methods: ['POST'] as const,
  body: 'form' as const,
  bytesMax: BODY_BYTES_MAX,
  cors: false,
  refusals: 'json' as const,
  async answer(request) {
    const { token } = parametersOf(request.form);
    const introspect = await introspectorOf(request);
    if (token === undefined) throw new OauthError('invalid_request', "Wanted 'token', found none");
    return json(200, await introspect(token));
  },
}));

const INACTIVE = { active: false };

/** How the caller is answered: an application of its own tokens, who may verify of all that `verify` shows them. */
async function introspectorOf(request: OauthRequest): Promise<(token: string) => Promise<object>> {
  const { authorization } = request.headers;
  const bearer = bearerValue(authorization);
  if (bearer !== null) {
    await authenticate({ ...request, authorization }, 'oauth.introspect');
    return (token) => introspectAsVerifier(request, token, bearer);
  }
  const client = await authenticateClient(request);
  if (client.kind === 'machine') return (token) => introspectAsVerifier(request, token, client.secret);
  if (client.authenticated.application.public)
    throw new OauthError(
      'invalid_client',
      'Wanted a client with a secret: a public one may introspect nothing',
    );
  return (token) => introspectOwn(request, client.authenticated, token);
}

/** An application is told of the tokens it was given, and of no others (RFC 7662, section 4). */
async function introspectOwn(
  { deps }: OauthRequest,
  authenticated: AuthenticatedApplication,
  value: string,
): Promise<object> {
  const { application } = authenticated;
  if (parseValue(value)?.prefix === PREFIXES.refreshToken) {
    const found = await findRefreshToken(deps, authenticated, value);
    if (!found) return INACTIVE;
    const { token, grant } = found;
    return {
      active: true,
      scope: token.scopes.join(' '),
      client_id: application.client_id,
      sub: grant.subject,
      iss: deps.publicUrl,
      iat: seconds(token.created_at),
      exp: seconds(token.expires_at),
    };
  }
  const token = await findLiveOauthToken(deps, value);
  if (token?.applicationId !== application.id) return INACTIVE;
  return {
    active: true,
    scope: token.scopes.join(' '),
    client_id: token.clientId,
    token_type: 'Bearer',
    sub: token.subject,
    iss: deps.publicUrl,
    jti: token.tokenId,
    iat: seconds(token.createdAt),
    nbf: seconds(token.createdAt),
    exp: seconds(token.tokenExpiresAt),
    ...audienceClaim(token.audience),
    ...(token.organizationId !== null && { org_id: token.organizationId }),
  };
}

/** By the rules of `verify`: to a machine a token that is not for it is unknown. */
async function introspectAsVerifier(
  { deps, address }: OauthRequest,
  token: string,
  value: string,
): Promise<object> {
  const outcome = await verify(
    deps,
    { value, address },
    { credential: token, kinds: ['m2m_token', 'oauth_token'] },
    (principal) => authorize(principal, 'oauth.introspect', true),
    'anybody',
  );
  if (!outcome.valid) return INACTIVE;
  const describe = outcome.kind === 'oauth_token' ? describeOauthToken : describeM2mToken;
  const described = await describe(deps, outcome.id);
  return described ? presentVerified(deps.publicUrl, outcome, described.createdAt) : INACTIVE;
}

const presentVerified = (issuer: string, valid: ValidCredential, createdAt: number) => ({
  active: true,
  scope: valid.scopes.join(' '),
  client_id: valid.kind === 'oauth_token' ? valid.clientId : valid.subject,
  token_type: 'Bearer',
  sub: valid.subject,
  iss: issuer,
  jti: valid.id,
  iat: seconds(createdAt),
  nbf: seconds(createdAt),
  ...(valid.expiresAt !== null && { exp: seconds(valid.expiresAt) }),
  ...('audience' in valid && audienceClaim(valid.audience ?? [])),
  ...('organizationId' in valid && { org_id: valid.organizationId }),
});

const seconds = (at: number) => Math.floor(at / 1000);
