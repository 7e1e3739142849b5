/** The authorization server inside a test's own process, at a URL of its own, and people who use it. */
import { createHash } from 'node:crypto';
import { onTestFinished } from 'vitest';
import type { z } from 'zod';
import type { SigningAlg } from '../../server/crypto/jwt.ts';
import type { Deps } from '../../server/deps.ts';
import { completeInteraction, completeInteractionInput } from '../../server/domain/interaction-outcomes.ts';
import {
  createOauthApplication,
  createOauthApplicationInput,
} from '../../server/domain/oauth-applications.ts';
import { createOauthScope, createOauthScopeInput } from '../../server/domain/oauth-scopes.ts';
import { beginUserSession } from '../../server/domain/user-sessions.ts';
import { createFeeds } from '../../server/feed.ts';
import { createHotRoutes, type HotRoutes } from '../../server/hot.ts';
import { createLogger } from '../../server/logger.ts';
import { callerWith, type Dialect, openTestDeps, type TestDeps } from './deps.ts';
import { openUserAgent, type Page, type UserAgent } from './plain-browser.ts';
import { listen } from './procedures.ts';
import { type Answer, send } from './server.ts';
import { newPkce } from './user-agent.ts';

/** Where the host application signs people in, of a hand-off. */
export const SIGN_IN_PAGE = 'https://host.example.com/sign-in';
export const REDIRECT_URI = 'https://app.example.com/callback';
export const USER = `user_${'2'.repeat(27)}`;

const CLAIMS = { name: 'Ada Lovelace', email: 'ada@example.com', email_verified: true };

export interface ServedOauth {
  deps: TestDeps;
  url: string;
  /** What went wrong inside, whatever was answered. */
  failures: unknown[];
  application(input?: Partial<z.input<typeof createOauthApplicationInput>>): Promise<TestApplication>;
  scope(name: string, input?: Partial<z.input<typeof createOauthScopeInput>>): Promise<void>;
  /** A browser in which somebody is signed in; with null, nobody. */
  browser(subject?: string | null): Promise<UserAgent>;
  /** A code that a user allowed an application, and what it is redeemed with. */
  code(application: TestApplication, params?: Form, agent?: UserAgent): Promise<Redeemable>;
  /** What the whole flow hands out. */
  tokens(application: TestApplication, params?: Form): Promise<Handed>;
  /** As the host application's backend, signs somebody in: where the browser is to go on. */
  handOff(
    interactionId: string,
    subject: string,
    more?: Partial<z.input<typeof completeInteractionInput>>,
  ): Promise<string>;
  /** Posts a form, as applications do. */
  post(path: string, form: Form, headers?: Record<string, string>): Promise<Answer>;
}

export type Form = Record<string, string | readonly string[] | undefined>;

export interface TestApplication {
  id: string;
  clientId: string;
  secret: string;
}

export interface Redeemable {
  code: string;
  /** The form of the token request, without who asks. */
  form: Record<string, string>;
}

export interface Handed {
  code: string;
  accessToken: string;
  refreshToken: string;
  idToken: string;
}

interface Options {
  signingAlg?: SigningAlg;
  signIn?: Deps['signIn'];
  tokensPerMinute?: number;
}

export async function serveOauth(
  dialect: Dialect,
  {
    signingAlg = 'ES256',
    signIn = { kind: 'handoff', url: SIGN_IN_PAGE },
    tokensPerMinute: oauthTokensPerMinute = 6_000,
  }: Options = {},
): Promise<ServedOauth> {
  // Others judge our times by theirs.
  const opened = await openTestDeps(dialect, { signingAlg, startsAt: Date.now() });
  let routes: HotRoutes | undefined;
  const { url } = await listen((request, response) => {
    if (!routes?.(request, response, 'req_test', 0)) response.writeHead(404).end();
  });
  const deps = { ...opened, publicUrl: url, signIn, oauthTokensPerMinute };
  const feeds = createFeeds(deps, createLogger('silent'));
  onTestFinished(() => feeds.close());
  const failures: unknown[] = [];
  routes = createHotRoutes({
    deps,
    feeds,
    addressOf: ({ socket }) => socket.remoteAddress ?? '',
    report: ({ cause, message }) => failures.push(cause ?? message),
  });
  const admin = callerWith('admin');

  async function browser(subject: string | null = USER): Promise<UserAgent> {
    const agent = openUserAgent(url);
    if (subject !== null) {
      const who = { subject, source: 'handoff', claims: CLAIMS, organizations: [], rememberSeconds: 86_400 };
      agent.cookies.set('countersign_session', (await beginUserSession(deps, who)).value);
    }
    return agent;
  }

  const post: ServedOauth['post'] = (path, form, headers = {}) =>
    send(url + path, { method: 'POST', body: formOf(form), headers });

  async function code(
    application: TestApplication,
    params: Form = {},
    agent?: UserAgent,
  ): Promise<Redeemable> {
    const { verifier, challenge } = newPkce();
    const query = { ...authorizeParams(application, challenge), ...params };
    const page = await allow(agent ?? (await browser()), `${url}/oauth/authorize?${formOf(query)}`);
    const value = answeredBy(page).get('code') ?? '';
    const form = {
      grant_type: 'authorization_code',
      code: value,
      redirect_uri: String(query.redirect_uri),
      code_verifier: verifier,
    };
    return { code: value, form };
  }

  return {
    deps,
    url,
    failures,
    browser,
    post,
    code,
    async tokens(application, params) {
      const redeemable = await code(application, params);
      const { status, body } = await post('/oauth/token', {
        ...redeemable.form,
        ...clientOf(application),
      });
      if (status !== 200) throw new Error(`Wanted tokens, found ${status} ${JSON.stringify(body)}`);
      return {
        code: redeemable.code,
        accessToken: body.access_token,
        refreshToken: body.refresh_token,
        idToken: body.id_token,
      };
    },
    async handOff(id, subject, more = {}) {
      const input = completeInteractionInput.parse({ id, subject, ...more });
      return (await completeInteraction(deps, input)).resumeUrl;
    },
    async application(input = {}) {
      const parsed = createOauthApplicationInput.parse({
        name: 'Notebook',
        redirectUris: [REDIRECT_URI],
        ...input,
      });
      const { id, clientId, secret = '' } = await createOauthApplication(deps, admin, parsed);
      return { id, clientId, secret };
    },
    async scope(name, input = {}) {
      const parsed = createOauthScopeInput.parse({ name, description: `May ${name}`, ...input });
      await createOauthScope(deps, admin, parsed);
    },
  };
}

export const authorizeParams = ({ clientId }: Pick<TestApplication, 'clientId'>, challenge: string) => ({
  client_id: clientId,
  response_type: 'code',
  redirect_uri: REDIRECT_URI,
  scope: 'openid profile offline_access',
  state: 'af0ifjsldkj',
  code_challenge: challenge,
  code_challenge_method: 'S256',
});

/** Who asks, in the body: by a secret where there is one. */
export const clientOf = ({ clientId, secret }: Pick<TestApplication, 'clientId' | 'secret'>) => ({
  client_id: clientId,
  ...(secret !== '' && { client_secret: secret }),
});

export function formOf(form: Form): URLSearchParams {
  const params = new URLSearchParams();
  for (const [name, given] of Object.entries(form))
    for (const value of given === undefined ? [] : [given].flat()) params.append(name, value);
  return params;
}

export const basic = ({ clientId, secret }: Pick<TestApplication, 'clientId' | 'secret'>) => ({
  authorization: `Basic ${Buffer.from(`${clientId}:${secret}`).toString('base64')}`,
});

export const challengeOf = (verifier: string) => createHash('sha256').update(verifier).digest('base64url');

/** Walks the pages that stand between an authorization request and its answer: whoever is asked, allows. */
export async function allow(agent: UserAgent, url: string | URL): Promise<Page> {
  let page = await agent.open(url);
  for (let pages = 0; page.left === null && page.forms.length > 0 && pages < 3; pages++)
    page = await agent.submit(page, {}, /allow/i);
  return page;
}

/** The parameters an application is sent back with, by query or by form. */
export function answeredBy({ left, status, text }: Page): URLSearchParams {
  if (!left) throw new Error(`Wanted to be sent back to the application, found ${status} ${text}`);
  return left.form ?? left.url.searchParams;
}
