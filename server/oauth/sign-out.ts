/** Signing out: asked first, for a link of another page must not do it. */
import { endUserSession } from '../domain/user-sessions.ts';
import { withBrowser } from './authorization.ts';
import { cookieIn, endedCookie } from './cookies.ts';
import { assertOurForm, csrfField } from './csrf.ts';
import type { OauthAnswer, OauthEndpoint, OauthRequest } from './endpoint.ts';
import { html, page } from './html.ts';

export const signOutEndpoint: OauthEndpoint = {
  path: '/oauth/sign-out',
  methods: ['GET', 'POST'],
  body: 'form',
  bytesMax: 2 * 1024,
  cors: false,
  refusals: 'page',
  answer: (request) => (request.method === 'POST' ? signOut(request) : ask(request)),
};

const ask = (request: OauthRequest): Promise<OauthAnswer> =>
  withBrowser(request, async (browser) =>
    page({
      title: 'Sign out',
      body: html`
    <h1>Sign out?</h1>
    <p>Applications that you allowed go on; <a href="/oauth/applications">see which</a>.</p>
    <form method="post" action="/oauth/sign-out">
      ${csrfField(request.deps, browser)}
      <div class="actions"><button class="primary" type="submit">Sign out</button></div>
    </form>`,
    }),
  );

async function signOut(request: OauthRequest): Promise<OauthAnswer> {
  const { deps } = request;
  assertOurForm(request);
  const value = cookieIn(request, 'session');
  if (value !== undefined) await endUserSession(deps, value);
  return signedOutPage({ 'Set-Cookie': endedCookie(deps, 'session') });
}

export const signedOutPage = (headers: OauthAnswer['headers'] = {}): OauthAnswer =>
  page({
    title: 'Signed out',
    body: html`
    <h1>You are signed out</h1>
    <p><a href="/oauth/sign-in">Sign in</a> again, or close this page.</p>`,
    headers,
  });
