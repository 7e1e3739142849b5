/** The only importer of jose. Algorithms come from our list alone; keys come from our set alone, by `kid`. */
import { createHash, createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';
import {
  type CompactJWSHeaderParameters,
  type CompactVerifyResult,
  compactVerify,
  createLocalJWKSet,
  errors,
  exportJWK,
  generateKeyPair,
  importJWK,
  type JWK,
  jwtVerify,
} from 'jose';
import type { CredentialKind } from './format.ts';

export const SIGNING_ALGS = ['RS256', 'ES256', 'EdDSA'] as const;
export type SigningAlg = (typeof SIGNING_ALGS)[number];

/** How far another's clock may be off. */
const CLOCK_TOLERANCE_SECONDS = 5;

export type { JWK };

type Key = Awaited<ReturnType<typeof importJWK>>;

export interface SigningKey {
  kid: string;
  alg: SigningAlg;
  key: Key;
}

/** The active key, by which new tokens are signed. */
export interface PrivateSigningKey {
  kid: string;
  alg: SigningAlg;
  /** Signs a payload, given as JSON, under the header parameters that tell its class, beside `alg` and `kid`. */
  sign(header: JwtClass, payload: string): string | Promise<string>;
}

type JwtClass = Readonly<Record<string, string | undefined>>;

/** A key as the JWKS publishes it (RFC 7517, section 4): never its private half. */
export type PublicJwk = Record<string, string>;

/** A fresh key pair as JWKs. RSA is 2048 bits with e = 65537: Clerk's SDK reads no other. */
export async function generateSigningKey(
  alg: SigningAlg,
): Promise<{ publicJwk: PublicJwk; privateJwk: JWK }> {
  const pair = await generateKeyPair(alg, { extractable: true, modulusLength: 2048 });
  return {
    publicJwk: (await exportJWK(pair.publicKey)) as PublicJwk,
    privateJwk: await exportJWK(pair.privateKey),
  };
}

export const importKey = (jwk: PublicJwk, alg: SigningAlg): Promise<Key> => importJWK(jwk as JWK, alg);

/** `typ` and `cat` tell our kinds of JWT apart; `cat` is Clerk's class of M2M tokens, so that none passes as a session. */
const M2M_HEADER = { typ: 'JWT', cat: 'cl_B7d4PD333AAA' };

/**
 * Compact serialisation (RFC 7515, section 3.1) by node:crypto: jose signs by Web Crypto, which costs as much again as the
 * signature of an elliptic curve itself.
 */
export function openSigningKey(kid: string, alg: SigningAlg, privateJwk: JWK): PrivateSigningKey {
  const signInput = SIGNERS[alg](createPrivateKey({ key: { ...privateJwk }, format: 'jwk' }));
  const headers = new WeakMap<JwtClass, string>();
  function encodedHeader(header: JwtClass): string {
    const known = headers.get(header);
    if (known !== undefined) return known;
    const encoded = Buffer.from(JSON.stringify({ ...header, alg, kid })).toString('base64url');
    headers.set(header, encoded);
    return encoded;
  }
  return {
    kid,
    alg,
    sign(header, payload) {
      const input = `${encodedHeader(header)}.${Buffer.from(payload).toString('base64url')}`;
      const signature = signInput(Buffer.from(input));
      return signature instanceof Promise
        ? signature.then((bytes) => serialise(input, bytes))
        : serialise(input, signature);
    },
  };
}

/** Signs the claims of an M2M token, given as JSON (contract.md, M2M JWT claims). */
export const signM2mJwt = (key: PrivateSigningKey, claims: string) => key.sign(M2M_HEADER, claims);

/** RFC 9068, section 2.1. */
const ACCESS_TOKEN_HEADER = { typ: 'at+jwt' };

/** Signs the claims of an OAuth access token, given as JSON (RFC 9068, section 2.2). */
export const signAccessJwt = (key: PrivateSigningKey, claims: string) =>
  key.sign(ACCESS_TOKEN_HEADER, claims);

/** threats.md, JWTs: by its `cat` Clerk's SDK refuses it as a session. */
const ID_TOKEN_HEADER = { typ: 'JWT', cat: 'countersign_id' };

/** Signs an ID token, given as JSON (OpenID Connect Core 1.0, section 2). */
export const signIdToken = (key: PrivateSigningKey, claims: string) => key.sign(ID_TOKEN_HEADER, claims);

/** `at_hash` of an access token: half of the hash that goes with the algorithm (OpenID Connect Core 1.0, section 3.1.3.6). */
export function accessTokenHash(alg: SigningAlg, accessToken: string): string {
  const digest = createHash(alg === 'EdDSA' ? 'sha512' : 'sha256')
    .update(accessToken)
    .digest();
  return digest.subarray(0, digest.length / 2).toString('base64url');
}

/** No verifier of tokens takes it for one: it has a `typ` of its own, and the `cat` that Clerk's SDK refuses. */
const CHECKPOINT_HEADER = { typ: 'countersign-checkpoint+jwt', cat: 'countersign_id' };

/** Signs what the log was at an instant, given as JSON. */
export const signCheckpoint = (key: PrivateSigningKey, payload: string) =>
  key.sign(CHECKPOINT_HEADER, payload);

/** The type is fixed by draft-ietf-oauth-status-list, section 5.1; the `cat` is for Clerk's SDK, as in a checkpoint. */
const STATUS_LIST_HEADER = { typ: 'statuslist+jwt', cat: 'countersign_id' };

/** Signs a status list, given as JSON. */
export const signStatusList = (key: PrivateSigningKey, payload: string) =>
  key.sign(STATUS_LIST_HEADER, payload);

/** The payload of a checkpoint by one of our keys, or null where it is none. */
export async function openCheckpoint(
  jws: string,
  findKey: (kid: string) => Promise<SigningKey | null>,
): Promise<Record<string, unknown> | null> {
  const verified = await verifySignature(jws, findKey);
  if (!verified) return null;
  const { protectedHeader } = verified;
  const { typ, cat } = CHECKPOINT_HEADER;
  if (protectedHeader.typ !== typ || protectedHeader['cat'] !== cat) return null;
  return JSON.parse(Buffer.from(verified.payload).toString()) as Record<string, unknown>;
}

const serialise = (input: string, signature: Buffer) => `${input}.${signature.toString('base64url')}`;

const signOffTheLoop = promisify(sign);

/** RFC 7518, sections 3.3 and 3.4; RFC 8037, section 3.1. RSA takes most of a millisecond, which the event loop is spared. */
const SIGNERS: Record<SigningAlg, (key: KeyObject) => (input: Buffer) => Buffer | Promise<Buffer>> = {
  RS256: (key) => (input) => signOffTheLoop('sha256', input, key),
  ES256: (key) => (input) => sign('sha256', input, { key, dsaEncoding: 'ieee-p1363' }),
  EdDSA: (key) => (input) => sign(null, input, key),
};

/**
 * What kind of credential a compact JWS says it is, before anything is checked, or null when its header or payload is
 * not a JSON object. Access tokens are told apart by their `typ` (RFC 9068, section 2.1).
 */
export function jwtKind(jwt: string): CredentialKind | null {
  const [header, payload] = jwt.split('.', 2).map(decodeObject);
  if (!header || !payload) return null;
  const typ = String(header['typ']).toLowerCase();
  return typ === 'at+jwt' || typ === 'application/at+jwt' ? 'oauth_token' : 'm2m_token';
}

export interface VerifiedTokenJwt {
  /** The key whose signature it bears. */
  kid: string;
  jti: string;
  sub: string;
}

/**
 * Checks signature, issuer and class of an M2M JWT, or answers null. Whether it has expired is for the caller to judge
 * from its row, so that reasons keep their order; hence the JWS is verified, and not jose's idea of a JWT.
 */
export const verifyM2mJwt = (jwt: string, issuer: string, findKey: FindKey) =>
  verifyTokenJwt(jwt, issuer, findKey, (typ, cat) => typ === M2M_HEADER.typ && cat === M2M_HEADER.cat);

/** The same of an OAuth access token (RFC 9068, section 4). */
export const verifyAccessJwt = (jwt: string, issuer: string, findKey: FindKey) =>
  verifyTokenJwt(jwt, issuer, findKey, (typ) => typ === ACCESS_TOKEN_HEADER.typ);

type FindKey = (kid: string) => Promise<SigningKey | null>;

async function verifyTokenJwt(
  jwt: string,
  issuer: string,
  findKey: FindKey,
  isOfClass: (typ: unknown, cat: unknown) => boolean,
): Promise<VerifiedTokenJwt | null> {
  const verified = await verifySignature(jwt, findKey);
  if (!verified) return null;
  const { protectedHeader } = verified;
  if (!isOfClass(protectedHeader.typ, protectedHeader['cat'])) return null;
  const { iss, jti, sub } = JSON.parse(Buffer.from(verified.payload).toString()) as Record<string, unknown>;
  const { kid } = protectedHeader;
  if (iss !== issuer || typeof jti !== 'string' || typeof sub !== 'string' || kid === undefined) return null;
  return { kid, jti, sub };
}

/** The claims of somebody else's JWT, and when its header says what it is, that. */
export interface ForeignJwt {
  typ: string | undefined;
  claims: Record<string, unknown>;
}

/** Signature, issuer and time of a JWT by a set of somebody else's keys; null where one of them does not fit. */
export async function verifyForeignJwt(
  jwt: string,
  issuer: string,
  jwks: { keys: JWK[] },
  now: number,
): Promise<ForeignJwt | null> {
  if (!endsCanonically(jwt)) return null;
  try {
    const { payload, protectedHeader } = await jwtVerify(jwt, createLocalJWKSet(jwks), {
      algorithms: [...SIGNING_ALGS],
      issuer,
      currentDate: new Date(now),
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      requiredClaims: ['exp', 'iat', 'sub'],
    });
    return { typ: protectedHeader.typ, claims: payload };
  } catch (error) {
    if (error instanceof errors.JOSEError) return null;
    throw error;
  }
}

/** The key that a JWT names, before anything is checked; null where it names none. */
export function keyIdOf(jwt: string): string | null {
  const kid = decodeObject(jwt.split('.', 1)[0] ?? '')?.['kid'];
  return typeof kid === 'string' ? kid : null;
}

/** Who a JWT says issued it, before anything is checked; null where it says nothing. */
export function issuerOf(jwt: string): string | null {
  const iss = decodeObject(jwt.split('.', 2)[1] ?? '')?.['iss'];
  return typeof iss === 'string' ? iss : null;
}

async function verifySignature(
  jws: string,
  findKey: (kid: string) => Promise<SigningKey | null>,
): Promise<CompactVerifyResult | null> {
  if (!endsCanonically(jws)) return null;
  try {
    return await compactVerify(jws, (header) => keyOf(header, findKey), { algorithms: [...SIGNING_ALGS] });
  } catch (error) {
    if (error instanceof errors.JOSEError) return null;
    throw error;
  }
}

/** The key a header names, of our set and for its own algorithm only; keys the header brings along are not looked at. */
async function keyOf(
  header: CompactJWSHeaderParameters,
  findKey: (kid: string) => Promise<SigningKey | null>,
): Promise<Key> {
  const found = typeof header.kid === 'string' ? await findKey(header.kid) : null;
  if (found?.alg !== header.alg) throw new errors.JWKSNoMatchingKey();
  return found.key;
}

/** The last character of base64url has bits that decode to nothing: only one spelling of a signature is accepted. */
function endsCanonically(jwt: string): boolean {
  const signature = jwt.slice(jwt.lastIndexOf('.') + 1);
  return Buffer.from(signature, 'base64url').toString('base64url') === signature;
}

function decodeObject(part: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString());
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
