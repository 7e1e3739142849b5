/** The userinfo endpoint (OpenID Connect Core 1.0, section 5.3). A token for some resource works here all the same. */
import { bearerValue } from '../authenticate.ts';
import { claimsFor } from '../domain/grant-tokens.ts';
import { OauthError } from '../domain/oauth-errors.ts';
import { findLiveOauthToken } from '../domain/oauth-tokens.ts';
import { claimsNow, mayBeSignedIn, readUser } from '../domain/users.ts';
import { json, type OauthEndpoint, type OauthRequest, parametersOf } from './endpoint.ts';

export const userinfoEndpoint: OauthEndpoint = {
  path: '/oauth/userinfo',
  methods: ['GET', 'POST'],
  body: 'form',
  bytesMax: 24 * 1024,
  cors: true,
  refusals: 'json',
  async answer(request) {
    const { deps } = request;
    const token = await findLiveOauthToken(deps, presentedBy(request));
    if (!token) throw notLive();
    if (token.grantClaims === null || !token.scopes.includes('openid'))
      throw new OauthError('insufficient_scope', "Wanted a token of a user with the scope 'openid'", {
        challenge: { error: 'insufficient_scope', scope: 'openid' },
      });
    const user = await readUser(deps.store.read, token.subject);
    if (user && !mayBeSignedIn(deps, user)) throw notLive();
    return json(200, {
      ...claimsFor(claimsNow(deps, user, token.grantClaims), token.scopes),
      sub: token.subject,
      ...(token.organizationId !== null && { org_id: token.organizationId }),
    });
  },
};

const notLive = () => new OauthError('invalid_token', 'Wanted a live access token of this server');

/** RFC 6750, sections 2.1 and 2.2: never from the query. */
function presentedBy({ headers, form, method }: OauthRequest): string {
  const value = bearerValue(headers.authorization);
  const inBody = method === 'POST' ? parametersOf(form)['access_token'] : undefined;
  if (value !== null && inBody !== undefined)
    throw new OauthError(
      'invalid_request',
      'Wanted the access token once, found it in the header and in the body',
    );
  const presented = value ?? inBody;
  if (presented === undefined)
    // Whoever presents nothing is told of no error there (RFC 6750, section 3.1).
    throw new OauthError('invalid_token', "Wanted 'Authorization: Bearer' with a token", { challenge: {} });
  return presented;
}
