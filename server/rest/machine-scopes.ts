/** Machine scopes: Clerk's wire below a machine, with the scopes an admin puts on the way. */
import { z } from 'zod';
import {
  createMachineScope,
  createMachineScopeInput,
  deleteMachineScope,
  listMachineScopes,
  listMachineScopesInput,
  type MachineScope,
  machineScopeInput,
  updateMachineScope,
  updateMachineScopeInput,
} from '../domain/machine-scopes.ts';
import { at, named, pageOf } from './fields.ts';
import { type Route, route } from './route.ts';

const clerk = 'clerk_key_invalid';
/** Who is let is the machine in the path; whom it may call, another. */
const created = { fromMachineId: 'id' };
const existing = { fromMachineId: 'id', toMachineId: 'other_id' };

const machineScopeOutput = named(
  'MachineScope',
  z.object({
    object: z.literal('machine_scope'),
    from_machine_id: z.string(),
    to_machine_id: z.string(),
    scopes: z.array(z.string()),
    created_at: at,
    updated_at: at,
  }),
);

export const machineScopeRoutes: readonly Route[] = [
  route('POST /v1/machines/{id}/scopes', 'machineScopes.create', {
    clerk,
    naming: created,
    input: createMachineScopeInput,
    output: machineScopeOutput,
    run: async ({ deps, caller }, input) => present(await createMachineScope(deps, caller, input)),
  }),
  route('PATCH /v1/machines/{id}/scopes/{other_id}', 'machineScopes.update', {
    naming: existing,
    input: updateMachineScopeInput,
    output: machineScopeOutput,
    run: async ({ deps, caller }, input) => present(await updateMachineScope(deps, caller, input)),
  }),
  route('DELETE /v1/machines/{id}/scopes/{other_id}', 'machineScopes.delete', {
    clerk,
    naming: existing,
    input: machineScopeInput,
    output: z.object({
      object: z.literal('machine_scope'),
      from_machine_id: z.string(),
      to_machine_id: z.string(),
      deleted: z.literal(true),
    }),
    async run({ deps, caller }, input) {
      const { fromMachineId, toMachineId, deleted } = await deleteMachineScope(deps, caller, input);
      return {
        object: 'machine_scope' as const,
        from_machine_id: fromMachineId,
        to_machine_id: toMachineId,
        deleted,
      };
    },
  }),
  route('GET /v1/machine_scopes', 'machineScopes.list', {
    input: listMachineScopesInput,
    output: pageOf(machineScopeOutput),
    async run({ deps }, input) {
      const { data, nextCursor } = await listMachineScopes(deps, input);
      return { data: data.map(present), nextCursor };
    },
  }),
];

const present = (scope: MachineScope) => ({
  object: 'machine_scope' as const,
  from_machine_id: scope.fromMachineId,
  to_machine_id: scope.toMachineId,
  scopes: scope.scopes,
  created_at: scope.createdAt,
  updated_at: scope.updatedAt,
});
