import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { Jwks } from '../../../client/verifier/jwks.ts';
import { isSignedBy } from '../../../client/verifier/jws.ts';
import { readM2mJwt } from '../../../client/verifier/m2m-jwts.ts';

const KEYS = {
  RS256: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: generateKeyPairSync('ed25519'),
} as const;
type Alg = keyof typeof KEYS;

const PAYLOAD = {
  iss: 'https://a',
  sub: 'mch_1',
  jti: 'mt_1',
  iat: 100,
  nbf: 100,
  exp: 200.5,
  aud: ['mch_2'],
  scopes: 'mch_2',
};
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

const SIGN: Record<Alg, (input: Buffer, key: KeyObject) => Buffer> = {
  RS256: (input, key) => sign('sha256', input, key),
  ES256: (input, key) => sign('sha256', input, { key, dsaEncoding: 'ieee-p1363' }),
  EdDSA: (input, key) => sign(null, input, key),
};

function token(alg: Alg, header: object = {}, payload: object = {}): string {
  const head = encode({ alg, typ: 'JWT', cat: 'cl_B7d4PD333AAA', kid: alg, ...header });
  const input = `${head}.${encode({ ...PAYLOAD, ...payload })}`;
  return `${input}.${SIGN[alg](Buffer.from(input), KEYS[alg].privateKey).toString('base64url')}`;
}

/** The last of 86 characters has four bits that decode to nothing. */
function otherwiseSpelt(jwt: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  return `${jwt.slice(0, -1)}${alphabet[alphabet.indexOf(jwt.at(-1) ?? '') ^ 1]}`;
}

const jwkOf = (alg: Alg) => ({ ...KEYS[alg].publicKey.export({ format: 'jwk' }), kid: alg, alg, use: 'sig' });

/** A set as a server answers it, and how often it was fetched. */
function serving(keys: object[]) {
  const served = { fetched: 0, keys };
  const answer = async () => {
    served.fetched++;
    return new Response(JSON.stringify({ keys: served.keys }));
  };
  return { served, fetchLike: answer as unknown as typeof fetch };
}

async function keysOf(...keys: object[]) {
  const jwks = new Jwks(new URL('http://127.0.0.1/'), serving(keys).fetchLike);
  await jwks.refresh();
  return jwks;
}

describe('a JWT', () => {
  it.each(Object.keys(KEYS) as Alg[])(
    'signed with %s is accepted by its key, and by no other',
    async (alg) => {
      const jwks = await keysOf(...(Object.keys(KEYS) as Alg[]).map(jwkOf));
      const jwt = readM2mJwt(token(alg, {}, { scope: 'a b', tenant: 7 }));
      expect(jwt).toMatchObject({
        scopes: ['a', 'b'],
        claims: { tenant: 7 },
        issuedAt: 100_000,
        expiresAt: 200_500,
      });
      for (const each of Object.keys(KEYS)) {
        const key = jwks.get(each);
        expect(jwt && key && isSignedBy(jwt, key)).toBe(each === alg);
      }
    },
  );

  it.each<[string, object]>([
    ['none', { alg: 'none' }],
    ['HS256', { alg: 'HS256' }],
    ['another algorithm than its key has', { alg: 'ES256' }],
  ])('that names %s is not accepted', async (_, header) => {
    const jwks = await keysOf(jwkOf('RS256'));
    const jwt = readM2mJwt(token('RS256', header));
    const key = jwks.get('RS256');
    expect(jwt && key && isSignedBy(jwt, key)).toBe(false);
  });

  it('signed with the public key as a secret is not accepted', async () => {
    const jwks = await keysOf(jwkOf('RS256'));
    const input = token('RS256', { alg: 'HS256' }).split('.').slice(0, 2).join('.');
    const secret = KEYS.RS256.publicKey.export({ format: 'pem', type: 'spki' });
    const jwt = readM2mJwt(`${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`);
    const key = jwks.get('RS256');
    expect(jwt && key && isSignedBy(jwt, key)).toBe(false);
  });

  it('signed by a key that it brings along is not accepted', async () => {
    const jwks = await keysOf(jwkOf('RS256'));
    const own = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const head = { alg: 'RS256', typ: 'JWT', cat: 'cl_B7d4PD333AAA', kid: 'RS256' };
    const input = `${encode({ ...head, jwk: own.publicKey.export({ format: 'jwk' }) })}.${encode(PAYLOAD)}`;
    const signature = SIGN.RS256(Buffer.from(input), own.privateKey).toString('base64url');
    const jwt = readM2mJwt(`${input}.${signature}`);
    const key = jwks.get('RS256');
    expect(jwt).not.toBeNull();
    expect(jwt && key && isSignedBy(jwt, key)).toBe(false);
  });

  it.each<[string, string]>([
    ['of another type', token('RS256', { typ: 'at+jwt' })],
    ['of the class of sessions', token('RS256', { cat: 'cl_B7d4PD111AAA' })],
    ['that has something critical', token('RS256', { crit: ['b64'] })],
    ['without a key', token('RS256', { kid: undefined })],
    ['of somebody who is no machine', token('RS256', {}, { sub: 'user_1' })],
    ['that never expires', token('RS256', {}, { exp: undefined })],
    ['for one in words', token('RS256', {}, { aud: 'mch_2' })],
    ['whose signature is spelt otherwise', otherwiseSpelt(token('EdDSA'))],
    ['that is none', 'eyJ.eyJ.x'],
  ])('%s is left to the server', (_, value) => {
    expect(readM2mJwt(value)).toBeNull();
  });
});

describe('the JWKS', () => {
  it('is fetched once in 30 s, whatever is asked for, and at once when the feed tells of a key', async () => {
    let now = 0;
    const { served, fetchLike } = serving([]);
    const failing = { fails: true };
    const flaky = (async (url: URL) => {
      if (failing.fails) {
        served.fetched++;
        throw new Error('down');
      }
      return fetchLike(url);
    }) as unknown as typeof fetch;
    const jwks = new Jwks(new URL('http://127.0.0.1/'), flaky, () => now);
    for (let i = 0; i < 1_000; i++) await jwks.refresh();
    expect(served.fetched).toBe(1);
    now = 30_000;
    failing.fails = false;
    for (let i = 0; i < 1_000; i++) await jwks.refresh();
    expect(served.fetched).toBe(2);
    expect(jwks.isComplete).toBe(true);
    served.keys = [jwkOf('ES256')];
    jwks.told({ kid: 'ES256', state: 'upcoming' });
    expect(jwks.isComplete).toBe(false);
    await jwks.refresh();
    expect([served.fetched, jwks.isComplete, jwks.get('ES256')?.alg]).toEqual([3, true, 'ES256']);
    jwks.told({ kid: 'ES256', state: 'retired' });
    expect(jwks.get('ES256')).toMatchObject({ isRetired: true });
    jwks.forget();
    expect(jwks.get('ES256')).toBeUndefined();
  });

  it('is not complete while it lacks a key that the feed told of, and is fetched again in 5 s', async () => {
    let now = 0;
    const { served, fetchLike } = serving([jwkOf('RS256')]);
    const jwks = new Jwks(new URL('http://127.0.0.1/'), fetchLike, () => now);
    await jwks.refresh();
    jwks.told({ kid: 'ES256', state: 'active' });
    await jwks.refresh();
    expect([served.fetched, jwks.isComplete]).toEqual([2, false]);
    served.keys = [jwkOf('RS256'), jwkOf('ES256')];
    now = 4_999;
    await jwks.refresh();
    expect([served.fetched, jwks.isComplete]).toEqual([2, false]);
    now = 5_000;
    await jwks.refresh();
    expect([served.fetched, jwks.isComplete]).toEqual([3, true]);
  });

  it('holds no key of another use, algorithm or type', async () => {
    const jwks = await keysOf(
      { ...jwkOf('RS256'), use: 'enc' },
      { ...jwkOf('ES256'), alg: 'RS256' },
      { ...jwkOf('EdDSA'), alg: 'HS256' },
      { kty: 'oct', k: 'AAAA', kid: 'secret', alg: 'HS256' },
    );
    expect(['RS256', 'ES256', 'EdDSA', 'secret'].map((kid) => jwks.get(kid))).toEqual(
      Array(4).fill(undefined),
    );
  });
});
