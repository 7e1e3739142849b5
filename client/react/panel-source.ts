/** Where a panel's answers come from: the application's own origin, or the server itself with a panel token. */
import type { inferRouterInputs, inferRouterOutputs } from '@trpc/server';
import type { AppRouter } from '../../server/trpc/router.ts';
import { askPage } from './page-answers.ts';

type Inputs = inferRouterInputs<AppRouter>['panelKeys'];
type Outputs = inferRouterOutputs<AppRouter>['panelKeys'];
type GrantInputs = inferRouterInputs<AppRouter>['panelGrants'];
type GrantOutputs = inferRouterOutputs<AppRouter>['panelGrants'];

/** An API key as its owner is shown it. */
export type PanelKey = Outputs['list']['data'][number];
export type PanelOptions = Outputs['options'];
export type PanelKeyUsage = Outputs['usage'];
export type PanelKeyPage = Outputs['list'];
export type RotatedPanelKey = Outputs['rotate'];
export type CreatedPanelKey = Outputs['create'];

/** An application that a user let act for them, as that user is shown it. */
export type ConnectedApplication = GrantOutputs['list']['data'][number];
export type ConnectedApplicationPage = GrantOutputs['list'];
export type WithdrawnApplication = GrantOutputs['revoke'];

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
  listApplications(input: GrantInputs['list'], signal?: AbortSignal): Promise<ConnectedApplicationPage>;
  /** Takes back all that an application was allowed. */
  revokeApplication(input: GrantInputs['revoke']): Promise<WithdrawnApplication>;
}

type Verb = `panelKeys.${keyof Outputs}` | `panelGrants.${keyof GrantOutputs}`;

export function createPanelSource({ url, getToken }: PanelSourceOptions): PanelSource {
  const base = url.replace(/\/$/, '');

  const ask = <T>(verb: Verb, input?: object, signal?: AbortSignal) =>
    askPage<T>(`${base}/${verb}`, input, { signal, getToken });

  return {
    options: (signal) => ask('panelKeys.options', undefined, signal),
    list: (input, signal) => ask('panelKeys.list', input, signal),
    create: (input) => ask('panelKeys.create', input),
    update: (input) => ask('panelKeys.update', input),
    rotate: (input) => ask('panelKeys.rotate', input),
    completeRotation: (input) => ask('panelKeys.completeRotation', input),
    revoke: (input) => ask('panelKeys.revoke', input),
    usage: (input, signal) => ask('panelKeys.usage', input, signal),
    listApplications: (input, signal) => ask('panelGrants.list', input, signal),
    revokeApplication: (input) => ask('panelGrants.revoke', input),
  };
}
