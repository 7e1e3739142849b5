/** The page behind an invitation link: whoever has it chooses a password, and of a new account the name to sign in with. */
import { OauthError } from '../domain/oauth-errors.ts';
import { acceptInvitation, findInvitation, type OpenInvitation } from '../domain/user-invitations.ts';
import { PASSWORD_RULE } from '../domain/user-passwords.ts';
import { SIGN_IN_NAME_RULE } from '../domain/users.ts';
import { CountersignError } from '../errors.ts';
import { withBrowser } from './authorization.ts';
import { cookieIn } from './cookies.ts';
import { assertOurForm, csrfField } from './csrf.ts';
import type { OauthAnswer, OauthEndpoint, OauthRequest } from './endpoint.ts';
import { html, page } from './html.ts';
import { noAccounts, refusalOf } from './sign-in.ts';

const VALUE_LENGTH_MAX = 128;

export const invitationEndpoint: OauthEndpoint = {
  path: '/oauth/invitation',
  methods: ['GET', 'POST'],
  body: 'form',
  bytesMax: 8 * 1024,
  cors: false,
  refusals: 'page',
  async answer(request) {
    if (request.deps.signIn.kind !== 'local') throw noAccounts();
    return request.method === 'POST' ? accept(request) : show(request);
  },
};

async function show(request: OauthRequest): Promise<OauthAnswer> {
  const value = request.query.get('value') ?? '';
  const invitation = await readInvitation(request, value);
  return withBrowser(request, async (browser) =>
    invitationPage(request, browser, { value, invitation, name: invitation.email ?? '' }),
  );
}

async function readInvitation({ deps, address }: OauthRequest, value: string): Promise<OpenInvitation> {
  const found = value.length > VALUE_LENGTH_MAX ? null : await findInvitation(deps, value, address);
  if (found) return found;
  throw new OauthError('invalid_request', 'This link was used before, was taken back or has expired');
}

async function accept(request: OauthRequest): Promise<OauthAnswer> {
  const { deps, form, requestId, address } = request;
  assertOurForm(request);
  const value = form.get('value') ?? '';
  const invitation = await readInvitation(request, value);
  const given = { value, signInName: form.get('name') ?? '', password: form.get('password') ?? '' };
  const made =
    given.password === form.get('again')
      ? await acceptInvitation(deps, requestId, given, address).catch(refusalOf)
      : new CountersignError('invalid_input', 'Wanted the same password twice', { field: 'again' });
  if (!(made instanceof CountersignError)) return donePage(made.sourceSubject);
  const shown = { value, invitation, name: given.signInName, refused: made };
  return invitationPage(request, cookieIn(request, 'browser') ?? '', shown);
}

interface InvitationPage {
  value: string;
  invitation: OpenInvitation;
  /** As it was typed. */
  name: string;
  refused?: CountersignError;
}

function invitationPage(
  { deps }: OauthRequest,
  browser: string,
  { value, invitation, name, refused }: InvitationPage,
): OauthAnswer {
  const { signInName } = invitation;
  const isNew = signInName === null;
  const title = isNew ? 'Your account' : 'A new password';
  const badFor = (field: string) =>
    refused?.field === field && html` aria-invalid="true" aria-describedby="refused"`;
  const body = html`
    <h1>${title}</h1>
    ${invitation.name !== null && html`<p>Welcome, ${invitation.name}.</p>`}
    ${refused && html`<p class="bad" role="alert" id="refused">${refused.message}.</p>`}
    <form method="post" action="/oauth/invitation">
      ${csrfField(deps, browser)}
      <input type="hidden" name="value" value="${value}">
      <label for="name">Name to sign in with</label>
      ${
        isNew
          ? html`<input type="text" id="name" name="name" value="${name.slice(0, 128)}" maxlength="128" autocomplete="username" autocapitalize="none" spellcheck="false" required${badFor('signInName')}>
      <p class="quiet">${SIGN_IN_NAME_RULE}</p>`
          : html`<input type="text" id="name" value="${signInName}" autocomplete="username" readonly>`
      }
      <label for="password">Password</label>
      <input type="password" id="password" name="password" minlength="12" maxlength="256" autocomplete="new-password" required${badFor('password')}>
      <p class="quiet">${PASSWORD_RULE}</p>
      <label for="again">The same password again</label>
      <input type="password" id="again" name="again" maxlength="256" autocomplete="new-password" required${badFor('again')}>
      <div class="actions"><button class="primary" type="submit">${isNew ? 'Make the account' : 'Set the password'}</button></div>
    </form>`;
  return page({ title, body, ...(refused && { status: refused.status }) });
}

const donePage = (signInName: string): OauthAnswer =>
  page({
    title: 'Done',
    body: html`
    <h1>Done</h1>
    <p>You sign in as <strong>${signInName}</strong>: <a href="/oauth/sign-in">sign in now</a>, or go back to the application that asked you to.</p>`,
  });
