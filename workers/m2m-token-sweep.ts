/** The job that deletes M2M tokens of which nothing is asked any more, and status lists without any. */
import { deleteExpiredM2mTokens, deleteUnusedStatusLists } from '../server/domain/m2m-token-retention.ts';
import type { Step } from './schedule.ts';

/** Rows deleted in about two milliseconds, where there are a million: each is in a page of its own, also of its indexes. */
const TOKENS = 20;
/** Lists looked at in one step; there is one for each 131,072 tokens. */
const LISTS = 100;

export const m2mTokenSweep: Step = async (deps, cursor) => {
  const tokens = await deleteExpiredM2mTokens(deps, TOKENS);
  if (tokens > 0) return { done: false, cursor, count: tokens };
  const { count, next } = await deleteUnusedStatusLists(deps, String(cursor?.['listsAfter'] ?? ''), LISTS);
  return { done: next === null, cursor: next === null ? null : { listsAfter: next }, count };
};
