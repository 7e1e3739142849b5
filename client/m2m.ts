/** `countersign/m2m`: a `fetch` that calls other services with M2M tokens of this machine. */
import { CountersignError } from '../server/errors.ts';
import type { M2mTokenRequest, M2mTokenSource } from './m2m-token-source.ts';
import { isLoopback } from './options.ts';

export {
  createM2mTokenSource,
  type M2mTokenRequest,
  type M2mTokenSource,
  type M2mTokenSourceOptions,
} from './m2m-token-source.ts';
export type { OwnSecretCareOptions } from './own-secret-care.ts';

export interface M2mFetchOptions extends M2mTokenRequest {
  tokens: Pick<M2mTokenSource, 'get' | 'replace'>;
  /** Where the token may be sent: https, or http on loopback. A request to anywhere else is refused. */
  origins: readonly string[];
  /** Sends the requests. Default: the global `fetch`. */
  fetch?: typeof fetch | undefined;
}

type Input = Parameters<typeof fetch>[0];
type Init = NonNullable<Parameters<typeof fetch>[1]>;

/** A request that is on its way, perhaps redirected. */
interface Outgoing {
  url: URL;
  method: string;
  input: Input;
  init: Init;
  headers: Headers;
}

const REDIRECTS_MAX = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/**
 * A `fetch` whose requests carry an M2M token. One that is answered 401 is sent once more with another token, where its
 * body can be sent again. Redirects are followed within `origins` only; any other is answered as it came.
 *
 * Throws `url_not_allowed` for a request to another origin, `invalid_input` for one that has an `Authorization` already,
 * and what obtaining a token throws.
 */
export function createM2mFetch({ tokens, origins, fetch: given, ...request }: M2mFetchOptions): typeof fetch {
  const allowed = new Set(origins.map(originOf));

  function send({ input, init, headers }: Outgoing, token: string): Promise<Response> {
    const own = new Headers(headers);
    own.set('authorization', `Bearer ${token}`);
    // The first hop tells where to; whether the token may go there is decided here.
    const redirect = followsIn(input, init) ? 'manual' : redirectOf(input, init);
    return (given ?? fetch)(input, { ...init, headers: own, redirect });
  }

  async function sendWithToken(outgoing: Outgoing): Promise<Response> {
    const token = await tokens.get(request);
    const response = await send(outgoing, token);
    if (response.status !== 401 || !canReplay(outgoing)) return response;
    // Without another token the refusal is the answer.
    const another = await tokens.replace(token, request).catch(() => token);
    if (another === token) return response;
    await response.body?.cancel();
    return send(outgoing, another);
  }

  return async (input, init = {}) => {
    let outgoing = outgoingOf(input, init);
    assertAllowed(outgoing, allowed);
    for (let redirects = 0; ; redirects++) {
      const response = await sendWithToken(outgoing);
      const next = redirects < REDIRECTS_MAX ? redirected(outgoing, response) : null;
      if (!next || !allowed.has(next.url.origin)) return response;
      await response.body?.cancel();
      outgoing = next;
    }
  };
}

function outgoingOf(input: Input, init: Init): Outgoing {
  const request = input instanceof Request ? input : null;
  return {
    url: new URL(request?.url ?? String(input)),
    method: (init.method ?? request?.method ?? 'GET').toUpperCase(),
    input,
    init,
    headers: new Headers(init.headers ?? request?.headers),
  };
}

function assertAllowed({ url, headers }: Outgoing, allowed: ReadonlySet<string>) {
  if (!allowed.has(url.origin)) {
    const wanted = [...allowed].join(', ');
    throw new CountersignError(
      'url_not_allowed',
      `Cannot fetch: wanted an origin of ${wanted}, got ${url.origin}`,
    );
  }
  if (!headers.has('authorization')) return;
  throw new CountersignError(
    'invalid_input',
    "Cannot fetch: wanted no header 'Authorization', for the token goes there, found one",
  );
}

/** The next hop of a redirect, as Fetch has it; null for what is none, or cannot be sent again. */
function redirected(outgoing: Outgoing, { status, headers }: Response): Outgoing | null {
  const { input, init, url, method } = outgoing;
  const location = headers.get('location');
  if (!REDIRECTS.has(status) || location === null || !URL.canParse(location, url.href)) return null;
  if (!followsIn(input, init)) return null;
  const target = new URL(location, url);
  const becomesGet = status === 303 ? method !== 'HEAD' : status <= 302 && method === 'POST';
  if (!becomesGet && !canReplay(outgoing)) return null;
  const { body, ...rest } = init;
  const signal = init.signal ?? (input instanceof Request ? input.signal : null);
  const next = { ...rest, method: becomesGet ? 'GET' : method, signal };
  return {
    url: target,
    method: next.method,
    input: target.href,
    init: becomesGet || body === undefined ? next : { ...next, body },
    headers: becomesGet ? withoutContent(outgoing.headers) : outgoing.headers,
  };
}

const redirectOf = (input: Input, { redirect }: Init) =>
  redirect ?? (input instanceof Request ? input.redirect : 'follow');

const followsIn = (input: Input, init: Init) => redirectOf(input, init) === 'follow';

function withoutContent(headers: Headers): Headers {
  return new Headers([...headers].filter(([name]) => !name.startsWith('content-')));
}

/** Streams can be read once. */
function canReplay({ input, init: { body } }: Outgoing): boolean {
  if (body === undefined || body === null) return !(input instanceof Request) || input.body === null;
  return (
    typeof body === 'string' ||
    body instanceof URLSearchParams ||
    body instanceof FormData ||
    body instanceof Blob ||
    body instanceof ArrayBuffer ||
    ArrayBuffer.isView(body)
  );
}

function originOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  const isSafe = url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(url.hostname));
  if (url && isSafe && url.origin === text.replace(/\/$/, '')) return url.origin;
  throw new CountersignError(
    'invalid_input',
    `Cannot create fetch: 'origins' must be https, or http on loopback, as in 'https://ledger.example.com', got '${url?.origin ?? 'no URL'}'`,
    { field: 'origins' },
  );
}
