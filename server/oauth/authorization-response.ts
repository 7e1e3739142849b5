/** How an authorization request is answered: by a redirect, or by a form that the browser posts (OAuth 2.0 Form Post Response Mode). */
import { type OauthAnswer, redirect } from './endpoint.ts';
import { formTargetOf, html, page } from './html.ts';

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
  const url = new URL(redirectUri);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return redirect(url.href);
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
  return page({ title: 'Going back', body, formTargets: [formTargetOf(redirectUri)], script: SUBMIT });
}
