import { expect, it } from 'vitest';
import type { Rows } from '../../../db/store.ts';
import { sortableId } from '../../../server/crypto/ids.ts';
import {
  createOauthApplication,
  createOauthApplicationInput,
  deleteOauthApplication,
  revokeOauthApplicationTokens,
} from '../../../server/domain/oauth-applications.ts';
import { getOauthGrant } from '../../../server/domain/oauth-grants.ts';
import { createOauthScope } from '../../../server/domain/oauth-scopes.ts';
import { call, outcomeOf } from '../../support/calls.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newPanelToken } from '../../support/panels.ts';

type GrantRow = Rows['tables']['oauthGrants']['$inferSelect'];

interface Listed {
  data: {
    applicationId: string;
    name: string;
    redirectHosts: string[];
    scopes: { name: string; description: string }[];
    organizationIds: string[];
    firstAllowedAt: number;
    lastUsedAt: number | null;
  }[];
  nextCursor: string | null;
  mayRevoke: boolean;
}

const ADMIN = callerWith('admin');

async function newApplication(deps: TestDeps, name: string, more: object = {}): Promise<string> {
  const redirectUris = ['https://app.example/callback'];
  const input = createOauthApplicationInput.parse({ name, redirectUris, ...more });
  return (await createOauthApplication(deps, ADMIN, input)).id;
}

/** As a user who consented left it. */
async function insertGrant(deps: TestDeps, applicationId: string, more: Partial<GrantRow> = {}) {
  const row: GrantRow = {
    id: sortableId('gnt_', deps.now()),
    application_id: applicationId,
    subject: 'user_1',
    organization_id: null,
    scopes: ['openid'],
    resources: [],
    redirect_uri: 'https://app.example/callback',
    claims: {},
    auth_time: deps.now(),
    nonce: null,
    generation: 0,
    created_at: deps.now(),
    expires_at: null,
    last_used_at: null,
    revoked_at: null,
    revocation_reason: null,
    ...more,
  };
  await deps.store.tx((tx) => tx.db.insert(tx.tables.oauthGrants).values(row));
  return row.id;
}

async function insertConsent(deps: TestDeps, applicationId: string, subject = 'user_1') {
  const id = sortableId('ocn_', deps.now());
  await deps.store.tx((tx) =>
    tx.db.insert(tx.tables.oauthConsents).values({
      id,
      application_id: applicationId,
      subject,
      terms_hash: Buffer.from(id),
      scopes: ['email'],
      created_at: deps.now(),
      updated_at: deps.now(),
    }),
  );
}

async function panelOf(deps: TestDeps, subject: string, more: Record<string, unknown> = {}) {
  const token = await newPanelToken(deps, subject, more);
  return {
    list: (input: object = {}) => call(deps, token, 'panelGrants.list', input) as Promise<Listed>,
    revoke: (applicationId: string) => call(deps, token, 'panelGrants.revoke', { applicationId }),
  };
}

const isRevoked = async (deps: TestDeps, id: string) =>
  (await getOauthGrant(deps, { id })).state === 'revoked';

describeOnEachDialect('panel grants', (dialect) => {
  it('list each application once, with all that it was allowed, in words', async () => {
    const deps = await openTestDeps(dialect);
    await createOauthScope(deps, ADMIN, {
      name: 'invoices:read',
      description: 'Read your invoices',
      advertised: true,
    });
    const id = await newApplication(deps, 'Ledger', {
      scopes: ['openid', 'invoices:read'],
      redirectUris: ['https://app.example/a', 'https://app.example/b', 'com.example.app:/callback'],
    });
    const first = deps.now();
    await insertGrant(deps, id, { scopes: ['openid'], last_used_at: first + 5 });
    deps.clock.now += 1_000;
    await insertGrant(deps, id, { scopes: ['invoices:read', 'openid'], organization_id: 'org_7' });
    const { list } = await panelOf(deps, 'user_1');
    expect(await list()).toMatchObject({
      data: [
        {
          applicationId: id,
          name: 'Ledger',
          redirectHosts: ['app.example', 'com.example.app'],
          organizationIds: ['org_7'],
          firstAllowedAt: first,
          lastUsedAt: first + 5,
        },
      ],
      nextCursor: null,
      mayRevoke: true,
    });
    const [{ scopes } = { scopes: [] }] = (await list()).data;
    expect(scopes.map(({ name }) => name).sort()).toEqual(['invoices:read', 'openid']);
    expect(scopes).toContainEqual({ name: 'invoices:read', description: 'Read your invoices' });
  });

  it('list nothing of another user, of what was revoked or is over, or of an application that is gone', async () => {
    const deps = await openTestDeps(dialect);
    const [theirs, revoked, over, ended, gone] = [
      await newApplication(deps, 'theirs'),
      await newApplication(deps, 'revoked'),
      await newApplication(deps, 'over'),
      await newApplication(deps, 'ended'),
      await newApplication(deps, 'gone'),
    ];
    await insertGrant(deps, theirs, { subject: 'user_2' });
    await insertConsent(deps, theirs, 'user_2');
    await insertGrant(deps, revoked, { revoked_at: deps.now(), revocation_reason: 'revoked' });
    await insertGrant(deps, over, { expires_at: deps.now() });
    await insertGrant(deps, ended);
    await revokeOauthApplicationTokens(deps, ADMIN, { id: ended });
    await insertGrant(deps, gone);
    await deleteOauthApplication(deps, ADMIN, { id: gone });
    const { list } = await panelOf(deps, 'user_1');
    expect((await list()).data).toEqual([]);
  });

  it('list an application whose consent is remembered, though nothing of it lives: it would not ask again', async () => {
    const deps = await openTestDeps(dialect);
    const id = await newApplication(deps, 'remembered');
    await insertConsent(deps, id);
    const { list, revoke } = await panelOf(deps, 'user_1');
    expect((await list()).data).toMatchObject([{ applicationId: id, scopes: [{ name: 'email' }] }]);
    await revoke(id);
    expect((await list()).data).toEqual([]);
  });

  it('go through pages without leaving one out or showing one twice', async () => {
    const deps = await openTestDeps(dialect);
    const ids = [];
    for (let i = 0; i < 5; i++) {
      deps.clock.now += 1_000;
      const id = await newApplication(deps, `paged ${i}`);
      ids.unshift(id);
      if (i % 2 === 0) await insertGrant(deps, id);
      if (i % 3 === 0) await insertConsent(deps, id);
      if (i === 1) await insertGrant(deps, id);
    }
    const { list } = await panelOf(deps, 'user_1');
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const page: Listed = await list({ limit: 2, ...(cursor !== null && { cursor }) });
      seen.push(...page.data.map(({ applicationId }) => applicationId));
      cursor = page.nextCursor;
    } while (cursor !== null);
    expect(seen).toEqual(ids);
  });

  it('withdraw all that one application was allowed by one user, and nothing else', async () => {
    const deps = await openTestDeps(dialect);
    const [id, other] = [await newApplication(deps, 'withdrawn'), await newApplication(deps, 'stays')];
    const own = [await insertGrant(deps, id), await insertGrant(deps, id, { organization_id: 'org_7' })];
    const others = [await insertGrant(deps, id, { subject: 'user_2' }), await insertGrant(deps, other)];
    await insertConsent(deps, id);
    const { list, revoke } = await panelOf(deps, 'user_1');
    await revoke(id);
    expect((await list()).data.map(({ applicationId }) => applicationId)).toEqual([other]);
    expect(await Promise.all(own.map((grant) => isRevoked(deps, grant)))).toEqual([true, true]);
    expect(await Promise.all(others.map((grant) => isRevoked(deps, grant)))).toEqual([false, false]);
  });

  it('are of the person in front of the panel, also where it is an organization’s', async () => {
    const deps = await openTestDeps(dialect);
    const [own, theirs] = [await newApplication(deps, 'own'), await newApplication(deps, 'theirs')];
    await insertGrant(deps, own);
    const grant = await insertGrant(deps, theirs, { subject: 'user_2', organization_id: 'org_7' });
    const { list, revoke } = await panelOf(deps, 'org_7', { createdBy: 'user_1' });
    expect((await list()).data.map(({ applicationId }) => applicationId)).toEqual([own]);
    await revoke(theirs);
    expect(await isRevoked(deps, grant)).toBe(false);
  });

  it('are left to who may do so much: what a panel may do with API keys says nothing of them', async () => {
    const deps = await openTestDeps(dialect);
    const id = await newApplication(deps, 'asked about');
    await insertGrant(deps, id);
    const keys = await panelOf(deps, 'user_1', { actions: ['read', 'create', 'update', 'rotate', 'revoke'] });
    expect([await outcomeOf(keys.list()), await outcomeOf(keys.revoke(id))]).toEqual([
      'forbidden',
      'forbidden',
    ]);
    const reader = await panelOf(deps, 'user_1', { actions: ['read_grants'] });
    expect((await reader.list()).mayRevoke).toBe(false);
    expect(await outcomeOf(reader.revoke(id))).toBe('forbidden');
    for (const caller of [deps.adminKey, undefined])
      expect(await outcomeOf(call(deps, caller, 'panelGrants.list', {}))).not.toBe('ok');
  });
});
