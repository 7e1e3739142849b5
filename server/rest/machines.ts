/** Machines and their secrets: Clerk's wire, with what ours have beyond. */
import { z } from 'zod';
import { instanceId } from '../domain/installation.ts';
import { importMachine, importMachineInput } from '../domain/machine-imports.ts';
import { type ReachableMachine, reachableFrom } from '../domain/machine-scopes.ts';
import {
  cancelMachineRotation,
  completeMachineRotation,
  countMachines,
  createMachine,
  createMachineInput,
  deleteMachine,
  getMachine,
  getOwnMachine,
  getOwnMachineInput,
  listMachines,
  listMachinesInput,
  MAX_TOKEN_TTL_SECONDS,
  type Machine,
  machineIdInput,
  rotateMachineSecret,
  rotateMachineSecretInput,
  rotateOwnMachineSecret,
  rotateOwnMachineSecretInput,
  setMachineEnabled,
  updateMachine,
  updateMachineInput,
} from '../domain/machines.ts';
import type { Rotated } from '../domain/rotation.ts';
import { CountersignError } from '../errors.ts';
import { at, clerkLimit, count, countedPageOf, named, rotationOutput } from './fields.ts';
import { type Call, type Route, route } from './route.ts';

const clerk = 'clerk_key_invalid';
const naming = {
  defaultTokenTtlSeconds: 'default_token_ttl',
  maxTokenTtlSeconds: 'max_token_ttl',
  mayCall: 'scoped_machines',
  overlapSeconds: 'previous_token_ttl',
};

const reachableMachine = named(
  'ReachableMachine',
  z.object({
    object: z.literal('machine'),
    id: z.string(),
    name: z.string(),
    instance_id: z.string(),
    created_at: at,
    updated_at: at,
    default_token_ttl: count,
  }),
);

const machineOutput = named(
  'Machine',
  z.object({
    ...reachableMachine.shape,
    scoped_machines: z.array(reachableMachine),
    description: z.string().nullable(),
    enabled: z.boolean(),
    max_token_ttl: count,
    may_verify: z.boolean(),
    allowed_cidrs: z.array(z.string()).nullable(),
    live_tokens_max: count,
    mints_per_minute_max: count,
    rotation: rotationOutput,
    rotate_by: at.nullable(),
    last_used_at: at.nullable(),
  }),
);

const createdMachineOutput = named(
  'CreatedMachine',
  // Absent where an idempotency key had the answer of before repeated.
  z.object({ ...machineOutput.shape, secret_key: z.string().optional() }),
);

const machineSecretOutput = named(
  'MachineSecretKey',
  z.object({
    object: z.literal('machine_secret_key'),
    secret: z.string().optional(),
    previous_expires_at: at.nullable(),
  }),
);

const ORDERS = ['name', '+name', '-name', 'created_at', '+created_at', '-created_at'] as const;

export const machineRoutes: readonly Route[] = [
  route('POST /v1/machines', 'machines.create', {
    clerk,
    naming,
    // A lifetime beyond the longest raises that.
    input: createMachineInput.extend({
      maxTokenTtlSeconds: createMachineInput.shape.maxTokenTtlSeconds.unwrap().optional(),
    }),
    output: createdMachineOutput,
    async run(call, { maxTokenTtlSeconds, ...input }) {
      const longest = maxTokenTtlSeconds ?? Math.max(MAX_TOKEN_TTL_SECONDS, input.defaultTokenTtlSeconds);
      const { secret, ...machine } = await createMachine(call.deps, call.caller, {
        ...input,
        maxTokenTtlSeconds: longest,
      });
      return { ...(await present(call, machine)), ...(secret !== undefined && { secret_key: secret }) };
    },
  }),
  route('GET /v1/machines', 'machines.list', {
    clerk,
    input: listMachinesInput
      .omit({ direction: true })
      .extend({ limit: clerkLimit, orderBy: z.enum(ORDERS).default('-created_at') }),
    output: countedPageOf(machineOutput),
    async run(call, { orderBy, ...input }) {
      const { data, nextCursor } = await listMachines(call.deps, {
        ...input,
        orderBy: orderBy.endsWith('name') ? 'name' : 'created_at',
        direction: orderBy.startsWith('-') ? 'descending' : 'ascending',
      });
      return {
        data: await presentAll(call, data),
        total_count: await countMachines(call.deps, input),
        next_cursor: nextCursor,
      };
    },
  }),
  route('GET /v1/machines/me', 'machines.getOwn', {
    input: getOwnMachineInput,
    output: machineOutput,
    run: async (call) => present(call, await getOwnMachine(call.deps, call.caller)),
  }),
  route('POST /v1/machines/import', 'machines.import', {
    naming: { defaultTokenTtlSeconds: 'default_token_ttl', maxTokenTtlSeconds: 'max_token_ttl' },
    input: importMachineInput,
    output: z.object({ id: z.string(), outcome: z.enum(['imported', 'exists']) }),
    run: ({ deps, caller }, input) => importMachine(deps, caller, input),
  }),
  route('GET /v1/machines/{id}', 'machines.get', {
    clerk,
    input: machineIdInput,
    output: machineOutput,
    run: async (call, input) => present(call, await getMachine(call.deps, input)),
  }),
  route('PATCH /v1/machines/{id}', 'machines.update', {
    clerk,
    naming,
    input: updateMachineInput,
    output: machineOutput,
    run: async (call, input) =>
      present(call, await updateMachine(call.deps, call.caller, input, { raisesMaximum: true })),
  }),
  route('DELETE /v1/machines/{id}', 'machines.delete', {
    clerk,
    input: machineIdInput,
    output: z.object({ object: z.literal('machine'), id: z.string(), deleted: z.literal(true) }),
    run: async ({ deps, caller }, { id }) => ({
      object: 'machine' as const,
      ...(await deleteMachine(deps, caller, id)),
    }),
  }),
  route('GET /v1/machines/{id}/secret_key', 'machines.get', {
    clerk,
    summary: 'Answers 410: a secret is answered once, when it is made',
    status: 410,
    input: machineIdInput,
    output: z.never(),
    async run({ deps }, { id }) {
      await getMachine(deps, { id });
      throw new CountersignError(
        'secret_not_retrievable',
        `The secret of '${id}' was answered once, when it was made, and is kept as a hash; rotate it instead`,
      );
    },
  }),
  route('POST /v1/machines/me/secret_key/rotate', 'machines.rotateOwnSecret', {
    clerk: 'machine_secret_key_invalid',
    naming,
    input: rotateOwnMachineSecretInput,
    output: machineSecretOutput,
    run: async ({ deps, caller }, input) => presentSecret(await rotateOwnMachineSecret(deps, caller, input)),
  }),
  route('POST /v1/machines/{id}/secret_key/rotate', 'machines.rotateSecret', {
    clerk,
    naming,
    input: rotateMachineSecretInput,
    output: machineSecretOutput,
    run: async ({ deps, caller }, input) => presentSecret(await rotateMachineSecret(deps, caller, input)),
  }),
  route('POST /v1/machines/{id}/secret_key/cancel_rotation', 'machines.cancelRotation', {
    input: machineIdInput,
    output: machineOutput,
    run: async (call, { id }) => present(call, await cancelMachineRotation(call.deps, call.caller, id)),
  }),
  route('POST /v1/machines/{id}/secret_key/complete_rotation', 'machines.completeRotation', {
    input: machineIdInput,
    output: machineOutput,
    run: async (call, { id }) => present(call, await completeMachineRotation(call.deps, call.caller, id)),
  }),
  route('POST /v1/machines/{id}/enable', 'machines.enable', {
    input: machineIdInput,
    output: machineOutput,
    run: async (call, { id }) => present(call, await setMachineEnabled(call.deps, call.caller, id, true)),
  }),
  route('POST /v1/machines/{id}/disable', 'machines.disable', {
    input: machineIdInput,
    output: machineOutput,
    run: async (call, { id }) => present(call, await setMachineEnabled(call.deps, call.caller, id, false)),
  }),
];

type MachineObject = z.output<typeof machineOutput>;

async function present(call: Call, machine: Machine): Promise<MachineObject> {
  const [object] = await presentAll(call, [machine]);
  return object as MachineObject;
}

async function presentAll({ deps }: Call, machines: readonly Machine[]): Promise<MachineObject[]> {
  const reachable = await reachableFrom(
    deps,
    machines.map(({ id }) => id),
  );
  const instance = instanceId(deps);
  return machines.map((machine) => ({
    ...presentReachable(machine, instance),
    scoped_machines: (reachable.get(machine.id) ?? []).map((other) => presentReachable(other, instance)),
    description: machine.description,
    enabled: machine.enabled,
    max_token_ttl: machine.maxTokenTtlSeconds,
    may_verify: machine.mayVerify,
    allowed_cidrs: machine.allowedCidrs,
    live_tokens_max: machine.liveTokensMax,
    mints_per_minute_max: machine.mintsPerMinuteMax,
    rotation: machine.rotation,
    rotate_by: machine.rotateBy,
    last_used_at: machine.lastUsedAt,
  }));
}

const presentReachable = (machine: ReachableMachine, instance: string) => ({
  object: 'machine' as const,
  id: machine.id,
  name: machine.name,
  instance_id: instance,
  created_at: machine.createdAt,
  updated_at: machine.updatedAt,
  default_token_ttl: machine.defaultTokenTtlSeconds,
});

const presentSecret = ({ secret, previousExpiresAt }: Rotated) => ({
  object: 'machine_secret_key' as const,
  ...(secret !== undefined && { secret }),
  previous_expires_at: previousExpiresAt,
});
