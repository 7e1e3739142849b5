/** OAuth access tokens as JWTs (RFC 9068), read as the server does it. */
import { isTexts, readJws, scopesIn } from './jws.ts';

/** What a JWT says of itself, before anything is checked. */
export interface AccessJwt {
  kind: 'oauth_token';
  kid: string;
  alg: string;
  issuer: string;
  id: string;
  subject: string;
  clientId: string;
  grantId: string | undefined;
  organizationId: string | undefined;
  /** Resources (RFC 8707); undefined for none in particular. */
  audience: string[] | undefined;
  scopes: string[];
  /** In milliseconds since 1970-01-01 UTC. */
  issuedAt: number;
  expiresAt: number;
  signed: Buffer;
  signature: Buffer;
}

/** Null for what is not an access token of this form: the server says what it is. */
export function readAccessJwt(value: string): AccessJwt | null {
  const jws = readJws(value);
  if (jws?.header['typ'] !== 'at+jwt') return null;
  const { header, payload, signed, signature } = jws;
  const { iss, sub, jti, client_id, iat, exp, aud, scope, grant_id, org_id } = payload;
  if (typeof iss !== 'string' || typeof sub !== 'string' || typeof jti !== 'string') return null;
  if (typeof client_id !== 'string' || typeof iat !== 'number' || typeof exp !== 'number') return null;
  const scopes = scopesIn(scope);
  const audience = typeof aud === 'string' ? [aud] : aud;
  if (scopes === null || !(audience === undefined || isTexts(audience))) return null;
  if (!isTextIfAny(grant_id) || !isTextIfAny(org_id)) return null;
  return {
    kind: 'oauth_token',
    kid: header.kid,
    alg: header.alg,
    issuer: iss,
    id: jti,
    subject: sub,
    clientId: client_id,
    grantId: grant_id,
    organizationId: org_id,
    audience,
    scopes,
    issuedAt: iat * 1000,
    expiresAt: Math.round(exp * 1000),
    signed,
    signature,
  };
}

const isTextIfAny = (value: unknown): value is string | undefined =>
  value === undefined || typeof value === 'string';
