/** Procedures as plain functions, `nouns.machines.create(input)`: batched by tRPC, with our errors. */
import { createTRPCUntypedClient, httpBatchLink, TRPCClientError } from '@trpc/client';
import { CountersignError } from '../server/errors.ts';
import { errorInEnvelope, errorOfProcedure, foreign, isRecord, jsonOf } from './answers.ts';
import type { Patience } from './attempts.ts';
import { persist } from './attempts.ts';
import { PROCEDURES, type Procedure } from './procedures.ts';
import type { Reply } from './transport.ts';

/** As many calls as the server takes in one request. */
const BATCH_CALLS_MAX = 50;

export type CallOptions = Pick<Partial<Patience>, 'signal' | 'timeoutMs'>;
export type AnyCall = (input?: unknown, options?: CallOptions) => Promise<unknown>;
export type AnyNouns = Record<string, Record<string, AnyCall>>;

/**
 * @param url of `/trpc`.
 * @param post sends a body there; its failures are `CountersignError`s.
 */
export function createNouns(
  url: URL,
  post: (url: URL, body: string, signal: AbortSignal) => Promise<Reply>,
  patience: Patience,
): AnyNouns {
  const trpc = createTRPCUntypedClient({
    links: [
      httpBatchLink({
        url: url.href,
        methodOverride: 'POST',
        maxItems: BATCH_CALLS_MAX,
        fetch: async (target, init) => {
          const signal = init?.signal instanceof AbortSignal ? init.signal : new AbortController().signal;
          const reply = await post(new URL(target.toString()), String(init?.body), signal);
          const json = jsonOf(reply);
          const refusal = errorInEnvelope(reply.status, json);
          if (refusal) throw refusal;
          return { ok: reply.status < 300, status: reply.status, json: async () => json };
        },
      }),
    ],
  });

  const callOf =
    (path: string, { type, repeatable }: Procedure): AnyCall =>
    (input = {}, options) =>
      persist(path, repeatable || isNamed(input), { ...patience, ...options }, async (signal) => {
        try {
          return await (type === 'query'
            ? trpc.query(path, input, { signal })
            : trpc.mutation(path, input, { signal }));
        } catch (error) {
          throw asCountersignError(error);
        }
      });

  const nouns: AnyNouns = {};
  for (const [path, procedure] of Object.entries(PROCEDURES)) {
    const [noun = '', verb = ''] = path.split('.');
    const verbs = nouns[noun] ?? {};
    nouns[noun] = verbs;
    verbs[verb] = callOf(path, procedure);
  }
  return nouns;
}

/** Whether a call has a name of its own, by which the server recognises it when it comes again. */
const isNamed = (input: unknown) => isRecord(input) && typeof input['idempotencyKey'] === 'string';

function asCountersignError(error: unknown): CountersignError {
  if (!(error instanceof TRPCClientError)) throw error;
  if (error.cause instanceof CountersignError) return error.cause;
  return errorOfProcedure(error.message, error.data) ?? foreign(statusOf(error));
}

function statusOf(error: TRPCClientError<never>): number {
  const response = error.meta?.['response'];
  return response !== null && typeof response === 'object' && 'status' in response
    ? Number(response.status)
    : 0;
}
