import {
  getOauthGrant,
  listOauthGrants,
  listOauthGrantsInput,
  oauthGrantIdInput,
  revokeAllOauthGrants,
  revokeAllOauthGrantsInput,
  revokeOauthGrant,
  revokeOauthGrantInput,
  withdrawOauthConsent,
  withdrawOauthConsentInput,
} from '../domain/oauth-grants.ts';
import { procedure, router } from './base.ts';

export const oauthGrantsRouter = router({
  get: procedure
    .meta({ description: 'Show what a user let an OAuth application do' })
    .input(oauthGrantIdInput)
    .query(({ ctx, input }) => getOauthGrant(ctx.deps, input)),
  list: procedure
    .meta({ description: 'List grants of a user, of an OAuth application, or all' })
    .input(listOauthGrantsInput)
    .query(({ ctx, input }) => listOauthGrants(ctx.deps, input)),
  revoke: procedure
    .meta({ description: 'Revoke a grant with every token under it', idempotent: true })
    .input(revokeOauthGrantInput)
    .mutation(({ ctx, input }) => revokeOauthGrant(ctx.deps, ctx.caller, input)),
  withdraw: procedure
    .meta({
      description:
        'Take back all that a user allowed an OAuth application: its grants, its tokens, and its consent',
      idempotent: true,
    })
    .input(withdrawOauthConsentInput)
    .mutation(({ ctx, input }) => withdrawOauthConsent(ctx.deps, ctx.caller, input)),
  revokeAll: procedure
    .meta({
      description: 'Take back all that a user allowed any OAuth application: every grant, token and consent',
    })
    .input(revokeAllOauthGrantsInput)
    .mutation(({ ctx, input }) => revokeAllOauthGrants(ctx.deps, ctx.caller, input)),
});
