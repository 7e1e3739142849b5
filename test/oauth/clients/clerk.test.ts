/** `@clerk/backend` 3 with our OAuth access tokens and applications, and `@clerk/express`, which must not take our ID tokens. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type ClerkClient, createClerkClient } from '@clerk/backend';
import { clerkMiddleware, getAuth } from '@clerk/express';
import express from 'express';
import { decodeJwt, decodeProtectedHeader } from 'jose';
import { allowInsecureRequests, ClientSecretPost, clientCredentialsGrant, discovery } from 'openid-client';
import { beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { createSigner } from '../../../server/domain/signing-keys.ts';
import type { TestApplication } from '../../support/authorization-server.ts';
import { whenSuiteDone } from '../../support/deps.ts';
import { listen } from '../../support/procedures.ts';
import { send } from '../../support/server.ts';
import { inspect } from '../../support/site.ts';
import { CALLBACK, cameBack, type Started, startAuthorizationServer } from '../../support/started.ts';
import { newPkce } from '../../support/user-agent.ts';

/** Of a host with a dot, as Clerk's SDK wants it; nothing is fetched from there. */
const PUBLISHABLE_KEY = `pk_live_${Buffer.from('clerk.example.com$').toString('base64')}`;
const API = 'https://api.example.com/';

describe("Clerk's SDK with OAuth", () => {
  const whenDone = whenSuiteDone();
  let server: Started;
  let clerk: ClerkClient;

  beforeAll(async () => {
    const env = { COUNTERSIGN_SIGNING_ALG: 'RS256' };
    server = await startAuthorizationServer({ env, whenDone });
    clerk = createClerkClient({ apiUrl: server.url, secretKey: server.adminKey });
  }, 300_000);

  beforeEach(() => {
    vi.stubEnv('CLERK_TELEMETRY_DISABLED', '1');
    onTestFinished(() => void vi.unstubAllEnvs());
  });

  /** What a whole code flow hands out. */
  async function signIn({ clientId, secret }: TestApplication, parameters: Record<string, string> = {}) {
    const { verifier, challenge } = newPkce();
    const query = new URLSearchParams({
      client_id: clientId,
      redirect_uri: CALLBACK,
      response_type: 'code',
      scope: 'openid profile offline_access',
      code_challenge: challenge,
      code_challenge_method: 'S256',
      ...parameters,
    });
    const back = cameBack(await server.allow(`${server.url}/oauth/authorize?${query}`));
    const { body } = await send(`${server.url}/oauth/token`, {
      method: 'POST',
      body: new URLSearchParams({
        grant_type: 'authorization_code',
        code: back.searchParams.get('code') ?? '',
        redirect_uri: CALLBACK,
        code_verifier: verifier,
        client_id: clientId,
        client_secret: secret,
      }),
    });
    return {
      accessToken: String(body.access_token),
      refreshToken: String(body.refresh_token),
      idToken: String(body.id_token),
    };
  }

  async function authenticate(credential: string, options: { audience?: string } = {}) {
    const request = new Request('https://api.example.com/', {
      headers: { authorization: `Bearer ${credential}` },
    });
    const state = await clerk.authenticateRequest(request, {
      acceptsToken: 'oauth_token',
      publishableKey: PUBLISHABLE_KEY,
      ...options,
    });
    return { isAuthenticated: state.isAuthenticated, reason: state.reason, auth: state.toAuth() };
  }

  describe('authenticateRequest()', () => {
    it.each(['opaque', 'jwt'] as const)('accepts an access token that a user allowed: %s', async (format) => {
      const application = await server.application({ accessTokenFormat: format });
      const { accessToken } = await signIn(application);
      expect(accessToken.startsWith('eyJ')).toBe(format === 'jwt');
      expect(await authenticate(accessToken)).toMatchObject({
        isAuthenticated: true,
        auth: {
          tokenType: 'oauth_token',
          id: expect.stringMatching(/^oat_/),
          userId: expect.stringMatching(/^user_/),
          clientId: application.clientId,
          scopes: ['openid', 'profile', 'offline_access'],
        },
      });
    });

    it('accepts one that an application got for itself', async () => {
      for (const accessTokenFormat of ['opaque', 'jwt']) {
        const { clientId, secret } = await server.application({
          accessTokenFormat,
          grantTypes: ['client_credentials'],
          redirectUris: [],
          scopes: ['notes:read'],
        });
        const config = await discovery(new URL(server.url), clientId, undefined, ClientSecretPost(secret), {
          execute: [allowInsecureRequests],
        });
        const { access_token: token } = await clientCredentialsGrant(config);
        expect(await authenticate(token)).toMatchObject({
          isAuthenticated: true,
          auth: { clientId, subject: clientId, scopes: ['notes:read'] },
        });
      }
    });

    it('holds a JWT to the audience it is asked for', async () => {
      const application = await server.application({ accessTokenFormat: 'jwt' });
      const { accessToken } = await signIn(application, { resource: API });
      expect(await authenticate(accessToken, { audience: API })).toMatchObject({ isAuthenticated: true });
      expect(await authenticate(accessToken, { audience: 'https://other.example.com/' })).toMatchObject({
        isAuthenticated: false,
      });
    });

    it('refuses an opaque token once it is revoked, its application disabled, or its grant withdrawn', async () => {
      const revokings = [
        (_: TestApplication, token: string) =>
          server.administer('oauthTokens.revokeByValue', { value: token }),
        ({ id }: TestApplication) => server.administer('oauthApplications.disable', { id }),
        ({ id }: TestApplication) => server.administer('oauthApplications.revokeTokens', { id }),
        ({ id }: TestApplication) => server.administer('oauthApplications.delete', { id }),
        async ({ id: applicationId }: TestApplication) => {
          const { data } = await server.administer('oauthGrants.list', { applicationId });
          await server.administer('oauthGrants.withdraw', { subject: data[0].subject, applicationId });
        },
      ];
      for (const revoke of revokings) {
        const application = await server.application();
        const { accessToken } = await signIn(application);
        expect(await authenticate(accessToken)).toMatchObject({ isAuthenticated: true });
        await revoke(application, accessToken);
        expect(await authenticate(accessToken)).toMatchObject({
          isAuthenticated: false,
          reason: 'token-invalid',
        });
      }
    });

    it('refuses an ID token, as an access token and as a session', async () => {
      const { idToken } = await signIn(await server.application());
      // Clerk's word for a token of another class.
      expect(decodeProtectedHeader(idToken)).toMatchObject({ cat: 'countersign_id' });
      expect(await authenticate(idToken)).toMatchObject({ isAuthenticated: false });
      const request = new Request('https://app.example.com/', {
        headers: { authorization: `Bearer ${idToken}` },
      });
      const state = await clerk.authenticateRequest(request, { publishableKey: PUBLISHABLE_KEY });
      expect(state).toMatchObject({ isAuthenticated: false, reason: 'token-type-mismatch' });
    });
  });

  describe('clerkMiddleware() of @clerk/express', () => {
    /** Who an application takes the bearer of a credential for, or the browser with it in Clerk's cookie. */
    async function serveApplication() {
      const app = express();
      app.use(
        clerkMiddleware({
          apiUrl: server.url,
          secretKey: server.adminKey,
          publishableKey: PUBLISHABLE_KEY,
        }),
      );
      app.get('/', (request, response) => {
        const { tokenType, isAuthenticated, userId } = getAuth(request, { acceptsToken: 'any' }) as {
          tokenType: string;
          isAuthenticated: boolean;
          userId?: string;
        };
        response.json({ tokenType, isAuthenticated, userId });
      });
      return (await listen(app)).url;
    }

    it('knows the bearer of an access token, and of an ID token nobody', async () => {
      const url = await serveApplication();
      const { accessToken, idToken } = await signIn(await server.application());
      const bearer = (token: string) => send(url, { headers: { authorization: `Bearer ${token}` } });
      expect(await bearer(accessToken)).toMatchObject({
        status: 200,
        body: { tokenType: 'oauth_token', isAuthenticated: true },
      });
      expect(await bearer(idToken)).toMatchObject({ status: 200, body: { isAuthenticated: false } });
      const without = await bearer(await withoutCategory(idToken));
      expect(without).toMatchObject({ status: 200, body: { isAuthenticated: true } });
    });

    it('takes our ID token in the cookie for no session, by its category alone', async () => {
      const url = await serveApplication();
      const { idToken } = await signIn(await server.application());
      // Cookies and navigations as Clerk's SDK in a browser makes them: no others reach the judging of the value.
      const suffix = createHash('sha1').update(PUBLISHABLE_KEY).digest('base64url').slice(0, 8);
      const navigate = (session: string) =>
        send(url, {
          headers: {
            accept: 'text/html',
            'sec-fetch-dest': 'document',
            cookie: `__session_${suffix}=${session}; __client_uat_${suffix}=1`,
          },
          redirect: 'manual',
        });
      const { sub } = decodeJwt(idToken);
      expect(await navigate(await withoutCategory(idToken))).toMatchObject({
        status: 200,
        body: { tokenType: 'session_token', isAuthenticated: true, userId: sub },
      });
      const refused = await navigate(idToken);
      expect(refused).toMatchObject({ status: 200, body: { isAuthenticated: false, userId: null } });
      expect(refused.headers.get('x-clerk-auth-reason')).toBe('token-type-mismatch');
    });

    /** The same claims, signed by the server's own key under a header without `cat`. */
    function withoutCategory(idToken: string): Promise<string> {
      const location = join(server.dataDir, 'countersign.db');
      return inspect({ location, settings: [], dataDirs: [server.dataDir] }, async ({ store, keyring }) => {
        const key = await createSigner(store, keyring).active();
        return key.sign({ typ: 'JWT' }, JSON.stringify(decodeJwt(idToken)));
      });
    }
  });

  describe('clerk.oauthApplications', () => {
    it('makes all seven calls', async () => {
      const created = await clerk.oauthApplications.create({
        name: 'Calendar',
        redirectUris: [CALLBACK],
        scopes: 'profile email openid offline_access',
      });
      expect(created).toMatchObject({
        name: 'Calendar',
        clientId: created.id,
        clientSecret: expect.stringMatching(/^oas_/),
        consentScreenEnabled: true,
        isPublic: false,
        redirectUris: [CALLBACK],
        authorizeUrl: `${server.url}/oauth/authorize`,
        tokenFetchUrl: `${server.url}/oauth/token`,
      });
      const { id: oauthApplicationId } = created;
      expect((await clerk.oauthApplications.get(oauthApplicationId)).clientSecret).toBeUndefined();
      const { data, totalCount } = await clerk.oauthApplications.list({ nameQuery: 'Calendar' });
      expect([data.map(({ id }) => id), totalCount]).toEqual([[oauthApplicationId], 1]);
      const updated = await clerk.oauthApplications.update({
        oauthApplicationId,
        name: 'Diary',
        redirectUris: [CALLBACK],
      });
      expect(updated.name).toBe('Diary');
      const { clientSecret } = await clerk.oauthApplications.rotateSecret(oauthApplicationId);
      expect(clientSecret).toMatch(/^oas_/);
      const tokens = await signIn({
        id: oauthApplicationId,
        clientId: updated.clientId,
        secret: clientSecret ?? '',
      });
      expect(await authenticate(tokens.accessToken)).toMatchObject({ isAuthenticated: true });
      await clerk.oauthApplications.revokeToken({ oauthApplicationId, token: tokens.refreshToken });
      expect(await authenticate(tokens.accessToken)).toMatchObject({ reason: 'token-invalid' });
      expect(await clerk.oauthApplications.delete(oauthApplicationId)).toMatchObject({ deleted: true });
    });

    it('keeps no old secret where none is asked for', async () => {
      const { id, clientId, secret } = await server.application({
        grantTypes: ['client_credentials'],
        redirectUris: [],
        scopes: ['notes:read'],
      });
      await clerk.oauthApplications.rotateSecret(id);
      const { status } = await send(`${server.url}/oauth/token`, {
        method: 'POST',
        body: new URLSearchParams({
          grant_type: 'client_credentials',
          client_id: clientId,
          client_secret: secret,
        }),
      });
      expect(status).toBe(401);
    });
  });
});
