/** What end users do with the API keys of their subject: less than an application may, and within what it allows them. */
import { z } from 'zod';
import type { Caller, Deps, EndUser } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { Limit } from '../limits.ts';
import {
  type ApiKey,
  apiKeyNotFound,
  completeApiKeyRotation,
  countApiKeys,
  countLiveKeys,
  createApiKey,
  createApiKeyInput,
  getApiKey,
  listApiKeys,
  listApiKeysInput,
  revokeApiKey,
  revokeApiKeyInput,
  rotateApiKey,
  rotateApiKeyInput,
  updateApiKey,
} from './api-keys.ts';
import { apiKeyId, description, name, scopes, ttlSeconds } from './fields.ts';
import { idempotencyInput } from './idempotency.ts';
import { type KeyPolicyRow, policyOffered } from './key-policies.ts';
import type { Page } from './pages.ts';
import type { PanelAction } from './panel-tokens.ts';
import { takeOne } from './rate-limits.ts';
import { overlapsOf, type Rotated } from './rotation.ts';
import { type UsageEntry, usageOfApiKeys } from './usage-reports.ts';

/** Where no key policy applies; a policy says all of it itself. */
const WITHOUT_POLICY = { ttlSecondsMax: 365 * 24 * 3600, liveKeysMax: 100 };

/** Changes that one end user may ask for. */
const CHANGES: Limit = { count: 60, windowSeconds: 60 };

/** What the owner of an API key is shown of it. */
export type PanelKey = Pick<
  ApiKey,
  | 'id'
  | 'name'
  | 'description'
  | 'scopes'
  | 'createdBy'
  | 'start'
  | 'state'
  | 'expiresAt'
  | 'revokedAt'
  | 'lastUsedAt'
  | 'createdAt'
  | 'updatedAt'
> & {
  /** Until when the value before a rotation is accepted too; null if it is not. */
  previousExpiresAt: number | null;
};

/** What a panel may offer. */
export interface PanelOptions {
  subject: string;
  actions: readonly PanelAction[];
  /** The scopes a new key may be given. */
  scopes: string[];
  /** The lifetime of a key that is asked for without one; null for forever. */
  ttlSecondsDefault: number | null;
  /** The longest lifetime of a key; null for forever. */
  ttlSecondsMax: number | null;
  liveKeys: number;
  /** As many of them there may be; null for any number. */
  liveKeysMax: number | null;
}

/** What may be chosen, as ceiling and policy have it at the moment; both are judged again when a key is created. */
export async function getPanelOptions(deps: Deps, caller: Caller): Promise<PanelOptions> {
  const user = endUser(caller, 'read');
  const policy = await policyOffered(deps, user.policyId);
  const bounds = policy
    ? {
        ttlSecondsDefault: policy.default_ttl_seconds ?? policy.max_ttl_seconds,
        ttlSecondsMax: policy.max_ttl_seconds,
        liveKeysMax: policy.live_keys_max,
      }
    : { ...WITHOUT_POLICY, ttlSecondsDefault: WITHOUT_POLICY.ttlSecondsMax };
  return {
    subject: user.subject,
    actions: user.actions,
    scopes: scopesWithin(user, policy),
    ...bounds,
    liveKeys: await countLiveKeys(deps.store.read, policy?.id ?? null, user.subject, deps.now()),
  };
}

/** Without a ceiling, those that the policy names: where it allows any, an end user may give none. */
function scopesWithin({ scopeCeiling }: EndUser, policy: KeyPolicyRow | null): string[] {
  const allowed = policy?.allowed_scopes ?? null;
  if (scopeCeiling === null) return allowed ?? [];
  return scopeCeiling.filter((scope) => allowed?.includes(scope) ?? true);
}

const { query, ended, limit, cursor, offset } = listApiKeysInput.shape;

export const listPanelKeysInput = z.strictObject({ query, ended, limit, cursor, offset });

/** The subject's API keys, the newest first; `count` is how many there are, at most 10,000. */
export async function listPanelKeys(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof listPanelKeysInput>,
): Promise<Page<PanelKey> & { count: number }> {
  const { subject } = endUser(caller, 'read');
  const asked = listApiKeysInput.parse({ ...input, subject });
  const page = await listApiKeys(deps, asked);
  const overlaps = await overlapsOf(
    deps.store.read,
    'api_key',
    page.data.map(({ id }) => id),
    deps.now(),
  );
  const data = page.data.map((key) => toPanelKey(key, overlaps.get(key.id) ?? null));
  return { ...page, data, count: await countApiKeys(deps, asked) };
}

export const createPanelKeyInput = z.strictObject({
  name: name.meta({ positional: true }),
  description: description.nullish(),
  scopes: scopes.default([]),
  /** Without it, the default lifetime; null for forever, which a longest lifetime refuses. */
  ttlSeconds: ttlSeconds.nullish(),
  ...idempotencyInput,
});

/**
 * Creates an API key for the subject; its value is answered this once. Throws `scope_not_allowed`, and what creating
 * one throws.
 */
export async function createPanelKey(
  deps: Deps,
  caller: Caller,
  { ttlSeconds: ttl, ...input }: z.output<typeof createPanelKeyInput>,
): Promise<PanelKey & { secret?: string }> {
  const user = endUser(caller, 'create');
  await assertWithinCeiling(deps, user, input.scopes, 'create');
  await assertMayChange(deps, user);
  const key = createApiKeyInput.parse({
    ...input,
    subject: user.subject,
    createdBy: user.id,
    ...(user.policyId !== null && { policyId: user.policyId }),
    ...(ttl === null ? { expiresAt: null } : { ttlSeconds: ttl }),
  });
  const { secret, ...created } = await createApiKey(deps, caller, key, {
    procedure: 'panelKeys.create',
    withoutPolicy: WITHOUT_POLICY,
  });
  return { ...toPanelKey(created, null), ...(secret !== undefined && { secret }) };
}

export const updatePanelKeyInput = z.strictObject({
  id: apiKeyId.meta({ positional: true }),
  name: name.optional(),
  description: description.nullish(),
});

export async function updatePanelKey(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof updatePanelKeyInput>,
): Promise<PanelKey> {
  const user = endUser(caller, 'update');
  await ownKey(deps, user, input.id);
  await assertMayChange(deps, user);
  return withOverlap(deps, await updateApiKey(deps, caller, input));
}

export const rotatePanelKeyInput = rotateApiKeyInput;

/**
 * Gives a key of the subject a new value. One that may do more than the end user may give a key is not theirs to have:
 * `scope_not_allowed`.
 */
export async function rotatePanelKey(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof rotatePanelKeyInput>,
): Promise<PanelKey & Rotated> {
  const user = endUser(caller, 'rotate');
  const key = await ownKey(deps, user, input.id);
  await assertWithinCeiling(deps, user, key.scopes, 'rotate');
  await assertMayChange(deps, user);
  const { secret, previousExpiresAt, ...rotated } = await rotateApiKey(deps, caller, input);
  return {
    ...toPanelKey(rotated, previousExpiresAt),
    ...(secret !== undefined && { secret }),
    previousExpiresAt,
  };
}

export const panelKeyIdInput = z.strictObject({ id: apiKeyId.meta({ positional: true }) });

/** Ends the old value of an overlap now. */
export async function completePanelKeyRotation(deps: Deps, caller: Caller, id: string): Promise<PanelKey> {
  const user = endUser(caller, 'rotate');
  await ownKey(deps, user, id);
  await assertMayChange(deps, user);
  return withOverlap(deps, await completeApiKeyRotation(deps, caller, id));
}

const { reason } = revokeApiKeyInput.shape;

export const revokePanelKeyInput = z.strictObject({ id: apiKeyId.meta({ positional: true }), reason });

/** Revokes a key of the subject, whatever it may do: nobody is kept from that by how often they ask. */
export async function revokePanelKey(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof revokePanelKeyInput>,
): Promise<PanelKey> {
  const user = endUser(caller, 'revoke');
  await ownKey(deps, user, input.id);
  return toPanelKey(await revokeApiKey(deps, caller, input), null);
}

/** Verifications of a key of the subject, by day, of the last 30 days. */
export async function getPanelKeyUsage(
  deps: Deps,
  caller: Caller,
  id: string,
): Promise<{ from: number; to: number; usage: UsageEntry[] }> {
  await ownKey(deps, endUser(caller, 'read'), id);
  const { from, to, data } = await usageOfApiKeys(deps, { ids: [id], granularity: 'day' });
  return { from, to, usage: data[0]?.usage ?? [] };
}

/** Who is calling, if they may do so much. */
function endUser({ principal }: Caller, action: PanelAction): EndUser {
  if (principal.kind === 'end_user' && principal.actions.includes(action)) return principal;
  throw new CountersignError('forbidden', `This panel may not ${action} API keys`);
}

/** A key of somebody else looks like one that is not there. */
async function ownKey(deps: Deps, { subject }: EndUser, id: string): Promise<ApiKey> {
  const key = await getApiKey(deps, { id });
  if (key.subject !== subject) throw apiKeyNotFound(id);
  return key;
}

async function assertWithinCeiling(deps: Deps, user: EndUser, wanted: readonly string[], verb: string) {
  if (wanted.length === 0) return;
  const within = scopesWithin(user, await policyOffered(deps, user.policyId));
  const beyond = wanted.find((scope) => !within.includes(scope));
  if (beyond === undefined) return;
  throw new CountersignError(
    'scope_not_allowed',
    `Cannot ${verb} API key: this panel does not allow the scope '${beyond}'`,
    { field: 'scopes' },
  );
}

async function assertMayChange(deps: Deps, { subject }: EndUser) {
  await takeOne(
    deps,
    `panel_changes:${subject}`,
    CHANGES,
    `Cannot save API key: wanted at most ${CHANGES.count} changes in a minute`,
  );
}

async function withOverlap(deps: Deps, key: ApiKey): Promise<PanelKey> {
  const overlaps = await overlapsOf(deps.store.read, 'api_key', [key.id], deps.now());
  return toPanelKey(key, overlaps.get(key.id) ?? null);
}

const toPanelKey = (key: ApiKey, previousExpiresAt: number | null): PanelKey => ({
  id: key.id,
  name: key.name,
  description: key.description,
  scopes: key.scopes,
  createdBy: key.createdBy,
  start: key.start,
  state: key.state,
  expiresAt: key.expiresAt,
  revokedAt: key.revokedAt,
  lastUsedAt: key.lastUsedAt,
  createdAt: key.createdAt,
  updatedAt: key.updatedAt,
  previousExpiresAt,
});
