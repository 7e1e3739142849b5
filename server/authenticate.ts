import { mayCall } from './access.ts';
import type { Caller, Deps, Principal } from './deps.ts';
import { findSession } from './domain/operator-sessions.ts';
import { type Address, findCaller, type Presented } from './domain/secrets.ts';
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
  const { value, address } = presentedBy(request);
  if (value === null && request.session !== undefined)
    return authenticateSession(request, request.session, path);
  const principal = value === null ? null : await findCaller(deps, value, address);
  const authorized = authorize(principal, path, value !== null);
  // Verifying counts its caller itself, once for each credential.
  if (authorized.kind !== 'system' && !path.startsWith('credentials.'))
    deps.usage.count(authorized.kind, authorized.id, true, deps.now());
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

/** The same judgement on a principal that was read together with what it asks about. */
export function authorize(principal: Principal | null, path: string, presented: boolean): Principal {
  if (!principal) {
    throw new CountersignError(
      'unauthenticated',
      presented
        ? "The credential in the 'Authorization' header is not a live secret key or machine secret key"
        : "Wanted the header 'Authorization: Bearer' with a secret key or machine secret key, found none",
    );
  }
  if (!mayCall(principal, path)) {
    const who =
      principal.kind === 'secret_key' ? `A secret key with the role '${principal.role}'` : 'A machine';
    throw new CountersignError('forbidden', `${who} may not call '${path}'`);
  }
  return principal;
}
