/** M2M tokens as JWTs, read and checked as the server does it (contract.md, M2M JWT claims). */
import { verify } from 'node:crypto';
import { isRecord } from '../answers.ts';
import type { PublicKey } from './jwks.ts';

/** What a JWT says of itself, before anything is checked. */
export interface M2mJwt {
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
  const [head = '', body = '', tail = ''] = value.split('.');
  const header = decode(head);
  const payload = decode(body);
  if (!header || !payload || !isOurHeader(header)) return null;
  const { iss, sub, jti, iat, exp, aud, scope } = payload;
  if (
    typeof iss !== 'string' ||
    typeof sub !== 'string' ||
    !sub.startsWith('mch_') ||
    typeof jti !== 'string'
  )
    return null;
  if (typeof iat !== 'number' || typeof exp !== 'number' || !isTexts(aud)) return null;
  if (scope !== undefined && typeof scope !== 'string') return null;
  const signature = Buffer.from(tail, 'base64url');
  // The last character of base64url has bits that decode to nothing: only one spelling is accepted.
  if (signature.toString('base64url') !== tail) return null;
  const claims = Object.entries(payload).filter(([name]) => !OURS.has(name));
  return {
    kid: header.kid,
    alg: header.alg,
    issuer: iss,
    id: jti,
    machineId: sub,
    audience: aud,
    scopes: scope === undefined || scope === '' ? [] : scope.split(' '),
    claims: claims.length > 0 ? Object.fromEntries(claims) : null,
    issuedAt: iat * 1000,
    expiresAt: Math.round(exp * 1000),
    signed: Buffer.from(value.slice(0, head.length + 1 + body.length)),
    signature,
  };
}

/** Nothing that the header brings along is looked at, and what must be understood is not (RFC 7515, section 4.1.11). */
const isOurHeader = (header: Record<string, unknown>): header is { kid: string; alg: string } =>
  header['typ'] === 'JWT' &&
  header['cat'] === CATEGORY &&
  header['crit'] === undefined &&
  header['b64'] === undefined &&
  typeof header['kid'] === 'string' &&
  typeof header['alg'] === 'string';

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((each) => typeof each === 'string');

/** Whether the key signed it, by the key's own algorithm (RFC 7518, sections 3.3 and 3.4; RFC 8037, section 3.1). */
export function isSignedBy({ alg, signed, signature }: M2mJwt, { key, alg: keyAlg }: PublicKey): boolean {
  if (alg !== keyAlg) return false;
  switch (keyAlg) {
    case 'RS256':
      return verify('sha256', signed, key, signature);
    case 'ES256':
      return verify('sha256', signed, { key, dsaEncoding: 'ieee-p1363' }, signature);
    case 'EdDSA':
      return verify(null, signed, key, signature);
  }
}

function decode(part: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString());
    return isRecord(value) ? value : null;
  } catch {
    return null;
  }
}
