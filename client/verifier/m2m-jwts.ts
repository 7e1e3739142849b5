/** M2M tokens as JWTs, read as the server does it (contract.md, M2M JWT claims). */
import { isTexts, readJws, scopesIn } from './jws.ts';

/** What a JWT says of itself, before anything is checked. */
export interface M2mJwt {
  kind: 'm2m_token';
  kid: string;
  alg: string;
  issuer: string;
  id: string;
  machineId: string;
  audience: string[];
  scopes: string[];
  claims: Record<string, unknown> | null;
  /** In milliseconds since 1970-01-01 UTC. */
  issuedAt: number;
  expiresAt: number;
  signed: Buffer;
  signature: Buffer;
}

/** Clerk's class of M2M tokens, by which they are told from sessions. */
const CATEGORY = 'cl_B7d4PD333AAA';

/** What is in the payload and not among the claims that were minted. */
const OURS: ReadonlySet<string> = new Set('iss sub aud exp nbf iat jti scope scopes status'.split(' '));

/** Null for what is not an M2M token of this form: the server says what it is. */
export function readM2mJwt(value: string): M2mJwt | null {
  const jws = readJws(value);
  if (jws?.header['typ'] !== 'JWT' || jws.header['cat'] !== CATEGORY) return null;
  const { header, payload, signed, signature } = jws;
  const { iss, sub, jti, iat, exp, aud, scope } = payload;
  if (typeof iss !== 'string' || typeof sub !== 'string' || typeof jti !== 'string') return null;
  if (!sub.startsWith('mch_') || typeof iat !== 'number' || typeof exp !== 'number') return null;
  const scopes = scopesIn(scope);
  if (!isTexts(aud) || scopes === null) return null;
  const claims = Object.entries(payload).filter(([name]) => !OURS.has(name));
  return {
    kind: 'm2m_token',
    kid: header.kid,
    alg: header.alg,
    issuer: iss,
    id: jti,
    machineId: sub,
    audience: aud,
    scopes,
    claims: claims.length > 0 ? Object.fromEntries(claims) : null,
    issuedAt: iat * 1000,
    expiresAt: Math.round(exp * 1000),
    signed,
    signature,
  };
}
