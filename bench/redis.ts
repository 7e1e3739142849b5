/** A Redis of a figure's own. */
import { startServices } from '../test/support/services.ts';
import type { Result } from './results.ts';

/** Measures with its URL in the environment; where there is no Redis, answers what says why. */
export async function overRedis(
  measure: (env: { REDIS_URL: string }) => Promise<Result>,
  without: (missing: string) => Result,
): Promise<Result> {
  const { redis, stop } = await startServices(['redis']);
  try {
    return redis.url === null ? without(redis.missing) : await measure({ REDIS_URL: redis.url });
  } finally {
    await stop();
  }
}
