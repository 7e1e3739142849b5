/** Clerk's own SDK against our server: every call of its machine authentication, and `authenticateRequest`. */
import { type ClerkClient, createClerkClient } from '@clerk/backend';
import { isClerkAPIResponseError } from '@clerk/backend/errors';
import { clerkMiddleware, getAuth } from '@clerk/express';
import express from 'express';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { createSecretKey, createSecretKeyInput } from '../../../server/domain/secret-keys.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { listen } from '../../support/procedures.ts';
import { serveRest } from '../../support/rest.ts';
import { send } from '../../support/server.ts';

type AuthenticateOptions = NonNullable<Parameters<ClerkClient['authenticateRequest']>[1]>;

/** Of a host with a dot, as Clerk's SDK wants it; nothing is fetched from there. */
const PUBLISHABLE_KEY = `pk_live_${Buffer.from('clerk.example.com$').toString('base64')}`;
const USER = `user_${'2'.repeat(27)}`;

describeOnEachDialect("Clerk's SDK", (dialect) => {
  let deps: TestDeps;
  let apiUrl: string;
  let clerk: ClerkClient;

  beforeEach(async () => {
    vi.stubEnv('CLERK_TELEMETRY_DISABLED', '1');
    onTestFinished(() => void vi.unstubAllEnvs());
    deps = await openTestDeps(dialect, { signingAlg: 'RS256', startsAt: Date.now() });
    ({ url: apiUrl } = await serveRest(deps));
    clerk = clientWith(deps.adminKey);
  });

  const clientWith = (secretKey: string) => createClerkClient({ apiUrl, secretKey });

  /** What a call is refused with, as the SDK tells it. */
  async function refusalOf(calling: Promise<unknown>) {
    try {
      await calling;
    } catch (error) {
      if (!isClerkAPIResponseError(error)) throw error;
      return { status: error.status, code: error.errors[0]?.code, traceId: error.clerkTraceId };
    }
    throw new Error('Wanted a refusal');
  }

  /** A machine with its secret; with `reaching`, one that may call those. */
  async function machine(name: string, reaching: string[] = []) {
    const { id, secretKey = '' } = await clerk.machines.create({ name, scopedMachines: reaching });
    return { id, secretKey };
  }

  async function machinesInTouch() {
    const ledger = await machine('ledger');
    const billing = await machine('billing', [ledger.id]);
    return { ledger, billing };
  }

  const createKey = (more: Partial<Parameters<ClerkClient['apiKeys']['create']>[0]> = {}) =>
    clerk.apiKeys.create({ name: 'nightly export', subject: USER, ...more });

  describe('clerk.machines', () => {
    it('creates, with machines it may call, and answers the secret this once', async () => {
      const ledger = await clerk.machines.create({ name: 'ledger' });
      const billing = await clerk.machines.create({
        name: 'billing',
        scopedMachines: [ledger.id],
        defaultTokenTtl: 600,
      });
      expect(billing).toMatchObject({
        id: expect.stringMatching(/^mch_\w{27}$/),
        name: 'billing',
        instanceId: expect.stringMatching(/^ins_\w{27}$/),
        createdAt: expect.any(Number),
        updatedAt: expect.any(Number),
        defaultTokenTtl: 600,
        secretKey: expect.stringMatching(/^msk_/),
        scopedMachines: [{ id: ledger.id, name: 'ledger', instanceId: billing.instanceId }],
      });
      expect(await clerk.machines.get(billing.id)).toMatchObject({ name: 'billing' });
      expect((await clerk.machines.get(billing.id)).secretKey).toBeUndefined();
    });

    it('creates nothing where one of the machines it should call is not there', async () => {
      const missing = `mch_${'0'.repeat(27)}`;
      expect(await refusalOf(clerk.machines.create({ name: 'billing', scopedMachines: [missing] }))).toEqual({
        status: 404,
        code: 'resource_not_found',
        traceId: 'req_test',
      });
      expect((await clerk.machines.list()).totalCount).toBe(0);
    });

    it('lists in pages, in order, and by a part of the name or the id', async () => {
      for (const name of ['b', 'a', 'c']) await machine(name);
      const names = async (query?: Parameters<ClerkClient['machines']['list']>[0]) => {
        const { data, totalCount } = await clerk.machines.list(query);
        return [data.map(({ name }) => name).join(''), totalCount];
      };
      expect(await names({ orderBy: 'name' })).toEqual(['abc', 3]);
      expect(await names({ orderBy: '+name' })).toEqual(['abc', 3]);
      expect(await names({ orderBy: '-name', limit: 2 })).toEqual(['cb', 3]);
      expect(await names({ orderBy: '-name', limit: 2, offset: 2 })).toEqual(['a', 3]);
      expect(await names({ query: 'B' })).toEqual(['b', 1]);
      const { data } = await clerk.machines.list({ query: 'c' });
      expect(await names({ query: data[0]?.id ?? '' })).toEqual(['c', 1]);
    });

    it('renames, and raises the longest lifetime with the default one', async () => {
      const { id } = await machine('billing');
      const year = 365 * 24 * 3600;
      const updated = await clerk.machines.update({ machineId: id, name: 'invoices', defaultTokenTtl: year });
      expect(updated).toMatchObject({ name: 'invoices', defaultTokenTtl: year });
      expect(await refusalOf(clerk.machines.update({ machineId: id, name: '' }))).toMatchObject({
        status: 400,
      });
      const other = await machine('other');
      expect(await refusalOf(clerk.machines.update({ machineId: other.id, name: 'invoices' }))).toMatchObject(
        {
          status: 409,
          code: 'name_taken',
        },
      );
    });

    it('deletes', async () => {
      const { id } = await machine('billing');
      expect(await clerk.machines.delete(id)).toMatchObject({ id, deleted: true });
      expect(await refusalOf(clerk.machines.get(id))).toMatchObject({
        status: 404,
        code: 'resource_not_found',
      });
    });

    it('answers no secret again, and rotates it with an overlap or at once', async () => {
      const { id, secretKey } = await machine('billing');
      expect(await refusalOf(clerk.machines.getSecretKey(id))).toMatchObject({
        status: 410,
        code: 'secret_not_retrievable',
      });
      const next = await clerk.machines.rotateSecretKey({ machineId: id, previousTokenTtl: 60 });
      expect(next.secret).toMatch(/^msk_/);
      for (const secret of [secretKey, next.secret])
        expect(await clerk.m2m.createToken({ machineSecretKey: secret })).toMatchObject({ subject: id });
      deps.clock.now += 61_000;
      expect(await refusalOf(clerk.m2m.createToken({ machineSecretKey: secretKey }))).toMatchObject({
        status: 401,
        code: 'machine_secret_key_invalid',
      });
      const last = await clerk.machines.rotateSecretKey({ machineId: id, previousTokenTtl: 0 });
      expect(await refusalOf(clerk.m2m.createToken({ machineSecretKey: next.secret }))).toMatchObject({
        status: 401,
      });
      expect(await clerk.m2m.createToken({ machineSecretKey: last.secret })).toMatchObject({ subject: id });
    });

    it('lets one machine call another, and takes that back', async () => {
      const [ledger, billing] = [await machine('ledger'), await machine('billing')];
      expect(await clerk.machines.createScope(billing.id, ledger.id)).toMatchObject({
        fromMachineId: billing.id,
        toMachineId: ledger.id,
        createdAt: expect.any(Number),
      });
      expect(await refusalOf(clerk.machines.createScope(billing.id, ledger.id))).toMatchObject({
        status: 409,
      });
      // The SDK makes a DeletedObject of it, which has no ends.
      expect(await clerk.machines.deleteScope(billing.id, ledger.id)).toMatchObject({ deleted: true });
      expect((await clerk.machines.get(billing.id)).scopedMachines).toEqual([]);
      expect(await refusalOf(clerk.machines.deleteScope(billing.id, ledger.id))).toMatchObject({
        status: 404,
      });
    });

    it('tells a bad secret key from a good one without the right', async () => {
      const bad = clientWith(`sk_${'x'.repeat(49)}`);
      expect(await refusalOf(bad.machines.list())).toMatchObject({ status: 401, code: 'clerk_key_invalid' });
      const input = createSecretKeyInput.parse({ name: 'reader', role: 'read' });
      const { secret = '' } = await createSecretKey(deps, callerWith('admin'), input);
      const reader = clientWith(secret);
      expect((await reader.machines.list()).data).toEqual([]);
      expect(await refusalOf(reader.machines.create({ name: 'x' }))).toMatchObject({
        status: 403,
        code: 'forbidden',
      });
    });
  });

  describe('clerk.m2m', () => {
    it('mints, with claims and a lifetime, opaque and JWT', async () => {
      const { ledger, billing } = await machinesInTouch();
      const machineSecretKey = billing.secretKey;
      const opaque = await clerk.m2m.createToken({
        machineSecretKey,
        claims: { team: 'a' },
        secondsUntilExpiration: 60,
      });
      expect(opaque).toMatchObject({
        id: expect.stringMatching(/^mt_[0-9a-f]{32}$/),
        subject: billing.id,
        scopes: [ledger.id],
        claims: { team: 'a' },
        revoked: false,
        expired: false,
        expiration: deps.now() + 60_000,
        token: expect.stringMatching(/^mt_/),
      });
      const jwt = await clerk.m2m.createToken({ machineSecretKey, tokenFormat: 'jwt' });
      expect(jwt.token).toMatch(/^eyJ/);
      const again = { machineSecretKey, minRemainingTtlSeconds: 60 };
      expect((await clerk.m2m.createToken(again)).id).toBe((await clerk.m2m.createToken(again)).id);
    });

    it("lists a machine's own, and to a secret key everybody's: live ones unless told", async () => {
      const { ledger, billing } = await machinesInTouch();
      const machineSecretKey = billing.secretKey;
      const live = await clerk.m2m.createToken({ machineSecretKey });
      const revoked = await clerk.m2m.createToken({ machineSecretKey });
      await clerk.m2m.revokeToken({ m2mTokenId: revoked.id });
      deps.clock.now += 1;
      const expired = await clerk.m2m.createToken({ machineSecretKey, secondsUntilExpiration: 1 });
      deps.clock.now += 2_000;
      const ids = async (query: Partial<Parameters<ClerkClient['m2m']['list']>[0]> = {}) => {
        const { data, totalCount } = await clerk.m2m.list({ subject: billing.id, ...query });
        return [new Set(data.map(({ id }) => id)), totalCount];
      };
      expect(await ids()).toEqual([new Set([live.id]), 1]);
      expect(await ids({ machineSecretKey, revoked: true })).toEqual([new Set([live.id, revoked.id]), 2]);
      expect(await ids({ expired: true })).toEqual([new Set([live.id, expired.id]), 2]);
      expect(await ids({ revoked: true, expired: true, limit: 1 })).toEqual([new Set([expired.id]), 3]);
      expect(
        await refusalOf(clerk.m2m.list({ subject: billing.id, machineSecretKey: ledger.secretKey })),
      ).toMatchObject({ status: 404, code: 'resource_not_found' });
    });

    it('revokes, with a reason, by the machine or by a secret key', async () => {
      const { ledger, billing } = await machinesInTouch();
      const mint = () => clerk.m2m.createToken({ machineSecretKey: billing.secretKey });
      const [one, other] = [await mint(), await mint()];
      expect(
        await clerk.m2m.revokeToken({
          m2mTokenId: one.id,
          machineSecretKey: billing.secretKey,
          revocationReason: 'leaked',
        }),
      ).toMatchObject({ revoked: true, revocationReason: 'leaked' });
      expect(
        await refusalOf(clerk.m2m.revokeToken({ m2mTokenId: other.id, machineSecretKey: ledger.secretKey })),
      ).toMatchObject({ status: 404 });
      expect(await clerk.m2m.revokeToken({ m2mTokenId: other.id })).toMatchObject({
        revoked: true,
        revocationReason: null,
      });
    });

    it('verifies: to a machine what is addressed to it, to a secret key any', async () => {
      const { ledger, billing } = await machinesInTouch();
      const stranger = await machine('stranger');
      const { id, token = '' } = await clerk.m2m.createToken({
        machineSecretKey: billing.secretKey,
        claims: { team: 'a' },
      });
      const asked = { token, machineSecretKey: ledger.secretKey };
      expect(await clerk.m2m.verify(asked)).toMatchObject({
        id,
        subject: billing.id,
        scopes: [ledger.id],
        claims: { team: 'a' },
      });
      expect(await clerk.m2m.verify({ token })).toMatchObject({ id });
      for (const machineSecretKey of [stranger.secretKey, billing.secretKey])
        expect(await refusalOf(clerk.m2m.verify({ token, machineSecretKey }))).toMatchObject({ status: 404 });
      await clerk.m2m.revokeToken({ m2mTokenId: id });
      expect(await refusalOf(clerk.m2m.verify(asked))).toMatchObject({
        status: 404,
        code: 'resource_not_found',
      });
      expect(await refusalOf(clerk.m2m.verify({ token }))).toMatchObject({ status: 404 });
    });

    it("verifies to a secret key what no machine scope allows any more, which is Clerk's rule", async () => {
      const { ledger, billing } = await machinesInTouch();
      const { token = '' } = await clerk.m2m.createToken({ machineSecretKey: billing.secretKey });
      await clerk.machines.deleteScope(billing.id, ledger.id);
      expect(await clerk.m2m.verify({ token })).toMatchObject({ subject: billing.id });
      expect(await refusalOf(clerk.m2m.verify({ token, machineSecretKey: ledger.secretKey }))).toMatchObject({
        status: 404,
      });
    });
  });

  describe('clerk.apiKeys', () => {
    it("creates, with all that Clerk's keys have", async () => {
      const key = await createKey({
        description: 'every night',
        claims: { plan: 'pro' },
        scopes: ['read', 'write'],
        createdBy: USER,
        secondsUntilExpiration: 3600,
      });
      expect(key).toMatchObject({
        id: expect.stringMatching(/^ak_[0-9a-f]{32}$/),
        type: 'api_key',
        name: 'nightly export',
        subject: USER,
        description: 'every night',
        claims: { plan: 'pro' },
        scopes: ['read', 'write'],
        createdBy: USER,
        revoked: false,
        revocationReason: null,
        expired: false,
        expiration: deps.now() + 3_600_000,
        lastUsedAt: null,
        createdAt: deps.now(),
        updatedAt: deps.now(),
        secret: expect.stringMatching(/^ak_/),
      });
      expect(await createKey({ name: 'forever', secondsUntilExpiration: null })).toMatchObject({
        expiration: null,
      });
      expect(await refusalOf(createKey())).toMatchObject({ status: 409, code: 'name_taken' });
    });

    it('gets one, without its secret, which is answered no second time', async () => {
      const { id } = await createKey();
      const key = await clerk.apiKeys.get(id);
      expect(key).toMatchObject({ id, name: 'nightly export' });
      expect(key.secret).toBeUndefined();
      expect(await refusalOf(clerk.apiKeys.getSecret(id))).toMatchObject({
        status: 410,
        code: 'secret_not_retrievable',
      });
      expect(await refusalOf(clerk.apiKeys.get(`ak_${'0'.repeat(32)}`))).toMatchObject({
        status: 404,
        code: 'resource_not_found',
      });
    });

    it("lists a subject's, the newest first: those that are valid unless told", async () => {
      const [one, two] = [await createKey({ name: 'one' }), await createKey({ name: 'two' })];
      deps.clock.now += 1;
      const three = await createKey({ name: 'three' });
      await clerk.apiKeys.revoke({ apiKeyId: one.id });
      const list = async (query: Partial<Parameters<ClerkClient['apiKeys']['list']>[0]> = {}) => {
        const { data, totalCount } = await clerk.apiKeys.list({ subject: USER, ...query });
        return [data.map(({ id }) => id), totalCount];
      };
      expect(await list()).toEqual([[three.id, two.id], 2]);
      expect(await list({ limit: 1, offset: 1 })).toEqual([[two.id], 2]);
      expect((await list({ includeInvalid: true }))[1]).toBe(3);
      expect(await list({ subject: `org_${'3'.repeat(27)}` })).toEqual([[], 0]);
    });

    it('updates; its subject stays what it is', async () => {
      const { id } = await createKey();
      expect(
        await clerk.apiKeys.update({
          apiKeyId: id,
          subject: USER,
          description: 'weekly',
          claims: { plan: 'free' },
          scopes: ['read'],
          secondsUntilExpiration: 60,
        }),
      ).toMatchObject({
        description: 'weekly',
        claims: { plan: 'free' },
        scopes: ['read'],
        expiration: deps.now() + 60_000,
      });
      expect(
        await clerk.apiKeys.update({ apiKeyId: id, subject: USER, secondsUntilExpiration: null }),
      ).toMatchObject({ expiration: null, description: 'weekly' });
      expect(await refusalOf(clerk.apiKeys.update({ apiKeyId: id, subject: 'user_other' }))).toMatchObject({
        status: 400,
        code: 'invalid_input',
      });
    });

    it('deletes', async () => {
      const { id } = await createKey();
      expect(await clerk.apiKeys.delete(id)).toMatchObject({ id, deleted: true });
      expect(await refusalOf(clerk.apiKeys.get(id))).toMatchObject({ status: 404 });
    });

    it("revokes, with a reason in anybody's words or in ours", async () => {
      const [one, two, three] = [
        await createKey({ name: 'one' }),
        await createKey({ name: 'two' }),
        await createKey({ name: 'three' }),
      ];
      expect(await clerk.apiKeys.revoke({ apiKeyId: one.id, revocationReason: 'it leaked' })).toMatchObject({
        revoked: true,
        revocationReason: 'it leaked',
      });
      expect(await clerk.apiKeys.revoke({ apiKeyId: two.id, revocationReason: 'compromised' })).toMatchObject(
        {
          revocationReason: 'compromised',
        },
      );
      expect(await clerk.apiKeys.revoke({ apiKeyId: three.id, revocationReason: null })).toMatchObject({
        revocationReason: 'unspecified',
      });
    });

    it('verifies what is valid, and answers 404 to all else', async () => {
      const { id, secret = '' } = await createKey({ claims: { plan: 'pro' }, scopes: ['read'] });
      expect(await clerk.apiKeys.verify(secret)).toMatchObject({
        id,
        type: 'api_key',
        name: 'nightly export',
        subject: USER,
        claims: { plan: 'pro' },
        scopes: ['read'],
        revoked: false,
        expired: false,
      });
      await clerk.apiKeys.revoke({ apiKeyId: id });
      for (const value of [secret, 'ak_garbage', deps.adminKey])
        expect(await refusalOf(clerk.apiKeys.verify(value))).toMatchObject({
          status: 404,
          code: 'resource_not_found',
        });
    });
  });

  it('clerk.jwks answers the signing keys', async () => {
    const { keys } = await clerk.jwks.getJwks();
    expect(keys).toMatchObject([{ kty: 'RSA', use: 'sig', alg: 'RS256', kid: expect.any(String) }]);
  });

  describe('authenticateRequest()', () => {
    const requestWith = (authorization?: string) =>
      new Request('https://api.example.com/', { ...(authorization && { headers: { authorization } }) });

    async function outcomeOf(
      acceptsToken: NonNullable<AuthenticateOptions['acceptsToken']>,
      credential: string | undefined,
      options: AuthenticateOptions = {},
    ) {
      const state = await clerk.authenticateRequest(
        requestWith(credential === undefined ? undefined : `Bearer ${credential}`),
        { acceptsToken: acceptsToken as 'any', publishableKey: PUBLISHABLE_KEY, ...options },
      );
      return { isAuthenticated: state.isAuthenticated, reason: state.reason, auth: state.toAuth() };
    }

    it('accepts an API key, with whom it stands for', async () => {
      const { id, secret } = await createKey({ scopes: ['read'], claims: { plan: 'pro' } });
      expect(await outcomeOf('api_key', secret)).toMatchObject({
        isAuthenticated: true,
        auth: {
          tokenType: 'api_key',
          id,
          subject: USER,
          userId: USER,
          orgId: null,
          name: 'nightly export',
          scopes: ['read'],
          claims: { plan: 'pro' },
        },
      });
    });

    it('accepts an M2M token, opaque at the machine it is for, and a JWT', async () => {
      const { ledger, billing } = await machinesInTouch();
      const machineSecretKey = billing.secretKey;
      const opaque = await clerk.m2m.createToken({ machineSecretKey });
      const jwt = await clerk.m2m.createToken({
        machineSecretKey,
        tokenFormat: 'jwt',
        claims: { team: 'a' },
      });
      const atLedger = { machineSecretKey: ledger.secretKey };
      const auth = {
        tokenType: 'm2m_token',
        subject: billing.id,
        machineId: billing.id,
        scopes: [ledger.id],
      };
      expect(await outcomeOf('m2m_token', opaque.token, atLedger)).toMatchObject({
        isAuthenticated: true,
        auth: { ...auth, id: opaque.id },
      });
      expect(await outcomeOf('m2m_token', jwt.token, { secretKey: deps.adminKey })).toMatchObject({
        isAuthenticated: true,
        auth: { ...auth, id: jwt.id, claims: { team: 'a' } },
      });
    });

    it('refuses every other state as an invalid token, not as a failure', async () => {
      const { ledger, billing } = await machinesInTouch();
      const stranger = await machine('stranger');
      const revoked = await createKey({ name: 'revoked' });
      await clerk.apiKeys.revoke({ apiKeyId: revoked.id });
      const expired = await createKey({ name: 'expired', secondsUntilExpiration: 1 });
      const token = await clerk.m2m.createToken({ machineSecretKey: billing.secretKey });
      deps.clock.now += 1_000;
      for (const [type, value, options] of [
        ['api_key', revoked.secret],
        ['api_key', expired.secret],
        ['api_key', 'ak_garbage'],
        ['m2m_token', token.token, { machineSecretKey: stranger.secretKey }],
        ['m2m_token', 'mt_garbage', { machineSecretKey: ledger.secretKey }],
      ] as const)
        expect(await outcomeOf(type, value, options)).toMatchObject({
          isAuthenticated: false,
          reason: 'token-invalid',
        });
    });

    it('refuses a disabled key, and one of a disabled subject, until they are enabled', async () => {
      const { id, secret } = await createKey();
      const { ask } = await serveRest(deps);
      const post = (path: string) => ask('POST', path, { credential: deps.adminKey });
      for (const noun of [`/api_keys/${id}`, `/subjects/${USER}`]) {
        expect((await post(`${noun}/disable`)).status).toBe(200);
        expect(await outcomeOf('api_key', secret)).toMatchObject({ reason: 'token-invalid' });
        expect((await post(`${noun}/enable`)).status).toBe(200);
        expect(await outcomeOf('api_key', secret)).toMatchObject({ isAuthenticated: true });
      }
    });

    it('answers a bad secret of the caller with 401, which the SDK tells apart', async () => {
      const { secret } = await createKey();
      clerk = clientWith(`sk_${'x'.repeat(49)}`);
      expect(await outcomeOf('api_key', secret)).toMatchObject({
        isAuthenticated: false,
        reason: 'secret-key-invalid',
      });
    });

    it('takes arrays and any, and asks nothing where the type does not fit or there is no token', async () => {
      const { billing } = await machinesInTouch();
      const key = await createKey();
      const { token } = await clerk.m2m.createToken({ machineSecretKey: billing.secretKey });
      for (const accepted of [['api_key', 'm2m_token'], 'any'] as const)
        for (const value of [key.secret, token])
          expect(await outcomeOf(accepted as 'any', value)).toMatchObject({ isAuthenticated: true });
      expect(await outcomeOf('m2m_token', key.secret)).toMatchObject({ reason: 'token-type-mismatch' });
      expect(await outcomeOf(['m2m_token'], key.secret)).toMatchObject({ isAuthenticated: false });
      expect(await outcomeOf('api_key', undefined)).toMatchObject({ isAuthenticated: false });
    });

    it('accepts keys with a prefix of ours that begins ak_', async () => {
      const { ask } = await serveRest(deps);
      const admin = { credential: deps.adminKey };
      await ask('POST', '/v1/key_prefixes', { ...admin, body: { prefix: 'ak_acme_' } });
      const policy = await ask('POST', '/v1/key_policies', {
        ...admin,
        body: { name: 'acme', prefix: 'ak_acme_', is_default: true },
      });
      expect(policy.status).toBe(200);
      const { secret } = await createKey();
      expect(secret).toMatch(/^ak_acme_/);
      expect(await outcomeOf('api_key', secret)).toMatchObject({ isAuthenticated: true });
    });
  });

  describe('clerkMiddleware() of @clerk/express', () => {
    it('knows the bearer of an API key and of an M2M token, and nobody else', async () => {
      const { billing } = await machinesInTouch();
      const { secret } = await createKey();
      const { token } = await clerk.m2m.createToken({ machineSecretKey: billing.secretKey });
      const app = express();
      app.use(clerkMiddleware({ apiUrl, secretKey: deps.adminKey, publishableKey: PUBLISHABLE_KEY }));
      app.get('/', (request, response) => {
        const { tokenType, isAuthenticated, subject } = getAuth(request, { acceptsToken: 'any' }) as {
          tokenType: string;
          isAuthenticated: boolean;
          subject?: string;
        };
        response.json({ tokenType, isAuthenticated, subject });
      });
      const { url } = await listen(app);
      const ask = async (credential: string | undefined) =>
        (await send(url, { headers: { authorization: `Bearer ${credential}` } })).body;
      expect(await ask(secret)).toMatchObject({ tokenType: 'api_key', isAuthenticated: true, subject: USER });
      expect(await ask(token)).toMatchObject({
        tokenType: 'm2m_token',
        isAuthenticated: true,
        subject: billing.id,
      });
      expect(await ask('ak_garbage')).toMatchObject({ isAuthenticated: false });
    });
  });
});
