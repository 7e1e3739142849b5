import { expect, it } from 'vitest';
import {
  BUILT_IN_SCOPES,
  createOauthScope,
  createOauthScopeInput,
  deleteOauthScope,
  describeScopes,
  updateOauthScope,
} from '../../../server/domain/oauth-scopes.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';

const admin = callerWith('admin');

const create = (deps: TestDeps, name: string) =>
  createOauthScope(deps, admin, createOauthScopeInput.parse({ name, description: `May ${name}` }));

describeOnEachDialect('OAuth scopes', (dialect) => {
  it('those of OpenID Connect are not created anew, changed or deleted', async () => {
    const deps = await openTestDeps(dialect);
    expect(BUILT_IN_SCOPES).toEqual(['openid', 'profile', 'email', 'offline_access']);
    for (const name of BUILT_IN_SCOPES) {
      await expect(create(deps, name)).rejects.toMatchObject({ code: 'name_taken' });
      const changed = updateOauthScope(deps, admin, { name, description: 'Know nothing' });
      await expect(changed).rejects.toMatchObject({ code: 'not_found' });
      await expect(deleteOauthScope(deps, admin, { name })).rejects.toMatchObject({ code: 'not_found' });
    }
    expect(await describeScopes(deps.store.read, BUILT_IN_SCOPES)).toHaveLength(4);
  });

  it('there may be 1,000 beside them', async () => {
    const deps = await openTestDeps(dialect);
    const row = { description: 'x', advertised: true, resource: null, created_at: 0, updated_at: 0 };
    const rows = Array.from({ length: 999 }, (_, i) => ({ ...row, name: `scope:${i}` }));
    await deps.store.tx(({ db, tables }) => db.insert(tables.oauthScopes).values(rows));
    await create(deps, 'the:last');
    await expect(create(deps, 'too:many')).rejects.toMatchObject({ code: 'limit_reached' });
  });
});

describeOnEachDialect('describeScopes()', (dialect) => {
  it('answers those there are in the order given, however many are asked for', async () => {
    const deps = await openTestDeps(dialect);
    const names = Array.from({ length: 9 }, (_, i) => `scope:${i}`);
    for (const name of names) await create(deps, name);
    for (let count = 0; count <= names.length; count++) {
      const asked = ['unknown', ...names.slice(0, count).reverse(), 'openid'];
      const described = await describeScopes(deps.store.read, asked);
      expect(described.map(({ name }) => name)).toEqual(asked.slice(1));
      expect(described.map(({ description }) => description).slice(0, -1)).toEqual(
        asked.slice(1, -1).map((name) => `May ${name}`),
      );
    }
  });
});
