/**
 * What `apiKeysHandler` of all frameworks shares: the panel asks its own origin, by whatever login there is, and the
 * application's backend passes that on with a panel token of the one who asks.
 */

import { PREFIXES } from '../server/crypto/format.ts';
import { CountersignError, type ErrorCode } from '../server/errors.ts';
import { errorOfProcedure, isRecord, jsonOf } from './answers.ts';
import { authorizationOf, type CountersignOptions, serverUrl } from './options.ts';
import { createPost, postBy, type Reply } from './transport.ts';

/** Who is asking, and what they may: as `panelTokens.create` takes it. */
export interface PanelGrant {
  /** Whose API keys: a user, or the organization that they act for. */
  subject: string;
  /** Who sits in front of the page, where that is not the subject itself. */
  createdBy?: string | undefined;
  actions: readonly ('read' | 'create' | 'update' | 'rotate' | 'revoke')[];
  /** The scopes that a key may be given; null for those its policy allows. Without it, none. */
  scopeCeiling?: readonly string[] | null | undefined;
  /** What keys are created under; without it the default policy, if there is one. */
  policyId?: string | undefined;
}

export interface ApiKeysHandlerOptions<R>
  extends Pick<CountersignOptions, 'url' | 'secretKey' | 'timeoutMs' | 'fetch'> {
  /**
   * Whose API keys a request is about, by the application's own login; null for nobody, who is answered 401. The secret
   * key needs the role `interaction`.
   */
  resolveSubject: (request: R) => PanelGrant | null | Promise<PanelGrant | null>;
  /** Told of what failed for another reason than what was asked; for logs. What it throws is ignored. */
  onError?: ((error: unknown) => void) | undefined;
}

/** What a handler needs to know of a request. */
export interface PanelRequest<R> {
  request: R;
  method: string;
  /** Ends in the procedure, as in `/api/keys/panelKeys.list`. */
  path: string;
  header: (name: string) => string | undefined;
  /** Throws `payload_too_large`. */
  body: () => Promise<string>;
}

export interface PanelAnswer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

const BODY_BYTES_MAX = 64 * 1024;

/** What a panel may ask for; nothing else is passed on. */
const PROCEDURE = /\/(panelKeys\.(?:options|list|create|update|rotate|completeRotation|revoke|usage))$/;

const TTL_SECONDS = 600;
/** A token is used for so much of its life; what is left is for requests on their way. */
const USED_MS = TTL_SECONDS * 1000 * 0.8;
const TOKENS_MAX = 10_000;
const TIMEOUT_MS = 10_000;

/** Never rejects: what cannot be passed on is answered in the words of an error. */
export function createPanelHandler<R>(
  options: ApiKeysHandlerOptions<R>,
): (asked: PanelRequest<R>) => Promise<PanelAnswer> {
  const base = serverUrl(options.url);
  const authorization = authorizationOf(options);
  const send = options.fetch ? postBy(options.fetch) : createPost();
  const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
  const post = (procedure: string, bearer: string, body: string) =>
    send(new URL(`trpc/${procedure}`, base), { authorization: bearer }, body, AbortSignal.timeout(timeoutMs));
  const tokens = createPanelTokens((body) => post('panelTokens.create', authorization, body));

  async function answer(asked: PanelRequest<R>): Promise<PanelAnswer> {
    const procedure = procedureOf(asked);
    const grant = await options.resolveSubject(asked.request);
    if (!grant) throw new CountersignError('unauthenticated', 'Nobody is signed in');
    const body = await asked.body();
    const passOn = async () => post(procedure, `Bearer ${await tokens.get(grant)}`, body);
    const reply = await passOn();
    // A token that ended before its time, as with a key that was rotated, is replaced once.
    if (reply.status !== 401) return toAnswer(reply);
    tokens.forget(grant);
    return toAnswer(await passOn());
  }

  return async (asked) => {
    try {
      return await answer(asked);
    } catch (error) {
      const told = toldOf(error);
      if (told.status >= 500) tellQuietly(options.onError, error);
      return refusal(told);
    }
  };
}

/**
 * A page of another origin cannot send this header without being asked first, and is not let. Browsers say besides
 * whence a request comes (Fetch Metadata).
 */
function procedureOf({ method, path, header }: PanelRequest<unknown>): string {
  const procedure = PROCEDURE.exec(path)?.[1];
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

/** One token for all who may the same, kept in memory alone and made anew before it expires. */
function createPanelTokens(mint: (body: string) => Promise<Reply>) {
  const held = new Map<string, { token: Promise<string>; until: number }>();

  function add(key: string): Promise<string> {
    const [oldest] = held.keys();
    if (held.size >= TOKENS_MAX && oldest !== undefined) held.delete(oldest);
    const token = mint(key).then(tokenIn, notMinted);
    held.set(key, { token, until: performance.now() + USED_MS });
    token.catch(() => held.delete(key));
    return token;
  }

  return {
    get(grant: PanelGrant): Promise<string> {
      const key = inputOf(grant);
      const known = held.get(key);
      if (known && performance.now() < known.until) return known.token;
      held.delete(key);
      return add(key);
    },
    forget: (grant: PanelGrant) => held.delete(inputOf(grant)),
  };
}

const inputOf = ({ subject, createdBy, actions, scopeCeiling, policyId }: PanelGrant) =>
  JSON.stringify({ subject, createdBy, actions, scopeCeiling, policyId, ttlSeconds: TTL_SECONDS });

function tokenIn(reply: Reply): string {
  const body = jsonOf(reply);
  const result = isRecord(body) && isRecord(body['result']) ? body['result']['data'] : undefined;
  const token = isRecord(result) ? result['token'] : undefined;
  if (typeof token === 'string' && token.startsWith(PREFIXES.panelToken)) return token;
  return notMinted(failureIn(reply.status, body));
}

/** Why the application's own key may not is for its log, and not for who sits in front of the page. */
function notMinted(cause: unknown): never {
  throw new CountersignError('unavailable', 'Cannot mint a panel token', { cause });
}

/** What an end user is told: the application's own faults are none of their business. */
function toldOf(error: unknown): { status: number; code: ErrorCode; message: string } {
  if (error instanceof CountersignError && OF_THE_PANEL.has(error.code))
    return { status: error.status, code: error.code, message: error.message };
  return {
    status: 503,
    code: 'unavailable',
    message: 'The API keys cannot be reached at the moment',
  };
}

const OF_THE_PANEL: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
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
}): PanelAnswer {
  const data = { code, httpStatus: status, requestId: '', path: null, field: null };
  return { status, headers: HEADERS, body: JSON.stringify({ error: { message, code: -32_000, data } }) };
}

const HEADERS = { 'content-type': 'application/json', 'cache-control': 'no-store' };

function toAnswer(reply: Reply): PanelAnswer {
  const { status, text } = reply;
  const body = jsonOf(reply);
  if (status === 401 || status >= 500 || !isRecord(body))
    throw new CountersignError('unavailable', 'Cannot pass the call on', { cause: failureIn(status, body) });
  return { status, headers: HEADERS, body: text };
}

function failureIn(status: number, body: unknown): CountersignError {
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
