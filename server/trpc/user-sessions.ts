import {
  endAllUserSessions,
  endAllUserSessionsInput,
  endUserSessionById,
  listUserSessions,
  listUserSessionsInput,
  userSessionIdInput,
} from '../domain/user-sessions.ts';
import { procedure, router } from './base.ts';

export const userSessionsRouter = router({
  list: procedure
    .meta({ description: 'List where users are signed in, of one user or of all' })
    .input(listUserSessionsInput)
    .query(({ ctx, input }) => listUserSessions(ctx.deps, input)),
  end: procedure
    .meta({ description: 'Sign a user out of one browser' })
    .input(userSessionIdInput)
    .mutation(({ ctx, input }) => endUserSessionById(ctx.deps, ctx.caller, input)),
  endAll: procedure
    .meta({ description: 'Sign a user out everywhere', idempotent: true })
    .input(endAllUserSessionsInput)
    .mutation(({ ctx, input }) => endAllUserSessions(ctx.deps, ctx.caller, input)),
});
