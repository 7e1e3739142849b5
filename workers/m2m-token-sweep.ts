/** The job that deletes M2M tokens of which nothing is asked any more, and status lists without any. */
import { deleteExpiredM2mTokens, deleteUnusedStatusLists } from '../server/domain/m2m-token-retention.ts';
import type { Step } from './schedule.ts';

/** Rows deleted in about two milliseconds. */
const BATCH = 100;

export const m2mTokenSweep: Step = async (deps, cursor) => {
  const tokens = await deleteExpiredM2mTokens(deps, BATCH);
  if (tokens > 0) return { done: false, cursor, count: tokens };
  const { count, next } = await deleteUnusedStatusLists(deps, String(cursor?.['listsAfter'] ?? ''), BATCH);
  return { done: next === null, cursor: next === null ? null : { listsAfter: next }, count };
};
