import { CountersignError, ERRORS, type ErrorCode } from '../errors.ts';
import type { UnknownCallerCode } from './route.ts';

/** The body of an error on `/v1`, as Clerk has it. `clerk_trace_id` carries the request id; what else `meta` has is ours. */
export interface ErrorEnvelope {
  errors: { code: string; message: string; long_message: string; meta?: ErrorMeta }[];
  clerk_trace_id: string;
}

interface ErrorMeta {
  param_name?: string;
  retry_after_ms?: number;
  /** Our code, where `code` is Clerk's. */
  countersign_code?: ErrorCode;
}

/**
 * What was translated at the edge, in Clerk's envelope: `message` says what the code means, `long_message` what is wrong.
 *
 * @param clerk what a route of Clerk's calls a caller who is not known; such a route has Clerk's codes where Clerk has one.
 */
export function toErrorEnvelope(
  error: CountersignError,
  requestId: string,
  clerk: UnknownCallerCode | null = null,
): ErrorEnvelope {
  const { code, message, field, retryAfterMs } = error;
  const clerkCode = clerk && clerkCodeOf(code, clerk);
  const meta: ErrorMeta = {
    ...(clerkCode && { countersign_code: code }),
    ...(field !== undefined && { param_name: field }),
    ...(retryAfterMs !== undefined && { retry_after_ms: retryAfterMs }),
  };
  return {
    errors: [
      {
        code: clerkCode ?? code,
        message: ERRORS[code].meaning,
        long_message: message,
        ...(Object.keys(meta).length > 0 && { meta }),
      },
    ],
    clerk_trace_id: requestId,
  };
}

function clerkCodeOf(code: ErrorCode, unknownCaller: UnknownCallerCode): string | null {
  if (code === 'unauthenticated') return unknownCaller;
  return code === 'not_found' ? 'resource_not_found' : null;
}

/** A refusal with its fields as the wire calls them. */
export function inWireNames(error: CountersignError, nameOf: (field: string) => string): CountersignError {
  const { code, message, field, retryAfterMs } = error;
  const pathOf = (path: string) => path.split('.').map(nameOf).join('.');
  return new CountersignError(
    code,
    message.replace(/'([\w.]+)'/g, (_, path: string) => `'${pathOf(path)}'`),
    { field: field && pathOf(field), retryAfterMs, cause: error },
  );
}
