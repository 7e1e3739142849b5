/** Imports of machines from elsewhere, with the SHA-256 of the secret they have: it goes on being accepted here. */
import { eq } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { START_LENGTH_MAX, sha256 } from './api-key-imports.ts';
import { change } from './events.ts';
import { description, instant, machineId, name, ttlSeconds } from './fields.ts';
import { registerImportedShapes } from './key-shapes.ts';
import { assertTtls, insertMachine, MAX_TOKEN_TTL_SECONDS } from './machines.ts';
import { installHash } from './secrets.ts';

/**
 * How the secret looks, in full: a caller's credential of another shape than ours is looked up only if it is of one that
 * was registered, so each is kept as narrow as it can be.
 */
const machineShape = z.strictObject({
  prefix: z
    .string()
    .min(3)
    .max(64)
    .regex(/^[\x21-\x7e]+$/, 'wanted printable ASCII without spaces'),
  length: z.number().int().min(32).max(512),
});

export const importMachineInput = z.strictObject({
  id: machineId,
  name,
  description: description.nullish(),
  /** SHA-256 of its secret. */
  hash: sha256,
  shape: machineShape,
  /** How the secret begins, for people to recognise it by. */
  start: z
    .string()
    .max(START_LENGTH_MAX)
    .regex(/^[\x21-\x7e]*$/, 'wanted printable ASCII without spaces')
    .nullish(),
  defaultTokenTtlSeconds: ttlSeconds.optional(),
  maxTokenTtlSeconds: ttlSeconds.optional(),
  createdAt: instant.optional(),
});

/** `exists` says that a machine with this id is there: it is left as it is, its secrets too. */
export interface MachineImport {
  id: string;
  outcome: 'imported' | 'exists';
}

/**
 * Imports a machine with its secret, and registers what that looks like. The same import again changes nothing. Throws
 * `name_taken`, `already_exists` where the secret is somebody else's, `invalid_input`.
 */
export async function importMachine(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof importMachineInput>,
): Promise<MachineImport> {
  const now = deps.now();
  const { id, hash, shape, start } = input;
  const terms = termsOf(input, now);
  const imported = await change<MachineImport>(deps, caller, async (tx) => {
    if (await isThere(tx, id)) return { result: { id, outcome: 'exists' }, event: null };
    await insertMachine(tx, { ...terms, id, name: input.name, description: input.description ?? null, now });
    await installHash(tx, deps, {
      owner: { kind: 'machine', id },
      hash: deps.keyring.hashOf(Buffer.from(hash, 'hex')),
      start: start ?? '',
    });
    await registerImportedShapes(tx, [{ ownerKind: 'machine', ...shape }], now);
    return {
      result: { id, outcome: 'imported' },
      event: { type: 'machine.imported', objectId: id, data: { name: input.name } },
    };
  });
  deps.shapes.forget();
  return imported;
}

/** A machine is never imported into less than it had: its default lifetime raises the longest. */
function termsOf(input: z.output<typeof importMachineInput>, now: number) {
  const { defaultTokenTtlSeconds = 3600, createdAt = now } = input;
  const longest = Math.max(MAX_TOKEN_TTL_SECONDS, defaultTokenTtlSeconds);
  const { maxTokenTtlSeconds = longest } = input;
  assertTtls({ defaultTokenTtlSeconds, maxTokenTtlSeconds });
  if (createdAt > now) {
    throw new CountersignError(
      'invalid_input',
      `Cannot import machine: 'createdAt' must be at most ${now}, got ${createdAt}`,
      { field: 'createdAt' },
    );
  }
  return { defaultTokenTtlSeconds, maxTokenTtlSeconds, createdAt };
}

async function isThere({ db, tables: { machines } }: Rows, id: string): Promise<boolean> {
  const found = await db.select({ id: machines.id }).from(machines).where(eq(machines.id, id));
  return found.length > 0;
}
