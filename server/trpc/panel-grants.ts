import {
  listPanelGrants,
  listPanelGrantsInput,
  revokePanelGrant,
  revokePanelGrantInput,
} from '../domain/panel-grants.ts';
import { procedure, router } from './base.ts';

export const panelGrantsRouter = router({
  list: procedure
    .meta({ description: 'List the applications that the own user let act for them' })
    .input(listPanelGrantsInput)
    .query(({ ctx, input }) => listPanelGrants(ctx.deps, ctx.caller, input)),
  revoke: procedure
    .meta({
      description: 'Take back all that an application was allowed by the own user',
      idempotent: true,
    })
    .input(revokePanelGrantInput)
    .mutation(({ ctx, input }) => revokePanelGrant(ctx.deps, ctx.caller, input)),
});
