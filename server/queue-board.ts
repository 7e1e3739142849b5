/**
 * The board of BullMQ's queues, for admins, read-only. What it shows was put into Redis by whoever can write there, so its
 * page may run no script but its own and reach nothing but its own paths.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { RequestHandler, Response } from 'express';
import { authenticate, type RequestContext } from './authenticate.ts';
import { CountersignError } from './errors.ts';

export const QUEUE_BOARD_PATH = '/queues';

export interface QueueBoardOptions {
  publicUrl: string;
  /** Opens the board when it is first asked for; null where there are no queues. */
  open: ((path: string) => Promise<RequestHandler>) | null;
  contextOf: (request: IncomingMessage, response: ServerResponse) => RequestContext;
}

/** Answers everything below the path. Browsers ask for a name and a password: any name, and a secret key. */
export function createQueueBoard({ publicUrl, open, contextOf }: QueueBoardOptions): RequestHandler {
  const policy = policyOf(publicUrl);
  return async (request, response, next) => {
    if (!open)
      throw new CountersignError(
        'not_found',
        "There are no queues: wanted Redis in the variable 'REDIS_URL'",
      );
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('Allow', 'GET, HEAD');
      throw new CountersignError('method_not_allowed', 'Wanted the method GET');
    }
    await authenticateAdmin(contextOf(request, response), response);
    response.setHeader('Content-Security-Policy', policy);
    (await open(QUEUE_BOARD_PATH))(request, response, next);
  };
}

async function authenticateAdmin(context: RequestContext, response: Response): Promise<void> {
  try {
    await authenticate({ ...context, authorization: asBearer(context.authorization) }, 'queues.read');
  } catch (error) {
    if (error instanceof CountersignError && error.code === 'unauthenticated')
      response.setHeader('WWW-Authenticate', 'Basic realm="Countersign, queues", charset="UTF-8"');
    throw error;
  }
}

/** RFC 7617: the password is the credential. */
function asBearer(authorization: string | undefined): string | undefined {
  const [, encoded] = /^basic +([A-Za-z0-9+/]{1,1024}={0,2})$/i.exec(authorization ?? '') ?? [];
  if (encoded === undefined) return authorization;
  const [, password = ''] = /^[^:]*:(.*)$/s.exec(Buffer.from(encoded, 'base64').toString()) ?? [];
  return `Bearer ${password}`;
}

function policyOf(publicUrl: string): string {
  const board = new URL(QUEUE_BOARD_PATH, publicUrl).href;
  return [
    "default-src 'none'",
    `script-src ${board}/static/`,
    `style-src ${board}/static/ 'unsafe-inline'`,
    `img-src ${board}/static/`,
    `connect-src ${board}/api/ ${board}/static/`,
    `base-uri ${board}/`,
    "form-action 'none'",
    "frame-ancestors 'none'",
    'sandbox allow-scripts allow-same-origin',
  ].join('; ');
}
