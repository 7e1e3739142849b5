/** Signing in: the page of local accounts, and the way to wherever else users sign in. */
import { signInLocally } from '../domain/local-sign-in.ts';
import { OauthError } from '../domain/oauth-errors.ts';
import {
  createInteraction,
  endInteraction,
  findInteraction,
  type Interaction,
} from '../domain/oauth-interactions.ts';
import { redirectHostOf } from '../domain/redirect-uris.ts';
import { startUpstream } from '../domain/upstream-sign-in.ts';
import {
  beginUserSession,
  endUserSession,
  findUserSession,
  type NewlySignedIn,
} from '../domain/user-sessions.ts';
import { CountersignError, secondsToRetry } from '../errors.ts';
import { continueInteraction, readInteractionRequest, type Target, withBrowser } from './authorization.ts';
import { answerToForm, respond } from './authorization-response.ts';
import { cookie, cookieIn } from './cookies.ts';
import { assertOurForm, csrfField } from './csrf.ts';
import {
  type OauthAnswer,
  type OauthEndpoint,
  type OauthRequest,
  redirect,
  refusal,
  toOauthError,
} from './endpoint.ts';
import { html, page } from './html.ts';

const FORM_BYTES_MAX = 8 * 1024;

/** Where users see what they allowed: the one place to go after signing in that no application asked for. */
export const ACCOUNT_PATH = '/oauth/applications';

/** Sends the browser to where its user signs in; an interaction waits for it. */
export async function startSignIn({ deps }: OauthRequest, interaction: Interaction): Promise<OauthAnswer> {
  switch (deps.signIn.kind) {
    case 'local':
      return redirect(`${deps.publicUrl}/oauth/sign-in?interaction=${interaction.id}`);
    case 'handoff': {
      const url = new URL(deps.signIn.url);
      url.searchParams.set('interaction', interaction.id);
      return redirect(url.href);
    }
    case 'oidc':
      return redirect(await startUpstream(deps, deps.signIn, interaction));
  }
}

/**
 * Begins a session of a new value, whatever the browser had before, and goes on with what waited for it: an interaction, or
 * else what its user allowed applications.
 */
export async function finishSignIn(
  request: OauthRequest,
  interaction: Interaction | null,
  who: NewlySignedIn,
  goOn: typeof continueInteraction = continueInteraction,
): Promise<OauthAnswer> {
  const { deps } = request;
  const before = cookieIn(request, 'session');
  if (before !== undefined) await endUserSession(deps, before);
  const { value, user } = await beginUserSession(deps, who);
  const goingOn =
    interaction && interaction.applicationId !== null
      ? goOn(request, interaction, user)
      : toAccount(request, interaction);
  // Whoever cannot go on is signed in all the same: the session of before is over.
  const answer = await goingOn.catch((error: unknown) => refusalPage(request, error));
  const cookies = [answer.headers['Set-Cookie'] ?? [], cookie(deps, 'session', value)].flat();
  return { ...answer, headers: { ...answer.headers, 'Set-Cookie': cookies } };
}

function refusalPage({ requestId }: OauthRequest, error: unknown): OauthAnswer {
  if (!(error instanceof OauthError) && !(error instanceof CountersignError)) throw error;
  return refusal(signInEndpoint, toOauthError(error), requestId);
}

async function toAccount({ deps }: OauthRequest, interaction: Interaction | null): Promise<OauthAnswer> {
  if (interaction) await deps.store.tx((tx) => endInteraction(tx, interaction.id), 'minting');
  return redirect(`${deps.publicUrl}${ACCOUNT_PATH}`);
}

export const signInEndpoint: OauthEndpoint = {
  path: '/oauth/sign-in',
  methods: ['GET', 'POST'],
  body: 'form',
  bytesMax: FORM_BYTES_MAX,
  cors: false,
  refusals: 'page',
  answer: async (request) =>
    request.method === 'POST' ? answerToForm(request.deps, await answerForm(request)) : showForm(request),
};

async function showForm(request: OauthRequest): Promise<OauthAnswer> {
  const { deps, query } = request;
  const interaction = await interactionNamed(request, query.get('interaction'));
  if (deps.signIn.kind !== 'local')
    return withBrowser(request, async (browser) =>
      startSignIn(request, interaction ?? (await ofAccount(request, browser))),
    );
  if (!interaction && (await findUserSession(deps, cookieIn(request, 'session'))))
    return toAccount(request, null);
  const asked = await readAsked(request, interaction);
  return withBrowser(request, async (browser) =>
    signInPage(request, browser, { interaction, asked, name: asked?.loginHint ?? '' }),
  );
}

/** Null where none is named: then nothing but the account waits. */
async function interactionNamed(request: OauthRequest, id: string | null): Promise<Interaction | null> {
  if (!id) return null;
  const found = await findInteraction(request.deps, id, cookieIn(request, 'browser'));
  if (found) return found;
  throw interactionNotFound();
}

export const interactionNotFound = () =>
  new OauthError(
    'invalid_request',
    'This sign-in was begun in another browser, was finished before, or took too long',
  );

/** An interaction that no application asked for. */
const ofAccount = ({ deps, address }: OauthRequest, browser: string): Promise<Interaction> =>
  createInteraction(deps, { applicationId: null, parameters: {}, step: 'sign_in', browser, address });

interface AskedFor {
  target: Target;
  loginHint: string | undefined;
}

async function readAsked(request: OauthRequest, interaction: Interaction | null): Promise<AskedFor | null> {
  if (!interaction || interaction.applicationId === null) return null;
  const { target } = await readInteractionRequest(request, interaction);
  return { target, loginHint: [interaction.parameters['login_hint'] ?? []].flat()[0] };
}

interface SignInPage {
  interaction: Interaction | null;
  asked: AskedFor | null;
  /** The name to sign in with, as it was typed. */
  name: string;
  refused?: CountersignError;
}

const NAME_LENGTH_MAX = 128;

function signInPage(
  { deps }: OauthRequest,
  browser: string,
  { interaction, asked, name, refused }: SignInPage,
): OauthAnswer {
  const target = asked?.target;
  const retryAfterSeconds = refused && secondsToRetry(refused);
  const body = html`
    <h1>Sign in</h1>
    ${target && html`<p>to go on to <strong>${target.application.name}</strong>, at ${redirectHostOf(target.redirectUri)}</p>`}
    ${refused && html`<p class="bad" role="alert" id="refused">${refused.message}.</p>`}
    <form method="post" action="/oauth/sign-in">
      ${csrfField(deps, browser)}
      ${interaction && html`<input type="hidden" name="interaction" value="${interaction.id}">`}
      <label for="name">Name</label>
      <input type="text" id="name" name="name" value="${name.slice(0, NAME_LENGTH_MAX)}" maxlength="${NAME_LENGTH_MAX}" autocomplete="username" autocapitalize="none" spellcheck="false" required${describedBy(refused)}>
      <label for="password">Password</label>
      <input type="password" id="password" name="password" maxlength="1024" autocomplete="current-password" required${describedBy(refused)}>
      <div class="actions">
        <button class="primary" type="submit">Sign in</button>
        ${target && html`<button type="submit" name="cancel" value="yes" formnovalidate>Cancel</button>`}
      </div>
    </form>`;
  return page({
    title: 'Sign in',
    body,
    isOnTheWay: true,
    ...(refused && { status: refused.status === 401 ? 400 : refused.status }),
    ...(retryAfterSeconds !== undefined && { headers: { 'Retry-After': `${retryAfterSeconds}` } }),
  });
}

const describedBy = (refused: CountersignError | undefined) => refused && html` aria-describedby="refused"`;

async function answerForm(request: OauthRequest): Promise<OauthAnswer> {
  const { deps, form, address } = request;
  assertOurForm(request);
  if (deps.signIn.kind !== 'local') throw noAccounts();
  const interaction = await interactionNamed(request, form.get('interaction'));
  if (form.get('cancel') !== null && interaction) return cancel(request, interaction, 'access_denied');
  const given = { signInName: form.get('name') ?? '', password: form.get('password') ?? '' };
  const found = await signInLocally(deps, given, address).catch(refusalOf);
  if (!(found instanceof CountersignError)) return finishSignIn(request, interaction, found);
  const asked = await readAsked(request, interaction);
  const shown = { interaction, asked, name: given.signInName, refused: found };
  return signInPage(request, cookieIn(request, 'browser') ?? '', shown);
}

/** What the page says to whoever filled it in; the rest is not theirs. */
export function refusalOf(error: unknown): CountersignError {
  if (error instanceof CountersignError && error.status < 500) return error;
  throw error;
}

export const noAccounts = () => new OauthError('access_denied', 'Nobody has a password here');

/** Tells the application that nobody was let in. Of two that finish an interaction, one does. */
export async function cancel(
  request: OauthRequest,
  interaction: Interaction,
  error: 'access_denied' | 'login_required' | 'temporarily_unavailable',
): Promise<OauthAnswer> {
  const { deps } = request;
  if (interaction.applicationId === null) return toAccount(request, interaction);
  const { target } = await readInteractionRequest(request, interaction);
  if (!(await deps.store.tx((tx) => endInteraction(tx, interaction.id), 'minting')))
    throw interactionNotFound();
  return respond(target, { error, error_description: 'The user was not signed in' });
}
