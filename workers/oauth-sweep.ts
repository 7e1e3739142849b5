/** The job that deletes codes and tokens of OAuth of which nothing is asked any more, and then what they hung on. */
import {
  deleteExpiredOauthTokens,
  deleteOrphanedConsents,
  deleteSpentGrants,
  type GrantKey,
} from '../server/domain/oauth-token-retention.ts';
import type { Step } from './schedule.ts';

/** Rows deleted of each table in about two milliseconds: each is in a page of its own, also of its indexes. */
const TOKENS = 20;
/** Rows looked at in one step. */
const LOOKED_AT = 100;

export const oauthSweep: Step = async (deps, cursor) => {
  const tokens = await deleteExpiredOauthTokens(deps, TOKENS);
  if (tokens > 0) return { done: false, cursor, count: tokens };
  const consentsAfter = cursor?.['consentsAfter'];
  if (typeof consentsAfter !== 'string') {
    const after = (cursor?.['grantsAfter'] ?? null) as GrantKey | null;
    const { count, next } = await deleteSpentGrants(deps, after, LOOKED_AT);
    return { done: false, cursor: next === null ? { consentsAfter: '' } : { grantsAfter: next }, count };
  }
  const { count, next } = await deleteOrphanedConsents(deps, consentsAfter, LOOKED_AT);
  return { done: next === null, cursor: next === null ? null : { consentsAfter: next }, count };
};
