/**
 * Better Auth as an OAuth server, by its oauth-provider plugin on SQLite, behind a bare `node:http`; each commit is durable
 * before it is answered. Its client and its resource are kept in memory, as its options let them. Arguments: the path of
 * better-sqlite3, how many tokens are to be introspected, how many browsers are signed in, a folder for the database.
 */
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { oauthProvider } from '@better-auth/oauth-provider';
import { betterAuth } from 'better-auth';
import { getMigrations } from 'better-auth/db/migration';
import { toNodeHandler } from 'better-auth/node';
import { jwt } from 'better-auth/plugins';

const [driver, tokens, browsers, folder] = process.argv.slice(2);
const { default: Database } = await import(driver);
const database = new Database(join(folder, 'better-auth.db'));
database.pragma('journal_mode = WAL');
database.pragma('synchronous = FULL');

const REDIRECT_URI = 'https://app.example.com/callback';
const RESOURCE = 'https://api.example.com';
const SCOPES = ['openid', 'offline_access', 'read', 'write'];
const trusted = new Set();

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address();
const url = `http://127.0.0.1:${port}`;

const options = {
  baseURL: url,
  secret: 'a secret of a measurement, which protects nothing',
  database,
  telemetry: { enabled: false },
  rateLimit: { enabled: false },
  emailAndPassword: {
    enabled: true,
    // Signing in is not measured.
    password: { hash: async (password) => password, verify: async ({ hash, password }) => hash === password },
  },
  plugins: [
    jwt({ jwks: { keyPairConfig: { alg: 'ES256' } } }),
    oauthProvider({
      loginPage: '/login',
      consentPage: '/consent',
      scopes: SCOPES,
      resources: [{ identifier: RESOURCE, signingAlgorithm: 'ES256' }],
      enforcePerClientResources: false,
      clientPrivileges: () => true,
      cachedTrustedClients: trusted,
      cachedResources: new Set([RESOURCE]),
      silenceWarnings: { oauthAuthServerConfig: true, openidConfig: true },
    }),
  ],
};
const { runMigrations } = await getMigrations(options);
await runMigrations();
const auth = betterAuth(options);
server.on('request', toNodeHandler(auth));

/** A user in a browser; answers its cookie, and who it is. */
async function signUp(name) {
  const body = { name, email: `${name}@example.com`, password: 'a password of a measurement' };
  const { headers, response } = await auth.api.signUpEmail({ body, returnHeaders: true });
  return { cookie: headers.getSetCookie()[0].split(';', 1)[0], userId: response.user.id };
}

const admin = await signUp('admin');
const client = await auth.api.adminCreateOAuthClient({
  headers: new Headers({ cookie: admin.cookie }),
  body: {
    redirect_uris: [REDIRECT_URI],
    scope: SCOPES.join(' '),
    grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
    client_credentials_scopes: ['read', 'write'],
    response_types: ['code'],
    token_endpoint_auth_method: 'client_secret_basic',
  },
});
trusted.add(client.client_id);

const basic = Buffer.from(`${client.client_id}:${client.client_secret}`).toString('base64');
const oauthRequest = (path, body) => ({
  path: `/api/auth/oauth2/${path}`,
  authorization: `Basic ${basic}`,
  contentType: 'application/x-www-form-urlencoded',
  body: `${new URLSearchParams(body)}`,
});
const clientCredentials = (asked) =>
  oauthRequest('token', { grant_type: 'client_credentials', scope: 'read write', ...asked });

async function post({ path, authorization, contentType, body }) {
  const headers = { Authorization: authorization, 'Content-Type': contentType };
  const answer = await fetch(url + path, { method: 'POST', headers, body });
  if (!answer.ok) throw new Error(`Wanted an answer to ${path}, found ${await answer.text()}`);
  return answer.json();
}

const introspections = [];
for (let i = 0; i < Number(tokens); i++) {
  const { access_token: token } = await post(clientCredentials());
  introspections.push(oauthRequest('introspect', { token, token_type_hint: 'access_token' }));
}

const { adapter } = await auth.$context;
const cookies = [];
for (let i = 0; i < Number(browsers); i++) {
  const { cookie, userId } = await signUp(`user${i}`);
  const [createdAt, updatedAt] = [new Date(), new Date()];
  const data = { clientId: client.client_id, userId, scopes: SCOPES, createdAt, updatedAt };
  await adapter.create({ model: 'oauthConsent', data });
  cookies.push(cookie);
}

const VERIFIER = 'a-code-verifier-of-a-measurement-which-protects-nothing';
const authorizePath = `/api/auth/oauth2/authorize?${new URLSearchParams({
  client_id: client.client_id,
  response_type: 'code',
  redirect_uri: REDIRECT_URI,
  scope: SCOPES.join(' '),
  state: 'a-state-of-a-measurement',
  nonce: 'a-nonce-of-a-measurement',
  code_challenge: createHash('sha256').update(VERIFIER).digest('base64url'),
  code_challenge_method: 'S256',
})}`;

const said = {
  port,
  opaque: clientCredentials(),
  jwt: clientCredentials({ resource: RESOURCE }),
  introspections,
  flow: {
    authorizePath,
    cookies,
    token: oauthRequest('token', {
      grant_type: 'authorization_code',
      redirect_uri: REDIRECT_URI,
      code_verifier: VERIFIER,
    }),
  },
};
process.stdout.write(`ready ${JSON.stringify(said)}\n`);
