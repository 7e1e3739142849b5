import { type CountersignError, ERRORS } from '../errors.ts';

/** The body of an error on `/v1`, as Clerk has it. `clerk_trace_id` carries the request id; `retry_after_ms` is ours. */
export interface ErrorEnvelope {
  errors: { code: string; message: string; long_message: string; meta?: ErrorMeta }[];
  clerk_trace_id: string;
}

interface ErrorMeta {
  param_name?: string;
  retry_after_ms?: number;
}

/** What was translated at the edge, in Clerk's envelope: `message` says what the code means, `long_message` what is wrong. */
export function toErrorEnvelope(error: CountersignError, requestId: string): ErrorEnvelope {
  const { code, message, field, retryAfterMs } = error;
  const meta: ErrorMeta = {
    ...(field !== undefined && { param_name: field }),
    ...(retryAfterMs !== undefined && { retry_after_ms: retryAfterMs }),
  };
  return {
    errors: [
      {
        code,
        message: ERRORS[code].meaning,
        long_message: message,
        ...(Object.keys(meta).length > 0 && { meta }),
      },
    ],
    clerk_trace_id: requestId,
  };
}
