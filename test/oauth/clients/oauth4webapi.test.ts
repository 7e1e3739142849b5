/** `oauth4webapi` 3, which holds every answer against its RFC: as a client, and as a resource server. */
import * as oauth from 'oauth4webapi';
import { beforeAll, describe, expect, it } from 'vitest';
import type { TestApplication } from '../../support/authorization-server.ts';
import { whenSuiteDone } from '../../support/deps.ts';
import { CALLBACK, cameBack, type Started, startAuthorizationServer } from '../../support/started.ts';

const INSECURE = { [oauth.allowInsecureRequests]: true };
const API = 'https://api.example.com/';

describe.each(['ES256', 'RS256', 'EdDSA'])('oauth4webapi, with keys for %s', (alg) => {
  const whenDone = whenSuiteDone();
  let server: Started;
  let as: oauth.AuthorizationServer;

  beforeAll(async () => {
    server = await startAuthorizationServer({ env: { COUNTERSIGN_SIGNING_ALG: alg }, whenDone });
    const issuer = new URL(server.url);
    const response = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...INSECURE });
    as = await oauth.processDiscoveryResponse(issuer, response);
  }, 300_000);

  const clientOf = ({ clientId }: TestApplication): oauth.Client => ({ client_id: clientId });

  async function signIn(application: TestApplication, parameters: Record<string, string> = {}) {
    const client = clientOf(application);
    const verifier = oauth.generateRandomCodeVerifier();
    const nonce = oauth.generateRandomNonce();
    const url = new URL(as.authorization_endpoint ?? '');
    url.search = `${new URLSearchParams({
      client_id: client.client_id,
      redirect_uri: CALLBACK,
      response_type: 'code',
      scope: 'openid email offline_access notes:read',
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      nonce,
      state: 'st',
      ...parameters,
    })}`;
    const answer = oauth.validateAuthResponse(as, client, cameBack(await server.allow(url)), 'st');
    const response = await oauth.authorizationCodeGrantRequest(
      as,
      client,
      oauth.ClientSecretBasic(application.secret),
      answer,
      CALLBACK,
      verifier,
      INSECURE,
    );
    const tokens = await oauth.processAuthorizationCodeResponse(as, client, response, {
      expectedNonce: nonce,
      requireIdToken: true,
    });
    await oauth.validateApplicationLevelSignature(as, response, INSECURE);
    return tokens;
  }

  it('accepts the code flow, the ID token and its signature, userinfo and the refresh', async () => {
    const application = await server.application();
    const client = clientOf(application);
    const tokens = await signIn(application);
    const { sub } = oauth.getValidatedIdTokenClaims(tokens) ?? { sub: '' };
    const asked = await oauth.userInfoRequest(as, client, tokens.access_token, INSECURE);
    expect(await oauth.processUserInfoResponse(as, client, sub, asked)).toMatchObject({ sub });
    const authentication = oauth.ClientSecretPost(application.secret);
    const response = await oauth.refreshTokenGrantRequest(
      as,
      client,
      authentication,
      tokens.refresh_token ?? '',
      INSECURE,
    );
    const refreshed = await oauth.processRefreshTokenResponse(as, client, response);
    await oauth.validateApplicationLevelSignature(as, response, INSECURE);
    expect(oauth.getValidatedIdTokenClaims(refreshed)?.sub).toBe(sub);
  });

  it('accepts a JWT access token as the resource server it is for, and no other', async () => {
    const application = await server.application({ accessTokenFormat: 'jwt' });
    const tokens = await signIn(application, { resource: API });
    const presented = (token: string) => new Request(API, { headers: { authorization: `Bearer ${token}` } });
    const claims = await oauth.validateJwtAccessToken(as, presented(tokens.access_token), API, INSECURE);
    expect(claims).toMatchObject({
      iss: server.url,
      client_id: application.clientId,
      aud: API,
      jti: expect.stringMatching(/^oat_/),
    });
    expect(claims.scope?.split(' ')).toContain('notes:read');
    for (const [token, audience] of [
      [tokens.access_token, 'https://other.example.com/'],
      [tokens.id_token ?? '', API],
      [tokens.id_token ?? '', application.clientId],
      [withoutSignature(tokens.access_token), API],
    ] as const)
      await expect(oauth.validateJwtAccessToken(as, presented(token), audience, INSECURE)).rejects.toThrow();
    const asked = await oauth.userInfoRequest(as, clientOf(application), tokens.access_token, INSECURE);
    expect(asked.status).toBe(200);
  });

  it('accepts client credentials, introspection and revocation, opaque and JWT', async () => {
    for (const accessTokenFormat of ['opaque', 'jwt']) {
      const application = await server.application({
        accessTokenFormat,
        grantTypes: ['client_credentials'],
        redirectUris: [],
        scopes: ['notes:read'],
      });
      const client = clientOf(application);
      const authentication = oauth.ClientSecretBasic(application.secret);
      const response = await oauth.clientCredentialsGrantRequest(as, client, authentication, {}, INSECURE);
      const { access_token: token, scope } = await oauth.processClientCredentialsResponse(
        as,
        client,
        response,
      );
      expect(scope).toBe('notes:read');
      const introspect = async () => {
        const asked = await oauth.introspectionRequest(as, client, authentication, token, INSECURE);
        return oauth.processIntrospectionResponse(as, client, asked);
      };
      expect(await introspect()).toMatchObject({ active: true, client_id: application.clientId });
      const revoked = await oauth.revocationRequest(as, client, authentication, token, INSECURE);
      expect(await oauth.processRevocationResponse(revoked)).toBeUndefined();
      expect(await introspect()).toEqual({ active: false });
    }
  });

  it('reads a refusal of the client with its challenge', async () => {
    const application = await server.application();
    const client = clientOf(application);
    const response = await oauth.clientCredentialsGrantRequest(
      as,
      client,
      oauth.ClientSecretBasic('wrong'),
      {},
      INSECURE,
    );
    await expect(oauth.processClientCredentialsResponse(as, client, response)).rejects.toSatisfy(
      (error) =>
        error instanceof oauth.WWWAuthenticateChallengeError || error instanceof oauth.ResponseBodyError,
    );
  });
});

const withoutSignature = (jwt: string) => `${jwt.split('.').slice(0, 2).join('.')}.`;
