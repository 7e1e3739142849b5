/** The registration endpoint (RFC 7591): applications that come unasked, where they may. */
import { bearerValue } from '../authenticate.ts';
import { OauthError } from '../domain/oauth-errors.ts';
import { type Registration, registerApplication } from '../domain/oauth-registrations.ts';
import { json, type OauthEndpoint } from './endpoint.ts';

export const registrationEndpoint: OauthEndpoint = {
  path: '/oauth/register',
  methods: ['POST'],
  body: 'json',
  bytesMax: 32 * 1024,
  cors: true,
  refusals: 'json',
  async answer({ deps, json: metadata, headers, address, requestId }) {
    const token = bearerValue(headers.authorization);
    if (token === null && headers.authorization !== undefined)
      throw new OauthError('invalid_token', "Wanted 'Authorization: Bearer', or no such header");
    return json(201, answerOf(await registerApplication(deps, { metadata, token, address, requestId })));
  },
};

/** RFC 7591, section 3.2.1: all that was registered, which may be less than was asked for. */
const answerOf = ({ application, secret, authenticationMethod, scopes }: Registration) => ({
  client_id: application.client_id,
  client_id_issued_at: Math.floor(application.created_at / 1000),
  ...(secret !== null && { client_secret: secret }),
  // It lives as long as its application does.
  client_secret_expires_at: 0,
  client_name: application.name,
  ...(application.client_uri !== null && { client_uri: application.client_uri }),
  redirect_uris: application.redirect_uris,
  grant_types: application.grant_types,
  response_types: ['code'],
  token_endpoint_auth_method: authenticationMethod,
  scope: scopes.join(' '),
});
