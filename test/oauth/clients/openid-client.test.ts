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
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { createCountersign } from '../../../client/index.ts';
import { SIGN_IN_PAGE, type TestApplication } from '../../support/authorization-server.ts';
import { whenSuiteDone } from '../../support/deps.ts';
import { freePort } from '../../support/services.ts';
import { CALLBACK, cameBack, type Started, startAuthorizationServer } from '../../support/started.ts';
import { newIssuer, signInThere, UPSTREAM_CLIENT } from '../../support/upstream.ts';
import { UserAgent } from '../../support/user-agent.ts';

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
    { algorithm = 'oidc', at = server }: { algorithm?: 'oidc' | 'oauth2'; at?: Started } = {},
  ): Promise<Configuration> =>
    discovery(new URL(at.url), clientId, undefined, authentication, { ...INSECURE, algorithm });

  /** The code flow as its documentation has it, from the request to the tokens; `walk` is what the user does meanwhile. */
  async function signIn(
    config: Configuration,
    parameters: Record<string, string> = {},
    walk = async (url: URL) => cameBack(await server.allow(url)),
  ) {
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
    const back = await walk(url);
    const isOpenId = url.searchParams.get('scope')?.includes('openid') ?? true;
    return authorizationCodeGrant(config, back, {
      pkceCodeVerifier: verifier,
      expectedState: state,
      ...(isOpenId && { expectedNonce: nonce, idTokenExpected: true }),
    });
  }

  it.each(['oidc', 'oauth2'] as const)('discovers by the well-known form of %s', async (algorithm) => {
    const config = await configure(await server.application(), undefined, { algorithm });
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

  it('signs in whom the host application answers for', async () => {
    const handing = await startAuthorizationServer({
      env: { COUNTERSIGN_SIGN_IN: 'handoff', COUNTERSIGN_HANDOFF_URL: SIGN_IN_PAGE },
      whenDone: onTestFinished,
    });
    const { secret } = await handing.administer('secretKeys.create', { name: 'host', role: 'interaction' });
    const host = createCountersign({ url: handing.url, secretKey: secret });
    const application = await handing.application();
    const config = await configure(application, undefined, { at: handing });
    const tokens = await signIn(config, {}, async (url) => {
      const agent = handing.browser();
      const { left } = await agent.open(url);
      expect(left?.url.href.startsWith(SIGN_IN_PAGE)).toBe(true);
      const id = left?.url.searchParams.get('interaction') ?? '';
      expect(await host.interactions.get({ id })).toMatchObject({ application: { name: 'Notebook' } });
      const { resumeUrl } = await host.interactions.complete({
        id,
        subject: 'user_of_the_host',
        claims: { name: 'Grace Hopper' },
      });
      return cameBack(await handing.allow(resumeUrl, agent));
    });
    expect(tokens.claims()).toMatchObject({ sub: 'user_of_the_host', name: 'Grace Hopper' });
    const refreshed = await refreshTokenGrant(config, tokens.refresh_token ?? '');
    expect(refreshed.claims()?.sub).toBe('user_of_the_host');
  });

  it('signs in whom another issuer answers for', async () => {
    const port = await freePort();
    const issuer = await newIssuer(`http://127.0.0.1:${port}`);
    const relying = await startAuthorizationServer({
      env: {
        PORT: `${port}`,
        COUNTERSIGN_SIGN_IN: 'oidc',
        COUNTERSIGN_OIDC_ISSUER: issuer.url,
        COUNTERSIGN_OIDC_CLIENT_ID: UPSTREAM_CLIENT.id,
        COUNTERSIGN_OIDC_CLIENT_SECRET: UPSTREAM_CLIENT.secret,
      },
      whenDone: onTestFinished,
    });
    const config = await configure(await relying.application(), undefined, { at: relying });
    const tokens = await signIn(config, {}, async (url) => {
      const agent = new UserAgent(relying.url);
      const answer = await signInThere(agent, await agent.get(url.href), relying.url, 'grace');
      const consent = await agent.get((await agent.get(answer)).location ?? '');
      const { location } = await agent.submit(consent, { decision: 'allow' });
      return new URL(location ?? '');
    });
    const { data } = await relying.administer('users.list');
    expect(data).toMatchObject([{ source: issuer.url, sourceSubject: 'grace' }]);
    expect(tokens.claims()).toMatchObject({ sub: data[0].id, name: 'The grace' });
    expect(await fetchUserInfo(config, tokens.access_token, data[0].id)).toMatchObject({ name: 'The grace' });
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

  it('registers itself by an initial access token, with a secret, and signs in by that', async () => {
    const { token: initialAccessToken } = await server.administer('initialAccessTokens.create', {
      name: 'partner',
    });
    const metadata = { client_name: 'Partner', redirect_uris: [CALLBACK] };
    const register = () =>
      dynamicClientRegistration(new URL(server.url), metadata, undefined, {
        ...INSECURE,
        initialAccessToken,
      });
    const config = await register();
    expect(config.clientMetadata().client_secret).toMatch(/^oas_/);
    const tokens = await signIn(config, { scope: 'openid offline_access' });
    expect(tokens.claims()?.aud).toBe(config.clientMetadata().client_id);
    await expect(register()).rejects.toMatchObject({ code: 'OAUTH_WWW_AUTHENTICATE_CHALLENGE' });
  });

  it('is told of a grant type that there is not', async () => {
    const config = await configure(await server.application());
    await expect(
      genericGrantRequest(config, 'urn:ietf:params:oauth:grant-type:token-exchange', {}),
    ).rejects.toMatchObject({ error: 'unsupported_grant_type', status: 400 });
  });
});
