/** Requests as the load generator sends them: buffers that are ready before anything is measured. */

export interface PostRequest {
  path: string;
  authorization?: string | undefined;
  contentType: string;
  body: string;
  /** The address it is said to come from, by a proxy that is believed. */
  from?: string;
}

export function toBuffer({ path, authorization, contentType, body, from }: PostRequest): Buffer {
  const head = [
    `POST ${path} HTTP/1.1`,
    'Host: 127.0.0.1',
    ...(authorization === undefined ? [] : [`Authorization: ${authorization}`]),
    ...(from === undefined ? [] : [`X-Forwarded-For: ${from}`]),
    `Content-Type: ${contentType}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
  ];
  return Buffer.from(`${head.join('\r\n')}\r\n\r\n${body}`);
}

/** As a browser asks for a page. */
export const toPage = (path: string, cookie: string): Buffer =>
  Buffer.from(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/html\r\nCookie: ${cookie}\r\n\r\n`);

/** A form, from a client that proves itself by its secret (RFC 6749, section 2.3.1). */
export const formOf = (path: string, client: { id: string; secret: string }, form: object): PostRequest => ({
  path,
  authorization: `Basic ${Buffer.from(`${client.id}:${client.secret}`).toString('base64')}`,
  contentType: 'application/x-www-form-urlencoded',
  body: `${new URLSearchParams(Object.entries(form))}`,
});

/** JSON, with a bearer's credential where one is given. */
export const post = (path: string, credential: string | null, body: unknown): Buffer =>
  toBuffer({
    path,
    authorization: credential === null ? undefined : `Bearer ${credential}`,
    contentType: 'application/json',
    body: JSON.stringify(body),
  });

export const verifyRequests = (caller: string, credentials: readonly string[]): Buffer[] =>
  credentials.map((credential) => post('/v1/verify', caller, { credential }));
