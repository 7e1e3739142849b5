import { expect, it } from 'vitest';
import { authenticateApplication } from '../../../server/domain/application-authentication.ts';
import {
  cancelOauthApplicationRotation,
  completeOauthApplicationRotation,
  countOauthApplications,
  createOauthApplication,
  createOauthApplicationInput,
  deleteOauthApplication,
  getOauthApplication,
  listOauthApplications,
  listOauthApplicationsInput,
  rotateOauthApplicationSecret,
  rotateOauthApplicationSecretInput,
  setOauthApplicationEnabled,
  updateOauthApplication,
  updateOauthApplicationInput,
} from '../../../server/domain/oauth-applications.ts';
import { updateOauthSettings, updateOauthSettingsInput } from '../../../server/domain/oauth-settings.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';

const admin = callerWith('admin');
const CALLBACK = 'https://app.example.com/callback';

const create = (deps: TestDeps, input: Record<string, unknown> = {}) =>
  createOauthApplication(
    deps,
    admin,
    createOauthApplicationInput.parse({ name: 'Notes', redirectUris: [CALLBACK], ...input }),
  );
const update = (deps: TestDeps, id: string, input: Record<string, unknown>) =>
  updateOauthApplication(deps, admin, updateOauthApplicationInput.parse({ id, ...input }));
const isAccepted = async (deps: TestDeps, id: string, secret: string | undefined) =>
  (await authenticateApplication(deps, id, secret ?? null)) !== null;

describeOnEachDialect('OAuth applications', (dialect) => {
  it('createOauthApplication() answers the secret of a confidential one once, and none of a public one', async () => {
    const deps = await openTestDeps(dialect);
    const { secret, ...application } = await create(deps);
    expect(secret).toMatch(/^oas_/);
    expect(await getOauthApplication(deps, { id: application.id })).toEqual(application);
    expect(application).toMatchObject({
      clientId: application.id,
      grantTypes: ['authorization_code', 'refresh_token'],
      pkceRequired: true,
      consentRequired: true,
      accessTokenTtlSeconds: 3_600,
      refreshTokenIdleSeconds: 7_776_000,
      codeTtlSeconds: 60,
    });
    expect(await isAccepted(deps, application.id, secret)).toBe(true);
    const open = await create(deps, { public: true, pkceRequired: false });
    expect(open).not.toHaveProperty('secret');
    // No secret, so PKCE whatever was asked for.
    expect(open.pkceRequired).toBe(true);
  });

  it('authenticateApplication() starts from nobody', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret } = await create(deps);
    const other = await create(deps);
    const open = await create(deps, { public: true });
    expect(await isAccepted(deps, id, undefined)).toBe(false);
    expect(await isAccepted(deps, id, other.secret)).toBe(false);
    expect(await isAccepted(deps, 'oauthapp_unknown', secret)).toBe(false);
    expect(await isAccepted(deps, open.id, secret)).toBe(false);
    expect(await isAccepted(deps, open.id, undefined)).toBe(true);
    await setOauthApplicationEnabled(deps, admin, id, false);
    expect(await isAccepted(deps, id, secret)).toBe(false);
    await setOauthApplicationEnabled(deps, admin, id, true);
    await deleteOauthApplication(deps, admin, { id });
    expect(await isAccepted(deps, id, secret)).toBe(false);
  });

  it.each([
    ['no redirect URI', { redirectUris: [] }, 'redirectUris'],
    ['refresh alone', { grantTypes: ['refresh_token'] }, 'grantTypes'],
    ['a public one that acts for itself', { public: true, grantTypes: ['client_credentials'] }, 'grantTypes'],
    ['a default it may not be given', { scopes: ['openid'], defaultScopes: ['email'] }, 'defaultScopes'],
    ['a scope that nobody defined', { scopes: ['nobody:defined'] }, 'scopes'],
  ])('createOauthApplication() refuses %s', async (_what, input, field) => {
    const deps = await openTestDeps(dialect);
    await expect(create(deps, input)).rejects.toMatchObject({ code: 'invalid_input', field });
    expect(await countOauthApplications(deps, {})).toBe(0);
  });

  it('rotateOauthApplicationSecret() accepts both in the overlap, and revokes all when compromised', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret } = await create(deps);
    const rotate = (input: Record<string, unknown>) =>
      rotateOauthApplicationSecret(deps, admin, rotateOauthApplicationSecretInput.parse({ id, ...input }));
    const second = await rotate({ overlapSeconds: 60 });
    expect([await isAccepted(deps, id, secret), await isAccepted(deps, id, second.secret)]).toEqual([
      true,
      true,
    ]);
    await expect(rotate({})).rejects.toMatchObject({ code: 'rotation_in_progress' });
    await cancelOauthApplicationRotation(deps, admin, id);
    expect([await isAccepted(deps, id, secret), await isAccepted(deps, id, second.secret)]).toEqual([
      true,
      false,
    ]);
    const third = await rotate({ overlapSeconds: 60 });
    await completeOauthApplicationRotation(deps, admin, id);
    expect([await isAccepted(deps, id, secret), await isAccepted(deps, id, third.secret)]).toEqual([
      false,
      true,
    ]);
    const fourth = await rotate({ compromised: true });
    expect([await isAccepted(deps, id, third.secret), await isAccepted(deps, id, fourth.secret)]).toEqual([
      false,
      true,
    ]);
    expect(fourth.tokensRevokedAt).toBe(deps.clock.now);
    const open = await create(deps, { public: true });
    await expect(
      rotateOauthApplicationSecret(deps, admin, rotateOauthApplicationSecretInput.parse({ id: open.id })),
    ).rejects.toMatchObject({ code: 'wrong_state' });
  });

  it('updateOauthApplication() changes what it is told to, and takes the secrets of what becomes public', async () => {
    const deps = await openTestDeps(dialect);
    const { id, secret } = await create(deps);
    expect(await update(deps, id, { name: 'Tasks', audiences: ['https://api.example.com/'] })).toMatchObject({
      name: 'Tasks',
      audiences: ['https://api.example.com/'],
    });
    await expect(update(deps, id, { redirectUris: [] })).rejects.toMatchObject({ code: 'invalid_input' });
    expect(await update(deps, id, { public: true, pkceRequired: false })).toMatchObject({
      pkceRequired: true,
    });
    expect(await isAccepted(deps, id, secret)).toBe(false);
    expect(await isAccepted(deps, id, undefined)).toBe(true);
  });

  it('takes the format of tokens from the settings where none is given', async () => {
    const deps = await openTestDeps(dialect);
    await updateOauthSettings(deps, admin, updateOauthSettingsInput.parse({ accessTokenFormat: 'jwt' }));
    expect((await create(deps)).accessTokenFormat).toBe('jwt');
    expect((await create(deps, { accessTokenFormat: 'opaque' })).accessTokenFormat).toBe('opaque');
  });

  it('listOauthApplications() pages in order, and finds by id and by a part of the name', async () => {
    const deps = await openTestDeps(dialect);
    const ids = [];
    for (const name of ['alpha', 'beta', 'gamma']) {
      ids.push((await create(deps, { name })).id);
      deps.clock.now += 1_000;
    }
    const list = (input: Record<string, unknown>) =>
      listOauthApplications(deps, listOauthApplicationsInput.parse(input));
    const first = await list({ limit: 2, orderBy: 'name', direction: 'ascending' });
    expect(first.data.map(({ name }) => name)).toEqual(['alpha', 'beta']);
    const cursor = first.nextCursor ?? '';
    const rest = await list({ limit: 2, cursor, orderBy: 'name', direction: 'ascending' });
    expect([rest.data.map(({ name }) => name), rest.nextCursor]).toEqual([['gamma'], null]);
    expect((await list({ query: 'ET' })).data.map(({ name }) => name)).toEqual(['beta']);
    expect((await list({ query: ids[2] })).data.map(({ name }) => name)).toEqual(['gamma']);
    expect(await countOauthApplications(deps, { query: 'a' })).toBe(3);
  });
});
