/** Whatever was thrown, as what a caller may be told. Each transport calls this once, at its edge. */
import { TRPCError } from '@trpc/server';
import { z } from 'zod';
import { isUniqueViolation, storeFailure } from '../db/store.ts';
import { describeInvalid } from './domain/invalid-input.ts';
import { CountersignError, type ErrorCode } from './errors.ts';

/** Unknown errors become `internal` and say nothing; `requestId` finds the original in the logs. */
export function translate(error: unknown, requestId: string, input?: unknown): CountersignError {
  const { code, message, field, retryAfterMs } = recognise(error, input);
  return new CountersignError(code, message, { requestId, field, retryAfterMs, cause: error });
}

type Known = {
  code: ErrorCode;
  message: string;
  field?: string | undefined;
  retryAfterMs?: number | undefined;
};

const MALFORMED_JSON: Known = { code: 'malformed_json', message: 'Cannot read the body: wanted valid JSON' };

const FROM_TRPC: Partial<Record<TRPCError['code'], Known>> = {
  PARSE_ERROR: MALFORMED_JSON,
  NOT_FOUND: { code: 'not_found', message: 'No procedure has this path' },
  METHOD_NOT_SUPPORTED: { code: 'method_not_allowed', message: 'Wanted the method POST' },
  PAYLOAD_TOO_LARGE: { code: 'payload_too_large', message: 'The body is larger than this path accepts' },
  UNSUPPORTED_MEDIA_TYPE: {
    code: 'unsupported_media_type',
    message: "Wanted the header 'Content-Type: application/json'",
  },
};

/** What tRPC says of a request beyond its `maxBatchSize`: it has no code of its own for it. */
const BATCH_TOO_LARGE = 'Batch call exceeds maximum size';

function recognise(error: unknown, input: unknown): Known {
  if (error instanceof CountersignError) return error;
  if (error instanceof z.ZodError) return { code: 'invalid_input', ...describeInvalid(error, input) };
  if (error instanceof TRPCError) {
    if (error.cause instanceof CountersignError || error.cause instanceof z.ZodError)
      return recognise(error.cause, input);
    if (error.code === 'BAD_REQUEST') {
      if (error.cause instanceof SyntaxError) return MALFORMED_JSON;
      return error.message === BATCH_TOO_LARGE
        ? { code: 'batch_too_large', message: 'Wanted fewer calls in one request' }
        : { code: 'invalid_input', message: 'Cannot read the request: wanted a tRPC call' };
    }
    const known = FROM_TRPC[error.code];
    if (known) return known;
    if (error.cause) return recognise(error.cause, input);
  }
  const failure = storeFailure(error);
  if (failure === 'full') return { code: 'storage_full', message: 'The disk is full; nothing was changed' };
  if (failure === 'unavailable') {
    return { code: 'unavailable', message: 'The database cannot be reached or is busy; nothing was changed' };
  }
  if (failure === 'outcome_unknown') {
    return {
      code: 'outcome_unknown',
      message:
        'The database was lost while it committed: this may or may not have been done; look before you repeat it',
    };
  }
  if (isUniqueViolation(error))
    return { code: 'already_exists', message: 'Another caller made the same at the same time' };
  return { code: 'internal', message: 'The server failed; the request id finds it in the logs' };
}
