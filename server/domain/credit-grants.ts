/** Granting credits: administrators set and take away the rows that verifying spends from (`credits.ts`). */
import { and, eq, inArray } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import type { CreditsOwner } from './credits.ts';
import { TTL_SECONDS_MAX } from './fields.ts';

/** What may still be spent, and what that is brought back up to at each interval, if at all. */
export interface Credits {
  remaining: number;
  refillAmount: number | null;
  refillIntervalSeconds: number | null;
}

export const creditAmount = z.number().int().min(0).max(1_000_000_000_000);

/** Both or neither: see `withWholeRefill`. */
export const refillInput = {
  /** What remains is brought back up to this at each interval; where it is more, it is left. */
  refillAmount: creditAmount.min(1).nullish(),
  refillIntervalSeconds: z.number().int().min(1).max(TTL_SECONDS_MAX).nullish(),
};

interface GivenCredits {
  remaining?: number | null | undefined;
  refillAmount?: number | null | undefined;
  refillIntervalSeconds?: number | null | undefined;
}

/** Refuses half a refill, and one of credits that are taken away. */
export const withWholeRefill = <T extends z.ZodType<GivenCredits>>(schema: T): T =>
  schema.refine(isWhole, {
    error:
      "wanted both of 'refillAmount' and 'refillIntervalSeconds', or neither, and neither without credits",
    path: ['refillAmount'],
  });

function isWhole({ remaining, refillAmount = null, refillIntervalSeconds = null }: GivenCredits): boolean {
  if (refillAmount === null) return refillIntervalSeconds === null;
  return refillIntervalSeconds !== null && remaining !== null;
}

/** The credits that a key is created with. */
export const creditsInput = withWholeRefill(z.strictObject({ remaining: creditAmount, ...refillInput }));

/** The credits of something there already: null takes them away, and with them the limit. */
export const setCreditsFields = { remaining: creditAmount.nullable(), ...refillInput };

/** The credits that an input means. */
export function creditsOf(given: GivenCredits & { remaining: number | null }): Credits | null {
  if (given.remaining === null) return null;
  return {
    remaining: given.remaining,
    refillAmount: given.refillAmount ?? null,
    refillIntervalSeconds: given.refillIntervalSeconds ?? null,
  };
}

/** Writes what an owner may spend from now on, whatever it might before. Its intervals begin now. */
export async function grantCredits(
  { db, tables }: Rows,
  owner: CreditsOwner,
  granted: Credits,
  now: number,
): Promise<void> {
  const { credits } = tables;
  const columns = {
    remaining: granted.remaining,
    refill_amount: granted.refillAmount,
    refill_interval_seconds: granted.refillIntervalSeconds,
    refilled_at: now,
  };
  await db
    .insert(credits)
    .values({ owner_kind: owner.kind, owner_id: owner.id, ...columns })
    .onConflictDoUpdate({ target: [credits.owner_kind, credits.owner_id], set: columns });
}

export async function removeCredits(
  { db, tables: { credits } }: Rows,
  kind: CreditsOwner['kind'],
  ids: readonly string[],
): Promise<void> {
  await db.delete(credits).where(and(eq(credits.owner_kind, kind), inArray(credits.owner_id, [...ids])));
}

/** What an owner may spend at `now`, or null where nothing limits it. A refill that is due counts, though nobody wrote it yet. */
export async function creditsAt(
  { db, tables: { credits } }: Rows,
  owner: CreditsOwner,
  now: number,
): Promise<Credits | null> {
  const [row] = await db
    .select()
    .from(credits)
    .where(and(eq(credits.owner_kind, owner.kind), eq(credits.owner_id, owner.id)));
  if (!row) return null;
  const { refill_amount: refillAmount, refill_interval_seconds: refillIntervalSeconds } = row;
  const isDue = refillIntervalSeconds !== null && now >= row.refilled_at + refillIntervalSeconds * 1000;
  const remaining = isDue ? Math.max(row.remaining, refillAmount ?? 0) : row.remaining;
  return { remaining, refillAmount, refillIntervalSeconds };
}

export const sameCredits = (some: Credits | null, others: Credits | null) =>
  JSON.stringify(some) === JSON.stringify(others);
