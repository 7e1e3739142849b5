/** How a rate limit is asked for, shown and kept: two columns that are null together. */
import { z } from 'zod';
import type { Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { Limit } from '../limits.ts';

/** A day: counters may be lost, so what must hold for longer is a matter of credits. */
const WINDOW_SECONDS_MAX = 86_400;

/** `count` verifications in any window of `windowSeconds`. */
export const rateLimit = z.strictObject({
  count: z.number().int().min(1).max(1_000_000_000),
  windowSeconds: z.number().int().min(1).max(WINDOW_SECONDS_MAX),
});

interface RateLimitColumns {
  rate_limit: number | null;
  rate_limit_window_seconds: number | null;
}

export function rateLimitOf(row: RateLimitColumns): Limit | null {
  const { rate_limit: count, rate_limit_window_seconds: windowSeconds } = row;
  return count === null || windowSeconds === null ? null : { count, windowSeconds };
}

export const rateLimitColumns = (limit: Limit | null): RateLimitColumns => ({
  rate_limit: limit?.count ?? null,
  rate_limit_window_seconds: limit?.windowSeconds ?? null,
});

/** Takes one from a limit. Throws `rate_limited`, saying `refusal` and when the next may be taken. */
export async function takeOne(
  { limits }: Pick<Deps, 'limits'>,
  key: string,
  limit: Limit,
  refusal: string,
): Promise<void> {
  const { allowed, retryAfterMs } = await limits.consume(key, limit, 1);
  if (allowed) return;
  throw new CountersignError('rate_limited', `${refusal}, the next in ${retryAfterMs} ms`, { retryAfterMs });
}
