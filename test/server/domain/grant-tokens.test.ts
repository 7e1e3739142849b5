import { expect, it } from 'vitest';
import { StoreError } from '../../../db/store.ts';
import { redeemCode } from '../../../server/domain/oauth-codes.ts';
import { authorizeSilently } from '../../../server/domain/oauth-consents.ts';
import { refreshTokens } from '../../../server/domain/oauth-refresh-tokens.ts';
import { describeOnEachDialect, openTestDeps } from '../../support/deps.ts';
import { newApplication } from '../../support/oauth-tokens.ts';
import { newUser } from '../../support/users.ts';

const CALLBACK = 'https://notes.example.com/callback';

describeOnEachDialect('tokens under a grant', (dialect) => {
  it('a second use revokes while the disk is full too, and a first one is none', async () => {
    const deps = await openTestDeps(dialect);
    const { row: application } = await newApplication(deps);
    const { id: subject } = await newUser(deps);
    const { tx } = deps.store;
    let isFull = false;
    deps.store.tx = (work, lane) =>
      isFull && lane !== 'revocation' ? Promise.reject(new StoreError('full', 'Full')) : tx(work, lane);
    const by = { application, secretId: null };
    const newCode = () =>
      authorizeSilently(
        deps,
        {
          application,
          subject,
          claims: {},
          authTime: deps.now(),
          organizationId: null,
          scopes: ['offline_access'],
          resources: [],
          nonce: null,
          redirectUri: CALLBACK,
          redirectUriGiven: true,
          codeChallenge: null,
        },
        null,
      );
    const redeem = (code: string) =>
      redeemCode(deps, by, 'req_1', {
        code,
        redirectUri: CALLBACK,
        codeVerifier: undefined,
        resources: [],
      });
    const refresh = (refreshToken: string | null) =>
      refreshTokens(deps, by, 'req_1', { refreshToken: refreshToken ?? '', scopes: null, resources: [] });

    const [used, other, fresh] = [await newCode(), await newCode(), await newCode()];
    const byCode = await redeem(used);
    const before = await redeem(other);
    const byRefresh = await refresh(before.refreshToken);
    isFull = true;
    await expect(redeem(used)).rejects.toThrow('Full');
    await expect(refresh(before.refreshToken)).rejects.toThrow('Full');
    await expect(redeem(fresh)).rejects.toThrow('Full');
    isFull = false;
    for (const { refreshToken } of [byCode, byRefresh])
      await expect(refresh(refreshToken)).rejects.toThrow('Wanted a refresh token that was not used');
    expect((await redeem(fresh)).refreshToken).toMatch(/^ort_/);
  });
});
