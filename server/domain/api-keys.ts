/** API keys: a customer's script acts for a subject, within scopes. */
import {
  and,
  asc,
  type Column,
  eq,
  gt,
  gte,
  inArray,
  isNotNull,
  isNull,
  lt,
  lte,
  or,
  placeholder,
  type SQL,
  sql,
} from 'drizzle-orm';
import { z } from 'zod';
import { lockName, lockStatement } from '../../db/lock.ts';
import { flatStatement, statement } from '../../db/statement.ts';
import { isUniqueViolation, type Rows } from '../../db/store.ts';
import { PREFIXES, parseValue } from '../crypto/format.ts';
import { startOf } from '../crypto/hashing.ts';
import { hexId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { Limit } from '../limits.ts';
import { assertMayRevokeByValue } from './address-limits.ts';
import { deleteBelongings } from './api-key-retention.ts';
import {
  type Credits,
  creditsAt,
  creditsInput,
  creditsOf,
  grantCredits,
  removeCredits,
  sameCredits,
  setCreditsFields,
  withWholeRefill,
} from './credit-grants.ts';
import type { WithRemainingCredits } from './credits.ts';
import type { EventType } from './event-types.ts';
import { change, type NewEvent } from './events.ts';
import {
  apiKeyId,
  assertFuture,
  cidrs,
  claims,
  credential,
  description,
  expiryInput,
  expiryOf,
  instant,
  keyPolicyId,
  name,
  scopes,
  subject,
} from './fields.ts';
import { type Creation, create, idempotencyInput } from './idempotency.ts';
import {
  assertExpiryAllowed,
  assertScopesAllowed,
  creditsUnder,
  defaultExpiry,
  type KeyPolicyRow,
  policyForNewKey,
  policyOf,
} from './key-policies.ts';
import {
  afterCursor,
  COUNT_MAX,
  containsText,
  orderOf,
  type Page,
  pageInput,
  SEARCH_CANDIDATES_MAX,
  searchPage,
} from './pages.ts';
import { rateLimit, rateLimitColumns, rateLimitOf } from './rate-limits.ts';
import {
  cancelOverlap,
  completeOverlap,
  compromised,
  overlapSeconds,
  type Rotated,
  rotateSecret,
  rotationOf,
  scheduleRotation,
} from './rotation.ts';
import {
  type RotationPolicy,
  rotateBysOf,
  rotationPolicy,
  rotationPolicyColumns,
  rotationPolicyOf,
} from './rotation-policies.ts';
import { type Address, findOwner, hasExpired, issueSecret, startsOf } from './secrets.ts';

/** In the order in which verifying judges them: a key that is both disabled and expired reads `disabled`. */
export const API_KEY_STATES = ['revoked', 'disabled', 'expired', 'live'] as const;
export type ApiKeyState = (typeof API_KEY_STATES)[number];

/** Why a key was revoked, for machines to act on; people's words go into the note. */
export const REVOCATION_REASONS = [
  'unspecified',
  'compromised',
  'superseded',
  'no_longer_used',
  'owner_left',
  'policy_violation',
] as const;
export type RevocationReason = (typeof REVOCATION_REASONS)[number];

export interface ApiKey {
  id: string;
  /** On whose behalf it acts. */
  subject: string;
  /** Unique among the subject's live keys, disabled ones included. */
  name: string;
  description: string | null;
  scopes: string[];
  claims: Record<string, unknown> | null;
  /** Who made it for the subject, in the words of the application that did. */
  createdBy: string | null;
  enabled: boolean;
  /** The first characters of its value, for people to recognise it by. */
  start: string;
  state: ApiKeyState;
  expiresAt: number | null;
  revokedAt: number | null;
  revocationReason: RevocationReason | null;
  revocationNote: string | null;
  /** The policy it was created under, even if that is gone since. */
  policyId: string | null;
  rateLimit: Limit | null;
  /** CIDR blocks the end client's address must be in; null for anywhere. */
  allowedCidrs: string[] | null;
  /** How old its value may grow; null for as old as it likes. */
  rotation: RotationPolicy | null;
  /** When its newest value is due for rotation; null where none is, and where the key expires before. */
  rotateBy: number | null;
  lastUsedAt: number | null;
  createdAt: number;
  updatedAt: number;
}

type ApiKeyRow = Rows['tables']['apiKeys']['$inferSelect'];

export const createApiKeyInput = z.strictObject({
  name: name.meta({ positional: true }),
  subject: subject.meta({ positional: true }),
  description: description.nullish(),
  scopes: scopes.default([]),
  claims: claims.nullish(),
  createdBy: subject.nullish(),
  /** Without it, the default policy applies, if there is one. */
  policyId: keyPolicyId.optional(),
  /** Without it, the policy's; null for none. */
  rateLimit: rateLimit.nullish(),
  /** Without them, the policy's; null for none. */
  credits: creditsInput.nullish(),
  /** Where it may be used from; null for anywhere. */
  allowedCidrs: cidrs.nullish(),
  /** How old its value may grow; null for as old as it likes. */
  rotation: rotationPolicy.nullish(),
  ...expiryInput,
  ...idempotencyInput,
});

/** What holds where no policy applies; a policy says all of it itself. */
interface WithoutPolicy {
  ttlSecondsMax: number;
  /** Live keys of the subject, whatever they were created under. */
  liveKeysMax: number;
}

/** How a key comes to be created: by which procedure, and within what. */
export interface KeyCreation {
  procedure: Creation['procedure'];
  withoutPolicy: WithoutPolicy | null;
}

const BY_APPLICATION: KeyCreation = { procedure: 'apiKeys.create', withoutPolicy: null };

/**
 * Creates an API key; its value is answered this once. Its policy says what it begins with, which scopes it may have, and
 * what it is given where nothing else is asked for. Without an expiry it is given the policy's default lifetime, or else
 * the longest; `expiresAt` null asks for none, which a policy with a longest refuses.
 *
 * Throws `name_taken`, `reserved_claim`, `not_found` for the policy, `scope_not_allowed`, `invalid_input` for an expiry
 * that the policy does not allow, and `limit_reached` at as many live keys as the subject may have under it.
 */
export async function createApiKey(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createApiKeyInput>,
  { procedure, withoutPolicy }: KeyCreation = BY_APPLICATION,
): Promise<ApiKey & { secret?: string }> {
  const now = deps.now();
  return create(deps, caller, { procedure, input }, async (tx) => {
    await lockSubject(deps, tx, input.subject);
    const policy = await policyForNewKey(deps, tx, input.policyId);
    const bounds = policy ? null : withoutPolicy;
    const credits = newCredits(input, policy);
    const row = { ...newRow(input, policy, bounds, now), has_credits: credits !== null };
    await freeNameOfExpired(tx, row, now);
    if (bounds) await assertRoomWithin(tx, bounds, row.subject, now);
    await assertRoomUnder(tx, policy, row.subject, now);
    const inserted = await tx.db.insert(tx.tables.apiKeys).values(row).onConflictDoNothing().returning();
    if (inserted.length === 0) throw nameTaken(row);
    const owner = { kind: 'api_key' as const, id: row.id };
    if (credits) await grantCredits(tx, owner, credits, now);
    const secret = await issueSecret(tx, deps, { owner, prefix: row.prefix, terms: row });
    const rotateBys = await rotateBysOf(tx, 'api_key', [row]);
    return {
      result: { ...toApiKey(row, startOf(secret, row.prefix), now, rotateBys), secret },
      event: { type: 'api_key.created', ...eventOf(row, policy ? { policyId: policy.id } : {}) },
    };
  });
}

type CreateInput = z.output<typeof createApiKeyInput>;

function newRow(
  input: CreateInput,
  policy: KeyPolicyRow | null,
  bounds: WithoutPolicy | null,
  now: number,
): ApiKeyRow {
  assertScopesAllowed(policy, input.scopes);
  const limit = input.rateLimit === undefined && policy ? rateLimitOf(policy) : input.rateLimit;
  return {
    id: hexId('ak_', now),
    subject: input.subject,
    name: input.name,
    live_name: input.name,
    description: input.description ?? null,
    scopes: input.scopes,
    claims: input.claims ?? null,
    created_by: input.createdBy ?? null,
    policy_id: policy?.id ?? null,
    prefix: policy?.prefix ?? PREFIXES.apiKey,
    ...rateLimitColumns(limit ?? null),
    has_credits: false,
    allowed_cidrs: input.allowedCidrs ?? null,
    ...rotationPolicyColumns(input.rotation ?? null),
    enabled: true,
    expires_at: bounds ? expiryWithin(bounds, input, now) : newExpiry(input, policy, now),
    revoked_at: null,
    revocation_reason: null,
    revocation_note: null,
    last_used_at: null,
    created_at: now,
    updated_at: now,
  };
}

function newCredits({ credits }: CreateInput, policy: KeyPolicyRow | null): Credits | null {
  if (credits === undefined) return policy ? creditsUnder(policy) : null;
  return credits === null ? null : creditsOf(credits);
}

function newExpiry(input: CreateInput, policy: KeyPolicyRow | null, now: number): number | null {
  if (input.expiresAt === undefined && input.ttlSeconds === undefined) return defaultExpiry(policy, now);
  const expiresAt = expiryOf('API key', now, input);
  assertExpiryAllowed(policy, now, expiresAt);
  return expiresAt;
}

/** Without one asked for it is the latest; never is later than any. */
function expiryWithin({ ttlSecondsMax }: WithoutPolicy, input: CreateInput, now: number): number {
  const latest = now + ttlSecondsMax * 1000;
  if (input.expiresAt === undefined && input.ttlSeconds === undefined) return latest;
  const expiresAt = expiryOf('API key', now, input);
  if (expiresAt !== null && expiresAt <= latest) return expiresAt;
  throw new CountersignError(
    'invalid_input',
    `Cannot save API key: 'expiresAt' must be at most ${latest} where no key policy allows more, got ${expiresAt}`,
    { field: 'expiresAt' },
  );
}

/** As `assertRoomUnder`. */
async function assertRoomWithin(tx: Rows, { liveKeysMax }: WithoutPolicy, subject: string, now: number) {
  if ((await countLiveKeys(tx, null, subject, now)) < liveKeysMax) return;
  throw new CountersignError(
    'limit_reached',
    `Cannot save API key: '${subject}' may have at most ${liveKeysMax} live ones`,
  );
}

/**
 * Throws `limit_reached` where a subject has as many live keys under a policy as it may. The subject must be locked: then
 * nobody makes or revives another of its keys meanwhile.
 */
async function assertRoomUnder(tx: Rows, policy: KeyPolicyRow | null, subject: string, now: number) {
  const max = policy?.live_keys_max ?? null;
  if (policy === null || max === null || (await countLiveKeys(tx, policy.id, subject, now)) < max) return;
  throw new CountersignError(
    'limit_reached',
    `Cannot save API key: '${subject}' may have at most ${max} live ones under key policy '${policy.id}'`,
  );
}

/**
 * Only keys that were live when last written have a live name, and those are all that an index finds of a subject.
 * Without a policy, all of them are counted.
 */
export async function countLiveKeys(
  { db, tables: { apiKeys } }: Rows,
  policyId: string | null,
  subject: string,
  now: number,
): Promise<number> {
  const [counted] = await db
    .select({ count: sql`count(*)`.mapWith(Number) })
    .from(apiKeys)
    .where(
      and(
        eq(apiKeys.subject, subject),
        gt(apiKeys.live_name, ''),
        policyId === null ? undefined : eq(apiKeys.policy_id, policyId),
        or(isNull(apiKeys.expires_at), gt(apiKeys.expires_at, now)),
      ),
    );
  return counted?.count ?? 0;
}

/**
 * A key that is being created while all of its subject's are revoked comes before that in the log and is revoked, or
 * after it and lives: without the lock it could come before and live. And those who count a subject's live keys before
 * they add one take turns.
 */
const lockSubject = (deps: Deps, tx: Rows, subject: string) =>
  lockName(deps.store, tx, `api_keys of ${subject}`);

/** Imports share it, and all may be of this subject: they are locked out for the same reason, without a lock for each subject. */
export const API_KEY_IMPORTS = 'imports of api_keys';

/** Expiry passes without a write, so the name of an expired key is taken from it when somebody wants it. */
async function freeNameOfExpired({ db, tables: { apiKeys } }: Rows, wanted: ApiKeyRow, now: number) {
  await db
    .update(apiKeys)
    .set({ live_name: null })
    .where(
      and(
        eq(apiKeys.subject, wanted.subject),
        eq(apiKeys.live_name, wanted.name),
        lte(apiKeys.expires_at, now),
      ),
    );
}

export const apiKeyIdInput = z.strictObject({ id: apiKeyId.meta({ positional: true }) });

export async function getApiKey(
  deps: Deps,
  { id }: z.output<typeof apiKeyIdInput>,
): Promise<ApiKey & WithRemainingCredits> {
  const { db, tables } = deps.store.read;
  const rows = await db.select().from(tables.apiKeys).where(eq(tables.apiKeys.id, id));
  const [key] = await withStarts(deps, deps.store.read, rows);
  if (!key) throw apiKeyNotFound(id);
  const owner = { kind: 'api_key' as const, id };
  const credits = rows[0]?.has_credits ? await creditsAt(deps.store.read, owner, deps.now()) : null;
  return { ...key, remainingCredits: credits?.remaining ?? null };
}

/** What verifying a key does not read of it, and Clerk's wire answers all the same. */
export type ApiKeyDescription = Pick<
  ApiKey,
  'description' | 'createdBy' | 'lastUsedAt' | 'createdAt' | 'updatedAt'
>;

const readDescription = statement((db, { apiKeys: k }) =>
  db
    .select({
      description: k.description,
      createdBy: k.created_by,
      lastUsedAt: k.last_used_at,
      createdAt: k.created_at,
      updatedAt: k.updated_at,
    })
    .from(k)
    .where(eq(k.id, placeholder('id')))
    .prepare('api_key_description'),
);

/** Of a key that was just verified; null if it went meanwhile. */
export async function describeApiKey(deps: Deps, id: string): Promise<ApiKeyDescription | null> {
  const [found] = await readDescription(deps.store.read, { id });
  return found ?? null;
}

export const listApiKeysInput = z.strictObject({
  subject: subject.optional(),
  /** The exact name. */
  name: name.optional(),
  /** A part of the name, in any case. */
  query: z.string().min(1).max(255).optional(),
  /** How the value begins: `ak_` and three or more of the characters that are shown. */
  start: z
    .string()
    .max(64)
    .regex(/^[a-z0-9_]*_[0-9A-Za-z]{3,}$/, 'wanted a prefix and at least 3 characters after it')
    .optional(),
  state: z.enum(API_KEY_STATES).optional(),
  /** Whether it was revoked or has expired. */
  ended: z.boolean().optional(),
  direction: z.enum(['ascending', 'descending']).default('descending'),
  ...pageInput,
});

type ListApiKeysInput = z.output<typeof listApiKeysInput>;

/** API keys by time of creation. No index answers a state or a part of a name: see `searchPage`. */
export async function listApiKeys(deps: Deps, input: ListApiKeysInput): Promise<Page<ApiKey>> {
  const rows = deps.store.read;
  const { apiKeys } = rows.tables;
  const filter = filterOf(rows, input, deps.now());
  const page = await searchPage(input, {
    isFiltered: filter !== undefined,
    rows(candidatesMax) {
      const candidates = candidatesOf(rows, input).limit(candidatesMax).as('candidates');
      return rows.db
        .select()
        .from(apiKeys)
        .where(and(inArray(apiKeys.id, rows.db.select({ id: candidates.id }).from(candidates)), filter))
        .orderBy(...orderOf(apiKeys.created_at, apiKeys.id, input.direction === 'descending'))
        .limit(input.limit + 1)
        .offset(input.offset);
    },
    candidate: (place) => candidatesOf(rows, input).limit(1).offset(place),
    key: cursorKey,
  });
  return { ...page, data: await withStarts(deps, rows, page.data) };
}

/** How many API keys such a list has, at most `COUNT_MAX`. */
export async function countApiKeys(deps: Deps, input: ListApiKeysInput): Promise<number> {
  const rows = deps.store.read;
  const { apiKeys } = rows.tables;
  const candidates = candidatesOf(rows, { ...input, cursor: undefined })
    .limit(COUNT_MAX)
    .as('candidates');
  const [row] = await rows.db
    .select({ count: sql`count(*)`.mapWith(Number) })
    .from(apiKeys)
    .where(
      and(
        inArray(apiKeys.id, rows.db.select({ id: candidates.id }).from(candidates)),
        filterOf(rows, input, deps.now()),
      ),
    );
  return row?.count ?? 0;
}

const cursorKey = (row: Pick<ApiKeyRow, 'created_at' | 'id'>): [number, string] => [row.created_at, row.id];

/** The keys after the cursor in order, by the one condition that an index answers together with that order. */
function candidatesOf(rows: Rows, input: ListApiKeysInput) {
  const { apiKeys } = rows.tables;
  const descending = input.direction === 'descending';
  return rows.db
    .select({ id: apiKeys.id, created_at: apiKeys.created_at })
    .from(apiKeys)
    .where(and(indexed(rows, input), afterCursor(input.cursor, apiKeys.created_at, apiKeys.id, descending)))
    .orderBy(...orderOf(apiKeys.created_at, apiKeys.id, descending));
}

function indexed(rows: Rows, input: ListApiKeysInput): SQL | undefined {
  const { apiKeys } = rows.tables;
  if (input.start !== undefined) return inArray(apiKeys.id, ownersByStart(rows, input.start));
  if (input.subject !== undefined) return eq(apiKeys.subject, input.subject);
  return input.name === undefined ? undefined : eq(apiKeys.name, input.name);
}

/** Owners of every kind, because with a condition on the kind SQLite would walk the index of owners instead. */
function ownersByStart({ db, tables: { secrets } }: Rows, start: string) {
  return (
    db
      .select({ id: secrets.owner_id })
      .from(secrets)
      // Starts hold letters and digits, which all come before the tilde.
      .where(and(gte(secrets.start, start), lt(secrets.start, `${start}~`)))
      .orderBy(asc(secrets.start), asc(secrets.owner_id))
      .limit(SEARCH_CANDIDATES_MAX)
  );
}

/** What remains to be judged key by key. */
function filterOf(rows: Rows, input: ListApiKeysInput, now: number): SQL | undefined {
  const { apiKeys } = rows.tables;
  const byStart = input.start !== undefined;
  return and(
    byStart && input.subject !== undefined ? equalsUnindexed(apiKeys.subject, input.subject) : undefined,
    (byStart || input.subject !== undefined) && input.name !== undefined
      ? equalsUnindexed(apiKeys.name, input.name)
      : undefined,
    input.query === undefined ? undefined : containsText(apiKeys.name, input.query),
    input.state === undefined ? undefined : isInState(rows, input.state, now),
    input.ended === undefined ? undefined : hasEnded(rows, input.ended, now),
  );
}

function hasEnded({ tables: { apiKeys } }: Rows, ended: boolean, now: number): SQL | undefined {
  return ended
    ? or(isNotNull(apiKeys.revoked_at), lte(apiKeys.expires_at, now))
    : and(isNull(apiKeys.revoked_at), or(isNull(apiKeys.expires_at), gt(apiKeys.expires_at, now)));
}

/** Equality that no index answers: SQLite would rather walk every key in the table of that name than the candidates. */
const equalsUnindexed = (column: Column, text: string) => sql`${column} || '' = ${text}`;

/** `stateOfApiKey` as a condition. */
function isInState({ tables: { apiKeys } }: Rows, state: ApiKeyState, now: number): SQL | undefined {
  const unexpired = or(isNull(apiKeys.expires_at), gt(apiKeys.expires_at, now));
  switch (state) {
    case 'revoked':
      return isNotNull(apiKeys.revoked_at);
    case 'disabled':
      return and(isNull(apiKeys.revoked_at), eq(apiKeys.enabled, false));
    case 'expired':
      return and(isNull(apiKeys.revoked_at), eq(apiKeys.enabled, true), lte(apiKeys.expires_at, now));
    case 'live':
      return and(isNull(apiKeys.revoked_at), eq(apiKeys.enabled, true), unexpired);
  }
}

export const updateApiKeyInput = z.strictObject({
  id: apiKeyId.meta({ positional: true }),
  name: name.optional(),
  description: description.nullish(),
  scopes: scopes.optional(),
  claims: claims.nullish(),
  /** Null means never. */
  expiresAt: instant.nullish(),
  rateLimit: rateLimit.nullish(),
  allowedCidrs: cidrs.nullish(),
  rotation: rotationPolicy.nullish(),
});

/**
 * Changes what it is told to; what already is so leaves no event. A later expiry makes an expired key live again, if
 * its name is still free. Beyond what its policy allows a key may be given no scope and no later expiry; what it has
 * beyond that, because the policy was another then, it may keep.
 *
 * Throws `not_found`, `already_revoked`, `name_taken`, `scope_not_allowed`, `invalid_input` for an expiry that the policy
 * does not allow, and `limit_reached` for an expired key whose subject has as many live ones as it may.
 */
export async function updateApiKey(
  deps: Deps,
  caller: Caller,
  { id, ...changes }: z.output<typeof updateApiKeyInput>,
): Promise<ApiKey> {
  const now = deps.now();
  if (typeof changes.expiresAt === 'number') assertFuture('API key', now, changes.expiresAt);
  return change(
    deps,
    caller,
    async (tx) => {
      if (changes.expiresAt !== undefined) await lockSubjectOf(deps, tx, id);
      const before = await lockUnrevoked(tx, id);
      const row = changedRow(before, changes, now);
      const changed = changedFields(before, row);
      if (changed.length === 0) return answer(tx, before, now);
      await assertAllowed(tx, before, row, now);
      await saveNamed(tx, row, now);
      if (changed.includes('rotation') || changed.includes('expiresAt'))
        await scheduleRotation(tx, deps, { kind: 'api_key', id }, row);
      return answer(tx, row, now, { type: 'api_key.updated', ...eventOf(row, { changed }) });
    },
    NARROWING.some((field) => changes[field] !== undefined) ? 'revocation' : 'normal',
  );
}

type Changes = Omit<z.output<typeof updateApiKeyInput>, 'id'>;

/** What a key may be used for less after a change of these. */
const NARROWING = ['scopes', 'expiresAt', 'rateLimit', 'allowedCidrs'] as const satisfies (keyof Changes)[];

/** Before the key's own row, as `createApiKey` does: whoever comes to both in another order may deadlock. */
async function lockSubjectOf(deps: Deps, tx: Rows, id: string) {
  const { apiKeys } = tx.tables;
  const [key] = await tx.db.select({ subject: apiKeys.subject }).from(apiKeys).where(eq(apiKeys.id, id));
  if (key) await lockSubject(deps, tx, key.subject);
}

/** Holds what a change adds against the key's policy; what it takes away is nobody's business but the caller's. */
async function assertAllowed(tx: Rows, before: ApiKeyRow, after: ApiKeyRow, now: number) {
  const added = after.scopes.filter((scope) => !before.scopes.includes(scope));
  const isLater = expiresLater(after.expires_at, before.expires_at);
  if (added.length === 0 && !isLater) return;
  const policy = await policyOf(tx, before.policy_id);
  assertScopesAllowed(policy, added);
  if (!isLater) return;
  assertExpiryAllowed(policy, before.created_at, after.expires_at);
  if (hasExpired(before.expires_at, now)) await assertRoomUnder(tx, policy, before.subject, now);
}

const expiresLater = (one: number | null, other: number | null) =>
  (one ?? Number.POSITIVE_INFINITY) > (other ?? Number.POSITIVE_INFINITY);

function changedRow(before: ApiKeyRow, changes: Changes, now: number): ApiKeyRow {
  const row: ApiKeyRow = {
    ...before,
    name: changes.name ?? before.name,
    description: changes.description === undefined ? before.description : changes.description,
    scopes: changes.scopes ?? before.scopes,
    claims: changes.claims === undefined ? before.claims : changes.claims,
    expires_at: changes.expiresAt === undefined ? before.expires_at : changes.expiresAt,
    ...(changes.rateLimit !== undefined && rateLimitColumns(changes.rateLimit)),
    allowed_cidrs: changes.allowedCidrs === undefined ? before.allowed_cidrs : changes.allowedCidrs,
    ...(changes.rotation !== undefined && rotationPolicyColumns(changes.rotation)),
    updated_at: now,
  };
  return { ...row, live_name: hasExpired(row.expires_at, now) ? null : row.name };
}

const UPDATABLE = [
  'name',
  'description',
  'scopes',
  'claims',
  'expiresAt',
  'rateLimit',
  'allowedCidrs',
  'rotation',
] as const satisfies (keyof ApiKey)[];

function changedFields(before: ApiKeyRow, after: ApiKeyRow): string[] {
  const [was, is] = [toApiKey(before, '', 0), toApiKey(after, '', 0)];
  return UPDATABLE.filter((field) => JSON.stringify(was[field]) !== JSON.stringify(is[field]));
}

async function saveNamed(tx: Rows, row: ApiKeyRow, now: number) {
  const { apiKeys } = tx.tables;
  if (row.live_name !== null) await freeNameOfExpired(tx, row, now);
  const { name, live_name, description, scopes, claims, expires_at, updated_at } = row;
  const { rate_limit, rate_limit_window_seconds, allowed_cidrs } = row;
  const { rotation_period_seconds, rotation_expires } = row;
  try {
    await tx.db
      .update(apiKeys)
      .set({
        ...{ name, live_name, description, scopes, claims, expires_at, updated_at },
        ...{ rate_limit, rate_limit_window_seconds, allowed_cidrs },
        ...{ rotation_period_seconds, rotation_expires },
      })
      .where(eq(apiKeys.id, row.id));
  } catch (error) {
    throw isUniqueViolation(error) ? nameTaken(row) : error;
  }
}

export const setApiKeyCreditsInput = withWholeRefill(
  z.strictObject({ id: apiKeyId.meta({ positional: true }), ...setCreditsFields }),
);

/**
 * Sets what a key may spend, whatever it was before. What already is so leaves no event. Throws `not_found`,
 * `already_revoked`.
 */
export async function setApiKeyCredits(
  deps: Deps,
  caller: Caller,
  { id, ...given }: z.output<typeof setApiKeyCreditsInput>,
): Promise<ApiKey & WithRemainingCredits> {
  const now = deps.now();
  const wanted = creditsOf(given);
  return change(
    deps,
    caller,
    async (tx) => {
      const before = await lockUnrevoked(tx, id);
      const owner = { kind: 'api_key' as const, id };
      const remainingCredits = wanted?.remaining ?? null;
      const isSame = sameCredits(wanted, await creditsAt(tx, owner, now));
      const row = isSame ? before : { ...before, has_credits: wanted !== null, updated_at: now };
      const { result, event } = await answer(tx, row, now, {
        type: 'api_key.credits_changed',
        ...eventOf(row, { credits: wanted }),
      });
      if (isSame) return { result: { ...result, remainingCredits }, event: null };
      if (wanted) await grantCredits(tx, owner, wanted, now);
      else await removeCredits(tx, 'api_key', [id]);
      const { has_credits, updated_at } = row;
      await tx.db
        .update(tx.tables.apiKeys)
        .set({ has_credits, updated_at })
        .where(eq(tx.tables.apiKeys.id, id));
      return { result: { ...result, remainingCredits }, event };
    },
    wanted ? 'revocation' : 'normal',
  );
}

/** Enables or disables; a key that already is as wanted is answered as it stands, without an event. */
export async function setApiKeyEnabled(
  deps: Deps,
  caller: Caller,
  id: string,
  enabled: boolean,
): Promise<ApiKey> {
  return change(
    deps,
    caller,
    async (tx) => {
      const now = deps.now();
      const before = await lockUnrevoked(tx, id);
      if (before.enabled === enabled) return answer(tx, before, now);
      const row = { ...before, enabled, updated_at: now };
      const { apiKeys } = tx.tables;
      await tx.db.update(apiKeys).set({ enabled, updated_at: now }).where(eq(apiKeys.id, id));
      return answer(tx, row, now, {
        type: enabled ? 'api_key.enabled' : 'api_key.disabled',
        ...eventOf(row),
      });
    },
    enabled ? 'normal' : 'revocation',
  );
}

export const rotateApiKeyInput = z.strictObject({
  id: apiKeyId.meta({ positional: true }),
  /** Without it, none. */
  overlapSeconds: overlapSeconds.optional(),
  compromised,
});

/** Gives a key a new value; all else stays. Throws `not_found`, `already_revoked`, `rotation_in_progress`. */
export async function rotateApiKey(
  deps: Deps,
  caller: Caller,
  { id, ...given }: z.output<typeof rotateApiKeyInput>,
): Promise<ApiKey & Rotated> {
  const options = rotationOf(given, 0);
  return change(
    deps,
    caller,
    async (tx) => {
      const row = await lockUnrevoked(tx, id);
      const owner = { kind: 'api_key' as const, id };
      const rotated = await rotateSecret(tx, deps, { owner, prefix: row.prefix, terms: row }, options);
      const data = { compromised: options.compromised, previousExpiresAt: rotated.previousExpiresAt };
      const { result, event } = await answer(tx, row, deps.now(), {
        type: 'api_key.secret_rotated',
        ...eventOf(row, data),
      });
      return { result: { ...result, ...rotated }, event };
    },
    'revocation',
  );
}

/** Revokes the new value of an overlap; the old one stays. */
export async function cancelApiKeyRotation(deps: Deps, caller: Caller, id: string): Promise<ApiKey> {
  return endOverlap(deps, caller, id, cancelOverlap, 'api_key.secret_rotation_cancelled');
}

/** Ends the old value of an overlap now. */
export async function completeApiKeyRotation(deps: Deps, caller: Caller, id: string): Promise<ApiKey> {
  return endOverlap(deps, caller, id, completeOverlap, 'api_key.secret_rotation_completed');
}

function endOverlap(
  deps: Deps,
  caller: Caller,
  id: string,
  end: typeof cancelOverlap,
  type: EventType,
): Promise<ApiKey> {
  return change(
    deps,
    caller,
    async (tx) => {
      const row = await lockUnrevoked(tx, id);
      await end(tx, deps, { kind: 'api_key', id }, row);
      return answer(tx, row, deps.now(), { type, ...eventOf(row) });
    },
    'revocation',
  );
}

const why = {
  reason: z.enum(REVOCATION_REASONS).default('unspecified'),
  /** In people's words. */
  note: description.nullish(),
};

export const revokeApiKeyInput = z.strictObject({ id: apiKeyId.meta({ positional: true }), ...why });

/** Revokes for good; a revoked key is answered as it stands, without a second event. */
export async function revokeApiKey(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof revokeApiKeyInput>,
): Promise<ApiKey> {
  return change(
    deps,
    caller,
    async (tx) => {
      const now = deps.now();
      const before = await lockApiKey(tx, input.id);
      if (before.revoked_at !== null) return answer(tx, before, now);
      const revocation = revocationOf(input, now);
      const row = { ...before, ...revocation };
      await writeRevocation(tx, { id: row.id, ...revocation });
      return answer(tx, row, now, {
        type: 'api_key.revoked',
        ...eventOf(row, { reason: input.reason, denyUntil: row.expires_at }),
      });
    },
    'revocation',
  );
}

const writeRevocation = flatStatement<ReturnType<typeof revocationOf> & { id: string }, object>(
  'api_key_revoke',
  (db, { apiKeys: k }) => ({
    fields: {},
    query: db
      .update(k)
      .set({
        live_name: null,
        revoked_at: sql`${placeholder('revoked_at')}`,
        revocation_reason: sql`${placeholder('revocation_reason')}`,
        revocation_note: sql`${placeholder('revocation_note')}`,
        updated_at: sql`${placeholder('updated_at')}`,
      })
      .where(eq(k.id, placeholder('id'))),
  }),
);

function revocationOf(
  { reason, note }: { reason: RevocationReason; note?: string | null | undefined },
  now: number,
) {
  return {
    live_name: null,
    revoked_at: now,
    revocation_reason: reason,
    revocation_note: note ?? null,
    updated_at: now,
  };
}

export const revokeApiKeyByValueInput = z.strictObject({ value: credential, ...why });

/** Revokes the key with this value, if there is one: whether there was is nobody's business who merely found a value. */
export async function revokeApiKeyByValue(
  deps: Deps,
  caller: Caller,
  address: Address,
  { value, ...rest }: z.output<typeof revokeApiKeyByValueInput>,
): Promise<{ accepted: true }> {
  await assertMayRevokeByValue(deps, address);
  if (value.startsWith(PREFIXES.secretKey) || value.startsWith(PREFIXES.machineSecretKey)) {
    throw new CountersignError(
      'invalid_input',
      "Cannot revoke by value: wanted the value of an API key, found one that begins with 'sk_' or 'msk_'",
      { field: 'value' },
    );
  }
  const owner = (await couldBeApiKey(deps, value)) ? await findOwner(deps, value) : null;
  if (owner?.kind !== 'api_key') return { accepted: true };
  try {
    await revokeApiKey(deps, caller, { id: owner.id, ...rest });
  } catch (error) {
    // Deleted in the meantime: as good as revoked.
    if (!(error instanceof CountersignError && error.code === 'not_found')) throw error;
  }
  return { accepted: true };
}

/** Imported values have no checksum that could refuse a typing error: of those, the shape. */
const couldBeApiKey = async (deps: Deps, value: string) =>
  parseValue(value) !== null || (await deps.shapes.find(value, 'api_key')) !== null;

export const revokeAllApiKeysInput = z.strictObject({
  subject: subject.meta({ positional: true }),
  /** Only the keys that this one made for the subject: a member who left. */
  createdBy: subject.optional(),
  ...why,
});

/**
 * Revokes every key of a subject, or every one that somebody made for it, in one transaction, as one event whose selector
 * names the subject and who made them.
 */
export async function revokeAllApiKeys(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof revokeAllApiKeysInput>,
): Promise<{ revoked: number }> {
  return change(
    deps,
    caller,
    async (tx) => {
      const { apiKeys } = tx.tables;
      await lockName(deps.store, tx, API_KEY_IMPORTS);
      await lockSubject(deps, tx, input.subject);
      const rows = await tx.db
        .update(apiKeys)
        .set(revocationOf(input, deps.now()))
        .where(
          and(
            eq(apiKeys.subject, input.subject),
            input.createdBy === undefined ? undefined : eq(apiKeys.created_by, input.createdBy),
            isNull(apiKeys.revoked_at),
          ),
        )
        .returning({ id: apiKeys.id });
      const revoked = rows.length;
      if (revoked === 0) return { result: { revoked }, event: null };
      return {
        result: { revoked },
        event: {
          type: 'subject.api_keys_revoked',
          objectId: input.subject,
          subject: input.subject,
          data: { selector: selectorOf(input), count: revoked, reason: input.reason },
        },
      };
    },
    'revocation',
  );
}

const selectorOf = ({ subject, createdBy }: z.output<typeof revokeAllApiKeysInput>) =>
  createdBy === undefined ? { subject } : { subject, createdBy };

/** Deletes the key, and with it its secrets, credits and usage. What was done to it stays in the log. */
export async function deleteApiKey(
  deps: Deps,
  caller: Caller,
  id: string,
): Promise<{ id: string; deleted: true }> {
  return change(
    deps,
    caller,
    async (tx) => {
      const row = await lockApiKey(tx, id);
      await deleteBelongings(tx, [id]);
      await tx.db.delete(tx.tables.apiKeys).where(eq(tx.tables.apiKeys.id, id));
      return {
        result: { id, deleted: true as const },
        event: { type: 'api_key.deleted', ...eventOf(row, { denyUntil: row.expires_at }) },
      };
    },
    'revocation',
  );
}

/** Reads a key that this transaction is about to change; others that want to, wait. */
async function lockApiKey(tx: Rows, id: string): Promise<ApiKeyRow> {
  const row = await readLocked(tx, id);
  if (!row) throw apiKeyNotFound(id);
  return row;
}

const readLocked = lockStatement('api_key_lock', 'apiKeys');

async function lockUnrevoked(tx: Rows, id: string): Promise<ApiKeyRow> {
  const row = await lockApiKey(tx, id);
  if (row.revoked_at === null) return row;
  throw new CountersignError(
    'already_revoked',
    `Cannot change API key '${id}': it was revoked at ${row.revoked_at}`,
  );
}

async function answer(tx: Rows, row: ApiKeyRow, now: number, event: NewEvent | null = null) {
  const starts = await startsOf(tx, 'api_key', [row.id]);
  const rotateBys = await rotateBysOf(tx, 'api_key', [row]);
  return { result: toApiKey(row, starts.get(row.id) ?? '', now, rotateBys), event };
}

/** Keys without a secret were deleted between two reads, and are left out. */
async function withStarts(deps: Deps, rows: Rows, keys: readonly ApiKeyRow[]): Promise<ApiKey[]> {
  const starts = await startsOf(
    rows,
    'api_key',
    keys.map((key) => key.id),
  );
  const rotateBys = await rotateBysOf(rows, 'api_key', keys);
  const now = deps.now();
  return keys.flatMap((key) => {
    const start = starts.get(key.id);
    return start === undefined ? [] : [toApiKey(key, start, now, rotateBys)];
  });
}

/** Thin: what a subscriber needs to know which key and what happened, never claims or values. */
function eventOf(row: ApiKeyRow, more: Record<string, unknown> = {}) {
  return { objectId: row.id, subject: row.subject, data: { name: row.name, ...more } };
}

export const apiKeyNotFound = (id: string) =>
  new CountersignError('not_found', `No API key has the id '${id}'`);

export const nameTaken = (row: Pick<ApiKeyRow, 'name' | 'subject'>) =>
  new CountersignError('name_taken', `Another live API key of '${row.subject}' is called '${row.name}'`, {
    field: 'name',
  });

export function stateOfApiKey(
  row: Pick<ApiKeyRow, 'revoked_at' | 'enabled' | 'expires_at'>,
  now: number,
): ApiKeyState {
  if (row.revoked_at !== null) return 'revoked';
  if (!row.enabled) return 'disabled';
  return hasExpired(row.expires_at, now) ? 'expired' : 'live';
}

function toApiKey(
  row: ApiKeyRow,
  start: string,
  now: number,
  rotateBys?: ReadonlyMap<string, number>,
): ApiKey {
  return {
    id: row.id,
    subject: row.subject,
    name: row.name,
    description: row.description,
    scopes: row.scopes,
    claims: row.claims,
    createdBy: row.created_by,
    enabled: row.enabled,
    start,
    state: stateOfApiKey(row, now),
    expiresAt: row.expires_at,
    revokedAt: row.revoked_at,
    revocationReason: row.revocation_reason as RevocationReason | null,
    revocationNote: row.revocation_note,
    policyId: row.policy_id,
    rateLimit: rateLimitOf(row),
    allowedCidrs: row.allowed_cidrs,
    rotation: rotationPolicyOf(row),
    rotateBy: row.revoked_at === null ? (rotateBys?.get(row.id) ?? null) : null,
    lastUsedAt: row.last_used_at,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}
