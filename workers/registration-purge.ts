/** The job that deletes OAuth applications that came unasked and that nobody used. */
import { purgeUnusedApplications } from '../server/domain/oauth-registrations.ts';
import type { Step } from './schedule.ts';

/** Applications that go with one event, and in one transaction. */
const BATCH = 100;

export const registrationPurge: Step = async (deps) => {
  const count = await purgeUnusedApplications(deps, BATCH);
  return { done: count === 0, cursor: null, count };
};
