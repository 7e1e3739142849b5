import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, SignJWT } from 'jose';
import { expect, it, onTestFinished } from 'vitest';
import { createForeignKeys } from '../../../server/domain/foreign-keys.ts';
import { findSessionUser } from '../../../server/domain/panel-issuers.ts';
import { PANEL_ACTIONS } from '../../../server/domain/panel-tokens.ts';
import { createOutbound } from '../../../server/outbound.ts';
import { call, outcomeOf } from '../../support/calls.ts';
import { describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';

type Dialect = Parameters<typeof openTestDeps>[0];

/** An application that signs its users in, and says so in JWTs. */
async function newIssuer(deps: Pick<TestDeps, 'now'>) {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const served = { keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }], requests: 0 };
  const server = createServer((_request, response) => {
    served.requests += 1;
    response.end(JSON.stringify({ keys: served.keys }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const sign = (claims: Record<string, unknown> = {}, header: object = {}, key = privateKey) => {
    const now = Math.floor(deps.now() / 1000);
    const own = { sub: 'user_1', iss: url, azp: 'https://app.example', iat: now, exp: now + 60 };
    const all = Object.entries({ ...own, ...claims }).filter(([, value]) => value !== undefined);
    return new SignJWT(Object.fromEntries(all))
      .setProtectedHeader({ alg: 'ES256', kid: 'k1', typ: 'JWT', ...header })
      .sign(key);
  };
  return { url, sign, served };
}

async function open(dialect: Dialect) {
  const outbound = createOutbound({ allowLoopbackHttp: true });
  onTestFinished(() => outbound.close());
  const plain = await openTestDeps(dialect);
  const deps = { ...plain, outbound, foreignKeys: createForeignKeys(outbound, plain.now) };
  return { deps, issuer: await newIssuer(deps) };
}

const trust = (deps: TestDeps, input: object) =>
  call(deps, deps.adminKey, 'panelIssuers.create', { authorizedParties: ['https://app.example'], ...input });

describeOnEachDialect('panel issuers', (dialect) => {
  it('have their session tokens let users in to their own keys, by the whole way of a call', async () => {
    const { deps, issuer } = await open(dialect);
    await trust(deps, { issuer: issuer.url, scopeCeiling: ['a'] });
    const session = await issuer.sign();
    expect(await findSessionUser(deps, session)).toEqual({
      kind: 'end_user',
      id: 'user_1',
      subject: 'user_1',
      actions: PANEL_ACTIONS,
      scopeCeiling: ['a'],
      policyId: null,
    });
    const made = (await call(deps, session, 'panelKeys.create', { name: 'ci', scopes: ['a'] })) as object;
    expect(made).toMatchObject({ createdBy: 'user_1' });
    expect(await outcomeOf(call(deps, session, 'apiKeys.list', {}))).toBe('unauthenticated');
  });

  it('say in which organization a user acts, and whose role manages its keys', async () => {
    const { deps, issuer } = await open(dialect);
    const terms = { organizationClaim: 'o.id', roleClaim: 'o.rol', manageRoles: ['admin'] };
    await trust(deps, { issuer: issuer.url, ...terms });
    const found = async (o: unknown) => findSessionUser(deps, await issuer.sign({ o }));
    expect(await found({ id: 'org_7', rol: 'admin' })).toMatchObject({
      subject: 'org_7',
      id: 'user_1',
      actions: PANEL_ACTIONS,
    });
    for (const rol of ['member', undefined, ['admin'], { admin: true }])
      expect(await found({ id: 'org_7', rol })).toMatchObject({
        subject: 'org_7',
        actions: ['read', 'read_grants', 'revoke_grants'],
      });
    expect(await found(undefined)).toMatchObject({ subject: 'user_1', actions: PANEL_ACTIONS });
    for (const id of [7, '', ['org_7'], `mch_${'0'.repeat(27)}`]) expect(await found({ id })).toBeNull();
  });

  it('let nobody in whose token is not a session of theirs', async () => {
    const { deps, issuer } = await open(dialect);
    await trust(deps, { issuer: issuer.url, audience: 'app' });
    const now = Math.floor(deps.now() / 1000);
    const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    const session = (claims: Record<string, unknown> = {}, header: object = {}, key?: typeof stranger) =>
      issuer.sign({ aud: 'app', ...claims }, header, key);
    expect(await findSessionUser(deps, await session())).toMatchObject({ subject: 'user_1' });
    expect(await findSessionUser(deps, await session({ aud: ['app', 'other'] }))).not.toBeNull();
    const refused: Record<string, Promise<string>> = {
      expired: session({ exp: now - 6, iat: now - 60 }),
      'of the future': session({ nbf: now + 60 }),
      'without an expiry': session({ exp: undefined }),
      'longer than an hour': session({ exp: now + 3601 }),
      'for another audience': session({ aud: 'other' }),
      'for nobody': session({ aud: undefined }),
      'of another party': session({ azp: 'https://evil.example' }),
      'of no party': session({ azp: undefined }),
      'of another issuer': session({ iss: `${issuer.url}/other` }),
      'signed by a stranger': session({}, {}, stranger),
      'an access token by its type': session({}, { typ: 'at+jwt' }),
      'an access token by its client': session({ client_id: 'third-party' }),
      'acting for another': session({ act: { sub: 'agent' } }),
      'bound to a key': session({ cnf: { jkt: 'x' } }),
      'a machine': session({ sub: `mch_${'0'.repeat(27)}` }),
      'an organization': session({ sub: 'org_7' }),
      'a credential': session({ sub: 'ak_1' }),
    };
    for (const [name, token] of Object.entries(refused))
      expect([name, await findSessionUser(deps, await token)]).toEqual([name, null]);
    const [header, payload] = (await session()).split('.');
    const none = Buffer.from('{"alg":"none","typ":"JWT"}').toString('base64url');
    expect(await findSessionUser(deps, `${none}.${payload}.`)).toBeNull();
    expect(await findSessionUser(deps, `${header}.${payload}.AAAA`)).toBeNull();
  });

  it('are asked for their keys anew where one is unknown, but twice a minute at most', async () => {
    const { deps, issuer } = await open(dialect);
    await trust(deps, { issuer: issuer.url });
    const known = await issuer.sign();
    for (let i = 0; i < 5; i++) expect(await findSessionUser(deps, known)).not.toBeNull();
    expect(issuer.served.requests).toBe(1);
    const unknown = () => issuer.sign({}, { kid: randomUUID() });
    for (let i = 0; i < 5; i++) expect(await findSessionUser(deps, await unknown())).toBeNull();
    expect(issuer.served.requests).toBe(1);
    deps.clock.now += 30_000;
    for (let i = 0; i < 5; i++) expect(await findSessionUser(deps, await unknown())).toBeNull();
    expect(issuer.served.requests).toBe(2);
  });

  it('whose keys cannot be had make the answer unavailable, and let nobody in', async () => {
    const { deps, issuer } = await open(dialect);
    issuer.served.keys = 'none' as never;
    await trust(deps, { issuer: issuer.url });
    expect(await outcomeOf(call(deps, await issuer.sign(), 'panelKeys.list', {}))).toBe('unavailable');
  });

  it('that a writer to the database put in, or that were deleted, let nobody in', async () => {
    const { deps, issuer } = await open(dialect);
    const { id } = (await trust(deps, { issuer: issuer.url })) as { id: string };
    const { panelIssuers } = deps.store.read.tables;
    await deps.store.tx(({ db }) => db.update(panelIssuers).set({ scope_ceiling: ['everything'] }));
    expect(await findSessionUser(deps, await issuer.sign())).toBeNull();
    await deps.store.tx(({ db }) => db.update(panelIssuers).set({ scope_ceiling: [] }));
    expect(await findSessionUser(deps, await issuer.sign())).not.toBeNull();
    await call(deps, deps.adminKey, 'panelIssuers.delete', { id });
    expect(await findSessionUser(deps, await issuer.sign())).toBeNull();
  });

  it('must say for whom their tokens are, by addresses that may be asked, and once each', async () => {
    const { deps, issuer } = await open(dialect);
    const outcome = (input: object) => outcomeOf(trust(deps, { issuer: issuer.url, ...input }));
    expect(await outcome({ authorizedParties: null })).toBe('invalid_input');
    expect(await outcome({ manageRoles: ['admin'] })).toBe('invalid_input');
    expect(await outcome({ organizationClaim: 'a..b' })).toBe('invalid_input');
    expect(await outcome({ issuer: 'ftp://login.example' })).toBe('invalid_input');
    expect(await outcome({ jwksUrl: 'https://169.254.169.254/jwks' })).toBe('invalid_input');
    expect(await outcome({ jwksUrl: 'http://login.example/jwks' })).toBe('invalid_input');
    expect(await outcome({})).toBe('ok');
    expect(await outcome({})).toBe('name_taken');
  });
});
