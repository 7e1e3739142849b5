/** What every router is made from: the context, the one authenticator in front of all procedures, and errors. */
import { initTRPC, TRPCError } from '@trpc/server';
import { authenticate, type RequestContext } from '../authenticate.ts';
import type { Caller } from '../deps.ts';
import type { ErrorCode } from '../errors.ts';
import { translate } from '../translate.ts';

/** What a procedure may touch. */
export interface CallContext extends RequestContext {
  caller: Caller;
}

export interface ProcedureMeta {
  /** Shown by the command line. */
  description: string;
  /** Whether a client may repeat the call when it does not know if it was carried out. */
  idempotent?: boolean;
}

/** The error's `data` on the wire. */
export interface ErrorData {
  code: ErrorCode;
  httpStatus: number;
  requestId: string;
  path: string | null;
  field: string | null;
  /** How long until the same may be asked for again, where that is known. */
  retryAfterMs?: number;
}

// `object` and not the real context: its type would drag the database's declarations into the client's.
const t = initTRPC
  .context<object>()
  .meta<ProcedureMeta>()
  .create({
    isDev: false,
    errorFormatter: ({ shape, error, path, input, ctx }) => {
      const requestId = (ctx as RequestContext | undefined)?.requestId ?? '';
      const told = translate(error, requestId, input);
      const data: ErrorData = {
        code: told.code,
        httpStatus: told.status,
        requestId,
        path: path ?? null,
        field: told.field ?? null,
        ...(told.retryAfterMs !== undefined && { retryAfterMs: told.retryAfterMs }),
      };
      return { code: shape.code, message: told.message, data };
    },
  });

export const router = t.router;
export const createCallerFactory = t.createCallerFactory;

/** tRPC answers with the HTTP status of its own codes. */
const TRPC_CODES: Record<number, TRPCError['code']> = {
  400: 'BAD_REQUEST',
  401: 'UNAUTHORIZED',
  403: 'FORBIDDEN',
  404: 'NOT_FOUND',
  405: 'METHOD_NOT_SUPPORTED',
  409: 'CONFLICT',
  413: 'PAYLOAD_TOO_LARGE',
  415: 'UNSUPPORTED_MEDIA_TYPE',
  429: 'TOO_MANY_REQUESTS',
  500: 'INTERNAL_SERVER_ERROR',
  503: 'SERVICE_UNAVAILABLE',
};

/** Every procedure is made from this one: nobody reaches an input, let alone the domain, without being authenticated. */
export const procedure = t.procedure.use(async ({ ctx, path, next }) => {
  const request = ctx as RequestContext;
  const callContext: CallContext = {
    ...request,
    caller: await authenticate(request, path).catch(asTrpcError),
  };
  const result = await next({ ctx: callContext });
  // `next` resolves with a failure, it does not throw; here it is given its HTTP status.
  return result.ok ? result : asTrpcError(result.error);
});

function asTrpcError(error: unknown): never {
  if (error instanceof TRPCError && !error.cause) throw error;
  const told = translate(error, '');
  throw new TRPCError({
    code: TRPC_CODES[told.status] ?? 'INTERNAL_SERVER_ERROR',
    message: told.message,
    cause: error instanceof TRPCError ? error.cause : error,
  });
}
