import { expect, it } from 'vitest';
import {
  createOauthScope,
  createOauthScopeInput,
  describeScopes,
} from '../../../server/domain/oauth-scopes.ts';
import { callerWith, describeOnEachDialect, openTestDeps } from '../../support/deps.ts';

describeOnEachDialect('describeScopes()', (dialect) => {
  it('answers those there are in the order given, however many are asked for', async () => {
    const deps = await openTestDeps(dialect);
    const names = Array.from({ length: 9 }, (_, i) => `scope:${i}`);
    for (const name of names)
      await createOauthScope(
        deps,
        callerWith('admin'),
        createOauthScopeInput.parse({ name, description: `May ${name}` }),
      );
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
