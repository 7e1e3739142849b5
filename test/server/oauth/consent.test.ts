import { eq } from 'drizzle-orm';
import { expect, it } from 'vitest';
import { updateOauthApplication } from '../../../server/domain/oauth-applications.ts';
import { findUserSession } from '../../../server/domain/user-sessions.ts';
import { call } from '../../support/calls.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { applicationRow, newApplication } from '../../support/oauth-tokens.ts';
import { newPkce, type Page, serveOauth, UserAgent } from '../../support/user-agent.ts';
import { newUser, newUserSession, PASSWORD } from '../../support/users.ts';

const CALLBACK = 'https://notes.example.com/callback';
const HAND_OFF = { kind: 'handoff', url: 'https://app.example.com/sign-in' } as const;
const admin = callerWith('admin');

async function open(deps: TestDeps, input: Record<string, unknown> = {}) {
  const { row: application } = await newApplication(deps, { pkceRequired: false, ...input });
  const user = await newUser(deps, 'ada', { withPassword: true });
  const served = await serveOauth(deps);
  const query = (more: Record<string, string> = {}) =>
    new URLSearchParams({
      client_id: application.client_id,
      response_type: 'code',
      scope: 'openid notes:read',
      code_challenge: newPkce().challenge,
      code_challenge_method: 'S256',
      ...more,
    });
  return {
    url: served.url,
    deps: served.deps as TestDeps,
    application,
    user,
    query,
    ask: (more?: Record<string, string>) => `${served.url}/oauth/authorize?${query(more)}`,
    async signedIn() {
      const agent = new UserAgent(served.url);
      agent.cookies.set('countersign_session', (await newUserSession(deps, user)).value);
      return agent;
    },
  };
}

const follow = (agent: UserAgent, { location }: Page) => agent.get(location ?? '');

const codeOf = ({ location }: Page) => location && new URL(location).searchParams.get('code');

/** Writes what only a stranger's registration or the clock of logos would. */
async function setColumns({ store }: TestDeps, id: string, columns: object) {
  await store.tx(({ db, tables: { oauthApplications: a } }) => db.update(a).set(columns).where(eq(a.id, id)));
}

describeOnEachDialect('the page of consent', (dialect) => {
  const changes: [what: string, change: Record<string, unknown>][] = [
    ['name', { name: 'Notes of somebody else' }],
    ['way back', { redirectUris: ['https://elsewhere.example.com/callback'] }],
    ['list of scopes', { defaultScopes: ['openid', 'notes:write'] }],
  ];
  for (const [what, change] of changes)
    it(`is shown again where the application has another ${what} than the user read`, async () => {
      const { application, deps, ask, signedIn } = await open(await openTestDeps(dialect), {
        defaultScopes: ['openid', 'notes:read'],
      });
      const agent = await signedIn();
      const read = await follow(agent, await agent.get(ask({ scope: '' })));
      expect(read.text).not.toContain('role="alert"');
      await updateOauthApplication(deps, admin, { id: application.id, ...change });
      const again = await agent.submit(read, { decision: 'allow' });
      expect([again.status, again.location]).toEqual([200, null]);
      expect(again.text).toContain('role="alert"');
      expect(await deps.store.read.db.select().from(deps.store.read.tables.oauthGrants)).toEqual([]);
      expect(codeOf(await agent.submit(again, { decision: 'allow' }))).toMatch(/^oac_/);
    });

  it('names the home page that an administrator or the host of its document says, and no stranger’s', async () => {
    const { application, deps, ask, signedIn } = await open(await openTestDeps(dialect), {
      clientUri: 'https://notes.example.com/',
    });
    const agent = await signedIn();
    const shown = async () => (await follow(agent, await agent.get(ask()))).text;
    expect(await shown()).toContain('Its home page is <code>https://notes.example.com/</code>');
    await setColumns(deps, application.id, { source: 'dynamic', client_uri: 'https://bank.example/' });
    expect(await shown()).not.toContain('bank.example');
  });

  it('shows no logo of an application that nobody vouches for, nor of one on the user’s device', async () => {
    const loopback = 'http://127.0.0.1/callback';
    const { application, deps, ask, signedIn } = await open(await openTestDeps(dialect), {
      redirectUris: [CALLBACK, loopback, 'com.example.notes:/callback'],
    });
    await setColumns(deps, application.id, { logo_updated_at: deps.now() });
    expect((await applicationRow(deps, application.id)).logo_updated_at).not.toBeNull();
    const agent = await signedIn();
    const shown = async (redirect_uri: string) =>
      (await follow(agent, await agent.get(ask({ redirect_uri })))).text;
    expect(await shown(CALLBACK)).toContain('<img');
    expect(await shown(loopback)).not.toContain('<img');
    expect(await shown('com.example.notes:/callback')).not.toContain('<img');
    await setColumns(deps, application.id, { source: 'dynamic' });
    expect(await shown(CALLBACK)).not.toContain('<img');
  });

  it('is shown every time for an administrator’s application on the user’s device', async () => {
    const uris = ['http://127.0.0.1/callback', 'com.example.notes:/callback'];
    const { ask, deps, signedIn } = await open(await openTestDeps(dialect), { redirectUris: uris });
    const agent = await signedIn();
    for (const redirect_uri of [...uris, ...uris]) {
      const asked = await agent.get(ask({ redirect_uri }));
      expect(asked.location).toContain('/oauth/consent?interaction=');
      const allowed = await agent.submit(await follow(agent, asked), { decision: 'allow' });
      expect(codeOf(allowed)).toMatch(/^oac_/);
    }
    expect(await deps.store.read.db.select().from(deps.store.read.tables.oauthConsents)).toEqual([]);
  });
});

describeOnEachDialect('a request to authorize', (dialect) => {
  it('that is posted without cookies is answered with the same by GET, which has them', async () => {
    const { url, query, signedIn } = await open(await openTestDeps(dialect));
    const post = async (more: Record<string, string>) => {
      const body = query(more);
      const response = await fetch(`${url}/oauth/authorize`, { method: 'POST', body, redirect: 'manual' });
      return { location: response.headers.get('location') ?? '', body };
    };
    const { location, body } = await post({ state: 'a b&c=é' });
    expect(location).toBe(`${url}/oauth/authorize?${body}`);
    expect((await (await signedIn()).get(location)).location).toContain('/oauth/consent?interaction=');
    // Longer than a request line may be: it goes on as what it is.
    const long = await post({ state: 'x'.repeat(4_000), unknown: 'x'.repeat(4_000) });
    expect(long.location).toContain('/oauth/sign-in?interaction=');
  });

  it('keeps no parameter without a value for whoever goes on with it', async () => {
    const opened = { ...(await openTestDeps(dialect)), signIn: HAND_OFF };
    const { deps, ask, url } = await open(opened);
    const { location } = await new UserAgent(url).get(ask({ redirect_uri: '', max_age: '', prompt: '' }));
    const id = new URL(location ?? '').searchParams.get('interaction') ?? '';
    expect(await call(deps, deps.adminKey, 'interactions.get', { id })).toMatchObject({
      redirectHost: 'notes.example.com',
      signedInSince: null,
      prompts: [],
    });
    const completed = call(deps, deps.adminKey, 'interactions.complete', { id, subject: 'ada' });
    expect(await completed).toMatchObject({ resumeUrl: expect.any(String) });
  });

  it('that cannot go on after signing in leaves the user signed in', async () => {
    const { application, deps, ask, url, user } = await open(await openTestDeps(dialect));
    const agent = new UserAgent(url);
    const before = (await newUserSession(deps, user)).value;
    agent.cookies.set('countersign_session', before);
    const form = await follow(agent, await agent.get(ask({ prompt: 'login' })));
    await setColumns(deps, application.id, { enabled: false });
    const refused = await agent.submit(form, { name: 'ada', password: PASSWORD });
    expect([refused.status, refused.location]).toEqual([400, null]);
    const now = agent.cookies.get('countersign_session');
    expect(await findUserSession(deps, before)).toBeNull();
    expect(await findUserSession(deps, now)).toMatchObject({ subject: user.id });
  });
});
