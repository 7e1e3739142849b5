/** `/console`: the built pages, and signing in to them. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import express, { type Request, type Response, Router } from 'express';
import type { RequestContext } from './authenticate.ts';
import { beginSession, beginSessionInput, endSession, findSession } from './domain/operator-sessions.ts';
import { CountersignError } from './errors.ts';
import { endedCookie, sessionCookie, sessionIn } from './session-cookie.ts';

export const CONSOLE_PATH = '/console';

/** What the pages send with each request, and a page of another origin cannot. */
const OURS = 'console';

const BODY_BYTES_MAX = 4 * 1024;
const FILES = fileURLToPath(new URL('../console/', import.meta.url));

export interface ConsoleOptions {
  publicUrl: string;
  contextOf: (request: Request, response: Response) => RequestContext;
}

/**
 * The session that a request's cookie holds. It counts only where one of our own pages sent it: `Origin` is this server's,
 * and the header `x-countersign` says so (threats.md, transports).
 */
export function sessionOf(publicUrl: string, request: Pick<Request, 'headers'>): string | undefined {
  const { origin, cookie, 'x-countersign': sender } = request.headers;
  if (sender !== OURS || origin !== new URL(publicUrl).origin) return undefined;
  return sessionIn(publicUrl, cookie);
}

export function createConsole({ publicUrl, contextOf }: ConsoleOptions): Router {
  const router = Router({ strict: true });
  const json = express.json({ limit: BODY_BYTES_MAX, type: 'application/json' });

  router.post('/session', json, unreadable, async (request: Request, response: Response) => {
    assertOurs(publicUrl, request);
    const { deps, address } = contextOf(request, response);
    if (request.body === undefined)
      throw new CountersignError(
        'unsupported_media_type',
        "Wanted the header 'Content-Type: application/json'",
      );
    const before = sessionIn(publicUrl, request.headers.cookie);
    const { value, session } = await beginSession(deps, beginSessionInput.parse(request.body), address);
    if (before !== undefined) await endSession(deps, before);
    response.setHeader('Set-Cookie', sessionCookie(publicUrl, value));
    response.json(session);
  });

  router.get('/session', async (request, response) => {
    if (request.headers['x-countersign'] !== OURS) throw new CountersignError('forbidden', NOT_OURS);
    const { deps, address } = contextOf(request, response);
    const value = sessionIn(publicUrl, request.headers.cookie);
    const found = value === undefined ? null : await findSession(deps, value, address);
    if (!found) throw new CountersignError('unauthenticated', 'Nobody is signed in: sign in at /console');
    response.json(found.session);
  });

  router.delete('/session', async (request, response) => {
    assertOurs(publicUrl, request);
    const value = sessionIn(publicUrl, request.headers.cookie);
    if (value !== undefined) await endSession(contextOf(request, response).deps, value);
    response.setHeader('Set-Cookie', endedCookie(publicUrl));
    response.status(204).end();
  });

  router.all('/session', (_request, response) => {
    response.setHeader('Allow', 'GET, POST, DELETE');
    throw new CountersignError('method_not_allowed', 'Wanted the method GET, POST or DELETE');
  });

  // Their names change with their content.
  router.use(
    '/assets',
    express.static(`${FILES}assets`, {
      index: false,
      redirect: false,
      cacheControl: false,
      setHeaders: (response) => response.setHeader('Cache-Control', 'public, max-age=31536000, immutable'),
    }),
    () => {
      throw new CountersignError('not_found', 'Nothing has this path');
    },
  );
  router.get('/{*page}', (_request, response) => sendPage(response));
  return router;
}

const NOT_OURS = "Wanted a request of this server's own pages: its 'Origin' and the header 'x-countersign'";

function assertOurs(publicUrl: string, { headers }: Request) {
  if (headers['x-countersign'] === OURS && headers.origin === new URL(publicUrl).origin) return;
  throw new CountersignError('forbidden', NOT_OURS);
}

/** What Express' reader of JSON says, as our codes. */
function unreadable(error: unknown, _request: Request, _response: Response, next: (error: unknown) => void) {
  const { type } = error as { type?: string };
  if (type === 'entity.too.large')
    next(new CountersignError('payload_too_large', `Wanted a body of at most ${BODY_BYTES_MAX} bytes`));
  else next(new CountersignError('malformed_json', 'Cannot read the body: wanted valid JSON'));
}

/** One page for all: which it shows is the script's to say. Its nonce lets the script's own styles in, and no other. */
async function sendPage(response: Response) {
  const page = await readFile(`${FILES}index.html`, 'utf8').catch(() => null);
  if (page === null) {
    throw new CountersignError('not_found', "The console is not built: run 'npm run build'");
  }
  const nonce = randomBytes(16).toString('base64url');
  response.setHeader('Content-Security-Policy', policyWith(nonce));
  response.type('html').send(page.replace('%NONCE%', nonce));
}

const policyWith = (nonce: string) =>
  `default-src 'none'; script-src 'self'; style-src 'self' 'nonce-${nonce}'; connect-src 'self'; img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
