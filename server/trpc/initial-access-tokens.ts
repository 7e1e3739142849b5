import {
  createInitialAccessToken,
  createInitialAccessTokenInput,
  initialAccessTokenIdInput,
  listInitialAccessTokens,
  listInitialAccessTokensInput,
  revokeInitialAccessToken,
} from '../domain/initial-access-tokens.ts';
import { procedure, router } from './base.ts';

export const initialAccessTokensRouter = router({
  create: procedure
    .meta({ description: 'Make a token with which applications register themselves' })
    .input(createInitialAccessTokenInput)
    .mutation(({ ctx, input }) => createInitialAccessToken(ctx.deps, ctx.caller, input)),
  list: procedure
    .meta({ description: 'List tokens with which applications register themselves' })
    .input(listInitialAccessTokensInput)
    .query(({ ctx, input }) => listInitialAccessTokens(ctx.deps, input)),
  revoke: procedure
    .meta({ description: 'Have nobody register with a token any more; applications that did go on' })
    .input(initialAccessTokenIdInput)
    .mutation(({ ctx, input }) => revokeInitialAccessToken(ctx.deps, ctx.caller, input)),
});
