/** What every endpoint of `server/oauth` takes and answers, and how what it throws is told. */
import { isUtf8 } from 'node:buffer';
import type { IncomingHttpHeaders } from 'node:http';
import type { Deps } from '../deps.ts';
import { OauthError, type OauthErrorCode } from '../domain/oauth-errors.ts';
import type { Address } from '../domain/secrets.ts';
import { CountersignError, type ErrorCode, secondsToRetry } from '../errors.ts';
import { html, page } from './html.ts';

type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';

export interface OauthRequest {
  deps: Deps;
  method: Method;
  path: string;
  query: URLSearchParams;
  /** A body of `application/x-www-form-urlencoded`; empty without one. */
  form: URLSearchParams;
  /** A body of `application/json`; undefined without one. */
  json: unknown;
  headers: IncomingHttpHeaders;
  address: Address;
  requestId: string;
}

export interface OauthAnswer {
  status: number;
  headers: Readonly<Record<string, string | readonly string[]>>;
  body: string | Buffer;
}

export interface OauthEndpoint {
  path: string;
  methods: readonly Method[];
  /** What its body may be; of a GET there is none. */
  body: 'none' | 'form' | 'json';
  bytesMax: number;
  /** Whether pages of every origin may read it, never with credentials. */
  cors: boolean;
  /** How what it throws is shown: to programs, or to people. */
  refusals: 'json' | 'page';
  answer(request: OauthRequest): Promise<OauthAnswer>;
}

/** A request as it came, before anything of it is looked at. */
export interface RawRequest extends Pick<OauthRequest, 'deps' | 'headers' | 'address' | 'requestId'> {
  method: string;
  /** Path and query. */
  url: string;
  readBody(bytesMax: number): Promise<Buffer>;
}

/** Answers whatever its endpoint says, with what lets pages of other origins read it, where they may. */
export async function answerEndpoint(endpoint: OauthEndpoint, raw: RawRequest): Promise<OauthAnswer> {
  if (raw.method === 'OPTIONS' && endpoint.cors) return preflight(endpoint);
  const answer = await endpoint.answer(await readRequest(endpoint, raw));
  return endpoint.cors ? { ...answer, headers: { ...answer.headers, ...ANY_ORIGIN } } : answer;
}

const ANY_ORIGIN = {
  'Access-Control-Allow-Origin': '*',
  'Access-Control-Expose-Headers': 'WWW-Authenticate, X-Request-Id, Retry-After',
};

/** What a browser asks before a page of another origin may. */
export const preflight = ({ methods }: Pick<OauthEndpoint, 'methods'>): OauthAnswer => ({
  status: 204,
  headers: {
    'Access-Control-Allow-Origin': '*',
    'Access-Control-Allow-Methods': methods.join(', '),
    'Access-Control-Allow-Headers': 'Authorization, Content-Type, Accept, MCP-Protocol-Version',
    'Access-Control-Max-Age': '600',
  },
  body: '',
});

async function readRequest(endpoint: OauthEndpoint, raw: RawRequest): Promise<OauthRequest> {
  const { deps, headers, address, requestId } = raw;
  const method = raw.method === 'HEAD' ? 'GET' : raw.method;
  const known = endpoint.methods.find((each) => each === method);
  if (!known)
    throw new CountersignError('method_not_allowed', `Wanted the method ${endpoint.methods.join(' or ')}`);
  const queryAt = raw.url.indexOf('?');
  const [path, query] =
    queryAt === -1 ? [raw.url, ''] : [raw.url.slice(0, queryAt), raw.url.slice(queryAt + 1)];
  const request = {
    deps,
    method: known,
    path,
    query: new URLSearchParams(query),
    headers,
    address,
    requestId,
  };
  const body = known === 'GET' || known === 'DELETE' ? null : await readBody(endpoint, raw);
  return { ...request, form: body?.form ?? new URLSearchParams(), json: body?.json };
}

const FORM_TYPE = /^application\/x-www-form-urlencoded[ \t]*(;|$)/i;
const JSON_TYPE = /^application\/json[ \t]*(;|$)/i;

async function readBody(
  { body, bytesMax }: OauthEndpoint,
  { headers, readBody }: RawRequest,
): Promise<{ form?: URLSearchParams; json?: unknown }> {
  const bytes = await readBody(bytesMax);
  if (bytes.length === 0 || body === 'none') return {};
  const type = headers['content-type'] ?? '';
  if (!(body === 'form' ? FORM_TYPE : JSON_TYPE).test(type)) {
    const wanted = body === 'form' ? 'application/x-www-form-urlencoded' : 'application/json';
    throw new OauthError('invalid_request', `Wanted the header 'Content-Type: ${wanted}'`);
  }
  if (!isUtf8(bytes)) throw new OauthError('invalid_request', 'Cannot read the body: wanted UTF-8');
  if (body === 'form') return { form: new URLSearchParams(bytes.toString()) };
  try {
    return { json: JSON.parse(bytes.toString()) as unknown };
  } catch {
    throw new OauthError('invalid_request', 'Cannot read the body: wanted valid JSON');
  }
}

/** Credentials, and who may do what, are nobody's to cache (RFC 6749, section 5.1). */
const UNCACHED = { 'Cache-Control': 'no-store', Pragma: 'no-cache' };

export const json = (status: number, body: object, headers: OauthAnswer['headers'] = {}): OauthAnswer => ({
  status,
  headers: { ...UNCACHED, 'Content-Type': 'application/json', ...headers },
  body: JSON.stringify(body),
});

/** 303: whatever the method was, the target is got, and nothing of a form is posted to it (RFC 9700, section 4.12). */
export const redirect = (url: string, headers: OauthAnswer['headers'] = {}): OauthAnswer => ({
  status: 303,
  headers: { ...UNCACHED, Location: url, 'Referrer-Policy': 'no-referrer', ...headers },
  body: '',
});

/** The parameters by name, each at most once (RFC 6749, section 3.1); one without a value counts as left out. */
export function parametersOf(
  params: URLSearchParams,
  repeatable: readonly string[] = [],
): Record<string, string | undefined> & { all(name: string): string[] } {
  const found: Record<string, string | undefined> = Object.create(null);
  for (const [name, value] of params) {
    if (value === '') continue;
    if (value.includes('\0')) throw new OauthError('invalid_request', `Wanted '${shown(name)}' without NUL`);
    if (found[name] !== undefined && !repeatable.includes(name))
      throw new OauthError('invalid_request', `Wanted each parameter once, found '${shown(name)}' again`);
    found[name] = value;
  }
  const all = (name: string) => params.getAll(name).filter((value) => value !== '');
  return Object.assign(found, { all }) as ReturnType<typeof parametersOf>;
}

const NAME_SHOWN_MAX = 40;

/** What a caller made up is shown in part, and without anything that could be more than text. */
const shown = (name: string) => name.slice(0, NAME_SHOWN_MAX).replace(/[^\w.-]/g, '?');

/** Our codes in OAuth's terms; what is not here is the server's fault. */
const TOLD: Partial<Record<ErrorCode, OauthErrorCode>> = {
  malformed_json: 'invalid_request',
  invalid_input: 'invalid_request',
  payload_too_large: 'invalid_request',
  unsupported_media_type: 'invalid_request',
  method_not_allowed: 'invalid_request',
  rate_limited: 'temporarily_unavailable',
  limit_reached: 'temporarily_unavailable',
  unavailable: 'temporarily_unavailable',
  outcome_unknown: 'temporarily_unavailable',
  storage_full: 'temporarily_unavailable',
  unauthenticated: 'invalid_token',
  forbidden: 'access_denied',
  not_found: 'invalid_request',
};

/** Any failure in OAuth's terms. Where ours has a status that says more than OAuth's, that is kept. */
export function toOauthError(error: OauthError | CountersignError): OauthError {
  if (error instanceof OauthError) return error;
  const { status, retryAfterMs, message } = error;
  return new OauthError(TOLD[error.code] ?? 'server_error', message, {
    status,
    ...(retryAfterMs !== undefined && { retryAfterMs }),
  });
}

export function refusal(endpoint: OauthEndpoint, error: OauthError, requestId: string): OauthAnswer {
  const headers = { ...refusalHeaders(endpoint, error), ...(endpoint.cors && ANY_ORIGIN) };
  if (endpoint.refusals === 'page') return errorPage(error, requestId, headers);
  return json(error.status, { error: error.code, error_description: error.message }, headers);
}

function refusalHeaders(endpoint: OauthEndpoint, error: OauthError): Record<string, string> {
  const headers: Record<string, string> = {};
  const retryAfterSeconds = secondsToRetry(new CountersignError('rate_limited', '', error));
  if (error.retryAfterMs !== undefined && retryAfterSeconds !== undefined)
    headers['Retry-After'] = `${retryAfterSeconds}`;
  if (error.status === 405)
    headers['Allow'] = endpoint.methods
      .flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : method))
      .join(', ');
  // RFC 6749, section 5.2: of the scheme that the client used; Basic is the only one there is.
  if (error.code === 'invalid_client')
    headers['WWW-Authenticate'] = 'Basic realm="countersign", charset="UTF-8"';
  if (error.code === 'invalid_token' || error.code === 'insufficient_scope') {
    const told = Object.entries({ realm: 'countersign', ...error.challenge });
    headers['WWW-Authenticate'] = `Bearer ${told.map(([name, value]) => `${name}="${value}"`).join(', ')}`;
  }
  return headers;
}

/** What people are told where no application can be told: without a way back, for none was proven. */
function errorPage(error: OauthError, requestId: string, headers: Record<string, string>): OauthAnswer {
  const body = html`
    <h1>This cannot go on</h1>
    <p>${error.message}.</p>
    <p class="quiet">Error <code>${error.code}</code>, request <code>${requestId}</code>. Go back to the application, and try again from there.</p>`;
  return page({ title: 'This cannot go on', body, status: error.status, headers, isOnTheWay: true });
}
