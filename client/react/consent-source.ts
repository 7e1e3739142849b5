/** Where a consent page's answers come from: the application's own origin, where it has mounted `oauthConsentHandler`. */
import type { inferRouterOutputs } from '@trpc/server';
import type { AppRouter } from '../../server/trpc/router.ts';
import { askPage } from './page-answers.ts';

type Outputs = inferRouterOutputs<AppRouter>['interactions'];

/** What an OAuth application asks for, and of whom. */
export type ConsentRequest = Outputs['get'] & {
  user: { name: string; organizations: { id: string; name: string }[] };
};

export interface ConsentSource {
  get(id: string, signal: AbortSignal): Promise<ConsentRequest>;
  /** Answers where the browser goes next. */
  allow(decision: {
    id: string;
    /** Null where nothing was asked for, and only who the user is is said. */
    scopes: string[] | null;
    organizationId: string | null;
  }): Promise<string>;
  deny(id: string): Promise<string>;
}

export function createConsentSource(url: string): ConsentSource {
  const base = url.replace(/\/$/, '');
  const ask = <T>(verb: 'get' | 'allow' | 'deny', input: object, signal?: AbortSignal) =>
    askPage<T>(`${base}/oauthConsent.${verb}`, input, { signal });
  return {
    get: (id, signal) => ask('get', { id }, signal),
    allow: async (decision) => (await ask<Outputs['complete']>('allow', decision)).resumeUrl,
    deny: async (id) => (await ask<Outputs['deny']>('deny', { id })).resumeUrl,
  };
}
