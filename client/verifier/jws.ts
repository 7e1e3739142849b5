/** A compact JWS as our tokens are: what it says before anything is checked, and whether a key signed it. */
import { verify } from 'node:crypto';
import { isRecord } from '../answers.ts';
import type { PublicKey } from './jwks.ts';

export interface Jws {
  header: Record<string, unknown> & { kid: string; alg: string };
  payload: Record<string, unknown>;
  signed: Buffer;
  signature: Buffer;
}

/** Null for what is none, and for a header that says more than how it is signed. */
export function readJws(value: string): Jws | null {
  const [head = '', body = '', tail = ''] = value.split('.');
  const header = decode(head);
  const payload = decode(body);
  if (!header || !payload || !isOurHeader(header)) return null;
  const signature = Buffer.from(tail, 'base64url');
  // The last character of base64url has bits that decode to nothing: only one spelling is accepted.
  if (signature.toString('base64url') !== tail) return null;
  return { header, payload, signed: Buffer.from(value.slice(0, head.length + 1 + body.length)), signature };
}

/** Nothing that the header brings along is looked at, and what must be understood is not (RFC 7515, section 4.1.11). */
const isOurHeader = (header: Record<string, unknown>): header is Jws['header'] =>
  header['crit'] === undefined &&
  header['b64'] === undefined &&
  typeof header['kid'] === 'string' &&
  typeof header['alg'] === 'string';

/** Whether the key signed it, by the key's own algorithm (RFC 7518, sections 3.3 and 3.4; RFC 8037, section 3.1). */
export function isSignedBy(
  { alg, signed, signature }: Pick<Jws, 'signed' | 'signature'> & { alg: string },
  { key, alg: keyAlg }: PublicKey,
): boolean {
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

export const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((each) => typeof each === 'string');

/** The scopes in a claim of them (RFC 8693, section 4.2); null where it is something else. */
export function scopesIn(claim: unknown): string[] | null {
  if (claim === undefined || claim === '') return [];
  return typeof claim === 'string' ? claim.split(' ') : null;
}

function decode(part: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString());
    return isRecord(value) ? value : null;
  } catch {
    return null;
  }
}
