/**
 * An authorization request (RFC 6749, section 4.1.1; OpenID Connect Core 1.0, section 3.1.2.1): checked in a fixed order, then
 * consented to where it must be, then answered with a code. Until client and redirect URI are proven, whatever is wrong is
 * told on a page of ours; from there on by a redirect, with `iss` (RFC 9207).
 */
import { freshBytes } from '../crypto/random.ts';
import type { Deps } from '../deps.ts';
import { findApplication } from '../domain/application-lookup.ts';
import type { ApplicationRow } from '../domain/oauth-applications.ts';
import { authorizeSilently, withoutAsking } from '../domain/oauth-consents.ts';
import { OauthError } from '../domain/oauth-errors.ts';
import type { UserClaims } from '../domain/oauth-grants.ts';
import { createInteraction, type Interaction, setInteractionStep } from '../domain/oauth-interactions.ts';
import { resourcesAsked, scopesNamed, scopesOfAuthorization } from '../domain/oauth-requests.ts';
import { isRegisteredRedirectUri } from '../domain/redirect-uris.ts';
import { CountersignError } from '../errors.ts';
import { type ResponseMode, respond } from './authorization-response.ts';
import { cookie, cookieIn } from './cookies.ts';
import { type OauthAnswer, type OauthRequest, parametersOf, redirect, toOauthError } from './endpoint.ts';

/** Who is signed in, as far as a grant has to know. */
export interface AuthorizingUser {
  subject: string;
  authTime: number;
  claims: UserClaims;
  /** Those they may act for. */
  organizations: { id: string; name: string }[];
}

/** What users are called to themselves. */
export const nameOf = ({ claims, subject }: Pick<AuthorizingUser, 'claims' | 'subject'>): string =>
  claims.name ?? claims.preferred_username ?? claims.email ?? subject;

/** Where an answer goes: proven before anything is sent there. */
export interface Target {
  application: ApplicationRow;
  redirectUri: string;
  /** Whether the request named it. */
  redirectUriGiven: boolean;
  responseMode: ResponseMode;
  state: string | undefined;
  issuer: string;
}

const STATE_LENGTH_MAX = 4_096;

/** Errors of this go to a page of ours: nobody is sent to a URI that was not registered. */
export async function proveTarget(request: OauthRequest, given: URLSearchParams): Promise<Target> {
  const [clientId, ...others] = given.getAll('client_id');
  if (!clientId || others.length > 0) throw new OauthError('invalid_request', "Wanted 'client_id' once");
  const application = await findApplication(request.deps, clientId, request);
  if (!application?.enabled)
    throw new OauthError(
      'invalid_client',
      'The application that sent you here is not known, or was disabled',
      {
        status: 400,
      },
    );
  // One without a value counts as left out (RFC 6749, section 3.1).
  const redirectUris = given.getAll('redirect_uri').filter((uri) => uri !== '');
  const redirectUri = redirectUriOf(application, redirectUris);
  const state = given.get('state') || undefined;
  return {
    application,
    ...redirectUri,
    responseMode: given.get('response_mode') === 'form_post' ? 'form_post' : 'query',
    state: state !== undefined && state.length <= STATE_LENGTH_MAX ? state : undefined,
    issuer: request.deps.publicUrl,
  };
}

/** RFC 6749, section 3.1.2.3: it may be left out where one is registered. */
function redirectUriOf(
  { redirect_uris: registered }: ApplicationRow,
  [given, ...others]: string[],
): Pick<Target, 'redirectUri' | 'redirectUriGiven'> {
  const [first, ...more] = registered;
  if (given === undefined && first !== undefined && more.length === 0)
    return { redirectUri: first, redirectUriGiven: false };
  if (given !== undefined && others.length === 0 && isRegisteredRedirectUri(registered, given))
    return { redirectUri: given, redirectUriGiven: true };
  throw new OauthError(
    'invalid_request',
    given === undefined
      ? "Wanted 'redirect_uri', found none"
      : 'The address that the application wants you sent back to is not one that it registered',
  );
}

/** Runs what may be refused, and tells a refusal where the answer would go. */
export async function toldByRedirect(target: Target, run: () => Promise<OauthAnswer>): Promise<OauthAnswer> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof OauthError) && !(error instanceof CountersignError)) throw error;
    const { code, message } = toOauthError(error);
    return respond(target, { error: code, error_description: message });
  }
}

/** A request that was found sound. */
export interface Asked {
  target: Target;
  scopes: string[];
  resources: string[];
  nonce: string | null;
  codeChallenge: string | null;
  prompts: ReadonlySet<string>;
  maxAgeSeconds: number | null;
  /** As they came, for an interaction to go on with. */
  parameters: Record<string, string | string[]>;
}

type Parameters = ReturnType<typeof parametersOf>;

/** In this order: the first that is wrong is told. */
export async function checkRequest(deps: Deps, target: Target, given: URLSearchParams): Promise<Asked> {
  const parameters = parametersOf(given, ['resource']);
  const { application } = target;
  assertSupported(parameters);
  if (!application.grant_types.includes('authorization_code'))
    throw new OauthError('unauthorized_client', "The application may not use 'response_type' 'code'");
  const codeChallenge = codeChallengeOf(application, parameters);
  const prompts = promptsOf(parameters);
  const resources = resourcesAsked(application, parameters.all('resource'));
  const named = scopesNamed(parameters['scope']);
  const scopes = await scopesOfAuthorization(deps, application, named, resources);
  return {
    target,
    scopes,
    resources,
    nonce: parameters['nonce'] ?? null,
    codeChallenge,
    prompts,
    maxAgeSeconds: maxAgeOf(parameters),
    parameters: { ...withValue(given), ...(resources.length > 0 && { resource: resources }) },
  };
}

/** One without a value counts as left out, to whoever goes on with them too. */
const withValue = (given: URLSearchParams) =>
  Object.fromEntries([...given].filter(([, value]) => value !== ''));

const RESPONSE_MODES = ['query', 'form_post'];

/** Well beyond what honest ones need; what is not here has a form of its own, or is looked at by nobody. */
const LENGTHS_MAX = {
  state: STATE_LENGTH_MAX,
  nonce: 512,
  login_hint: 1_024,
  ui_locales: 512,
  acr_values: 512,
  display: 64,
} as const;

function assertSupported(parameters: Parameters): void {
  if (parameters['request'] !== undefined)
    throw new OauthError('request_not_supported', "Wanted plain parameters, found 'request'");
  if (parameters['request_uri'] !== undefined)
    throw new OauthError('request_uri_not_supported', "Wanted plain parameters, found 'request_uri'");
  if (parameters['registration'] !== undefined)
    throw new OauthError(
      'registration_not_supported',
      "Wanted a registered application, found 'registration'",
    );
  const { response_type: type, response_mode: mode } = parameters;
  if (type === undefined) throw new OauthError('invalid_request', "Wanted 'response_type', found none");
  if (type !== 'code')
    throw new OauthError('unsupported_response_type', "Wanted 'response_type' to be 'code'");
  if (mode !== undefined && !RESPONSE_MODES.includes(mode))
    throw new OauthError('invalid_request', "Wanted 'response_mode' to be 'query' or 'form_post'");
  for (const [name, most] of Object.entries(LENGTHS_MAX))
    if ((parameters[name] ?? '').length > most)
      throw new OauthError('invalid_request', `Wanted '${name}' of at most ${most} characters`);
}

/** RFC 7636, section 4.2: S256 is 43 characters of base64url. */
const CHALLENGE = /^[A-Za-z0-9_-]{43}$/;

function codeChallengeOf(
  { pkce_required, public: isPublic }: ApplicationRow,
  parameters: Parameters,
): string | null {
  const { code_challenge: challenge, code_challenge_method: method } = parameters;
  if (challenge === undefined) {
    if (method !== undefined)
      throw new OauthError('invalid_request', "Wanted 'code_challenge' with its method");
    if (pkce_required || isPublic)
      throw new OauthError('invalid_request', "Wanted 'code_challenge' (PKCE), found none");
    return null;
  }
  // Left out, it means `plain` (RFC 7636, section 4.3), which shows the verifier to whoever sees the request.
  if (method !== 'S256')
    throw new OauthError('invalid_request', "Wanted 'code_challenge_method' to be 'S256'");
  if (!CHALLENGE.test(challenge))
    throw new OauthError('invalid_request', "Wanted 'code_challenge' to be 43 characters of base64url");
  return challenge;
}

const PROMPTS = ['none', 'login', 'consent', 'select_account'];

function promptsOf({ prompt = '' }: Parameters): Set<string> {
  const prompts = new Set(prompt.split(' ').filter((each) => each !== ''));
  if ([...prompts].some((each) => !PROMPTS.includes(each)))
    throw new OauthError('invalid_request', `Wanted 'prompt' to be of ${PROMPTS.join(', ')}`);
  if (prompts.has('none') && prompts.size > 1)
    throw new OauthError('invalid_request', "Wanted 'prompt' 'none' alone");
  return prompts;
}

function maxAgeOf({ max_age: maxAge }: Parameters): number | null {
  if (maxAge === undefined) return null;
  if (/^\d{1,9}$/.test(maxAge)) return Number(maxAge);
  throw new OauthError('invalid_request', "Wanted 'max_age' to be whole seconds");
}

export const beginInteraction = (
  { deps, address }: OauthRequest,
  { target, parameters }: Asked,
  step: Interaction['step'],
  browser: string,
): Promise<Interaction> =>
  createInteraction(deps, { applicationId: target.application.id, parameters, step, browser, address });

/** The value in the browser's cookie: the one it has, or a new one that goes with the answer. */
export async function withBrowser(
  request: OauthRequest,
  answer: (browser: string) => Promise<OauthAnswer>,
): Promise<OauthAnswer> {
  const known = cookieIn(request, 'browser');
  if (known !== undefined) return answer(known);
  const browser = freshBytes(32).toString('base64url');
  const answered = await answer(browser);
  const set = [answered.headers['Set-Cookie'] ?? [], cookie(request.deps, 'browser', browser)].flat();
  return { ...answered, headers: { ...answered.headers, 'Set-Cookie': set } };
}

/** Asks the user, where they must be; otherwise answers with a code. */
export async function decide(
  request: OauthRequest,
  asked: Asked,
  user: AuthorizingUser,
  interaction: Interaction | null,
): Promise<OauthAnswer> {
  const { deps } = request;
  const { target, prompts } = asked;
  const settled = prompts.has('consent')
    ? null
    : await withoutAsking(deps, authorizationOf(asked, user, null), user.organizations);
  if (settled)
    return respond(target, { code: await authorizeSilently(deps, settled, interaction?.id ?? null) });
  if (prompts.has('none')) throw new OauthError('consent_required', 'The user has to be asked');
  if (interaction) {
    await setInteractionStep(deps, interaction.id, 'consent');
    return toConsent(deps, interaction.id);
  }
  return withBrowser(request, async (browser) => {
    const begun = await beginInteraction(request, asked, 'consent', browser);
    return toConsent(deps, begun.id);
  });
}

const toConsent = (deps: Deps, interactionId: string) =>
  redirect(`${deps.publicUrl}/oauth/consent?interaction=${interactionId}`);

export const authorizationOf = (
  { target, scopes, resources, nonce, codeChallenge }: Asked,
  { subject, claims, authTime }: AuthorizingUser,
  organizationId: string | null,
) => ({
  application: target.application,
  redirectUri: target.redirectUri,
  redirectUriGiven: target.redirectUriGiven,
  subject,
  claims,
  authTime,
  organizationId,
  scopes,
  resources,
  nonce,
  codeChallenge,
});

/** Goes on with a request whose user has signed in. The request is judged anew: what it names may have changed meanwhile. */
export async function continueInteraction(
  request: OauthRequest,
  interaction: Interaction,
  user: AuthorizingUser,
): Promise<OauthAnswer> {
  const { target, check } = await readInteractionRequest(request, interaction);
  return toldByRedirect(target, async () => decide(request, await check(), user, interaction));
}

/** The request of an interaction: where its answer goes, and what else it asks for. */
export async function readInteractionRequest(request: OauthRequest, { parameters }: Interaction) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters))
    for (const each of [value].flat()) given.append(name, each);
  const target = await proveTarget(request, given);
  return { target, check: () => checkRequest(request.deps, target, given) };
}
