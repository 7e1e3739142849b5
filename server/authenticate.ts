import { mayCall, whoMayCall } from './access.ts';
import type { Caller, Deps, Principal } from './deps.ts';
import { findSession } from './domain/operator-sessions.ts';
import { findSessionUser } from './domain/panel-issuers.ts';
import { findPanelToken, isPanelToken } from './domain/panel-tokens.ts';
import { type Address, findCaller, type Presented } from './domain/secrets.ts';
import { countCaller } from './domain/usage.ts';
import { CountersignError } from './errors.ts';

/** RFC 6750, section 2.1; the scheme's name is matched in any case (RFC 9110, section 11.1). */
const BEARER = /^bearer +([\x21-\x7e]{1,16384})$/i;

/** The one place a caller's credential is taken from. */
export function bearerValue(authorization: string | undefined): string | null {
  return BEARER.exec(authorization ?? '')?.[1] ?? null;
}

/** What a transport knows of a request before anybody is authenticated. */
export interface RequestContext {
  deps: Deps;
  authorization: string | undefined;
  /** The value of a console's session, where one of our own pages sent it and there is no other credential. */
  session?: string | undefined;
  /** The client's address: that of the peer, or what trusted proxies say of it. */
  address: Address;
  requestId: string;
}

/** What a request presents as its caller's credential. */
export const presentedBy = ({ authorization, address }: RequestContext): Presented => ({
  value: bearerValue(authorization),
  address,
});

/** The caller behind an `Authorization` header, if it may call the procedure; throws `unauthenticated` or `forbidden`. */
export async function authenticate(request: RequestContext, path: string): Promise<Caller> {
  const { deps, requestId } = request;
  const presented = presentedBy(request);
  if (presented.value === null && request.session !== undefined)
    return authenticateSession(request, request.session, path);
  const authorized = authorize(await findPrincipal(deps, presented, path), path, presented.value !== null);
  // Verifying counts its caller itself, once for each credential.
  if (!path.startsWith('credentials.')) countCaller(deps.usage, authorized, deps.now());
  return { principal: authorized, requestId };
}

async function authenticateSession(
  { deps, address, requestId }: RequestContext,
  session: string,
  path: string,
): Promise<Caller> {
  const found = await findSession(deps, session, address);
  if (!found) throw new CountersignError('unauthenticated', 'The session has ended: sign in again');
  return { principal: authorize(found.principal, path, true), requestId };
}

/** An application's own session tokens are looked at where they may count, and nowhere else. */
async function findPrincipal(
  deps: Deps,
  { value, address }: Presented,
  path: string,
): Promise<Principal | null> {
  if (value === null) return null;
  if (isPanelToken(value)) return findPanelToken(deps, value);
  const caller = await findCaller(deps, value, address);
  return caller ?? (isForEndUsers(path) ? findSessionUser(deps, value) : null);
}

const isForEndUsers = (path: string) => whoMayCall(path).includes('end_user');

/** The same judgement on a principal that was read together with what it asks about. */
export function authorize(principal: Principal | null, path: string, presented: boolean): Principal {
  if (!principal) {
    const wanted = isForEndUsers(path)
      ? 'panel token, or session token of a trusted issuer'
      : 'secret key or machine secret key';
    throw new CountersignError(
      'unauthenticated',
      presented
        ? `The credential in the 'Authorization' header is not a live ${wanted}`
        : `Wanted the header 'Authorization: Bearer' with a ${wanted}, found none`,
    );
  }
  if (!mayCall(principal, path))
    throw new CountersignError('forbidden', `${nameOf(principal)} may not call '${path}'`);
  return principal;
}

function nameOf(principal: Principal): string {
  switch (principal.kind) {
    case 'secret_key':
      return `A secret key with the role '${principal.role}'`;
    case 'end_user':
      return 'An end user';
    case 'user':
      return 'A user';
    case 'oauth_application':
      return 'An OAuth application';
    case 'machine':
    case 'system':
      return 'A machine';
  }
}
