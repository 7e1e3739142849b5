/** The job that deletes M2M tokens of which nothing is asked any more. */
import { deleteExpiredM2mTokens } from '../server/domain/m2m-token-retention.ts';
import type { Step } from './schedule.ts';

/** Rows deleted in about two milliseconds. */
const BATCH = 100;

export const m2mTokenSweep: Step = async (deps) => {
  const count = await deleteExpiredM2mTokens(deps, BATCH);
  return { done: count === 0, cursor: null, count };
};
