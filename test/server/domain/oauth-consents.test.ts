import { expect, it } from 'vitest';
import {
  type Authorization,
  authorizeSilently,
  giveConsent,
  withoutAsking,
} from '../../../server/domain/oauth-consents.ts';
import { createInteraction } from '../../../server/domain/oauth-interactions.ts';
import { deleteUser, setUserEnabled } from '../../../server/domain/users.ts';
import {
  anywhere,
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';
import { newApplication } from '../../support/oauth-tokens.ts';
import { newUser } from '../../support/users.ts';

const admin = callerWith('admin');

async function open(deps: TestDeps, name: string, subject?: string) {
  const { row: application } = await newApplication(deps);
  const id = subject ?? (await newUser(deps, name)).id;
  const authorization: Authorization = {
    application,
    subject: id,
    claims: {},
    authTime: deps.now(),
    organizationId: null,
    scopes: ['openid', 'notes:read'],
    resources: [],
    nonce: null,
    redirectUri: 'https://notes.example.com/callback',
    redirectUriGiven: true,
    codeChallenge: null,
  };
  const interaction = await createInteraction(deps, {
    applicationId: application.id,
    parameters: {},
    step: 'consent',
    browser: 'a browser',
    address: anywhere,
  });
  return {
    id,
    authorization,
    interaction,
    silently: () => authorizeSilently(deps, authorization, null),
    asked: () => giveConsent(deps, interaction.id, authorization, 'req_1'),
  };
}

async function allowedIn({ store: { read } }: TestDeps) {
  const { oauthGrants: g, oauthConsents: c, oauthCodes: o } = read.tables;
  const grants = await read.db.select().from(g);
  return {
    live: grants.filter(({ revoked_at }) => revoked_at === null).length,
    codes: (await read.db.select().from(o)).length,
    consents: (await read.db.select().from(c)).length,
  };
}

describeOnEachDialect('what a user allows', (dialect) => {
  it('is nothing once they are disabled or deleted, whatever their session said before', async () => {
    const deps = await openTestDeps(dialect);
    const disabled = await open(deps, 'ada');
    await setUserEnabled(deps, admin, disabled, false);
    const deleted = await open(deps, 'bob');
    await deleteUser(deps, admin, deleted);
    for (const { silently, asked } of [disabled, deleted]) {
      await expect(silently()).rejects.toThrow('This user may not sign in');
      await expect(asked()).rejects.toThrow('This user may not sign in');
    }
    expect(await allowedIn(deps)).toEqual({ live: 0, codes: 0, consents: 0 });
  });

  it('is gone with them, of deleting and allowing at once whichever comes first', async () => {
    const deps = await openTestDeps(dialect);
    for (let round = 0; round < 8; round++) {
      const { id, silently, asked } = await open(deps, 'ada');
      const both = [silently(), asked(), deleteUser(deps, admin, { id })];
      await Promise.allSettled(round % 2 === 0 ? both : both.reverse());
      expect(await allowedIn(deps)).toMatchObject({ live: 0, consents: 0 });
    }
  });

  it('is remembered for the redirect URI, the resources and the organization that it was allowed for', async () => {
    const deps = await openTestDeps(dialect);
    const { authorization: plain, interaction } = await open(deps, 'ada');
    const [acme, others] = [{ id: 'org_7' }, [{ id: 'org_8' }]];
    const allowed = { ...plain, resources: ['https://api.example.com/'], organizationId: acme.id };
    await giveConsent(deps, interaction.id, allowed, 'req_1');
    const asked = { ...allowed, organizationId: null };
    const organizationOf = async (more: Partial<Authorization>, organizations: { id: string }[]) =>
      (await withoutAsking(deps, { ...asked, ...more }, organizations))?.organizationId;
    expect(await organizationOf({}, [acme, ...others])).toBe('org_7');
    expect(await organizationOf({}, others)).toBeUndefined();
    expect(await organizationOf({}, [])).toBeUndefined();
    const changes: Partial<Authorization>[] = [
      { redirectUri: 'https://other.example.com/callback' },
      { resources: [] },
      { resources: ['https://files.example.com/'] },
      { resources: [...allowed.resources, 'https://files.example.com/'] },
      { scopes: [...plain.scopes, 'notes:write'] },
    ];
    for (const more of changes)
      expect(await organizationOf(more, [acme, ...others]), JSON.stringify(more)).toBeUndefined();
  });

  it('is theirs to allow without a row, where the host application says who they are', async () => {
    const deps: TestDeps = {
      ...(await openTestDeps(dialect)),
      signIn: { kind: 'handoff', url: 'https://app.example/sign-in' },
    };
    const { silently, asked } = await open(deps, '', 'user_42');
    await silently();
    await asked();
    expect(await allowedIn(deps)).toEqual({ live: 2, codes: 2, consents: 1 });
  });
});
