/** The job that has signing keys replace each other. */
import { rotateSigningKeys } from '../server/domain/signing-keys.ts';
import type { Step } from './schedule.ts';

export const keyRotation: Step = async (deps) => ({
  done: true,
  cursor: null,
  count: await rotateSigningKeys(deps),
});
