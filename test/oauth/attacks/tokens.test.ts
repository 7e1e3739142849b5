/** What tokens are worth in hands, at places and in forms that they are not for. */
import { createHmac, createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { decodeJwt, decodeProtectedHeader, exportJWK, generateKeyPair, SignJWT } from 'jose';
import { beforeEach, expect, it } from 'vitest';
import {
  revokeOauthApplicationTokens,
  rotateOauthApplicationSecret,
  rotateOauthApplicationSecretInput,
} from '../../../server/domain/oauth-applications.ts';
import {
  basic,
  clientOf,
  type Redeemable,
  type ServedOauth,
  serveOauth,
  type TestApplication,
} from '../../support/authorization-server.ts';
import { callerWith, describeOnEachDialect } from '../../support/deps.ts';
import { allow, newMachine } from '../../support/machines.ts';
import { send } from '../../support/server.ts';

const API = 'https://api.example.com/';
const EVERYWHERE = ['userinfo', 'introspect', 'verify'];
const admin = callerWith('admin');
const SCOPES = ['openid', 'profile', 'email', 'offline_access', 'notes:read', 'notes:write'];

describeOnEachDialect('tokens', (dialect) => {
  let served: ServedOauth;
  let application: TestApplication;
  let other: TestApplication;

  beforeEach(async () => {
    served = await serveOauth(dialect);
    for (const scope of ['notes:read', 'notes:write']) await served.scope(scope);
    application = await served.application({ scopes: SCOPES, accessTokenFormat: 'jwt' });
    other = await served.application({ name: 'Other', scopes: SCOPES });
  });

  const refresh = (refreshToken: string, who: TestApplication, more: Record<string, string> = {}) =>
    served.post('/oauth/token', {
      grant_type: 'refresh_token',
      refresh_token: refreshToken,
      ...clientOf(who),
      ...more,
    });

  const verify = async (input: object) => {
    const { body } = await send(`${served.url}/v1/verify`, {
      method: 'POST',
      headers: { authorization: `Bearer ${served.deps.adminKey}`, 'content-type': 'application/json' },
      body: JSON.stringify(input),
    });
    return body.valid === true ? 'valid' : (body.reason ?? body.errors?.[0]?.code);
  };

  /** Everywhere that an access token may come: where it is accepted. */
  async function accepting(token: string): Promise<string[]> {
    const headers = { authorization: `Bearer ${token}` };
    const userinfo = await send(`${served.url}/oauth/userinfo`, { headers });
    const introspected = await served.post('/oauth/introspect', { token }, basic(application));
    const verified = await verify({ credential: token, kinds: ['oauth_token'] });
    return [
      userinfo.status === 200 ? 'userinfo' : '',
      introspected.body.active === true ? 'introspect' : '',
      verified === 'valid' ? 'verify' : '',
    ].filter((place) => place !== '');
  }

  it('a sound token is accepted everywhere: the tests can fail', async () => {
    const { accessToken } = await served.tokens(application);
    expect(await accepting(accessToken)).toEqual(EVERYWHERE);
  });

  const REFUSED = { status: 400, body: { error: 'invalid_grant' } };

  it('an emergency ends the codes and refresh tokens of before too, and nothing of after', async () => {
    const emergencies = [
      () => revokeOauthApplicationTokens(served.deps, admin, application),
      async () => {
        const input = { id: application.id, compromised: true };
        const asked = rotateOauthApplicationSecretInput.parse(input);
        const { secret = '' } = await rotateOauthApplicationSecret(served.deps, admin, asked);
        application.secret = secret;
      },
    ];
    const redeem = ({ form }: Redeemable) =>
      served.post('/oauth/token', { ...form, ...clientOf(application) });
    for (const end of emergencies) {
      const { refreshToken, accessToken } = await served.tokens(application);
      const code = await served.code(application);
      await end();
      expect(await redeem(code)).toMatchObject(REFUSED);
      expect(await refresh(refreshToken, application)).toMatchObject(REFUSED);
      expect(await accepting(accessToken)).toEqual([]);
      const after = await served.tokens(application);
      expect((await refresh(after.refreshToken, application)).status).toBe(200);
    }
  });

  it('refreshing goes on until the absolute end that its application sets, and no longer', async () => {
    const { clock } = served.deps;
    const bounded = await served.application({ refreshTokenIdleSeconds: 60, refreshTokenMaxSeconds: 100 });
    let { refreshToken } = await served.tokens(bounded);
    for (const [afterMs, leftSeconds] of [
      [40_000, 60],
      [40_000, 20],
      [19_999, 0],
    ] as const) {
      clock.now += afterMs;
      const { status, body } = await refresh(refreshToken, bounded);
      expect([status, body.refresh_token_expires_in]).toEqual([200, leftSeconds]);
      refreshToken = body.refresh_token;
    }
    clock.now += 1;
    expect(await refresh(refreshToken, bounded)).toMatchObject(REFUSED);
  });

  it('code, access token and refresh token expire when their application says', async () => {
    const { clock } = served.deps;
    for (const accessTokenFormat of ['opaque', 'jwt'] as const) {
      const brief = await served.application({
        accessTokenFormat,
        codeTtlSeconds: 5,
        accessTokenTtlSeconds: 10,
        refreshTokenIdleSeconds: 20,
      });
      const redeem = ({ form }: Redeemable) => served.post('/oauth/token', { ...form, ...clientOf(brief) });
      const [early, late] = [await served.code(brief), await served.code(brief)];
      clock.now += 4_999;
      const { body } = await redeem(early);
      const { refreshToken } = await served.tokens(brief);
      expect(body).toMatchObject({ expires_in: 10, refresh_token_expires_in: 20 });
      clock.now += 1;
      expect(await redeem(late)).toMatchObject(REFUSED);
      // A JWT says whole seconds.
      clock.now += 8_999;
      expect(await accepting(body.access_token)).toContain('verify');
      clock.now += 1_000;
      expect(await accepting(body.access_token)).toEqual([]);
      clock.now += 9_999;
      expect((await refresh(body.refresh_token, brief)).status).toBe(200);
      clock.now += 1;
      expect(await refresh(refreshToken, brief)).toMatchObject(REFUSED);
    }
  });

  it('cross-client refresh: a refresh token is nothing in the hands of another, and is not used up by that', async () => {
    const native = await served.application({ name: 'Native', public: true });
    const { refreshToken } = await served.tokens(application);
    for (const who of [other, native])
      expect(await refresh(refreshToken, who)).toMatchObject({
        status: 400,
        body: { error: 'invalid_grant' },
      });
    expect((await refresh(refreshToken, application)).status).toBe(200);
  });

  it('cross-client: an application introspects and revokes its own tokens, and no others', async () => {
    const { accessToken, refreshToken } = await served.tokens(application);
    for (const token of [accessToken, refreshToken]) {
      const { body } = await served.post('/oauth/introspect', { token }, basic(other));
      expect(body).toEqual({ active: false });
      const answer = await served.post('/oauth/revoke', { token }, basic(other));
      expect([answer.status, answer.body]).toEqual([200, {}]);
    }
    expect(await accepting(accessToken)).toContain('userinfo');
    expect((await refresh(refreshToken, application)).status).toBe(200);
  });

  it('cross-client: a public application introspects nothing, not even its own', async () => {
    const native = await served.application({ name: 'Native', public: true });
    const { accessToken, refreshToken } = await served.tokens(native);
    for (const token of [accessToken, refreshToken])
      expect(await served.post('/oauth/introspect', { token, ...clientOf(native) })).toMatchObject({
        status: 401,
        body: { error: 'invalid_client' },
      });
  });

  it('scope widening: refreshing never gives more than was granted, whatever it asks for', async () => {
    const granted = ['openid', 'offline_access', 'notes:read'];
    let { refreshToken } = await served.tokens(application, { scope: granted.join(' ') });
    for (const scope of [
      'openid notes:read notes:write',
      'notes:read profile email',
      'openid notes:admin *',
    ]) {
      const { status, body } = await refresh(refreshToken, application, { scope });
      expect(status).toBe(200);
      expect(granted).toEqual(expect.arrayContaining(body.scope.split(' ')));
      refreshToken = body.refresh_token;
    }
    expect(await refresh(refreshToken, application, { scope: 'notes:write' })).toMatchObject({
      status: 400,
      body: { error: 'invalid_scope' },
    });
  });

  it('scope widening: the token endpoint takes no scope with a code', async () => {
    const { form } = await served.code(application, { scope: 'openid notes:read' });
    const widened = { ...form, ...clientOf(application), scope: 'openid notes:read notes:write' };
    expect((await served.post('/oauth/token', widened)).body.scope).toBe('openid notes:read');
  });

  it('scope widening: a scope of one resource is not given for another, to users nor to applications', async () => {
    await served.scope('api:read', { resource: API });
    const both = await served.application({
      scopes: [...SCOPES, 'api:read'],
      grantTypes: ['authorization_code', 'refresh_token', 'client_credentials'],
    });
    for (const [resource, given] of [
      [API, 'notes:read api:read'],
      ['https://other.example.com/', 'notes:read'],
    ] as const) {
      const asked = { scope: 'notes:read api:read', resource };
      const { form } = await served.code(both, asked);
      for (const each of [form, { ...asked, grant_type: 'client_credentials' }]) {
        const { body } = await served.post('/oauth/token', { ...each, ...clientOf(both) });
        expect([resource, body.scope]).toEqual([resource, given]);
      }
    }
  });

  it('scope widening: of a grant for two resources a token for one has no scope of the other', async () => {
    await served.scope('api:read', { resource: API });
    const other = 'https://other.example.com/';
    const both = await served.application({ scopes: [...SCOPES, 'api:read'] });
    const scope = 'offline_access notes:read api:read';
    let { refreshToken } = await served.tokens(both, { scope, resource: [API, other] });
    for (const [resource, given] of [
      [other, ['notes:read', 'offline_access']],
      [API, ['api:read', 'notes:read', 'offline_access']],
    ] as const) {
      const { body } = await refresh(refreshToken, both, { resource });
      expect([resource, body.scope.split(' ').sort()]).toEqual([resource, given]);
      refreshToken = body.refresh_token;
    }
    expect(await refresh(refreshToken, both, { resource: other, scope: 'api:read' })).toMatchObject({
      status: 400,
      body: { error: 'invalid_scope' },
    });
  });

  it('scope widening: a narrowed refresh narrows one token; what an application may no longer be given it is not', async () => {
    const { refreshToken } = await served.tokens(application, { scope: 'openid offline_access notes:read' });
    const narrowed = await refresh(refreshToken, application, { scope: 'openid' });
    expect(narrowed.body.scope).toBe('openid');
    const whole = await refresh(narrowed.body.refresh_token, application);
    expect(whole.body.scope.split(' ').sort()).toEqual(['notes:read', 'offline_access', 'openid']);
    await served.deps.store.tx(({ db, tables }) =>
      db.update(tables.oauthApplications).set({ scopes: ['openid', 'offline_access'] }),
    );
    const after = await refresh(whole.body.refresh_token, application);
    expect(after.body.scope.split(' ').sort()).toEqual(['offline_access', 'openid']);
  });

  it('audience confusion: a token names the resources that were allowed, and refreshing names no others', async () => {
    const { accessToken, refreshToken } = await served.tokens(application, { resource: API });
    expect(decodeJwt(accessToken).aud).toBe(API);
    const elsewhere = { resource: 'https://other.example.com/' };
    expect(await refresh(refreshToken, application, elsewhere)).toMatchObject({
      status: 400,
      body: { error: 'invalid_target' },
    });
  });

  it('audience confusion: verified for another resource a token is refused', async () => {
    const { accessToken: credential } = await served.tokens(application, { resource: API });
    expect(await verify({ credential, resource: API })).toBe('valid');
    expect(await verify({ credential, resource: 'https://other.example.com/' })).toBe('wrong_audience');
  });

  it('audience confusion: an M2M token is no access token, nor an access token an M2M token', async () => {
    const { accessToken: credential } = await served.tokens(application);
    expect(await verify({ credential, kinds: ['m2m_token'] })).toBe('wrong_kind');
    expect(await verify({ credential, kinds: ['api_key'] })).toBe('wrong_kind');
    const [from, to] = [await newMachine(served.deps, 'from'), await newMachine(served.deps, 'to')];
    await allow(served.deps, from.id, to.id);
    for (const token_format of ['opaque', 'jwt']) {
      const form = { grant_type: 'client_credentials', token_format };
      const { body } = await served.post(
        '/oauth/token',
        form,
        basic({ clientId: from.id, secret: from.secret }),
      );
      const token: string = body.access_token;
      expect(await verify({ credential: token, kinds: ['m2m_token'], audience: to.id })).toBe('valid');
      expect(await verify({ credential: token, kinds: ['oauth_token'] })).toBe('wrong_kind');
      expect(await accepting(token)).toEqual([]);
    }
  });

  /** What an attacker can make of a token that they have: other claims, or other signatures, by what is tried. */
  async function forgeriesOf(accessToken: string): Promise<Record<string, string>> {
    const [header, payload] = [decodeProtectedHeader(accessToken), decodeJwt(accessToken)];
    const [first = '', second = '', signature = ''] = accessToken.split('.');
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const withHeader = (more: object, signed = signature) =>
      `${part({ ...header, ...more })}.${second}.${signed}`;
    const { body: jwks } = await send(`${served.url}/.well-known/jwks.json`);
    const [jwk] = jwks.keys;
    const spki = createPublicKey({ key: jwk, format: 'jwk' }).export({ type: 'spki', format: 'pem' });
    const hmac = (key: string | Buffer) => {
      const signed = `${part({ ...header, alg: 'HS256' })}.${second}`;
      return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`;
    };
    const attacker = await generateKeyPair('RS256', { extractable: true });
    const own = await exportJWK(attacker.publicKey);
    const byAttacker = (more: object) =>
      new SignJWT(payload).setProtectedHeader({ ...header, alg: 'RS256', ...more }).sign(attacker.privateKey);
    const { privateKey: ec } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    return {
      'alg none': withHeader({ alg: 'none' }, ''),
      'alg None': withHeader({ alg: 'None' }, ''),
      'alg none with the signature of before': withHeader({ alg: 'none' }),
      'no alg': withHeader({ alg: undefined }, ''),
      'HS256 by the public key as PEM': hmac(spki),
      'HS256 by the public key as JWK': hmac(JSON.stringify(jwk)),
      'HS256 by the modulus': hmac(Buffer.from(jwk.n ?? '', 'base64url')),
      'HS256 by nothing': hmac(''),
      'HS256 by the key id': hmac(jwk.kid),
      'RS384 with the same key': withHeader({ alg: 'RS384' }),
      'PS256 with the same key': withHeader({ alg: 'PS256' }),
      'ES256 under our key id': await new SignJWT(payload)
        .setProtectedHeader({ ...header, alg: 'ES256' })
        .sign(ec),
      'embedded jwk': await byAttacker({ jwk: own }),
      'embedded jwk without a key id': await byAttacker({ jwk: own, kid: undefined }),
      'jku of the attacker': await byAttacker({ jku: 'https://evil.example/jwks.json' }),
      'x5u of the attacker': await byAttacker({ x5u: 'https://evil.example/certificate' }),
      x5c: await byAttacker({ x5c: ['MIIB'] }),
      "the attacker's key under our key id": await byAttacker({}),
      "the attacker's key under its own key id": await byAttacker({ kid: 'evil' }),
      'a key id that goes up': await byAttacker({ kid: '../../../../dev/null' }),
      'a key id that is SQL': await byAttacker({ kid: "' OR 1=1 --" }),
      'a critical extension nobody knows': withHeader({ crit: ['b64'], b64: false }),
      'typ of an M2M token': withHeader({ typ: 'JWT' }),
      'other claims': `${first}.${part({ ...payload, sub: 'user_other' })}.${signature}`,
      'no signature': `${first}.${second}.`,
      'a signature of zeros': `${first}.${second}.${Buffer.alloc(256).toString('base64url')}`,
      'five parts': `${accessToken}.a.b`,
      'the same id as an opaque token': `${payload.jti}`,
      'an opaque token nobody was given': `oat_${randomBytes(24).toString('hex')}`,
    };
  }

  it('none, algorithm confusion, embedded jwk and their like are accepted nowhere', async () => {
    // Its public key is known to everybody, and could be taken for a secret.
    served = await serveOauth(dialect, { signingAlg: 'RS256' });
    application = await served.application({ accessTokenFormat: 'jwt' });
    const { accessToken } = await served.tokens(application);
    expect(await accepting(accessToken)).toEqual(EVERYWHERE);
    const accepted: string[] = [];
    for (const [name, token] of Object.entries(await forgeriesOf(accessToken)))
      for (const place of await accepting(token)) accepted.push(`${name} at ${place}`);
    expect(accepted).toEqual([]);
    expect(served.failures).toEqual([]);
  });

  it('an ID token, a refresh token and a code are no access token', async () => {
    const { idToken, refreshToken, code } = await served.tokens(application);
    expect(await accepting(idToken)).toEqual([]);
    expect(await accepting(code)).toEqual([]);
    // Its owner may introspect it, and that is all.
    expect(await accepting(refreshToken)).toEqual(['introspect']);
  });

  it('ID token as session: its header says that it is none, and its type that it is no access token', async () => {
    const { idToken, accessToken } = await served.tokens(application);
    // Clerk's SDK takes what has another class for no session.
    expect(decodeProtectedHeader(idToken)['cat']).toBe('countersign_id');
    expect(decodeProtectedHeader(idToken).typ).not.toBe('at+jwt');
    expect(decodeProtectedHeader(accessToken).typ).toBe('at+jwt');
  });

  it('ID token as session: neither it nor any other value is a session here', async () => {
    const query = new URLSearchParams({
      client_id: application.clientId,
      response_type: 'code',
      redirect_uri: 'https://app.example.com/callback',
      scope: 'openid',
      prompt: 'none',
      code_challenge: 'x'.repeat(43),
      code_challenge_method: 'S256',
    });
    for (const value of Object.values(await served.tokens(application))) {
      const agent = await served.browser(null);
      agent.cookies.set('countersign_session', value);
      const { left } = await agent.open(`${served.url}/oauth/authorize?${query}`);
      expect(left?.url.searchParams.get('error')).toBe('login_required');
    }
  });

  it('an access token of a user opens no management, and a secret no userinfo', async () => {
    const { accessToken } = await served.tokens(application);
    for (const [path, credential] of [
      ['/v1/oauth_applications', accessToken],
      ['/v1/secret_keys', accessToken],
      ['/oauth/userinfo', application.secret],
      ['/oauth/userinfo', served.deps.adminKey],
    ] as const) {
      const headers = { authorization: `Bearer ${credential}` };
      expect([path, (await send(served.url + path, { headers })).status]).toEqual([path, 401]);
    }
  });

  it('an access token is never taken from the query', async () => {
    const { accessToken } = await served.tokens(application);
    expect((await send(`${served.url}/oauth/userinfo?access_token=${accessToken}`)).status).toBe(401);
  });

  it('a refresh token that was used is inactive, and the one that followed it is not', async () => {
    const { refreshToken } = await served.tokens(application);
    const { body } = await refresh(refreshToken, application);
    const introspect = async (token: string) =>
      (await served.post('/oauth/introspect', { token }, basic(application))).body;
    expect(await introspect(refreshToken)).toEqual({ active: false });
    expect(await introspect(body.refresh_token)).toMatchObject({ active: true });
  });

  it('a refresh token that is used again ends all of its grant', async () => {
    const first = await served.tokens(application);
    const second = await refresh(first.refreshToken, application);
    expect((await refresh(first.refreshToken, application)).status).toBe(400);
    for (const token of [first.accessToken, second.body.access_token])
      expect(await accepting(token)).toEqual([]);
    expect((await refresh(second.body.refresh_token, application)).status).toBe(400);
  });
});
