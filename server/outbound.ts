/** Requests that this server sends to addresses others chose. */
import { type LookupAddress, lookup as lookupByDns } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import { Agent, buildConnector, type Dispatcher, errors, request } from 'undici';
import { type AddressKind, createAddressGuard } from './outbound-addresses.ts';

export interface OutboundResponse {
  status: number;
  /** The first 4 KB of the body as text, as far as it came in time. Show it to operators alone. */
  body: string;
  /** The header `Retry-After` as it came, or null. */
  retryAfter: string | null;
}

export interface Outbound {
  /** Why this URL may not be sent to, as "wanted …, found …", or null as far as the URL itself tells. */
  refusal(url: string, purpose?: 'webhook' | 'document'): string | null;
  /** Posts a body; throws `OutboundError` when no answer came. Follows no redirects. */
  post(url: string, headers: Record<string, string>, body: string): Promise<OutboundResponse>;
  /**
   * Gets a document whole, from a public address or, while `PUBLIC_URL` is loopback, from this host; subnets that
   * webhooks may go to are none of it (threats.md, outgoing requests). Throws `OutboundError` for another answer than 200,
   * one that is longer, or none. Follows no redirects.
   */
  get(url: string, bytesMax: number): Promise<string>;
  /**
   * The same of a document that a stranger names, with whatever its server answers: the body is read where the status is
   * 200, and nothing is asked twice. Throws `OutboundError` where none came in time, or more of it than it may be.
   */
  read(url: string, options: ReadOptions): Promise<OutboundDocument>;
  close(): Promise<void>;
}

export interface ReadOptions {
  bytesMax: number;
  /** From the call until the end of the answer. */
  timeoutMs: number;
}

export interface OutboundDocument {
  status: number;
  /** Empty where the status is not 200. */
  body: string;
  /** By their names in lower case. */
  headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** No answer came. The message names neither the URL nor anything the other side sent: it may be stored and shown. */
export class OutboundError extends Error {
  override readonly name = 'OutboundError';
}

export const URL_LENGTH_MAX = 2048;

export interface OutboundOptions {
  /** Whether this host itself may be sent to, and over plain http: only while `PUBLIC_URL` is loopback. */
  allowLoopbackHttp: boolean;
  /** CIDR blocks that may be sent to although they are not public, and over plain http. */
  allowSubnets?: readonly string[];
  /** Every address of a name; by default the system's. */
  resolve?: Resolve;
  /** Certificates, as PEM, of who may vouch for other hosts; by default those that Node trusts. */
  ca?: string;
  connectTimeoutMs?: number;
  /** From the call until the end of the answer. */
  totalTimeoutMs?: number;
}

export type Resolve = (hostname: string) => Promise<LookupAddress[]>;

const CONNECT_TIMEOUT_MS = 5_000;
/** Standard Webhooks 1.0.0 asks for 15 to 30 s. */
const TOTAL_TIMEOUT_MS = 15_000;
/** Somebody waits for a document: what is asked for with it is answered after. */
const DOCUMENT_TIMEOUT_MS = 5_000;
/** Of a longer answer no more is read. */
const ANSWER_BYTES_MAX = 4096;
const RETRY_AFTER_LENGTH_MAX = 64;
/** Below are the ports of services that would take a request for something else. */
const FREE_PORT_MIN = 1024;
const WEB_PORTS = ['', '80', '443'];

export function createOutbound(options: OutboundOptions): Outbound {
  const { allowLoopbackHttp, allowSubnets = [], connectTimeoutMs = CONNECT_TIMEOUT_MS } = options;
  const totalTimeoutMs = options.totalTimeoutMs ?? TOTAL_TIMEOUT_MS;
  const rulesWith = (subnets: readonly string[]): Rules => ({
    kindOf: createAddressGuard({ allowLoopback: allowLoopbackHttp, allowSubnets: subnets }),
    allowLoopbackHttp,
    hasOpenSubnets: subnets.length > 0,
  });
  const agentBy = (rules: Rules) =>
    new Agent({
      connect: guardedConnector(rules, options.resolve ?? resolveBySystem, {
        timeout: connectTimeoutMs,
        ...(options.ca !== undefined && { ca: options.ca }),
      }),
      headersTimeout: totalTimeoutMs,
      bodyTimeout: totalTimeoutMs,
    });
  const rules = rulesWith(allowSubnets);
  const documentRules = rulesWith([]);
  const agent = agentBy(rules);
  const documentAgent = agentBy(documentRules);

  return {
    refusal: (url, purpose = 'webhook') => refusalOf(url, purpose === 'webhook' ? rules : documentRules),
    async post(url, headers, body) {
      const refused = refusalOf(url, rules);
      if (refused !== null) throw new OutboundError(`The URL is not allowed: ${refused}`);
      try {
        return await postBy(agent, url, { headers, body, timeoutMs: totalTimeoutMs });
      } catch (error) {
        throw new OutboundError(describe(error, { connectTimeoutMs, totalTimeoutMs }), { cause: error });
      }
    },
    async get(url, bytesMax) {
      const refused = refusalOf(url, documentRules);
      if (refused !== null) throw new OutboundError(`The URL is not allowed: ${refused}`);
      try {
        return await inTime(Math.min(totalTimeoutMs, DOCUMENT_TIMEOUT_MS), async (signal) => {
          const { statusCode, body } = await request(url, { dispatcher: documentAgent, signal });
          if (statusCode === 200) return wholeOf(body, bytesMax);
          leave(body);
          throw new OutboundError(`Wanted the status 200, found ${statusCode}`);
        });
      } catch (error) {
        if (error instanceof OutboundError) throw error;
        const limits = { connectTimeoutMs, totalTimeoutMs: DOCUMENT_TIMEOUT_MS };
        throw new OutboundError(describe(error, limits), { cause: error });
      }
    },
    async read(url, { bytesMax, timeoutMs }) {
      const refused = refusalOf(url, documentRules);
      if (refused !== null) throw new OutboundError(`The URL is not allowed: ${refused}`);
      try {
        return await inTime(timeoutMs, async (signal) => {
          const { statusCode, headers, body } = await request(url, {
            dispatcher: documentAgent,
            headers: { Accept: 'application/json' },
            signal,
          });
          if (statusCode === 200) return { status: statusCode, headers, body: await wholeOf(body, bytesMax) };
          leave(body);
          return { status: statusCode, headers, body: '' };
        });
      } catch (error) {
        if (error instanceof OutboundError) throw error;
        throw new OutboundError(describe(error, { connectTimeoutMs, totalTimeoutMs: timeoutMs }), {
          cause: error,
        });
      }
    },
    async close() {
      await Promise.all([agent.close(), documentAgent.close()]);
    },
  };
}

/**
 * Aborts `work` when it takes longer. Not `AbortSignal.timeout`: V8 keeps what a weak reference leads to until it collects
 * the whole heap, and that of its signal leads to all that the request was made of.
 */
async function inTime<T>(timeoutMs: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const ending = new AbortController();
  const timer = setTimeout(
    () => ending.abort(new DOMException('It took too long', 'TimeoutError')),
    timeoutMs,
  );
  try {
    return await work(ending.signal);
  } finally {
    clearTimeout(timer);
  }
}

/** Of a body nothing is wanted. That it was cut off is then an error of its own, which nobody else would hear. */
function leave(body: Dispatcher.ResponseData['body']): void {
  body.on('error', () => {});
  body.destroy();
}

interface PostOptions {
  headers: Record<string, string>;
  body: string;
  /** From the call until the end of the answer. */
  timeoutMs: number;
}

/**
 * By undici's handlers, for `request` makes a stream and listens to a signal: V8 keeps what those lead to until it
 * collects the whole heap.
 */
function postBy(
  agent: Agent,
  url: string,
  { headers, body, timeoutMs }: PostOptions,
): Promise<OutboundResponse> {
  const { origin, pathname, search } = new URL(url);
  return new Promise((resolve, reject) => {
    const reception = new Reception(timeoutMs, resolve, reject);
    agent.dispatch({ origin, path: pathname + search, method: 'POST', headers, body }, reception);
  });
}

/** What comes of a request. The status is the answer; a body that is slow, broken or too long changes nothing about it. */
class Reception implements Dispatcher.DispatchHandler {
  readonly #resolve: (response: OutboundResponse) => void;
  readonly #reject: (error: Error) => void;
  readonly #timer: NodeJS.Timeout;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;
  #status: number | undefined;
  #retryAfter: string | null = null;
  #sending: Dispatcher.DispatchController | undefined;
  #isOver = false;

  constructor(
    timeoutMs: number,
    resolve: (response: OutboundResponse) => void,
    reject: (error: Error) => void,
  ) {
    this.#resolve = resolve;
    this.#reject = reject;
    this.#timer = setTimeout(
      () => this.#giveUp(new DOMException('It took too long', 'TimeoutError')),
      timeoutMs,
    );
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#sending = controller;
    // It waited for a connection until nobody waited for it any more.
    if (this.#isOver) controller.abort(new Error('It is over'));
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: Record<string, string | string[] | undefined>,
  ): void {
    if (status < 200) return;
    this.#status = status;
    const retryAfter = [headers['retry-after'] ?? null].flat()[0] ?? null;
    if (retryAfter && retryAfter.length <= RETRY_AFTER_LENGTH_MAX) this.#retryAfter = retryAfter;
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes >= ANSWER_BYTES_MAX) this.#giveUp(new Error('It is longer than is read'));
  }

  onResponseEnd(): void {
    this.#end(null);
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#end(error);
  }

  /** Answers what came until now, or throws where there is no status yet. */
  #end(error: Error | null): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    if (this.#status !== undefined) {
      const text = Buffer.concat(this.#chunks).subarray(0, ANSWER_BYTES_MAX).toString();
      // PostgreSQL has no NUL in text.
      const body = text.replaceAll('\0', '\ufffd');
      this.#resolve({ status: this.#status, body, retryAfter: this.#retryAfter });
    } else this.#reject(error ?? new Error('It ended without a status'));
  }

  /** The same while more of it may come, at the price of its connection. */
  #giveUp(error: Error): void {
    this.#end(error);
    this.#sending?.abort(error);
  }
}

async function wholeOf(body: Dispatcher.ResponseData['body'], bytesMax: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > bytesMax) throw new OutboundError(`Wanted at most ${bytesMax} bytes, found more`);
  }
  return Buffer.concat(chunks).toString();
}

interface Rules {
  kindOf: (address: string) => AddressKind;
  allowLoopbackHttp: boolean;
  hasOpenSubnets: boolean;
}

const THIS_HOST_REFUSED =
  "wanted an address of another host, found this host's own: it is allowed only while PUBLIC_URL is loopback";

function refusalOf(text: string, rules: Rules): string | null {
  if (text.length > URL_LENGTH_MAX) {
    return `wanted at most ${URL_LENGTH_MAX} characters, found ${text.length}`;
  }
  if (!URL.canParse(text)) return 'wanted an absolute URL, found none';
  const url = new URL(text);
  const { protocol, port } = url;
  if (protocol !== 'https:' && protocol !== 'http:') return `wanted https, found ${protocol.slice(0, -1)}`;
  if (url.username !== '' || url.password !== '') return 'wanted a URL without credentials, found some';
  if (!WEB_PORTS.includes(port) && Number(port) < FREE_PORT_MIN) {
    return `wanted port 80, 443 or one from ${FREE_PORT_MIN} on, found ${port}`;
  }
  return refusalOfHost(url, rules);
}

/** A `URL`'s host name is in canonical form, so that every spelling of an IPv4 address is one. */
function refusalOfHost({ hostname, protocol }: URL, rules: Rules): string | null {
  const host = hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '');
  if (isIP(host) !== 0) return refusalOfAddress(host, protocol, rules);
  // RFC 6761, section 6.3: such a name is loopback whatever a resolver says.
  if (host === 'localhost' || host.endsWith('.localhost')) {
    return rules.allowLoopbackHttp ? null : THIS_HOST_REFUSED;
  }
  // With open subnets it is known only when the name is resolved whether it leads into one.
  return protocol === 'https:' || rules.hasOpenSubnets ? null : 'wanted https, found http';
}

function refusalOfAddress(address: string, protocol: string, rules: Rules): string | null {
  switch (rules.kindOf(address)) {
    case 'open':
      return null;
    case 'this_host':
      return THIS_HOST_REFUSED;
    case 'reserved':
      return 'wanted a public address, found one that is not';
    case 'public':
      return protocol === 'https:' ? null : 'wanted https, found http';
  }
}

/** Not connected, because of where the name or the address leads. */
class AddressRefused extends Error {}

/**
 * Judges addresses where they are dialled: of a name, every answer of the one resolution whose answers are dialled, so
 * that a second one has nothing to change; a literal before, because no lookup is made for it; and once more the address
 * that the socket has in the end.
 */
function guardedConnector(
  rules: Rules,
  byDns: Resolve,
  options: { timeout: number; ca?: string },
): buildConnector.connector {
  const resolve = sharedLookups(byDns, options.timeout);
  const connectorOf = (protocol: string) => {
    const assertAllowed = (address: string) => {
      const refused = refusalOfAddress(address, protocol, rules);
      if (refused !== null) throw new AddressRefused(refused);
    };
    const lookup = guardedLookup(resolve, assertAllowed);
    // Node takes `lookup` as any other option of a socket; undici's types do not name it.
    const connect = buildConnector({ ...options, lookup } as buildConnector.BuildOptions);
    return { assertAllowed, connect };
  };
  const connectors = { http: connectorOf('http:'), https: connectorOf('https:') };

  return (target, callback) => {
    const { assertAllowed, connect } = target.protocol === 'https:' ? connectors.https : connectors.http;
    try {
      if (isIP(target.hostname) !== 0) assertAllowed(target.hostname);
    } catch (error) {
      callback(error as Error, null);
      return;
    }
    connect(target, (...[error, socket]) => {
      if (error || !socket) {
        callback(error ?? new Error('Neither a socket nor an error came'), null);
        return;
      }
      try {
        assertAllowed(socket.remoteAddress ?? '');
        callback(null, socket);
      } catch (refused) {
        socket.destroy();
        callback(refused as Error, null);
      }
    });
  };
}

/**
 * One lookup at a time of a name, for all who want it. A system's lookup takes a thread of few and cannot be called off:
 * while one hangs, whoever wants the same name fails at once, so that one receiver takes one thread and no more.
 */
function sharedLookups(resolve: Resolve, timeoutMs: number): Resolve {
  const underWay = new Map<string, { answers: Promise<LookupAddress[]>; hangs: boolean }>();
  return (hostname) => {
    const known = underWay.get(hostname);
    if (known?.hangs) return Promise.reject(new errors.ConnectTimeoutError());
    if (known) return known.answers;
    const lookup = { answers: resolve(hostname), hangs: false };
    underWay.set(hostname, lookup);
    const patience = setTimeout(() => {
      lookup.hangs = true;
    }, timeoutMs).unref();
    const end = () => {
      clearTimeout(patience);
      underWay.delete(hostname);
    };
    lookup.answers.then(end, end);
    return lookup.answers;
  };
}

function guardedLookup(resolve: Resolve, assertAllowed: (address: string) => void): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname).then(
      (answers) => {
        const [first] = answers;
        try {
          if (!first) throw Object.assign(new Error('The name has no address'), { code: 'ENOTFOUND' });
          for (const { address } of answers) assertAllowed(address);
        } catch (error) {
          callback(error as Error, '');
          return;
        }
        if (options.all) callback(null, answers);
        else callback(null, first.address, first.family);
      },
      (error) => callback(error, ''),
    );
  };
}

const resolveBySystem: Resolve = (hostname) =>
  new Promise((done, fail) =>
    lookupByDns(hostname, { all: true }, (error, answers) => (error ? fail(error) : done(answers))),
  );

function describe(error: unknown, limits: { connectTimeoutMs: number; totalTimeoutMs: number }): string {
  if (error instanceof AddressRefused) return `The address is not allowed: ${error.message}`;
  if (error instanceof errors.ConnectTimeoutError)
    return `No connection within ${limits.connectTimeoutMs} ms`;
  if (error instanceof Error && error.name === 'TimeoutError')
    return `No answer within ${limits.totalTimeoutMs} ms`;
  if (error instanceof errors.HTTPParserError) return 'No answer: what came is not HTTP';
  return `No answer: ${codeOf(error)}`;
}

/** The system's or undici's code for what went wrong, such as ECONNREFUSED or UND_ERR_SOCKET. */
function codeOf(error: unknown): string {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const { code } = cause as { code?: unknown };
    if (typeof code === 'string' && /^[A-Z0-9_]{1,64}$/.test(code)) return code;
  }
  return 'the connection failed';
}
