/** `countersign/express`: protects routes of Express 4 and 5, and of whatever else calls `(request, response, next)`. */
import type { CredentialKind } from '../server/crypto/format.ts';
import { CountersignError } from '../server/errors.ts';
import { createConsentHandler, type OAuthConsentHandlerOptions } from './consent-handler.ts';
import { type PageAnswer, type PageRequest, readWhole } from './page-requests.ts';
import { type ApiKeysHandlerOptions, createPanelHandler } from './panel-handler.ts';
import { type Auth, createJudge, type ProtectOptions } from './protected-resource.ts';
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

/** What is used of a request: Express's, or `node:http`'s. */
export interface RequestLike {
  method?: string | undefined;
  url?: string | undefined;
  originalUrl?: string | undefined;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Of Node: a header that came twice is not hidden by the first. */
  headersDistinct?: Readonly<Record<string, string[] | undefined>>;
}

/** What is used of a response. */
export interface ResponseLike {
  statusCode: number;
  setHeader(name: string, value: string): unknown;
  end(body?: string): unknown;
}

export type Middleware<R extends RequestLike> = (
  request: R,
  response: ResponseLike,
  next: (error?: unknown) => void,
) => void;

export interface ProtectingMiddleware<R extends RequestLike, K extends CredentialKind, A>
  extends Middleware<R> {
  /** Whose request it is, by type. Throws `internal` for a request that this middleware did not let pass. */
  authOf(request: object): Auth<K> | A;
}

/**
 * A middleware that lets requests with a valid credential pass, and answers all others. `request.auth` is then what
 * `verify` answered; `authOf(request)` is the same, typed by `kinds`.
 */
export function protect<R extends RequestLike, K extends CredentialKind = CredentialKind>(
  options: ProtectOptions<R, K> & { optional: true },
): ProtectingMiddleware<R, K, undefined>;
export function protect<R extends RequestLike, K extends CredentialKind = CredentialKind>(
  options: ProtectOptions<R, K>,
): ProtectingMiddleware<R, K, never>;
export function protect<R extends RequestLike, K extends CredentialKind>(
  options: ProtectOptions<R, K>,
): ProtectingMiddleware<R, K, undefined> {
  const judge = createJudge(options, valuesOf);
  const passed = new WeakMap<object, Auth<K> | undefined>();

  const middleware: Middleware<R> = (request, response, next) => {
    void judge(request).then(({ auth, answer }) => {
      if (answer) return send(response, answer.status, answer.headers, answer.body);
      passed.set(request, auth);
      if (auth) Object.assign(request, { auth });
      next();
    });
  };
  return Object.assign(middleware, {
    authOf(request: object) {
      if (passed.has(request)) return passed.get(request);
      throw new CountersignError(
        'internal',
        'This request did not pass the middleware that is asked about it',
      );
    },
  });
}

/** Answers `GET /.well-known/oauth-protected-resource`, with the resource's path behind it, and lets all else pass. */
export function protectedResourceMetadata(options: ResourceMetadataOptions): Middleware<RequestLike> {
  const { path, headers, body } = resourceMetadata(options);
  return (request, response, next) => {
    const [asked] = (request.originalUrl ?? request.url ?? '').split('?');
    if (asked !== path || !['GET', 'HEAD'].includes(request.method ?? '')) return next();
    send(response, 200, headers, request.method === 'GET' ? body : undefined);
  };
}

/**
 * Answers what `countersign/react` asks, below the path that it is mounted at, as in
 * `app.use('/api/keys', apiKeysHandler({ resolveSubject }))`. A body that a parser before it read is taken from
 * `request.body`.
 */
export const apiKeysHandler = <R extends RequestLike>(options: ApiKeysHandlerOptions<R>): Middleware<R> =>
  answering(createPanelHandler(options));

/**
 * The same for the consent page of an application that users are handed off to, as in
 * `app.use('/oauth-consent', oauthConsentHandler({ resolveUser }))`.
 */
export const oauthConsentHandler = <R extends RequestLike>(
  options: OAuthConsentHandlerOptions<R>,
): Middleware<R> => answering(createConsentHandler(options));

function answering<R extends RequestLike>(
  handle: (asked: PageRequest<R>) => Promise<PageAnswer>,
): Middleware<R> {
  return (request, response) => {
    const [path = ''] = (request.originalUrl ?? request.url ?? '').split('?');
    const header = (name: string) => valuesOf(request, name)[0];
    const asked = { request, method: request.method ?? '', path, header, body: () => bodyOf(request) };
    void handle(asked).then(({ status, headers, body }) => send(response, status, headers, body));
  };
}

/** As Node and Express have it: a parser may have read it already, or left something there and not read it. */
interface BodyLike extends AsyncIterable<Uint8Array> {
  body?: unknown;
  readableDidRead?: boolean;
}

async function bodyOf(request: RequestLike): Promise<string> {
  const { body, readableDidRead } = request as RequestLike & BodyLike;
  if (body === undefined || readableDidRead === false) return readWhole(request as RequestLike & BodyLike);
  if (body instanceof Uint8Array) return new TextDecoder().decode(body);
  return typeof body === 'string' ? body : JSON.stringify(body);
}

function valuesOf({ headers, headersDistinct }: RequestLike, name: string): readonly string[] {
  const field = name.toLowerCase();
  return headersDistinct?.[field] ?? [headers[field] ?? []].flat();
}

function send(response: ResponseLike, status: number, headers: Record<string, string>, body?: string) {
  response.statusCode = status;
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  response.end(body);
}
