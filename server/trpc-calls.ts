/**
 * tRPC over HTTP. JSON is answered here, be it of one call or of a batch; what is rare is left to tRPC's own adapter. That
 * makes a `Request` of each, whose signals follow others by weak references, and V8 keeps what such a reference leads to
 * until it collects the whole heap: three times as often under a load of administrative calls, and for as long as a
 * hundred milliseconds.
 */
import { callTRPCProcedure, getTRPCErrorFromUnknown, TRPCError, transformTRPCResponse } from '@trpc/server';
import { createExpressMiddleware } from '@trpc/server/adapters/express';
import { getHTTPStatusCodeFromError } from '@trpc/server/http';
import { getErrorShape } from '@trpc/server/shared';
import type { Request, RequestHandler, Response } from 'express';
import type { RequestContext } from './authenticate.ts';
import { secondsToRetry } from './errors.ts';
import type { Logger } from './logger.ts';
import { translate } from './translate.ts';
import type { ProcedureMeta } from './trpc/base.ts';
import { appRouter } from './trpc/router.ts';

export interface TrpcOptions {
  contextOf: (request: Request, response: Response) => RequestContext;
  logger: Logger;
  bodyBytesMax: number;
  batchSizeMax: number;
}

type ProcedureType = 'query' | 'mutation' | 'subscription';

/** At run time a flat record by path, whatever its type says. */
export const PROCEDURES = appRouter._def.procedures as unknown as Readonly<
  Record<string, { _def: { type: ProcedureType; meta?: ProcedureMeta } }>
>;

const CONFIG = appRouter._def._config;

/** What tRPC's adapter says. */
const HEADERS = { 'Content-Type': 'application/json', Vary: 'trpc-accept, accept' };

/** Call it with requests by POST alone, of a path that can be decoded and names no more calls than a batch may have. */
export function createTrpc(options: TrpcOptions): RequestHandler {
  const adapt = createAdapter(options);
  return (request, response, next) => {
    const isBatch = new URLSearchParams(request.url.split('?')[1]).get('batch') === '1';
    const calls = callsOf(request, isBatch);
    const types = new Set(calls.flatMap(({ type }) => type ?? []));
    // Queries and mutations in one batch are refused by the adapter, in its own words.
    if (wantsLines(request) || types.size > 1) adapt(request, response, next);
    else answer(request, response, { ...options, calls, isBatch }).catch(next);
  };
}

/** As `httpBatchStreamLink` asks for answers: a line for each, as soon as there is one. */
const wantsLines = ({ headers }: Request) =>
  headers['trpc-accept'] !== undefined || headers.accept?.includes('application/jsonl') === true;

interface Call {
  path: string;
  /** None where no procedure has this path. */
  type: ProcedureType | undefined;
}

/** What the last part of the path names: several with commas between them in a batch. */
function callsOf({ path }: Request, isBatch: boolean): Call[] {
  const last = decodeURIComponent(path.slice(path.lastIndexOf('/') + 1));
  const paths = isBatch ? last.split(',') : [last];
  return paths.map((one) => ({
    path: one,
    type: Object.hasOwn(PROCEDURES, one) ? PROCEDURES[one]?._def.type : undefined,
  }));
}

interface Answering extends TrpcOptions {
  calls: readonly Call[];
  isBatch: boolean;
}

async function answer(
  request: Request,
  response: Response,
  { calls, isBatch, ...options }: Answering,
): Promise<void> {
  const ctx = options.contextOf(request, response);
  const body = new Body(request, options.bodyBytesMax, isBatch);
  const outcomes = await Promise.all(calls.map((call, index) => outcomeOf(call, index, ctx, body)));
  // The client went away in the middle of its body: there is nobody to answer, and nothing failed.
  if (request.errored) return;
  for (const { path, error } of outcomes)
    if (error) reportFailure(options.logger, error, path, ctx.requestId);
  const seconds = secondsToRetryAll(outcomes.flatMap(({ error }) => error ?? []));
  if (seconds > 0) response.setHeader('Retry-After', seconds);
  const answers = outcomes.map((outcome) => outcome.answer);
  send(response, statusOf(outcomes), isBatch ? answers : answers[0]);
}

interface Outcome {
  path: string;
  error: TRPCError | null;
  answer: unknown;
}

async function outcomeOf(
  { path, type }: Call,
  batchIndex: number,
  ctx: RequestContext,
  body: Body,
): Promise<Outcome> {
  try {
    if (type === undefined) throw new TRPCError({ code: 'NOT_FOUND' });
    const data: unknown = await callTRPCProcedure({
      router: appRouter,
      path,
      // Read no sooner than the caller is known.
      getRawInput: () => body.input(batchIndex),
      ctx,
      type,
      signal: undefined,
      batchIndex,
    });
    return { path, error: null, answer: transformTRPCResponse(CONFIG, { result: { data } }) };
  } catch (thrown) {
    const error = getTRPCErrorFromUnknown(thrown);
    const shape = getErrorShape({
      config: CONFIG,
      ctx,
      error,
      input: body.readInput(batchIndex),
      path,
      type: type ?? 'unknown',
    });
    return { path, error, answer: transformTRPCResponse(CONFIG, { error: shape }) };
  }
}

/** That of all calls, or 207 where they differ. */
function statusOf(outcomes: readonly Outcome[]): number {
  const statuses = new Set(outcomes.map(({ error }) => (error ? getHTTPStatusCodeFromError(error) : 200)));
  const [status = 207, ...others] = statuses;
  return others.length === 0 ? status : 207;
}

/** Of one request: read once it is asked for, and no more of it than it may be. */
class Body {
  readonly #request: Request;
  readonly #bytesMax: number;
  readonly #isBatch: boolean;
  #reading: Promise<void> | undefined;
  #inputs: Readonly<Record<number, unknown>> | undefined;

  constructor(request: Request, bytesMax: number, isBatch: boolean) {
    this.#request = request;
    this.#bytesMax = bytesMax;
    this.#isBatch = isBatch;
  }

  /** The input of one call of the request; undefined where none is given. */
  async input(batchIndex: number): Promise<unknown> {
    this.#reading ??= this.#readInputs();
    await this.#reading;
    return this.readInput(batchIndex);
  }

  /** What was read of it, if it was: for saying of a refused input which shape it had. */
  readInput(batchIndex: number): unknown {
    return this.#inputs?.[batchIndex];
  }

  async #readInputs(): Promise<void> {
    const text = (await this.#read()).toString();
    const parsed = text === '' ? undefined : parse(text);
    if (!this.#isBatch) this.#inputs = { 0: parsed };
    else if (isObject(parsed)) this.#inputs = parsed;
    else if (parsed !== undefined)
      throw new TRPCError({ code: 'BAD_REQUEST', message: 'Wanted an object of inputs by number' });
  }

  #read(): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      let length = 0;
      this.#request.on('data', (chunk: Buffer) => {
        length += chunk.length;
        if (length > this.#bytesMax) reject(new TRPCError({ code: 'PAYLOAD_TOO_LARGE' }));
        else chunks.push(chunk);
      });
      this.#request.on('end', () => resolve(Buffer.concat(chunks)));
      this.#request.on('error', reject);
    });
  }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new TRPCError({ code: 'BAD_REQUEST', cause });
  }
}

function send(response: Response, status: number, answers: unknown): void {
  const text = JSON.stringify(answers);
  response.writeHead(status, { ...HEADERS, 'Content-Length': Buffer.byteLength(text) });
  response.end(text);
}

function createAdapter({ contextOf, logger, bodyBytesMax, batchSizeMax }: TrpcOptions): RequestHandler {
  return createExpressMiddleware({
    router: appRouter,
    allowMethodOverride: true,
    maxBatchSize: batchSizeMax,
    maxBodySize: bodyBytesMax,
    createContext: ({ req, res }) => contextOf(req, res),
    responseMeta({ errors }) {
      const seconds = secondsToRetryAll(errors);
      return seconds > 0 ? { headers: new Headers({ 'Retry-After': `${seconds}` }) } : {};
    },
    onError({ error, path, ctx }) {
      const { requestId = '' } = (ctx ?? {}) as Partial<RequestContext>;
      reportFailure(logger, error, path, requestId);
    },
  });
}

const secondsToRetryAll = (errors: readonly TRPCError[]) =>
  Math.max(0, ...errors.map((error) => secondsToRetry(translate(error, '')) ?? 0));

function reportFailure(logger: Logger, error: TRPCError, path: string | undefined, requestId: string) {
  const told = translate(error, requestId);
  if (told.status >= 500) logger.error({ err: error.cause ?? error, path, requestId }, told.message);
}
