import { eq } from 'drizzle-orm';
import { describe, expect, it } from 'vitest';
import type { Store } from '../../../db/store.ts';
import { PREFIXES } from '../../../server/crypto/format.ts';
import { newValue } from '../../../server/crypto/hashing.ts';
import { updateOauthApplication } from '../../../server/domain/oauth-applications.ts';
import { authorizeSilently } from '../../../server/domain/oauth-consents.ts';
import {
  createOauthScope,
  createOauthScopeInput,
  deleteOauthScope,
} from '../../../server/domain/oauth-scopes.ts';
import type { StatusIndexes } from '../../../server/domain/status-indexes.ts';
import { setSubjectEnabled } from '../../../server/domain/subjects.ts';
import { updateUser } from '../../../server/domain/users.ts';
import { call } from '../../support/calls.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { allow, newMachine } from '../../support/machines.ts';
import { newApplication } from '../../support/oauth-tokens.ts';
import { basic, newPkce, postForm, serveOauth } from '../../support/user-agent.ts';
import { newUser } from '../../support/users.ts';

const CALLBACK = 'https://notes.example.com/callback';
const admin = callerWith('admin');

async function open(deps: TestDeps, input: Record<string, unknown> = {}) {
  const { row: application, secret } = await newApplication(deps, input);
  const { url } = await serveOauth(deps);
  const user = await newUser(deps);
  const pkce = newPkce();
  const newCode = (more: Partial<Parameters<typeof authorizeSilently>[1]> = {}) =>
    authorizeSilently(
      deps,
      {
        application,
        subject: user.id,
        claims: {},
        authTime: deps.clock.now,
        organizationId: null,
        scopes: ['openid', 'offline_access', 'notes:read'],
        resources: [],
        nonce: null,
        redirectUri: CALLBACK,
        redirectUriGiven: true,
        codeChallenge: pkce.challenge,
        ...more,
      },
      null,
    );
  const ask = (
    fields: Record<string, string | string[]>,
    headers: Record<string, string> = basic(application.client_id, secret),
  ) => postForm(`${url}/oauth/token`, fields, headers);
  const redeem = (code: string, more: Record<string, string> = {}) =>
    ask({
      grant_type: 'authorization_code',
      code,
      redirect_uri: CALLBACK,
      code_verifier: pkce.verifier,
      ...more,
    });
  return { application, secret, url, user, newCode, ask, redeem };
}

const isActive = async (url: string, token: unknown, client: Record<string, string>) =>
  (await postForm(`${url}/oauth/introspect`, { token: String(token) }, client)).body['active'];

describeOnEachDialect('the token endpoint', (dialect) => {
  it('knows a client by Basic or by the body, never by both, and tells nobody why it does not', async () => {
    const deps = await openTestDeps(dialect);
    const { application, secret, url } = await open(deps);
    const token = (fields: Record<string, string>, headers = {}) =>
      postForm(`${url}/oauth/token`, { grant_type: 'client_credentials', ...fields }, headers);
    const id = application.client_id;
    const inBody = { client_id: id, client_secret: secret };
    expect((await token({}, basic(id, secret))).status).toBe(200);
    expect((await token(inBody)).status).toBe(200);
    expect((await token({ client_id: id }, basic(id, secret))).status).toBe(200);
    expect((await token(inBody, basic(id, secret))).body['error']).toBe('invalid_request');
    const another = await token({ client_id: 'oauthapp_other' }, basic(id, secret));
    expect([another.status, another.body['error']]).toEqual([400, 'invalid_request']);
    const refusals = await Promise.all([
      token({}, basic(id, 'wrong')),
      token({}, basic('oauthapp_unknown', secret)),
      token({ client_id: id }),
      token({ client_id: id, client_secret: `${secret.slice(0, -1)}!` }),
    ]);
    const [first] = refusals;
    for (const refusal of refusals) {
      expect(refusal.status).toBe(401);
      expect(refusal.body).toEqual(first?.body);
      expect(refusal.body['error']).toBe('invalid_client');
      expect(refusal.headers.get('www-authenticate')).toMatch(/^Basic /);
    }
    expect((await token({})).body['error']).toBe('invalid_client');
  });

  it('takes no way to prove oneself but those it advertises, also beside one of them', async () => {
    const deps = await openTestDeps(dialect);
    const { application, secret, url, ask } = await open(deps);
    const metadata = await (await fetch(`${url}/.well-known/oauth-authorization-server`)).json();
    const advertised = ['client_secret_basic', 'client_secret_post', 'none'];
    expect(metadata).toMatchObject({
      token_endpoint_auth_methods_supported: advertised,
      introspection_endpoint_auth_methods_supported: advertised.slice(0, 2),
    });
    const { client_id } = application;
    const form = { grant_type: 'client_credentials', client_assertion: 'a.b.c' };
    const wanted = `Wanted a client by one of ${advertised.join(', ')}, found 'private_key_jwt'`;
    for (const refused of [
      await ask(form),
      await ask({ ...form, client_id }, {}),
      await ask({ ...form, client_id, client_secret: secret }, {}),
    ])
      expect(refused).toMatchObject({
        status: 401,
        body: { error: 'invalid_client', error_description: wanted },
      });
  });

  it('answers refusals in the terms of RFC 6749', async () => {
    const deps = await openTestDeps(dialect);
    const { ask, url } = await open(deps, { audiences: ['https://api.example.com/'] });
    const codeOf = async (fields: Record<string, string | string[]>) => (await ask(fields)).body['error'];
    expect(await codeOf({})).toBe('invalid_request');
    expect(await codeOf({ grant_type: 'password' })).toBe('unsupported_grant_type');
    expect(await codeOf({ grant_type: 'constructor' })).toBe('unsupported_grant_type');
    expect(await codeOf({ grant_type: ['client_credentials', 'client_credentials'] })).toBe(
      'invalid_request',
    );
    const credentials = { grant_type: 'client_credentials' };
    expect(await codeOf({ ...credentials, scope: 'notes:read  notes:write' })).toBe('invalid_scope');
    expect(await codeOf({ ...credentials, scope: 'nobody:defined' })).toBe('invalid_scope');
    expect(await codeOf({ ...credentials, scope: 'openid' })).toBe('invalid_scope');
    expect(await codeOf({ ...credentials, resource: 'https://other.example.com/' })).toBe('invalid_target');
    expect(await codeOf({ ...credentials, resource: 'not a URL' })).toBe('invalid_target');
    expect(await codeOf({ grant_type: 'authorization_code' })).toBe('invalid_request');
    expect(await codeOf({ grant_type: 'refresh_token', refresh_token: 'ort_x' })).toBe('invalid_grant');
    const got = await fetch(`${url}/oauth/token`);
    expect([got.status, got.headers.get('allow')]).toEqual([405, 'POST']);
    const asJson = await fetch(`${url}/oauth/token`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: '{}',
    });
    expect([asJson.status, await asJson.json()]).toMatchObject([400, { error: 'invalid_request' }]);
    const huge = await fetch(`${url}/oauth/token`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
      body: 'x'.repeat(20_000),
    });
    expect(huge.status).toBe(413);
  });

  it('gives a machine an M2M token for the machines it may call, narrowed by resource', async () => {
    const deps = await openTestDeps(dialect);
    const { url } = await open(deps);
    const from = await newMachine(deps, 'from');
    const [to, other] = [await newMachine(deps, 'to'), await newMachine(deps, 'other')];
    await allow(deps, from.id, to.id, ['read']);
    await allow(deps, from.id, other.id, ['read']);
    const token = (fields: Record<string, string>) =>
      postForm(
        `${url}/oauth/token`,
        { grant_type: 'client_credentials', ...fields },
        basic(from.id, from.secret),
      );
    expect(await token({ resource: to.id, scope: 'read' })).toMatchObject({
      status: 200,
      body: { access_token: expect.stringMatching(/^mt_/), token_type: 'Bearer', scope: 'read' },
    });
    expect((await token({ token_format: 'jwt' })).body['access_token']).toMatch(/^eyJ/);
    expect((await token({ resource: from.id })).body['error']).toBe('invalid_target');
    expect((await token({ resource: 'https://api.example.com/' })).body['error']).toBe('invalid_target');
    expect((await token({ scope: 'write' })).body['error']).toBe('invalid_scope');
    expect((await token({ grant_type: 'refresh_token', refresh_token: 'x' })).body['error']).toBe(
      'unauthorized_client',
    );
    const another = await postForm(
      `${url}/oauth/token`,
      { grant_type: 'client_credentials' },
      basic(to.id, from.secret),
    );
    expect(another.body['error']).toBe('invalid_client');
  });

  it('redeems a code once; a second use takes what the first was given', async () => {
    const deps = await openTestDeps(dialect);
    const { application, secret, url, newCode, redeem } = await open(deps);
    const client = basic(application.client_id, secret);
    const code = await newCode();
    const first = await redeem(code);
    expect(first.status).toBe(200);
    expect(await isActive(url, first.body['access_token'], client)).toBe(true);
    expect((await redeem(code)).body['error']).toBe('invalid_grant');
    expect(await isActive(url, first.body['access_token'], client)).toBe(false);
    expect(await isActive(url, first.body['refresh_token'], client)).toBe(false);
  });

  it('redeems a code only with its redirect URI, its verifier, in its time, for its application', async () => {
    const deps = await openTestDeps(dialect);
    const { newCode, redeem, ask } = await open(deps);
    const errorOf = async (answer: ReturnType<typeof redeem>) => (await answer).body['error'];
    const code = await newCode();
    expect(await errorOf(redeem(code, { redirect_uri: `${CALLBACK}/` }))).toBe('invalid_grant');
    expect(await errorOf(redeem(code, { code_verifier: newPkce().verifier }))).toBe('invalid_grant');
    expect(await errorOf(ask({ grant_type: 'authorization_code', code, redirect_uri: CALLBACK }))).toBe(
      'invalid_grant',
    );
    const other = await newApplication(deps);
    const stolen = {
      grant_type: 'authorization_code',
      code,
      redirect_uri: CALLBACK,
      code_verifier: 'x'.repeat(43),
    };
    expect(await errorOf(ask(stolen, basic(other.row.client_id, other.secret)))).toBe('invalid_grant');
    // A verifier for a code without a challenge is a downgrade.
    expect(await errorOf(redeem(await newCode({ codeChallenge: null })))).toBe('invalid_grant');
    expect(await errorOf(redeem(code, { resource: 'https://api.example.com/' }))).toBe('invalid_target');
    deps.clock.now += 60_000;
    expect(await errorOf(redeem(code))).toBe('invalid_grant');
    expect((await redeem(await newCode())).status).toBe(200);
  });

  it('a subject that is disabled is given nothing, by a code or a refresh token of before, until it is enabled', async () => {
    const deps = await openTestDeps(dialect);
    const { application, secret, url, user, newCode, redeem, ask } = await open(deps);
    const client = basic(application.client_id, secret);
    const code = await newCode();
    await setSubjectEnabled(deps, admin, user, false);
    expect((await redeem(code)).body['error']).toBe('invalid_grant');
    await setSubjectEnabled(deps, admin, user, true);
    const { body } = await redeem(code);
    const refresh = { grant_type: 'refresh_token', refresh_token: String(body['refresh_token']) };
    await setSubjectEnabled(deps, admin, user, false);
    expect(await isActive(url, body['refresh_token'], client)).toBe(false);
    expect((await ask(refresh)).body['error']).toBe('invalid_grant');
    await setSubjectEnabled(deps, admin, user, true);
    expect((await ask(refresh)).status).toBe(200);
  });

  it('tells of a user what is so now, and of an address that is theirs no more nothing', async () => {
    const deps = await openTestDeps(dialect);
    const scopes = ['openid', 'offline_access', 'profile', 'email'];
    const { url, user, newCode, redeem, ask } = await open(deps, { scopes });
    const said = { given_name: 'Ada', email: 'old@example.com', email_verified: true };
    const told = async ({ body }: Awaited<ReturnType<typeof redeem>>) => {
      const payload = String(body['id_token']).split('.')[1] ?? '';
      const { given_name, email, email_verified } = JSON.parse(Buffer.from(payload, 'base64url').toString());
      const headers = { Authorization: `Bearer ${body['access_token']}` };
      const answer = (await (await fetch(`${url}/oauth/userinfo`, { headers })).json()) as object;
      expect(answer).toMatchObject(JSON.parse(JSON.stringify({ given_name, email, email_verified })));
      expect('email' in answer).toBe(email !== undefined);
      return { given_name, email, email_verified };
    };
    await updateUser(deps, admin, { id: user.id, email: 'new@example.com' });
    const first = await redeem(await newCode({ scopes, claims: said }));
    expect(await told(first)).toEqual({ ...said, email: 'new@example.com', email_verified: false });
    await updateUser(deps, admin, { id: user.id, email: null });
    const second = await ask({
      grant_type: 'refresh_token',
      refresh_token: String(first.body['refresh_token']),
    });
    expect(await told(second)).toEqual({ given_name: 'Ada' });
  });

  it('a user whose row a writer to the database changed is given and told nothing', async () => {
    const deps = await openTestDeps(dialect);
    const { url, user, newCode, redeem, ask } = await open(deps);
    const { body } = await redeem(await newCode());
    const code = await newCode();
    await deps.store.tx(({ db, tables: { users: u } }) =>
      db.update(u).set({ email: 'boss@example.com', email_verified: true }).where(eq(u.id, user.id)),
    );
    const refresh = { grant_type: 'refresh_token', refresh_token: String(body['refresh_token']) };
    expect((await redeem(code)).body['error']).toBe('invalid_grant');
    expect((await ask(refresh)).body['error']).toBe('invalid_grant');
    const headers = { Authorization: `Bearer ${body['access_token']}` };
    expect((await fetch(`${url}/oauth/userinfo`, { headers })).status).toBe(401);
  });

  it('userinfo says what was wrong with a token, and nothing of none', async () => {
    const deps = await openTestDeps(dialect);
    const { url, newCode, redeem } = await open(deps);
    const { body } = await redeem(await newCode({ scopes: ['notes:read'] }));
    const challenged = async (headers: Record<string, string>) => {
      const answer = await fetch(`${url}/oauth/userinfo`, { headers });
      return [answer.status, answer.headers.get('www-authenticate')];
    };
    expect(await challenged({})).toEqual([401, 'Bearer realm="countersign"']);
    expect(await challenged({ Authorization: 'Bearer nothing' })).toEqual([
      401,
      'Bearer realm="countersign", error="invalid_token"',
    ]);
    expect(await challenged({ Authorization: `Bearer ${body['access_token']}` })).toEqual([
      403,
      'Bearer realm="countersign", error="insufficient_scope", scope="openid"',
    ]);
  });

  it('refreshes within what was granted, and leaves the rest out without a word', async () => {
    const deps = await openTestDeps(dialect);
    const { newCode, redeem, ask } = await open(deps);
    const { body } = await redeem(await newCode());
    const narrowed = await ask({
      grant_type: 'refresh_token',
      refresh_token: String(body['refresh_token']),
      scope: 'notes:read notes:write',
    });
    expect(narrowed.body['scope']).toBe('notes:read');
    // What the refresh token was granted stays whole.
    const all = await ask({
      grant_type: 'refresh_token',
      refresh_token: String(narrowed.body['refresh_token']),
    });
    expect(all.body['scope']).toBe('openid offline_access notes:read');
    const none = await ask({
      grant_type: 'refresh_token',
      refresh_token: String(all.body['refresh_token']),
      scope: 'notes:write',
    });
    expect(none.body['error']).toBe('invalid_scope');
    deps.clock.now += 91 * 86_400_000;
    const late = { grant_type: 'refresh_token', refresh_token: String(all.body['refresh_token']) };
    expect((await ask(late)).body['error']).toBe('invalid_grant');
  });

  it('gives nobody a scope that was deleted, nor one that the application may have no more', async () => {
    const deps = await openTestDeps(dialect);
    const { application, newCode, redeem, ask } = await open(deps);
    const refresh = async ({ body }: Awaited<ReturnType<typeof redeem>>) =>
      ask({ grant_type: 'refresh_token', refresh_token: String(body['refresh_token']) });
    const scopes = ['openid', 'offline_access', 'notes:read', 'notes:write'];
    const code = await newCode({ scopes });
    const before = await redeem(await newCode({ scopes }));
    await deleteOauthScope(deps, admin, { name: 'notes:write' });
    expect((await redeem(code)).body['scope']).toBe('openid offline_access notes:read');
    const after = await refresh(before);
    expect(after.body['scope']).toBe('openid offline_access notes:read');
    // Another of that name is not what the user allowed.
    await createOauthScope(
      deps,
      admin,
      createOauthScopeInput.parse({ name: 'notes:write', description: 'x' }),
    );
    const last = await refresh(after);
    expect(last.body['scope']).toBe('openid offline_access notes:read');
    await updateOauthApplication(deps, admin, { id: application.id, scopes: ['openid', 'offline_access'] });
    expect((await redeem(await newCode({ scopes }))).body['scope']).toBe('openid offline_access');
    expect((await refresh(last)).body['scope']).toBe('openid offline_access');
  });

  it('gives no token for a resource that the application’s may be for no more, nor one for all instead', async () => {
    const deps = await openTestDeps(dialect);
    const { application, newCode, redeem, ask } = await open(deps, { accessTokenFormat: 'jwt' });
    const [api, files] = ['https://api.example.com/', 'https://files.example.com/'];
    const audienceOf = ({ body }: Awaited<ReturnType<typeof redeem>>) =>
      JSON.parse(Buffer.from(String(body['access_token']).split('.')[1] ?? '', 'base64url').toString())[
        'aud'
      ];
    const allow = (audiences: string[]) =>
      updateOauthApplication(deps, admin, { id: application.id, audiences });
    const both = await redeem(await newCode({ resources: [api, files] }));
    const code = await newCode({ resources: [api, files] });
    await allow([api]);
    const refresh = { grant_type: 'refresh_token', refresh_token: String(both.body['refresh_token']) };
    expect((await ask({ ...refresh, resource: files })).body['error']).toBe('invalid_target');
    expect((await redeem(code, { resource: files })).body['error']).toBe('invalid_target');
    expect(audienceOf(await redeem(code))).toBe(api);
    await allow(['https://other.example.com/']);
    expect((await ask(refresh)).body['error']).toBe('invalid_target');
    await allow([api]);
    expect(audienceOf(await ask(refresh))).toBe(api);
  });

  it('a used refresh token is noticed whatever it is used for', async () => {
    const deps = await openTestDeps(dialect);
    const { application, secret, url, newCode, redeem, ask } = await open(deps);
    const { body } = await redeem(await newCode());
    const refresh = { grant_type: 'refresh_token', refresh_token: String(body['refresh_token']) };
    const next = await ask(refresh);
    expect((await ask({ ...refresh, scope: 'nothing' })).body['error']).toBe('invalid_grant');
    const client = basic(application.client_id, secret);
    expect(await isActive(url, next.body['refresh_token'], client)).toBe(false);
  });

  it('binds tokens to the resources that were asked for, and to none otherwise', async () => {
    const deps = await openTestDeps(dialect);
    const { application, secret, url, newCode, redeem, ask } = await open(deps, { accessTokenFormat: 'jwt' });
    const resources = ['https://api.example.com/', 'https://files.example.com/'];
    const claimsOf = (token: unknown) =>
      JSON.parse(Buffer.from(String(token).split('.')[1] ?? '', 'base64url').toString());
    const both = await redeem(await newCode({ resources }));
    expect(claimsOf(both.body['access_token'])).toMatchObject({
      aud: resources,
      client_id: application.client_id,
    });
    const one = await redeem(await newCode({ resources }), { resource: resources[0] ?? '' });
    expect(claimsOf(one.body['access_token'])['aud']).toBe(resources[0]);
    const free = await ask({ grant_type: 'client_credentials' });
    expect(claimsOf(free.body['access_token'])).not.toHaveProperty('aud');
    expect(await isActive(url, free.body['access_token'], basic(application.client_id, secret))).toBe(true);
  });

  it('takes a resource with a slash for the one without, wherever it is named', async () => {
    const deps = await openTestDeps(dialect);
    const [bare, slashed] = ['https://api.example.com', 'https://api.example.com/'];
    await call(deps, deps.adminKey, 'oauthScopes.create', {
      name: 'api:read',
      description: 'Read',
      resource: bare,
    });
    const { newCode, redeem, ask } = await open(deps, { audiences: [bare], scopes: ['openid', 'api:read'] });
    const itself = { grant_type: 'client_credentials', scope: 'api:read', resource: slashed };
    expect(await ask(itself)).toMatchObject({ status: 200, body: { scope: 'api:read' } });
    const code = await newCode({ resources: [bare] });
    expect((await redeem(code, { resource: slashed })).status).toBe(200);
    const another = await newCode({ resources: [bare] });
    expect((await redeem(another, { resource: `${slashed}v1` })).body['error']).toBe('invalid_target');
  });

  it('takes neither the writer nor a place in a status list for what was made up', async () => {
    const opened = await openTestDeps(dialect);
    let taken: string[] = [];
    const tx: Store['tx'] = (work, lane) => {
      taken.push(`the writer, ${lane}`);
      return opened.store.tx(work, lane);
    };
    const statusIndexes: StatusIndexes = {
      take(block) {
        taken.push('a status index');
        return opened.statusIndexes.take(block);
      },
    };
    const deps: TestDeps = { ...opened, store: { ...opened.store, tx }, statusIndexes };
    const { url, newCode, redeem, ask, application, secret } = await open(deps, { accessTokenFormat: 'jwt' });
    const other = await newApplication(deps);
    const anothers = await newCode({ application: other.row });
    const { body } = await redeem(await newCode());
    expect(taken).toContain('a status index');
    taken = [];
    const [code, refreshToken] = [
      newValue(PREFIXES.authorizationCode).value,
      newValue(PREFIXES.refreshToken).value,
    ];
    for (const each of [code, anothers]) expect((await redeem(each)).body['error']).toBe('invalid_grant');
    const refresh = await ask({ grant_type: 'refresh_token', refresh_token: refreshToken });
    expect(refresh.body['error']).toBe('invalid_grant');
    const revoke = (token: string, client: ReturnType<typeof basic>) =>
      postForm(`${url}/oauth/revoke`, { token }, client);
    const [own, others] = [basic(application.client_id, secret), basic(other.row.client_id, other.secret)];
    for (const token of [refreshToken, code]) expect((await revoke(token, own)).status).toBe(200);
    for (const kind of ['access_token', 'refresh_token'])
      expect((await revoke(String(body[kind]), others)).status).toBe(200);
    expect(taken).toEqual([]);
  });

  it('limits how much that is nothing one network may present to be revoked, and nothing else', async () => {
    const deps = await openTestDeps(dialect);
    const { url, newCode, redeem, application, secret } = await open(deps);
    const client = basic(application.client_id, secret);
    const { body } = await redeem(await newCode());
    const revoke = (token: unknown) => postForm(`${url}/oauth/revoke`, { token: String(token) }, client);
    for (let i = 0; i < 60; i++) expect((await revoke(`nothing ${i}`)).status).toBe(200);
    const refused = await revoke(newValue(PREFIXES.refreshToken).value);
    expect(refused).toMatchObject({ status: 429, body: { error: 'temporarily_unavailable' } });
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    for (const kind of ['access_token', 'refresh_token']) expect((await revoke(body[kind])).status).toBe(200);
    expect(await isActive(url, body['access_token'], client)).toBe(false);
    deps.clock.now += 60_000;
    expect((await revoke('nothing')).status).toBe(200);
  });

  it('tells whoever may verify of a token when it was issued, as it tells its application', async () => {
    const deps = await openTestDeps(dialect);
    const { url, newCode, redeem, application, secret } = await open(deps);
    const [from, to] = [await newMachine(deps, 'from'), await newMachine(deps, 'to')];
    await allow(deps, from.id, to.id);
    const { body: mint } = await postForm(
      `${url}/oauth/token`,
      { grant_type: 'client_credentials' },
      basic(from.id, from.secret),
    );
    const { body } = await redeem(await newCode());
    const introspect = async (token: unknown, by: Record<string, string>) =>
      (await postForm(`${url}/oauth/introspect`, { token: String(token) }, by)).body;
    const admin = { Authorization: `Bearer ${deps.adminKey}` };
    const issuedAt = Math.floor(deps.clock.now / 1000);
    const issued = { active: true, iat: issuedAt, nbf: issuedAt };
    const own = await introspect(body['access_token'], basic(application.client_id, secret));
    expect(own).toMatchObject(issued);
    expect(await introspect(body['access_token'], admin)).toEqual(own);
    expect(await introspect(mint['access_token'], basic(to.id, to.secret))).toMatchObject(issued);
  });

  it('revokes what is the application’s own, answers the same for all else, and an object', async () => {
    const deps = await openTestDeps(dialect);
    const { application, secret, url, newCode, redeem, ask } = await open(deps);
    const client = basic(application.client_id, secret);
    const revoke = (token: unknown, by = client) =>
      postForm(`${url}/oauth/revoke`, { token: String(token) }, by);
    const { body } = await redeem(await newCode());
    const other = await newApplication(deps);
    const stranger = basic(other.row.client_id, other.secret);
    for (const value of [body['access_token'], body['refresh_token'], 'garbage'])
      expect(await revoke(value, stranger)).toMatchObject({ status: 200, body: {} });
    expect(await isActive(url, body['access_token'], client)).toBe(true);
    expect(await isActive(url, body['access_token'], stranger)).toBe(false);
    await revoke(body['access_token']);
    expect(await isActive(url, body['access_token'], client)).toBe(false);
    const next = await ask({ grant_type: 'refresh_token', refresh_token: String(body['refresh_token']) });
    expect(next.status).toBe(200);
    await revoke(next.body['refresh_token']);
    expect(await isActive(url, next.body['access_token'], client)).toBe(false);
  });
});

describe('pages of every origin', () => {
  it('may ask for tokens, revoke them and read userinfo, and are told why not; no other endpoint of these', async () => {
    const deps = await openTestDeps('sqlite');
    const { url, ask } = await open(deps);
    const asked = async (path: string, init: RequestInit = {}) => {
      const { status, headers } = await fetch(url + path, { method: 'POST', ...init });
      return [status, headers.get('access-control-allow-origin')];
    };
    const preflight = { method: 'OPTIONS', headers: { origin: 'https://app.example.com' } };
    const huge = new URLSearchParams({ token: 'x'.repeat(30_000) });
    for (const path of ['/oauth/token', '/oauth/revoke', '/oauth/token/revoke', '/oauth/userinfo']) {
      const { status, headers } = await fetch(url + path, preflight);
      expect([path, status, headers.get('access-control-allow-origin')]).toEqual([path, 204, '*']);
      expect(headers.get('access-control-allow-methods')).toContain('POST');
      expect(headers.get('access-control-allow-headers')).toMatch(/authorization/i);
      expect([path, await asked(path)]).toEqual([path, [401, '*']]);
      expect([path, await asked(path, { body: huge })]).toEqual([path, [413, '*']]);
    }
    const { status, headers } = await ask({ grant_type: 'client_credentials' });
    expect([status, headers.get('access-control-allow-origin')]).toEqual([200, '*']);
    for (const path of ['/oauth/introspect', '/oauth/authorize', '/oauth/consent'])
      expect([path, await asked(path, preflight)]).toEqual([path, [405, null]]);
  });
});
