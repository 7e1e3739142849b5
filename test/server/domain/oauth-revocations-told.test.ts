/** What status lists and the feed's snapshot say of OAuth access tokens: never less than verifying would. */
import { inflateSync } from 'node:zlib';
import { eq } from 'drizzle-orm';
import { decodeJwt } from 'jose';
import { expect, it } from 'vitest';
import { readEvents } from '../../../server/domain/events.ts';
import { framesOf, readSnapshot } from '../../../server/domain/feed.ts';
import {
  deleteOauthApplication,
  revokeOauthApplicationTokens,
  setOauthApplicationEnabled,
} from '../../../server/domain/oauth-applications.ts';
import {
  revokeAllOauthGrants,
  revokeOauthGrant,
  withdrawOauthConsent,
} from '../../../server/domain/oauth-grants.ts';
import { revokeOauthToken } from '../../../server/domain/oauth-tokens.ts';
import { emergencyRetireSigningKey } from '../../../server/domain/signing-keys.ts';
import { createStatusLists } from '../../../server/domain/status-lists.ts';
import { setSubjectEnabled } from '../../../server/domain/subjects.ts';
import { deleteUser, setUserEnabled } from '../../../server/domain/users.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newAccessToken, newApplication, newGrant } from '../../support/oauth-tokens.ts';
import { newUser } from '../../support/users.ts';

const admin = callerWith('admin');

describeOnEachDialect('status lists and access tokens', (dialect) => {
  async function setup() {
    const deps = await openTestDeps(dialect);
    const { row: application } = await newApplication(deps);
    const { id: user } = await newUser(deps);
    const grant = await newGrant(deps, application, { subject: user });
    return { deps, application, grant, user };
  }

  type World = Awaited<ReturnType<typeof setup>>;

  const jwtOf = async ({ deps, application, grant }: World, own = grant) => {
    const token = await newAccessToken(deps, application, { format: 'jwt', grant: own });
    const { status_list } = decodeJwt(token.value)['status'] as { status_list: { uri: string; idx: number } };
    return { ...token, ...status_list };
  };

  /** What the list says of a token a second later: 1 for refused. */
  async function bitOf(deps: TestDeps, { uri, idx }: { uri: string; idx: number }): Promise<number> {
    deps.clock.now += 1_000;
    const { jwt } = await deps.statusLists.find(deps, uri.slice(uri.lastIndexOf('/') + 1));
    const { status_list } = decodeJwt<{ status_list: { lst: string } }>(jwt);
    const bits = inflateSync(Buffer.from(status_list.lst, 'base64url'));
    return ((bits[idx >> 3] ?? 0) >> (idx & 7)) & 1;
  }

  const ENDINGS: [string, (world: World, id: string) => Promise<unknown>][] = [
    ['it was revoked', ({ deps }, id) => revokeOauthToken(deps, admin, { id })],
    ['its grant was revoked', ({ deps, grant }) => revokeOauthGrant(deps, admin, { id: grant.id })],
    [
      'consent was withdrawn',
      ({ deps, user, application: { id } }) =>
        withdrawOauthConsent(deps, admin, { subject: user, applicationId: id }),
    ],
    [
      'all of its user were revoked',
      ({ deps, user }) => revokeAllOauthGrants(deps, admin, { subject: user }),
    ],
    [
      'all of its application were revoked',
      ({ deps, application: { id } }) => revokeOauthApplicationTokens(deps, admin, { id }),
    ],
    [
      'its application was disabled',
      ({ deps, application: { id } }) => setOauthApplicationEnabled(deps, admin, id, false),
    ],
    [
      'its application was deleted',
      ({ deps, application: { id } }) => deleteOauthApplication(deps, admin, { id }),
    ],
    ['its user was disabled', ({ deps, user }) => setUserEnabled(deps, admin, { id: user }, false)],
    ['its user was deleted', ({ deps, user }) => deleteUser(deps, admin, { id: user })],
    ['its subject was disabled', ({ deps, user }) => setSubjectEnabled(deps, admin, { id: user }, false)],
    [
      'its key was retired in an emergency',
      async ({ deps }) => emergencyRetireSigningKey(deps, admin, { kid: (await deps.signer.active()).kid }),
    ],
  ];

  it.each(ENDINGS)(
    'a list that is kept, and one that is read anew, have the bit of a token once %s',
    async (_, end) => {
      const world = await setup();
      const { deps } = world;
      const [token, other] = [await jwtOf(world), await jwtOf(world)];
      expect([await bitOf(deps, token), await bitOf(deps, other)]).toEqual([0, 0]);
      await end(world, token.id);
      expect(await bitOf(deps, token)).toBe(1);
      expect(await bitOf(deps, other)).toBe(end === ENDINGS[0]?.[1] ? 0 : 1);
      // Also of one that was not kept since before.
      expect(await bitOf({ ...deps, statusLists: createStatusLists() }, token)).toBe(1);
    },
  );

  it('a list has the bit no more once the application is enabled again', async () => {
    const world = await setup();
    const { deps, application } = world;
    const token = await jwtOf(world);
    await setOauthApplicationEnabled(deps, admin, application.id, false);
    expect(await bitOf(deps, token)).toBe(1);
    await setOauthApplicationEnabled(deps, admin, application.id, true);
    expect(await bitOf(deps, token)).toBe(0);
  });

  it('of a token whose row comes after the revocation of its grant the bit is set within seconds', async () => {
    const world = await setup();
    const { deps, grant } = world;
    const before = await jwtOf(world);
    expect(await bitOf(deps, before)).toBe(0);
    await revokeOauthGrant(deps, admin, { id: grant.id });
    expect(await bitOf(deps, before)).toBe(1);
    // As if its transaction had begun before.
    const late = await jwtOf(world);
    deps.clock.now += 10_000;
    expect(await bitOf(deps, late)).toBe(1);
  });
});

describeOnEachDialect('the feed and OAuth', (dialect) => {
  it('readSnapshot() has what is in force against tokens that live, each once, and nothing of what is over', async () => {
    const deps = await openTestDeps(dialect);
    const of = async (name: string) => (await newApplication(deps, { name })).row;
    const [plain, disabled, emptied, gone] = [await of('a'), await of('b'), await of('c'), await of('d')];
    const grant = await newGrant(deps, plain);
    const [one, two] = [
      await newAccessToken(deps, plain, { grant }),
      await newAccessToken(deps, plain, { grant }),
    ];
    const revoked = await newAccessToken(deps, plain);
    const left = await newAccessToken(deps, gone);
    const { id: user } = await newUser(deps);
    await newAccessToken(deps, plain, { grant: await newGrant(deps, plain, { subject: user }) });
    await setUserEnabled(deps, admin, { id: user }, false);
    await revokeOauthGrant(deps, admin, { id: grant.id });
    await revokeOauthToken(deps, admin, { id: revoked.id });
    await setOauthApplicationEnabled(deps, admin, disabled.id, false);
    await revokeOauthApplicationTokens(deps, admin, { id: emptied.id });
    await deleteOauthApplication(deps, admin, { id: gone.id });
    const told = async () => {
      const { items } = await readSnapshot(deps);
      expect(items.every(({ to }) => to === 'key_verifiers')).toBe(true);
      return items
        .map(({ data: { at: _, ...data } }) => data)
        .sort((a, b) => ((a.id ?? '') < (b.id ?? '') ? -1 : 1));
    };
    const selector = (id: string) => ({ applicationId: id });
    const ofApplications = [
      { kind: 'oauth_application', id: disabled.id, selector: selector(disabled.id), reason: 'disabled' },
      { kind: 'oauth_application', id: emptied.id, selector: selector(emptied.id), reason: 'revoked' },
    ];
    const all = [
      ...ofApplications,
      {
        kind: 'oauth_application',
        id: gone.id,
        selector: selector(gone.id),
        reason: 'deleted',
        until: left.expiresAt,
      },
      { kind: 'oauth_token', id: revoked.id, reason: 'revoked', until: revoked.expiresAt },
      {
        kind: 'oauth_grant',
        id: grant.id,
        selector: { grantId: grant.id, subject: 'user_1', applicationId: plain.id },
        reason: 'revoked',
        until: Math.max(one.expiresAt, two.expiresAt),
      },
      { kind: 'subject', id: user, selector: { subject: user }, reason: 'disabled' },
    ];
    const sorted = (items: { id: string }[]) => items.sort((a, b) => (a.id < b.id ? -1 : 1));
    expect(await told()).toEqual(sorted(all));
    deps.clock.now += 3_600_001;
    expect(await told()).toEqual(sorted(ofApplications));
  });

  it('framesOf() tells those who verify of the end of a grant by what a JWT says, and of a consent', async () => {
    const deps = await openTestDeps(dialect);
    const { row } = await newApplication(deps);
    const [first, second] = [await newGrant(deps, row), await newGrant(deps, row)];
    const { seq } = await deps.store.read.db
      .select()
      .from(deps.store.read.tables.eventHead)
      .then(([head]) => head ?? { seq: 0 });
    await revokeOauthGrant(deps, admin, { id: first.id });
    await withdrawOauthConsent(deps, admin, { subject: 'user_1', applicationId: row.id });
    const told = await framesOf(deps.store.read, await readEvents(deps.store.read, seq, 10), true);
    expect(told.flatMap(({ frames }) => frames)).toMatchObject([
      {
        to: 'key_verifiers',
        data: {
          kind: 'oauth_grant',
          id: first.id,
          selector: { grantId: first.id, subject: 'user_1', applicationId: row.id },
          reason: 'revoked',
        },
      },
      {
        to: 'key_verifiers',
        data: {
          kind: 'oauth_grant',
          selector: { subject: 'user_1', applicationId: row.id },
          reason: 'revoked',
        },
      },
    ]);
    const { oauthGrants: g } = deps.store.read.tables;
    const [last] = await deps.store.read.db.select().from(g).where(eq(g.id, second.id));
    expect(last?.revoked_at).not.toBeNull();
  });
});
