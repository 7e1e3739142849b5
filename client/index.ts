/** Countersign, machine authentication: the typed client. */
export type { EventType } from '../server/domain/event-types.ts';
export {
  type Countersign,
  createCountersign,
  type Inputs,
  type Outputs,
  type VerifyInput,
  type VerifyResult,
} from './countersign.ts';
export { CountersignError, ERRORS, type ErrorCode } from './errors.ts';
export type { OwnSecretRotation, RotateOwnSecretInput } from './machine-secrets.ts';
export type { CountersignOptions } from './options.ts';
export type { CallOptions } from './procedure-calls.ts';
