/** The job that deletes what people are signed in by, or are about to be, once it has expired. */
import { deleteExpiredUserRows } from '../server/domain/oauth-token-retention.ts';
import { deleteExpiredSignIns } from '../server/domain/operator-sessions.ts';
import { deleteExpiredPanelTokens } from '../server/domain/panel-tokens.ts';
import type { Step } from './schedule.ts';

/** Rows deleted in about two milliseconds. */
const BATCH = 100;

export const sessionPrune: Step = async (deps) => {
  const count =
    (await deleteExpiredSignIns(deps, BATCH)) +
    (await deleteExpiredPanelTokens(deps, BATCH)) +
    (await deleteExpiredUserRows(deps, BATCH));
  return { done: count === 0, cursor: null, count };
};
