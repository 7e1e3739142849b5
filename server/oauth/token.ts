/** The token endpoint (RFC 6749, section 3.2): a table of grant types, a function each. */
import type { AuthenticatedApplication } from '../domain/application-authentication.ts';
import type { IssuedUnderGrant } from '../domain/grant-tokens.ts';
import { type Issued, issueToApplication, issueToMachine } from '../domain/oauth-client-credentials.ts';
import { redeemCode } from '../domain/oauth-codes.ts';
import { OauthError } from '../domain/oauth-errors.ts';
import { refreshTokens } from '../domain/oauth-refresh-tokens.ts';
import { scopesNamed } from '../domain/oauth-requests.ts';
import { authenticateClient, type Client } from './client-authentication.ts';
import { json, type OauthEndpoint, type OauthRequest, parametersOf } from './endpoint.ts';

type Parameters = ReturnType<typeof parametersOf>;
type Grant = (
  request: OauthRequest,
  client: Client,
  parameters: Parameters,
) => Promise<Issued | IssuedUnderGrant>;

/** By `grant_type`; null for what there is to come. */
const GRANTS: Readonly<Record<string, Grant | null>> = {
  client_credentials: grantClientCredentials,
  authorization_code: grantAuthorizationCode,
  refresh_token: grantRefreshToken,
  'urn:ietf:params:oauth:grant-type:device_code': null,
  'urn:ietf:params:oauth:grant-type:token-exchange': null,
  'urn:ietf:params:oauth:grant-type:jwt-bearer': null,
};

const BODY_BYTES_MAX = 16 * 1024;

export const tokenEndpoint: OauthEndpoint = {
  path: '/oauth/token',
  methods: ['POST'],
  body: 'form',
  bytesMax: BODY_BYTES_MAX,
  cors: true,
  refusals: 'json',
  async answer(request) {
    const client = await authenticateClient(request);
    const parameters = parametersOf(request.form, ['resource', 'audience']);
    return json(200, answerOf(await grantOf(parameters)(request, client, parameters)));
  },
};

function grantOf({ grant_type: type }: Parameters): Grant {
  if (type === undefined) throw new OauthError('invalid_request', "Wanted 'grant_type', found none");
  const grant = Object.hasOwn(GRANTS, type) ? GRANTS[type] : null;
  if (grant) return grant;
  const known = Object.keys(GRANTS).filter((name) => GRANTS[name]);
  throw new OauthError('unsupported_grant_type', `Wanted 'grant_type' to be one of ${known.join(', ')}`);
}

async function grantClientCredentials(
  { deps }: OauthRequest,
  client: Client,
  parameters: Parameters,
): Promise<Issued> {
  const asked = { scopes: scopesNamed(parameters['scope']), resources: parameters.all('resource') };
  if (client.kind === 'application') return issueToApplication(deps, client.authenticated, asked);
  const format = parameters['token_format'] ?? 'opaque';
  if (format !== 'opaque' && format !== 'jwt')
    throw new OauthError('invalid_request', "Wanted 'token_format' to be 'opaque' or 'jwt'");
  return issueToMachine(deps, client.caller, asked, format);
}

async function grantAuthorizationCode(
  { deps, requestId }: OauthRequest,
  client: Client,
  parameters: Parameters,
): Promise<IssuedUnderGrant> {
  const { code, redirect_uri: redirectUri, code_verifier: codeVerifier } = parameters;
  if (code === undefined) throw new OauthError('invalid_request', "Wanted 'code', found none");
  return redeemCode(deps, applicationOf(client), requestId, {
    code,
    redirectUri,
    codeVerifier,
    resources: parameters.all('resource'),
  });
}

async function grantRefreshToken(
  { deps, requestId }: OauthRequest,
  client: Client,
  parameters: Parameters,
): Promise<IssuedUnderGrant> {
  const { refresh_token: refreshToken } = parameters;
  if (refreshToken === undefined)
    throw new OauthError('invalid_request', "Wanted 'refresh_token', found none");
  return refreshTokens(deps, applicationOf(client), requestId, {
    refreshToken,
    scopes: scopesNamed(parameters['scope']),
    resources: parameters.all('resource'),
  });
}

/** A machine acts for itself alone. */
function applicationOf(client: Client): AuthenticatedApplication {
  if (client.kind === 'application') return client.authenticated;
  throw new OauthError('unauthorized_client', "A machine may use the grant type 'client_credentials' alone");
}

/** RFC 6749, section 5.1; OpenID Connect Core 1.0, section 3.1.3.3. */
const answerOf = (issued: Issued | IssuedUnderGrant) => ({
  access_token: issued.accessToken,
  token_type: 'Bearer',
  expires_in: issued.expiresInSeconds,
  scope: issued.scopes.join(' '),
  ...('refreshToken' in issued && {
    ...(issued.refreshToken !== null && {
      refresh_token: issued.refreshToken,
      refresh_token_expires_in: issued.refreshTokenExpiresInSeconds,
    }),
    ...(issued.idToken !== null && { id_token: issued.idToken }),
  }),
});
