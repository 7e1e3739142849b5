/** Rotation policies: how old a secret of an owner may grow. Asked for and shown as one, kept as two columns. */
import { and, eq, inArray, isNotNull } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import type { SecretOwnerKind } from '../../db/tables/secrets.ts';

const PERIOD_SECONDS_MIN = 3600;
const PERIOD_SECONDS_MAX = 3650 * 86_400;

/** How old a secret may grow, from an hour to 3650 days, and what becomes of one that is older. */
export const rotationPolicy = z.strictObject({
  periodSeconds: z.number().int().min(PERIOD_SECONDS_MIN).max(PERIOD_SECONDS_MAX),
  /** `warn` says so again and again; `expire` has it expire. */
  atDeadline: z.enum(['warn', 'expire']).default('warn'),
});

export type RotationPolicy = z.output<typeof rotationPolicy>;

interface RotationPolicyColumns {
  rotation_period_seconds: number | null;
  rotation_expires: boolean;
}

export const rotationPolicyColumns = (policy: RotationPolicy | null): RotationPolicyColumns => ({
  rotation_period_seconds: policy?.periodSeconds ?? null,
  rotation_expires: policy?.atDeadline === 'expire',
});

export const rotationPolicyOf = (row: RotationPolicyColumns): RotationPolicy | null =>
  row.rotation_period_seconds === null
    ? null
    : { periodSeconds: row.rotation_period_seconds, atDeadline: atDeadlineOf(row) };

export const atDeadlineOf = (row: Pick<RotationPolicyColumns, 'rotation_expires'>) =>
  row.rotation_expires ? 'expire' : 'warn';

/** What of an owner says when its secret is due for rotation. */
export interface RotationTerms {
  rotation_period_seconds: number | null;
  /** When the owner itself expires, or null for never. */
  expires_at: number | null;
}

/** When a secret that was made at an instant is due; null without a policy, and for an owner that expires before. */
export function rotateByOf(terms: RotationTerms, createdAt: number): number | null {
  if (terms.rotation_period_seconds === null) return null;
  const rotateBy = createdAt + terms.rotation_period_seconds * 1000;
  return terms.expires_at !== null && terms.expires_at <= rotateBy ? null : rotateBy;
}

/** When the newest secret of each owner is due, by owner. Asks only if one of them has a policy. */
export async function rotateBysOf(
  { db, tables: { secrets } }: Rows,
  kind: SecretOwnerKind,
  owners: readonly (Pick<RotationPolicyColumns, 'rotation_period_seconds'> & { id: string })[],
): Promise<ReadonlyMap<string, number>> {
  const ids = owners.filter((row) => row.rotation_period_seconds !== null).map(({ id }) => id);
  if (ids.length === 0) return new Map();
  const rows = await db
    .select({ ownerId: secrets.owner_id, rotateBy: secrets.rotate_by })
    .from(secrets)
    .where(and(eq(secrets.owner_kind, kind), inArray(secrets.owner_id, ids), isNotNull(secrets.rotate_by)));
  return new Map(rows.map(({ ownerId, rotateBy }) => [ownerId, rotateBy ?? 0]));
}
