/**
 * Plain handlers that `node:http` asks before Express sees the request: the few routes that carry the load, and those
 * of the tables of `server/rest` and `server/oauth`.
 */
import { isUtf8 } from 'node:buffer';
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { z } from 'zod';
import { authenticate, authorize, presentedBy, type RequestContext } from './authenticate.ts';
import type { Deps } from './deps.ts';
import {
  type Authorize,
  verify,
  verifyBatch,
  verifyBatchInput,
  verifyInput,
  verifyOauthTokenInput,
} from './domain/credentials.ts';
import { OauthError } from './domain/oauth-errors.ts';
import type { Presented } from './domain/secrets.ts';
import { JWKS_MAX_AGE_SECONDS } from './domain/signing-keys.ts';
import { STATUS_LIST_MAX_AGE_SECONDS, STATUS_LISTS_PATH } from './domain/status-lists.ts';
import { CountersignError, secondsToRetry } from './errors.ts';
import type { Feeds } from './feed.ts';
import {
  answerEndpoint,
  type OauthAnswer,
  type OauthEndpoint,
  preflight,
  refusal,
  toOauthError,
} from './oauth/endpoint.ts';
import { findEndpoint } from './oauth/endpoints.ts';
import { answerRoute } from './rest/answer.ts';
import { presentVerifiedKey, verifyApiKeyRequest } from './rest/api-keys.ts';
import { toErrorEnvelope } from './rest/errors.ts';
import {
  createM2mTokenRequest,
  postM2mToken,
  presentVerifiedToken,
  verifyM2mTokenRequest,
} from './rest/m2m-tokens.ts';
import { readMultipart } from './rest/multipart.ts';
import { presentVerifiedAccessToken, verifyAccessTokenRequest } from './rest/oauth-tokens.ts';
import type { Route as TableRoute, UnknownCallerCode } from './rest/route.ts';
import { type FoundPath, findPath } from './rest/routes.ts';
import { getStatusList, getStatusLists } from './rest/status-lists.ts';
import { translate } from './translate.ts';

export interface HotOptions {
  deps: Deps;
  feeds: Pick<Feeds, 'open'>;
  /** The client's address, behind trusted proxies. */
  addressOf: (request: IncomingMessage) => string;
  /** Told of every request that was answered, or given up because its client went away. */
  onEnd?: (end: HotEnd) => void;
  /** Told of what the server is to blame for, with its cause; the caller is not. */
  report?: (failure: CountersignError) => void;
}

export interface HotEnd {
  request: IncomingMessage;
  response: ServerResponse;
  requestId: string;
  /** The path, or what stands for it: one of few. */
  route: string;
  /** As it was given when the request came. */
  startedAt: number;
}

/** Answers true when it took the request, which it then answers in its own time. */
export type HotRoutes = (
  request: IncomingMessage,
  response: ServerResponse,
  requestId: string,
  startedAt: number,
) => boolean;

interface HotCall extends RequestContext {
  /** The header of that name: for those who mint. */
  idempotencyKey: string | undefined;
  url: string;
  /** The header of that name: for those who have an answer of before. */
  ifNoneMatch: string | undefined;
}

interface Answer {
  status: number;
  body: unknown;
  /** The media type of a body that is a text already; without it, JSON is made of it. */
  type?: string;
  etag?: string;
}

type Route = HotRoute | { found: FoundPath } | { endpoint: OauthEndpoint };

type HotRoute = AnsweredRoute | { method: 'GET'; isFeed: true };

type AnsweredRoute = PostRoute | PublicRoute;

interface PostRoute {
  method: 'POST';
  bytesMax: number;
  /** What a route of Clerk's calls a caller who is not known. */
  clerk?: UnknownCallerCode;
  answer: (call: HotCall, body: Body) => Promise<Answer>;
}

/** What everybody may read, without a credential and in pages of every origin, and keep for a while. */
interface PublicRoute {
  method: 'GET';
  maxAgeSeconds: number;
  answer: (call: HotCall) => Promise<Answer>;
}

const BODY_BYTES_MAX = 16 * 1024;
const BATCH_BYTES_MAX = 1024 * 1024;
/** A value of the greatest length, and what is written around it. */
const VALUE_BYTES_MAX = 17 * 1024;

const MINT: HotRoute = {
  method: 'POST',
  bytesMax: BODY_BYTES_MAX,
  clerk: 'machine_secret_key_invalid',
  answer: answerMint,
};
const VERIFY_API_KEY: HotRoute = {
  method: 'POST',
  bytesMax: VALUE_BYTES_MAX,
  clerk: 'clerk_key_invalid',
  answer: answerVerifyApiKey,
};
const VERIFY_M2M_TOKEN: HotRoute = {
  method: 'POST',
  bytesMax: VALUE_BYTES_MAX,
  clerk: 'machine_secret_key_invalid',
  answer: answerVerifyM2mToken,
};
const VERIFY_ACCESS_TOKEN: HotRoute = {
  method: 'POST',
  bytesMax: VALUE_BYTES_MAX,
  clerk: 'clerk_key_invalid',
  answer: answerVerifyAccessToken,
};
const VERIFY_OAUTH_TOKEN: HotRoute = {
  method: 'POST',
  bytesMax: BODY_BYTES_MAX,
  answer: answerVerifyOauthToken,
};
/** Keys are published long before they sign; its age bounds how long others accept one that leaked. */
const JWKS: HotRoute = { method: 'GET', maxAgeSeconds: JWKS_MAX_AGE_SECONDS, answer: answerJwks };

const STATUS_LIST = `${STATUS_LISTS_PATH}/`;

const ROUTES: ReadonlyMap<string, HotRoute> = new Map<string, HotRoute>([
  ['/v1/verify', { method: 'POST', bytesMax: BODY_BYTES_MAX, answer: answerVerify }],
  ['/v1/verify/batch', { method: 'POST', bytesMax: BATCH_BYTES_MAX, answer: answerVerifyBatch }],
  ['/v1/m2m_tokens', MINT],
  ['/m2m_tokens', MINT],
  ['/v1/api_keys/verify', VERIFY_API_KEY],
  ['/api_keys/verify', VERIFY_API_KEY],
  ['/v1/m2m_tokens/verify', VERIFY_M2M_TOKEN],
  ['/m2m_tokens/verify', VERIFY_M2M_TOKEN],
  ['/v1/oauth_applications/access_tokens/verify', VERIFY_ACCESS_TOKEN],
  ['/oauth_applications/access_tokens/verify', VERIFY_ACCESS_TOKEN],
  ['/v1/oauth_tokens/verify', VERIFY_OAUTH_TOKEN],
  ['/v1/jwks', JWKS],
  ['/jwks', JWKS],
  ['/.well-known/jwks.json', JWKS],
  [
    STATUS_LISTS_PATH,
    { method: 'GET', maxAgeSeconds: STATUS_LIST_MAX_AGE_SECONDS, answer: answerStatusLists },
  ],
  [
    `${STATUS_LIST}{id}`,
    { method: 'GET', maxAgeSeconds: STATUS_LIST_MAX_AGE_SECONDS, answer: answerStatusList },
  ],
  ['/v1/feed', { method: 'GET', isFeed: true }],
]);

/** What programs ask for all day. */
export const isHotRoute = (name: string) => ROUTES.has(name) || findEndpoint(name)?.refusals === 'json';

export function createHotRoutes({ deps, feeds, addressOf, onEnd, report }: HotOptions): HotRoutes {
  return (request, response, requestId, startedAt) => {
    const taken = findRoute(pathOf(request.url ?? ''), request.method ?? '');
    if (!taken) return false;
    const { name, route } = taken;
    const call: HotCall = {
      deps,
      authorization: request.headers.authorization,
      address: () => addressOf(request),
      idempotencyKey: request.headers['idempotency-key']?.toString(),
      url: request.url ?? '',
      ifNoneMatch: request.headers['if-none-match'],
      requestId,
    };
    const body = new Body(request);
    begin(route, { call, body, feeds, request, response })
      .catch((error: unknown) => {
        // The client went away in the middle of its body: there is nobody to answer, and nothing failed.
        if (request.errored) return;
        if ('endpoint' in route) refuseEndpoint({ call, request, response }, route.endpoint, error, report);
        else {
          const told = translate(error, requestId, body.json);
          if (told.status >= 500) report?.(told);
          refuse(request, response, route, told);
        }
      })
      .then(() => onEnd?.({ request, response, requestId, route: name, startedAt }));
    return true;
  };
}

/** What takes a request, and what that is called. A path of the table may be hot for one method and not for others. */
function findRoute(path: string, method: string): { name: string; route: Route } | null {
  const name = nameOf(path);
  const hot = ROUTES.get(name);
  if (hot && ('isFeed' in hot || hot.method === method || isPreflight(hot, method)))
    return { name, route: hot };
  const endpoint = findEndpoint(path);
  if (endpoint) return { name: endpoint.path, route: { endpoint } };
  const found = findPath(path);
  const isSame = found !== null && (found.path === name || found.path === `/v1${name}`);
  if (hot && !isSame) return { name, route: hot };
  return found && { name: found.path, route: { found } };
}

const isPreflight = (route: Route, method: string): route is PublicRoute =>
  'maxAgeSeconds' in route && method === 'OPTIONS';

interface Exchange {
  call: HotCall;
  body: Body;
  feeds: HotOptions['feeds'];
  request: IncomingMessage;
  response: ServerResponse;
}

async function begin(route: Route, { call, body, feeds, request, response }: Exchange): Promise<void> {
  if ('isFeed' in route) return follow(feeds, call, request, response);
  const method = request.method ?? '';
  if ('endpoint' in route) {
    const oauthRequest = {
      ...call,
      method,
      headers: request.headers,
      readBody: (max: number) => body.readAny(max),
    };
    sendEndpoint(response, call.requestId, method, await answerEndpoint(route.endpoint, oauthRequest));
    return;
  }
  if (isPreflight(route, method)) {
    sendEndpoint(response, call.requestId, method, preflight({ methods: [route.method] }));
    return;
  }
  const answer =
    'found' in route
      ? await answerFound(route.found, call, method, body)
      : await run(route, call, method, body);
  send(response, call.requestId, answer, route);
}

/** A row of the table. Its caller is known before its input is looked at. */
async function answerFound(found: FoundPath, call: HotCall, method: string, body: Body): Promise<Answer> {
  const row = rowFor(found, method);
  if (!row) throw new CountersignError('method_not_allowed', `Wanted the method ${allowedAt(found.path)}`);
  const takesBody = row.method !== 'GET' && row.method !== 'DELETE';
  const isFile = row.body === 'multipart/form-data';
  // Nobody sends as much who is not known.
  if (isFile && row.access !== null) await authenticate(call, row.access);
  if (isFile) await body.readAny(row.bytesMax);
  else if (takesBody) await body.readIfAny(row.bytesMax);
  const { params } = found;
  const { idempotencyKey, url } = call;
  const query = url.slice(pathOf(url).length);
  const parse = () => (isFile ? body.parseMultipart() : body.parse());
  const readBody = takesBody ? parse : null;
  return {
    status: row.status,
    body: await answerRoute(row, call, { params, query, idempotencyKey, readBody }),
  };
}

const rowFor = ({ routes }: FoundPath, method: string): TableRoute | undefined =>
  routes.find((row) => row.method === (method === 'HEAD' ? 'GET' : method));

function pathOf(url: string): string {
  const query = url.indexOf('?');
  return query === -1 ? url : url.slice(0, query);
}

/** What a path is called: an id is no part of that. */
const nameOf = (path: string) => (path.startsWith(STATUS_LIST) ? `${STATUS_LIST}{id}` : path);

async function follow(
  feeds: HotOptions['feeds'],
  call: RequestContext,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== 'GET') throw new CountersignError('method_not_allowed', 'Wanted the method GET');
  await feeds.open(call, response, request.headers['last-event-id']?.toString());
}

async function run(route: AnsweredRoute, call: HotCall, method: string, body: Body): Promise<Answer> {
  if (route.method === 'POST' && method === 'POST') {
    await body.read(route.bytesMax);
    return route.answer(call, body);
  }
  if (route.method === 'GET' && (method === 'GET' || method === 'HEAD')) return route.answer(call);
  throw new CountersignError('method_not_allowed', `Wanted the method ${route.method}`);
}

async function answerVerify(call: RequestContext, body: Body): Promise<Answer> {
  const input = await parseBeforeCaller(call, 'credentials.verify', verifyInput, body);
  const presented = presentedBy(call);
  return {
    status: 200,
    body: await verify(call.deps, presented, input, authorizing(presented, 'credentials.verify')),
  };
}

async function answerVerifyBatch(call: RequestContext, body: Body): Promise<Answer> {
  const input = await parseBeforeCaller(call, 'credentials.verifyBatch', verifyBatchInput, body);
  const presented = presentedBy(call);
  return {
    status: 200,
    body: await verifyBatch(call.deps, presented, input, authorizing(presented, 'credentials.verifyBatch')),
  };
}

async function answerMint(call: HotCall, body: Body): Promise<Answer> {
  const caller = await authenticate(call, 'm2mTokens.create');
  const request = createM2mTokenRequest.parse(body.parse());
  return { status: 201, body: await postM2mToken(call.deps, caller, request, call.idempotencyKey) };
}

async function answerVerifyApiKey(call: HotCall, body: Body): Promise<Answer> {
  const request = await parseBeforeCaller(call, 'credentials.verify', verifyApiKeyRequest, body);
  const input = { credential: request.secret, kinds: ['api_key' as const] };
  const presented = presentedBy(call);
  const outcome = await verify(call.deps, presented, input, authorizing(presented, 'credentials.verify'));
  const isKey = outcome.valid && outcome.kind === 'api_key';
  return answerValid('API key', isKey ? await presentVerifiedKey(call.deps, outcome) : null);
}

async function answerVerifyM2mToken(call: HotCall, body: Body): Promise<Answer> {
  const { token, secret } = await parseBeforeCaller(call, 'credentials.verify', verifyM2mTokenRequest, body);
  const input = { credential: token ?? secret ?? '', kinds: ['m2m_token' as const] };
  const presented = presentedBy(call);
  const outcome = await verify(
    call.deps,
    presented,
    input,
    authorizing(presented, 'credentials.verify'),
    'anybody',
  );
  return answerValid('M2M token', outcome.valid ? await presentVerifiedToken(call.deps, outcome.id) : null);
}

async function answerVerifyAccessToken(call: HotCall, body: Body): Promise<Answer> {
  const request = await parseBeforeCaller(call, 'credentials.verify', verifyAccessTokenRequest, body);
  const input = {
    credential: request.access_token ?? request.secret ?? '',
    kinds: ['oauth_token' as const],
  };
  const presented = presentedBy(call);
  const authorizeIt = authorizing(presented, 'credentials.verify');
  const outcome = await verify(call.deps, presented, input, authorizeIt, 'anybody');
  const isToken = outcome.valid && outcome.kind === 'oauth_token';
  return answerValid('access token', isToken ? await presentVerifiedAccessToken(call.deps, outcome) : null);
}

async function answerVerifyOauthToken(call: HotCall, body: Body): Promise<Answer> {
  const request = await parseBeforeCaller(call, 'oauthTokens.verify', verifyOauthTokenInput, body);
  const input = { ...request, kinds: ['oauth_token' as const] };
  const presented = presentedBy(call);
  return {
    status: 200,
    body: await verify(call.deps, presented, input, authorizing(presented, 'oauthTokens.verify')),
  };
}

/** Clerk's SDK takes every 200 for a valid credential, and looks at nothing in it. */
function answerValid(what: string, object: object | null): Answer {
  if (object) return { status: 200, body: object };
  throw new CountersignError('not_found', `No valid ${what} has this value`);
}

async function answerJwks({ deps }: RequestContext): Promise<Answer> {
  return { status: 200, body: await deps.signer.jwks() };
}

async function answerStatusLists({ deps, url }: HotCall): Promise<Answer> {
  const query = new URLSearchParams(url.slice(STATUS_LISTS_PATH.length));
  return { status: 200, body: await getStatusLists(deps, query) };
}

async function answerStatusList({ deps, url, ifNoneMatch }: HotCall): Promise<Answer> {
  const list = await getStatusList(deps, pathOf(url).slice(STATUS_LIST.length));
  return { status: matches(ifNoneMatch, list.etag) ? 304 : 200, ...list };
}

/** RFC 9110, section 13.1.2. */
const matches = (ifNoneMatch = '', etag: string) =>
  ifNoneMatch.split(',').some((tag) => ['*', etag].includes(tag.trim().replace(/^W\//, '')));

const authorizing =
  ({ value }: Presented, path: string): Authorize =>
  (principal) =>
    authorize(principal, path, value !== null);

/** The input of a procedure whose caller is read together with what it asks about: a bad one is told only to callers. */
async function parseBeforeCaller<S extends z.ZodType>(
  call: RequestContext,
  path: string,
  schema: S,
  body: Body,
): Promise<z.output<S>> {
  try {
    return schema.parse(body.parse());
  } catch (error) {
    await authenticate(call, path);
    throw error;
  }
}

/** `application/json`, with or without parameters (RFC 9110, section 8.3.1). */
const JSON_TYPE = /^application\/json[ \t]*(;|$)/i;

/** The body of one request: read whole or not at all, parsed once. */
class Body {
  /** What was parsed, for saying of a refused input which shape it had. */
  json: unknown;
  readonly #request: IncomingMessage;
  #bytes: Buffer = Buffer.alloc(0);
  #isAbsent = false;

  constructor(request: IncomingMessage) {
    this.#request = request;
  }

  async read(bytesMax: number): Promise<void> {
    if (!JSON_TYPE.test(this.#request.headers['content-type'] ?? '')) {
      throw new CountersignError(
        'unsupported_media_type',
        "Wanted the header 'Content-Type: application/json'",
      );
    }
    if (Number(this.#request.headers['content-length'] ?? 0) > bytesMax) throw tooLarge(bytesMax);
    this.#bytes = await collect(this.#request, bytesMax);
  }

  /** All bytes, whatever they are said to be. */
  async readAny(bytesMax: number): Promise<Buffer> {
    if (Number(this.#request.headers['content-length'] ?? 0) > bytesMax) throw tooLarge(bytesMax);
    this.#bytes = await collect(this.#request, bytesMax);
    return this.#bytes;
  }

  /** The same where a request may do without one. */
  async readIfAny(bytesMax: number): Promise<void> {
    const { headers } = this.#request;
    this.#isAbsent =
      headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0;
    if (!this.#isAbsent) await this.read(bytesMax);
  }

  parseMultipart(): Promise<unknown> {
    return readMultipart(this.#bytes, this.#request.headers['content-type']);
  }

  parse(): unknown {
    if (this.#isAbsent) return {};
    try {
      if (!isUtf8(this.#bytes)) throw new SyntaxError('Not UTF-8');
      this.json = JSON.parse(this.#bytes.toString());
    } catch (error) {
      throw new CountersignError('malformed_json', 'Cannot read the body: wanted valid JSON', {
        cause: error,
      });
    }
    return this.json;
  }
}

function collect(request: IncomingMessage, bytesMax: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    request.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length > bytesMax) reject(tooLarge(bytesMax));
      else chunks.push(chunk);
    });
    request.on('end', () => resolve(chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks)));
    request.on('error', reject);
  });
}

const tooLarge = (bytesMax: number) =>
  new CountersignError('payload_too_large', `Wanted a body of at most ${bytesMax} bytes`);

/** Headers as a list, which Node writes as they stand. Exactly `application/json`: with a charset, Clerk's SDK reads no answer as JSON. */
function send(
  response: ServerResponse,
  requestId: string,
  { status, body, type, etag }: Answer,
  route: Route,
): void {
  const text = type === undefined ? JSON.stringify(body) : String(body);
  const headers = ['Cache-Control', cacheControl(route), 'X-Request-Id', requestId];
  if ('maxAgeSeconds' in route) headers.push('Access-Control-Allow-Origin', '*');
  if (etag !== undefined) headers.push('ETag', etag);
  if (status === 304 || status === 204) {
    response.writeHead(status, headers);
    response.end();
    return;
  }
  headers.push('Content-Type', type ?? 'application/json', 'Content-Length', `${Buffer.byteLength(text)}`);
  response.writeHead(status, headers);
  response.end(text);
}

function sendEndpoint(
  response: ServerResponse,
  requestId: string,
  method: string,
  { status, headers, body }: OauthAnswer,
): void {
  response.writeHead(status, {
    ...(headers as OutgoingHttpHeaders),
    'X-Request-Id': requestId,
    'Content-Length': Buffer.byteLength(body),
  });
  response.end(method === 'HEAD' ? undefined : body);
}

function refuseEndpoint(
  { call, request, response }: Pick<Exchange, 'call' | 'request' | 'response'>,
  endpoint: OauthEndpoint,
  error: unknown,
  report: HotOptions['report'],
): void {
  const told = error instanceof OauthError ? error : translate(error, call.requestId);
  if (told instanceof CountersignError && told.status >= 500) report?.(told);
  const answer = refusal(endpoint, toOauthError(told), call.requestId);
  if (told.status === 413) {
    response.writeHead(413, {
      ...(answer.headers as OutgoingHttpHeaders),
      'X-Request-Id': call.requestId,
      Connection: 'close',
    });
    closeUnread(request, response, answer.body.toString());
  } else sendEndpoint(response, call.requestId, request.method ?? '', answer);
}

/** Credentials and what they may do are nobody's to cache. */
const cacheControl = (route: Route) =>
  'maxAgeSeconds' in route ? `public, max-age=${route.maxAgeSeconds}` : 'no-store';

function refuse(
  request: IncomingMessage,
  response: ServerResponse,
  route: Route,
  told: CountersignError,
): void {
  const text = JSON.stringify(toErrorEnvelope(told, told.requestId ?? '', clerkOf(route, request)));
  const headers: OutgoingHttpHeaders = {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    'Cache-Control': 'no-store',
    'X-Request-Id': told.requestId,
  };
  if ('maxAgeSeconds' in route) headers['Access-Control-Allow-Origin'] = '*';
  if (told.code === 'unauthenticated') headers['WWW-Authenticate'] = 'Bearer';
  if (told.code === 'method_not_allowed') headers['Allow'] = allowedMethods(route, request);
  if (told.code === 'payload_too_large') headers['Connection'] = 'close';
  const retryAfterSeconds = secondsToRetry(told);
  if (retryAfterSeconds !== undefined) headers['Retry-After'] = retryAfterSeconds;
  response.writeHead(told.status, headers);
  if (told.code === 'payload_too_large') closeUnread(request, response, text);
  else response.end(text);
}

/** What a route of Clerk's calls a caller who is not known. */
function clerkOf(route: Route, { method = '' }: IncomingMessage): UnknownCallerCode | null {
  if ('found' in route) return (rowFor(route.found, method) ?? route.found.routes[0])?.clerk ?? null;
  return 'clerk' in route ? (route.clerk ?? null) : null;
}

function allowedMethods(route: Route, { url = '' }: IncomingMessage): string {
  if ('isFeed' in route) return 'GET';
  if ('found' in route) return allowedAt(pathOf(url));
  if ('endpoint' in route) return route.endpoint.methods.join(', ');
  return route.method === 'GET' ? 'GET, HEAD' : route.method;
}

/** All methods that the table has at a path, those of hot routes too. */
const allowedAt = (path: string) => {
  const hot = ROUTES.get(nameOf(path));
  const methods = (findPath(path)?.routes ?? []).flatMap(({ method }) =>
    method === 'GET' ? ['GET', 'HEAD'] : [method],
  );
  return [...methods, ...(hot ? [hot.method] : [])].join(', ');
};

const LINGER_MS = 500;

/**
 * Reads no more of a body that is too large. Closing at once on a client that still sends would reset the connection
 * and take the answer with it, so the client is given a moment to read it.
 */
function closeUnread(request: IncomingMessage, response: ServerResponse, text: string): void {
  request.pause();
  response.write(text);
  const linger = setTimeout(() => response.end(), LINGER_MS);
  request.once('close', () => clearTimeout(linger));
}
