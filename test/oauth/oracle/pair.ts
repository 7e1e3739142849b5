/** Our server and oidc-provider side by side, with the same applications, secrets, scopes and user; and what each is asked. */
import type { ClientMetadata } from 'oidc-provider';
import { createMemoryLimits } from '../../../server/limits.ts';
import {
  allow,
  basic,
  challengeOf,
  formOf,
  REDIRECT_URI,
  type ServedOauth,
  serveOauth,
  type TestApplication,
  USER,
} from '../../support/authorization-server.ts';
import type { Dialect } from '../../support/deps.ts';
import type { UserAgent } from '../../support/plain-browser.ts';
import { type Answer, send } from '../../support/server.ts';
import { startOracle } from './oracle.ts';

/** One of the two servers. */
export interface Side {
  name: 'ours' | 'oracle';
  url: string;
  paths: Record<'authorize' | 'token' | 'introspect' | 'revoke' | 'userinfo', string>;
  signedIn: UserAgent;
  signedOut: UserAgent;
}

export interface Pair {
  sides: readonly [Side, Side];
  applications: Applications;
  /** Forgets what was counted: a test fails more often in a minute than anybody else. */
  forgetLimits(): Promise<void>;
  /** What went wrong inside of ours, whatever was answered. */
  failures: unknown[];
}

export interface Applications {
  /** Confidential, with PKCE. */
  web: TestApplication;
  /** Another of the same. */
  other: TestApplication;
  /** Confidential, without PKCE. */
  lax: TestApplication;
  /** Public, on loopback. */
  native: TestApplication;
  /** For itself alone. */
  service: TestApplication;
  /** What goes with every request: oidc-provider makes JWTs for a resource alone. */
  resource: { resource?: string };
}

export const API = 'https://api.example.com/';
export const OTHER_API = 'https://other.example.com/';
export const LOOPBACK_URI = 'http://127.0.0.1/callback';
export const VERIFIER = 'a-verifier-that-is-long-enough-for-rfc-7636-section-4.1';
const NONCE = 'n-0S6_WzA2Mj';

const CUSTOM_SCOPES = ['notes:read', 'notes:write', 'notes:delete'];
/** What every application may be given: all but `notes:delete`. */
const ALLOWED_SCOPES = ['openid', 'profile', 'email', 'offline_access', 'notes:read', 'notes:write'];

const CLAIMS = { name: 'Ada Lovelace', email: 'ada@example.com', email_verified: true };

export async function startPair(dialect: Dialect, accessTokenFormat: 'opaque' | 'jwt'): Promise<Pair> {
  const ours = await serveOauth(dialect, { signingAlg: 'RS256' });
  for (const scope of CUSTOM_SCOPES) await ours.scope(scope);
  const applications = await createApplications(ours, accessTokenFormat);
  const oracle = await startOracle({
    clients: clientsOf(applications),
    scopes: CUSTOM_SCOPES,
    resources: [API, OTHER_API],
    accessTokenFormat,
    claims: CLAIMS,
    withoutPkce: [applications.lax.clientId],
  });
  const { deps } = ours;
  return {
    sides: [
      {
        name: 'ours',
        url: ours.url,
        paths: {
          authorize: '/oauth/authorize',
          token: '/oauth/token',
          introspect: '/oauth/introspect',
          revoke: '/oauth/revoke',
          userinfo: '/oauth/userinfo',
        },
        signedIn: await ours.browser(USER),
        signedOut: await ours.browser(null),
      },
      {
        name: 'oracle',
        url: oracle.url,
        paths: {
          authorize: '/auth',
          token: '/token',
          introspect: '/token/introspection',
          revoke: '/token/revocation',
          userinfo: '/me',
        },
        signedIn: await oracle.browser(USER),
        signedOut: await oracle.browser(null),
      },
    ],
    applications,
    async forgetLimits() {
      Object.assign(deps, { limits: createMemoryLimits({ now: deps.now }) });
      await deps.store.tx(({ db, tables }) => db.delete(tables.oauthInteractions));
    },
    failures: ours.failures,
  };
}

async function createApplications(
  ours: ServedOauth,
  accessTokenFormat: 'opaque' | 'jwt',
): Promise<Applications> {
  const common = {
    scopes: ALLOWED_SCOPES,
    audiences: [API, OTHER_API],
    consentRequired: false,
    accessTokenFormat,
  };
  return {
    resource: accessTokenFormat === 'jwt' ? { resource: API } : {},
    web: await ours.application({ ...common, name: 'web' }),
    other: await ours.application({ ...common, name: 'other' }),
    lax: await ours.application({ ...common, name: 'lax', pkceRequired: false }),
    native: await ours.application({
      ...common,
      name: 'native',
      public: true,
      redirectUris: [LOOPBACK_URI],
      consentRequired: false,
    }),
    service: await ours.application({
      ...common,
      name: 'service',
      redirectUris: [],
      grantTypes: ['client_credentials'],
    }),
  };
}

function clientsOf({ web, other, lax, native, service }: Applications): ClientMetadata[] {
  const scope = ALLOWED_SCOPES.join(' ');
  const ofCode = ({ clientId, secret }: TestApplication): ClientMetadata => ({
    client_id: clientId,
    client_secret: secret,
    redirect_uris: [REDIRECT_URI],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'client_secret_basic',
    scope,
  });
  const { client_secret: _, ...publicOne } = ofCode(native);
  return [
    ofCode(web),
    ofCode(other),
    ofCode(lax),
    {
      ...publicOne,
      application_type: 'native',
      redirect_uris: [LOOPBACK_URI],
      token_endpoint_auth_method: 'none',
    },
    {
      ...ofCode(service),
      redirect_uris: [],
      response_types: [],
      grant_types: ['client_credentials'],
    },
  ];
}

/** A request to one side; what is repeated is an array. */
export interface Asked {
  method: 'GET' | 'POST';
  params: Record<string, string | string[]>;
  headers: Record<string, string>;
  /** Instead of the parameters, as they are. */
  body?: string;
}

export const pathOf = (side: Side, endpoint: keyof Side['paths']) => side.url + side.paths[endpoint];

export function ask(side: Side, endpoint: keyof Side['paths'], asked: Asked): Promise<Answer> {
  const { method, headers, params, body } = asked;
  if (method === 'GET') return send(`${pathOf(side, endpoint)}?${formOf(params)}`, { headers });
  return send(pathOf(side, endpoint), { method, headers, body: body ?? formOf(params) });
}

export const authorizeParams = (
  { resource }: Applications,
  { clientId }: TestApplication,
): Record<string, string | string[]> => ({
  ...resource,
  client_id: clientId,
  response_type: 'code',
  redirect_uri: REDIRECT_URI,
  scope: 'openid profile notes:read offline_access',
  // oidc-provider gives `offline_access` to nobody else.
  prompt: 'consent',
  state: 'af0ifjsldkj',
  nonce: NONCE,
  code_challenge: challengeOf(VERIFIER),
  code_challenge_method: 'S256',
});

/** What one flow handed out. */
export interface Handed {
  code: string;
  accessToken: string;
  refreshToken: string;
  idToken: string;
}

export async function codeFrom(
  side: Side,
  applications: Applications,
  application: TestApplication,
  params: Record<string, string | string[]> = {},
): Promise<string> {
  const query = formOf({ ...authorizeParams(applications, application), ...params });
  const page = await allow(side.signedIn, `${pathOf(side, 'authorize')}?${query}`);
  const code = page.left?.url.searchParams.get('code');
  if (!code) throw new Error(`Wanted a code of ${side.name}, found ${page.left?.url ?? page.text}`);
  return code;
}

export const redemption = (code: string, redirectUri = REDIRECT_URI) => ({
  grant_type: 'authorization_code',
  code,
  redirect_uri: redirectUri,
  code_verifier: VERIFIER,
});

/** A whole flow of a confidential application. */
export async function tokensFrom(
  side: Side,
  applications: Applications,
  application: TestApplication,
): Promise<Handed> {
  const code = await codeFrom(side, applications, application);
  const { status, body } = await ask(side, 'token', {
    method: 'POST',
    params: redemption(code),
    headers: basic(application),
  });
  if (status !== 200) throw new Error(`Wanted tokens of ${side.name}, found ${JSON.stringify(body)}`);
  return {
    code,
    accessToken: body.access_token,
    refreshToken: body.refresh_token,
    idToken: body.id_token,
  };
}
