/** What an application is given under a grant: an access token, and as the scopes say a refresh token and an ID token. */
import { insertStatement } from '../../db/statement.ts';
import { type Rows, storeFailure } from '../../db/store.ts';
import { PREFIXES } from '../crypto/format.ts';
import { newValue } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import { accessTokenHash, signIdToken } from '../crypto/jwt.ts';
import type { Caller, Deps } from '../deps.ts';
import type { AuthenticatedApplication, TokenApplication } from './application-authentication.ts';
import { change, type NewEvent } from './events.ts';
import type { Issued } from './oauth-client-credentials.ts';
import { OauthError } from './oauth-errors.ts';
import { type GrantRow, revokeGrant, type UserClaims } from './oauth-grants.ts';
import { belongsTo, scopesAllowed } from './oauth-requests.ts';
import { describeScopes } from './oauth-scopes.ts';
import { type WrittenOauthToken, writeOauthToken } from './oauth-tokens.ts';
import { isAmongResources } from './resources.ts';
import { maySign, type Signing, withSigning } from './token-signing.ts';
import { claimsNow, mayBeSignedIn, type UserRow } from './users.ts';

/** What is answered (RFC 6749, section 5.1; OpenID Connect Core 1.0, section 3.1.3.3). */
export interface IssuedUnderGrant extends Issued {
  refreshToken: string | null;
  /** How long the refresh token is accepted if it is not used; null without one. */
  refreshTokenExpiresInSeconds: number | null;
  idToken: string | null;
}

/** Rows that are written; what is signed is signed once they are durable. */
interface WrittenUnderGrant {
  application: TokenApplication;
  grant: GrantRow;
  claims: UserClaims;
  token: WrittenOauthToken;
  refresh: { value: string; expiresAt: number } | null;
  nonce: string | null;
}

/** A grant, and whether its user may still act. */
export interface GrantStanding {
  grant: GrantRow;
  /** Null where the user has no row: of a hand-off. */
  user: UserRow | null;
  /** Null where nothing was ever set for the subject. */
  subjectEnabled: boolean | null;
}

/** Whether something may still be issued under a grant. */
export const stands = (
  deps: Deps,
  { grant, user, subjectEnabled }: GrantStanding,
  application: TokenApplication,
): boolean =>
  (user === null || mayBeSignedIn(deps, user)) &&
  subjectEnabled !== false &&
  grant.revoked_at === null &&
  grant.generation >= application.token_generation;

/** What a code or refresh token came to: rows that were written, or none. */
interface Outcome {
  written: WrittenUnderGrant | null;
  event: NewEvent | null;
}

/** Nothing was written, and nothing is to be told. */
const REFUSED: Outcome = { written: null, event: null };

/** What is done with a code or a refresh token: each is good once. */
interface Use<Found extends GrantStanding> {
  /** Null where it is refused; one that was used before is found all the same. */
  find(rows: Rows): Promise<Found | null>;
  isUsed(found: Found): boolean;
  /** Throws where too much was issued. Asked before anything is written, and not of what was used before. */
  admit?(found: Found): Promise<void>;
  /** Marks it as used, and answers whether it was not before. */
  use(tx: Rows, found: Found): Promise<boolean>;
  /** Why its grant is revoked where it was. */
  reuse: 'code_reused' | 'refresh_token_reused';
  /** Writes what follows; `allowed` is what the application may be given now. */
  write(
    tx: Rows,
    found: Found,
    given: { allowed: readonly string[]; signing: Signing | null },
  ): Promise<{ written: WrittenUnderGrant; event: NewEvent | null }>;
}

/**
 * Uses it and writes what follows in one transaction with its event; null where it is refused. A second use revokes its grant
 * with all that the first was issued (RFC 9700, sections 4.5 and 4.14.2), also while the disk is full: for that there is room.
 */
export async function issueUnderGrant<Found extends GrantStanding>(
  deps: Deps,
  { application }: AuthenticatedApplication,
  requestId: string,
  { find, isUsed, admit, use, reuse, write }: Use<Found>,
): Promise<IssuedUnderGrant | null> {
  // What was made up takes neither the writer nor a place in a status list; what is there is judged again where it is used.
  const presented = await find(deps.store.read);
  if (!presented) return null;
  if (!isUsed(presented)) await admit?.(presented);
  const allowed = await scopesAllowed(deps, application);
  const caller: Caller = { principal: { kind: 'oauth_application', id: application.id }, requestId };

  async function useOnce(tx: Rows, signing: Signing | null): Promise<Outcome> {
    const found = await find(tx);
    if (!found) return REFUSED;
    if (await use(tx, found)) return write(tx, found, { allowed, signing });
    return { written: null, event: await revokeGrant(tx, deps, found.grant.id, reuse) };
  }

  async function revokeReused(tx: Rows): Promise<NewEvent | null> {
    const found = await find(tx);
    return found && isUsed(found) ? revokeGrant(tx, deps, found.grant.id, reuse) : null;
  }

  const { written } = await withSigning(deps, application.access_token_format, (signing) =>
    change<Outcome | null>(
      deps,
      caller,
      async (tx) => {
        if (!(await maySign(tx, signing))) return { result: null, event: null };
        const outcome = await useOnce(tx, signing);
        return { result: outcome, event: outcome.event };
      },
      'minting',
    ),
  ).catch(async (error: unknown) => {
    if (storeFailure(error) === 'full')
      await change(
        deps,
        caller,
        async (tx) => ({ result: null, event: await revokeReused(tx) }),
        'revocation',
      );
    throw error;
  });
  return written && valuesOf(deps, written);
}

interface Wanted {
  /** What the code or refresh token was allowed. */
  granted: string[];
  /** What the application may be given now. */
  allowed: readonly string[];
  /** Null for all of that. */
  asked: string[] | null;
  /** Those of the grant it is to be for; empty for all of them. */
  resources: string[];
  signing: Signing | null;
  nonce: string | null;
}

/** Throws `invalid_scope` where nothing is left of what is asked for, and `invalid_target`. */
export async function writeTokensOf(
  tx: Rows,
  deps: Deps,
  { application, secretId }: AuthenticatedApplication,
  { grant, user }: GrantStanding,
  { granted, allowed, asked, resources, signing, nonce }: Wanted,
): Promise<WrittenUnderGrant> {
  const audience = audienceOf(application, grant, resources);
  // Not what was deleted meanwhile, also where there is another of that name later.
  const described = await describeScopes(tx, granted);
  const known = described.map(({ name }) => name);
  const ofAudience = described.filter((scope) => belongsTo(scope, audience)).map(({ name }) => name);
  const scopes = narrowed(ofAudience, allowed, asked);
  const token = await writeOauthToken(
    tx,
    deps,
    { application, secretId, grant, scopes, resources: audience },
    signing,
  );
  const refresh = await writeRefreshToken(tx, deps, application, grant, known);
  const claims = claimsNow(deps, user, grant.claims);
  return { application, grant, claims, token, refresh, nonce };
}

/** Fewer resources than were allowed may be; none in particular instead of them may not. */
function audienceOf(
  { audiences }: TokenApplication,
  { resources: granted }: GrantRow,
  asked: string[],
): string[] {
  if (!asked.every((resource) => isAmongResources(resource, granted)))
    throw new OauthError('invalid_target', "Wanted 'resource' to be one that the user was asked for");
  const wanted = asked.length > 0 ? asked : granted;
  const audience = wanted.filter((resource) => audiences === null || isAmongResources(resource, audiences));
  if (audience.length < asked.length || (audience.length === 0 && wanted.length > 0))
    throw new OauthError('invalid_target', "The application's tokens may not be for that 'resource'");
  return audience;
}

/** What was granted, is still the application's to be given, and is asked for. */
function narrowed(
  granted: readonly string[],
  allowed: readonly string[],
  asked: readonly string[] | null,
): string[] {
  const scopes = granted.filter(
    (scope) => allowed.includes(scope) && (asked === null || asked.includes(scope)),
  );
  if (scopes.length === 0 && asked !== null)
    throw new OauthError('invalid_scope', "Wanted 'scope' to name scopes that were granted, found none");
  return scopes;
}

/** Null where the application may not use one, or the user did not let it stay. */
async function writeRefreshToken(
  tx: Rows,
  deps: Deps,
  application: TokenApplication,
  grant: GrantRow,
  scopes: string[],
): Promise<{ value: string; expiresAt: number } | null> {
  if (!application.grant_types.includes('refresh_token') || !scopes.includes('offline_access')) return null;
  const now = deps.now();
  const { value } = newValue(PREFIXES.refreshToken);
  const idleEnd = now + application.refresh_token_idle_seconds * 1000;
  const expiresAt = Math.min(idleEnd, grant.expires_at ?? Number.POSITIVE_INFINITY);
  await insertRow(tx, {
    id: sortableId('ort_', now),
    hash: deps.keyring.hash(value),
    pepper_version: deps.keyring.pepperVersion,
    grant_id: grant.id,
    application_id: application.id,
    scopes,
    created_at: now,
    expires_at: expiresAt,
    used_at: null,
  });
  return { value, expiresAt };
}

const insertRow = insertStatement('oauth_refresh_token_insert', 'oauthRefreshTokens');

async function valuesOf(
  deps: Deps,
  { application, grant, claims, token, refresh, nonce }: WrittenUnderGrant,
): Promise<IssuedUnderGrant> {
  const { row } = token;
  const accessToken = await token.value();
  return {
    accessToken,
    expiresInSeconds: application.access_token_ttl_seconds,
    scopes: row.scopes,
    refreshToken: refresh?.value ?? null,
    refreshTokenExpiresInSeconds: refresh && Math.floor((refresh.expiresAt - row.created_at) / 1000),
    idToken: row.scopes.includes('openid')
      ? await idTokenOf(deps, { application, grant, claims, nonce, scopes: row.scopes, accessToken })
      : null,
  };
}

/** It is read as it is got, and is no credential: a new one comes with each refresh. */
const ID_TOKEN_SECONDS = 600;

interface IdTokenParts {
  application: TokenApplication;
  grant: GrantRow;
  claims: UserClaims;
  nonce: string | null;
  scopes: readonly string[];
  accessToken: string;
}

/** OpenID Connect Core 1.0, section 2. */
async function idTokenOf(
  deps: Deps,
  { application, grant, claims, nonce, scopes, accessToken }: IdTokenParts,
): Promise<string> {
  const key = await deps.signer.active();
  const issuedAt = Math.floor(deps.now() / 1000);
  const payload = {
    ...claimsFor(claims, scopes),
    iss: deps.publicUrl,
    sub: grant.subject,
    aud: application.client_id,
    iat: issuedAt,
    exp: issuedAt + ID_TOKEN_SECONDS,
    auth_time: Math.floor(grant.auth_time / 1000),
    at_hash: accessTokenHash(key.alg, accessToken),
    ...(nonce !== null && { nonce }),
    ...(grant.organization_id !== null && { org_id: grant.organization_id }),
  };
  return signIdToken(key, JSON.stringify(payload));
}

/** Which claims a scope lets out (OpenID Connect Core 1.0, section 5.4). */
const CLAIMS_OF_SCOPES: Readonly<Record<string, readonly (keyof UserClaims)[]>> = {
  profile: ['name', 'given_name', 'family_name', 'preferred_username', 'picture'],
  email: ['email', 'email_verified'],
};

/** What an application may know of a user. */
export function claimsFor(claims: UserClaims, scopes: readonly string[]): UserClaims {
  const names = scopes.flatMap((scope) => CLAIMS_OF_SCOPES[scope] ?? []);
  return Object.fromEntries(
    names.flatMap((name) => (claims[name] === undefined ? [] : [[name, claims[name]]])),
  );
}
