/** `passport-oauth2` 1 in an Express application: signing in with PKCE, and what it does when it is refused. */
import { randomUUID } from 'node:crypto';
import express from 'express';
import passport from 'passport';
import { Strategy } from 'passport-oauth2';
import { beforeAll, describe, expect, it } from 'vitest';
import type { TestApplication } from '../../support/authorization-server.ts';
import { whenSuiteDone } from '../../support/deps.ts';
import { openUserAgent } from '../../support/plain-browser.ts';
import { listen } from '../../support/procedures.ts';
import { cameBack, type Started, startAuthorizationServer } from '../../support/started.ts';

describe('passport-oauth2', () => {
  const whenDone = whenSuiteDone();
  let server: Started;

  beforeAll(async () => {
    server = await startAuthorizationServer({ whenDone });
  }, 300_000);

  /** An application with its own sessions, in memory, that signs in with ours. */
  async function serveApplication({ clientId, secret }: TestApplication): Promise<string> {
    const app = express();
    const { url } = await listen(app);
    const sessions = new Map<string, object>();
    app.use((request, response, next) => {
      const id = /sid=([\w-]+)/.exec(request.headers.cookie ?? '')?.[1] ?? randomUUID();
      if (!sessions.has(id)) sessions.set(id, {});
      Object.assign(request, { session: sessions.get(id) });
      response.setHeader('Set-Cookie', `sid=${id}; Path=/`);
      next();
    });
    const strategy = new Strategy(
      {
        authorizationURL: `${server.url}/oauth/authorize`,
        tokenURL: `${server.url}/oauth/token`,
        clientID: clientId,
        clientSecret: secret,
        callbackURL: `${url}/callback`,
        scope: ['openid', 'offline_access'],
        state: true,
        pkce: true,
      },
      (accessToken: string, refreshToken: string, params: object, _: unknown, done: Done) =>
        done(null, { accessToken, refreshToken, params }),
    );
    const authenticate = passport.authenticate(strategy, { session: false });
    app.get('/sign-in', authenticate);
    app.get('/callback', authenticate, (request, response) => void response.json(request.user));
    app.use(((error: Error, _request, response, _next) => {
      response.status(500).json({ name: error.name, code: 'code' in error ? error.code : null });
    }) satisfies express.ErrorRequestHandler);
    return url;
  }

  type Done = (error: Error | null, user?: object) => void;

  /** The application's and our server's sites by turns, as a browser goes. */
  async function signIn(site: string) {
    const agent = openUserAgent(site);
    const { left } = await agent.open(`${site}/sign-in`);
    const back = cameBack(await server.allow(left?.url ?? ''));
    return { agent, back };
  }

  it('signs in with state and PKCE', async () => {
    // Its port is free, as of every redirect URI on loopback.
    const application = await server.application({ redirectUris: ['http://127.0.0.1/callback'] });
    const { agent, back } = await signIn(await serveApplication(application));
    const { status, text } = await agent.open(back);
    expect(status).toBe(200);
    expect(JSON.parse(text)).toMatchObject({
      accessToken: expect.stringMatching(/^oat_/),
      refreshToken: expect.stringMatching(/^ort_/),
      params: { token_type: 'Bearer', scope: 'openid offline_access' },
    });
  });

  it('is told the error of a code that is used again, and of one that another session asked for', async () => {
    const application = await server.application({ redirectUris: ['http://127.0.0.1/callback'] });
    const site = await serveApplication(application);
    const { back } = await signIn(site);
    // Without the session that has its state.
    expect((await openUserAgent(site).open(back)).status).toBe(403);
    const { agent, back: second } = await signIn(site);
    second.searchParams.set('code', back.searchParams.get('code') ?? '');
    const { status, text } = await agent.open(second);
    expect(status).toBe(500);
    expect(JSON.parse(text)).toEqual({ name: 'TokenError', code: 'invalid_grant' });
  });
});
