import {
  createSignInLink,
  endOperatorSession,
  listOperatorSessions,
  listOperatorSessionsInput,
  operatorSessionIdInput,
} from '../domain/operator-sessions.ts';
import { procedure, router } from './base.ts';

export const signInLinksRouter = router({
  issue: procedure
    .meta({ description: 'Print a link that signs in to the console once, within 15 minutes, as this key' })
    .mutation(({ ctx }) => createSignInLink(ctx.deps, ctx.caller.principal)),
});

export const operatorSessionsRouter = router({
  list: procedure
    .meta({ description: 'List who is signed in to the console, the newest first' })
    .input(listOperatorSessionsInput)
    .query(({ ctx, input }) => listOperatorSessions(ctx.deps, input)),
  end: procedure
    .meta({ description: 'Sign somebody out of the console' })
    .input(operatorSessionIdInput)
    .mutation(({ ctx, input }) => endOperatorSession(ctx.deps, ctx.caller, input)),
});
