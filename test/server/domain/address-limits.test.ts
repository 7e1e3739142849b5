import { expect, it } from 'vitest';
import { call, outcomeOf } from '../../support/calls.ts';
import { describeOnEachDialect, openTestDeps } from '../../support/deps.ts';

describeOnEachDialect('revoking by value', (dialect) => {
  it('is refused to an address that has done so 60 times in a minute, for every kind together, and to no other', async () => {
    const deps = await openTestDeps(dialect);
    const revoke = (path: string) => outcomeOf(call(deps, deps.adminKey, path, { value: 'ak_nothing' }));
    const paths = ['apiKeys.revokeByValue', 'm2mTokens.revokeByValue', 'oauthTokens.revokeByValue'];
    for (let i = 0; i < 60; i++) expect(await revoke(paths[i % 3] ?? '')).toBe('ok');
    for (const path of paths) expect(await revoke(path)).toBe('rate_limited');
    deps.clock.now += 62_000;
    for (const path of paths) expect(await revoke(path)).toBe('ok');
  });
});
