/** Everything HTTP: what every request gets, the hot routes, and behind them Express with the rest. */
import { randomUUID } from 'node:crypto';
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import type { Duplex } from 'node:stream';
import { TRPC_ERROR_CODES_BY_KEY } from '@trpc/server/rpc';
import express, { type ErrorRequestHandler, type Express, type Request, type RequestHandler } from 'express';
import helmet from 'helmet';
import { ACCESS } from './access.ts';
import { API_REFERENCE_FILES, API_REFERENCE_POLICY, readReferenceFile } from './api-reference.ts';
import { authenticate, type RequestContext } from './authenticate.ts';
import { clientAddress, createProxyList } from './client-address.ts';
import type { Config } from './config.ts';
import { CONSOLE_PATH, createConsole, sessionOf } from './console.ts';
import type { Deps } from './deps.ts';
import { CountersignError, ERRORS, type ErrorCode, secondsToRetry } from './errors.ts';
import type { Feeds } from './feed.ts';
import { createHotRoutes, isHotRoute } from './hot.ts';
import type { Logger } from './logger.ts';
import type { Metrics } from './metrics.ts';
import { renderPage, STYLE_SOURCE } from './page.ts';
import { createQueueBoard, QUEUE_BOARD_PATH } from './queue-board.ts';
import { createReadiness, type Readiness } from './readiness.ts';
import { toErrorEnvelope } from './rest/errors.ts';
import { openApiDocument } from './rest/openapi.ts';
import { translate } from './translate.ts';
import type { ErrorData } from './trpc/base.ts';
import { createTrpc, PROCEDURES } from './trpc-calls.ts';

export interface AppOptions {
  deps: Deps;
  feeds: Pick<Feeds, 'open'>;
  config: Pick<Config, 'publicUrl' | 'corsOrigins' | 'trustedProxies' | 'console'>;
  logger: Logger;
  metrics: Metrics;
  /** Opens the board of the queue below a path; null where there is no queue. */
  openQueueBoard: ((path: string) => Promise<RequestHandler>) | null;
  /** What works less well than it should, or null. */
  degraded: () => string | null;
  /** Whether the process is on its way out: it answers what comes, and asks for no more. */
  isDraining: () => boolean;
}

/** What is known of one request on its way through. */
interface Exchange {
  requestId: string;
  /** The pattern that took the request, for logs and metrics: never the path as it was sent. */
  route: string;
}

const exchanges = new WeakMap<ServerResponse, Exchange>();

const HEADER_BYTES_MAX = 32 * 1024;
const HEADERS_MS_MAX = 10_000;
const REQUEST_MS_MAX = 30_000;
const BODY_BYTES_MAX = 1024 * 1024;
const BATCH_SIZE_MAX = 50;
/** Asked for every few seconds by machines: worth a line only when somebody looks closely. */
const PROBES = new Set(['/healthz', '/readyz', '/metrics']);

/** A server that no slow or endless sender can hold up. It listens nowhere yet. */
export function createHttpServer(listener: RequestListener): Server {
  const server = createServer(
    {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: HEADERS_MS_MAX,
      requestTimeout: REQUEST_MS_MAX,
      connectionsCheckingInterval: 5_000,
      // Longer than the minute that proxies keep an idle connection, or they would write to one we are closing.
      keepAliveTimeout: 65_000,
    },
    listener,
  );
  server.on('clientError', refuseUnread);
  return server;
}

/** What Node says of a request that it gives up reading, as one of our codes. */
const UNREAD: Record<string, { code: ErrorCode; message: string }> = {
  HPE_HEADER_OVERFLOW: {
    code: 'headers_too_large',
    message: `Wanted a URL and headers of at most ${HEADER_BYTES_MAX} bytes`,
  },
  ERR_HTTP_REQUEST_TIMEOUT: {
    code: 'request_timeout',
    message: `Wanted the headers within ${HEADERS_MS_MAX} ms and all of the request within ${REQUEST_MS_MAX} ms`,
  },
};

/** Answers what never became a request, and ends the connection: where the next request would begin is unknown. */
function refuseUnread(error: NodeJS.ErrnoException, socket: Duplex) {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const { code, message } = UNREAD[error.code ?? ''] ?? {
    code: 'malformed_request',
    message: 'Cannot read the request: wanted HTTP/1.1',
  };
  const requestId = newRequestId();
  const { status } = ERRORS[code];
  const text = JSON.stringify(toErrorEnvelope(new CountersignError(code, message), requestId));
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nX-Request-Id: ${requestId}\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
  );
}

/** What is answered from the moment the port is taken until the database is open. */
export const answerStarting: RequestListener = (request, response) => {
  const { requestId } = begin(response);
  const isAlive = pathnameOf(request.url) === '/healthz';
  const told = new CountersignError('unavailable', 'The server is starting');
  sendJson(
    response,
    isAlive ? 200 : told.status,
    isAlive ? { status: 'ok' } : toErrorEnvelope(told, requestId),
  );
};

/** Answers every request. */
export function createRequestListener(options: AppOptions): RequestListener {
  const { deps, feeds, config, logger, isDraining } = options;
  const addressOf = createAddressOf(config.trustedProxies);
  const observe = createObserver(options, addressOf);
  const allowOrigin = createCors(config.corsOrigins);
  const hot = createHotRoutes({
    deps,
    feeds,
    addressOf,
    onEnd: ({ request, response, startedAt, ...exchange }) =>
      observe(request, response, exchange, performance.now() - startedAt),
    report: (failure) => logger.error({ err: failure.cause, requestId: failure.requestId }, failure.message),
  });
  const app = createApp(options, addressOf);

  return (request, response) => {
    if (isDraining()) response.setHeader('Connection', 'close');
    const isPreflight = allowOrigin(request, response);
    const startedAt = performance.now();
    if (!isPreflight && hot(request, response, newRequestId(), startedAt)) return;
    const exchange = begin(response);
    response.once('close', () => observe(request, response, exchange, performance.now() - startedAt));
    response.setHeader('Cache-Control', 'no-store');
    if (isPreflight) {
      exchange.route = 'preflight';
      response.writeHead(204).end();
      return;
    }
    app(request, response);
  };
}

type AddressOf = (request: IncomingMessage) => string;

function createAddressOf(trustedProxies: readonly string[]): AddressOf {
  const proxies = createProxyList(trustedProxies);
  return (request) =>
    clientAddress(
      request.socket.remoteAddress ?? '',
      request.headers['x-forwarded-for']?.toString(),
      proxies,
    );
}

function begin(response: ServerResponse): Exchange {
  const exchange = { requestId: newRequestId(), route: 'none' };
  exchanges.set(response, exchange);
  response.setHeader('X-Request-Id', exchange.requestId);
  return exchange;
}

/** A random part for each process, and a number: they find lines in the log, and are no secret. */
const PROCESS_ID = randomUUID().replaceAll('-', '').slice(0, 20);
let requestCount = 0;
const newRequestId = () => `req_${PROCESS_ID}${(requestCount++).toString(16).padStart(12, '0')}`;

type Observe = (
  request: IncomingMessage,
  response: ServerResponse,
  exchange: Exchange,
  milliseconds: number,
) => void;

/** Counts a request that has ended, and writes its line: never a query, a header or a body. */
function createObserver({ logger, metrics }: AppOptions, addressOf: AddressOf): Observe {
  return (request, response, { route, requestId }, milliseconds) => {
    const { method = '' } = request;
    const { statusCode: status } = response;
    metrics.httpRequest(route, method, status, milliseconds / 1000);
    const level = logLevelOf(route, status);
    if (!logger.isLevelEnabled(level)) return;
    logger[level](
      {
        method,
        route,
        status,
        ms: Math.round(milliseconds * 1000) / 1000,
        client: addressOf(request),
        requestId,
        ...(response.writableEnded ? {} : { aborted: true }),
      },
      'request',
    );
  };
}

/** What machines ask for all day is worth a line only when it is refused, or when somebody looks closely. */
const logLevelOf = (route: string, status: number) =>
  PROBES.has(route) || (isHotRoute(route) && status < 400) ? 'debug' : 'info';

type Cors = (...args: Parameters<RequestListener>) => boolean;

/** Lets listed origins read answers, never with credentials. Answers whether it was asked only about that. */
function createCors(origins: readonly string[]): Cors {
  if (origins.length === 0) return () => false;
  const allowed = new Set(origins);
  return (request, response) => {
    const { origin } = request.headers;
    response.setHeader('Vary', 'Origin');
    if (origin === undefined || !allowed.has(origin)) return false;
    response.setHeader('Access-Control-Allow-Origin', origin);
    response.setHeader('Access-Control-Expose-Headers', 'X-Request-Id, Retry-After');
    const wanted = request.headers['access-control-request-method'];
    if (request.method !== 'OPTIONS' || wanted === undefined) return false;
    response.setHeader('Access-Control-Allow-Methods', 'GET, POST, PUT, PATCH, DELETE');
    response.setHeader('Access-Control-Allow-Headers', 'Authorization, Content-Type, Idempotency-Key');
    response.setHeader('Access-Control-Max-Age', '600');
    return true;
  };
}

function createApp(options: AppOptions, addressOf: AddressOf): Express {
  const { deps, config, logger, metrics } = options;
  const readiness = createReadiness(options);
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.set('query parser', false);
  app.enable('strict routing');
  app.enable('case sensitive routing');
  const contextOf: ContextOf = (request, response) => ({
    deps,
    authorization: request.headers.authorization,
    address: () => addressOf(request),
    requestId: requestIdOf(response),
  });
  app.use(createHelmet(config.publicUrl));
  const trpcContextOf: ContextOf = (request, response) => ({
    ...contextOf(request, response),
    session: sessionOf(config.publicUrl, request),
  });
  const trpc = {
    contextOf: trpcContextOf,
    logger,
    bodyBytesMax: BODY_BYTES_MAX,
    batchSizeMax: BATCH_SIZE_MAX,
  };
  app.use('/trpc', createTrpcGate(), createTrpc(trpc));
  if (config.console) {
    get(app, CONSOLE_PATH, (_request, response) => response.redirect(308, `${CONSOLE_PATH}/`));
    app.use(
      `${CONSOLE_PATH}/`,
      naming(CONSOLE_PATH),
      createConsole({ publicUrl: config.publicUrl, contextOf }),
    );
  }
  app.use(
    QUEUE_BOARD_PATH,
    naming(QUEUE_BOARD_PATH),
    createQueueBoard({ publicUrl: config.publicUrl, open: options.openQueueBoard, contextOf }),
  );
  get(app, '/', async (_request, response) => {
    response.type('html').send(renderPage({ ...config, ...(await readiness()) }));
  });
  get(app, '/healthz', (_request, response) => sendJson(response, 200, { status: 'ok' }));
  get(app, '/readyz', async (_request, response) => sendReadiness(response, await readiness()));
  get(app, '/openapi.json', createDocument(config.publicUrl));
  for (const path of API_REFERENCE_FILES) get(app, path, sendReferenceFile);
  get(app, '/metrics', async (request, response) => {
    await authenticate(contextOf(request, response), 'metrics.read');
    response.type(metrics.contentType).send(await metrics.text());
  });
  app.use(() => {
    throw new CountersignError('not_found', 'Nothing has this path');
  });
  app.use(createErrorHandler(logger));
  return app;
}

/** Made once, when it is first asked for: it is the same for as long as the process lives. */
function createDocument(publicUrl: string): RequestHandler {
  let text: string | undefined;
  return (_request, response) => {
    text ??= JSON.stringify(openApiDocument({ publicUrl, descriptionOf }));
    response.setHeader('Access-Control-Allow-Origin', '*');
    sendText(response, 200, text);
  };
}

const descriptionOf = (path: string) => PROCEDURES[path]?._def.meta?.description ?? '';

const sendReferenceFile: RequestHandler = async (request, response) => {
  const file = await readReferenceFile(request.path);
  if (!file) throw new CountersignError('not_found', 'Nothing has this path');
  response.setHeader('Content-Security-Policy', API_REFERENCE_POLICY);
  response.setHeader('Content-Type', file.type);
  response.end(file.body);
};

function createHelmet(publicUrl: string): RequestHandler {
  return helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'none'"],
        styleSrc: [STYLE_SOURCE],
        baseUri: ["'none'"],
        formAction: ["'none'"],
        frameAncestors: ["'none'"],
      },
    },
    strictTransportSecurity: publicUrl.startsWith('https:'),
  });
}

/** Says for logs and metrics which pattern took the request. */
const naming =
  (route: string): RequestHandler =>
  (_request, response, next) => {
    nameRoute(response, route);
    next();
  };

/** A route that takes GET, with HEAD, and says so to other methods. */
function get(app: Express, path: string, handler: RequestHandler) {
  app.get(path, naming(path), handler);
  app.all(path, naming(path), (_request, response) => {
    response.setHeader('Allow', 'GET, HEAD');
    throw new CountersignError('method_not_allowed', 'Wanted the method GET');
  });
}

function sendReadiness(response: ServerResponse, { ready, degraded }: Readiness) {
  sendJson(response, ready ? 200 : 503, { status: ready ? 'ready' : 'not_ready', degraded });
}

/** Refuses what is no tRPC call of ours before anything of it is read; so it also has its own request id in the answer. */
function createTrpcGate(): RequestHandler {
  return (request, response, next) => {
    nameRoute(response, trpcRoute(request));
    const refusal = refuseTrpc(request);
    if (!refusal) {
      next();
      return;
    }
    if (refusal.code === 'method_not_allowed') response.setHeader('Allow', 'POST');
    sendTrpcError(response, refusal);
  };
}

/** `application/json`, in UTF-8 where it names a character set (RFC 8259, section 8.1). */
const JSON_TYPE = /^application\/json[ \t]*(;[ \t]*charset="?utf-8"?[ \t]*)?$/i;

function refuseTrpc(request: Request): CountersignError | null {
  if (request.method !== 'POST') return new CountersignError('method_not_allowed', 'Wanted the method POST');
  if (!JSON_TYPE.test(request.headers['content-type'] ?? '')) {
    return new CountersignError(
      'unsupported_media_type',
      "Wanted the header 'Content-Type: application/json'",
    );
  }
  if (Number(request.headers['content-length'] ?? 0) > BODY_BYTES_MAX) {
    return new CountersignError('payload_too_large', `Wanted a body of at most ${BODY_BYTES_MAX} bytes`);
  }
  const calls = procedurePaths(request)?.length;
  if (calls === undefined) {
    return new CountersignError('invalid_input', 'Cannot read the path: wanted percent-encoded UTF-8');
  }
  if (calls > BATCH_SIZE_MAX) {
    return new CountersignError(
      'batch_too_large',
      `Wanted at most ${BATCH_SIZE_MAX} calls in one request, found ${calls}`,
    );
  }
  return null;
}

/** The procedures a path names, several in a batch; undefined when it cannot be decoded. */
function procedurePaths(request: Request): string[] | undefined {
  try {
    return decodeURIComponent(request.path.slice(1)).split(',');
  } catch {
    return undefined;
  }
}

function trpcRoute(request: Request): string {
  const paths = procedurePaths(request) ?? [];
  const [path = ''] = paths;
  if (paths.length > 1) return '/trpc (batch)';
  return Object.hasOwn(ACCESS, path) ? `/trpc/${path}` : '/trpc';
}

type ContextOf = (request: IncomingMessage, response: ServerResponse) => RequestContext;

/** A refusal in the shape that tRPC's own errors have. */
function sendTrpcError(response: ServerResponse, { code, status, message }: CountersignError) {
  const data: ErrorData = {
    code,
    httpStatus: status,
    requestId: requestIdOf(response),
    path: null,
    field: null,
  };
  sendJson(response, status, { error: { message, code: TRPC_ERROR_CODES_BY_KEY.BAD_REQUEST, data } });
}

/** The last word on whatever was thrown: Express' own would answer with a stack outside production. */
function createErrorHandler(logger: Logger): ErrorRequestHandler {
  return (error: unknown, _request, response, _next) => {
    const requestId = requestIdOf(response);
    const told = translate(error, requestId);
    if (told.status >= 500) logger.error({ err: error, requestId }, told.message);
    if (response.headersSent) {
      response.destroy();
      return;
    }
    if (told.code === 'unauthenticated' && !response.hasHeader('WWW-Authenticate'))
      response.setHeader('WWW-Authenticate', 'Bearer');
    const retryAfterSeconds = secondsToRetry(told);
    if (retryAfterSeconds !== undefined) response.setHeader('Retry-After', retryAfterSeconds);
    sendJson(response, told.status, toErrorEnvelope(told, requestId));
  };
}

const sendJson = (response: ServerResponse, status: number, body: unknown) =>
  sendText(response, status, JSON.stringify(body));

function sendText(response: ServerResponse, status: number, text: string) {
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
  });
  response.end(text);
}

const requestIdOf = (response: ServerResponse) => exchanges.get(response)?.requestId ?? '';

function nameRoute(response: ServerResponse, route: string) {
  const exchange = exchanges.get(response);
  if (exchange) exchange.route = route;
}

function pathnameOf(url = ''): string {
  const query = url.indexOf('?');
  return query === -1 ? url : url.slice(0, query);
}
