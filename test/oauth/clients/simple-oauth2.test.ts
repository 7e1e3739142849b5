/** `simple-oauth2` 5, with the secret in the header and in the body. */
import { AuthorizationCode, ClientCredentials } from 'simple-oauth2';
import { beforeAll, describe, expect, it } from 'vitest';
import type { TestApplication } from '../../support/authorization-server.ts';
import { whenSuiteDone } from '../../support/deps.ts';
import { send } from '../../support/server.ts';
import { CALLBACK, cameBack, type Started, startAuthorizationServer } from '../../support/started.ts';
import { newPkce } from '../../support/user-agent.ts';

describe('simple-oauth2', () => {
  const whenDone = whenSuiteDone();
  let server: Started;

  beforeAll(async () => {
    server = await startAuthorizationServer({ whenDone });
  }, 300_000);

  const optionsOf = ({ clientId, secret }: TestApplication, authorizationMethod: 'header' | 'body') => ({
    client: { id: clientId, secret },
    // Its own defaults are our paths.
    auth: { tokenHost: server.url },
    options: { authorizationMethod },
  });

  const userinfo = (token: unknown) =>
    send(`${server.url}/oauth/userinfo`, { headers: { authorization: `Bearer ${token}` } });

  describe.each(['header', 'body'] as const)('with the secret in the %s', (method) => {
    it('walks the code flow with PKCE, refreshes, and revokes all', async () => {
      const client = new AuthorizationCode(optionsOf(await server.application(), method));
      const { verifier, challenge } = newPkce();
      const url = client.authorizeURL({
        redirect_uri: CALLBACK,
        scope: ['openid', 'offline_access'],
        state: 'st',
        ...{ code_challenge: challenge, code_challenge_method: 'S256' },
      });
      const back = cameBack(await server.allow(url));
      const code = back.searchParams.get('code') ?? '';
      const issued = await client.getToken({
        code,
        redirect_uri: CALLBACK,
        ...{ code_verifier: verifier },
      });
      expect(issued.token).toMatchObject({ token_type: 'Bearer', expires_in: 3600 });
      expect(issued.expired()).toBe(false);
      const refreshed = await issued.refresh({ scope: ['openid', 'offline_access'] });
      expect((await userinfo(refreshed.token['access_token'])).status).toBe(200);
      await refreshed.revokeAll();
      expect((await userinfo(refreshed.token['access_token'])).status).toBe(401);
      await expect(refreshed.refresh()).rejects.toMatchObject({
        data: { payload: { error: 'invalid_grant' } },
      });
    });

    it('gets a token for itself, and revokes it', async () => {
      const application = await server.application({
        grantTypes: ['client_credentials'],
        redirectUris: [],
        scopes: ['notes:read'],
      });
      const issued = await new ClientCredentials(optionsOf(application, method)).getToken({
        scope: 'notes:read',
      });
      expect(issued.token).toMatchObject({ scope: 'notes:read' });
      await issued.revoke('access_token');
      const { body } = await send(`${server.url}/oauth/introspect`, {
        method: 'POST',
        body: new URLSearchParams({
          token: String(issued.token['access_token']),
          client_id: application.clientId,
          client_secret: application.secret,
        }),
      });
      expect(body).toEqual({ active: false });
    });
  });
});
