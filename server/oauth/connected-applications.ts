/** What a user allowed applications, where they are signed in, and taking either back with one click. */
import type { Caller } from '../deps.ts';
import { type ConnectedApplication, listConnectedApplications } from '../domain/connected-applications.ts';
import { acceptInput } from '../domain/invalid-input.ts';
import { withdrawOauthConsent, withdrawOauthConsentInput } from '../domain/oauth-grants.ts';
import {
  endUserSessionById,
  findUserSession,
  listUserSessions,
  type SignedInUser,
  type UserSession,
  userSessionIdInput,
} from '../domain/user-sessions.ts';
import { nameOf, withBrowser } from './authorization.ts';
import { cookieIn } from './cookies.ts';
import { assertOurForm, csrfField } from './csrf.ts';
import { type OauthAnswer, type OauthEndpoint, type OauthRequest, redirect } from './endpoint.ts';
import { type Html, html, page } from './html.ts';
import { ACCOUNT_PATH } from './sign-in.ts';
import { signedOutPage } from './sign-out.ts';

/** Applications: with more, the newest. */
const SHOWN_MAX = 100;
const SESSIONS_SHOWN_MAX = 20;

export const connectedApplicationsEndpoint: OauthEndpoint = {
  path: ACCOUNT_PATH,
  methods: ['GET', 'POST'],
  body: 'form',
  bytesMax: 2 * 1024,
  cors: false,
  refusals: 'page',
  async answer(request) {
    const { deps, method } = request;
    if (method === 'POST') assertOurForm(request);
    const user = await findUserSession(deps, cookieIn(request, 'session'));
    // By a link, not by a redirect: users may sign in elsewhere, where no form of ours leads.
    if (!user) return method === 'POST' ? signedOutPage() : redirect(`${deps.publicUrl}/oauth/sign-in`);
    if (method === 'POST') await takeBack(request, user);
    // Reloading the page posts nothing again.
    return method === 'POST' ? redirect(`${deps.publicUrl}${ACCOUNT_PATH}`) : show(request, user);
  },
};

/** What is theirs alone: an id of another's is not found. */
async function takeBack({ deps, form, requestId }: OauthRequest, user: SignedInUser): Promise<void> {
  const { subject } = user;
  const caller: Caller = { principal: { kind: 'user', id: subject }, requestId };
  const [applicationId, id] = [form.get('application'), form.get('session')];
  if (applicationId !== null)
    await withdrawOauthConsent(
      deps,
      caller,
      acceptInput(withdrawOauthConsentInput, { subject, applicationId }),
    );
  if (id !== null) await endUserSessionById(deps, caller, acceptInput(userSessionIdInput, { id }), subject);
}

async function show(request: OauthRequest, user: SignedInUser): Promise<OauthAnswer> {
  const { deps } = request;
  const { data: connected } = await listConnectedApplications(deps, user.subject, { limit: SHOWN_MAX });
  const { data: sessions } = await listUserSessions(deps, {
    subject: user.subject,
    limit: SESSIONS_SHOWN_MAX,
    offset: 0,
  });
  return withBrowser(request, async (browser) => {
    const csrf = csrfField(deps, browser);
    const body = html`
    <h1>Applications you have allowed</h1>
    <p>Signed in as <strong>${nameOf(user)}</strong>. <a href="/oauth/sign-out">Sign out</a></p>
    ${connected.length === 0 && html`<p>You have allowed no application anything.</p>`}
    ${connected.map((application) => applicationBox(application, user, csrf))}
    <h2>Where you are signed in</h2>
    ${sessions.map((session) => sessionBox(session, user, csrf))}`;
    return page({ title: 'Applications you have allowed', body });
  });
}

/** Whatever an application calls itself, where it sends its users is what it is. */
function applicationBox(
  {
    applicationId,
    name,
    redirectHosts,
    organizationIds,
    scopes,
    firstAllowedAt,
    lastUsedAt,
  }: ConnectedApplication,
  user: SignedInUser,
  csrf: Html,
): Html {
  const headingId = `application-${applicationId}`;
  return html`
    <section class="box" aria-labelledby="${headingId}">
      <h2 id="${headingId}">${name}</h2>
      <p class="quiet">At ${redirectHosts.join(', ')}. Allowed first on ${dayOf(firstAllowedAt)}${lastUsedAt !== null && html`, used last on ${dayOf(lastUsedAt)}`}.</p>
      ${organizationIds.length > 0 && html`<p>For ${organizationIds.map((id) => organizationNameOf(user, id)).join(', ')}.</p>`}
      ${scopes.length > 0 && html`<p>It may:</p><ul>${scopes.map(({ description }) => html`<li>${description}</li>`)}</ul>`}
      <form method="post" action="${ACCOUNT_PATH}">
        ${csrf}
        <input type="hidden" name="application" value="${applicationId}">
        <div class="actions"><button type="submit" aria-describedby="${headingId}">Take it all back</button></div>
      </form>
    </section>`;
}

/** Its id, where they are of it no more. */
const organizationNameOf = ({ organizations }: SignedInUser, id: string): string =>
  organizations.find((organization) => organization.id === id)?.name ?? id;

function sessionBox({ id, createdAt, lastSeenAt }: UserSession, user: SignedInUser, csrf: Html): Html {
  const isThis = id === user.sessionId;
  return html`
    <div class="box">
      <p>${isThis ? 'In this browser' : 'In another browser'}, since ${dayOf(createdAt)}; seen last on ${dayOf(lastSeenAt)}</p>
      ${
        !isThis &&
        html`<form method="post" action="${ACCOUNT_PATH}">
        ${csrf}
        <input type="hidden" name="session" value="${id}">
        <button type="submit">Sign it out</button>
      </form>`
      }
    </div>`;
}

/** All days are UTC. */
const DAY = new Intl.DateTimeFormat('en-GB', { dateStyle: 'long', timeZone: 'UTC' });

const dayOf = (at: number): Html =>
  html`<time datetime="${new Date(at).toISOString()}">${DAY.format(at)}</time>`;
