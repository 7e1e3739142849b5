/** The job that announces what expires. */
import { announceExpiries } from '../server/domain/expiry.ts';
import type { Step } from './schedule.ts';

export const expirySweep: Step = async (deps, cursor, logger) => {
  const step = await announceExpiries(deps, cursor);
  for (const err of step.errors ?? []) logger.error({ err }, 'The expiry of a key could not be announced');
  return step;
};
