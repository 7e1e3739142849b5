/** The job that deletes idempotency keys whose time has passed. */
import { deleteExpiredIdempotencyKeys } from '../server/domain/idempotency.ts';
import type { Step } from './schedule.ts';

/** Rows deleted in about two milliseconds. */
const BATCH = 200;

export const idempotencyPrune: Step = async (deps) => {
  const count = await deleteExpiredIdempotencyKeys(deps, BATCH);
  return { done: count === 0, cursor: null, count };
};
