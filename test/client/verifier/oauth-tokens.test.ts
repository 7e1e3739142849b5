/** OAuth access tokens in the verifier, against the routes and the feed of a server in this process. */
import { expect, it, onTestFinished, vi } from 'vitest';
import {
  createVerifier,
  type Verifier,
  type VerifierEvent,
  type VerifierOptions,
  type VerifyOptions,
} from '../../../client/verifier.ts';
import { authorize } from '../../../server/authenticate.ts';
import { verify, verifyInput } from '../../../server/domain/credentials.ts';
import {
  deleteOauthApplication,
  revokeOauthApplicationTokens,
  setOauthApplicationEnabled,
  updateOauthApplication,
} from '../../../server/domain/oauth-applications.ts';
import {
  revokeAllOauthGrants,
  revokeOauthGrant,
  withdrawOauthConsent,
} from '../../../server/domain/oauth-grants.ts';
import { revokeOauthToken } from '../../../server/domain/oauth-tokens.ts';
import { setSubjectEnabled } from '../../../server/domain/subjects.ts';
import { createFeeds } from '../../../server/feed.ts';
import { createHotRoutes } from '../../../server/hot.ts';
import { createLogger } from '../../../server/logger.ts';
import {
  callerWith,
  describeOnEachDialect,
  openTestDeps,
  presented,
  type TestDeps,
} from '../../support/deps.ts';
import { newMachine } from '../../support/machines.ts';
import { applicationRow, newAccessToken, newApplication, newGrant } from '../../support/oauth-tokens.ts';
import { listen } from '../../support/procedures.ts';

const admin = callerWith('admin');
/** The hot routes of a server, and its feed. */
async function serve(deps: TestDeps): Promise<string> {
  const feeds = createFeeds(deps, createLogger('silent'));
  onTestFinished(() => feeds.close());
  const addressOf = () => '127.0.0.1';
  const routes = createHotRoutes({ deps, feeds, addressOf });
  const { url } = await listen((request, response) => {
    if (!routes(request, response, 'req_test', 0)) response.writeHead(404).end();
  });
  return url;
}

const API = 'https://api.example.com/notes';

describeOnEachDialect('the verifier and OAuth access tokens', (dialect) => {
  async function setup() {
    const { clock, ...rest } = await openTestDeps(dialect);
    // Of real time: that of memory passes by itself.
    const deps: TestDeps = { ...rest, clock, now: Date.now };
    Object.defineProperty(clock, 'now', { get: Date.now });
    const { row: application } = await newApplication(deps);
    return { deps, application, url: await serve(deps) };
  }

  type World = Awaited<ReturnType<typeof setup>>;

  async function openVerifier({ deps, url }: World, options: VerifierOptions = {}) {
    const events: VerifierEvent[] = [];
    const verifier = createVerifier({
      url,
      ...(options.machineSecretKey === undefined && { secretKey: deps.adminKey }),
      onEvent: (event) => events.push(event),
      ...options,
    });
    onTestFinished(() => verifier.close());
    await vi.waitFor(() => expect(verifier.status().trusted).toBe(true), { timeout: 10_000 });
    const asked = () => events.reduce((sum, event) => sum + (event.type === 'asked' ? event.items : 0), 0);
    return { verifier, asked };
  }

  const asServer = (deps: TestDeps, credential: string, options: VerifyOptions) =>
    verify(deps, presented(deps.adminKey), verifyInput.parse({ credential, ...options }), (principal) =>
      authorize(principal, 'credentials.verify', true),
    );

  const isRefused = (verifier: Verifier, value: string) =>
    vi.waitFor(async () => expect(await verifier.verify(value)).toMatchObject({ valid: false }), {
      timeout: 2_000,
      interval: 5,
    });

  it('asks once for a token, answers as the server does from memory, and judges its resource there', async () => {
    const world = await setup();
    const { deps, application } = world;
    const grant = await newGrant(deps, application, { resources: [API] });
    const { verifier, asked } = await openVerifier(world);
    for (const format of ['opaque', 'jwt'] as const) {
      const { value } = await newAccessToken(deps, application, { format, grant, resources: [API] });
      expect(await verifier.verify(value, { resource: API })).toMatchObject({ valid: true });
      const before = asked();
      for (const options of [
        { resource: API },
        { resource: API, scopes: ['notes:read'] },
        { resource: API, scopes: ['x'] },
        { resource: 'https://other.example.com' },
        {},
        { resource: API, kinds: ['api_key' as const] },
      ])
        expect(await verifier.verify(value, options)).toEqual(await asServer(deps, value, options));
      expect(asked()).toBe(before);
    }
  });

  it('judges a JWT that it has not seen without asking, once it knows its application', async () => {
    const world = await setup();
    const { deps, application } = world;
    const { verifier, asked } = await openVerifier(world, { resource: API });
    const grant = await newGrant(deps, application, { organizationId: 'org_7', resources: [API] });
    const jwtOf = async (more: object = {}) =>
      (await newAccessToken(deps, application, { format: 'jwt', grant, resources: [API], ...more })).value;
    expect(await verifier.verify(await jwtOf())).toMatchObject({ valid: true });
    await vi.waitFor(async () => {
      const before = asked();
      await verifier.verify(await jwtOf());
      expect(asked()).toBe(before);
    });
    const before = asked();
    for (const more of [{}, { grant: null }, { resources: [API, 'https://b.example'] }, { resources: [] }]) {
      const value = await jwtOf(more);
      expect(await verifier.verify(value)).toEqual(await asServer(deps, value, { resource: API }));
      const forged = `${value.slice(0, value.lastIndexOf('.'))}.${'A'.repeat(86)}`;
      expect(await verifier.verify(forged)).toEqual({ valid: false, reason: 'unknown' });
    }
    expect(asked()).toBe(before);
    await updateOauthApplication(deps, admin, { id: application.id, name: 'Renamed' });
    await vi.waitFor(async () =>
      expect(await verifier.verify(await jwtOf())).toMatchObject({ applicationName: 'Renamed' }),
    );
  });

  const ENDINGS: [string, (world: World, token: { id: string; grantId: string }) => Promise<unknown>][] = [
    ['it was revoked', ({ deps }, { id }) => revokeOauthToken(deps, admin, { id })],
    ['its grant was revoked', ({ deps }, { grantId: id }) => revokeOauthGrant(deps, admin, { id })],
    [
      'consent was withdrawn',
      ({ deps, application: { id } }) =>
        withdrawOauthConsent(deps, admin, { subject: 'user_1', applicationId: id }),
    ],
    ['all of its user were revoked', ({ deps }) => revokeAllOauthGrants(deps, admin, { subject: 'user_1' })],
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
    ['its user was disabled', ({ deps }) => setSubjectEnabled(deps, admin, { id: 'user_1' }, false)],
  ];

  it.each(ENDINGS)(
    'a token is not answered valid from memory, nor a JWT judged so, once %s',
    async (_, end) => {
      const world = await setup();
      const { deps, application } = world;
      const grant = await newGrant(deps, application);
      const { verifier } = await openVerifier(world);
      const opaque = await newAccessToken(deps, application, { grant });
      const [seen, unseen] = [
        await newAccessToken(deps, application, { format: 'jwt', grant }),
        await newAccessToken(deps, application, { format: 'jwt', grant }),
      ];
      for (const { value } of [opaque, seen])
        expect(await verifier.verify(value)).toMatchObject({ valid: true });
      const isOfOne = end === ENDINGS[0]?.[1];
      for (const { id } of isOfOne ? [opaque, seen, unseen] : [opaque])
        await end(world, { id, grantId: grant.id });
      for (const { value } of [opaque, seen, unseen]) await isRefused(verifier, value);
      // Also by who begins later, and knows its application by another token.
      if (_.includes('application')) return;
      const late = await openVerifier(world);
      const other = await newGrant(deps, application, { subject: 'user_2' });
      const probe = await newAccessToken(deps, application, { format: 'jwt', grant: other });
      expect(await late.verifier.verify(probe.value)).toMatchObject({ valid: true });
      for (const { value } of [unseen, seen, opaque])
        expect(await late.verifier.verify(value)).toMatchObject({ valid: false });
    },
  );

  it('a JWT issued to a user who is disabled already is not judged valid', async () => {
    const world = await setup();
    const { deps, application } = world;
    const { verifier } = await openVerifier(world);
    const other = await newGrant(deps, application, { subject: 'user_2' });
    await setSubjectEnabled(deps, admin, { id: 'user_1' }, false);
    const probe = await newAccessToken(deps, application, { format: 'jwt', grant: other });
    expect(await verifier.verify(probe.value)).toMatchObject({ valid: true });
    const grant = await newGrant(deps, application);
    const later = Date.now() + 120_000;
    const ahead = { ...deps, now: () => later };
    const { value } = await newAccessToken(ahead, application, { format: 'jwt', grant });
    expect(await verifier.verify(value)).toMatchObject({ valid: false, reason: 'disabled' });
  });

  it('a token of an application that is enabled again is answered valid again', async () => {
    const world = await setup();
    const { deps, application } = world;
    const { verifier } = await openVerifier(world);
    const { value } = await newAccessToken(deps, application);
    await setOauthApplicationEnabled(deps, admin, application.id, false);
    await isRefused(verifier, value);
    await setOauthApplicationEnabled(deps, admin, application.id, true);
    await vi.waitFor(async () => expect(await verifier.verify(value)).toMatchObject({ valid: true }));
  });

  it('of a machine answers for access tokens only while an admin lets it', async () => {
    const world = await setup();
    const { deps, application } = world;
    const [service, auditor] = [
      await newMachine(deps, 'service'),
      await newMachine(deps, 'auditor', { mayVerify: true }),
    ];
    const { value } = await newAccessToken(deps, application, { format: 'jwt', resources: [API] });
    const of = async (machineSecretKey: string) =>
      (await openVerifier(world, { machineSecretKey, resource: API })).verifier;
    expect(await (await of(service.secret)).verify(value)).toEqual({ valid: false, reason: 'wrong_kind' });
    const verifier = await of(auditor.secret);
    expect(await verifier.verify(value)).toMatchObject({ valid: true });
    expect(await verifier.verify(value, { resource: 'https://other.example' })).toEqual({
      valid: false,
      reason: 'unknown',
    });
  });

  it('what was answered from memory moves last use of the token and of its application', async () => {
    const world = await setup();
    const { deps, application } = world;
    const { verifier } = await openVerifier(world);
    const { id, value } = await newAccessToken(deps, application, { format: 'jwt' });
    await verifier.verify(value);
    const usedAt = Date.now() + 1;
    await vi.waitFor(() => expect(Date.now()).toBeGreaterThan(usedAt));
    for (let i = 0; i < 3; i++) await verifier.verify(value);
    await verifier.close();
    const { oauthTokens: t } = deps.store.read.tables;
    const [token] = (await deps.store.read.db.select().from(t)).filter((row) => row.id === id);
    expect(token?.last_used_at).toBeGreaterThanOrEqual(usedAt);
    expect((await applicationRow(deps, application.id)).last_used_at).toBeGreaterThanOrEqual(usedAt);
  });
});
