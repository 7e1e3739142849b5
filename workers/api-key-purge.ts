/** The job that deletes API keys whose retention is over. */
import { purgeEndedApiKeys } from '../server/domain/api-key-retention.ts';
import type { Step } from './schedule.ts';

/** Keys that go with one event, and in one transaction. */
const BATCH = 100;

export const apiKeyPurge: Step = async (deps) => {
  const count = await purgeEndedApiKeys(deps, BATCH);
  return { done: count === 0, cursor: null, count };
};
