import { createPanelToken, createPanelTokenInput } from '../domain/panel-tokens.ts';
import { procedure, router } from './base.ts';

export const panelTokensRouter = router({
  create: procedure
    .meta({ description: 'Mint a panel token: for minutes, an end user manages the API keys of a subject' })
    .input(createPanelTokenInput)
    .mutation(({ ctx, input }) => createPanelToken(ctx.deps, ctx.caller, input)),
});
