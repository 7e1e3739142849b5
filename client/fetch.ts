/** `countersign/fetch`: protects handlers of `Request` and `Response`, as of Hono, Next.js, Deno, Bun and workers. */
import type { CredentialKind } from '../server/crypto/format.ts';
import { createConsentHandler, type OAuthConsentHandlerOptions } from './consent-handler.ts';
import { type PageAnswer, type PageRequest, readWhole } from './page-requests.ts';
import { type ApiKeysHandlerOptions, createPanelHandler } from './panel-handler.ts';
import { type Answer, type Auth, createJudge, type ProtectOptions } from './protected-resource.ts';
import { type ResourceMetadataOptions, resourceMetadata } from './resource-metadata.ts';

export type { ConsentUser, OAuthConsentHandlerOptions } from './consent-handler.ts';
export type { ApiKeysHandlerOptions, PanelGrant } from './panel-handler.ts';
export {
  type Auth,
  type CredentialVerifier,
  clientVerifier,
  type ProtectOptions,
  type Refusal,
  type VerifyQuestion,
} from './protected-resource.ts';
export type { ResourceMetadataOptions } from './resource-metadata.ts';

export interface Protection<K extends CredentialKind, A> {
  /** Either whose request it is, or the response that refuses it. */
  judge(
    request: Request,
  ): Promise<{ auth: Auth<K> | A; refusal?: undefined } | { auth?: undefined; refusal: Response }>;
  /** A handler that calls `handler` with whose request it is, and answers all others itself. */
  handle<More extends unknown[]>(
    handler: (request: Request, auth: Auth<K> | A, ...more: More) => Response | Promise<Response>,
  ): (request: Request, ...more: More) => Promise<Response>;
}

/** Protects by the options. Without `optional`, no handler is called without `auth`. */
export function protect<K extends CredentialKind = CredentialKind>(
  options: ProtectOptions<Request, K> & { optional: true },
): Protection<K, undefined>;
export function protect<K extends CredentialKind = CredentialKind>(
  options: ProtectOptions<Request, K>,
): Protection<K, never>;
export function protect<K extends CredentialKind>(
  options: ProtectOptions<Request, K>,
): Protection<K, undefined> {
  const judgeRequest = createJudge(options, valuesOf);

  async function judge(request: Request) {
    const { auth, answer } = await judgeRequest(request);
    return answer ? { refusal: toResponse(answer) } : { auth };
  }

  return {
    judge,
    handle:
      (handler) =>
      async (request, ...more) => {
        const { auth, refusal } = await judge(request);
        return refusal ?? handler(request, auth, ...more);
      },
  };
}

/** The response to `GET /.well-known/oauth-protected-resource`, with the resource's path behind it; null for all else. */
export function protectedResourceMetadata(
  options: ResourceMetadataOptions,
): (request: Request) => Response | null {
  const { path, headers, body } = resourceMetadata(options);
  return ({ url, method }) =>
    new URL(url).pathname === path && ['GET', 'HEAD'].includes(method)
      ? new Response(method === 'GET' ? body : null, { headers })
      : null;
}

/**
 * Answers what `countersign/react` asks, by POST below any path: a route of all paths below it, as in
 * `app.post('/api/keys/*', …)` or `app/api/keys/[procedure]/route.ts`.
 */
export const apiKeysHandler = (
  options: ApiKeysHandlerOptions<Request>,
): ((request: Request) => Promise<Response>) => answering(createPanelHandler(options));

/** The same for the consent page of an application that users are handed off to. */
export const oauthConsentHandler = (
  options: OAuthConsentHandlerOptions<Request>,
): ((request: Request) => Promise<Response>) => answering(createConsentHandler(options));

const answering =
  (handle: (asked: PageRequest<Request>) => Promise<PageAnswer>) =>
  async (request: Request): Promise<Response> =>
    toResponse(
      await handle({
        request,
        method: request.method,
        path: new URL(request.url).pathname,
        header: (name) => request.headers.get(name) ?? undefined,
        body: async () => (request.body ? readWhole(request.body) : ''),
      }),
    );

/** One that came twice is one with a comma, and no credential has both comma and space. */
function valuesOf({ headers }: Request, name: string): readonly string[] {
  const value = headers.get(name);
  return value === null ? [] : [value];
}

const toResponse = ({ status, headers, body }: Answer) => new Response(body, { status, headers });
