/**
 * What the components of `countersign/react` ask an application's own origin for, and what its backend answers: the guard
 * that only its own pages pass, and what an end user is told of what failed.
 */
import { CountersignError, type ErrorCode } from '../server/errors.ts';
import { errorOfProcedure, isRecord, jsonOf } from './answers.ts';
import { authorizationOf, type CountersignOptions, serverUrl } from './options.ts';
import { createPost, postBy, type Reply } from './transport.ts';

/** What a handler needs to know of a request. */
export interface PageRequest<R> {
  request: R;
  method: string;
  /** Ends in the procedure, as in `/api/keys/panelKeys.list`. */
  path: string;
  header: (name: string) => string | undefined;
  /** Throws `payload_too_large`. */
  body: () => Promise<string>;
}

export interface PageAnswer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

export interface PageHandlerOptions
  extends Pick<CountersignOptions, 'url' | 'secretKey' | 'timeoutMs' | 'fetch'> {
  /** Told of what failed for another reason than what was asked; for logs. What it throws is ignored. */
  onError?: ((error: unknown) => void) | undefined;
}

const BODY_BYTES_MAX = 64 * 1024;
const TIMEOUT_MS = 10_000;

/** Calls a procedure of the server, with a bearer's or with the handler's own key. */
export type CallServer = (procedure: string, body: string, bearer?: string) => Promise<Reply>;

export function createCallServer(options: PageHandlerOptions): CallServer {
  const base = serverUrl(options.url);
  const authorization = authorizationOf(options);
  const send = options.fetch ? postBy(options.fetch) : createPost();
  const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
  return (procedure, body, bearer) =>
    send(
      new URL(`trpc/${procedure}`, base),
      { authorization: bearer === undefined ? authorization : `Bearer ${bearer}` },
      body,
      AbortSignal.timeout(timeoutMs),
    );
}

/** `answer` is told the procedure, which `procedures` has found. Never rejects: what fails is answered in the words of an error. */
export function createPageHandler<R>(
  { onError }: PageHandlerOptions,
  procedures: RegExp,
  answer: (procedure: string, asked: PageRequest<R>) => Promise<PageAnswer>,
): (asked: PageRequest<R>) => Promise<PageAnswer> {
  return async (asked) => {
    try {
      return await answer(procedureOf(asked, procedures), asked);
    } catch (error) {
      const told = toldOf(error);
      if (told.status >= 500) tellQuietly(onError, error);
      return refusal(told);
    }
  };
}

/**
 * A page of another origin cannot send this header without being asked first, and is not let. Browsers say besides
 * whence a request comes (Fetch Metadata).
 */
function procedureOf({ method, path, header }: PageRequest<unknown>, procedures: RegExp): string {
  const procedure = procedures.exec(path)?.[1];
  if (procedure === undefined) throw new CountersignError('not_found', 'Nothing has this path');
  if (method !== 'POST') throw new CountersignError('method_not_allowed', 'Wanted the method POST');
  const site = header('sec-fetch-site');
  if (header('x-countersign') !== 'panel' || (site !== undefined && site !== 'same-origin'))
    throw new CountersignError('forbidden', "Wanted a request of this application's own pages");
  if (!/^application\/json\b/i.test(header('content-type') ?? ''))
    throw new CountersignError(
      'unsupported_media_type',
      "Wanted the header 'Content-Type: application/json'",
    );
  return procedure;
}

/** What an end user is told: the application's own faults are none of their business. */
function toldOf(error: unknown): { status: number; code: ErrorCode; message: string } {
  if (error instanceof CountersignError && OF_THE_PAGE.has(error.code))
    return { status: error.status, code: error.code, message: error.message };
  return { status: 503, code: 'unavailable', message: 'This cannot be reached at the moment' };
}

const OF_THE_PAGE: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'not_found',
  'method_not_allowed',
  'unsupported_media_type',
  'payload_too_large',
  'malformed_json',
  'unauthenticated',
  'forbidden',
]);

/** As the server answers, whoever it comes from. */
function refusal({
  status,
  code,
  message,
}: {
  status: number;
  code: ErrorCode;
  message: string;
}): PageAnswer {
  const data = { code, httpStatus: status, requestId: '', path: null, field: null };
  return { status, headers: HEADERS, body: JSON.stringify({ error: { message, code: -32_000, data } }) };
}

const HEADERS = { 'content-type': 'application/json', 'cache-control': 'no-store' };

/** What was asked for, as the server answers it. */
export const result = (data: unknown): PageAnswer => ({
  status: 200,
  headers: HEADERS,
  body: JSON.stringify({ result: { data } }),
});

/** A reply passed on. Throws `unavailable` for what is none of the page's doing. */
export function toAnswer(reply: Reply): PageAnswer {
  const { status, text } = reply;
  const body = jsonOf(reply);
  if (status === 401 || status >= 500 || !isRecord(body))
    throw new CountersignError('unavailable', 'Cannot pass the call on', { cause: failureIn(status, body) });
  return { status, headers: HEADERS, body: text };
}

/** What a reply is about; null where it says nothing. */
export function dataIn(reply: Reply): Record<string, unknown> | null {
  const body = jsonOf(reply);
  const found = isRecord(body) && isRecord(body['result']) ? body['result']['data'] : undefined;
  return isRecord(found) ? found : null;
}

export function failureIn(status: number, body: unknown): CountersignError {
  const error = isRecord(body) && isRecord(body['error']) ? body['error'] : {};
  const told = errorOfProcedure(String(error['message'] ?? ''), error['data']);
  return told ?? new CountersignError('network', `The server answered ${status}`);
}

function tellQuietly(tell: ((error: unknown) => void) | undefined, error: unknown) {
  try {
    tell?.(error);
  } catch {
    // Whoever cannot write its log answers nevertheless.
  }
}

/** A body as text. Throws `payload_too_large`. */
export async function readWhole(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX)
      throw new CountersignError('payload_too_large', `Wanted a body of at most ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
