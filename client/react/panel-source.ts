/** Where a panel's answers come from: the application's own origin, or the server itself with a panel token. */
import type { inferRouterInputs, inferRouterOutputs } from '@trpc/server';
import { CountersignError } from '../../server/errors.ts';
import type { AppRouter } from '../../server/trpc/router.ts';
import { errorOfProcedure, foreign, isRecord, jsonOf } from '../answers.ts';

type Inputs = inferRouterInputs<AppRouter>['panelKeys'];
type Outputs = inferRouterOutputs<AppRouter>['panelKeys'];

/** An API key as its owner is shown it. */
export type PanelKey = Outputs['list']['data'][number];
export type PanelOptions = Outputs['options'];
export type PanelKeyUsage = Outputs['usage'];
export type PanelKeyPage = Outputs['list'];
export type RotatedPanelKey = Outputs['rotate'];
export type CreatedPanelKey = Outputs['create'];

/** Without `getToken`, `url` is where the application has mounted `apiKeysHandler`. With it, the server's own `/trpc`. */
export interface PanelSourceOptions {
  url: string;
  /** A panel token of the one who is signed in, or a session token of a trusted issuer. Asked for before each request. */
  getToken?: (() => string | null | Promise<string | null>) | undefined;
}

export interface PanelSource {
  options(signal?: AbortSignal): Promise<PanelOptions>;
  list(input: Inputs['list'], signal?: AbortSignal): Promise<PanelKeyPage>;
  create(input: Inputs['create']): Promise<CreatedPanelKey>;
  update(input: Inputs['update']): Promise<PanelKey>;
  rotate(input: Inputs['rotate']): Promise<RotatedPanelKey>;
  completeRotation(input: Inputs['completeRotation']): Promise<PanelKey>;
  revoke(input: Inputs['revoke']): Promise<PanelKey>;
  usage(input: Inputs['usage'], signal?: AbortSignal): Promise<PanelKeyUsage>;
}

export function createPanelSource({ url, getToken }: PanelSourceOptions): PanelSource {
  const base = url.replace(/\/$/, '');

  async function ask<T>(verb: keyof Outputs, input?: object, signal?: AbortSignal): Promise<T> {
    const response = await fetch(`${base}/panelKeys.${verb}`, {
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

  return {
    options: (signal) => ask('options', undefined, signal),
    list: (input, signal) => ask('list', input, signal),
    create: (input) => ask('create', input),
    update: (input) => ask('update', input),
    rotate: (input) => ask('rotate', input),
    completeRotation: (input) => ask('completeRotation', input),
    revoke: (input) => ask('revoke', input),
    usage: (input, signal) => ask('usage', input, signal),
  };
}

/** The application's own handler is told that its own page is asking, which a page of another origin cannot say. */
async function callerHeaders(getToken: PanelSourceOptions['getToken']): Promise<Record<string, string>> {
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
