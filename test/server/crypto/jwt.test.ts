import { createPublicKey, verify as verifySignature } from 'node:crypto';
import { CompactSign, decodeProtectedHeader, UnsecuredJWT } from 'jose';
import { expect, it } from 'vitest';
import {
  generateSigningKey,
  importKey,
  jwtKind,
  openSigningKey,
  type PrivateSigningKey,
  SIGNING_ALGS,
  type SigningAlg,
  type SigningKey,
  signM2mJwt,
  verifyM2mJwt,
} from '../../../server/crypto/jwt.ts';

const ISSUER = 'https://auth.example';
const CLAIMS = { iss: ISSUER, sub: 'mch_a', jti: 'mt_a', exp: 1 };

async function newPair(alg: SigningAlg, kid = 'key_1') {
  const { publicJwk, privateJwk } = await generateSigningKey(alg);
  const signing = openSigningKey(kid, alg, privateJwk);
  const verifying: SigningKey = { kid, alg, key: await importKey(publicJwk, alg) };
  const find = (asked: string) => Promise.resolve(asked === kid ? verifying : null);
  return { signing, verifying, find, publicJwk };
}

const signed = (key: PrivateSigningKey, claims: object) => signM2mJwt(key, JSON.stringify(claims));

const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

it.each(SIGNING_ALGS)(
  'signM2mJwt() signs with %s what verifyM2mJwt() verifies, long after it expired',
  async (alg) => {
    const { signing, find } = await newPair(alg);
    const jwt = await signed(signing, CLAIMS);
    expect(decodeProtectedHeader(jwt)).toEqual({ alg, kid: 'key_1', typ: 'JWT', cat: 'cl_B7d4PD333AAA' });
    expect(await verifyM2mJwt(jwt, ISSUER, find)).toEqual({ jti: 'mt_a', sub: 'mch_a', kid: 'key_1' });
  },
);

it('signM2mJwt() makes signatures that another implementation verifies with the published key', async () => {
  const { signing, publicJwk } = await newPair('RS256');
  const jwt = await signed(signing, CLAIMS);
  const [header, payload, signature = ''] = jwt.split('.');
  const key = createPublicKey({ key: publicJwk, format: 'jwk' });
  expect(
    verifySignature(
      'RSA-SHA256',
      Buffer.from(`${header}.${payload}`),
      key,
      Buffer.from(signature, 'base64url'),
    ),
  ).toBe(true);
});

it('generateSigningKey() makes RSA keys of 2048 bits with e = 65537, the only ones that Clerk’s SDK reads', async () => {
  const { publicJwk } = await generateSigningKey('RS256');
  expect(publicJwk['e']).toBe('AQAB');
  expect(Buffer.from(publicJwk['n'] ?? '', 'base64url')).toHaveLength(256);
  expect(Object.keys(publicJwk).sort()).toEqual(['e', 'kty', 'n']);
});

it('verifyM2mJwt() takes a key for its own algorithm only', async () => {
  const { verifying } = await newPair('ES256');
  const other = await newPair('EdDSA');
  const jwt = await signed(other.signing, CLAIMS);
  expect(await verifyM2mJwt(jwt, ISSUER, () => Promise.resolve(verifying))).toBeNull();
  const mislabelled: SigningKey = { ...other.verifying, alg: 'ES256' };
  expect(await verifyM2mJwt(jwt, ISSUER, () => Promise.resolve(mislabelled))).toBeNull();
});

it('verifyM2mJwt() refuses alg none and HMAC, whatever key they are made with, without looking for one', async () => {
  const { publicJwk } = await newPair('RS256');
  const refuse = () => Promise.reject(new Error('A key was looked for'));
  const hmacKey = new TextEncoder().encode(JSON.stringify(publicJwk));
  for (const alg of ['HS256', 'HS384', 'HS512']) {
    const jwt = await new CompactSign(Buffer.from(JSON.stringify(CLAIMS)))
      .setProtectedHeader({ alg, kid: 'key_1', typ: 'JWT', cat: 'cl_B7d4PD333AAA' })
      .sign(Buffer.concat([hmacKey, Buffer.alloc(64)]));
    expect(await verifyM2mJwt(jwt, ISSUER, refuse)).toBeNull();
  }
  expect(await verifyM2mJwt(new UnsecuredJWT(CLAIMS).encode(), ISSUER, refuse)).toBeNull();
  const none = `${part({ alg: 'none', kid: 'key_1' })}.${part(CLAIMS)}.AAAA`;
  expect(await verifyM2mJwt(none, ISSUER, refuse)).toBeNull();
});

it('verifyM2mJwt() refuses critical extensions it does not know', async () => {
  const { signing, find } = await newPair('ES256');
  const [, payload, signature] = (await signed(signing, CLAIMS)).split('.');
  const header = part({ alg: 'ES256', kid: 'key_1', typ: 'JWT', cat: 'cl_B7d4PD333AAA', crit: ['x'], x: 1 });
  expect(await verifyM2mJwt(`${header}.${payload}.${signature}`, ISSUER, find)).toBeNull();
});

it('verifyM2mJwt() throws when keys cannot be read: that is not the same as no such key', async () => {
  const { signing } = await newPair('ES256');
  const jwt = await signed(signing, CLAIMS);
  const down = () => Promise.reject(new Error('down'));
  await expect(verifyM2mJwt(jwt, ISSUER, down)).rejects.toThrow('down');
});

it.each([
  ['another issuer', { iss: 'https://other.example' }],
  ['no issuer', { iss: undefined }],
  ['no jti', { jti: undefined }],
  ['a jti that is no text', { jti: 7 }],
  ['no subject', { sub: undefined }],
])('verifyM2mJwt() refuses %s', async (_, change) => {
  const { signing, find } = await newPair('ES256');
  expect(await verifyM2mJwt(await signed(signing, { ...CLAIMS, ...change }), ISSUER, find)).toBeNull();
});

it('jwtKind() goes by the header’s typ, and knows no kind where header or payload is no JSON', () => {
  const jwt = (header: string, payload = part({ a: 1 })) => `${header}.${payload}.c2ln`;
  expect(jwtKind(jwt(part({ alg: 'ES256', typ: 'JWT' })))).toBe('m2m_token');
  expect(jwtKind(jwt(part({ alg: 'ES256' })))).toBe('m2m_token');
  expect(jwtKind(jwt(part({ typ: 'at+jwt' })))).toBe('oauth_token');
  expect(jwtKind(jwt(part({ typ: 'application/AT+JWT' })))).toBe('oauth_token');
  expect(jwtKind(jwt('eyJhbGciOi'))).toBeNull();
  expect(jwtKind(jwt(part({ typ: 'JWT' }), 'eyJh'))).toBeNull();
});
