/** Requests that this server sends to addresses others chose. */
import { BlockList, isIP } from 'node:net';
import { Agent, errors, request } from 'undici';

export interface OutboundResponse {
  status: number;
}

export interface Outbound {
  /** Why a webhook may not be sent to this URL, as "wanted …, found …", or null when it may. */
  refusal(url: string): string | null;
  /**
   * Posts a body; throws `OutboundError` when no answer came. Follows no redirects and keeps nothing of the answer but
   * its status.
   */
  post(url: string, headers: Record<string, string>, body: string): Promise<OutboundResponse>;
  close(): Promise<void>;
}

/** No answer came. The message names neither the URL nor anything the other side sent: it may be stored and shown. */
export class OutboundError extends Error {
  override readonly name = 'OutboundError';
}

export const URL_LENGTH_MAX = 2048;

export interface OutboundOptions {
  /** Whether this host itself may be sent to, and over plain http: only while `PUBLIC_URL` is loopback. */
  allowLoopbackHttp: boolean;
  connectTimeoutMs?: number;
  /** From the call until the end of the answer. */
  totalTimeoutMs?: number;
}

const CONNECT_TIMEOUT_MS = 5_000;
/** Standard Webhooks 1.0.0 asks for 15 to 30 s. */
const TOTAL_TIMEOUT_MS = 15_000;
/** Of a longer answer no more is read, at the price of its connection. */
const ANSWER_BYTES_MAX = 4096;

export function createOutbound(options: OutboundOptions): Outbound {
  const { allowLoopbackHttp, connectTimeoutMs = CONNECT_TIMEOUT_MS } = options;
  const totalTimeoutMs = options.totalTimeoutMs ?? TOTAL_TIMEOUT_MS;
  const agent = new Agent({
    connect: { timeout: connectTimeoutMs },
    headersTimeout: totalTimeoutMs,
    bodyTimeout: totalTimeoutMs,
  });
  const refusal = (url: string) => refusalOf(url, allowLoopbackHttp);

  return {
    refusal,
    async post(url, headers, body) {
      const refused = refusal(url);
      if (refused !== null) throw new OutboundError(`The URL is not allowed: ${refused}`);
      const signal = AbortSignal.timeout(totalTimeoutMs);
      try {
        const answer = await request(url, { dispatcher: agent, method: 'POST', headers, body, signal });
        // The status is the answer; a body that is slow, broken or too long changes nothing about it.
        await answer.body.dump({ limit: ANSWER_BYTES_MAX, signal }).catch(() => {});
        return { status: answer.statusCode };
      } catch (error) {
        throw new OutboundError(describe(error, { connectTimeoutMs, totalTimeoutMs }), { cause: error });
      }
    },
    close: () => agent.close(),
  };
}

function refusalOf(text: string, allowLoopbackHttp: boolean): string | null {
  if (text.length > URL_LENGTH_MAX) {
    return `wanted at most ${URL_LENGTH_MAX} characters, found ${text.length}`;
  }
  if (!URL.canParse(text)) return 'wanted an absolute URL, found none';
  const url = new URL(text);
  if (url.username !== '' || url.password !== '') return 'wanted a URL without credentials, found some';
  if (isThisHost(url.hostname)) {
    if (!allowLoopbackHttp) {
      return "wanted an address of another host, found this host's own: it is allowed only while PUBLIC_URL is loopback";
    }
    if (url.protocol === 'http:') return null;
  }
  return url.protocol === 'https:' ? null : `wanted https, found ${url.protocol.slice(0, -1)}`;
}

const THIS_HOST = new BlockList();
THIS_HOST.addSubnet('127.0.0.0', 8, 'ipv4');
THIS_HOST.addAddress('::1', 'ipv6');
// The unspecified addresses: connecting to them reaches this host.
THIS_HOST.addAddress('0.0.0.0', 'ipv4');
THIS_HOST.addAddress('::', 'ipv6');

/** Whether a `URL`'s host name, which is in canonical form by then, is loopback; `localhost` by RFC 6761, section 6.3. */
function isThisHost(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '');
  const family = isIP(host);
  if (family === 0) return host === 'localhost' || host.endsWith('.localhost');
  return THIS_HOST.check(host, family === 4 ? 'ipv4' : 'ipv6');
}

function describe(error: unknown, limits: { connectTimeoutMs: number; totalTimeoutMs: number }): string {
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
