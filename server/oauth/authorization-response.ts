/**
 * How an authorization request is answered: by a redirect, or a page that stands for one, or by a form that the browser posts
 * (OAuth 2.0 Form Post Response Mode).
 */
import type { Deps } from '../deps.ts';
import { redirectHostOf } from '../domain/redirect-uris.ts';
import { type OauthAnswer, redirect } from './endpoint.ts';
import { html, page } from './html.ts';

export type ResponseMode = 'query' | 'form_post';

interface Target {
  redirectUri: string;
  responseMode: ResponseMode;
  state: string | undefined;
  issuer: string;
}

/** `iss` goes with every answer (RFC 9207), so that no answer is taken for another server's. */
export function respond(
  { redirectUri, responseMode, state, issuer }: Target,
  answer: Record<string, string>,
): OauthAnswer {
  const parameters = { ...answer, ...(state !== undefined && { state }), iss: issuer };
  if (responseMode === 'form_post') return postedForm(redirectUri, parameters);
  // A query of its own is retained (RFC 6749, section 3.1.2), to the letter; there is no fragment that it would come after.
  return redirect(`${redirectUri}${redirectUri.includes('?') ? '&' : '?'}${new URLSearchParams(parameters)}`);
}

/**
 * What a form of ours, or a page that one leads to, is answered with: as it is, but for a redirect away from this server.
 * Browsers hold each redirect that follows a form against `form-action` of the page with the form, those of the application
 * further on too, which nobody here knows; a page that leads there itself lets them begin anew.
 */
export function answerToForm({ publicUrl }: Pick<Deps, 'publicUrl'>, answer: OauthAnswer): OauthAnswer {
  const { Location: to, ...headers } = answer.headers;
  if (typeof to !== 'string' || to.startsWith(`${publicUrl}/oauth/`)) return answer;
  const title = `Going back to ${redirectHostOf(to)}`;
  const body = html`
    <h1>${title}</h1>
    <p>You are sent there by itself. If nothing happens, <a href="${to}">continue</a>.</p>`;
  return page({ title, body, headers, refresh: to, isOnTheWay: true });
}

const SUBMIT = 'document.forms[0].submit();';

function postedForm(redirectUri: string, parameters: Record<string, string>): OauthAnswer {
  const fields = Object.entries(parameters).map(
    ([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`,
  );
  const body = html`
    <h1>Going back</h1>
    <form method="post" action="${redirectUri}">${fields}
      <p>You are sent back to the application.</p>
      <div class="actions"><button class="primary" type="submit">Continue</button></div>
    </form>`;
  return page({ title: 'Going back', body, script: SUBMIT, isForApplication: true, isOnTheWay: true });
}
