import { expect, it } from 'vitest';
import { PANEL_ACTIONS } from '../../../server/domain/panel-tokens.ts';
import { call, outcomeOf } from '../../support/calls.ts';
import { describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newPanelToken } from '../../support/panels.ts';

const DAY_SECONDS = 86_400;
const YEAR_MS = 365 * DAY_SECONDS * 1000;

interface Key {
  id: string;
  secret?: string;
  scopes: string[];
  createdBy: string | null;
  expiresAt: number | null;
  previousExpiresAt: number | null;
}

/** A panel of its own: what calls by it answer. */
async function panelOf(deps: TestDeps, subject: string, more: object = {}) {
  const token = await newPanelToken(deps, subject, { ...more });
  return {
    ask: (name: string, input?: object) => call(deps, token, `panelKeys.${name}`, input) as Promise<Key>,
    list: async (input: object = {}) =>
      ((await call(deps, token, 'panelKeys.list', input)) as { data: Key[] }).data.map(({ id }) => id),
    options: () => call(deps, token, 'panelKeys.options', undefined),
  };
}

const byAdmin = (deps: TestDeps, path: string, input: object) =>
  call(deps, deps.adminKey, path, input) as Promise<Key>;

const reasonOf = async (deps: TestDeps, credential: string | undefined) =>
  (await call(deps, deps.adminKey, 'credentials.verify', { credential })) as object;

describeOnEachDialect('panel keys', (dialect) => {
  it('are the subject’s, made by who sits in front of the panel, and answer as any other', async () => {
    const deps = await openTestDeps(dialect);
    const { ask, list } = await panelOf(deps, 'org_7', { createdBy: 'user_1', scopeCeiling: ['a', 'b'] });
    const { id, secret, ...key } = await ask('create', { name: 'ci', scopes: ['b'] });
    expect(key).toMatchObject({ createdBy: 'user_1', scopes: ['b'], expiresAt: deps.now() + YEAR_MS });
    expect(key).not.toHaveProperty('claims');
    expect(await reasonOf(deps, secret)).toMatchObject({ valid: true, id, subject: 'org_7', scopes: ['b'] });
    expect(await list()).toEqual([id]);
    await ask('revoke', { id, reason: 'no_longer_used' });
    expect(await reasonOf(deps, secret)).toMatchObject({ valid: false, reason: 'revoked' });
    expect([await list({ ended: false }), await list({ ended: true })]).toEqual([[], [id]]);
  });

  it('of somebody else look as if they were not there, whatever is asked', async () => {
    const deps = await openTestDeps(dialect);
    const theirs = await byAdmin(deps, 'apiKeys.create', { name: 'ci', subject: 'user_2' });
    const { ask, list } = await panelOf(deps, 'user_1');
    const calls: [string, object][] = [
      ['update', { name: 'mine' }],
      ['rotate', {}],
      ['completeRotation', {}],
      ['revoke', {}],
      ['usage', {}],
    ];
    for (const [name, input] of calls)
      expect([name, await outcomeOf(ask(name, { id: theirs.id, ...input }))]).toEqual([name, 'not_found']);
    expect(await list()).toEqual([]);
    expect(await reasonOf(deps, theirs.secret)).toMatchObject({ valid: true });
  });

  it('are left to who may do so much, action by action', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await byAdmin(deps, 'apiKeys.create', { name: 'ci', subject: 'user_1' });
    const inputs: Record<string, [string, object | undefined][]> = {
      read: [
        ['options', undefined],
        ['list', {}],
        ['usage', { id }],
      ],
      create: [['create', { name: 'another' }]],
      update: [['update', { id, name: 'renamed' }]],
      rotate: [
        ['rotate', { id, overlapSeconds: 60 }],
        ['completeRotation', { id }],
      ],
      revoke: [['revoke', { id }]],
    };
    for (const action of PANEL_ACTIONS) {
      const others = PANEL_ACTIONS.filter((each) => each !== action);
      const { ask } = await panelOf(deps, 'user_1', { actions: others });
      for (const [name, input] of inputs[action] ?? [])
        expect([name, await outcomeOf(ask(name, input))]).toEqual([name, 'forbidden']);
      const may = await panelOf(deps, 'user_1', { actions: [action] });
      for (const [name, input] of inputs[action] ?? [])
        expect([name, await outcomeOf(may.ask(name, input))]).toEqual([name, 'ok']);
    }
  });

  it('take no claims, limits, credits, blocks, prefixes or makers of their own', async () => {
    const deps = await openTestDeps(dialect);
    const { ask } = await panelOf(deps, 'user_1');
    const refused = [
      { claims: { plan: 'gold' } },
      { rateLimit: { count: 1, windowSeconds: 1 } },
      { rateLimit: null },
      { credits: { remaining: 5 } },
      { allowedCidrs: ['192.0.2.0/24'] },
      { policyId: `kp_${'0'.repeat(27)}` },
      { prefix: 'acme_' },
      { createdBy: 'user_2' },
      { subject: 'user_2' },
      { rotation: null },
      { expiresAt: null },
    ];
    for (const more of refused)
      expect([more, await outcomeOf(ask('create', { name: 'ci', ...more }))]).toEqual([
        more,
        'invalid_input',
      ]);
  });

  it('are given no scope beyond the ceiling, nor beyond what their policy allows', async () => {
    const deps = await openTestDeps(dialect);
    const policy = await byAdmin(deps, 'keyPolicies.create', { name: 'p', allowedScopes: ['a', 'b'] });
    const outcome = async (more: object, scopes: string[]) => {
      const panel = await panelOf(deps, 'user_1', more);
      return outcomeOf(panel.ask('create', { name: scopes.join(), scopes }));
    };
    expect(await outcome({}, ['a'])).toBe('scope_not_allowed');
    expect(await outcome({ scopeCeiling: ['a'] }, ['a'])).toBe('ok');
    expect(await outcome({ scopeCeiling: ['a'] }, ['b'])).toBe('scope_not_allowed');
    expect(await outcome({ scopeCeiling: null }, ['c'])).toBe('scope_not_allowed');
    expect(await outcome({ scopeCeiling: null, policyId: policy.id }, ['b'])).toBe('ok');
    expect(await outcome({ scopeCeiling: null, policyId: policy.id }, ['c'])).toBe('scope_not_allowed');
    expect(await outcome({ scopeCeiling: ['a', 'c'], policyId: policy.id }, ['c'])).toBe('scope_not_allowed');
    const { options } = await panelOf(deps, 'user_1', { scopeCeiling: ['a', 'c'], policyId: policy.id });
    expect(await options()).toMatchObject({ scopes: ['a'], ttlSecondsMax: null });
  });

  it('are rotated with an overlap that is told of, but not those that may do more than the panel', async () => {
    const deps = await openTestDeps(dialect);
    const mine = await byAdmin(deps, 'apiKeys.create', { name: 'a', subject: 'user_1', scopes: ['a'] });
    deps.clock.now += 1;
    const wide = await byAdmin(deps, 'apiKeys.create', { name: 'w', subject: 'user_1', scopes: ['w'] });
    const { ask } = await panelOf(deps, 'user_1', { scopeCeiling: ['a'] });
    const endsAt = deps.now() + 60_000;
    const rotated = await ask('rotate', { id: mine.id, overlapSeconds: 60 });
    expect(rotated).toMatchObject({ previousExpiresAt: endsAt });
    expect(await reasonOf(deps, rotated.secret)).toMatchObject({ valid: true });
    expect(await ask('list', {})).toMatchObject({
      data: [{ previousExpiresAt: null }, { previousExpiresAt: endsAt }],
    });
    expect(await ask('completeRotation', { id: mine.id })).toMatchObject({ previousExpiresAt: null });
    expect(await reasonOf(deps, mine.secret)).toMatchObject({ valid: false });
    expect(await outcomeOf(ask('rotate', { id: wide.id }))).toBe('scope_not_allowed');
    expect(await reasonOf(deps, wide.secret)).toMatchObject({ valid: true });
  });

  it('live a year at most and are a hundred at most, where no policy says otherwise', async () => {
    const deps = await openTestDeps(dialect);
    const { ask, options } = await panelOf(deps, 'user_1');
    const of = (ttlSeconds: number | null) => outcomeOf(ask('create', { name: `${ttlSeconds}`, ttlSeconds }));
    expect(await of(365 * DAY_SECONDS + 1)).toBe('invalid_input');
    expect(await of(null)).toBe('invalid_input');
    expect(await of(365 * DAY_SECONDS)).toBe('ok');
    for (let i = 1; i < 100; i++) {
      deps.clock.now += 2_000;
      await byAdmin(deps, 'apiKeys.create', { name: `key ${i}`, subject: 'user_1' });
    }
    expect(await options()).toMatchObject({ liveKeys: 100, liveKeysMax: 100 });
    expect(await outcomeOf(ask('create', { name: 'one more' }))).toBe('limit_reached');
  });

  it('live as their policy has it, forever too', async () => {
    const deps = await openTestDeps(dialect);
    await byAdmin(deps, 'keyPolicies.create', { name: 'any', isDefault: true, liveKeysMax: 1 });
    const { ask } = await panelOf(deps, 'user_1');
    expect(await ask('create', { name: 'forever', ttlSeconds: null })).toMatchObject({ expiresAt: null });
    expect(await outcomeOf(ask('create', { name: 'second' }))).toBe('limit_reached');
  });

  it('are changed sixty times a minute at most, and revoked as often as anybody likes', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await byAdmin(deps, 'apiKeys.create', { name: 'ci', subject: 'user_1' });
    const { ask } = await panelOf(deps, 'user_1');
    for (let i = 0; i < 60; i++) await ask('update', { id, name: `name ${i}` });
    expect(await outcomeOf(ask('update', { id, name: 'once more' }))).toBe('rate_limited');
    expect(await outcomeOf(ask('revoke', { id }))).toBe('ok');
  });
});
