import {
  completePanelKeyRotation,
  createPanelKey,
  createPanelKeyInput,
  getPanelKeyUsage,
  getPanelOptions,
  listPanelKeys,
  listPanelKeysInput,
  panelKeyIdInput,
  revokePanelKey,
  revokePanelKeyInput,
  rotatePanelKey,
  rotatePanelKeyInput,
  updatePanelKey,
  updatePanelKeyInput,
} from '../domain/panel-keys.ts';
import { procedure, router } from './base.ts';

export const panelKeysRouter = router({
  options: procedure
    .meta({ description: 'Show what this panel may do, and what may be chosen for a new API key' })
    .query(({ ctx }) => getPanelOptions(ctx.deps, ctx.caller)),
  list: procedure
    .meta({ description: "List the subject's own API keys: all, by a part of the name, or those that ended" })
    .input(listPanelKeysInput)
    .query(({ ctx, input }) => listPanelKeys(ctx.deps, ctx.caller, input)),
  create: procedure
    .meta({ description: 'Create an API key for the own subject; its value is answered this once' })
    .input(createPanelKeyInput)
    .mutation(({ ctx, input }) => createPanelKey(ctx.deps, ctx.caller, input)),
  update: procedure
    .meta({ description: 'Rename an own API key, or describe it anew', idempotent: true })
    .input(updatePanelKeyInput)
    .mutation(({ ctx, input }) => updatePanelKey(ctx.deps, ctx.caller, input)),
  rotate: procedure
    .meta({ description: 'Give an own API key a new value; the one before is accepted for the overlap' })
    .input(rotatePanelKeyInput)
    .mutation(({ ctx, input }) => rotatePanelKey(ctx.deps, ctx.caller, input)),
  completeRotation: procedure
    .meta({ description: 'End the old value of an own API key before its overlap does' })
    .input(panelKeyIdInput)
    .mutation(({ ctx, input }) => completePanelKeyRotation(ctx.deps, ctx.caller, input.id)),
  revoke: procedure
    .meta({ description: 'Revoke an own API key for good', idempotent: true })
    .input(revokePanelKeyInput)
    .mutation(({ ctx, input }) => revokePanelKey(ctx.deps, ctx.caller, input)),
  usage: procedure
    .meta({ description: 'Show how often an own API key was verified, by day of the last 30' })
    .input(panelKeyIdInput)
    .query(({ ctx, input }) => getPanelKeyUsage(ctx.deps, ctx.caller, input.id)),
});
