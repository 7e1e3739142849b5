import { describe, expect, it } from 'vitest';
import { networkOf } from '../../../server/domain/address-limits.ts';
import { call, outcomeOf } from '../../support/calls.ts';
import { describeOnEachDialect, openTestDeps } from '../../support/deps.ts';

describe('networkOf()', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:db8:1:2::9', '2001:db8:1:2'],
    ['2001:db8::9', '2001:db8:0:0'],
    ['::1', '0:0:0:0'],
    ['', 'none'],
  ])('of %s is %s', (address, network) => {
    expect(networkOf(address)).toBe(network);
  });
});

describeOnEachDialect('revoking by value', (dialect) => {
  it('is refused to an address that has done so 60 times in a minute, for every kind together, and to no other', async () => {
    const deps = await openTestDeps(dialect);
    const revoke = (path: string) => outcomeOf(call(deps, deps.adminKey, path, { value: 'ak_nothing' }));
    const paths = ['apiKeys.revokeByValue', 'm2mTokens.revokeByValue'];
    for (let i = 0; i < 60; i++) expect(await revoke(paths[i % 2] ?? '')).toBe('ok');
    for (const path of paths) expect(await revoke(path)).toBe('rate_limited');
    deps.clock.now += 62_000;
    for (const path of paths) expect(await revoke(path)).toBe('ok');
  });
});
