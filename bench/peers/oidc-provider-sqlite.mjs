/**
 * oidc-provider in Express as most would put it there, with an adapter over SQLite as most would write it: one table, each
 * statement prepared, each durable before it is answered. Its client and its keys are in its configuration, in memory, and a
 * JWT has no row. Arguments: the path of better-sqlite3, how many tokens are to be introspected, how many browsers are
 * signed in, a folder for the database.
 */
import { createHash, generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { join } from 'node:path';
import express from 'express';
import { Provider } from 'oidc-provider';

const [driver, tokens, browsers, folder] = process.argv.slice(2);
const { default: Database } = await import(driver);
const database = new Database(join(folder, 'oidc-provider.db'));
database.pragma('journal_mode = WAL');
database.pragma('synchronous = FULL');
database.exec(`
  CREATE TABLE models (
    model TEXT NOT NULL, id TEXT NOT NULL, payload TEXT NOT NULL, grant_id TEXT, uid TEXT, user_code TEXT,
    expires_at INTEGER, consumed_at INTEGER, PRIMARY KEY (model, id)) WITHOUT ROWID;
  CREATE INDEX models_grant_id ON models (grant_id) WHERE grant_id IS NOT NULL;
  CREATE INDEX models_uid ON models (model, uid) WHERE uid IS NOT NULL;
  CREATE INDEX models_user_code ON models (model, user_code) WHERE user_code IS NOT NULL;`);
const statements = {
  upsert: database.prepare('INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?, ?, ?, ?, NULL)'),
  find: database.prepare('SELECT payload, expires_at, consumed_at FROM models WHERE model = ? AND id = ?'),
  findByUid: database.prepare(
    'SELECT payload, expires_at, consumed_at FROM models WHERE model = ? AND uid = ?',
  ),
  findByUserCode: database.prepare(
    'SELECT payload, expires_at, consumed_at FROM models WHERE model = ? AND user_code = ?',
  ),
  consume: database.prepare('UPDATE models SET consumed_at = ? WHERE model = ? AND id = ?'),
  destroy: database.prepare('DELETE FROM models WHERE model = ? AND id = ?'),
  revokeByGrantId: database.prepare('DELETE FROM models WHERE grant_id = ?'),
};
const seconds = () => Math.floor(Date.now() / 1000);

class SqliteAdapter {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload, expiresIn) {
    const { grantId = null, uid = null, userCode = null } = payload;
    const expiresAt = expiresIn ? seconds() + expiresIn : null;
    statements.upsert.run(this.model, id, JSON.stringify(payload), grantId, uid, userCode, expiresAt);
  }

  async find(id) {
    return read(statements.find.get(this.model, id));
  }

  async findByUid(uid) {
    return read(statements.findByUid.get(this.model, uid));
  }

  async findByUserCode(userCode) {
    return read(statements.findByUserCode.get(this.model, userCode));
  }

  async consume(id) {
    statements.consume.run(seconds(), this.model, id);
  }

  async destroy(id) {
    statements.destroy.run(this.model, id);
  }

  async revokeByGrantId(grantId) {
    statements.revokeByGrantId.run(grantId);
  }
}

function read(row) {
  if (!row || (row.expires_at !== null && row.expires_at <= seconds())) return undefined;
  return { ...JSON.parse(row.payload), ...(row.consumed_at !== null && { consumed: row.consumed_at }) };
}

const CLIENT = { id: 'bench', secret: 'a-secret-of-a-measurement-which-protects-nothing' };
const REDIRECT_URI = 'https://app.example.com/callback';
const [OPAQUE, JWT] = ['https://opaque.example.com', 'https://jwt.example.com'];

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address();
const url = `http://127.0.0.1:${port}`;

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const provider = new Provider(url, {
  adapter: SqliteAdapter,
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: 'bench' }] },
  clients: [
    {
      client_id: CLIENT.id,
      client_secret: CLIENT.secret,
      token_endpoint_auth_method: 'client_secret_basic',
      grant_types: ['client_credentials', 'authorization_code', 'refresh_token'],
      redirect_uris: [REDIRECT_URI],
      response_types: ['code'],
      id_token_signed_response_alg: 'ES256',
    },
  ],
  scopes: ['openid', 'offline_access', 'read', 'write'],
  cookies: { keys: ['a key of a measurement, which protects nothing'] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource) => ({
        scope: 'read write',
        audience: resource,
        accessTokenTTL: 3600,
        accessTokenFormat: resource === JWT ? 'jwt' : 'opaque',
        ...(resource === JWT && { jwt: { sign: { alg: 'ES256' } } }),
      }),
    },
  },
  issueRefreshToken: () => true,
  findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (_ctx, { uid }) => `/interaction/${uid}` },
  ttl: {
    AccessToken: 3600,
    AuthorizationCode: 60,
    ClientCredentials: 3600,
    Grant: 86_400,
    IdToken: 600,
    Interaction: 3600,
    RefreshToken: 86_400,
    Session: 86_400,
  },
});

const app = express();
/** Whoever comes signs in as a new user, and consents to everything. */
app.get('/interaction/:uid', async (request, response) => {
  const { prompt, session } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login') {
    const login = { accountId: `user_${request.params.uid}` };
    return provider.interactionFinished(request, response, { login }, { mergeWithLastSubmission: false });
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: CLIENT.id });
  grant.addOIDCScope('openid offline_access read write');
  grant.addResourceScope(OPAQUE, 'read write');
  const consent = { grantId: await grant.save() };
  await provider.interactionFinished(request, response, { consent }, { mergeWithLastSubmission: true });
});
app.use(provider.callback());
server.on('request', app);

const tokenRequest = (body) => ({
  path: '/token',
  authorization: `Basic ${Buffer.from(`${CLIENT.id}:${CLIENT.secret}`).toString('base64')}`,
  contentType: 'application/x-www-form-urlencoded',
  body: `${new URLSearchParams(body)}`,
});
const clientCredentials = (resource) =>
  tokenRequest({ grant_type: 'client_credentials', scope: 'read write', resource });

async function post({ path, authorization, contentType, body }) {
  const headers = { Authorization: authorization, 'Content-Type': contentType };
  const answer = await fetch(url + path, { method: 'POST', headers, body });
  if (!answer.ok) throw new Error(`Wanted an answer to ${path}, found ${await answer.text()}`);
  return answer.json();
}

const VERIFIER = 'a-code-verifier-of-a-measurement-which-protects-nothing';
const authorizePath = `/auth?${new URLSearchParams({
  client_id: CLIENT.id,
  response_type: 'code',
  redirect_uri: REDIRECT_URI,
  scope: 'openid offline_access read write',
  resource: OPAQUE,
  state: 'a-state-of-a-measurement',
  nonce: 'a-nonce-of-a-measurement',
  code_challenge: createHash('sha256').update(VERIFIER).digest('base64url'),
  code_challenge_method: 'S256',
})}`;

/** A browser's first authorization, with the redirects it follows; answers its cookies of the session. */
async function signIn() {
  const cookies = new Map();
  for (let at = authorizePath; !at.startsWith(REDIRECT_URI); ) {
    const Cookie = [...cookies].map((pair) => pair.join('=')).join('; ');
    const answer = await fetch(new URL(at, url), { headers: { Cookie }, redirect: 'manual' });
    for (const cookie of answer.headers.getSetCookie()) {
      const [name, value] = cookie.split(';', 1)[0].split('=');
      cookies.set(name, value);
    }
    at = answer.headers.get('location');
    if (!at) throw new Error(`Wanted a redirect, found ${answer.status} ${await answer.text()}`);
  }
  return ['_session', '_session.sig'].map((name) => `${name}=${cookies.get(name)}`).join('; ');
}

const introspections = [];
for (let i = 0; i < Number(tokens); i++) {
  const { access_token: token } = await post(clientCredentials(OPAQUE));
  introspections.push({
    ...tokenRequest({ token, token_type_hint: 'client_credentials' }),
    path: '/token/introspection',
  });
}
const cookies = [];
for (let i = 0; i < Number(browsers); i++) cookies.push(await signIn());

const said = {
  port,
  opaque: clientCredentials(OPAQUE),
  jwt: clientCredentials(JWT),
  introspections,
  flow: {
    authorizePath,
    cookies,
    token: tokenRequest({
      grant_type: 'authorization_code',
      redirect_uri: REDIRECT_URI,
      code_verifier: VERIFIER,
    }),
  },
};
process.stdout.write(`ready ${JSON.stringify(said)}\n`);
