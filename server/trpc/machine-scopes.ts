import {
  createMachineScope,
  createMachineScopeInput,
  deleteMachineScope,
  listMachineScopes,
  listMachineScopesInput,
  machineScopeInput,
  updateMachineScope,
  updateMachineScopeInput,
} from '../domain/machine-scopes.ts';
import { procedure, router } from './base.ts';

export const machineScopesRouter = router({
  create: procedure
    .meta({ description: 'Allow a machine to call another, with tokens within these scopes' })
    .input(createMachineScopeInput)
    .mutation(({ ctx, input }) => createMachineScope(ctx.deps, ctx.caller, input)),
  list: procedure
    .meta({ description: 'List machine scopes: all, or those from or to a machine' })
    .input(listMachineScopesInput)
    .query(({ ctx, input }) => listMachineScopes(ctx.deps, input)),
  update: procedure
    .meta({ description: 'Replace the scopes allowed from a machine to another', idempotent: true })
    .input(updateMachineScopeInput)
    .mutation(({ ctx, input }) => updateMachineScope(ctx.deps, ctx.caller, input)),
  delete: procedure
    .meta({ description: 'No longer allow a machine to call another' })
    .input(machineScopeInput)
    .mutation(({ ctx, input }) => deleteMachineScope(ctx.deps, ctx.caller, input)),
});
