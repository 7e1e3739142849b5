/** The page on which a user lets an application act for them, or does not. */
import { createHash } from 'node:crypto';
import { documentHostOf } from '../domain/client-metadata-documents.ts';
import type { ApplicationRow } from '../domain/oauth-applications.ts';
import { alreadyAnswered, giveConsent, isVerified, knownHomeOf } from '../domain/oauth-consents.ts';
import { OauthError } from '../domain/oauth-errors.ts';
import { endInteraction, findInteraction, type Interaction } from '../domain/oauth-interactions.ts';
import { describeScopes } from '../domain/oauth-scopes.ts';
import { isOnDevice, redirectHostOf } from '../domain/redirect-uris.ts';
import { findUserSession, type SignedInUser } from '../domain/user-sessions.ts';
import {
  type Asked,
  authorizationOf,
  nameOf,
  readInteractionRequest,
  toldByRedirect,
} from './authorization.ts';
import { answerToForm, respond } from './authorization-response.ts';
import { cookieIn } from './cookies.ts';
import { assertOurForm, csrfField } from './csrf.ts';
import type { OauthAnswer, OauthEndpoint, OauthRequest } from './endpoint.ts';
import { type Html, html, page } from './html.ts';

const BODY_BYTES_MAX = 8 * 1024;

export const consentEndpoint: OauthEndpoint = {
  path: '/oauth/consent',
  methods: ['GET', 'POST'],
  body: 'form',
  bytesMax: BODY_BYTES_MAX,
  cors: false,
  refusals: 'page',
  // The page follows the form to sign in on, and may answer without being shown.
  answer: async (request) =>
    answerToForm(
      request.deps,
      await (request.method === 'POST' ? decideConsent(request) : showConsent(request)),
    ),
};

/** What is consented to, by whom: only in the browser that began it, by who is signed in there. */
async function readConsent(request: OauthRequest, id: string | null) {
  const { deps } = request;
  const interaction = await findInteraction(deps, id ?? undefined, cookieIn(request, 'browser'));
  const user = await findUserSession(deps, cookieIn(request, 'session'));
  if (interaction?.step !== 'consent' || !user) throw alreadyAnswered();
  return { interaction, user, ...(await readInteractionRequest(request, interaction)) };
}

async function showConsent(request: OauthRequest): Promise<OauthAnswer> {
  const { interaction, user, target, check } = await readConsent(request, request.query.get('interaction'));
  return toldByRedirect(target, async () =>
    consentPage(request, { interaction, user, asked: await check(), hasChanged: false }),
  );
}

async function decideConsent(request: OauthRequest): Promise<OauthAnswer> {
  const { deps, form, requestId } = request;
  const { interaction, user, target, check } = await readConsent(request, form.get('interaction'));
  // Of the user it was shown to: somebody else who signed in meanwhile has not read it.
  assertOurForm(request, user.sessionId);
  return toldByRedirect(target, async () => {
    if (form.get('decision') !== 'allow') {
      if (!(await deps.store.tx((tx) => endInteraction(tx, interaction.id), 'minting')))
        throw alreadyAnswered();
      throw new OauthError('access_denied', 'The user did not allow it');
    }
    const asked = await check();
    // The request is judged anew, and an application may have become another meanwhile: nobody allows what they did not read.
    if (form.get(SHOWN_FIELD) !== shownHash(asked))
      return consentPage(request, { interaction, user, asked, hasChanged: true });
    const organizationId = organizationOf(user, form.get('organization'));
    const authorization = authorizationOf(asked, user, organizationId);
    return respond(target, { code: await giveConsent(deps, interaction.id, authorization, requestId) });
  });
}

/** Null for the user alone. */
function organizationOf({ organizations }: SignedInUser, id: string | null): string | null {
  if (id === null || id === '') return null;
  if (organizations.some((organization) => organization.id === id)) return id;
  throw new OauthError('access_denied', 'Wanted one of the organizations of the user');
}

const SHOWN_FIELD = 'shown';

/** Of what a user reads before they allow it; the form that says so is ours, and for their session. */
const shownHash = ({ target: { application, redirectUri }, scopes, resources }: Asked): string =>
  createHash('sha256')
    .update(JSON.stringify([application.name, redirectUri, scopes, resources]))
    .digest('base64url');

interface Consent {
  interaction: Interaction;
  user: SignedInUser;
  asked: Asked;
  /** Since it was shown to them before. */
  hasChanged: boolean;
}

/** MCP, authorization 2026-07-28: the host that the user is sent to is shown, and a warning where nothing proves who is there. */
async function consentPage(
  request: OauthRequest,
  { interaction, user, asked, hasChanged }: Consent,
): Promise<OauthAnswer> {
  const { deps } = request;
  const scopes = await describeScopes(deps.store.read, asked.scopes);
  const { application, redirectUri } = asked.target;
  const host = redirectHostOf(redirectUri);
  const title = `Allow ${application.name}?`;
  const browser = cookieIn(request, 'browser') ?? '';
  const body = html`
    ${logoOf(application, redirectUri)}
    <h1>${title}</h1>
    ${hasChanged && html`<p class="bad" role="alert">The application has changed what it asks for, where it sends you or what it is called. Read this again.</p>`}
    <p><strong>${application.name}</strong> wants to act for you, ${nameOf(user)}.</p>
    <h2>It will be able to</h2>
    <ul>${scopes.map(({ description, name }) => html`<li>${description} <span class="quiet">(<code>${name}</code>)</span></li>`)}${
      scopes.length === 0 && html`<li>Know that you are a user here, and nothing else</li>`
    }</ul>
    ${resourcesOf(asked)}
    <div class="box">
      <p>You will be sent to <strong>${host}</strong>.${homeOf(application)}${documentOf(application)}</p>
      ${warningOf(application, redirectUri)}
    </div>
    <form method="post" action="/oauth/consent">
      ${csrfField(deps, browser, user.sessionId)}<input type="hidden" name="interaction" value="${interaction.id}"><input type="hidden" name="${SHOWN_FIELD}" value="${shownHash(asked)}">
      ${organizationsOf(user)}
      <div class="actions">
        <button class="primary" type="submit" name="decision" value="allow">Allow</button>
        <button type="submit" name="decision" value="deny">Do not allow</button>
      </div>
    </form>
    <p class="quiet">You can take this back at any time under <a href="/oauth/applications">applications you have allowed</a>. Not you? <a href="/oauth/sign-out">Sign out</a>.</p>`;
  return page({ title, body, isOnTheWay: true });
}

/** Whoever nobody vouches for shows no picture of somebody else's (threats.md, OAuth). */
const logoOf = (application: ApplicationRow, redirectUri: string): Html | null =>
  application.logo_updated_at !== null && isVerified(application, redirectUri)
    ? html`<img class="logo" src="/oauth/logos/${application.id}" alt="">`
    : null;

function homeOf(application: ApplicationRow): Html | null {
  const uri = knownHomeOf(application);
  return uri === null ? null : html` Its home page is <code>${uri}</code>.`;
}

/** MCP, authorization 2026-07-28: the host of the client id, which is proven as its name is not. */
function documentOf(application: ApplicationRow): Html | null {
  const host = documentHostOf(application);
  return host === null ? null : html` What it is called is said by <strong>${host}</strong>.`;
}

function warningOf(application: ApplicationRow, redirectUri: string): Html | null {
  if (isOnDevice(redirectUri))
    return html`<p class="bad">That is a program on your own device. Any program there could pretend to be this one: go on only if you have just started it yourself.</p>`;
  if (application.source !== 'administrator')
    return html`<p class="bad">This application registered itself, and nobody here has checked who is behind it. Go on only if you know and trust ${redirectHostOf(redirectUri)}.</p>`;
  return null;
}

const resourcesOf = ({ resources }: Asked): Html | null =>
  resources.length === 0
    ? null
    : html`<p>At ${resources.map((resource, i) => html`${i > 0 && ', '}<code>${resource}</code>`)}.</p>`;

function organizationsOf({ organizations }: SignedInUser): Html | null {
  if (organizations.length === 0) return null;
  return html`<label for="organization">For</label>
      <select id="organization" name="organization">
        <option value="">Yourself</option>
        ${organizations.map(({ id, name }) => html`<option value="${id}">${name}</option>`)}
      </select>`;
}
