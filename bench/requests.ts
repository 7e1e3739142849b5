/** Requests as the load generator sends them: buffers that are ready before anything is measured. */

export interface PostRequest {
  path: string;
  authorization?: string | undefined;
  contentType: string;
  body: string;
}

export function toBuffer({ path, authorization, contentType, body }: PostRequest): Buffer {
  const head = [
    `POST ${path} HTTP/1.1`,
    'Host: 127.0.0.1',
    ...(authorization === undefined ? [] : [`Authorization: ${authorization}`]),
    `Content-Type: ${contentType}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
  ];
  return Buffer.from(`${head.join('\r\n')}\r\n\r\n${body}`);
}

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
