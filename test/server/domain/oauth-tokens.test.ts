import { eq } from 'drizzle-orm';
import { expect, it } from 'vitest';
import { formatValue } from '../../../server/crypto/format.ts';
import { newValue } from '../../../server/crypto/hashing.ts';
import { sortableId } from '../../../server/crypto/ids.ts';
import { revokeOauthApplicationTokens } from '../../../server/domain/oauth-applications.ts';
import { type GrantRow, revokeOauthGrant } from '../../../server/domain/oauth-grants.ts';
import {
  getOauthToken,
  listOauthTokens,
  listOauthTokensInput,
  revokeOauthToken,
} from '../../../server/domain/oauth-tokens.ts';
import { call, outcomeOf } from '../../support/calls.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newAccessToken, newApplication, newGrant } from '../../support/oauth-tokens.ts';
import { serveRest } from '../../support/rest.ts';

const admin = callerWith('admin');

/** A refresh token under a grant. */
async function newRefreshToken(deps: TestDeps, grant: GrantRow): Promise<string> {
  const { value } = newValue('ort_');
  await deps.store.tx(({ db, tables }) =>
    db.insert(tables.oauthRefreshTokens).values({
      id: sortableId('ort_', deps.clock.now),
      hash: deps.keyring.hash(value),
      pepper_version: deps.keyring.pepperVersion,
      grant_id: grant.id,
      application_id: grant.application_id,
      scopes: [],
      created_at: deps.clock.now,
      expires_at: deps.clock.now + 1_000,
    }),
  );
  return value;
}

describeOnEachDialect('oauthTokens', (dialect) => {
  async function setup() {
    const deps = await openTestDeps(dialect);
    const { row: application } = await newApplication(deps);
    const grant = await newGrant(deps, application);
    return { deps, application, grant };
  }

  const stateOf = async (deps: TestDeps, id: string) => (await getOauthToken(deps, { id })).state;

  const grantState = async (deps: TestDeps, id: string) => {
    const { oauthGrants: g } = deps.store.read.tables;
    const [row] = await deps.store.read.db.select().from(g).where(eq(g.id, id));
    return row?.revoked_at === null ? 'live' : 'revoked';
  };

  it('get and list answer tokens without their values, the newest first, by application, grant and state', async () => {
    const { deps, application, grant } = await setup();
    const ids: string[] = [];
    for (const own of [grant, null, grant]) {
      deps.clock.now += 1_000;
      ids.push((await newAccessToken(deps, application, { grant: own })).id);
    }
    const [first = '', second = '', third = ''] = ids;
    const list = async (input: object) =>
      (await listOauthTokens(deps, listOauthTokensInput.parse(input))).data.map(({ id }) => id);
    expect(await list({ applicationId: application.id })).toEqual([third, second, first]);
    expect(await list({ grantId: grant.id })).toEqual([third, first]);
    await revokeOauthToken(deps, admin, { id: first });
    expect(await list({ applicationId: application.id, state: 'live' })).toEqual([third, second]);
    await revokeOauthGrant(deps, admin, { id: grant.id });
    expect(await list({ applicationId: application.id, state: 'revoked' })).toEqual([third, first]);
    expect(await stateOf(deps, third)).toBe('revoked');
    await revokeOauthApplicationTokens(deps, admin, { id: application.id });
    expect(await list({ applicationId: application.id, state: 'live' })).toEqual([]);
    deps.clock.now += 3_600_000;
    const { id } = await newAccessToken(deps, { ...application, token_generation: 1 });
    deps.clock.now += 3_600_000;
    expect(await list({ applicationId: application.id, state: 'expired' })).toEqual([id]);
    expect(await stateOf(deps, id)).toBe('expired');
    expect(JSON.stringify(await getOauthToken(deps, { id }))).not.toContain('hash');
    await expect(list({})).rejects.toMatchObject({ code: 'invalid_input' });
  });

  it('list goes through many, page by page, without any twice', async () => {
    const { deps, application } = await setup();
    const made = new Set<string>();
    for (let i = 0; i < 7; i++) made.add((await newAccessToken(deps, application)).id);
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await listOauthTokens(
        deps,
        listOauthTokensInput.parse({ applicationId: application.id, limit: 3, cursor }),
      );
      seen.push(...page.data.map(({ id }) => id));
      cursor = page.nextCursor ?? undefined;
    } while (cursor !== undefined);
    expect(seen).toHaveLength(7);
    expect(new Set(seen)).toEqual(made);
  });

  it('revokeByValue takes an access token, opaque or JWT, and of a refresh token the grant', async () => {
    const { deps, application, grant } = await setup();
    const revoke = (value: string) =>
      call(deps, deps.adminKey, 'oauthTokens.revokeByValue', { value, reason: 'leaked' });
    for (const format of ['opaque', 'jwt'] as const) {
      const { id, value } = await newAccessToken(deps, application, { format, grant });
      expect(await revoke(value)).toEqual({ accepted: true });
      expect(await getOauthToken(deps, { id })).toMatchObject({
        state: 'revoked',
        revocationReason: 'leaked',
      });
      expect(await grantState(deps, grant.id)).toBe('live');
    }
    expect(await revoke(await newRefreshToken(deps, grant))).toEqual({ accepted: true });
    expect(await grantState(deps, grant.id)).toBe('revoked');
  });

  it('revokeByValue answers the same whatever it found, but for the credentials of callers', async () => {
    const { deps } = await setup();
    const revoke = (value: string) =>
      outcomeOf(call(deps, deps.adminKey, 'oauthTokens.revokeByValue', { value }));
    for (const value of ['x', formatValue('oat_', Buffer.alloc(32)), formatValue('ort_', Buffer.alloc(32))])
      expect(await revoke(value)).toBe('ok');
    for (const value of [deps.adminKey, formatValue('msk_', Buffer.alloc(32))])
      expect(await revoke(value)).toBe('invalid_input');
  });

  it("Clerk's revoke_token takes all of the grant along, and only tokens of that application", async () => {
    const { deps, application, grant } = await setup();
    const { ask } = await serveRest(deps);
    const revoke = (id: string, token: string) =>
      ask('POST', `/v1/oauth_applications/${id}/revoke_token`, {
        credential: deps.adminKey,
        body: { token },
      });
    const other = (await newApplication(deps, { name: 'Other' })).row;
    const { value } = await newAccessToken(deps, application, { grant });
    expect((await revoke(other.id, value)).status).toBe(204);
    expect(await grantState(deps, grant.id)).toBe('live');
    expect((await revoke(application.id, value)).status).toBe(204);
    expect(await grantState(deps, grant.id)).toBe('revoked');

    const own = await newGrant(deps, application);
    expect((await revoke(application.id, await newRefreshToken(deps, own))).status).toBe(204);
    expect(await grantState(deps, own.id)).toBe('revoked');

    const alone = await newAccessToken(deps, application, { format: 'jwt' });
    expect((await revoke(application.id, alone.value)).status).toBe(204);
    expect(await stateOf(deps, alone.id)).toBe('revoked');
    expect((await revoke(application.id, 'nothing')).status).toBe(204);
    expect((await revoke(`oauthapp_${'0'.repeat(27)}`, value)).status).toBe(404);
  });

  it("Clerk's verify route answers a live token in seconds, and 404 for whatever is not valid", async () => {
    const { deps, application, grant } = await setup();
    const { ask } = await serveRest(deps);
    const path = '/oauth_applications/access_tokens/verify';
    const verified = (body: object, at = path) => ask('POST', at, { credential: deps.adminKey, body });
    const { id, value, expiresAt } = await newAccessToken(deps, application, {
      grant,
      resources: ['https://api.example.com'],
    });
    const object = {
      object: 'clerk_idp_oauth_access_token',
      id,
      client_id: application.client_id,
      subject: 'user_1',
      scopes: ['notes:read'],
      revoked: false,
      revocation_reason: null,
      expired: false,
      expiration: Math.floor(expiresAt / 1000),
      created_at: Math.floor(deps.clock.now / 1000),
      updated_at: Math.floor(deps.clock.now / 1000),
      aud: ['https://api.example.com'],
    };
    for (const [body, at] of [
      [{ access_token: value }, path],
      [{ secret: value }, path],
      [{ access_token: value }, `/v1${path}`],
    ] as const)
      expect(await verified(body, at)).toMatchObject({ status: 200, body: object });
    const jwt = await newAccessToken(deps, application, { format: 'jwt', grant });
    expect(await verified({ access_token: jwt.value })).toMatchObject({ status: 200, body: { id: jwt.id } });
    for (const access_token of [
      'x',
      formatValue('oat_', Buffer.alloc(32)),
      formatValue('mt_', Buffer.alloc(32)),
    ])
      expect((await verified({ access_token })).status).toBe(404);
    expect((await verified({ access_token: value, secret: value })).status).toBe(400);
    expect((await ask('POST', path, { body: { access_token: value } })).status).toBe(401);
    await revokeOauthGrant(deps, admin, { id: grant.id });
    for (const access_token of [value, jwt.value])
      expect(await verified({ access_token })).toMatchObject({
        status: 404,
        body: { errors: [{ code: 'resource_not_found' }] },
      });
  });

  it('POST /v1/oauth_tokens/verify answers for access tokens alone', async () => {
    const { deps, application } = await setup();
    const { ask } = await serveRest(deps);
    const verified = (body: object) =>
      ask('POST', '/v1/oauth_tokens/verify', { credential: deps.adminKey, body });
    const { id, value } = await newAccessToken(deps, application);
    expect((await verified({ credential: value })).body).toMatchObject({ valid: true, id });
    const key = formatValue('ak_', Buffer.alloc(32));
    expect((await verified({ credential: key })).body).toEqual({ valid: false, reason: 'wrong_kind' });
    expect((await verified({ credential: value, kinds: ['oauth_token'] })).status).toBe(400);
    expect(await call(deps, deps.adminKey, 'oauthTokens.verify', { credential: value })).toMatchObject({
      id,
    });
  });
});
