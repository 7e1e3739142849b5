/** `openid-client` 6 through every flow, against a server that was started for real. */
import {
  allowInsecureRequests,
  authorizationCodeGrant,
  buildAuthorizationUrl,
  type ClientAuth,
  ClientSecretBasic,
  ClientSecretPost,
  type Configuration,
  calculatePKCECodeChallenge,
  clientCredentialsGrant,
  discovery,
  dynamicClientRegistration,
  fetchUserInfo,
  genericGrantRequest,
  None,
  randomNonce,
  randomPKCECodeVerifier,
  randomState,
  refreshTokenGrant,
  tokenIntrospection,
  tokenRevocation,
} from 'openid-client';
import { beforeAll, describe, expect, it } from 'vitest';
import type { TestApplication } from '../../support/authorization-server.ts';
import { whenSuiteDone } from '../../support/deps.ts';
import { CALLBACK, cameBack, type Started, startAuthorizationServer } from './started.ts';

const INSECURE = { execute: [allowInsecureRequests] };

describe('openid-client', () => {
  const whenDone = whenSuiteDone();
  let server: Started;

  beforeAll(async () => {
    server = await startAuthorizationServer({ env: { COUNTERSIGN_OAUTH_CLIENTS: 'mcp' }, whenDone });
  }, 300_000);

  const configure = (
    { clientId, secret }: TestApplication,
    authentication: ClientAuth = ClientSecretBasic(secret),
    algorithm: 'oidc' | 'oauth2' = 'oidc',
  ): Promise<Configuration> =>
    discovery(new URL(server.url), clientId, undefined, authentication, { ...INSECURE, algorithm });

  /** The code flow as its documentation has it, from the request to the tokens. */
  async function signIn(config: Configuration, parameters: Record<string, string> = {}) {
    const verifier = randomPKCECodeVerifier();
    const [state, nonce] = [randomState(), randomNonce()];
    const url = buildAuthorizationUrl(config, {
      redirect_uri: CALLBACK,
      scope: 'openid profile offline_access notes:read',
      code_challenge: await calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      state,
      nonce,
      ...parameters,
    });
    const back = cameBack(await server.allow(url));
    const isOpenId = url.searchParams.get('scope')?.includes('openid') ?? true;
    return authorizationCodeGrant(config, back, {
      pkceCodeVerifier: verifier,
      expectedState: state,
      ...(isOpenId && { expectedNonce: nonce, idTokenExpected: true }),
    });
  }

  it.each(['oidc', 'oauth2'] as const)('discovers by the well-known form of %s', async (algorithm) => {
    const config = await configure(await server.application(), undefined, algorithm);
    expect(config.serverMetadata()).toMatchObject({
      issuer: server.url,
      authorization_response_iss_parameter_supported: true,
      code_challenge_methods_supported: ['S256'],
    });
    expect(config.serverMetadata().supportsPKCE()).toBe(true);
  });

  it.each([
    ['client_secret_basic', ({ secret }: TestApplication) => ClientSecretBasic(secret)],
    ['client_secret_post', ({ secret }: TestApplication) => ClientSecretPost(secret)],
  ])('signs in by code and PKCE, asks who it is, refreshes: %s', async (_, authentication) => {
    const application = await server.application();
    const config = await configure(application, authentication(application));
    const tokens = await signIn(config);
    const claims = tokens.claims();
    expect(claims).toMatchObject({ iss: server.url, aud: application.clientId, name: 'Ada Lovelace' });
    expect(await fetchUserInfo(config, tokens.access_token, claims?.sub ?? '')).toMatchObject({
      sub: claims?.sub,
      name: 'Ada Lovelace',
    });
    const refreshed = await refreshTokenGrant(config, tokens.refresh_token ?? '');
    expect(refreshed.refresh_token).not.toBe(tokens.refresh_token);
    expect(refreshed.claims()?.sub).toBe(claims?.sub);
  });

  it('signs in without a secret', async () => {
    const application = await server.application({ public: true });
    const tokens = await signIn(await configure(application, None()));
    expect(tokens.scope?.split(' ')).toEqual(['openid', 'profile', 'offline_access', 'notes:read']);
    expect(tokens.refresh_token).toMatch(/^ort_/);
  });

  it('signs in by a form that is posted', async () => {
    const config = await configure(await server.application());
    expect((await signIn(config, { response_mode: 'form_post' })).access_token).toMatch(/^oat_/);
  });

  it('is told by the redirect URI that nobody is signed in', async () => {
    const config = await configure(await server.application());
    const state = randomState();
    const url = buildAuthorizationUrl(config, {
      redirect_uri: CALLBACK,
      scope: 'openid',
      prompt: 'none',
      code_challenge: await calculatePKCECodeChallenge(randomPKCECodeVerifier()),
      code_challenge_method: 'S256',
      state,
    });
    const back = cameBack(await server.browser().open(url));
    await expect(authorizationCodeGrant(config, back, { expectedState: state })).rejects.toMatchObject({
      code: 'OAUTH_AUTHORIZATION_RESPONSE_ERROR',
      error: 'login_required',
    });
  });

  it('finds the answer of another issuer out', async () => {
    const config = await configure(await server.application());
    const verifier = randomPKCECodeVerifier();
    const url = buildAuthorizationUrl(config, {
      redirect_uri: CALLBACK,
      scope: 'openid',
      code_challenge: await calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
    });
    const back = cameBack(await server.allow(url));
    back.searchParams.set('iss', 'https://evil.example.com');
    await expect(authorizationCodeGrant(config, back, { pkceCodeVerifier: verifier })).rejects.toMatchObject({
      code: 'OAUTH_INVALID_RESPONSE',
    });
  });

  it('gets a token for itself, narrowed to a resource, as an application and as a machine', async () => {
    const application = await server.application({
      grantTypes: ['client_credentials'],
      redirectUris: [],
      scopes: ['notes:read', 'notes:write'],
    });
    const config = await configure(application);
    const token = await clientCredentialsGrant(config, {
      scope: 'notes:read',
      resource: 'https://api.example.com/',
    });
    expect(token).toMatchObject({ token_type: 'bearer', scope: 'notes:read', expires_in: 3600 });
    expect(await tokenIntrospection(config, token.access_token)).toMatchObject({
      active: true,
      sub: application.clientId,
      aud: 'https://api.example.com/',
    });
    const ledger = await server.administer('machines.create', { name: 'ledger' });
    const billing = await server.administer('machines.create', { name: 'billing' });
    await server.administer('machineScopes.create', {
      fromMachineId: billing.id,
      toMachineId: ledger.id,
      scopes: [],
    });
    const machine = await configure({ id: billing.id, clientId: billing.id, secret: billing.secret });
    const minted = await clientCredentialsGrant(machine, { resource: ledger.id });
    expect(minted.access_token).toMatch(/^mt_/);
  });

  it('introspects, and revokes an access token alone and a refresh token with all of its grant', async () => {
    const config = await configure(await server.application());
    const tokens = await signIn(config);
    const active = async (token = '') => (await tokenIntrospection(config, token)).active;
    await tokenRevocation(config, tokens.access_token);
    expect(await active(tokens.access_token)).toBe(false);
    expect(await active(tokens.refresh_token)).toBe(true);
    const refreshed = await refreshTokenGrant(config, tokens.refresh_token ?? '');
    await tokenRevocation(config, refreshed.refresh_token ?? '', { token_type_hint: 'refresh_token' });
    expect(await active(refreshed.access_token)).toBe(false);
    await expect(refreshTokenGrant(config, refreshed.refresh_token ?? '')).rejects.toMatchObject({
      error: 'invalid_grant',
    });
  });

  it('registers itself, and signs in as what it registered', async () => {
    const config = await dynamicClientRegistration(
      new URL(server.url),
      {
        client_name: 'Agent',
        redirect_uris: [CALLBACK],
        token_endpoint_auth_method: 'none',
        application_type: 'native',
      },
      None(),
      INSECURE,
    );
    expect(config.clientMetadata().client_id).toMatch(/^oauthapp_/);
    const tokens = await signIn(config, { scope: 'openid offline_access' });
    expect(tokens.claims()?.aud).toBe(config.clientMetadata().client_id);
  });

  it('is told of a grant type that there is not', async () => {
    const config = await configure(await server.application());
    await expect(
      genericGrantRequest(config, 'urn:ietf:params:oauth:grant-type:token-exchange', {}),
    ).rejects.toMatchObject({ error: 'unsupported_grant_type', status: 400 });
  });
});
