/** The authorization endpoint (RFC 6749, section 3.1). */
import type { Deps } from '../deps.ts';
import { OauthError } from '../domain/oauth-errors.ts';
import { findUserSession, type SignedInUser } from '../domain/user-sessions.ts';
import {
  type Asked,
  beginInteraction,
  checkRequest,
  decide,
  proveTarget,
  toldByRedirect,
  withBrowser,
} from './authorization.ts';
import { cookieIn } from './cookies.ts';
import { type OauthAnswer, type OauthEndpoint, type OauthRequest, redirect } from './endpoint.ts';
import { startSignIn } from './sign-in.ts';

const BODY_BYTES_MAX = 16 * 1024;

/** Proxies take request lines of 8 KiB where nobody says otherwise. */
const QUERY_LENGTH_MAX = 7 * 1024;

export const authorizationEndpoint: OauthEndpoint = {
  path: '/oauth/authorize',
  methods: ['GET', 'POST'],
  body: 'form',
  bytesMax: BODY_BYTES_MAX,
  cors: false,
  refusals: 'page',
  async answer(request) {
    const { deps, method, path, form } = request;
    const isByPost = method === 'POST';
    if (isByPost && hasNoCookies(request) && `${form}`.length <= QUERY_LENGTH_MAX)
      return redirect(`${deps.publicUrl}${path}?${form}`);
    const given = isByPost ? form : request.query;
    const target = await proveTarget(request, given);
    return toldByRedirect(target, async () => proceed(request, await checkRequest(deps, target, given)));
  },
};

/** As in what another site posts, which `SameSite=Lax` keeps them from: the same by GET has them. */
const hasNoCookies = (request: OauthRequest) =>
  cookieIn(request, 'session') === undefined && cookieIn(request, 'browser') === undefined;

/** Signs in whoever is not, or not as freshly as is asked for; then goes on to consent. */
async function proceed(request: OauthRequest, asked: Asked): Promise<OauthAnswer> {
  const { deps } = request;
  const user = await findUserSession(deps, cookieIn(request, 'session'));
  if (user?.isRemembered && !mustSignInAgain(deps, asked, user)) return decide(request, asked, user, null);
  if (asked.prompts.has('none')) throw new OauthError('login_required', 'Nobody is signed in');
  return withBrowser(request, async (browser) => {
    const interaction = await beginInteraction(request, asked, 'sign_in', browser);
    return startSignIn(request, interaction);
  });
}

function mustSignInAgain(deps: Deps, { prompts, maxAgeSeconds }: Asked, { authTime }: SignedInUser): boolean {
  if (prompts.has('login') || prompts.has('select_account')) return true;
  return maxAgeSeconds !== null && deps.now() - authTime > maxAgeSeconds * 1000;
}
