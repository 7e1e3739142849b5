/** What one statement reads to verify an OAuth access token: the caller, the token, and all that it hangs on, as they are now. */
import { and, eq, isNull, or, placeholder } from 'drizzle-orm';
import type { Tables } from '../../db/schema.ts';
import { flatStatement } from '../../db/statement.ts';
import { verifyAccessJwt } from '../crypto/jwt.ts';
import type { Deps } from '../deps.ts';
import { type CallerLookup, diedWithKey, type Found, type Read } from './credential-rows.ts';
import type { ValidOauthToken } from './credentials.ts';
import { type CallerRow, callerColumns, judgeCaller } from './secrets.ts';

/** What a token is judged by besides its own row, where a left join found it. */
export interface OauthStanding {
  tokenId: string | null;
  tokenGeneration: number;
  tokenGrantId: string | null;
  tokenRevokedAt: number | null;
  tokenExpiresAt: number;
  /** Null where the application is gone. */
  applicationGeneration: number | null;
  applicationEnabled: boolean;
  /** Null where there is no grant, or no longer. */
  grantId: string | null;
  grantRevokedAt: number | null;
  /** Null where the user is no row of ours: then the host application knows them. */
  userEnabled: boolean | null;
  subjectEnabled: boolean | null;
  signingKeyState: string | null;
  signingKeyRetiredAt: number | null;
}

/** The columns of a standing, for whoever joins these tables as `readOauthToken…` does. */
export const standingColumns = ({
  oauthTokens: t,
  oauthApplications: a,
  oauthGrants: g,
  users: u,
  subjects: j,
  signingKeys: k,
}: Tables) => ({
  tokenId: t.id,
  tokenGeneration: t.generation,
  tokenGrantId: t.grant_id,
  tokenRevokedAt: t.revoked_at,
  tokenExpiresAt: t.expires_at,
  applicationGeneration: a.token_generation,
  applicationEnabled: a.enabled,
  grantId: g.id,
  grantRevokedAt: g.revoked_at,
  userEnabled: u.enabled,
  subjectEnabled: j.enabled,
  signingKeyState: k.state,
  signingKeyRetiredAt: k.retired_at,
});

/** By itself, with all of its application, with its grant or what is left of that, or with the key that signed it. */
export const isRevoked = (row: OauthStanding): boolean =>
  row.tokenRevokedAt !== null ||
  row.tokenGeneration < (row.applicationGeneration ?? 0) ||
  (row.tokenGrantId !== null && (row.grantId === null || row.grantRevokedAt !== null)) ||
  diedWithKey(row);

/** Its application, and on whose behalf it acts: somebody who was disabled here does nothing by others either. */
export const isEnabled = (row: OauthStanding): boolean =>
  row.applicationEnabled && row.userEnabled !== false && row.subjectEnabled !== false;

interface TokenRow extends CallerRow, OauthStanding {
  tokenApplicationId: string;
  tokenSubject: string;
  tokenOrganizationId: string | null;
  tokenAudience: string[];
  tokenScopes: string[];
  applicationClientId: string;
  applicationName: string;
}

/** A machine that may not verify other kinds has none looked up. */
function tokenStatement(by: 'hash' | 'id') {
  return flatStatement<Record<string, unknown>, TokenRow>(`verify_oauth_token_by_${by}`, (db, tables) => {
    const { secrets: s, secretKeys: k, machines: m, oauthTokens: t, oauthApplications: a } = tables;
    const { oauthGrants: g, users: u, subjects: j, signingKeys: signedBy } = tables;
    const isToken =
      by === 'hash'
        ? eq(t.hash, placeholder('hash'))
        : and(eq(t.id, placeholder('id')), eq(t.subject, placeholder('subject')), eq(t.format, 'jwt'));
    const fields = {
      ...callerColumns(tables),
      ...standingColumns(tables),
      tokenApplicationId: t.application_id,
      tokenSubject: t.subject,
      tokenOrganizationId: t.organization_id,
      tokenAudience: t.audience,
      tokenScopes: t.scopes,
      applicationClientId: a.client_id,
      applicationName: a.name,
    };
    const query = db
      .select(fields)
      .from(s)
      .leftJoin(k, and(eq(s.owner_kind, 'secret_key'), eq(k.id, s.owner_id)))
      .leftJoin(m, and(eq(s.owner_kind, 'machine'), eq(m.id, s.owner_id)))
      .leftJoin(t, and(isToken, or(isNull(m.id), eq(m.may_verify, true))))
      .leftJoin(a, eq(a.id, t.application_id))
      .leftJoin(g, eq(g.id, t.grant_id))
      .leftJoin(u, eq(u.id, t.subject))
      .leftJoin(j, eq(j.id, t.subject))
      .leftJoin(signedBy, eq(signedBy.kid, by === 'hash' ? t.signing_kid : placeholder('kid')))
      .where(eq(s.hash, placeholder('callerHash')));
    return { fields, query };
  });
}

const readByHash = tokenStatement('hash');
const readById = tokenStatement('id');

const NOBODY: Read = { principal: null, found: null };

/** Reads an opaque access token by its value. */
export async function readOauthToken(deps: Deps, caller: CallerLookup, credential: string): Promise<Read> {
  const [row] = await readByHash(deps.store.read, {
    callerHash: caller.hash,
    hash: deps.keyring.hash(credential),
  });
  return row ? { principal: judgeCaller(deps, row, caller.address), found: tokenFound(row) } : NOBODY;
}

/** Reads an access token that is a JWT by its `jti`. One that we did not sign names no row; it is read for all the same. */
export async function readOauthJwt(deps: Deps, caller: CallerLookup, credential: string): Promise<Read> {
  const signed = await verifyAccessJwt(credential, deps.publicUrl, deps.signer.find);
  const [row] = await readById(deps.store.read, {
    callerHash: caller.hash,
    id: signed?.jti ?? '',
    subject: signed?.sub ?? '',
    kid: signed?.kid ?? '',
  });
  return row ? { principal: judgeCaller(deps, row, caller.address), found: tokenFound(row) } : NOBODY;
}

const NONE: readonly never[] = [];

/** A token whose application was deleted is nobody's. */
function tokenFound(row: TokenRow): Found | null {
  if (row.tokenId === null || row.applicationGeneration === null) return null;
  const valid: ValidOauthToken = {
    valid: true,
    kind: 'oauth_token',
    id: row.tokenId,
    subject: row.tokenSubject,
    clientId: row.applicationClientId,
    applicationId: row.tokenApplicationId,
    applicationName: row.applicationName,
    scopes: row.tokenScopes,
    claims: null,
    expiresAt: row.tokenExpiresAt,
  };
  if (row.tokenGrantId !== null) valid.grantId = row.tokenGrantId;
  if (row.tokenOrganizationId !== null) valid.organizationId = row.tokenOrganizationId;
  if (row.tokenAudience.length > 0) valid.audience = row.tokenAudience;
  return {
    valid,
    reaches: null,
    resources: valid.audience ?? null,
    revoked: isRevoked(row),
    enabled: isEnabled(row),
    allowedCidrs: null,
    limits: NONE,
    credits: NONE,
  };
}
