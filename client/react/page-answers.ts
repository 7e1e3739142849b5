/** Asks by POST for what a procedure answers, at the page's own origin or, with a token, at the server. */
import { CountersignError } from '../../server/errors.ts';
import { errorOfProcedure, foreign, isRecord, jsonOf } from '../answers.ts';

export interface Asking {
  signal?: AbortSignal | undefined;
  /** Asked for before each request; without it, the page's own origin is asked, with its cookies. */
  getToken?: (() => string | null | Promise<string | null>) | undefined;
}

export async function askPage<T>(
  url: string,
  input: object | undefined,
  { signal, getToken }: Asking,
): Promise<T> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(await callerHeaders(getToken)) },
    credentials: getToken ? 'omit' : 'same-origin',
    ...(input && { body: JSON.stringify(input) }),
    ...(signal && { signal }),
  }).catch((cause: unknown) => {
    if (signal?.aborted) throw signal.reason;
    throw new CountersignError('network', 'The server does not answer', { cause });
  });
  return answerIn<T>({ status: response.status, text: await response.text() });
}

/** The application's own handler is told that its own page is asking, which a page of another origin cannot say. */
async function callerHeaders(getToken: Asking['getToken']): Promise<Record<string, string>> {
  if (!getToken) return { 'x-countersign': 'panel' };
  const token = await getToken();
  if (token === null) throw new CountersignError('unauthenticated', 'Nobody is signed in');
  return { authorization: `Bearer ${token}` };
}

function answerIn<T>(reply: { status: number; text: string }): T {
  const body = jsonOf(reply);
  if (!isRecord(body)) throw foreign(reply.status);
  const { error, result } = body;
  if (isRecord(error))
    throw errorOfProcedure(String(error['message']), error['data']) ?? foreign(reply.status);
  if (!isRecord(result)) throw foreign(reply.status);
  return result['data'] as T;
}
