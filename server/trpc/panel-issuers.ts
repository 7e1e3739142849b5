import {
  createPanelIssuer,
  createPanelIssuerInput,
  deletePanelIssuer,
  listPanelIssuers,
  panelIssuerIdInput,
} from '../domain/panel-issuers.ts';
import { procedure, router } from './base.ts';

export const panelIssuersRouter = router({
  create: procedure
    .meta({ description: "Let an application's own session tokens in, in the place of panel tokens" })
    .input(createPanelIssuerInput)
    .mutation(({ ctx, input }) => createPanelIssuer(ctx.deps, ctx.caller, input)),
  list: procedure
    .meta({ description: 'List the issuers whose session tokens are let in' })
    .query(({ ctx }) => listPanelIssuers(ctx.deps)),
  delete: procedure
    .meta({ description: 'Let the session tokens of an issuer in no more' })
    .input(panelIssuerIdInput)
    .mutation(({ ctx, input }) => deletePanelIssuer(ctx.deps, ctx.caller, input)),
});
