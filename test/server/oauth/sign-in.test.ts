import { createHash } from 'node:crypto';
import { eq } from 'drizzle-orm';
import { expect, it } from 'vitest';
import { completeInteraction } from '../../../server/domain/interaction-outcomes.ts';
import { updateOauthApplication } from '../../../server/domain/oauth-applications.ts';
import { inviteUser, inviteUserInput } from '../../../server/domain/user-invitations.ts';
import { beginUserSession, findUserSession, UNREMEMBERED_MS } from '../../../server/domain/user-sessions.ts';
import { LOCAL, setUserEnabled } from '../../../server/domain/users.ts';
import { call, outcomeOf } from '../../support/calls.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newApplication, newGrant } from '../../support/oauth-tokens.ts';
import { basic, newPkce, type Page, postForm, serveOauth, UserAgent } from '../../support/user-agent.ts';
import { newUser, newUserSession, PASSWORD } from '../../support/users.ts';

const CALLBACK = 'https://notes.example.com/callback';
const HOST_PAGE = 'https://app.example.com/sign-in?from=countersign';
const admin = callerWith('admin');

type SignIn = TestDeps['signIn'];

async function open(dialect: Parameters<typeof openTestDeps>[0], signIn: SignIn = { kind: 'local' }) {
  const opened: TestDeps = { ...(await openTestDeps(dialect)), signIn };
  const { row: application, secret } = await newApplication(opened);
  const { deps, url } = await serveOauth(opened);
  const ask = (more: Record<string, string> = {}) => {
    const target = new URL('/oauth/authorize', url);
    const asked = {
      client_id: application.client_id,
      redirect_uri: CALLBACK,
      response_type: 'code',
      scope: 'openid notes:read',
      code_challenge: newPkce().challenge,
      code_challenge_method: 'S256',
      ...more,
    };
    for (const [name, value] of Object.entries(asked)) target.searchParams.set(name, value);
    return target.href;
  };
  return { deps: deps as TestDeps, url, application, secret, ask };
}

const follow = (agent: UserAgent, { location }: Page) => agent.get(location ?? '');

const SESSION = 'countersign_session';
const BROWSER = 'countersign_browser';

const sha256 = (text: string) => createHash('sha256').update(text).digest('base64');

const expectOurPage = ({ headers, text }: Page) => {
  const policy = headers.get('content-security-policy') ?? '';
  expect(policy).toContain("default-src 'none'");
  expect(policy).toContain("frame-ancestors 'none'");
  expect(policy).toContain(sha256(/<style>([\s\S]*)<\/style>/.exec(text)?.[1] ?? ''));
  expect(text).not.toMatch(/<script| style="| on\w+="/);
  expect(headers.get('cache-control')).toBe('no-store');
};

describeOnEachDialect('the page to sign in on', (dialect) => {
  it('signs in whoever has a name and its password, and goes on to consent', async () => {
    const { deps, url, ask } = await open(dialect);
    const { id } = await newUser(deps, 'ada', { withPassword: true });
    const agent = new UserAgent(url);
    const form = await follow(agent, await agent.get(ask({ login_hint: 'ada' })));
    expectOurPage(form);
    expect(form.text).toContain('<strong>Notes</strong>, at notes.example.com');
    expect(form.text).toContain('value="ada"');
    const answer = await agent.submit(form, { name: 'ADA', password: PASSWORD });
    expect([answer.status, answer.location]).toEqual([
      303,
      expect.stringContaining(`${url}/oauth/consent?interaction=int_`),
    ]);
    expect(answer.headers.get('set-cookie')).toMatch(
      /^countersign_session=uss_\w+; Path=\/; HttpOnly; SameSite=Lax$/,
    );
    expect(await findUserSession(deps, agent.cookies.get(SESSION))).toMatchObject({ subject: id });
  });

  it('says of a wrong password what it says of a name that nobody has, and shows what was typed but the password', async () => {
    const { deps, url, ask } = await open(dialect);
    await newUser(deps, 'ada', { withPassword: true });
    const agent = new UserAgent(url);
    const form = await follow(agent, await agent.get(ask()));
    const pages: string[] = [];
    for (const name of ['ada', 'bob']) {
      const page = await agent.submit(form, { name, password: 'wrong <password>' });
      expect(page.status).toBe(400);
      expect(page.text).toContain('role="alert"');
      expect(page.text).not.toContain('wrong &lt;');
      pages.push(page.text.replaceAll(`value="${name}"`, ''));
      expectOurPage(page);
    }
    expect(pages[0]).toBe(pages[1]);
    expect(agent.cookies.has(SESSION)).toBe(false);
  });

  it('cancelling tells the application, and ends the interaction', async () => {
    const { url, ask } = await open(dialect);
    const agent = new UserAgent(url);
    const form = await follow(agent, await agent.get(ask({ state: 'xyz' })));
    const { location } = await agent.submit(form, { cancel: 'yes' });
    expect(Object.fromEntries(new URL(location ?? '').searchParams)).toMatchObject({
      error: 'access_denied',
      state: 'xyz',
      iss: url,
    });
    expect((await agent.submit(form, { cancel: 'yes' })).status).toBe(400);
  });

  it('session fixation: the session is a new one, and the one of before is none', async () => {
    const { deps, url, ask } = await open(dialect);
    const ada = await newUser(deps, 'ada', { withPassword: true });
    const thief = await newUser(deps, 'thief');
    const planted = (await newUserSession(deps, thief)).value;
    const agent = new UserAgent(url);
    agent.cookies.set(SESSION, planted);
    const form = await follow(agent, await agent.get(ask({ prompt: 'login' })));
    await agent.submit(form, { name: 'ada', password: PASSWORD });
    expect(agent.cookies.get(SESSION)).not.toBe(planted);
    expect(await findUserSession(deps, agent.cookies.get(SESSION))).toMatchObject({ subject: ada.id });
    expect(await findUserSession(deps, planted)).toBeNull();
  });

  it('CSRF: a form counts in the browser it was shown in, from this origin, and with its token', async () => {
    const { deps, url, ask } = await open(dialect);
    await newUser(deps, 'ada', { withPassword: true });
    const agent = new UserAgent(url);
    const form = await follow(agent, await agent.get(ask()));
    const other = new UserAgent(url);
    await other.get(ask());
    const given = { name: 'ada', password: PASSWORD };
    // Signing somebody in as the attacker is an attack too: then what they do is the attacker's.
    expect((await other.submit(form, given)).status).toBe(403);
    expect((await agent.submit(form, { ...given, csrf: 'x'.repeat(43) })).status).toBe(403);
    const cookie = [...agent.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const csrf = /name="csrf" value="([^"]+)"/.exec(form.text)?.[1] ?? '';
    const foreign = await fetch(`${url}/oauth/sign-in`, {
      method: 'POST',
      headers: { cookie, origin: 'https://evil.example' },
      body: new URLSearchParams({ ...given, csrf }),
    });
    expect(foreign.status).toBe(403);
    expect((await new UserAgent(url).submit(form, given)).status).toBe(403);
    expect((await agent.submit(form, given)).status).toBe(303);
  });

  it('an interaction is nothing in another browser', async () => {
    const { url, ask } = await open(dialect);
    const thief = new UserAgent(url);
    const { location } = await thief.get(ask());
    const victim = new UserAgent(url);
    await victim.get(ask());
    const page = await victim.get(location ?? '');
    expect([page.status, page.location]).toEqual([400, null]);
    expect(page.text).not.toContain('type="password"');
  });

  it('open redirect: whatever the request says, it leads to where the application is, or to a page of ours', async () => {
    const { deps, url, ask } = await open(dialect);
    await newUser(deps, 'ada', { withPassword: true });
    for (const more of ['return_to', 'next', 'redirect', 'redirect_uri', 'url', 'interaction']) {
      const agent = new UserAgent(url);
      await agent.get(ask());
      const page = await agent.get(`/oauth/sign-in?${more}=${encodeURIComponent('https://evil.example/')}`);
      expect(page.location, more).toBeNull();
      if (page.status !== 200) continue;
      const answer = await agent.submit(page, {
        name: 'ada',
        password: PASSWORD,
        [more]: 'https://evil.example/',
      });
      if (answer.location !== null) expect(answer.location).toBe(`${url}/oauth/applications`);
    }
  });

  it('throttles are told on the page, with when to try again', async () => {
    const { url } = await open(dialect);
    const agent = new UserAgent(url);
    const form = await agent.get('/oauth/sign-in');
    for (let i = 0; i < 5; i++)
      expect((await agent.submit(form, { name: 'ada', password: 'wrong password' })).status).toBe(400);
    const page = await agent.submit(form, { name: 'ada', password: 'wrong password' });
    expect(page.status).toBe(429);
    expect(Number(page.headers.get('retry-after'))).toBeGreaterThan(60);
    expect(page.text).toContain('Too many attempts');
  });

  it('huge and odd forms are refused', async () => {
    const { url } = await open(dialect);
    const agent = new UserAgent(url);
    const form = await agent.get('/oauth/sign-in');
    expect((await agent.submit(form, { name: 'x'.repeat(20_000), password: 'x' })).status).toBe(413);
    expect((await agent.submit(form, { name: '\u0000', password: 'x'.repeat(5_000) })).status).toBe(400);
  });
});

describeOnEachDialect('a user who is disabled', (dialect) => {
  it('is given no tokens: by no code and no refresh token of before, until they are enabled', async () => {
    const { deps, url, ask, application, secret } = await open(dialect);
    const { id } = await newUser(deps, 'ada', { withPassword: true });
    const { verifier, challenge } = newPkce();
    const agent = new UserAgent(url);
    const form = await follow(
      agent,
      await agent.get(ask({ scope: 'openid offline_access', code_challenge: challenge })),
    );
    const consent = await follow(agent, await agent.submit(form, { name: 'ada', password: PASSWORD }));
    const { location } = await agent.submit(consent, { decision: 'allow' });
    const code = new URL(location ?? '').searchParams.get('code') ?? '';
    const token = (fields: Record<string, string>) =>
      postForm(`${url}/oauth/token`, fields, basic(application.client_id, secret));
    const redeem = {
      grant_type: 'authorization_code',
      code,
      redirect_uri: CALLBACK,
      code_verifier: verifier,
    };
    await setUserEnabled(deps, admin, { id }, false);
    expect((await token(redeem)).body).toMatchObject({ error: 'invalid_grant' });
    await setUserEnabled(deps, admin, { id }, true);
    const { body: first } = await token(redeem);
    const refresh = { grant_type: 'refresh_token', refresh_token: String(first['refresh_token']) };
    await setUserEnabled(deps, admin, { id }, false);
    expect((await token(refresh)).body).toMatchObject({ error: 'invalid_grant' });
    await setUserEnabled(deps, admin, { id }, true);
    expect((await token(refresh)).status).toBe(200);
  });
});

describeOnEachDialect('the page behind an invitation', (dialect) => {
  it('makes an account, with which its user signs in', async () => {
    const { deps, url } = await open(dialect);
    const input = inviteUserInput.parse({ email: 'ada@example.com', name: '<b>Ada</b>' });
    const { link = '' } = await inviteUser(deps, admin, input);
    const agent = new UserAgent(url);
    const form = await agent.get(link);
    expectOurPage(form);
    expect(form.text).toContain('Welcome, &lt;b&gt;Ada&lt;/b&gt;.');
    const chosen = { name: 'ada', password: PASSWORD, again: PASSWORD };
    const unlike = await agent.submit(form, { ...chosen, again: 'another' });
    expect([unlike.status, unlike.text]).toEqual([400, expect.stringContaining('the same password twice')]);
    const done = await agent.submit(form, chosen);
    expect([done.status, done.text]).toEqual([
      200,
      expect.stringContaining('You sign in as <strong>ada</strong>'),
    ]);
    expect((await agent.get(link)).status).toBe(400);
    const { location } = await agent.submit(await agent.get('/oauth/sign-in'), chosen);
    expect(location).toBe(`${url}/oauth/applications`);
  });

  it('looks alike for a link that was used, one that has expired, and one that never was', async () => {
    const { url } = await open(dialect);
    const agent = new UserAgent(url);
    const texts: string[] = [];
    for (const value of ['', 'inv_nothing', 'x'.repeat(5_000)]) {
      const page = await agent.get(`/oauth/invitation?value=${value}`);
      expect(page.status).toBe(400);
      texts.push(page.text);
    }
    expect(new Set(texts).size).toBe(1);
  });

  it('is none where users sign in elsewhere', async () => {
    const { deps, url } = await open(dialect, { kind: 'handoff', url: HOST_PAGE });
    const { link = '' } = await inviteUser(deps, admin, inviteUserInput.parse({}));
    expect((await new UserAgent(url).get(link)).status).toBe(403);
  });
});

const newHostKey = (deps: TestDeps) =>
  call(deps, deps.adminKey, 'secretKeys.create', { name: 'host', role: 'interaction' }) as Promise<{
    secret: string;
  }>;

describeOnEachDialect('hand-off to the host application', (dialect) => {
  async function handOff() {
    const opened = await open(dialect, { kind: 'handoff', url: HOST_PAGE });
    const { deps } = opened;
    const { secret } = await newHostKey(deps);
    const end = (subject: string) => call(deps, secret, 'userSessions.endAll', { subject });
    const host = (path: string, input: object) =>
      call(deps, secret, `interactions.${path}`, input) as Promise<Record<string, unknown>>;
    const begin = async (agent: UserAgent, more: Record<string, string> = {}) => {
      const { location } = await agent.get(opened.ask(more));
      const at = new URL(location ?? '');
      expect(`${at.origin}${at.pathname}`).toBe('https://app.example.com/sign-in');
      expect(at.searchParams.get('from')).toBe('countersign');
      return at.searchParams.get('interaction') ?? '';
    };
    return { ...opened, host, begin, end };
  }

  const resume = (agent: UserAgent, { resumeUrl }: Record<string, unknown>) => agent.get(String(resumeUrl));

  it('tells the host application who asks and what for, and takes its word for who the user is', async () => {
    const { deps, url, host, begin, application } = await handOff();
    const agent = new UserAgent(url);
    const id = await begin(agent, { login_hint: 'ada@example.com' });
    expect(await host('get', { id })).toMatchObject({
      id,
      step: 'sign_in',
      application: { id: application.id, name: 'Notes', documentHost: null, logoUrl: null, isVerified: true },
      redirectHost: 'notes.example.com',
      scopes: [
        { name: 'openid', description: 'Know who you are' },
        { name: 'notes:read', description: 'May notes:read' },
      ],
      loginHint: 'ada@example.com',
      prompts: [],
      signedInSince: null,
    });
    const organizations = [{ id: 'org_7', name: 'Acme' }];
    const claims = { name: 'Ada', email: 'ada@example.com', email_verified: true };
    const completed = await host('complete', { id, subject: 'user_42', claims, organizations });
    const consent = await resume(agent, completed);
    expect(consent.location).toBe(`${url}/oauth/consent?interaction=${id}`);
    expect(await findUserSession(deps, agent.cookies.get(SESSION))).toMatchObject({
      subject: 'user_42',
      source: 'handoff',
      claims,
      organizations,
      authTime: deps.now(),
    });
  });

  it('what the user consented to there need not be asked here', async () => {
    const { deps, url, host, begin } = await handOff();
    const agent = new UserAgent(url);
    const id = await begin(agent);
    const consent = { scopes: ['openid'] };
    const { location } = await resume(agent, await host('complete', { id, subject: 'ada', consent }));
    expect(new URL(location ?? '').searchParams.get('code')).toMatch(/^oac_/);
    const { read } = deps.store;
    const grants = await read.db.select().from(read.tables.oauthGrants);
    expect(grants).toMatchObject([{ subject: 'ada', scopes: ['openid'] }]);
  });

  it('is asked once of a user with organizations, and then acts for the one they chose until they are of it no more', async () => {
    const { deps, url, host, begin, ask } = await handOff();
    const [acme, other] = [
      { id: 'org_7', name: 'Acme' },
      { id: 'org_8', name: 'Other' },
    ];
    async function signIn(agent: UserAgent, organizations: object[], chosen?: string) {
      const id = await begin(agent);
      const consent = chosen === undefined ? undefined : { scopes: ['openid'], organizationId: chosen };
      const who = { id, subject: 'ada', organizations, rememberSeconds: 600 };
      return resume(agent, await host('complete', { ...who, consent }));
    }
    const grantedTo = async () => {
      const { oauthGrants: g } = deps.store.read.tables;
      const grants = await deps.store.read.db.select().from(g).orderBy(g.id);
      return grants.map((grant) => grant.organization_id);
    };
    const agent = new UserAgent(url);
    await signIn(agent, [acme, other], 'org_7');
    const silently = await agent.get(ask({ scope: 'openid', prompt: 'none' }));
    expect(new URL(silently.location ?? '').searchParams.get('code')).toMatch(/^oac_/);
    expect(await grantedTo()).toEqual(['org_7', 'org_7']);
    // Allowed for another organization too, it is theirs to say which.
    await signIn(new UserAgent(url), [acme, other], 'org_8');
    const asked = await agent.get(ask({ scope: 'openid', prompt: 'none' }));
    expect(new URL(asked.location ?? '').searchParams.get('error')).toBe('consent_required');
    // And who has left both is asked anew.
    const left = new UserAgent(url);
    expect((await signIn(left, [])).location).toContain('/oauth/consent?interaction=');
    expect(await grantedTo()).toHaveLength(3);
  });

  it('an application that asks for no consent acts for the user alone, whatever organizations they have', async () => {
    const { deps, url, host, begin, application } = await handOff();
    await updateOauthApplication(deps, admin, { id: application.id, consentRequired: false });
    const agent = new UserAgent(url);
    const id = await begin(agent);
    const organizations = [{ id: 'org_7', name: 'Acme' }];
    const { location } = await resume(agent, await host('complete', { id, subject: 'ada', organizations }));
    expect(new URL(location ?? '').searchParams.get('code')).toMatch(/^oac_/);
    const { read } = deps.store;
    const grants = await read.db.select().from(read.tables.oauthGrants);
    expect(grants).toMatchObject([{ subject: 'ada', organization_id: null }]);
  });

  it('refuses a consent to what was not asked for, and to an organization that is not the user’s', async () => {
    const { url, host, begin } = await handOff();
    const id = await begin(new UserAgent(url));
    for (const consent of [{ scopes: ['notes:write'] }, { scopes: ['openid'], organizationId: 'org_7' }])
      expect(await outcomeOf(host('complete', { id, subject: 'ada', consent }))).toBe('invalid_input');
  });

  it('hand-off fixation: a link to an interaction that was begun elsewhere signs nobody in', async () => {
    const { deps, url, host, begin } = await handOff();
    const [thief, victim] = [new UserAgent(url), new UserAgent(url)];
    const id = await begin(thief);
    // The victim follows the attacker's link and signs in at the host application, which completes what it was handed.
    const completed = await host('complete', { id, subject: 'victim' });
    await begin(victim);
    for (const agent of [victim, new UserAgent(url)]) {
      const page = await resume(agent, completed);
      expect([page.status, page.location]).toEqual([400, null]);
      expect(agent.cookies.has(SESSION)).toBe(false);
    }
    const { read } = deps.store;
    expect(await read.db.select().from(read.tables.userSessions)).toEqual([]);
  });

  it('a value is good once, for five minutes, and an older one of the same interaction is none', async () => {
    const { deps, url, host, begin } = await handOff();
    const agent = new UserAgent(url);
    const id = await begin(agent);
    const first = await host('complete', { id, subject: 'ada' });
    const second = await host('complete', { id, subject: 'ada' });
    expect((await resume(agent, first)).status).toBe(400);
    const both = await Promise.all([resume(agent, second), resume(agent, second)]);
    expect(both.map(({ status }) => status).sort()).toEqual([303, 400]);
    const late = await host('complete', { id: await begin(new UserAgent(url)), subject: 'ada' });
    expect(late['expiresAt']).toBe(deps.now() + 5 * 60_000);
    const other = new UserAgent(url);
    const again = await host('complete', { id: await begin(other), subject: 'ada' });
    deps.clock.now += 5 * 60_000;
    expect((await resume(other, again)).status).toBe(400);
  });

  it('a writer to the database cannot say who somebody is', async () => {
    const { deps, url, host, begin } = await handOff();
    const agent = new UserAgent(url);
    const id = await begin(agent);
    const completed = await host('complete', { id, subject: 'thief' });
    await deps.store.tx(async ({ db, tables: { oauthInteractions: i } }) => {
      const [row] = await db.select().from(i).where(eq(i.id, id));
      const forged = JSON.parse(JSON.stringify(row?.outcome).replace('thief', 'victim')) as object;
      await db
        .update(i)
        .set({ outcome: { ...forged } })
        .where(eq(i.id, id));
    });
    expect((await resume(agent, completed)).status).toBe(400);
    expect(agent.cookies.has(SESSION)).toBe(false);
  });

  it('no subject is a machine, an organization, an application or a credential', async () => {
    const { url, host, begin } = await handOff();
    const id = await begin(new UserAgent(url));
    for (const subject of ['mch_1', 'org_1', 'oauthapp_1', 'oat_1', 'sk_1', 'a\u0000'])
      expect(await outcomeOf(host('complete', { id, subject })), subject).toBe('invalid_input');
  });

  it('denying tells the application so', async () => {
    const { url, host, begin } = await handOff();
    const agent = new UserAgent(url);
    const id = await begin(agent, { state: 'xyz' });
    const { location } = await resume(agent, await host('deny', { id }));
    expect(Object.fromEntries(new URL(location ?? '').searchParams)).toMatchObject({
      error: 'access_denied',
      state: 'xyz',
      iss: url,
    });
    expect(await outcomeOf(host('get', { id }))).toBe('not_found');
  });

  it('whoever was to sign in again must have', async () => {
    const { deps, url, host, begin } = await handOff();
    const id = await begin(new UserAgent(url), { prompt: 'login' });
    expect(await host('get', { id })).toMatchObject({ prompts: ['login'], signedInSince: deps.now() });
    const complete = (authTime?: number) => outcomeOf(host('complete', { id, subject: 'ada', authTime }));
    expect(await complete()).toBe('invalid_input');
    expect(await complete(deps.now() - 1)).toBe('invalid_input');
    expect(await complete(deps.now())).toBe('ok');
  });

  it('is remembered for 10 minutes to 14 days, or not at all', async () => {
    const { url, host, begin } = await handOff();
    const id = await begin(new UserAgent(url));
    const complete = (rememberSeconds: number) =>
      outcomeOf(host('complete', { id, subject: 'ada', rememberSeconds }));
    for (const seconds of [-1, 1, 599, 1_209_601, 600.5, 1.5])
      expect(await complete(seconds), `${seconds}`).toBe('invalid_input');
    for (const seconds of [0, 600, 1_209_600]) expect(await complete(seconds), `${seconds}`).toBe('ok');
  });

  it('remembers nobody by what a version before kept, which says nothing of it', async () => {
    const { deps, url, ask, begin } = await handOff();
    const agent = new UserAgent(url);
    const id = await begin(agent);
    // What completes without passing the schema is what was kept then.
    const who = { id, subject: 'ada', claims: {}, organizations: [], consent: { scopes: ['openid'] } };
    const { resumeUrl } = await completeInteraction(
      deps,
      who as unknown as Parameters<typeof completeInteraction>[1],
    );
    expect((await resume(agent, { resumeUrl })).location).toContain('code=oac_');
    expect((await agent.get(ask())).location).toContain(HOST_PAGE);
  });

  it('is handed over anew by the page of what they allowed, five minutes after', async () => {
    const { deps, url, host } = await handOff();
    const agent = new UserAgent(url);
    const { location } = await follow(agent, await agent.get('/oauth/applications'));
    const id = new URL(location ?? '').searchParams.get('interaction') ?? '';
    await resume(agent, await host('complete', { id, subject: 'ada' }));
    deps.clock.now += UNREMEMBERED_MS - 1;
    const page = await agent.get('/oauth/applications');
    expect(page.status).toBe(200);
    deps.clock.now += 1;
    const over = await agent.get('/oauth/applications');
    expect((await follow(agent, over)).location).toContain(HOST_PAGE);
  });

  it('is over at once where the host application signs a user out', async () => {
    const { url, ask, host, begin, end } = await handOff();
    const agent = new UserAgent(url);
    const signIn = async (subject: string) => {
      const consent = { scopes: ['openid'] };
      const who = { id: await begin(agent), subject, consent, rememberSeconds: 1_209_600 };
      await resume(agent, await host('complete', who));
    };
    await signIn('ada');
    expect(await end('bob')).toMatchObject({ ended: 0 });
    const silently = () => agent.get(ask({ scope: 'openid', prompt: 'none' }));
    expect((await silently()).location).toContain('code=oac_');
    expect(await end('ada')).toEqual({ subject: 'ada', ended: 1 });
    expect((await silently()).location).toContain('error=login_required');
    await begin(agent);
  });

  it('where users have accounts here, no host application signs them out, and an administrator does', async () => {
    const { deps } = await open(dialect);
    const user = await newUser(deps, 'ada');
    const { value } = await newUserSession(deps, user);
    const { secret } = await newHostKey(deps);
    const end = (key: string) => outcomeOf(call(deps, key, 'userSessions.endAll', { subject: user.id }));
    expect(await end(secret)).toBe('not_found');
    expect(await findUserSession(deps, value)).not.toBeNull();
    expect(await end(deps.adminKey)).toBe('ok');
    expect(await findUserSession(deps, value)).toBeNull();
  });

  it('where users have accounts here, no key says who they are', async () => {
    const { deps, url, ask } = await open(dialect);
    const { location } = await new UserAgent(url).get(ask());
    const id = new URL(location ?? '').searchParams.get('interaction');
    expect(await outcomeOf(call(deps, deps.adminKey, 'interactions.complete', { id, subject: 'ada' }))).toBe(
      'not_found',
    );
  });

  it('somebody who only wants to see what they allowed is handed over too', async () => {
    const { url, host } = await handOff();
    const agent = new UserAgent(url);
    const { location } = await follow(agent, await agent.get('/oauth/applications'));
    const id = new URL(location ?? '').searchParams.get('interaction') ?? '';
    expect(await host('get', { id })).toMatchObject({ application: null, scopes: [], redirectHost: null });
    const back = await resume(agent, await host('complete', { id, subject: 'ada' }));
    expect(back.location).toBe(`${url}/oauth/applications`);
    expect((await follow(agent, back)).text).toContain('You have allowed no application anything');
  });
});

describeOnEachDialect('the page of applications that a user allowed', (dialect) => {
  async function signedIn() {
    const opened = await open(dialect);
    const user = await newUser(opened.deps, 'ada');
    const agent = new UserAgent(opened.url);
    agent.cookies.set(SESSION, (await newUserSession(opened.deps, user)).value);
    return { ...opened, user, agent };
  }

  it('shows what each may do and where it sends its users, and takes all of it back with one click', async () => {
    const { deps, url, application, user, agent } = await signedIn();
    await newGrant(deps, application, { subject: user.id });
    await newGrant(deps, application, { subject: 'somebody else' });
    const page = await agent.get('/oauth/applications');
    expectOurPage(page);
    for (const text of ['Notes', 'notes.example.com', 'May notes:read', '6 January 2026'])
      expect(page.text).toContain(text);
    const answer = await agent.submit(page, {});
    expect([answer.status, answer.location]).toEqual([303, `${url}/oauth/applications`]);
    expect((await follow(agent, answer)).text).toContain('You have allowed no application anything');
    const { read } = deps.store;
    const grants = await read.db.select().from(read.tables.oauthGrants);
    expect(grants.map(({ subject, revoked_at }) => [subject, revoked_at !== null]).sort()).toEqual(
      [
        ['somebody else', false],
        [user.id, true],
      ].sort(),
    );
  });

  it('shows which organizations an application acts for, by name where the user is of them', async () => {
    const { deps, application, agent, user } = await signedIn();
    const theirs = await beginUserSession(deps, {
      subject: user.id,
      source: LOCAL,
      claims: {},
      organizations: [{ id: 'org_7', name: 'Acme & Sons' }],
      userMac: user.mac,
    });
    agent.cookies.set(SESSION, theirs.value);
    await newGrant(deps, application, { subject: user.id });
    const shown = async () => (await agent.get('/oauth/applications')).text;
    expect(await shown()).not.toContain('<p>For ');
    for (const organizationId of ['org_7', 'org_8'])
      await newGrant(deps, application, { subject: user.id, organizationId });
    expect(await shown()).toMatch(/<p>For (Acme &amp; Sons, org_8|org_8, Acme &amp; Sons)\.<\/p>/);
  });

  it('CSRF: nothing is taken back by a form of another page', async () => {
    const { deps, url, application, user, agent } = await signedIn();
    await newGrant(deps, application, { subject: user.id });
    await agent.get('/oauth/applications');
    const cookie = [...agent.cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    for (const body of [{ application: application.id }, { application: application.id, csrf: 'x' }]) {
      const response = await fetch(`${url}/oauth/applications`, {
        method: 'POST',
        headers: { cookie, origin: url },
        body: new URLSearchParams(body),
      });
      expect(response.status).toBe(403);
    }
    expect((await agent.get('/oauth/applications')).text).toContain('Notes');
  });

  it('signs out other browsers, and not those of other users', async () => {
    const { deps, user, agent } = await signedIn();
    const other = await newUserSession(deps, user);
    const stranger = await newUserSession(deps, await newUser(deps, 'bob'));
    const page = await agent.get('/oauth/applications');
    expect((await agent.submit(page, { session: stranger.user.sessionId })).status).toBe(404);
    for (const [field, prefix] of [
      ['session', 'uss_'],
      ['application', 'oauthapp_'],
    ] as const) {
      const { status, text } = await agent.submit(page, { [field]: 'x'.repeat(7) });
      expect(status).toBe(400);
      expect(text).toContain(`wanted an id: ${prefix} and 27 letters or digits, found text of 7 characters`);
    }
    expect(await findUserSession(deps, stranger.value)).not.toBeNull();
    await agent.submit(page, { session: other.user.sessionId });
    expect(await findUserSession(deps, other.value)).toBeNull();
    expect((await agent.get('/oauth/applications')).status).toBe(200);
  });

  it('leads whoever is not signed in to where they sign in, and back', async () => {
    const { deps, url } = await open(dialect);
    await newUser(deps, 'ada', { withPassword: true });
    const agent = new UserAgent(url);
    const form = await follow(agent, await agent.get('/oauth/applications'));
    const { location } = await agent.submit(form, { name: 'ada', password: PASSWORD });
    expect(location).toBe(`${url}/oauth/applications`);
  });

  it('signing out is asked first, and ends the session', async () => {
    const { deps, agent } = await signedIn();
    const value = agent.cookies.get(SESSION);
    const ask = await agent.get('/oauth/sign-out');
    expectOurPage(ask);
    expect(await findUserSession(deps, value)).not.toBeNull();
    expect((await agent.submit(ask, {})).text).toContain('You are signed out');
    expect(agent.cookies.has(SESSION)).toBe(false);
    expect(await findUserSession(deps, value)).toBeNull();
  });

  it('cookies are of this host alone, where it has TLS', async () => {
    const opened = await openTestDeps(dialect);
    const { deps, url } = await serveOauth(opened);
    Object.assign(deps, { publicUrl: 'https://auth.example.com' });
    const { headers } = await new UserAgent(url).get('/oauth/sign-in');
    expect(headers.get('set-cookie')).toMatch(
      /^__Host-countersign-browser=[\w-]{43}; Path=\/; HttpOnly; SameSite=Lax; Secure$/,
    );
    expect(BROWSER).not.toMatch(/^__Host-/);
  });
});
