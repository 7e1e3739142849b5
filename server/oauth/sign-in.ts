/** Where users say who they are: the page for local accounts, and the way there. */

import { signInLocally } from '../domain/local-sign-in.ts';
import { OauthError } from '../domain/oauth-errors.ts';
import { findInteraction, type Interaction } from '../domain/oauth-interactions.ts';
import { beginUserSession, endUserSession } from '../domain/user-sessions.ts';
import { CountersignError } from '../errors.ts';
import { continueInteraction } from './authorization.ts';
import { cookie, cookieIn } from './cookies.ts';
import { assertOurForm, csrfField } from './csrf.ts';
import { type OauthAnswer, type OauthEndpoint, type OauthRequest, redirect } from './endpoint.ts';
import { formTargetOf, html, page } from './html.ts';

const PATH = '/oauth/sign-in';
const BODY_BYTES_MAX = 8 * 1024;

export const signInEndpoint: OauthEndpoint = {
  path: PATH,
  methods: ['GET', 'POST'],
  body: 'form',
  bytesMax: BODY_BYTES_MAX,
  cors: false,
  refusals: 'page',
  async answer(request) {
    const isPosted = request.method === 'POST';
    const interaction = await readInteraction(
      request,
      (isPosted ? request.form : request.query).get('interaction'),
    );
    return isPosted ? signIn(request, interaction) : signInPage(request, interaction, {});
  },
};

/** Sends the user to where they say who they are. */
export async function startSignIn({ deps }: OauthRequest, { id }: Interaction): Promise<OauthAnswer> {
  return redirect(`${deps.publicUrl}${PATH}?interaction=${id}`);
}

async function readInteraction(request: OauthRequest, id: string | null): Promise<Interaction> {
  const interaction = await findInteraction(request.deps, id ?? undefined, cookieIn(request, 'browser'));
  if (interaction) return interaction;
  throw new OauthError(
    'invalid_request',
    'This sign-in was finished before, took too long, or began in another browser',
  );
}

/** A new session, whatever the browser had before: nobody could have put it there. */
async function signIn(request: OauthRequest, interaction: Interaction): Promise<OauthAnswer> {
  assertOurForm(request);
  const { deps, form, address } = request;
  const signInName = form.get('name') ?? '';
  try {
    const who = await signInLocally(deps, { signInName, password: form.get('password') ?? '' }, address);
    const before = cookieIn(request, 'session');
    const { value, user } = await beginUserSession(deps, who);
    if (before !== undefined) await endUserSession(deps, before);
    const answer = await continueInteraction(request, interaction, user);
    const set = [answer.headers['Set-Cookie'] ?? [], cookie(deps, 'session', value)].flat();
    return { ...answer, headers: { ...answer.headers, 'Set-Cookie': set } };
  } catch (error) {
    if (!(error instanceof CountersignError) || !['unauthenticated', 'rate_limited'].includes(error.code))
      throw error;
    return signInPage(request, interaction, { problem: error, signInName });
  }
}

interface Shown {
  problem?: CountersignError;
  signInName?: string;
}

function signInPage(
  request: OauthRequest,
  interaction: Interaction,
  { problem, signInName }: Shown,
): OauthAnswer {
  const hint = interaction.parameters['login_hint'];
  const name = signInName ?? (typeof hint === 'string' ? hint : '');
  const redirectUri = interaction.parameters['redirect_uri'];
  const body = html`
    <h1>Sign in</h1>
    ${problem && html`<p class="bad" role="alert" id="problem">${problem.message}.</p>`}
    <form method="post" action="${PATH}">
      ${csrfField(request.deps, cookieIn(request, 'browser') ?? '')}
      <input type="hidden" name="interaction" value="${interaction.id}">
      <label for="name">Name</label>
      <input type="text" id="name" name="name" value="${name}" autocomplete="username" autocapitalize="none" spellcheck="false" required maxlength="128"${problem ? html` aria-describedby="problem"` : null}>
      <label for="password">Password</label>
      <input type="password" id="password" name="password" autocomplete="current-password" required maxlength="1024">
      <div class="actions"><button class="primary" type="submit">Sign in</button></div>
    </form>`;
  return page({
    title: 'Sign in',
    body,
    status: problem?.status ?? 200,
    ...(typeof redirectUri === 'string' && { formTargets: [formTargetOf(redirectUri)] }),
  });
}
