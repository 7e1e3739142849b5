import { and, eq, or, sql } from 'drizzle-orm';
import { z } from 'zod';
import { lockStatement } from '../../db/lock.ts';
import { isUniqueViolation, type Rows } from '../../db/store.ts';
import { PREFIXES } from '../crypto/format.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { EventType } from './event-types.ts';
import { change } from './events.ts';
import { cidrs, description, machineId, name, TTL_SECONDS_MAX, ttlSeconds } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { afterCursor, COUNT_MAX, isOrIsNamed, orderOf, type Page, pageInput, toPage } from './pages.ts';
import {
  cancelOverlap,
  completeOverlap,
  compromised,
  newestSecretId,
  OWN_OVERLAP_SECONDS,
  overlapSeconds,
  type Rotated,
  type RotationOptions,
  rotateSecret,
  rotationOf,
  scheduleRotation,
} from './rotation.ts';
import {
  type RotationPolicy,
  type RotationTerms,
  rotateBysOf,
  rotationPolicy,
  rotationPolicyColumns,
  rotationPolicyOf,
} from './rotation-policies.ts';
import { deleteSecrets, issueSecret } from './secrets.ts';

export interface Machine {
  id: string;
  name: string;
  description: string | null;
  enabled: boolean;
  /** Lifetime of an M2M token that is asked for without one. */
  defaultTokenTtlSeconds: number;
  /** The longest lifetime an M2M token may be asked for with. */
  maxTokenTtlSeconds: number;
  /** Whether the machine may verify API keys and OAuth access tokens, not only M2M tokens addressed to it. */
  mayVerify: boolean;
  /** CIDR blocks its secrets may be used from; null for anywhere. */
  allowedCidrs: string[] | null;
  /** Unexpired M2M tokens it may have at a time. */
  liveTokensMax: number;
  /** M2M tokens it may mint in a minute. */
  mintsPerMinuteMax: number;
  /** How old its secret may grow; null for as old as it likes. */
  rotation: RotationPolicy | null;
  /** When its newest secret is due for rotation; null where none is. */
  rotateBy: number | null;
  lastUsedAt: number | null;
  createdAt: number;
  updatedAt: number;
}

type MachineRow = Rows['tables']['machines']['$inferSelect'];

const DEFAULT_TOKEN_TTL_SECONDS = 3600;
export const MAX_TOKEN_TTL_SECONDS = 30 * 24 * 3600;
/** What keeps one machine that has gone wild from filling the disk; an admin may set other limits for each. */
const LIVE_TOKENS_MAX = 1_000_000;
const MINTS_PER_MINUTE_MAX = 60_000;

/** Edges that may leave one machine, as Clerk has it. */
export const MACHINE_SCOPES_MAX = 150;

const liveTokensMax = z.number().int().min(1).max(100_000_000);
const mintsPerMinuteMax = z.number().int().min(1).max(10_000_000);

export const createMachineInput = z.strictObject({
  name: name.meta({ positional: true }),
  description: description.nullish(),
  defaultTokenTtlSeconds: ttlSeconds.default(DEFAULT_TOKEN_TTL_SECONDS),
  maxTokenTtlSeconds: ttlSeconds.default(MAX_TOKEN_TTL_SECONDS),
  mayVerify: z.boolean().default(false),
  /** Where its secrets may be used from; null for anywhere. */
  allowedCidrs: cidrs.nullish(),
  liveTokensMax: liveTokensMax.default(LIVE_TOKENS_MAX),
  mintsPerMinuteMax: mintsPerMinuteMax.default(MINTS_PER_MINUTE_MAX),
  /** How old its secret may grow; null for as old as it likes. */
  rotation: rotationPolicy.nullish(),
  /** Machines it may call from the beginning, without scopes of an admin's. */
  mayCall: z
    .array(machineId)
    .max(MACHINE_SCOPES_MAX)
    .refine((list) => new Set(list).size === list.length, 'wanted each machine once')
    .optional(),
  ...idempotencyInput,
});

/** Creates a machine and its first secret, which is answered this once. Throws `name_taken`, and `not_found` for whom it may call. */
export async function createMachine(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createMachineInput>,
): Promise<Machine & { secret?: string }> {
  assertTtls(input);
  const now = deps.now();
  const row: MachineRow = {
    ...newRow(sortableId('mch_', now), input, now),
    may_verify: input.mayVerify,
    allowed_cidrs: input.allowedCidrs ?? null,
    live_tokens_max: input.liveTokensMax,
    mints_per_minute_max: input.mintsPerMinuteMax,
    ...rotationPolicyColumns(input.rotation ?? null),
  };
  return create(deps, caller, { procedure: 'machines.create', input }, async (tx) => {
    await insertRow(tx, row);
    const toMachineIds = [...(input.mayCall ?? [])].sort();
    await insertMachineScopes(tx, row, toMachineIds);
    const secret = await issueSecret(tx, deps, {
      owner: { kind: 'machine', id: row.id },
      prefix: PREFIXES.machineSecretKey,
      terms: termsOf(row),
    });
    return {
      result: { ...(await shown(tx, row)), secret },
      event: {
        type: 'machine.created',
        objectId: row.id,
        data: { name: row.name, ...(toMachineIds.length > 0 && { toMachineIds }) },
      },
    };
  });
}

/** The ids in one order everywhere: two transactions that cross cannot deadlock. */
async function insertMachineScopes(
  tx: Rows,
  { id, created_at }: MachineRow,
  toMachineIds: readonly string[],
) {
  for (const to_machine_id of toMachineIds) {
    await lockMachine(tx, to_machine_id);
    await tx.db
      .insert(tx.tables.machineScopes)
      .values({ from_machine_id: id, to_machine_id, scopes: [], created_at, updated_at: created_at });
  }
}

type NewMachine = Pick<Machine, 'name' | 'defaultTokenTtlSeconds' | 'maxTokenTtlSeconds'> & {
  description?: string | null | undefined;
};

const newRow = (id: string, input: NewMachine, now: number): MachineRow => ({
  id,
  name: input.name,
  description: input.description ?? null,
  enabled: true,
  default_token_ttl_seconds: input.defaultTokenTtlSeconds,
  max_token_ttl_seconds: input.maxTokenTtlSeconds,
  may_verify: false,
  allowed_cidrs: null,
  live_tokens_max: LIVE_TOKENS_MAX,
  mints_per_minute_max: MINTS_PER_MINUTE_MAX,
  token_generation: 0,
  tokens_revoked_at: null,
  ...rotationPolicyColumns(null),
  last_used_at: null,
  created_at: now,
  updated_at: now,
});

/** Another that has the name, or by then the id, is in its way. */
async function insertRow({ db, tables: { machines } }: Rows, row: MachineRow) {
  const inserted = await db.insert(machines).values(row).onConflictDoNothing().returning();
  if (inserted.length === 0) throw nameTaken(row.name);
}

/** Inserts a machine that comes from elsewhere, with our limits, its own id and the time it was created at. */
export async function insertMachine(
  tx: Rows,
  { id, now, createdAt, ...input }: NewMachine & { id: string; now: number; createdAt: number },
) {
  await insertRow(tx, { ...newRow(id, input, now), created_at: createdAt });
}

export const machineIdInput = z.strictObject({ id: machineId.meta({ positional: true }) });

export async function getMachine(deps: Deps, { id }: z.output<typeof machineIdInput>): Promise<Machine> {
  const { db, tables } = deps.store.read;
  const [row] = await db.select().from(tables.machines).where(eq(tables.machines.id, id));
  if (!row) throw machineNotFound(id);
  return shown(deps.store.read, row);
}

export const getOwnMachineInput = z.strictObject({});

/** The calling machine, which so learns when its secret is due. Throws `forbidden` for who is none. */
export async function getOwnMachine(deps: Deps, { principal }: Caller): Promise<Machine> {
  if (principal.kind === 'machine') return getMachine(deps, { id: principal.id });
  throw new CountersignError('forbidden', 'Only a machine may be shown itself');
}

export const listMachinesInput = z.strictObject({
  /** An exact id, or a part of a name in any case. */
  query: z.string().min(1).max(255).optional(),
  orderBy: z.enum(['name', 'created_at']).default('created_at'),
  direction: z.enum(['ascending', 'descending']).default('descending'),
  ...pageInput,
});

export async function listMachines(
  deps: Deps,
  input: z.output<typeof listMachinesInput>,
): Promise<Page<Machine>> {
  const { db, tables } = deps.store.read;
  const { machines } = tables;
  const column = machines[input.orderBy];
  const descending = input.direction === 'descending';
  const rows = await db
    .select()
    .from(machines)
    .where(
      and(
        input.query === undefined ? undefined : isOrIsNamed(deps.store.read, machines, input.query),
        afterCursor(input.cursor, column, machines.id, descending),
      ),
    )
    .orderBy(...orderOf(column, machines.id, descending))
    .limit(input.limit + 1)
    .offset(input.offset);
  const rotateBys = await rotateBysOf(deps.store.read, 'machine', rows);
  return toPage(
    rows,
    input.limit,
    (row) => [row[input.orderBy], row.id],
    (row) => toMachine(row, rotateBys),
  );
}

/** How many machines a list has, at most `COUNT_MAX`. */
export async function countMachines(
  { store: { read } }: Deps,
  { query }: Pick<z.output<typeof listMachinesInput>, 'query'>,
): Promise<number> {
  const { db, tables } = read;
  const counted = db
    .select({ id: tables.machines.id })
    .from(tables.machines)
    .where(query === undefined ? undefined : isOrIsNamed(read, tables.machines, query))
    .limit(COUNT_MAX)
    .as('counted');
  const [row] = await db.select({ count: sql`count(*)`.mapWith(Number) }).from(counted);
  return row?.count ?? 0;
}

export const updateMachineInput = z.strictObject({
  id: machineId.meta({ positional: true }),
  name: name.optional(),
  description: description.nullish(),
  defaultTokenTtlSeconds: ttlSeconds.optional(),
  maxTokenTtlSeconds: ttlSeconds.optional(),
  mayVerify: z.boolean().optional(),
  allowedCidrs: cidrs.nullish(),
  liveTokensMax: liveTokensMax.optional(),
  mintsPerMinuteMax: mintsPerMinuteMax.optional(),
  rotation: rotationPolicy.nullish(),
});

const UPDATABLE = [
  'name',
  'description',
  'defaultTokenTtlSeconds',
  'maxTokenTtlSeconds',
  'mayVerify',
  'allowedCidrs',
  'liveTokensMax',
  'mintsPerMinuteMax',
  'rotation',
] as const satisfies (keyof Machine)[];

/** What may take from a machine what it could do before. */
const NARROWING = [
  'maxTokenTtlSeconds',
  'mayVerify',
  'allowedCidrs',
  'liveTokensMax',
  'mintsPerMinuteMax',
] as const satisfies (keyof Machine)[];

/**
 * Changes what it is told to; what already is so leaves no event. Throws `not_found`, `name_taken`, and `invalid_input` for
 * a default lifetime beyond the longest, unless that is raised with it.
 */
export async function updateMachine(
  deps: Deps,
  caller: Caller,
  { id, ...changes }: z.output<typeof updateMachineInput>,
  { raisesMaximum = false }: { raisesMaximum?: boolean } = {},
): Promise<Machine> {
  const mayNarrow = NARROWING.some((field) => changes[field] !== undefined);
  const work = async (tx: Rows) => {
    const before = await lockMachine(tx, id);
    const row: MachineRow = {
      ...before,
      name: changes.name ?? before.name,
      description: changes.description === undefined ? before.description : changes.description,
      default_token_ttl_seconds: changes.defaultTokenTtlSeconds ?? before.default_token_ttl_seconds,
      max_token_ttl_seconds:
        changes.maxTokenTtlSeconds ??
        Math.max(before.max_token_ttl_seconds, raisesMaximum ? (changes.defaultTokenTtlSeconds ?? 0) : 0),
      may_verify: changes.mayVerify ?? before.may_verify,
      allowed_cidrs: changes.allowedCidrs === undefined ? before.allowed_cidrs : changes.allowedCidrs,
      live_tokens_max: changes.liveTokensMax ?? before.live_tokens_max,
      mints_per_minute_max: changes.mintsPerMinuteMax ?? before.mints_per_minute_max,
      ...(changes.rotation !== undefined && rotationPolicyColumns(changes.rotation)),
      updated_at: deps.now(),
    };
    assertTtls({
      defaultTokenTtlSeconds: row.default_token_ttl_seconds,
      maxTokenTtlSeconds: row.max_token_ttl_seconds,
    });
    const [was, is] = [toMachine(before), toMachine(row)];
    const changed = UPDATABLE.filter((field) => JSON.stringify(was[field]) !== JSON.stringify(is[field]));
    if (changed.length === 0) return { result: await shown(tx, before), event: null };
    await saveNamed(tx, row);
    if (changed.includes('rotation')) await scheduleRotation(tx, deps, { kind: 'machine', id }, termsOf(row));
    return {
      result: await shown(tx, row),
      event: { type: 'machine.updated' as const, objectId: id, data: { changed } },
    };
  };
  return change<Machine>(deps, caller, work, mayNarrow ? 'revocation' : 'normal');
}

/** The unique index decides who of several has a name: asking first would leave time for another. */
async function saveNamed({ db, tables: { machines } }: Rows, row: MachineRow) {
  try {
    await db.update(machines).set(row).where(eq(machines.id, row.id));
  } catch (error) {
    throw isUniqueViolation(error) ? nameTaken(row.name) : error;
  }
}

/** Enables or disables; a machine that already is as wanted is answered as it stands, without an event. */
export async function setMachineEnabled(
  deps: Deps,
  caller: Caller,
  id: string,
  enabled: boolean,
): Promise<Machine> {
  return change(
    deps,
    caller,
    async (tx) => {
      const { machines } = tx.tables;
      const before = await lockMachine(tx, id);
      if (before.enabled === enabled) return { result: await shown(tx, before), event: null };
      const row = { ...before, enabled, updated_at: deps.now() };
      await tx.db.update(machines).set(row).where(eq(machines.id, id));
      return {
        result: await shown(tx, row),
        event: { type: enabled ? 'machine.enabled' : 'machine.disabled', objectId: id },
      };
    },
    enabled ? 'normal' : 'revocation',
  );
}

export const rotateMachineSecretInput = z.strictObject({
  id: machineId.meta({ positional: true }),
  /** Without it, none. */
  overlapSeconds: overlapSeconds.optional(),
  compromised,
});

/**
 * Gives a machine a new secret. Compromised, every token it was issued is revoked too, in the same write however many
 * there are: all were minted with earlier secrets. Throws `not_found`, `rotation_in_progress`.
 */
export async function rotateMachineSecret(
  deps: Deps,
  caller: Caller,
  { id, ...given }: z.output<typeof rotateMachineSecretInput>,
): Promise<Machine & Rotated> {
  const options = rotationOf(given, 0);
  return change(
    deps,
    caller,
    async (tx) => rotateLocked(tx, deps, await lockMachine(tx, id), options),
    'revocation',
  );
}

export const rotateOwnMachineSecretInput = z.strictObject({
  /** Without it, an hour: a machine whose answer was lost is still known by the secret it has. */
  overlapSeconds: overlapSeconds.optional(),
});

/** Gives the calling machine a new secret. Throws `forbidden` unless it calls with its newest. */
export async function rotateOwnMachineSecret(
  deps: Deps,
  caller: Caller,
  given: z.output<typeof rotateOwnMachineSecretInput>,
): Promise<Machine & Rotated> {
  const { principal } = caller;
  if (principal.kind !== 'machine')
    throw new CountersignError('forbidden', 'Only a machine may rotate its own secret');
  const { id, secretId } = principal;
  const options = rotationOf(given, OWN_OVERLAP_SECONDS);
  return change(
    deps,
    caller,
    async (tx) => {
      const row = await lockMachine(tx, id);
      if ((await newestSecretId(tx, deps, { kind: 'machine', id })) !== secretId)
        throw new CountersignError('forbidden', "Only a machine's newest secret may rotate it");
      return rotateLocked(tx, deps, row, options);
    },
    'revocation',
  );
}

async function rotateLocked(tx: Rows, deps: Deps, row: MachineRow, options: RotationOptions) {
  const { id } = row;
  const rotated = await rotateSecret(
    tx,
    deps,
    { owner: { kind: 'machine', id }, prefix: PREFIXES.machineSecretKey, terms: termsOf(row) },
    options,
  );
  if (options.compromised) await revokeTokensIssued(tx, deps, id);
  const { previousExpiresAt } = rotated;
  return {
    result: { ...(await shown(tx, row)), ...rotated },
    event: {
      type: 'machine.secret_rotated' as const,
      objectId: id,
      data: {
        name: row.name,
        compromised: options.compromised,
        previousExpiresAt,
        ...(options.compromised && { selector: { machineId: id }, denyUntil: null }),
      },
    },
  };
}

/** Raises the machine's generation, so that every token it was issued until now is revoked; answers when, or null. */
export async function revokeTokensIssued(tx: Rows, deps: Deps, id: string): Promise<number | null> {
  const { machines } = tx.tables;
  const revokedAt = deps.now();
  const raised = await tx.db
    .update(machines)
    .set({ token_generation: sql`${machines.token_generation} + 1`, tokens_revoked_at: revokedAt })
    .where(eq(machines.id, id))
    .returning({ id: machines.id });
  return raised.length > 0 ? revokedAt : null;
}

/** Revokes the new secret of an overlap; the old one stays. Tokens minted with either live on. */
export async function cancelMachineRotation(deps: Deps, caller: Caller, id: string): Promise<Machine> {
  return endOverlap(deps, caller, id, cancelOverlap, 'machine.secret_rotation_cancelled');
}

/** Ends the old secret of an overlap now. */
export async function completeMachineRotation(deps: Deps, caller: Caller, id: string): Promise<Machine> {
  return endOverlap(deps, caller, id, completeOverlap, 'machine.secret_rotation_completed');
}

function endOverlap(
  deps: Deps,
  caller: Caller,
  id: string,
  end: typeof cancelOverlap,
  type: EventType,
): Promise<Machine> {
  return change(
    deps,
    caller,
    async (tx) => {
      const row = await lockMachine(tx, id);
      await end(tx, deps, { kind: 'machine', id }, termsOf(row));
      return { result: await shown(tx, row), event: { type, objectId: id, data: { name: row.name } } };
    },
    'revocation',
  );
}

/** Deletes the machine, its secrets and the machine scopes to and from it. Its tokens fail by join from then on. */
export async function deleteMachine(
  deps: Deps,
  caller: Caller,
  id: string,
): Promise<{ id: string; deleted: true }> {
  return change(
    deps,
    caller,
    async (tx) => {
      const { machines, machineScopes } = tx.tables;
      await lockMachine(tx, id);
      const edges = await tx.db
        .delete(machineScopes)
        .where(or(eq(machineScopes.from_machine_id, id), eq(machineScopes.to_machine_id, id)))
        .returning({ from: machineScopes.from_machine_id, to: machineScopes.to_machine_id });
      await deleteSecrets(tx, { kind: 'machine', id });
      await tx.db.delete(machines).where(eq(machines.id, id));
      // Whom it could call nobody can read any more, and they are to forget its tokens.
      const toMachineIds = edges.flatMap(({ from, to }) => (from === id ? [to] : [])).sort();
      return {
        result: { id, deleted: true as const },
        event: { type: 'machine.deleted', objectId: id, data: { toMachineIds } },
      };
    },
    'revocation',
  );
}

/** Reads a machine that this transaction is about to change or to hang something on; others that want to, wait. */
export async function lockMachine(tx: Rows, id: string): Promise<MachineRow> {
  const row = await readLocked(tx, id);
  if (!row) throw machineNotFound(id);
  return row;
}

const readLocked = lockStatement('machine_lock', 'machines');

/** Throws `invalid_input` for a default lifetime beyond the longest. */
export function assertTtls({
  defaultTokenTtlSeconds,
  maxTokenTtlSeconds,
}: Pick<Machine, 'defaultTokenTtlSeconds' | 'maxTokenTtlSeconds'>) {
  if (defaultTokenTtlSeconds <= maxTokenTtlSeconds) return;
  throw new CountersignError(
    'invalid_input',
    `Cannot save machine: 'defaultTokenTtlSeconds' must be at most 'maxTokenTtlSeconds' (${maxTokenTtlSeconds}), got ${defaultTokenTtlSeconds}; both are at most ${TTL_SECONDS_MAX}`,
    { field: 'defaultTokenTtlSeconds' },
  );
}

export const machineNotFound = (id: string) =>
  new CountersignError('not_found', `No machine has the id '${id}'`);

const nameTaken = (taken: string) =>
  new CountersignError('name_taken', `Another machine is called '${taken}'`, { field: 'name' });

/** A machine does not expire. */
const termsOf = ({ rotation_period_seconds }: MachineRow): RotationTerms => ({
  rotation_period_seconds,
  expires_at: null,
});

const shown = async (rows: Rows, row: MachineRow): Promise<Machine> =>
  toMachine(row, await rotateBysOf(rows, 'machine', [row]));

function toMachine(row: MachineRow, rotateBys?: ReadonlyMap<string, number>): Machine {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    enabled: row.enabled,
    defaultTokenTtlSeconds: row.default_token_ttl_seconds,
    maxTokenTtlSeconds: row.max_token_ttl_seconds,
    mayVerify: row.may_verify,
    allowedCidrs: row.allowed_cidrs,
    liveTokensMax: row.live_tokens_max,
    mintsPerMinuteMax: row.mints_per_minute_max,
    rotation: rotationPolicyOf(row),
    rotateBy: rotateBys?.get(row.id) ?? null,
    lastUsedAt: row.last_used_at,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}
