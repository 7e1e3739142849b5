import { createSignInLink } from '../domain/operator-sessions.ts';
import { procedure, router } from './base.ts';

export const signInLinksRouter = router({
  issue: procedure
    .meta({ description: 'Print a link that signs in to the console once, within 15 minutes, as this key' })
    .mutation(({ ctx }) => createSignInLink(ctx.deps, ctx.caller.principal)),
});
