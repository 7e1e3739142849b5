import {
  createOauthScope,
  createOauthScopeInput,
  deleteOauthScope,
  listOauthScopes,
  listOauthScopesInput,
  oauthScopeNameInput,
  updateOauthScope,
  updateOauthScopeInput,
} from '../domain/oauth-scopes.ts';
import { procedure, router } from './base.ts';

export const oauthScopesRouter = router({
  create: procedure
    .meta({ description: 'Define a scope of OAuth, in words that people are shown' })
    .input(createOauthScopeInput)
    .mutation(({ ctx, input }) => createOauthScope(ctx.deps, ctx.caller, input)),
  list: procedure
    .meta({ description: 'List scopes of OAuth, the built-in ones first' })
    .input(listOauthScopesInput)
    .query(({ ctx, input }) => listOauthScopes(ctx.deps, input)),
  update: procedure
    .meta({
      description:
        'Change what a scope is described by, whether it is advertised, or the resource it belongs to',
      idempotent: true,
    })
    .input(updateOauthScopeInput)
    .mutation(({ ctx, input }) => updateOauthScope(ctx.deps, ctx.caller, input)),
  delete: procedure
    .meta({ description: 'Delete a scope: nobody can be given it any more; tokens that have it keep it' })
    .input(oauthScopeNameInput)
    .mutation(({ ctx, input }) => deleteOauthScope(ctx.deps, ctx.caller, input)),
});
