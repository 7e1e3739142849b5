import { verify, verifyOauthTokenInput } from '../domain/credentials.ts';
import { revokeOauthTokenByValue, revokeOauthTokenByValueInput } from '../domain/oauth-token-revocation.ts';
import {
  getOauthToken,
  listOauthTokens,
  listOauthTokensInput,
  oauthTokenIdInput,
  revokeOauthToken,
  revokeOauthTokenInput,
} from '../domain/oauth-tokens.ts';
import { procedure, router } from './base.ts';
import { authorizingAs, presentedIn } from './credentials.ts';

export const oauthTokensRouter = router({
  get: procedure
    .meta({ description: 'Show an OAuth access token' })
    .input(oauthTokenIdInput)
    .query(({ ctx, input }) => getOauthToken(ctx.deps, input)),
  list: procedure
    .meta({ description: 'List the OAuth access tokens of an application or a grant, the newest first' })
    .input(listOauthTokensInput)
    .query(({ ctx, input }) => listOauthTokens(ctx.deps, input)),
  // A mutation, although it changes nothing: a query's input may end up in a URL.
  verify: procedure
    .meta({ description: 'Verify an OAuth access token, and nothing else', idempotent: true })
    .input(verifyOauthTokenInput)
    .mutation(({ ctx, input }) =>
      verify(
        ctx.deps,
        presentedIn(ctx),
        { ...input, kinds: ['oauth_token'] },
        authorizingAs('oauthTokens.verify'),
      ),
    ),
  revoke: procedure
    .meta({ description: 'Revoke an OAuth access token for good', idempotent: true })
    .input(revokeOauthTokenInput)
    .mutation(({ ctx, input }) => revokeOauthToken(ctx.deps, ctx.caller, input)),
  revokeByValue: procedure
    .meta({
      description:
        'Revoke the OAuth access token with this value, or the grant of the refresh token; the answer is the same whatever was found',
      idempotent: true,
    })
    .input(revokeOauthTokenByValueInput)
    .mutation(({ ctx, input }) => revokeOauthTokenByValue(ctx.deps, ctx.caller, ctx.address, input)),
});
