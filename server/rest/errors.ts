import { type CountersignError, ERRORS } from '../errors.ts';

/** The body of an error on `/v1`, as Clerk has it. `clerk_trace_id` carries the request id. */
export interface ErrorEnvelope {
  errors: { code: string; message: string; long_message: string; meta?: { param_name: string } }[];
  clerk_trace_id: string;
}

/** What was translated at the edge, in Clerk's envelope: `message` says what the code means, `long_message` what is wrong. */
export function toErrorEnvelope(error: CountersignError, requestId: string): ErrorEnvelope {
  const { code, message, field } = error;
  return {
    errors: [
      {
        code,
        message: ERRORS[code].meaning,
        long_message: message,
        ...(field !== undefined && { meta: { param_name: field } }),
      },
    ],
    clerk_trace_id: requestId,
  };
}
