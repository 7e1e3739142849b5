import { expect, it } from 'vitest';
import { describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newApplication } from '../../support/oauth-tokens.ts';
import { basic, newPkce, postForm, serveOauth, UserAgent } from '../../support/user-agent.ts';
import { newUser, PASSWORD } from '../../support/users.ts';

const CALLBACK = 'https://notes.example.com/callback';

async function open(deps: TestDeps, input: Record<string, unknown> = {}) {
  const { row: application, secret } = await newApplication(deps, input);
  const user = await newUser(deps, 'ada', { withPassword: true });
  const { url } = await serveOauth(deps);
  return { application, secret, user, url };
}

function authorizeUrl(url: string, clientId: string, more: Record<string, string> = {}) {
  const target = new URL('/oauth/authorize', url);
  const parameters = {
    client_id: clientId,
    redirect_uri: CALLBACK,
    response_type: 'code',
    state: 'xyz',
    ...more,
  };
  for (const [name, value] of Object.entries(parameters)) target.searchParams.set(name, value);
  return target.href;
}

/** Signs in and consents; answers what the application is sent. */
async function walk(url: string, start: string, agent = new UserAgent(url)) {
  let page = await agent.get(start);
  for (let step = 0; step < 6; step++) {
    if (page.location?.startsWith(url)) page = await agent.get(page.location);
    else if (page.location !== null) return Object.fromEntries(new URL(page.location).searchParams);
    else if (page.text.includes('name="password"'))
      page = await agent.submit(page, { name: 'ada', password: PASSWORD });
    else page = await agent.submit(page, { decision: 'allow' });
  }
  throw new Error(`Nobody was sent back: ${page.status} ${page.text}`);
}

describeOnEachDialect('the code flow', (dialect) => {
  it('leads through signing in and consent to tokens that work, and are gone with their grant', async () => {
    const deps = await openTestDeps(dialect);
    const { application, secret, user, url } = await open(deps);
    const pkce = newPkce();
    const answer = await walk(
      url,
      authorizeUrl(url, application.client_id, {
        scope: 'openid offline_access notes:read',
        nonce: 'n-1',
        code_challenge: pkce.challenge,
        code_challenge_method: 'S256',
      }),
    );
    expect(answer).toEqual({ code: expect.stringMatching(/^oac_/), state: 'xyz', iss: url });
    const redeem = {
      grant_type: 'authorization_code',
      code: answer['code'] ?? '',
      redirect_uri: CALLBACK,
      code_verifier: pkce.verifier,
    };
    const client = basic(application.client_id, secret);
    const tokens = await postForm(`${url}/oauth/token`, redeem, client);
    expect(tokens).toMatchObject({
      status: 200,
      body: {
        access_token: expect.stringMatching(/^oat_/),
        token_type: 'Bearer',
        expires_in: 3600,
        refresh_token: expect.stringMatching(/^ort_/),
        scope: 'openid offline_access notes:read',
        id_token: expect.stringMatching(/^eyJ/),
      },
    });
    const accessToken = String(tokens.body['access_token']);
    const [header = '', payload = ''] = String(tokens.body['id_token']).split('.');
    const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
    expect(claims).toMatchObject({ iss: url, aud: application.client_id, sub: user.id, nonce: 'n-1' });
    expect(JSON.parse(Buffer.from(header, 'base64url').toString())).toMatchObject({ cat: 'countersign_id' });

    const userinfo = () =>
      fetch(`${url}/oauth/userinfo`, { headers: { Authorization: `Bearer ${accessToken}` } });
    expect(await (await userinfo()).json()).toEqual({ sub: user.id });
    const introspected = await postForm(`${url}/oauth/introspect`, { token: accessToken }, client);
    expect(introspected.body).toMatchObject({ active: true, sub: user.id, scope: tokens.body['scope'] });

    const refresh = { grant_type: 'refresh_token', refresh_token: String(tokens.body['refresh_token']) };
    const refreshed = await postForm(`${url}/oauth/token`, refresh, client);
    expect(refreshed).toMatchObject({ status: 200, body: { refresh_token: expect.stringMatching(/^ort_/) } });
    // The one of before again: it was stolen, or its successor was.
    expect(await postForm(`${url}/oauth/token`, refresh, client)).toMatchObject({
      status: 400,
      body: { error: 'invalid_grant' },
    });
    expect((await userinfo()).status).toBe(401);
    const successor = { grant_type: 'refresh_token', refresh_token: String(refreshed.body['refresh_token']) };
    expect((await postForm(`${url}/oauth/token`, successor, client)).body['error']).toBe('invalid_grant');
  });

  it('asks nobody twice for the same, and again for more', async () => {
    const deps = await openTestDeps(dialect);
    const { application, url } = await open(deps, { pkceRequired: false });
    const agent = new UserAgent(url);
    const ask = (scope: string) => authorizeUrl(url, application.client_id, { scope });
    await walk(url, ask('notes:read'), agent);
    const again = await agent.get(ask('notes:read'));
    expect(again.location).toMatch(`${CALLBACK}?code=oac_`);
    const more = await agent.get(ask('notes:read notes:write'));
    expect(more.location).toMatch(`${url}/oauth/consent?interaction=int_`);
  });

  it('has whoever a prompt says sign in or allow anew, although they did before', async () => {
    const deps = await openTestDeps(dialect);
    const { application, url } = await open(deps, { pkceRequired: false });
    const agent = new UserAgent(url);
    const ask = (prompt: string) =>
      authorizeUrl(url, application.client_id, { scope: 'notes:read', ...(prompt && { prompt }) });
    await walk(url, ask(''), agent);
    for (const [prompt, page] of [
      ['login', 'sign-in'],
      ['select_account', 'sign-in'],
      ['consent', 'consent'],
    ] as const) {
      expect((await agent.get(ask(''))).location).toContain('code=oac_');
      expect((await agent.get(ask(prompt))).location).toMatch(`${url}/oauth/${page}?interaction=int_`);
      expect((await walk(url, ask(prompt), agent))['code']).toMatch(/^oac_/);
    }
  });

  it('asks again for another redirect URI, and for another resource', async () => {
    const deps = await openTestDeps(dialect);
    const other = 'https://other.example.com/callback';
    const { application, url } = await open(deps, { pkceRequired: false, redirectUris: [CALLBACK, other] });
    const agent = new UserAgent(url);
    const resource = 'https://api.example.com/';
    const ask = (more: Record<string, string>) =>
      authorizeUrl(url, application.client_id, { scope: 'notes:read', ...more });
    const terms = [{}, { redirect_uri: other }, { resource }, { redirect_uri: other, resource }];
    for (const more of terms) {
      expect((await agent.get(ask({ ...more, prompt: 'none' }))).location).toMatch(
        /error=(login|consent)_required/,
      );
      await walk(url, ask(more), agent);
      expect((await agent.get(ask({ ...more, prompt: 'none' }))).location).toContain('code=oac_');
    }
  });

  it('tells the application that the user did not allow it', async () => {
    const deps = await openTestDeps(dialect);
    const { application, url } = await open(deps, { pkceRequired: false });
    const agent = new UserAgent(url);
    let page = await agent.get(authorizeUrl(url, application.client_id));
    page = await agent.get(page.location ?? '');
    page = await agent.submit(page, { name: 'ada', password: PASSWORD });
    page = await agent.get(page.location ?? '');
    expect(page.text).toContain('notes.example.com');
    page = await agent.submit(page, { decision: 'deny' });
    expect(Object.fromEntries(new URL(page.location ?? '').searchParams)).toMatchObject({
      error: 'access_denied',
      state: 'xyz',
      iss: url,
    });
  });

  it('answers client credentials of an application and of a machine', async () => {
    const deps = await openTestDeps(dialect);
    const { application, secret, url } = await open(deps);
    const answered = await postForm(
      `${url}/oauth/token`,
      { grant_type: 'client_credentials', scope: 'notes:read' },
      basic(application.client_id, secret),
    );
    expect(answered).toMatchObject({ status: 200, body: { token_type: 'Bearer', scope: 'notes:read' } });
  });
});
