/** Where another issuer sends the browser of a user who signed in there. */
import { OauthError } from '../domain/oauth-errors.ts';
import { findInteraction } from '../domain/oauth-interactions.ts';
import { finishUpstream, interactionOfState, UpstreamRefusal } from '../domain/upstream-sign-in.ts';
import { cookieIn } from './cookies.ts';
import type { OauthEndpoint } from './endpoint.ts';
import { cancel, finishSignIn, interactionNotFound } from './sign-in.ts';

export const upstreamEndpoint: OauthEndpoint = {
  path: '/oauth/upstream/callback',
  methods: ['GET'],
  body: 'none',
  bytesMax: 0,
  cors: false,
  refusals: 'page',
  async answer(request) {
    const { deps, query, requestId } = request;
    if (deps.signIn.kind !== 'oidc')
      throw new OauthError('invalid_request', 'Nobody signs in at another issuer here');
    const id = interactionOfState(query.get('state'));
    const interaction = await findInteraction(deps, id, cookieIn(request, 'browser'));
    if (!interaction) throw interactionNotFound();
    try {
      const who = await finishUpstream(deps, deps.signIn, interaction, query, requestId);
      return await finishSignIn(request, interaction, who);
    } catch (error) {
      if (error instanceof UpstreamRefusal) return cancel(request, interaction, 'access_denied');
      throw error;
    }
  },
};
