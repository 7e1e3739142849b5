import { importMachine, importMachineInput } from '../domain/machine-imports.ts';
import {
  cancelMachineRotation,
  completeMachineRotation,
  createMachine,
  createMachineInput,
  deleteMachine,
  getMachine,
  getOwnMachine,
  getOwnMachineInput,
  listMachines,
  listMachinesInput,
  machineIdInput,
  rotateMachineSecret,
  rotateMachineSecretInput,
  rotateOwnMachineSecret,
  rotateOwnMachineSecretInput,
  setMachineEnabled,
  updateMachine,
  updateMachineInput,
} from '../domain/machines.ts';
import { procedure, router } from './base.ts';

export const machinesRouter = router({
  create: procedure
    .meta({ description: 'Create a machine; its secret is answered this once' })
    .input(createMachineInput)
    .mutation(({ ctx, input }) => createMachine(ctx.deps, ctx.caller, input)),
  import: procedure
    .meta({
      description: 'Import a machine by the SHA-256 of the secret it has, which is accepted from then on',
      idempotent: true,
    })
    .input(importMachineInput)
    .mutation(({ ctx, input }) => importMachine(ctx.deps, ctx.caller, input)),
  get: procedure
    .meta({ description: 'Show a machine' })
    .input(machineIdInput)
    .query(({ ctx, input }) => getMachine(ctx.deps, input)),
  getOwn: procedure
    .meta({ description: 'Show the calling machine' })
    .input(getOwnMachineInput)
    .query(({ ctx }) => getOwnMachine(ctx.deps, ctx.caller)),
  list: procedure
    .meta({ description: 'List machines' })
    .input(listMachinesInput)
    .query(({ ctx, input }) => listMachines(ctx.deps, input)),
  update: procedure
    .meta({
      description: 'Rename a machine, or change its description, lifetimes, rotation or right to verify',
      idempotent: true,
    })
    .input(updateMachineInput)
    .mutation(({ ctx, input }) => updateMachine(ctx.deps, ctx.caller, input)),
  enable: procedure
    .meta({ description: 'Enable a disabled machine', idempotent: true })
    .input(machineIdInput)
    .mutation(({ ctx, input }) => setMachineEnabled(ctx.deps, ctx.caller, input.id, true)),
  disable: procedure
    .meta({
      description: 'Disable a machine: its secret and its tokens are refused until it is enabled',
      idempotent: true,
    })
    .input(machineIdInput)
    .mutation(({ ctx, input }) => setMachineEnabled(ctx.deps, ctx.caller, input.id, false)),
  rotateSecret: procedure
    .meta({ description: 'Give a machine a new secret; the one before is accepted for the overlap' })
    .input(rotateMachineSecretInput)
    .mutation(({ ctx, input }) => rotateMachineSecret(ctx.deps, ctx.caller, input)),
  rotateOwnSecret: procedure
    .meta({ description: 'Give the calling machine a new secret; it must call with its newest' })
    .input(rotateOwnMachineSecretInput)
    .mutation(({ ctx, input }) => rotateOwnMachineSecret(ctx.deps, ctx.caller, input)),
  cancelRotation: procedure
    .meta({ description: 'Revoke the new secret of a machine while the old one is still accepted' })
    .input(machineIdInput)
    .mutation(({ ctx, input }) => cancelMachineRotation(ctx.deps, ctx.caller, input.id)),
  completeRotation: procedure
    .meta({ description: 'End the old secret of a machine before its overlap does' })
    .input(machineIdInput)
    .mutation(({ ctx, input }) => completeMachineRotation(ctx.deps, ctx.caller, input.id)),
  delete: procedure
    .meta({ description: 'Delete a machine with its secrets, machine scopes and tokens' })
    .input(machineIdInput)
    .mutation(({ ctx, input }) => deleteMachine(ctx.deps, ctx.caller, input.id)),
});
