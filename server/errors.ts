/**
 * The one table of error codes: what a caller may be told, and with which HTTP status. Codes are a closed set that
 * clients switch on; `docs/errors.md` is generated from here. Depends on nothing, so that clients can share it.
 */
export const ERRORS = {
  malformed_json: { status: 400, retryable: false, meaning: 'The body is not valid JSON' },
  invalid_input: {
    status: 400,
    retryable: false,
    meaning: 'A field is missing, unknown, of the wrong type or outside its limits',
  },
  batch_too_large: {
    status: 400,
    retryable: false,
    meaning: 'More calls in one request than a batch may hold',
  },
  reserved_claim: {
    status: 400,
    retryable: false,
    meaning: 'A claim has a name that belongs to the token format',
  },
  url_not_allowed: {
    status: 400,
    retryable: false,
    meaning: 'The URL is not one this server sends requests to',
  },
  unauthenticated: {
    status: 401,
    retryable: false,
    meaning: 'No valid credential of a caller was presented',
  },
  out_of_credits: {
    status: 402,
    retryable: false,
    meaning: 'Middlewares only: the credential has fewer credits left than the request costs',
  },
  forbidden: { status: 403, retryable: false, meaning: 'The caller is known and may not do this' },
  scope_not_allowed: {
    status: 403,
    retryable: false,
    meaning: 'A scope or audience was asked for that no machine scope or key policy allows',
  },
  not_found: {
    status: 404,
    retryable: false,
    meaning: 'There is no such thing, or the caller may not know of it',
  },
  secret_not_retrievable: {
    status: 410,
    retryable: false,
    meaning: 'Secrets are answered once, when they are made, and kept as hashes only: rotate instead',
  },
  method_not_allowed: { status: 405, retryable: false, meaning: 'The path exists and takes another method' },
  name_taken: { status: 409, retryable: false, meaning: 'Another live thing of this kind has that name' },
  already_exists: { status: 409, retryable: false, meaning: 'That is already there' },
  idempotency_conflict: {
    status: 409,
    retryable: false,
    meaning: 'The same idempotency key came with another input within 24 hours',
  },
  limit_reached: { status: 409, retryable: false, meaning: 'There are as many of these as there may be' },
  already_revoked: {
    status: 409,
    retryable: false,
    meaning: 'It was revoked for good: it may be deleted and no longer be changed',
  },
  rotation_in_progress: {
    status: 409,
    retryable: false,
    meaning: 'Two secrets are accepted already: complete or cancel that rotation, or wait until it ends',
  },
  no_rotation_in_progress: {
    status: 409,
    retryable: false,
    meaning: 'Only one secret is accepted: there is no overlap to complete or to cancel',
  },
  wrong_state: {
    status: 409,
    retryable: false,
    meaning: 'It is not in a state in which this can be done to it',
  },
  in_use: {
    status: 409,
    retryable: false,
    meaning: 'Something else still uses it: change or delete that first',
  },
  too_early: { status: 409, retryable: false, meaning: 'It can be done later: the message says when' },
  last_admin_key: {
    status: 409,
    retryable: false,
    meaning: 'It is the last live admin key: without one nobody could administer this server',
  },
  payload_too_large: { status: 413, retryable: false, meaning: 'The body is larger than this path accepts' },
  rate_limited: {
    status: 429,
    retryable: true,
    meaning: 'Asked for more often than it may be: the message says when it may be again',
  },
  headers_too_large: {
    status: 431,
    retryable: false,
    meaning: 'The URL and the headers are larger than this server reads',
  },
  malformed_request: { status: 400, retryable: false, meaning: 'What was sent is not HTTP' },
  request_timeout: { status: 408, retryable: true, meaning: 'The request took too long to arrive' },
  unsupported_media_type: { status: 415, retryable: false, meaning: 'The body must be application/json' },
  internal: {
    status: 500,
    retryable: false,
    meaning: 'The server failed; the request id finds it in the logs',
  },
  unavailable: {
    status: 503,
    retryable: true,
    meaning: 'The database cannot be reached or is busy; nothing was changed',
  },
  outcome_unknown: {
    status: 503,
    retryable: false,
    meaning: 'The database was lost while it committed: all of it was done, or nothing',
  },
  storage_full: { status: 503, retryable: false, meaning: 'The disk is full; nothing was changed' },
  timeout: {
    status: 0,
    retryable: true,
    meaning: 'Client only: no answer in time; whether anything was changed is unknown',
  },
  network: {
    status: 0,
    retryable: true,
    meaning: 'Client only: the server could not be reached, or the answer was not its own',
  },
  not_stored: {
    status: 0,
    retryable: true,
    meaning:
      'Client only: a machine was given a new secret and could not store it; it goes on with the one before',
  },
} as const satisfies Record<string, { status: number; retryable: boolean; meaning: string }>;

export type ErrorCode = keyof typeof ERRORS;

interface ErrorDetails {
  requestId?: string | undefined;
  field?: string | undefined;
  retryAfterMs?: number | undefined;
  cause?: unknown;
}

/** A refusal the caller is told of: a closed code, and a message saying what was wanted and what was found. */
export class CountersignError extends Error {
  override readonly name = 'CountersignError';
  readonly code: ErrorCode;
  /** HTTP status; 0 where the error arose in the client. */
  readonly status: number;
  /** Finds the request in the server's logs. */
  readonly requestId: string | undefined;
  /** The input field at fault, as a dotted path. */
  readonly field: string | undefined;
  /** How long until the same may be asked for again, where that is known. */
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, options: ErrorDetails = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.status = ERRORS[code].status;
    this.requestId = options.requestId;
    this.field = options.field;
    this.retryAfterMs = options.retryAfterMs;
  }

  /** Whether the same call may succeed later. Repeat only calls that are safe to repeat. */
  get retryable(): boolean {
    return ERRORS[this.code].retryable;
  }
}

/** What the header `Retry-After` says of an error (RFC 9110, section 10.2.3): whole seconds, and never too few. */
export function secondsToRetry({ retryAfterMs }: CountersignError): number | undefined {
  return retryAfterMs === undefined ? undefined : Math.max(1, Math.ceil(retryAfterMs / 1000));
}
