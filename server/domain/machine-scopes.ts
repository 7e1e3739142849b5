/** Machine scopes: the edge from → to, whom a machine may call, and the scopes an admin put on it. */
import { and, asc, eq, inArray } from 'drizzle-orm';
import { z } from 'zod';
import { forChange } from '../../db/kit.ts';
import type { Rows } from '../../db/store.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { change } from './events.ts';
import { machineId, scopes } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { lockMachine, MACHINE_SCOPES_MAX } from './machines.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';

export interface MachineScope {
  fromMachineId: string;
  toMachineId: string;
  /** What a token from the one for the other may be asked for with. */
  scopes: string[];
  createdAt: number;
  updatedAt: number;
}

type MachineScopeRow = Rows['tables']['machineScopes']['$inferSelect'];

/** Clerk's wire puts machine ids among a token's scopes, so no scope of an admin's may look like one. */
export const edgeScopes = scopes.refine(
  (list) => !list.some((scope) => scope.startsWith('mch_')),
  "wanted no scope that begins with 'mch_'",
);

const edge = {
  fromMachineId: machineId.meta({ positional: true }),
  toMachineId: machineId.meta({ positional: true }),
};

export const createMachineScopeInput = z.strictObject({
  ...edge,
  scopes: edgeScopes.default([]),
  ...idempotencyInput,
});

/** Allows one machine to call another. Throws `not_found`, `already_exists`, `limit_reached`. */
export async function createMachineScope(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createMachineScopeInput>,
): Promise<MachineScope> {
  const { fromMachineId, toMachineId } = input;
  assertTwoMachines(fromMachineId, toMachineId);
  const now = deps.now();
  const row: MachineScopeRow = {
    from_machine_id: fromMachineId,
    to_machine_id: toMachineId,
    scopes: input.scopes,
    created_at: now,
    updated_at: now,
  };
  return create(deps, caller, { procedure: 'machineScopes.create', input }, async (tx) => {
    // Both in one order everywhere: neither is deleted meanwhile, and two calls that cross cannot deadlock.
    for (const id of [fromMachineId, toMachineId].sort()) await lockMachine(tx, id);
    const { machineScopes } = tx.tables;
    const inserted = await tx.db.insert(machineScopes).values(row).onConflictDoNothing().returning();
    if (inserted.length === 0) {
      throw new CountersignError(
        'already_exists',
        `A machine scope from '${fromMachineId}' to '${toMachineId}' is already there`,
      );
    }
    await assertWithinLimit(tx, fromMachineId);
    return { result: toMachineScope(row), event: { type: 'machine_scope.created', ...eventOf(row) } };
  });
}

function assertTwoMachines(fromMachineId: string, toMachineId: string) {
  if (fromMachineId !== toMachineId) return;
  throw new CountersignError(
    'invalid_input',
    `Cannot create machine scope: wanted two machines, found '${toMachineId}' twice`,
    { field: 'toMachineId' },
  );
}

async function assertWithinLimit(tx: Rows, fromMachineId: string) {
  const { machineScopes } = tx.tables;
  const leaving = await tx.db
    .select({ to: machineScopes.to_machine_id })
    .from(machineScopes)
    .where(eq(machineScopes.from_machine_id, fromMachineId));
  if (leaving.length <= MACHINE_SCOPES_MAX) return;
  throw new CountersignError(
    'limit_reached',
    `Cannot create machine scope: at most ${MACHINE_SCOPES_MAX} may leave one machine, and as many leave '${fromMachineId}'`,
  );
}

export const listMachineScopesInput = z.strictObject({
  fromMachineId: machineId.optional(),
  toMachineId: machineId.optional(),
  ...pageInput,
});

/** Machine scopes by the machines they lead from and to: all, those of one end, or the one between two. */
export async function listMachineScopes(
  deps: Deps,
  input: z.output<typeof listMachineScopesInput>,
): Promise<Page<MachineScope>> {
  const { db, tables } = deps.store.read;
  const { from_machine_id, to_machine_id } = tables.machineScopes;
  const rows = await db
    .select()
    .from(tables.machineScopes)
    .where(
      and(
        input.fromMachineId === undefined ? undefined : eq(from_machine_id, input.fromMachineId),
        input.toMachineId === undefined ? undefined : eq(to_machine_id, input.toMachineId),
        afterCursor(input.cursor, from_machine_id, to_machine_id, false),
      ),
    )
    .orderBy(...orderOf(from_machine_id, to_machine_id, false))
    .limit(input.limit + 1)
    .offset(input.offset);
  return toPage(rows, input.limit, (row) => [row.from_machine_id, row.to_machine_id], toMachineScope);
}

/** What Clerk's wire shows of a machine that another may call. */
export interface ReachableMachine {
  id: string;
  name: string;
  defaultTokenTtlSeconds: number;
  createdAt: number;
  updatedAt: number;
}

/** The machines that each of some may call, by the id of who may. */
export async function reachableFrom(
  { store: { read } }: Deps,
  fromMachineIds: readonly string[],
): Promise<ReadonlyMap<string, ReachableMachine[]>> {
  const { machineScopes: e, machines: m } = read.tables;
  const rows = await read.db
    .select({
      from: e.from_machine_id,
      id: m.id,
      name: m.name,
      defaultTokenTtlSeconds: m.default_token_ttl_seconds,
      createdAt: m.created_at,
      updatedAt: m.updated_at,
    })
    .from(e)
    .innerJoin(m, eq(m.id, e.to_machine_id))
    .where(inArray(e.from_machine_id, [...fromMachineIds]))
    .orderBy(asc(e.from_machine_id), asc(e.to_machine_id));
  const reachable = new Map<string, ReachableMachine[]>();
  for (const { from, ...machine } of rows) reachable.set(from, [...(reachable.get(from) ?? []), machine]);
  return reachable;
}

export const updateMachineScopeInput = z.strictObject({ ...edge, scopes: edgeScopes });

/** Replaces the scopes allowed between two machines; the same ones again are answered as they stand, without an event. */
export async function updateMachineScope(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof updateMachineScopeInput>,
): Promise<MachineScope> {
  return change(
    deps,
    caller,
    async (tx) => {
      const before = await lockMachineScope(tx, input);
      if (sameScopes(before.scopes, input.scopes)) return { result: toMachineScope(before), event: null };
      const row = { ...before, scopes: input.scopes, updated_at: deps.now() };
      await tx.db
        .update(tx.tables.machineScopes)
        .set({ scopes: row.scopes, updated_at: row.updated_at })
        .where(isEdge(tx, input));
      const isNarrower = before.scopes.some((scope) => !row.scopes.includes(scope));
      return {
        result: toMachineScope(row),
        event: { type: 'machine_scope.updated', ...eventOf(row, isNarrower && { denyUntil: null }) },
      };
    },
    'revocation',
  );
}

export const machineScopeInput = z.strictObject(edge);

/** Takes back that one machine may call another. Tokens for it fail from then on. */
export async function deleteMachineScope(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof machineScopeInput>,
): Promise<{ fromMachineId: string; toMachineId: string; deleted: true }> {
  return change(
    deps,
    caller,
    async (tx) => {
      const [row] = await tx.db.delete(tx.tables.machineScopes).where(isEdge(tx, input)).returning();
      if (!row) throw machineScopeNotFound(input);
      return {
        result: { ...input, deleted: true as const },
        event: { type: 'machine_scope.deleted', ...eventOf(row) },
      };
    },
    'revocation',
  );
}

type Edge = z.output<typeof machineScopeInput>;

function isEdge({ tables: { machineScopes } }: Rows, { fromMachineId, toMachineId }: Edge) {
  return and(eq(machineScopes.from_machine_id, fromMachineId), eq(machineScopes.to_machine_id, toMachineId));
}

async function lockMachineScope(tx: Rows, ends: Edge): Promise<MachineScopeRow> {
  const { machineScopes } = tx.tables;
  const [row] = await forChange(tx.db.select().from(machineScopes).where(isEdge(tx, ends)));
  if (!row) throw machineScopeNotFound(ends);
  return row;
}

const machineScopeNotFound = ({ fromMachineId, toMachineId }: Edge) =>
  new CountersignError('not_found', `No machine scope leads from '${fromMachineId}' to '${toMachineId}'`);

const sameScopes = (some: readonly string[], others: readonly string[]) =>
  some.length === others.length && some.every((scope) => others.includes(scope));

function eventOf(row: MachineScopeRow, more: { denyUntil: null } | false = false) {
  const { from_machine_id: fromMachineId, to_machine_id: toMachineId, scopes } = row;
  return {
    objectId: `${fromMachineId}:${toMachineId}`,
    data: { fromMachineId, toMachineId, scopes, ...more },
  };
}

function toMachineScope(row: MachineScopeRow): MachineScope {
  return {
    fromMachineId: row.from_machine_id,
    toMachineId: row.to_machine_id,
    scopes: row.scopes,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}
