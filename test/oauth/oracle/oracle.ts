/** oidc-provider, certified by the OpenID Foundation, with the same applications as ours and configured as alike as it can be. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair } from 'jose';
import Provider, { type ClientMetadata, type Configuration, errors } from 'oidc-provider';
import { onTestFinished } from 'vitest';
import { openUserAgent, type UserAgent } from '../../support/plain-browser.ts';

export interface Oracle {
  url: string;
  provider: Provider;
  /** A browser in which a user is signed in; with null, nobody. */
  browser(subject: string | null): Promise<UserAgent>;
}

interface Options {
  clients: ClientMetadata[];
  /** The scopes that are no built-in ones. */
  scopes: readonly string[];
  /** The resources there are, each for all scopes. */
  resources: readonly string[];
  accessTokenFormat: 'opaque' | 'jwt';
  claims: Record<string, unknown>;
  /** The applications that may do without PKCE. */
  withoutPkce: readonly string[];
}

const INTERACTION = '/interaction/';

export async function startOracle(options: Options): Promise<Oracle> {
  let answer: (request: IncomingMessage, response: ServerResponse) => void = () => {};
  const server = createServer((request, response) => answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const provider = new Provider(url, await configurationOf(options));
  const handle = provider.callback();
  let signingIn: string | null = null;
  const interact = async (request: IncomingMessage, response: ServerResponse) => {
    const { prompt } = await provider.interactionDetails(request, response);
    if (prompt.name === 'login' && signingIn !== null)
      await provider.interactionFinished(request, response, { login: { accountId: signingIn } });
    else if (prompt.name === 'consent' && request.method === 'POST')
      await provider.interactionFinished(request, response, { consent: {} });
    else response.writeHead(200, { 'content-type': 'text/html' }).end(PAGES[prompt.name]);
  };
  answer = (request, response) => {
    if (request.url?.startsWith(INTERACTION)) void interact(request, response);
    else void handle(request, response);
  };
  return {
    url,
    provider,
    async browser(subject) {
      const agent = openUserAgent(url);
      if (subject === null) return agent;
      const [client] = options.clients.filter(({ redirect_uris: uris }) => uris?.length);
      const query = new URLSearchParams({
        client_id: client?.client_id ?? '',
        response_type: 'code',
        redirect_uri: client?.redirect_uris?.[0] ?? '',
        scope: 'openid',
        code_challenge: 'x'.repeat(43),
        code_challenge_method: 'S256',
      });
      signingIn = subject;
      await agent.open(`${url}/auth?${query}`);
      signingIn = null;
      return agent;
    },
  };
}

const PAGES: Record<string, string> = {
  login: '<form method="post"><input name="password" type="password"><button>Sign in</button></form>',
  consent: '<form method="post"><button>Allow</button></form>',
};

async function configurationOf(options: Options): Promise<Configuration> {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true });
  const format = options.accessTokenFormat;
  const allScopes = ['openid', 'offline_access', 'profile', 'email', ...options.scopes];
  return {
    clients: options.clients,
    jwks: { keys: [{ ...(await exportJWK(privateKey)), alg: 'RS256', use: 'sig', kid: 'oracle' }] },
    enableHttpPostMethods: true,
    cookies: {
      keys: ['a secret of this test alone'],
      long: { httpOnly: true, sameSite: 'none', signed: true },
    },
    scopes: allScopes,
    claims: {
      openid: ['sub'],
      profile: ['name', 'given_name', 'family_name', 'preferred_username', 'picture'],
      email: ['email', 'email_verified'],
    },
    // Ours puts what the scopes let out into the ID token too.
    conformIdTokenClaims: false,
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: {
        enabled: true,
        allowedPolicy: (_, client, token) => token.clientId === client.clientId,
      },
      revocation: {
        enabled: true,
        allowedPolicy: (_, client, token) => token.clientId === client.clientId,
      },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        defaultResource: () => [],
        getResourceServerInfo: (_, resource) => {
          if (!options.resources.includes(resource)) throw new errors.InvalidTarget();
          return { scope: allScopes.join(' '), audience: resource, accessTokenFormat: format } as never;
        },
      },
    },
    pkce: { required: (_, client) => !options.withoutPkce.includes(client.clientId) },
    allowOmittingSingleRegisteredRedirectUri: true,
    interactions: { url: (_, { uid }) => `${INTERACTION}${uid}` },
    rotateRefreshToken: () => true,
    issueRefreshToken: (_, client, code) =>
      client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
    findAccount: (_, accountId) => ({
      accountId,
      claims: () => ({ ...options.claims, sub: accountId }),
    }),
    // Whoever is signed in has allowed everything before.
    async loadExistingGrant(ctx) {
      const { client, session, params, resourceServers } = ctx.oidc;
      const grant = new ctx.oidc.provider.Grant({
        clientId: client?.clientId ?? '',
        accountId: session?.accountId ?? '',
      });
      const scope = allScopes.join(' ');
      grant.addOIDCScope(scope);
      for (const resource of Object.keys(resourceServers ?? {})) grant.addResourceScope(resource, scope);
      void params;
      await grant.save();
      return grant;
    },
    ttl: {
      AccessToken: 3_600,
      AuthorizationCode: 60,
      ClientCredentials: 3_600,
      Grant: 90 * 86_400,
      IdToken: 600,
      Interaction: 600,
      RefreshToken: 90 * 86_400,
      Session: 86_400,
    },
    renderError(ctx, out) {
      ctx.type = 'json';
      ctx.body = out;
    },
  };
}
