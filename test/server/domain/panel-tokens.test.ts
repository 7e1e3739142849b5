import { eq } from 'drizzle-orm';
import { expect, it } from 'vitest';
import { newValue } from '../../../server/crypto/hashing.ts';
import { deleteExpiredPanelTokens, findPanelToken } from '../../../server/domain/panel-tokens.ts';
import { call, outcomeOf } from '../../support/calls.ts';
import { describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newPanelToken } from '../../support/panels.ts';

const newKey = (deps: TestDeps, role: string, more: object = {}) =>
  call(deps, deps.adminKey, 'secretKeys.create', { name: role, role, ...more }) as Promise<{
    id: string;
    secret: string;
  }>;

const mintBy = async (deps: TestDeps, secret: string, input: object = {}) => {
  const asked = { subject: 'user_1', actions: ['read'], ...input };
  return (await call(deps, secret, 'panelTokens.create', asked)) as { token: string; expiresAt: number };
};

describeOnEachDialect('panel tokens', (dialect) => {
  it('are read as what they were minted for, until the instant they expire', async () => {
    const deps = await openTestDeps(dialect);
    const { token, expiresAt } = await mintBy(deps, deps.adminKey, {
      subject: 'org_7',
      createdBy: 'user_1',
      actions: ['read', 'revoke'],
      scopeCeiling: ['invoices:read'],
      ttlSeconds: 60,
    });
    expect(token).toMatch(/^pnl_\w{49}$/);
    expect(await findPanelToken(deps, token)).toEqual({
      kind: 'end_user',
      id: 'user_1',
      subject: 'org_7',
      actions: ['read', 'revoke'],
      scopeCeiling: ['invoices:read'],
      policyId: null,
    });
    expect(expiresAt).toBe(deps.now() + 60_000);
    deps.clock.now += 59_999;
    expect(await findPanelToken(deps, token)).not.toBeNull();
    deps.clock.now += 1;
    expect(await findPanelToken(deps, token)).toBeNull();
  });

  it('are no credential: verifying one says that it is malformed or of a wrong kind', async () => {
    const deps = await openTestDeps(dialect);
    const answer = await call(deps, deps.adminKey, 'credentials.verify', {
      credential: await newPanelToken(deps, 'user_1'),
    });
    expect(answer).toMatchObject({ valid: false, reason: expect.stringMatching(/^(malformed|wrong_kind)$/) });
  });

  it('end with the secret key that minted them: revoked, expired, or rotated because it leaked', async () => {
    const deps = await openTestDeps(dialect);
    const [revoked, leaked, rotated, expiring] = [
      await newKey(deps, 'interaction'),
      await newKey(deps, 'interaction'),
      await newKey(deps, 'issuer'),
      await newKey(deps, 'interaction', { ttlSeconds: 90 }),
    ];
    const tokens: string[] = [];
    for (const { secret } of [revoked, leaked, rotated, expiring])
      tokens.push((await mintBy(deps, secret)).token);
    const found = () =>
      Promise.all(tokens.map(async (token) => (await findPanelToken(deps, token)) !== null));
    expect(await found()).toEqual([true, true, true, true]);
    await call(deps, deps.adminKey, 'secretKeys.revoke', { id: revoked.id });
    await call(deps, deps.adminKey, 'secretKeys.rotate', { id: leaked.id, compromised: true });
    await call(deps, deps.adminKey, 'secretKeys.rotate', { id: rotated.id, overlapSeconds: 0 });
    deps.clock.now += 90_000;
    expect(await found()).toEqual([false, false, true, false]);
  });

  it('are nobody’s once a writer to the database widened them', async () => {
    const deps = await openTestDeps(dialect);
    const { panelTokens } = deps.store.read.tables;
    const changes: Partial<typeof panelTokens.$inferInsert>[] = [
      { subject: 'user_2' },
      { created_by: 'user_2' },
      { actions: ['read', 'create'] },
      { scope_ceiling: ['everything'] },
      { policy_id: `kp_${'0'.repeat(27)}` },
      { expires_at: deps.now() + 86_400_000 },
    ];
    for (const change of changes) {
      const { token } = await mintBy(deps, deps.adminKey);
      expect(await findPanelToken(deps, token)).not.toBeNull();
      const hash = deps.keyring.hash(token);
      await deps.store.tx(({ db }) => db.update(panelTokens).set(change).where(eq(panelTokens.hash, hash)));
      expect([change, await findPanelToken(deps, token)]).toEqual([change, null]);
    }
  });

  it('are minted for nobody who is a machine, an application or a credential, and for minutes only', async () => {
    const deps = await openTestDeps(dialect);
    const refused = [
      { subject: `mch_${'0'.repeat(27)}` },
      { subject: `oauthapp_${'0'.repeat(27)}` },
      { subject: newValue('ak_').value },
      { createdBy: 'sk_1' },
      { ttlSeconds: 59 },
      { ttlSeconds: 3601 },
      { actions: [] },
      { actions: ['read', 'read'] },
      { actions: ['delete'] },
      { claims: {} },
    ];
    for (const input of refused)
      expect([input, await outcomeOf(mintBy(deps, deps.adminKey, input))]).toEqual([input, 'invalid_input']);
    const policyId = `kp_${'0'.repeat(27)}`;
    expect(await outcomeOf(mintBy(deps, deps.adminKey, { policyId }))).toBe('not_found');
    const { secret } = await newKey(deps, 'read');
    expect(await outcomeOf(mintBy(deps, secret))).toBe('forbidden');
  });

  it('that expired are deleted, some at a time, and no others', async () => {
    const deps = await openTestDeps(dialect);
    for (let i = 0; i < 3; i++) await mintBy(deps, deps.adminKey, { ttlSeconds: 60 });
    deps.clock.now += 60_000;
    await mintBy(deps, deps.adminKey);
    expect([await deleteExpiredPanelTokens(deps, 2), await deleteExpiredPanelTokens(deps, 2)]).toEqual([
      2, 1,
    ]);
    const { db, tables } = deps.store.read;
    expect(await db.select().from(tables.panelTokens)).toHaveLength(1);
  });
});
