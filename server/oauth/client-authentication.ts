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

export type Client =
  | { kind: 'application'; authenticated: AuthenticatedApplication }
  /** With the secret that proved it: by that it is asked about what it verifies. */
  | { kind: 'machine'; caller: Caller; secret: string };

/** Attempts that fail from one network. */
const FAILURES = { count: 120, windowSeconds: 60 };

type Authenticate = (request: OauthRequest) => Promise<Client | null>;

/** By what a client proves itself; null for what there is to come. Whichever of the secret's a client registered, it may use the other. */
const METHODS = {
  client_secret_basic: (request) => find(request, inHeader(request)),
  client_secret_post: (request) => find(request, inBody(request)),
  none: (request) => find(request, inBody(request)),
  private_key_jwt: null,
  tls_client_auth: null,
} as const satisfies Record<string, Authenticate | null>;

type Method = keyof typeof METHODS;

export const AUTHENTICATION_METHODS = (Object.keys(METHODS) as Method[]).filter((method) => METHODS[method]);

/** Throws `invalid_client`: unknown and known clients, disabled ones and wrong secrets look alike; and `invalid_request`. */
export async function authenticateClient(request: OauthRequest): Promise<Client> {
  const client = await authenticateOf(request)(request);
  if (client) return client;
  await takeOne(
    request.deps,
    `client_authentication:${networkOf(request.address())}`,
    FAILURES,
    `Wanted at most ${FAILURES.count} failed attempts in a minute from one network`,
  );
  throw new OauthError(
    'invalid_client',
    'Wanted the id of a client with its secret, or of a public one without',
  );
}

function authenticateOf(request: OauthRequest): Authenticate {
  const method = methodOf(request);
  const authenticate = METHODS[method];
  if (authenticate) return authenticate;
  throw new OauthError(
    'invalid_client',
    `Wanted a client by one of ${AUTHENTICATION_METHODS.join(', ')}, found '${method}'`,
  );
}

/** RFC 6749, section 2.3: by one of them, never more. An assertion is RFC 7521's, section 4.2. */
function methodOf({ headers, form }: OauthRequest): Method {
  if (form.get('client_assertion') !== null) return 'private_key_jwt';
  const isBasic = IS_BASIC.test(headers.authorization ?? '');
  const hasSecret = Boolean(form.get('client_secret'));
  if (isBasic && hasSecret)
    throw new OauthError(
      'invalid_request',
      'Wanted the client secret once, found it in the header and in the body',
    );
  if (isBasic) return 'client_secret_basic';
  return hasSecret ? 'client_secret_post' : 'none';
}

interface Credentials {
  id: string;
  secret: string | null;
}

/** Null for one that is not known by that. */
async function find(
  { deps, address, requestId }: OauthRequest,
  { id, secret }: Credentials,
): Promise<Client | null> {
  if (id.length > ID_LENGTH_MAX || (secret ?? '').length > SECRET_LENGTH_MAX)
    throw new OauthError('invalid_client', 'Wanted a client id and secret of ordinary length');
  if (!id.startsWith('mch_')) {
    const authenticated = await authenticateApplication(deps, id, secret);
    return authenticated && { kind: 'application', authenticated };
  }
  const principal = secret === null ? null : await findCaller(deps, secret, address);
  if (secret === null || principal?.kind !== 'machine' || principal.id !== id) return null;
  return { kind: 'machine', caller: { principal, requestId }, secret };
}

const ID_LENGTH_MAX = 2_048;
const SECRET_LENGTH_MAX = 1_024;

function inBody({ form }: OauthRequest): Credentials {
  const id = form.get('client_id');
  if (!id)
    throw new OauthError('invalid_client', "Wanted a client, by 'Authorization: Basic' or 'client_id'");
  return { id, secret: form.get('client_secret') || null };
}

const BASIC = /^basic +([A-Za-z0-9+/=]{1,8192})$/i;
const IS_BASIC = /^basic\b/i;

/** Both parts are form-encoded before they are put together (RFC 6749, section 2.3.1), which not all clients do: ours need none. */
function inHeader({ headers, form }: OauthRequest): Credentials {
  const encoded = BASIC.exec(headers.authorization ?? '')?.[1];
  if (encoded === undefined)
    throw new OauthError('invalid_client', "Wanted 'Authorization: Basic' to hold base64");
  const text = Buffer.from(encoded, 'base64').toString();
  const colon = text.indexOf(':');
  if (colon === -1)
    throw new OauthError('invalid_client', "Wanted 'Authorization: Basic' to hold an id and a secret");
  const [id, secret] = [formDecoded(text.slice(0, colon)), formDecoded(text.slice(colon + 1))];
  if (id === '') throw new OauthError('invalid_client', "Wanted 'Authorization: Basic' to hold a client id");
  const idInBody = form.get('client_id');
  if (idInBody && idInBody !== id)
    throw new OauthError(
      'invalid_request',
      'Wanted one client id, found another in the header than in the body',
    );
  return { id, secret: secret || null };
}

function formDecoded(text: string): string {
  if (!/[%+]/.test(text)) return text;
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    throw new OauthError('invalid_client', "Wanted 'Authorization: Basic' to hold form-encoded text");
  }
}
