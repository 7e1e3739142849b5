/** Rotation: an owner is given a new value while the one before is accepted for a chosen time, or ends at once. */
import { and, eq, gt, inArray, isNull } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import type { Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { type RotationTerms, rotateByOf } from './rotation-policies.ts';
import {
  issueSecret,
  liveSecrets,
  type NewSecret,
  revokeSecrets,
  type SecretRow,
  saveSecret,
} from './secrets.ts';

const OVERLAP_SECONDS_MAX = 30 * 24 * 3600;

/**
 * For whoever rotates its own credential: were the answer lost with an overlap of 0, nobody would hold a value that is
 * accepted.
 */
export const OWN_OVERLAP_SECONDS = 3600;

/** How long the value before is accepted beside the new one: from none to 30 days. */
export const overlapSeconds = z.number().int().min(0).max(OVERLAP_SECONDS_MAX);

/** Whether somebody else has the value before: then there is no overlap, and it is revoked at once. */
export const compromised = z.boolean().default(false);

export interface RotationOptions {
  overlapSeconds: number;
  compromised: boolean;
}

/** The options that an input means; without `overlapSeconds`, those of its noun. Throws `invalid_input` for both. */
export function rotationOf(
  given: { overlapSeconds?: number | undefined; compromised?: boolean },
  overlapSecondsDefault: number,
): RotationOptions {
  if (!given.compromised)
    return { overlapSeconds: given.overlapSeconds ?? overlapSecondsDefault, compromised: false };
  if (!given.overlapSeconds) return { overlapSeconds: 0, compromised: true };
  throw new CountersignError(
    'invalid_input',
    `Cannot rotate: wanted no overlap with a value that is compromised, got 'overlapSeconds' ${given.overlapSeconds}`,
    { field: 'overlapSeconds' },
  );
}

/** What a rotation answers beside its owner. */
export interface Rotated {
  /** The new value, answered this once. */
  secret?: string;
  /** Until when the value before is accepted too; null if it is not. */
  previousExpiresAt: number | null;
}

/**
 * Issues a new value. The one before expires at the end of the overlap and never later than its owner; compromised, it
 * is revoked with every other. The owner's row must be locked: at most two values are accepted. Throws
 * `rotation_in_progress` while an overlap runs, unless compromised.
 */
export async function rotateSecret(
  tx: Rows,
  deps: Deps,
  { owner, prefix, terms }: NewSecret,
  { overlapSeconds, compromised }: RotationOptions,
): Promise<{ secret: string; previousExpiresAt: number | null }> {
  if (compromised) {
    await revokeSecrets(tx, deps, owner);
    return { secret: await issueSecret(tx, deps, { owner, prefix, terms }), previousExpiresAt: null };
  }
  const live = await liveSecrets(tx, deps, owner);
  if (live.length > 1) throw rotationInProgress(owner.id);
  const now = deps.now();
  const endsAt = Math.min(now + overlapSeconds * 1000, terms.expires_at ?? Number.POSITIVE_INFINITY);
  for (const row of live) await saveSecret(tx, deps, { ...row, expires_at: endsAt, rotate_by: null });
  const secret = await issueSecret(tx, deps, { owner, prefix, terms });
  return { secret, previousExpiresAt: live.length > 0 && endsAt > now ? endsAt : null };
}

/**
 * Revokes the new value; the one before lives as long as its owner again, and is due for rotation when it was. Throws
 * `no_rotation_in_progress`.
 */
export async function cancelOverlap(
  tx: Rows,
  deps: Deps,
  owner: NewSecret['owner'],
  terms: RotationTerms,
): Promise<void> {
  const { before, after } = await overlapOf(tx, deps, owner);
  await saveSecret(tx, deps, { ...after, revoked_at: deps.now(), rotate_by: null });
  await saveSecret(tx, deps, {
    ...before,
    expires_at: null,
    rotate_by: rotateByOf(terms, before.created_at),
  });
}

/** Ends the value before now. Throws `no_rotation_in_progress`. */
export async function completeOverlap(tx: Rows, deps: Deps, owner: NewSecret['owner']): Promise<void> {
  const { before } = await overlapOf(tx, deps, owner);
  await saveSecret(tx, deps, { ...before, expires_at: deps.now() });
}

/** Holds the newest value against what its owner's terms are now. The owner's row must be locked. */
export async function scheduleRotation(
  tx: Rows,
  deps: Deps,
  owner: NewSecret['owner'],
  terms: RotationTerms,
): Promise<void> {
  const newest = (await liveSecrets(tx, deps, owner)).find(isNewest);
  if (newest) await saveSecret(tx, deps, { ...newest, rotate_by: rotateByOf(terms, newest.created_at) });
}

/** Ends every value now: one that is older than the newest is overdue with it. The owner's row must be locked. */
export async function expireSecrets(tx: Rows, deps: Deps, owner: NewSecret['owner']): Promise<void> {
  for (const row of await liveSecrets(tx, deps, owner))
    await saveSecret(tx, deps, { ...row, expires_at: deps.now(), rotate_by: null });
}

/** The id of the secret that no rotation replaced, or null for an owner without any that is accepted. */
export async function newestSecretId(
  tx: Rows,
  deps: Deps,
  owner: NewSecret['owner'],
): Promise<string | null> {
  return (await liveSecrets(tx, deps, owner)).find(isNewest)?.id ?? null;
}

/** Only rotation and its policy give a secret an expiry, and its HMAC covers that: no writer to the database can turn the two round. */
const isNewest = (row: SecretRow) => row.expires_at === null;

/** Until when values before are accepted too, of those owners of one kind of whom one is. */
export async function overlapsOf(
  { db, tables: { secrets } }: Rows,
  kind: NewSecret['owner']['kind'],
  ownerIds: readonly string[],
  now: number,
): Promise<Map<string, number>> {
  if (ownerIds.length === 0) return new Map();
  const before = await db
    .select({ ownerId: secrets.owner_id, expiresAt: secrets.expires_at })
    .from(secrets)
    .where(
      and(
        eq(secrets.owner_kind, kind),
        inArray(secrets.owner_id, [...ownerIds]),
        isNull(secrets.revoked_at),
        gt(secrets.expires_at, now),
      ),
    );
  return new Map(before.map(({ ownerId, expiresAt }) => [ownerId, expiresAt ?? now]));
}

async function overlapOf(tx: Rows, deps: Deps, owner: NewSecret['owner']) {
  const live = await liveSecrets(tx, deps, owner);
  const after = live.find(isNewest);
  const before = live.find((row) => !isNewest(row));
  if (before && after) return { before, after };
  throw new CountersignError(
    'no_rotation_in_progress',
    `Wanted two accepted secrets of '${owner.id}', found ${live.length}`,
  );
}

const rotationInProgress = (id: string) =>
  new CountersignError(
    'rotation_in_progress',
    `Cannot rotate '${id}': wanted one accepted secret, found two; complete or cancel the rotation before`,
  );
