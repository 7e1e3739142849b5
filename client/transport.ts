/** Sends one request. No redirect is followed: a credential goes where it was meant to go and nowhere else. */
import http from 'node:http';
import https from 'node:https';
import { CountersignError } from '../server/errors.ts';

export interface Reply {
  status: number;
  text: string;
}

/** Who calls and, where the call may be sent again, by which name the server recognises it. */
export interface CallHeaders {
  authorization: string;
  'idempotency-key'?: string;
}

export type Post = (url: URL, headers: CallHeaders, body: string, signal: AbortSignal) => Promise<Reply>;

/** More than any answer of a server's; what is longer is not one. */
const REPLY_BYTES_MAX = 16 * 1024 * 1024;
/** Below the 5 s after which Node's servers close an idle connection, so that none is used while it is being closed. */
const IDLE_MS_MAX = 4000;

const headersOf = (headers: CallHeaders) => ({
  ...headers,
  'content-type': 'application/json',
  accept: 'application/json',
});

/** One pool of connections that are kept alive: about three times the requests of the global `fetch`. */
export function createPost(): Post {
  const pool = { keepAlive: true, timeout: IDLE_MS_MAX };
  const plain = new http.Agent(pool);
  const tls = new https.Agent(pool);
  return (url, headers, body, signal) =>
    new Promise((resolve, reject) => {
      const fail = (error: Error) => reject(unreachable(url, error));
      const options = {
        method: 'POST',
        signal,
        headers: { ...headersOf(headers), 'content-length': Buffer.byteLength(body) },
      };
      const request =
        url.protocol === 'https:'
          ? https.request(url, { ...options, agent: tls })
          : http.request(url, { ...options, agent: plain });
      request.on('error', fail);
      request.on('response', (response) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on('data', (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > REPLY_BYTES_MAX) request.destroy(new Error('The answer is too long'));
          else chunks.push(chunk);
        });
        response.on('error', fail);
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() }),
        );
      });
      request.end(body);
    });
}

/** The same over a `fetch` of the caller's, for proxies and places without sockets. */
export function postBy(fetchLike: typeof fetch): Post {
  return async (url, headers, body, signal) => {
    try {
      const response = await fetchLike(url, {
        method: 'POST',
        headers: headersOf(headers),
        body,
        signal,
        redirect: 'error',
      });
      return { status: response.status, text: await response.text() };
    } catch (error) {
      throw unreachable(url, error);
    }
  };
}

function unreachable(url: URL, cause: unknown): CountersignError {
  const { code, message } = (
    cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause
  ) as {
    code?: unknown;
    message?: unknown;
  };
  return new CountersignError('network', `Cannot reach ${url.origin}: ${String(code ?? message)}`, { cause });
}
