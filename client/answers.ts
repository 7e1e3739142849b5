/** What a server's answer means. Answers that are not a Countersign server's are `network` errors, whatever their status. */
import { CountersignError, ERRORS, type ErrorCode } from '../server/errors.ts';
import type { Reply } from './transport.ts';

/** The JSON of an answer. */
export function jsonOf({ status, text }: Reply): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw foreign(status);
  }
}

export const foreign = (status: number) =>
  new CountersignError(
    'network',
    `Wanted the answer of a Countersign server, got something else with status ${status}`,
  );

/** The errors of `/v1`, in Clerk's envelope: `{ errors: [{ code, message, long_message, meta }], clerk_trace_id }`. */
export function errorInEnvelope(status: number, body: unknown): CountersignError | null {
  if (!isRecord(body) || !Array.isArray(body['errors'])) return null;
  const [first] = body['errors'];
  if (!isRecord(first) || typeof first['code'] !== 'string') return null;
  const meta = isRecord(first['meta']) ? first['meta'] : {};
  return new CountersignError(
    codeOf(first['code'], status),
    textOf(first['long_message']) ?? textOf(first['message']) ?? first['code'],
    {
      requestId: textOf(body['clerk_trace_id']),
      field: textOf(meta['param_name']),
      retryAfterMs: numberOf(meta['retry_after_ms']),
    },
  );
}

/** The errors of `/trpc`: `data` is `{ code, httpStatus, requestId, path, field, retryAfterMs? }`. */
export function errorOfProcedure(message: string, data: unknown): CountersignError | null {
  if (!isRecord(data) || typeof data['code'] !== 'string') return null;
  return new CountersignError(codeOf(data['code'], Number(data['httpStatus'])), message, {
    requestId: textOf(data['requestId']),
    field: textOf(data['field']),
    retryAfterMs: numberOf(data['retryAfterMs']),
  });
}

/** A newer server may have codes that this client does not know: they become the one of the same status. */
function codeOf(code: string, status: number): ErrorCode {
  if (Object.hasOwn(ERRORS, code)) return code as ErrorCode;
  const alike = BY_STATUS[status];
  if (alike) return alike;
  return status >= 500 ? 'internal' : 'invalid_input';
}

const BY_STATUS: Record<number, ErrorCode> = {
  401: 'unauthenticated',
  403: 'forbidden',
  404: 'not_found',
  405: 'method_not_allowed',
  409: 'already_exists',
  413: 'payload_too_large',
  415: 'unsupported_media_type',
  429: 'rate_limited',
  503: 'unavailable',
};

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const numberOf = (value: unknown) => (typeof value === 'number' ? value : undefined);

const textOf = (value: unknown) => (typeof value === 'string' && value !== '' ? value : undefined);
