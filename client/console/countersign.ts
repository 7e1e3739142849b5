/** The server, called by the session's cookie: every procedure by tRPC, and the session itself. */
import { createTRPCClient, httpBatchLink, TRPCClientError } from '@trpc/client';
import type { inferRouterInputs, inferRouterOutputs } from '@trpc/server';
import { CountersignError, type ErrorCode } from '../../server/errors.ts';
import type { AppRouter } from '../../server/trpc/router.ts';
import { errorInEnvelope, errorOfProcedure, jsonOf } from '../answers.ts';

export type Inputs = inferRouterInputs<AppRouter>;
export type Outputs = inferRouterOutputs<AppRouter>;

const BATCH_CALLS_MAX = 50;

/** A page of another origin cannot send it, so it says that this page did. */
const OURS = { 'x-countersign': 'console' };

export const countersign = createTRPCClient<AppRouter>({
  links: [httpBatchLink({ url: '/trpc', methodOverride: 'POST', maxItems: BATCH_CALLS_MAX, headers: OURS })],
});

export interface Session {
  id: string;
  role: 'admin' | 'issuer' | 'interaction' | 'read' | 'verify';
  /** Of the secret key that it was begun with. */
  name: string;
  secretKeyId: string;
}

/** Null where nobody is signed in. */
export async function readSession(): Promise<Session | null> {
  try {
    return (await requestSession('GET')) as Session;
  } catch (error) {
    if (codeOf(error) === 'unauthenticated') return null;
    throw error;
  }
}

export const beginSession = (by: { link: string } | { secretKey: string }) =>
  requestSession('POST', by) as Promise<Session>;

export const endSession = () => requestSession('DELETE');

async function requestSession(method: string, body?: object): Promise<unknown> {
  const response = await fetch('/console/session', {
    method,
    headers: body ? { ...OURS, 'content-type': 'application/json' } : OURS,
    ...(body && { body: JSON.stringify(body) }),
  });
  if (response.status === 204) return null;
  const json = jsonOf({ status: response.status, text: await response.text() });
  const refusal = errorInEnvelope(response.status, json);
  if (refusal) throw refusal;
  return json;
}

/** What failed, in the words of the server. */
export function failureOf(error: unknown): {
  code: ErrorCode;
  message: string;
  requestId?: string | undefined;
} {
  if (error instanceof CountersignError) return error;
  if (error instanceof TRPCClientError) {
    const told = errorOfProcedure(error.message, error.data);
    if (told) return told;
  }
  return { code: 'network', message: 'The server does not answer' };
}

export const codeOf = (error: unknown): ErrorCode => failureOf(error).code;
