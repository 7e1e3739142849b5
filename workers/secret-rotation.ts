/** The job that has secrets rotated in time. */
import { enforceRotationPolicies } from '../server/domain/secret-rotation.ts';
import type { Step } from './schedule.ts';

export const secretRotation: Step = async (deps, cursor, logger) => {
  const step = await enforceRotationPolicies(deps, cursor);
  for (const err of step.errors ?? []) logger.error({ err }, 'A secret could not be held against its policy');
  return step;
};
