/** Key policies: what the API keys created under one may be, and what they are given where nothing else is asked for. */
import { eq, sql } from 'drizzle-orm';
import { z } from 'zod';
import { forShare } from '../../db/kit.ts';
import { lockName, lockStatement, shareName } from '../../db/lock.ts';
import { isUniqueViolation, type Rows } from '../../db/store.ts';
import { PREFIXES } from '../crypto/format.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { Limit } from '../limits.ts';
import { type Credits, creditAmount, refillInput, withWholeRefill } from './credit-grants.ts';
import { change, type NewEvent } from './events.ts';
import { description, keyPolicyId, name, scopes, TTL_SECONDS_MAX, ttlSeconds } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { keyPrefix } from './key-shapes.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';
import { rateLimit, rateLimitColumns, rateLimitOf } from './rate-limits.ts';

export interface KeyPolicy {
  id: string;
  /** Unique among policies. */
  name: string;
  description: string | null;
  /** Whether it applies to keys that are created without naming one; at most one does. */
  isDefault: boolean;
  /** What values begin with. */
  prefix: string;
  /** The scopes a key may have; null for any. */
  allowedScopes: string[] | null;
  /** Lifetime of a key that is asked for without one. */
  defaultTtlSeconds: number | null;
  /** The longest a key may live, counted from its creation; null for forever. */
  maxTtlSeconds: number | null;
  /** Live keys that a subject may have under it, disabled ones included; null for any number. */
  liveKeysMax: number | null;
  /** Of a key that is asked for without one. */
  rateLimit: Limit | null;
  /** Of a key that is asked for without any. */
  credits: PolicyCredits | null;
  /** How long revoked and expired keys stay listed. */
  retentionSeconds: number;
  createdAt: number;
  updatedAt: number;
}

interface PolicyCredits {
  amount: number;
  refillAmount: number | null;
  refillIntervalSeconds: number | null;
}

export type KeyPolicyRow = Rows['tables']['keyPolicies']['$inferSelect'];

/** All are gone through where a prefix is deleted, and to find the keys whose retention is over. */
const KEY_POLICIES_MAX = 100;
/** Creating a key counts them. */
const LIVE_KEYS_MAX = 10_000;
/** 90 days, with and without a policy. */
export const RETENTION_SECONDS = 90 * 24 * 3600;

/** What null leaves open. */
const bounds = {
  description: description.nullish(),
  allowedScopes: scopes.nullish(),
  defaultTtlSeconds: ttlSeconds.nullish(),
  maxTtlSeconds: ttlSeconds.nullish(),
  liveKeysMax: z.number().int().min(1).max(LIVE_KEYS_MAX).nullish(),
  rateLimit: rateLimit.nullish(),
  credits: withWholeRefill(z.strictObject({ amount: creditAmount, ...refillInput })).nullish(),
};

const retentionSeconds = z.number().int().min(0).max(TTL_SECONDS_MAX);

export const createKeyPolicyInput = z.strictObject({
  name: name.meta({ positional: true }),
  isDefault: z.boolean().default(false),
  /** `ak_`, or a registered prefix. */
  prefix: keyPrefix.default(PREFIXES.apiKey),
  ...bounds,
  retentionSeconds: retentionSeconds.default(RETENTION_SECONDS),
  ...idempotencyInput,
});

/**
 * Creates a policy. As the default one it takes the place of the one that was. Throws `name_taken`, `invalid_input` for
 * a prefix that is not registered or a default lifetime above the maximum, `limit_reached` at 100 policies.
 */
export async function createKeyPolicy(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createKeyPolicyInput>,
): Promise<KeyPolicy> {
  const now = deps.now();
  const blank = { id: sortableId('kp_', now), name: input.name, ...WITHOUT_BOUNDS };
  const policy = changedPolicy({ ...blank, createdAt: now, updatedAt: now }, input, now);
  return create(deps, caller, { procedure: 'keyPolicies.create', input }, async (tx) => {
    await lockPolicies(deps, tx);
    await assertSound(tx, policy);
    const previousDefaultId = policy.isDefault ? await takeDefault(tx, now) : null;
    const { keyPolicies } = tx.tables;
    const inserted = await tx.db
      .insert(keyPolicies)
      .values(toRow(policy))
      .onConflictDoNothing()
      .returning({ id: keyPolicies.id });
    if (inserted.length === 0) throw nameTaken(policy.name);
    await assertRoom(tx);
    return {
      result: policy,
      event: { type: 'key_policy.created', ...eventOf(policy, { previousDefaultId }) },
    };
  });
}

export const keyPolicyIdInput = z.strictObject({ id: keyPolicyId.meta({ positional: true }) });

export async function getKeyPolicy(
  deps: Deps,
  { id }: z.output<typeof keyPolicyIdInput>,
): Promise<KeyPolicy> {
  const { db, tables } = deps.store.read;
  const [row] = await db.select().from(tables.keyPolicies).where(eq(tables.keyPolicies.id, id));
  if (!row) throw keyPolicyNotFound(id);
  return toKeyPolicy(row);
}

export const listKeyPoliciesInput = z.strictObject(pageInput);

/** Key policies, the newest first. */
export async function listKeyPolicies(
  deps: Deps,
  input: z.output<typeof listKeyPoliciesInput>,
): Promise<Page<KeyPolicy>> {
  const { db, tables } = deps.store.read;
  const { keyPolicies } = tables;
  const rows = await db
    .select()
    .from(keyPolicies)
    .where(afterCursor(input.cursor, keyPolicies.created_at, keyPolicies.id, true))
    .orderBy(...orderOf(keyPolicies.created_at, keyPolicies.id, true))
    .limit(input.limit + 1)
    .offset(input.offset);
  return toPage(rows, input.limit, (row) => [row.created_at, row.id], toKeyPolicy);
}

export const updateKeyPolicyInput = z.strictObject({
  id: keyPolicyId.meta({ positional: true }),
  name: name.optional(),
  isDefault: z.boolean().optional(),
  prefix: keyPrefix.optional(),
  ...bounds,
  retentionSeconds: retentionSeconds.optional(),
});

/**
 * Changes what it is told to; what already is so leaves no event. Keys that exist keep what they have: a change tells for
 * those created, and for what existing ones are changed to, from then on. Retention tells for all. Throws `not_found`,
 * and what creating throws.
 */
export async function updateKeyPolicy(
  deps: Deps,
  caller: Caller,
  { id, ...changes }: z.output<typeof updateKeyPolicyInput>,
): Promise<KeyPolicy> {
  const now = deps.now();
  return changePolicies(deps, caller, async (tx) => {
    const before = toKeyPolicy(await lockKeyPolicy(tx, id));
    const policy = changedPolicy(before, changes, now);
    const changed = UPDATABLE.filter(
      (field) => JSON.stringify(before[field]) !== JSON.stringify(policy[field]),
    );
    if (changed.length === 0) return { result: before, event: null };
    await assertSound(tx, policy);
    const previousDefaultId = policy.isDefault && !before.isDefault ? await takeDefault(tx, now) : null;
    await saveNamed(tx, policy);
    return {
      result: policy,
      event: { type: 'key_policy.updated', ...eventOf(policy, { changed, previousDefaultId }) },
    };
  });
}

/**
 * Deletes the policy, whether or not keys were created under it: to find the last of them, every key would have to be
 * read, and one that never expires would keep its policy for good. They keep what they have, are held to nothing any
 * more when they are changed, and stay listed for 90 days after they ended.
 */
export async function deleteKeyPolicy(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof keyPolicyIdInput>,
): Promise<{ id: string; deleted: true }> {
  return changePolicies(deps, caller, async (tx) => {
    const { keyPolicies } = tx.tables;
    const [row] = await tx.db.delete(keyPolicies).where(eq(keyPolicies.id, id)).returning();
    if (!row) throw keyPolicyNotFound(id);
    return {
      result: { id, deleted: true as const },
      event: { type: 'key_policy.deleted', ...eventOf(toKeyPolicy(row)) },
    };
  });
}

/**
 * The policy of a key that is being created: the one that is named, or else the default one, or null. It stays as it is
 * until the transaction ends. Throws `not_found`.
 */
export async function policyForNewKey(
  deps: Deps,
  tx: Rows,
  id: string | undefined,
): Promise<KeyPolicyRow | null> {
  if (id === undefined) {
    // Where there is no default yet, no row can be locked: a key made beside the first comes before it in the log, or under it.
    await shareName(deps.store, tx, KEY_POLICIES);
    return defaultPolicy(tx);
  }
  const policy = await policyOf(tx, id);
  if (policy) return policy;
  throw new CountersignError('not_found', `No key policy has the id '${id}'`, { field: 'policyId' });
}

/** The same as it is at the moment, for those who create nothing yet. */
export async function policyOffered(
  { store: { read } }: Deps,
  id: string | null,
): Promise<KeyPolicyRow | null> {
  const { keyPolicies } = read.tables;
  const wanted = id === null ? sql`${keyPolicies.is_default}` : eq(keyPolicies.id, id);
  const [policy] = await read.db.select().from(keyPolicies).where(wanted);
  if (!policy && id !== null) throw keyPolicyNotFound(id);
  return policy ?? null;
}

/**
 * Which one is the default is looked up first, and then whether it still is: PostgreSQL answers a locking read that had to
 * wait for a change with the rows it had found before, so that of two defaults, old and new, it would find neither.
 */
async function defaultPolicy(tx: Rows): Promise<KeyPolicyRow | null> {
  const { keyPolicies } = tx.tables;
  for (;;) {
    const [found] = await tx.db
      .select({ id: keyPolicies.id })
      .from(keyPolicies)
      .where(sql`${keyPolicies.is_default}`);
    if (!found) return null;
    const policy = await policyOf(tx, found.id);
    if (policy?.is_default) return policy;
  }
}

/** The policy that a key was created under, or null. It stays as it is until the transaction ends. */
export async function policyOf(
  { db, tables: { keyPolicies } }: Rows,
  id: string | null,
): Promise<KeyPolicyRow | null> {
  if (id === null) return null;
  const [policy] = await forShare(db.select().from(keyPolicies).where(eq(keyPolicies.id, id)));
  return policy ?? null;
}

/** Throws `scope_not_allowed` for a scope that a policy does not allow. */
export function assertScopesAllowed(policy: KeyPolicyRow | null, wanted: readonly string[]): void {
  const refused = wanted.find((scope) => policy?.allowed_scopes && !policy.allowed_scopes.includes(scope));
  if (refused === undefined) return;
  throw new CountersignError(
    'scope_not_allowed',
    `Cannot save API key: key policy '${policy?.id}' does not allow the scope '${refused}'`,
    { field: 'scopes' },
  );
}

/** Throws `invalid_input` for an expiry later than a policy allows a key of this age; null means never. */
export function assertExpiryAllowed(
  policy: KeyPolicyRow | null,
  createdAt: number,
  expiresAt: number | null,
): void {
  const latest = latestExpiry(policy, createdAt);
  if (latest === null || (expiresAt !== null && expiresAt <= latest)) return;
  throw new CountersignError(
    'invalid_input',
    `Cannot save API key: 'expiresAt' must be at most ${latest} under key policy '${policy?.id}', got ${expiresAt}`,
    { field: 'expiresAt' },
  );
}

const latestExpiry = (policy: KeyPolicyRow | null, createdAt: number) =>
  policy === null ? null : afterSeconds(createdAt, policy.max_ttl_seconds);

/** The expiry of a key that is asked for without one: the policy's default, or else the latest it allows. */
export const defaultExpiry = (policy: KeyPolicyRow | null, createdAt: number): number | null =>
  policy === null ? null : afterSeconds(createdAt, policy.default_ttl_seconds ?? policy.max_ttl_seconds);

const afterSeconds = (instant: number, seconds: number | null) =>
  seconds === null ? null : instant + seconds * 1000;

/** The credits of a key that is asked for without any. */
export const creditsUnder = ({
  credits: remaining,
  refill_amount: refillAmount,
  refill_interval_seconds: refillIntervalSeconds,
}: KeyPolicyRow): Credits | null =>
  remaining === null ? null : { remaining, refillAmount, refillIntervalSeconds };

/** One change of the policies. Which of them is the default is a question about all, so those who change any take turns. */
function changePolicies<T>(
  deps: Deps,
  caller: Caller,
  work: (tx: Rows) => Promise<{ result: T; event: NewEvent | null }>,
): Promise<T> {
  return change(deps, caller, async (tx) => {
    await lockPolicies(deps, tx);
    return work(tx);
  });
}

const KEY_POLICIES = 'key_policies';
const lockPolicies = (deps: Deps, tx: Rows) => lockName(deps.store, tx, KEY_POLICIES);

async function lockKeyPolicy(tx: Rows, id: string): Promise<KeyPolicyRow> {
  const row = await readLocked(tx, id);
  if (!row) throw keyPolicyNotFound(id);
  return row;
}

const readLocked = lockStatement('key_policy_lock', 'keyPolicies');

/** The policy that was the default no longer is; answers its id, or null. */
async function takeDefault({ db, tables: { keyPolicies } }: Rows, now: number): Promise<string | null> {
  const [previous] = await db
    .update(keyPolicies)
    .set({ is_default: false, updated_at: now })
    .where(sql`${keyPolicies.is_default}`)
    .returning({ id: keyPolicies.id });
  return previous?.id ?? null;
}

async function saveNamed({ db, tables: { keyPolicies } }: Rows, policy: KeyPolicy) {
  try {
    await db.update(keyPolicies).set(toRow(policy)).where(eq(keyPolicies.id, policy.id));
  } catch (error) {
    throw isUniqueViolation(error) ? nameTaken(policy.name) : error;
  }
}

async function assertRoom({ db, tables: { keyPolicies } }: Rows) {
  const [counted] = await db.select({ count: sql`count(*)`.mapWith(Number) }).from(keyPolicies);
  if ((counted?.count ?? 0) <= KEY_POLICIES_MAX) return;
  throw new CountersignError(
    'limit_reached',
    `Cannot create key policy: there may be at most ${KEY_POLICIES_MAX}`,
  );
}

async function assertSound(tx: Rows, policy: KeyPolicy) {
  const { prefix, defaultTtlSeconds, maxTtlSeconds } = policy;
  if (defaultTtlSeconds !== null && maxTtlSeconds !== null && defaultTtlSeconds > maxTtlSeconds)
    throw new CountersignError(
      'invalid_input',
      `Cannot save key policy: 'defaultTtlSeconds' must be at most 'maxTtlSeconds' (${maxTtlSeconds}), got ${defaultTtlSeconds}`,
      { field: 'defaultTtlSeconds' },
    );
  if (prefix !== PREFIXES.apiKey && !(await isRegistered(tx, prefix)))
    throw new CountersignError(
      'invalid_input',
      `Cannot save key policy: 'prefix' must be 'ak_' or a registered one, got '${prefix}'`,
      { field: 'prefix' },
    );
}

/** If so it remains it until the transaction ends. */
async function isRegistered({ db, tables: { keyPrefixes } }: Rows, prefix: string): Promise<boolean> {
  const found = await forShare(db.select().from(keyPrefixes).where(eq(keyPrefixes.prefix, prefix)));
  return found.length > 0;
}

const keyPolicyNotFound = (id: string) =>
  new CountersignError('not_found', `No key policy has the id '${id}'`);

const nameTaken = (taken: string) =>
  new CountersignError('name_taken', `Another key policy is called '${taken}'`, { field: 'name' });

function eventOf(policy: KeyPolicy, more: Record<string, unknown> = {}) {
  return { objectId: policy.id, data: { name: policy.name, ...more } };
}

const WITHOUT_BOUNDS: Omit<KeyPolicy, 'id' | 'name' | 'createdAt' | 'updatedAt'> = {
  description: null,
  isDefault: false,
  prefix: PREFIXES.apiKey,
  allowedScopes: null,
  defaultTtlSeconds: null,
  maxTtlSeconds: null,
  liveKeysMax: null,
  rateLimit: null,
  credits: null,
  retentionSeconds: RETENTION_SECONDS,
};

const UPDATABLE = ['name', ...Object.keys(WITHOUT_BOUNDS)] as (keyof KeyPolicy)[];

type Changes = Omit<z.output<typeof updateKeyPolicyInput>, 'id'>;

function changedPolicy(before: KeyPolicy, given: Changes, now: number): KeyPolicy {
  return {
    ...before,
    name: given.name ?? before.name,
    description: given.description === undefined ? before.description : given.description,
    isDefault: given.isDefault ?? before.isDefault,
    prefix: given.prefix ?? before.prefix,
    allowedScopes: given.allowedScopes === undefined ? before.allowedScopes : given.allowedScopes,
    defaultTtlSeconds:
      given.defaultTtlSeconds === undefined ? before.defaultTtlSeconds : given.defaultTtlSeconds,
    maxTtlSeconds: given.maxTtlSeconds === undefined ? before.maxTtlSeconds : given.maxTtlSeconds,
    liveKeysMax: given.liveKeysMax === undefined ? before.liveKeysMax : given.liveKeysMax,
    rateLimit: given.rateLimit === undefined ? before.rateLimit : given.rateLimit,
    credits: given.credits === undefined ? before.credits : wholeCredits(given.credits),
    retentionSeconds: given.retentionSeconds ?? before.retentionSeconds,
    updatedAt: now,
  };
}

const wholeCredits = (given: Changes['credits']): PolicyCredits | null =>
  given
    ? {
        amount: given.amount,
        refillAmount: given.refillAmount ?? null,
        refillIntervalSeconds: given.refillIntervalSeconds ?? null,
      }
    : null;

function toRow(policy: KeyPolicy): KeyPolicyRow {
  return {
    id: policy.id,
    name: policy.name,
    description: policy.description,
    is_default: policy.isDefault,
    prefix: policy.prefix === PREFIXES.apiKey ? null : policy.prefix,
    allowed_scopes: policy.allowedScopes,
    default_ttl_seconds: policy.defaultTtlSeconds,
    max_ttl_seconds: policy.maxTtlSeconds,
    live_keys_max: policy.liveKeysMax,
    ...rateLimitColumns(policy.rateLimit),
    credits: policy.credits?.amount ?? null,
    refill_amount: policy.credits?.refillAmount ?? null,
    refill_interval_seconds: policy.credits?.refillIntervalSeconds ?? null,
    retention_seconds: policy.retentionSeconds,
    created_at: policy.createdAt,
    updated_at: policy.updatedAt,
  };
}

function toKeyPolicy(row: KeyPolicyRow): KeyPolicy {
  return {
    id: row.id,
    name: row.name,
    description: row.description,
    isDefault: row.is_default,
    prefix: row.prefix ?? PREFIXES.apiKey,
    allowedScopes: row.allowed_scopes,
    defaultTtlSeconds: row.default_ttl_seconds,
    maxTtlSeconds: row.max_ttl_seconds,
    liveKeysMax: row.live_keys_max,
    rateLimit: rateLimitOf(row),
    credits:
      row.credits === null
        ? null
        : {
            amount: row.credits,
            refillAmount: row.refill_amount,
            refillIntervalSeconds: row.refill_interval_seconds,
          },
    retentionSeconds: row.retention_seconds,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}
