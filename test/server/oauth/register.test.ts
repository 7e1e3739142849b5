import { eq } from 'drizzle-orm';
import { describe, expect, it } from 'vitest';
import { PREFIXES } from '../../../server/crypto/format.ts';
import { newValue } from '../../../server/crypto/hashing.ts';
import { listEvents } from '../../../server/domain/events.ts';
import { insertGrant } from '../../../server/domain/oauth-grants.ts';
import { purgeUnusedApplications } from '../../../server/domain/oauth-registrations.ts';
import { call } from '../../support/calls.ts';
import { describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { serveProcedures } from '../../support/procedures.ts';
import { type Answer, send } from '../../support/server.ts';

const REDIRECT_URI = 'https://notes.example/callback';
const DAY_MS = 24 * 3_600_000;

interface Served {
  deps: TestDeps;
  register(metadata: unknown, token?: string): Promise<Answer>;
}

async function serve(
  { dialect = 'sqlite', ...over }: Partial<TestDeps> & { dialect?: 'sqlite' | 'postgres' } = {},
  registration?: 'off' | 'initial_access_token' | 'open',
): Promise<Served> {
  const deps: TestDeps = { ...(await openTestDeps(dialect)), ...over };
  if (registration) await call(deps, deps.adminKey, 'oauthSettings.update', { registration });
  const { url } = await serveProcedures(deps);
  return {
    deps,
    register: (metadata, token) =>
      send(`${url}/oauth/register`, {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
        },
        body: typeof metadata === 'string' ? metadata : JSON.stringify(metadata),
      }),
  };
}

const newToken = async (deps: TestDeps, input: object = {}) =>
  (await call(deps, deps.adminKey, 'initialAccessTokens.create', { name: 'partner', ...input })) as {
    id: string;
    token: string;
  };

const applications = ({ store: { read } }: TestDeps) => read.db.select().from(read.tables.oauthApplications);

const lastEvent = async (deps: TestDeps) => {
  const { data } = await listEvents(deps, { after: 0, newestFirst: true, limit: 1 });
  return data[0];
};

describe('who may register', () => {
  it('is nobody, unless somebody said otherwise', async () => {
    const { deps, register } = await serve();
    const { token } = await newToken(deps);
    for (const presented of [undefined, token])
      expect(await register({ redirect_uris: [REDIRECT_URI] }, presented)).toMatchObject({
        status: 403,
        body: { error: 'access_denied' },
      });
    expect(await applications(deps)).toEqual([]);
  });

  it('is everybody with COUNTERSIGN_OAUTH_CLIENTS=mcp, unless a setting says otherwise', async () => {
    const { deps, register } = await serve({ oauthClients: 'mcp' });
    expect((await register({ redirect_uris: [REDIRECT_URI] })).status).toBe(201);
    await call(deps, deps.adminKey, 'oauthSettings.update', { registration: 'off' });
    expect((await register({ redirect_uris: [REDIRECT_URI] })).status).toBe(403);
    await call(deps, deps.adminKey, 'oauthSettings.update', { registration: null });
    expect((await register({ redirect_uris: [REDIRECT_URI] })).status).toBe(201);
  });

  it('is who has an initial access token, as often as it says and until it expires', async () => {
    const { deps, register } = await serve({}, 'initial_access_token');
    const metadata = { redirect_uris: [REDIRECT_URI], client_name: 'Notes' };
    const { id, token } = await newToken(deps, { uses: 2 });
    const refused = { status: 401, body: { error: 'invalid_token' } };

    expect(await register(metadata)).toMatchObject(refused);
    expect(await register(metadata, newValue(PREFIXES.initialAccessToken).value)).toMatchObject(refused);
    expect(await register(metadata, deps.adminKey)).toMatchObject(refused);
    expect((await register(metadata, token)).status).toBe(201);
    expect((await lastEvent(deps))?.data).toMatchObject({ initialAccessTokenId: id });
    expect((await register(metadata, token)).status).toBe(201);
    const spent = await register(metadata, token);
    expect(spent).toMatchObject(refused);
    expect(spent.headers.get('www-authenticate')).toMatch(/^Bearer /);

    const expiring = await newToken(deps, { ttlSeconds: 60 });
    deps.clock.now += 60_000;
    expect(await register(metadata, expiring.token)).toMatchObject(refused);
    const revoked = await newToken(deps);
    await call(deps, deps.adminKey, 'initialAccessTokens.revoke', { id: revoked.id });
    expect(await register(metadata, revoked.token)).toMatchObject(refused);
    expect(await applications(deps)).toHaveLength(2);
  });

  it('is nobody with a token that a writer to the database made or prolonged', async () => {
    const { deps, register } = await serve({}, 'initial_access_token');
    const { id, token } = await newToken(deps, { ttlSeconds: 60 });
    const { initialAccessTokens: t } = deps.store.read.tables;
    await deps.store.tx(({ db }) =>
      db
        .update(t)
        .set({ expires_at: deps.clock.now + DAY_MS })
        .where(eq(t.id, id)),
    );
    expect((await register({ redirect_uris: [REDIRECT_URI] }, token)).status).toBe(401);
  });
});

describeOnEachDialect('an initial access token', (dialect) => {
  it('of one use registers one application, however many come with it at once', async () => {
    const { deps, register } = await serve({ dialect }, 'initial_access_token');
    const { token } = await newToken(deps);
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => register({ redirect_uris: [REDIRECT_URI] }, token)),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([201, ...Array(7).fill(401)]);
    expect(await applications(deps)).toHaveLength(1);
  });
});

describe('a registration', () => {
  it('is answered as RFC 7591 has it, with what was registered and not what was asked for', async () => {
    const { deps, register } = await serve({}, 'open');
    await call(deps, deps.adminKey, 'oauthScopes.create', { name: 'notes:read', description: 'Read' });
    const { status, headers, body } = await register({
      redirect_uris: [REDIRECT_URI, 'http://127.0.0.1/cb', 'com.example.notes:/cb'],
      client_name: 'Notes',
      client_uri: 'https://notes.example',
      logo_uri: 'https://notes.example/logo.svg',
      grant_types: ['authorization_code', 'refresh_token', 'client_credentials', 'implicit'],
      response_types: ['code', 'token'],
      scope: 'notes:read unknown:scope openid',
      application_type: 'native',
      software_statement: 'eyJhbGciOiJub25lIn0.e30.',
      jwks: { keys: [] },
    });
    expect(status).toBe(201);
    expect(headers.get('cache-control')).toBe('no-store');
    const { client_id, client_secret, ...rest } = body;
    expect(client_id).toMatch(/^oauthapp_/);
    expect(client_secret).toMatch(/^oas_/);
    expect(rest).toEqual({
      client_id_issued_at: Math.floor(deps.clock.now / 1000),
      client_secret_expires_at: 0,
      client_name: 'Notes',
      client_uri: 'https://notes.example',
      redirect_uris: [REDIRECT_URI, 'http://127.0.0.1/cb', 'com.example.notes:/cb'],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_basic',
      scope: 'notes:read openid',
    });
    expect(await applications(deps)).toMatchObject([
      {
        id: client_id,
        source: 'registration',
        consent_required: true,
        pkce_required: true,
        public: false,
        unused_until: deps.clock.now + DAY_MS,
      },
    ]);
    expect(await lastEvent(deps)).toMatchObject({
      type: 'oauth_application.registered',
      actor: { kind: 'oauth_application', id: client_id },
      data: { name: 'Notes', redirectHosts: ['notes.example', '127.0.0.1', 'com.example.notes'] },
    });
  });

  it('that names no scope may be given what is advertised, and is given the default of the instance', async () => {
    const { deps, register } = await serve({}, 'open');
    const scope = (name: string, more: object = {}) =>
      call(deps, deps.adminKey, 'oauthScopes.create', { name, description: name, ...more });
    await scope('notes:read');
    await scope('internal', { advertised: false });
    await call(deps, deps.adminKey, 'oauthSettings.update', { defaultScopes: ['openid', 'notes:read'] });
    for (const named of [undefined, '', 'unknown', 'internal', 'bad"scope\\'])
      expect((await register({ redirect_uris: [REDIRECT_URI], scope: named })).body.scope).toBe(
        'openid notes:read',
      );
    for (const row of await applications(deps)) {
      expect(row.default_scopes).toBeNull();
      expect(row.scopes).toEqual([]);
    }
  });

  it('is public where it says so, and for agents whatever it says, unless somebody vouches for it', async () => {
    const ordinary = await serve({}, 'open');
    const metadata = { redirect_uris: [REDIRECT_URI] };
    const none = await ordinary.register({ ...metadata, token_endpoint_auth_method: 'none' });
    expect(none.body).toMatchObject({ token_endpoint_auth_method: 'none' });
    expect(none.body).not.toHaveProperty('client_secret');

    const agents = await serve({ oauthClients: 'mcp' });
    for (const method of [undefined, 'client_secret_basic', 'client_secret_post', 'none']) {
      const { body } = await agents.register({ ...metadata, token_endpoint_auth_method: method });
      expect(body).toMatchObject({ token_endpoint_auth_method: 'none' });
      expect(body).not.toHaveProperty('client_secret');
    }
    expect((await applications(agents.deps)).every((row) => row.public && row.pkce_required)).toBe(true);
    const { token } = await newToken(agents.deps);
    const vouched = await agents.register(
      { ...metadata, token_endpoint_auth_method: 'client_secret_post' },
      token,
    );
    expect(vouched.body.client_secret).toMatch(/^oas_/);
  });

  it('may come again: clients forget', async () => {
    const { deps, register } = await serve({}, 'open');
    const metadata = { redirect_uris: [REDIRECT_URI], client_name: 'Notes' };
    const ids = [await register(metadata), await register(metadata)].map(({ body }) => body.client_id);
    expect(new Set(ids).size).toBe(2);
    expect(await applications(deps)).toHaveLength(2);
  });

  it('without a name is called by where it has its users sent', async () => {
    const { register } = await serve({}, 'open');
    const nameFor = async (uri: string) => (await register({ redirect_uris: [uri] })).body.client_name;
    expect(await nameFor(REDIRECT_URI)).toBe('notes.example');
    expect(await nameFor('http://127.0.0.1:3000/cb')).toBe('127.0.0.1:3000');
    expect(await nameFor('com.example.notes:/cb')).toBe('com.example.notes');
  });

  it.each([
    ['no redirect URI', { redirect_uris: undefined }, 'invalid_redirect_uri'],
    ['no redirect URI at all', { redirect_uris: [] }, 'invalid_redirect_uri'],
    ['redirect URIs that are none', { redirect_uris: 'https://a.example' }, 'invalid_redirect_uri'],
    ['http on another host', { redirect_uris: ['http://a.example/cb'] }, 'invalid_redirect_uri'],
    ['a scheme that runs', { redirect_uris: ['javascript:alert(1)'] }, 'invalid_redirect_uri'],
    ['a scheme without a point', { redirect_uris: ['notes://cb'] }, 'invalid_redirect_uri'],
    ['a fragment', { redirect_uris: [`${REDIRECT_URI}#x`] }, 'invalid_redirect_uri'],
    ['a user name', { redirect_uris: ['https://a@b.example/cb'] }, 'invalid_redirect_uri'],
    ['a look-alike', { redirect_uris: ['https://nоtes.example/cb'] }, 'invalid_redirect_uri'],
    ['one bad among good', { redirect_uris: [REDIRECT_URI, 'data:text/html,x'] }, 'invalid_redirect_uri'],
    [
      'too many',
      { redirect_uris: Array.from({ length: 51 }, (_, i) => `${REDIRECT_URI}/${i}`) },
      'invalid_redirect_uri',
    ],
    [
      'another way to prove itself',
      { token_endpoint_auth_method: 'private_key_jwt' },
      'invalid_client_metadata',
    ],
    ['no code', { grant_types: ['client_credentials'] }, 'invalid_client_metadata'],
    ['another response', { response_types: ['token'] }, 'invalid_client_metadata'],
    ['a name that is none', { client_name: 7 }, 'invalid_client_metadata'],
    ['a name too long', { client_name: 'x'.repeat(256) }, 'invalid_client_metadata'],
    ['a name that turns around', { client_name: 'Notes \u202egnp.exe' }, 'invalid_client_metadata'],
    ['a name with a line break', { client_name: 'Notes\nVerified' }, 'invalid_client_metadata'],
    ['a name that cannot be seen', { client_name: '\u200b' }, 'invalid_client_metadata'],
  ])('with %s is refused', async (_, metadata, error) => {
    const { deps, register } = await serve({}, 'open');
    const { status, body } = await register({ redirect_uris: [REDIRECT_URI], ...metadata });
    expect({ status, error: body.error }).toEqual({ status: 400, error });
    expect(body.error_description).toMatch(/wanted/i);
    expect(await applications(deps)).toEqual([]);
  });

  it.each([
    ['no JSON', '{', 400],
    ['a list', '[]', 400],
    ['null', 'null', 400],
    ['nothing', '', 400],
    ['too much', JSON.stringify({ redirect_uris: [REDIRECT_URI], x: 'x'.repeat(40_000) }), 413],
    ['deep nesting', `${'['.repeat(10_000)}${']'.repeat(10_000)}`, 400],
  ])('of %s is refused', async (_, body, status) => {
    const { register } = await serve({}, 'open');
    expect((await register(body)).status).toBe(status);
  });
});

describe('pages of every origin', () => {
  it('may ask, and register', async () => {
    const { deps } = await serve({}, 'open');
    const { url } = await serveProcedures(deps);
    const preflight = await send(`${url}/oauth/register`, {
      method: 'OPTIONS',
      headers: { origin: 'https://inspector.example', 'access-control-request-method': 'POST' },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get('access-control-allow-origin')).toBe('*');
    expect(preflight.headers.get('access-control-allow-methods')).toBe('POST');
    expect(preflight.headers.get('access-control-allow-headers')).toMatch(/authorization.*content-type/i);
    expect(preflight.headers.get('access-control-allow-credentials')).toBeNull();
    const refused = await send(`${url}/oauth/register`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{}',
    });
    expect(refused.headers.get('access-control-allow-origin')).toBe('*');
  });

  it('may not send a form', async () => {
    const { deps } = await serve({}, 'open');
    const { url } = await serveProcedures(deps);
    const body = new URLSearchParams({ redirect_uris: REDIRECT_URI });
    expect((await send(`${url}/oauth/register`, { method: 'POST', body })).status).toBe(400);
    expect(await applications(deps)).toEqual([]);
  });
});

describe('how many come', () => {
  it('is limited for each network, and not for those with a token', async () => {
    const { deps, register } = await serve({}, 'open');
    const metadata = { redirect_uris: [REDIRECT_URI] };
    for (let i = 0; i < 20; i++) expect((await register(metadata)).status).toBe(201);
    const refused = await register(metadata);
    expect(refused).toMatchObject({ status: 429, body: { error: 'temporarily_unavailable' } });
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    const { token } = await newToken(deps);
    expect((await register(metadata, token)).status).toBe(201);
    deps.clock.now += 60_000;
    expect((await register(metadata)).status).toBe(201);
  });

  it('is limited for each network and day, whatever it presents', async () => {
    const { deps, register } = await serve({}, 'open');
    const guess = newValue(PREFIXES.initialAccessToken).value;
    let refused = 0;
    for (let i = 0; i < 201; i++) {
      if (i % 20 === 0) deps.clock.now += 60_000;
      refused += Number((await register({ redirect_uris: [REDIRECT_URI] }, guess)).status === 429);
    }
    expect(refused).toBe(1);
  });

  it('is limited in all, as long as nobody used them', async () => {
    const { deps, register } = await serve({}, 'open');
    await register({ redirect_uris: [REDIRECT_URI] });
    const [row] = await applications(deps);
    if (!row) throw new Error('There is none');
    const many = Array.from({ length: 9_999 }, (_, i) => {
      const id = `oauthapp_${String(i).padStart(27, '0')}`;
      return { ...row, id, client_id: id };
    });
    await deps.store.tx(async ({ db, tables }) => {
      for (let at = 0; at < many.length; at += 500)
        await db.insert(tables.oauthApplications).values(many.slice(at, at + 500));
    });
    expect(await register({ redirect_uris: [REDIRECT_URI] })).toMatchObject({
      status: 503,
      body: { error: 'temporarily_unavailable' },
    });
    const { token } = await newToken(deps);
    expect((await register({ redirect_uris: [REDIRECT_URI] }, token)).status).toBe(201);
  });
});

describeOnEachDialect('a registration that nobody uses', (dialect) => {
  const newGrant = (deps: TestDeps, id: string) =>
    deps.store.tx((tx) =>
      insertGrant(tx, deps, {
        application: { id, token_generation: 0, refresh_token_max_seconds: null, unused_until: 1 },
        subject: 'user_1',
        organizationId: null,
        scopes: ['openid'],
        resources: [],
        redirectUri: REDIRECT_URI,
        claims: {},
        authTime: 0,
        nonce: null,
      }),
    );

  it('goes after a day, with its secret, and one that a user allowed something stays', async () => {
    const { deps, register } = await serve({ dialect }, 'open');
    const metadata = { redirect_uris: [REDIRECT_URI] };
    const used = (await register(metadata)).body.client_id;
    const unused = (await register(metadata)).body.client_id;
    await newGrant(deps, used);
    deps.clock.now += DAY_MS - 1;
    expect(await purgeUnusedApplications(deps, 100)).toBe(0);
    deps.clock.now += 1;
    expect(await purgeUnusedApplications(deps, 100)).toBe(1);
    expect(await purgeUnusedApplications(deps, 100)).toBe(0);
    expect((await applications(deps)).map(({ id, unused_until }) => [id, unused_until])).toEqual([
      [used, null],
    ]);
    const { db, tables } = deps.store.read;
    const owners = await db
      .select({ id: tables.secrets.owner_id })
      .from(tables.secrets)
      .where(eq(tables.secrets.owner_kind, 'oauth_application'));
    expect(owners).toEqual([{ id: used }]);
    expect(await lastEvent(deps)).toMatchObject({
      type: 'oauth_application.purged',
      data: { count: 1, selector: { applicationIds: [unused] } },
    });
  });
});

describe('the metadata of the server', () => {
  it('names the endpoint, and documents, only where they are of use', async () => {
    const deps = await openTestDeps('sqlite');
    const { url } = await serveProcedures(deps);
    const read = async () => (await send(`${url}/.well-known/oauth-authorization-server`)).body;
    const before = await read();
    expect(before).not.toHaveProperty('registration_endpoint');
    expect(before).not.toHaveProperty('client_id_metadata_document_supported');
    await call(deps, deps.adminKey, 'oauthSettings.update', {
      registration: 'open',
      metadataDocuments: 'first_seen',
    });
    const after = await read();
    expect(after.registration_endpoint).toBe(`${deps.publicUrl}/oauth/register`);
    expect(after.client_id_metadata_document_supported).toBe(true);
    expect(after.token_endpoint_auth_methods_supported).toContain('none');
  });
});
