/** Who asks at the token, introspection and revocation endpoints (RFC 6749, section 2.3): an application, or a machine. */
import type { Caller } from '../deps.ts';
import { networkOf } from '../domain/addresses.ts';
import {
  type AuthenticatedApplication,
  authenticateApplication,
} from '../domain/application-authentication.ts';
import { OauthError } from '../domain/oauth-errors.ts';
import { takeOne } from '../domain/rate-limits.ts';
import { findCaller } from '../domain/secrets.ts';
import type { OauthRequest } from './endpoint.ts';

/** By what a client proves itself; null for what there is to come. Whichever of the secret's a client registered, it may use the other. */
const METHODS = {
  client_secret_basic: true,
  client_secret_post: true,
  none: true,
  private_key_jwt: null,
  tls_client_auth: null,
} as const;

export const AUTHENTICATION_METHODS = Object.entries(METHODS).flatMap(([method, built]) =>
  built ? [method] : [],
);

export type Client =
  | { kind: 'application'; authenticated: AuthenticatedApplication }
  /** With the secret that proved it: by that it is asked about what it verifies. */
  | { kind: 'machine'; caller: Caller; secret: string };

/** Attempts that fail from one network. */
const FAILURES = { count: 120, windowSeconds: 60 };

/** Throws `invalid_client`: unknown and known clients, disabled ones and wrong secrets look alike; and `invalid_request`. */
export async function authenticateClient(request: OauthRequest): Promise<Client> {
  const { deps, address, requestId } = request;
  const { id, secret } = presentedBy(request);
  if (id.startsWith('mch_')) {
    const principal = secret === null ? null : await findCaller(deps, secret, address);
    if (secret !== null && principal?.kind === 'machine' && principal.id === id)
      return { kind: 'machine', caller: { principal, requestId }, secret };
  } else {
    const authenticated = await authenticateApplication(deps, id, secret);
    if (authenticated) return { kind: 'application', authenticated };
  }
  await takeOne(
    deps,
    `client_authentication:${networkOf(address())}`,
    FAILURES,
    `Wanted at most ${FAILURES.count} failed attempts in a minute from one network`,
  );
  throw new OauthError(
    'invalid_client',
    'Wanted the id of a client with its secret, or of a public one without',
  );
}

const ID_LENGTH_MAX = 2_048;
const SECRET_LENGTH_MAX = 1_024;

/** RFC 6749, section 2.3.1: by one of two ways, never both. */
function presentedBy({ headers, form }: OauthRequest): { id: string; secret: string | null } {
  const basic = basicCredentials(headers.authorization);
  const [id, secret] = [form.get('client_id'), form.get('client_secret')];
  if (form.get('client_assertion') !== null)
    throw new OauthError('invalid_client', "Wanted a client secret: 'client_assertion' is not supported");
  if (basic && secret)
    throw new OauthError(
      'invalid_request',
      'Wanted the client secret once, found it in the header and in the body',
    );
  if (basic && id && id !== basic.id)
    throw new OauthError(
      'invalid_request',
      'Wanted one client id, found another in the header than in the body',
    );
  const presented = basic ?? (id ? { id, secret: secret || null } : null);
  if (!presented)
    throw new OauthError('invalid_client', "Wanted a client, by 'Authorization: Basic' or 'client_id'");
  if (presented.id.length > ID_LENGTH_MAX || (presented.secret ?? '').length > SECRET_LENGTH_MAX)
    throw new OauthError('invalid_client', 'Wanted a client id and secret of ordinary length');
  return presented;
}

const BASIC = /^basic +([A-Za-z0-9+/=]{1,8192})$/i;
const IS_BASIC = /^basic\b/i;

/** Both parts are form-encoded before they are put together (RFC 6749, section 2.3.1), which not all clients do: ours need none. */
function basicCredentials(authorization: string | undefined): { id: string; secret: string | null } | null {
  if (authorization === undefined || !IS_BASIC.test(authorization)) return null;
  const encoded = BASIC.exec(authorization)?.[1];
  if (encoded === undefined)
    throw new OauthError('invalid_client', "Wanted 'Authorization: Basic' to hold base64");
  const text = Buffer.from(encoded, 'base64').toString();
  const colon = text.indexOf(':');
  if (colon === -1)
    throw new OauthError('invalid_client', "Wanted 'Authorization: Basic' to hold an id and a secret");
  const [id, secret] = [formDecoded(text.slice(0, colon)), formDecoded(text.slice(colon + 1))];
  if (id === '') throw new OauthError('invalid_client', "Wanted 'Authorization: Basic' to hold a client id");
  return { id, secret: secret === '' ? null : secret };
}

function formDecoded(text: string): string {
  if (!/[%+]/.test(text)) return text;
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    throw new OauthError('invalid_client', "Wanted 'Authorization: Basic' to hold form-encoded text");
  }
}
