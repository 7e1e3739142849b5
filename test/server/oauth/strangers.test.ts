import { eq } from 'drizzle-orm';
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';
import { describe, expect, it } from 'vitest';
import { call } from '../../support/calls.ts';
import { answering, CLIENT_HOST, withDocuments } from '../../support/client-documents.ts';
import { openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newPkce, type Page, postForm, serveOauth, UserAgent } from '../../support/user-agent.ts';
import { newUser, PASSWORD } from '../../support/users.ts';

const CLIENT_ID = `https://${CLIENT_HOST}/oauth/client.json`;
const REGISTERED = 'http://127.0.0.1/callback';
/** The port is free on loopback. */
const CALLBACK = 'http://127.0.0.1:49152/callback';

const DOCUMENT = {
  client_id: CLIENT_ID,
  client_name: 'Agent',
  client_uri: `https://${CLIENT_HOST}/agent`,
  redirect_uris: [REGISTERED],
};

/** A server for agents, with a user and a scope of its own. */
async function serveAgents() {
  const opened: TestDeps = {
    ...(await openTestDeps('sqlite', { startsAt: Date.now() })),
    oauthClients: 'mcp',
  };
  const { deps, site } = await withDocuments(opened, answering(DOCUMENT));
  await call(deps, deps.adminKey, 'oauthScopes.create', {
    name: 'notes:read',
    description: 'Read your notes',
  });
  await newUser(deps, 'ada', { withPassword: true });
  const { url } = await serveOauth(deps);
  return { deps, site, url };
}

/** Signs in and allows what it is asked; answers where the application is sent, and the page of consent. */
async function allow(
  url: string,
  start: string,
  agent = new UserAgent(url),
): Promise<{ sentTo: string; asked: Page | null }> {
  let page = await agent.get(start);
  let asked: Page | null = null;
  for (let step = 0; step < 6; step++) {
    if (page.location?.startsWith(url)) page = await agent.get(page.location);
    else if (page.location !== null) return { sentTo: page.location, asked };
    else if (page.text.includes('name="password"'))
      page = await agent.submit(page, { name: 'ada', password: PASSWORD });
    else {
      asked = page;
      page = await agent.submit(page, { decision: 'allow' });
    }
  }
  throw new Error(`Nobody was sent back: ${page.status} ${page.text}`);
}

function authorizeUrl(
  url: string,
  clientId: string,
  challenge: string,
  more: Record<string, string> = {},
): string {
  const target = new URL('/oauth/authorize', url);
  const parameters = {
    client_id: clientId,
    redirect_uri: CALLBACK,
    response_type: 'code',
    code_challenge: challenge,
    code_challenge_method: 'S256',
    ...more,
  };
  for (const [name, value] of Object.entries(parameters)) target.searchParams.set(name, value);
  return target.href;
}

describe('a client whose id is the URL of its document', () => {
  it('is given tokens that its user allows, and stays from then on', async () => {
    const { deps, site, url } = await serveAgents();
    const { verifier, challenge } = newPkce();
    const { sentTo, asked } = await allow(
      url,
      authorizeUrl(url, CLIENT_ID, challenge, { scope: 'notes:read offline_access' }),
    );
    expect(asked?.text).toContain('Agent');
    expect(asked?.text).toContain('127.0.0.1:49152');
    expect(asked?.text).toContain(`What it is called is said by <strong>${new URL(CLIENT_ID).host}</strong>`);
    expect(asked?.text).toContain('Read your notes');
    expect(asked?.text).toContain(`Its home page is <code>${DOCUMENT.client_uri}</code>`);
    expect(asked?.text).not.toContain('<img');
    const tokens = await postForm(`${url}/oauth/token`, {
      grant_type: 'authorization_code',
      client_id: CLIENT_ID,
      code: new URL(sentTo).searchParams.get('code') ?? '',
      redirect_uri: CALLBACK,
      code_verifier: verifier,
    });
    expect(tokens).toMatchObject({ status: 200, body: { scope: 'notes:read offline_access' } });
    expect(site.asked).toHaveLength(1);
    const { db, tables } = deps.store.read;
    const [row] = await db.select().from(tables.oauthApplications);
    expect(row).toMatchObject({ client_id: CLIENT_ID, unused_until: null });
    const seen = eq(tables.events.type, 'oauth_application.first_seen');
    expect(await db.select().from(tables.events).where(seen)).toMatchObject([{ request_id: 'req_test' }]);
    const refreshed = await postForm(`${url}/oauth/token`, {
      grant_type: 'refresh_token',
      client_id: CLIENT_ID,
      refresh_token: String(tokens.body['refresh_token']),
    });
    expect(refreshed.status).toBe(200);
  });

  it('is given what is advertised when it asks, not when it came, until an administrator says otherwise', async () => {
    const { deps, url } = await serveAgents();
    const admin = (path: string, input: object) => call(deps, deps.adminKey, path, input);
    const agent = new UserAgent(url);
    const { verifier, challenge } = newPkce();
    const ask = async (scope: string) => {
      const { sentTo } = await allow(url, authorizeUrl(url, CLIENT_ID, challenge, { scope }), agent);
      return new URL(sentTo).searchParams;
    };
    expect((await ask('notes:read')).get('code')).toMatch(/^oac_/);
    await admin('oauthScopes.create', { name: 'notes:write', description: 'Write your notes' });
    const code = (await ask('notes:write')).get('code') ?? '';
    const proof = { client_id: CLIENT_ID, redirect_uri: CALLBACK, code_verifier: verifier };
    const tokenUrl = `${url}/oauth/token`;
    const { body } = await postForm(tokenUrl, { grant_type: 'authorization_code', code, ...proof });
    expect(body['scope']).toBe('notes:write offline_access');

    await admin('oauthScopes.update', { name: 'notes:write', advertised: false });
    expect((await ask('notes:write')).get('error')).toBe('invalid_scope');
    const refreshed = await postForm(tokenUrl, {
      grant_type: 'refresh_token',
      client_id: CLIENT_ID,
      refresh_token: String(body['refresh_token']),
    });
    expect(refreshed.body['scope']).toBe('offline_access');

    const [row] = await deps.store.read.db.select().from(deps.store.read.tables.oauthApplications);
    const set = (scopes: string[]) => admin('oauthApplications.update', { id: row?.id, scopes });
    await set(['notes:write']);
    expect((await ask('notes:write')).get('code')).toMatch(/^oac_/);
    expect((await ask('notes:read')).get('error')).toBe('invalid_scope');
    await set([]);
    expect((await ask('notes:read')).get('code')).toMatch(/^oac_/);
  });

  it('asks its user every time', async () => {
    const { url } = await serveAgents();
    const agent = new UserAgent(url);
    for (let time = 0; time < 2; time++) {
      const { asked } = await allow(url, authorizeUrl(url, CLIENT_ID, newPkce().challenge), agent);
      expect(asked).not.toBeNull();
    }
  });

  it('is refused on a page of ours where its document does not say so, and nobody is sent anywhere', async () => {
    const { site, url } = await serveAgents();
    site.answer = answering({ ...DOCUMENT, client_id: 'https://other.example/client.json' });
    const { challenge } = newPkce();
    const page = await new UserAgent(url).get(authorizeUrl(url, CLIENT_ID, challenge));
    expect(page).toMatchObject({ status: 400, location: null });
    site.answer = answering(DOCUMENT);
    const elsewhere = authorizeUrl(url, `https://other.example/client.json`, challenge);
    expect(await new UserAgent(url).get(elsewhere)).toMatchObject({ status: 400, location: null });
  });

  it('is refused with a redirect URI that its document does not have', async () => {
    const { url } = await serveAgents();
    for (const redirect_uri of [
      'https://evil.example/callback',
      'http://127.0.0.1:49152/other',
      'http://localhost/callback',
    ]) {
      const start = authorizeUrl(url, CLIENT_ID, newPkce().challenge, { redirect_uri });
      expect(await new UserAgent(url).get(start)).toMatchObject({ status: 400, location: null });
    }
  });

  it('may use neither a secret nor a grant without a user', async () => {
    const { url } = await serveAgents();
    await new UserAgent(url).get(authorizeUrl(url, CLIENT_ID, newPkce().challenge));
    const grant = { grant_type: 'client_credentials', client_id: CLIENT_ID };
    const alone = await postForm(`${url}/oauth/token`, grant);
    expect(alone).toMatchObject({ status: 400, body: { error: 'unauthorized_client' } });
    const secret = await postForm(`${url}/oauth/token`, { ...grant, client_secret: 'hunter2' });
    expect(secret).toMatchObject({ status: 401, body: { error: 'invalid_client' } });
  });
});

describe('openid-client', () => {
  const insecure = { execute: [openid.allowInsecureRequests] };

  it('registers itself, and walks through the code flow with what it was told', async () => {
    const { url } = await serveAgents();
    const config = await openid.dynamicClientRegistration(
      new URL(url),
      { client_name: 'Notes', redirect_uris: [REGISTERED], scope: 'openid unknown:scope' },
      undefined,
      { ...insecure, algorithm: 'oauth2' },
    );
    expect(config.clientMetadata()).toMatchObject({ token_endpoint_auth_method: 'none', scope: 'openid' });
    const verifier = openid.randomPKCECodeVerifier();
    const start = openid.buildAuthorizationUrl(config, {
      redirect_uri: CALLBACK,
      scope: 'openid notes:read',
      code_challenge: await openid.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      state: 'xyz',
    });
    const { sentTo } = await allow(url, start.href);
    const tokens = await openid.authorizationCodeGrant(config, new URL(sentTo), {
      pkceCodeVerifier: verifier,
      expectedState: 'xyz',
    });
    // More than it registered for, and to stay: its user allowed it.
    expect(tokens.scope).toBe('openid notes:read offline_access');
    expect(tokens.claims()?.sub).toMatch(/^user_/);
  });

  it('registers itself with an initial access token, by secret', async () => {
    const { deps, url } = await serveAgents();
    await call(deps, deps.adminKey, 'oauthSettings.update', { registration: 'initial_access_token' });
    const { token } = (await call(deps, deps.adminKey, 'initialAccessTokens.create', {
      name: 'partner',
    })) as {
      token: string;
    };
    const register = (initialAccessToken?: string) =>
      openid.dynamicClientRegistration(
        new URL(url),
        { redirect_uris: ['https://notes.example/cb'], token_endpoint_auth_method: 'client_secret_post' },
        undefined,
        { ...insecure, algorithm: 'oauth2', ...(initialAccessToken !== undefined && { initialAccessToken }) },
      );
    await expect(register()).rejects.toThrow();
    expect((await register(token)).clientMetadata().client_secret).toMatch(/^oas_/);
  });
});

describe('oauth4webapi', () => {
  it('finds nothing wrong with what registering answers', async () => {
    const { url } = await serveAgents();
    const insecure = { [oauth.allowInsecureRequests]: true };
    const issuer = new URL(url);
    const discovered = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure });
    const server = await oauth.processDiscoveryResponse(issuer, discovered);
    expect(server['client_id_metadata_document_supported']).toBe(true);
    const request = (metadata: object) => oauth.dynamicClientRegistrationRequest(server, metadata, insecure);
    const client = await oauth.processDynamicClientRegistrationResponse(
      await request({ redirect_uris: [REGISTERED] }),
    );
    expect(client['redirect_uris']).toEqual([REGISTERED]);
    await expect(
      request({ redirect_uris: ['http://evil.example'] }).then(
        oauth.processDynamicClientRegistrationResponse,
      ),
    ).rejects.toMatchObject({ error: 'invalid_redirect_uri' });
  });
});
