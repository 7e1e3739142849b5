/**
 * What the middlewares of all frameworks share: takes the credential from a request, has it judged, and says how a
 * request that is refused is answered (RFC 6750, RFC 9728).
 */
import type { CredentialKind } from '../server/crypto/format.ts';
import { isAmongResources } from '../server/domain/resources.ts';
import { CountersignError, ERRORS, type ErrorCode } from '../server/errors.ts';
import type { Countersign, VerifyInput, VerifyResult } from './countersign.ts';
import { metadataUrl } from './resource-metadata.ts';

/** What is asked of a credential besides that it be valid. */
export interface VerifyQuestion extends Omit<VerifyInput, 'credential' | 'dpop'> {
  /** The same as `ip`: who sends values that nobody knows is limited by it, where a verifier does so. */
  clientAddress?: string;
}

/** Whoever judges credentials: the verifier of `countersign/verifier`, or a client by `clientVerifier`. */
export interface CredentialVerifier {
  /** Throws where it cannot tell; what throws is never taken for valid. */
  verify(value: string, question?: VerifyQuestion): Promise<VerifyResult>;
}

/** A verifier that asks the server each time, by a client of `createCountersign`. */
export const clientVerifier = (countersign: Pick<Countersign, 'verify'>): CredentialVerifier => ({
  verify: (credential, { clientAddress: _, ...question } = {}) =>
    countersign.verify({ ...question, credential }),
});

/** Whose request it is, by `kind`: the fields of docs/verify.md. */
export type Auth<K extends CredentialKind = CredentialKind> = Extract<VerifyResult, { valid: true; kind: K }>;

export interface ProtectOptions<R, K extends CredentialKind = CredentialKind> {
  verifier: CredentialVerifier;
  /** The kinds that will do. Without it, all. */
  kinds?: readonly K[] | undefined;
  /** Scopes the credential must have, every one. */
  scopes?: readonly string[] | undefined;
  /** The machine an M2M token was presented to; needed where the verifier asks with a secret key. */
  audience?: string | undefined;
  /** Credits that the request costs. */
  cost?: number | undefined;
  /** A header that may hold the credential instead of `Authorization: Bearer`, such as `x-api-key`. */
  header?: string | undefined;
  /** The end client's address, as this service knows it: no header is believed by itself. */
  ip?: ((request: R) => string | undefined) | undefined;
  /** Lets a request without a credential pass, with no `auth`. One with an invalid credential is refused all the same. */
  optional?: boolean | undefined;
  /** Values for which it answers false are left to others, such as session tokens: the request counts as one without. */
  isOurs?: ((value: string) => boolean) | undefined;
  /** Names what is protected, in challenges. Default: `countersign`. */
  realm?: string | undefined;
  /**
   * The URL of this resource as its metadata has it (RFC 9728): challenges then say where those are, and OAuth tokens that
   * are for other resources are refused (RFC 8707).
   */
  resource?: string | undefined;
  /** Refuses OAuth tokens that are for no resource in particular too, as MCP asks of its servers. Needs `resource`. */
  resourceRequired?: boolean | undefined;
  /** Told of every refusal; for logs. What it throws is ignored. */
  onRefusal?: ((refusal: Refusal, request: R) => void) | undefined;
}

/** Why a request was refused, for the service itself: the client is told `code`, `reason` and `message` alone. */
export interface Refusal {
  status: number;
  code: ErrorCode;
  message: string;
  /** Why the credential is not valid, as `verify` answered. */
  reason?: InvalidReason;
  /** Of the credential, where it is known. */
  id?: string;
  subject?: string;
  /** What the verifier threw. */
  cause?: unknown;
}

type InvalidReason = Extract<VerifyResult, { valid: false }>['reason'];

/** A refusal as it is sent. */
export interface Answer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

export type Judgement<K extends CredentialKind> =
  | { auth: Auth<K> | undefined; answer?: undefined }
  | { auth?: undefined; answer: Answer };

/** The values of one header of a request, each where it came more than once. */
export type ReadHeader<R> = (request: R, name: string) => readonly string[];

/**
 * Judges requests by the options; never rejects: what cannot be judged is refused. Throws `invalid_input` for options
 * that could not be told in a challenge.
 */
export function createJudge<R, K extends CredentialKind>(
  options: ProtectOptions<R, K>,
  readHeader: ReadHeader<R>,
): (request: R) => Promise<Judgement<K>> {
  const challenge = createChallenge(options);
  const question = questionOf(options);

  function refuse(request: R, refusal: Refusal, error?: BearerError, retryAfterMs?: number): Judgement<K> {
    try {
      options.onRefusal?.(refusal, request);
    } catch {
      // Whoever cannot write its log refuses nevertheless.
    }
    return { answer: answerOf(refusal, challenge(refusal.status, error), retryAfterMs) };
  }

  return async (request) => {
    try {
      const found = credentialOf(request, options, readHeader);
      if ('malformed' in found) {
        const refusal = { status: 400, code: 'invalid_input' as const, message: found.malformed };
        return refuse(request, refusal, { code: 'invalid_request', description: found.malformed });
      }
      const { value } = found;
      if (value === null) {
        return options.optional ? { auth: undefined } : refuse(request, MISSING);
      }
      const ip = options.ip?.(request);
      const verified = await options.verifier.verify(value, {
        ...question,
        ...(ip !== undefined && { ip, clientAddress: ip }),
      });
      const result = heldTo(verified, options);
      if (result.valid === true) return { auth: result as Auth<K> };
      const { code, status, message } = MEANINGS[result.reason] ?? INVALID;
      const { reason, id, subject, retryAfterMs } = result as Invalid;
      const refusal = { status, code, message, reason, ...(id && { id }), ...(subject && { subject }) };
      return refuse(request, refusal, bearerErrorOf(refusal), retryAfterMs);
    } catch (cause) {
      return refuse(request, { ...UNAVAILABLE, cause }, undefined, retryAfterOf(cause));
    }
  };
}

type Invalid = Extract<VerifyResult, { valid: false }> & {
  id?: string;
  subject?: string;
  retryAfterMs?: number;
};

function questionOf<R, K extends CredentialKind>(options: ProtectOptions<R, K>): VerifyQuestion {
  const { kinds, scopes, audience, resource, cost } = options;
  return {
    ...(kinds && { kinds: [...kinds] }),
    ...(scopes && { scopes: [...scopes] }),
    ...(audience !== undefined && { audience }),
    ...(resource !== undefined && { resource }),
    ...(cost !== undefined && { cost }),
  };
}

/** RFC 6750, section 2.1; the scheme's name is matched in any case (RFC 9110, section 11.1). */
const BEARER = /^bearer( .*|)$/i;
const VALUE = /^[\x21-\x7e]{1,16384}$/;

/** The one path by which a credential is taken from a request: null for none of ours. */
function credentialOf<R>(
  request: R,
  { header, isOurs }: Pick<ProtectOptions<R>, 'header' | 'isOurs'>,
  readHeader: ReadHeader<R>,
): { value: string | null } | { malformed: string } {
  const named = header === undefined ? [] : readHeader(request, header);
  const authorization = readHeader(request, 'authorization');
  const bearer = authorization.flatMap((field) => BEARER.exec(field)?.[1]?.trim() ?? []);
  const [value] = [...named, ...bearer];
  if (named.length + bearer.length > 1 || authorization.length > 1)
    return { malformed: 'Wanted one credential, found several' };
  if (value === undefined) return { value: null };
  if (!VALUE.test(value)) return { malformed: 'Wanted a credential without spaces, found something else' };
  return { value: isOurs && !isOurs(value) ? null : value };
}

/** What was asked for holds even where a verifier overlooks it. */
function heldTo<R, K extends CredentialKind>(
  result: VerifyResult,
  { kinds, scopes = [], resource, resourceRequired }: ProtectOptions<R, K>,
): VerifyResult {
  if (result.valid !== true) return result;
  if (kinds && !kinds.includes(result.kind as K)) return { valid: false, reason: 'wrong_kind' };
  if (resource !== undefined && !isForResource(result, resource, resourceRequired === true))
    return { valid: false, reason: 'wrong_audience' };
  if (scopes.every((scope) => result.scopes.includes(scope))) return result;
  return { valid: false, reason: 'insufficient_scope' };
}

function isForResource(result: Auth, resource: string, isRequired: boolean): boolean {
  if (result.kind !== 'oauth_token') return true;
  return result.audience ? isAmongResources(resource, result.audience) : !isRequired;
}

interface Meaning {
  status: number;
  code: ErrorCode;
  message: string;
}

const meaning = (code: ErrorCode, message: string): Meaning => ({
  status: ERRORS[code].status,
  code,
  message,
});

const MISSING = meaning('unauthenticated', 'Wanted a credential, found none');
const INVALID = meaning('unauthenticated', 'The credential is not valid');
const UNAVAILABLE = meaning('unavailable', 'Cannot verify the credential now');

/** How reasons are answered where they are no plain 401. */
const MEANINGS: Partial<Record<InvalidReason, Meaning>> = {
  revoked: meaning('unauthenticated', 'The credential was revoked'),
  disabled: meaning('unauthenticated', 'The credential is disabled'),
  expired: meaning('unauthenticated', 'The credential has expired'),
  ip_not_allowed: meaning('forbidden', 'The credential may not be used from this address'),
  insufficient_scope: meaning('forbidden', 'The credential lacks a scope that this needs'),
  rate_limited: meaning('rate_limited', 'The credential was used too often'),
  out_of_credits: meaning('out_of_credits', 'The credential has too few credits left'),
};

/** RFC 6750, section 3.1. */
interface BearerError {
  code: 'invalid_request' | 'invalid_token' | 'insufficient_scope';
  description: string;
}

function bearerErrorOf({ status, reason, message }: Refusal): BearerError | undefined {
  if (status === 401) return { code: 'invalid_token', description: message };
  return reason === 'insufficient_scope' ? { code: reason, description: message } : undefined;
}

/** The `WWW-Authenticate` of a status, or null where there is nothing to ask for. */
function createChallenge<R, K extends CredentialKind>(options: ProtectOptions<R, K>) {
  if (options.resourceRequired && options.resource === undefined)
    throw new CountersignError('invalid_input', "Cannot protect: wanted 'resource' with 'resourceRequired'", {
      field: 'resource',
    });
  const { realm = 'countersign', scopes = [], resource } = options;
  for (const [field, text] of [['realm', realm], ...scopes.map((scope) => ['scopes', scope])] as const)
    assertQuotable(field as string, text as string);
  const scope = scopes.length > 0 ? { scope: scopes.join(' ') } : {};
  const metadata = resource === undefined ? {} : { resource_metadata: metadataUrl(resource) };
  return (status: number, error: BearerError | undefined): string | null => {
    if (status !== 401 && error === undefined) return null;
    const parameters = {
      realm,
      ...(error && { error: error.code, error_description: error.description }),
      ...(error?.code === 'invalid_request' ? {} : scope),
      ...metadata,
    };
    return `Bearer ${Object.entries(parameters)
      .map(([name, value]) => `${name}="${value}"`)
      .join(', ')}`;
  };
}

/** What RFC 6750 lets stand between quotes without escaping. */
function assertQuotable(field: string, text: string) {
  if (/^[\x20\x21\x23-\x5b\x5d-\x7e]*$/.test(text)) return;
  throw new CountersignError(
    'invalid_input',
    `Cannot protect: '${field}' must be printable ASCII without quotes and backslashes`,
    { field },
  );
}

function answerOf(
  { status, code, message, reason }: Refusal,
  challenge: string | null,
  retryAfterMs: number | undefined,
): Answer {
  return {
    status,
    headers: {
      'content-type': 'application/json',
      'cache-control': 'no-store',
      ...(challenge !== null && { 'www-authenticate': challenge }),
      ...(retryAfterMs !== undefined && {
        'retry-after': String(Math.max(1, Math.ceil(retryAfterMs / 1000))),
      }),
    },
    body: JSON.stringify({ code, ...(reason !== undefined && { reason }), message }),
  };
}

const retryAfterOf = (error: unknown) => (error instanceof CountersignError ? error.retryAfterMs : undefined);
