/** Key shapes: the prefixes that values of ours may have beside `ak_`, and what imported values look like. */
import { and, asc, eq, gte, lt, sql } from 'drizzle-orm';
import { z } from 'zod';
import { lockName } from '../../db/lock.ts';
import type { Rows, Store } from '../../db/store.ts';
import { PREFIXES, parseValue } from '../crypto/format.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { change } from './events.ts';
import { description } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { createKeptSet } from './kept-set.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';

/** A value of a shape that somebody registered. */
export interface ShapedValue {
  ownerKind: 'api_key' | 'machine';
  /** Whether it was imported: only such a value may lack our checksum. */
  imported: boolean;
}

/** The registered shapes in memory, read again when they have grown old or a value has none of them. */
export interface KeyShapes {
  /**
   * What a value that begins with none of our own prefixes may be, by its shape alone; null when nobody registered it.
   * Beginning with `ak_` it may be an imported one all the same, if its checksum does not fit. With `ownerKind`, whether
   * it may be that: imported API keys and machine secrets may look alike. Without it, an API key rather than a machine's.
   */
  find(value: string, ownerKind?: ShapedValue['ownerKind']): Promise<ShapedValue | null>;
  /** Has the set read before it is used again: a shape was added or taken away. */
  forget(): void;
}

/** How old the set may be, and how often a value of no known shape may cause it to be read. */
const REREAD_MS = 5_000;
const UNKNOWN_VALUE_REREAD_MS = 500;

interface ShapeSet {
  readAt: number;
  prefixes: ReadonlySet<string>;
  /** API keys' first. */
  imported: readonly ImportedShape[];
}

export function createKeyShapes(store: Store, clock = () => performance.now()): KeyShapes {
  const kept = createKeptSet((readAt) => readShapes(store.read, readAt), clock);
  return {
    async find(value, ownerKind) {
      const prefix = parseValue(value)?.prefix ?? null;
      if (isReserved(value, prefix)) return null;
      const found = shapeOf(await kept.get(REREAD_MS), value, prefix, ownerKind);
      return found ?? shapeOf(await kept.get(UNKNOWN_VALUE_REREAD_MS), value, prefix, ownerKind);
    },
    forget: kept.forget,
  };
}

async function readShapes({ db, tables }: Rows, readAt: number): Promise<ShapeSet> {
  const prefixes = await db.select({ prefix: tables.keyPrefixes.prefix }).from(tables.keyPrefixes);
  const { owner_kind: ownerKind, prefix, length } = tables.importedShapes;
  const imported = await db
    .select({ ownerKind, prefix, length })
    .from(tables.importedShapes)
    .orderBy(asc(ownerKind));
  return { readAt, prefixes: new Set(prefixes.map((row) => row.prefix)), imported };
}

const RESERVED: readonly string[] = Object.values(PREFIXES);
/** What ids and other values of ours begin with: a key that began so would be taken for one by people. */
const OF_OTHERS = 'mch_ kp_ ep_ dlv_ evt_ sec_ key_ oauthapp_ user_ org_ whsec_ whsk_ whpk_'.split(' ');

/** Whether a value is one of ours, or pretends to be one of a kind that nothing imported may be taken for. */
function isReserved(value: string, prefix: string | null): boolean {
  if (prefix === PREFIXES.apiKey) return true;
  return RESERVED.some((reserved) => reserved !== PREFIXES.apiKey && value.startsWith(reserved));
}

/** `prefix` is that of a value of our format, else null. Our format goes first: there nothing is left to a coincidence. */
function shapeOf(
  { prefixes, imported }: ShapeSet,
  value: string,
  prefix: string | null,
  wanted: ShapedValue['ownerKind'] | undefined,
): ShapedValue | null {
  if (prefix !== null && prefixes.has(prefix))
    return wanted === 'machine' ? null : { ownerKind: 'api_key', imported: false };
  const shape = imported.find((each) => fits(each, value) && (wanted ?? each.ownerKind) === each.ownerKind);
  return shape ? { ownerKind: shape.ownerKind, imported: true } : null;
}

/** A length alone does not make an imported value of what begins as ours do. */
function fits(shape: ImportedShape, value: string): boolean {
  if (!value.startsWith(shape.prefix)) return false;
  if (shape.length !== 0 && shape.length !== value.length) return false;
  return !value.startsWith(PREFIXES.apiKey) || shape.prefix.startsWith(PREFIXES.apiKey);
}

/** What the values of one import have in common: how they begin, how many characters they have, or both. */
export interface ImportedShape {
  ownerKind: ShapedValue['ownerKind'];
  /** Empty where any beginning will do. */
  prefix: string;
  /** 0 where any number will do. */
  length: number;
}

/** Every value of no known shape is held against them. */
const IMPORTED_SHAPES_MAX = 100;

/**
 * Registers what the values that `tx` imports look like, and answers how many shapes are new; what is registered stays. Once `tx` is durable call
 * `deps.shapes.forget()`: other processes look within five seconds, and half a second after a value they do not know.
 *
 * Throws `invalid_input` for a shape that says nothing, or begins with a prefix reserved for another kind of value (those
 * are never looked up as imported ones; `ak_` may be), and `limit_reached` at 100 shapes.
 */
export async function registerImportedShapes(
  tx: Rows,
  shapes: readonly ImportedShape[],
  now: number,
): Promise<number> {
  for (const shape of shapes) assertTelling(shape);
  if (shapes.length === 0) return 0;
  const { importedShapes } = tx.tables;
  const rows = shapes.map(({ ownerKind: owner_kind, prefix, length }) => ({
    owner_kind,
    prefix,
    length,
    created_at: now,
  }));
  // In one order everywhere, so that two imports at once cannot deadlock.
  rows.sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  const added = await tx.db.insert(importedShapes).values(rows).onConflictDoNothing().returning();
  if (added.length > 0)
    await assertRoom(tx, 'importedShapes', IMPORTED_SHAPES_MAX, 'register imported values');
  return added.length;
}

function assertTelling({ prefix, length }: ImportedShape) {
  const refuse = (wanted: string) =>
    new CountersignError('invalid_input', `Cannot register imported values: ${wanted}`, { field: 'prefix' });
  if (prefix === '' && length === 0) throw refuse("wanted 'prefix' or 'length', found neither");
  const reserved = RESERVED.find((each) => each !== PREFIXES.apiKey && prefix.startsWith(each));
  if (reserved !== undefined)
    throw refuse(`'prefix' must not begin with '${reserved}', which is reserved, got '${prefix}'`);
}

export interface KeyPrefix {
  prefix: string;
  description: string | null;
  createdAt: number;
}

type KeyPrefixRow = Rows['tables']['keyPrefixes']['$inferSelect'];

const KEY_PREFIXES_MAX = 100;

/** contract.md, values. */
export const keyPrefix = z
  .string()
  .min(2)
  .max(32)
  .regex(/^[a-z0-9_]*_$/, "wanted lower case letters, digits and underscores, and '_' at its end");

export const createKeyPrefixInput = z.strictObject({
  prefix: keyPrefix.meta({ positional: true }),
  description: description.nullish(),
  ...idempotencyInput,
});

/**
 * Registers a prefix, with which the values of API keys may begin from now on: policies say which do.
 *
 * No prefix may be the beginning of another, so that a beginning says whose value it is: no registered one of another
 * registered one, and no registered and reserved ones of each other. The one exception is that a registered prefix may
 * begin with the reserved `ak_`, which Clerk's SDK wants (`ak_live_`). Neither is taken for the other then, because what
 * follows a prefix has no underscore: the prefix of a value is all up to its last one.
 *
 * Throws `already_exists` where another registered one begins alike, `invalid_input` where a reserved one does, and
 * `limit_reached` at 100 prefixes.
 */
export async function createKeyPrefix(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createKeyPrefixInput>,
): Promise<KeyPrefix> {
  const { prefix, description = null } = input;
  assertNotReserved(prefix);
  const created = await create(deps, caller, { procedure: 'keyPrefixes.create', input }, async (tx) => {
    await lockName(deps.store, tx, 'key_prefixes');
    await assertBeginsUnlikeOthers(tx, prefix);
    const row: KeyPrefixRow = { prefix, description, created_at: deps.now() };
    await tx.db.insert(tx.tables.keyPrefixes).values(row);
    await assertRoom(tx, 'keyPrefixes', KEY_PREFIXES_MAX, 'create key prefix');
    return { result: toKeyPrefix(row), event: { type: 'key_prefix.created', objectId: prefix } };
  });
  deps.shapes.forget();
  return created;
}

function assertNotReserved(prefix: string) {
  const isOfApiKeys = prefix.startsWith(PREFIXES.apiKey) && prefix !== PREFIXES.apiKey;
  const reserved = isOfApiKeys
    ? undefined
    : [...RESERVED, ...OF_OTHERS].find((each) => beginAlike(each, prefix));
  if (reserved === undefined) return;
  throw new CountersignError(
    'invalid_input',
    `Cannot create key prefix: 'prefix' must not begin with '${reserved}', which is reserved, got '${prefix}'`,
    { field: 'prefix' },
  );
}

async function assertBeginsUnlikeOthers({ db, tables: { keyPrefixes } }: Rows, prefix: string) {
  const others = await db.select({ prefix: keyPrefixes.prefix }).from(keyPrefixes);
  const other = others.find((each) => beginAlike(each.prefix, prefix));
  if (!other) return;
  throw new CountersignError(
    'already_exists',
    `Cannot create key prefix: none may be the beginning of another, got '${prefix}' beside '${other.prefix}'`,
    { field: 'prefix' },
  );
}

/** Whether one of two prefixes is the beginning of the other. */
const beginAlike = (one: string, other: string) => one.startsWith(other) || other.startsWith(one);

/** Asked after adding: then those who add in turns see each other's. */
async function assertRoom(
  { db, tables }: Rows,
  table: 'keyPrefixes' | 'importedShapes',
  max: number,
  verb: string,
) {
  const [counted] = await db.select({ count: sql`count(*)`.mapWith(Number) }).from(tables[table]);
  if ((counted?.count ?? 0) <= max) return;
  throw new CountersignError('limit_reached', `Cannot ${verb}: there may be at most ${max}`);
}

export const listKeyPrefixesInput = z.strictObject(pageInput);

/** Registered key prefixes, in order. `ak_` is not among them: it needs no registering. */
export async function listKeyPrefixes(
  deps: Deps,
  input: z.output<typeof listKeyPrefixesInput>,
): Promise<Page<KeyPrefix>> {
  const { db, tables } = deps.store.read;
  const { prefix } = tables.keyPrefixes;
  const rows = await db
    .select()
    .from(tables.keyPrefixes)
    .where(afterCursor(input.cursor, prefix, prefix, false))
    .orderBy(...orderOf(prefix, prefix, false))
    .limit(input.limit + 1)
    .offset(input.offset);
  return toPage(rows, input.limit, (row) => [row.prefix, row.prefix], toKeyPrefix);
}

export const keyPrefixInput = z.strictObject({ prefix: keyPrefix.meta({ positional: true }) });

/**
 * Takes a prefix back: values that begin with it would not be looked up any more. Throws `not_found`, and `in_use` while
 * a policy gives it or there is a key, live or ended, with a value that begins with it.
 */
export async function deleteKeyPrefix(
  deps: Deps,
  caller: Caller,
  { prefix }: z.output<typeof keyPrefixInput>,
): Promise<{ prefix: string; deleted: true }> {
  const deleted = await change(deps, caller, async (tx) => {
    const { keyPrefixes } = tx.tables;
    const [row] = await tx.db.delete(keyPrefixes).where(eq(keyPrefixes.prefix, prefix)).returning();
    if (!row) throw new CountersignError('not_found', `No key prefix '${prefix}' is registered`);
    await assertUnused(tx, prefix);
    return {
      result: { prefix, deleted: true as const },
      event: { type: 'key_prefix.deleted', objectId: prefix },
    };
  });
  deps.shapes.forget();
  return deleted;
}

async function assertUnused({ db, tables: { keyPolicies, secrets } }: Rows, prefix: string) {
  const policies = await db
    .select({ id: keyPolicies.id })
    .from(keyPolicies)
    .where(eq(keyPolicies.prefix, prefix))
    .limit(1);
  // Keys have no index by prefix; what is shown of their values has one. The grave accent is next to the underscore.
  const values = await db
    .select({ ownerId: secrets.owner_id })
    .from(secrets)
    .where(and(gte(secrets.start, prefix), lt(secrets.start, `${prefix.slice(0, -1)}\``)))
    .limit(1);
  const user = policies[0]?.id ?? values[0]?.ownerId;
  if (user === undefined) return;
  throw new CountersignError('in_use', `Cannot delete key prefix '${prefix}': '${user}' uses it`);
}

const toKeyPrefix = (row: KeyPrefixRow): KeyPrefix => ({
  prefix: row.prefix,
  description: row.description,
  createdAt: row.created_at,
});
