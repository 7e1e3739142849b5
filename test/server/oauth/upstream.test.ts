import { expect, it } from 'vitest';
import { listEvents } from '../../../server/domain/events.ts';
import { findUserSession } from '../../../server/domain/user-sessions.ts';
import { listUsers, setUserEnabled } from '../../../server/domain/users.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { newApplication } from '../../support/oauth-tokens.ts';
import { newIssuer, signInThere, UPSTREAM_CLIENT } from '../../support/upstream.ts';
import { newPkce, serveOauth, UserAgent } from '../../support/user-agent.ts';

const CALLBACK = 'https://notes.example.com/callback';
const SESSION = 'countersign_session';
async function open(dialect: Parameters<typeof openTestDeps>[0]) {
  // The issuer judges times by a clock of its own.
  const opened = await openTestDeps(dialect, { startsAt: Date.now() });
  const { row: application } = await newApplication(opened);
  const { deps, url } = await serveOauth(opened);
  const issuer = await newIssuer(url);
  Object.assign(deps, {
    signIn: {
      kind: 'oidc',
      issuer: issuer.url,
      clientId: UPSTREAM_CLIENT.id,
      clientSecret: UPSTREAM_CLIENT.secret,
    },
  });
  const ask = (more: Record<string, string> = {}) => {
    const target = new URL('/oauth/authorize', url);
    const asked = {
      client_id: application.client_id,
      redirect_uri: CALLBACK,
      response_type: 'code',
      scope: 'openid',
      code_challenge: newPkce().challenge,
      code_challenge_method: 'S256',
      ...more,
    };
    for (const [name, value] of Object.entries(asked)) target.searchParams.set(name, value);
    return target.href;
  };
  return { deps: deps as TestDeps, url, issuer, ask };
}

describeOnEachDialect('signing in at another issuer', (dialect) => {
  it('knows a user by what the issuer calls them, the first time and after', async () => {
    const { deps, url, issuer, ask } = await open(dialect);
    const signIn = async () => {
      const agent = new UserAgent(url);
      const back = await signInThere(agent, await agent.get(ask()), url, 'ada');
      const { location } = await agent.get(back);
      expect(location).toContain(`${url}/oauth/consent?interaction=int_`);
      return findUserSession(deps, agent.cookies.get(SESSION));
    };
    const first = await signIn();
    expect(first).toMatchObject({
      source: issuer.url,
      subject: expect.stringMatching(/^user_/),
      claims: { name: 'The ada', email: 'ada@upstream.example', email_verified: true },
    });
    issuer.names.set('ada', 'Augusta Ada');
    expect(await signIn()).toMatchObject({ subject: first?.subject, claims: { name: 'Augusta Ada' } });
    const { data: users } = await listUsers(deps, { limit: 10, offset: 0 });
    expect(users).toMatchObject([{ source: issuer.url, sourceSubject: 'ada', name: 'Augusta Ada' }]);
    const { data } = await listEvents(deps, { after: 0, limit: 50 });
    expect(data.map(({ type }) => type).filter((type) => type.startsWith('user.'))).toEqual([
      'user.created',
      'user.updated',
    ]);
  });

  it('an answer is good once, in the browser that began it, and only as it was sent', async () => {
    const { deps, url, ask } = await open(dialect);
    const thief = new UserAgent(url);
    const back = await signInThere(thief, await thief.get(ask()), url, 'thief');
    // Login CSRF: the attacker's answer, followed by somebody else, signs nobody in.
    const victim = new UserAgent(url);
    await victim.get(ask());
    expect((await victim.get(back)).status).toBe(400);
    expect(victim.cookies.has(SESSION)).toBe(false);
    const other = new URL(back);
    other.searchParams.set('state', `${other.searchParams.get('state')}x`);
    expect((await thief.get(other.href)).status).toBe(400);
    expect((await thief.get(back)).status).toBe(303);
    expect((await thief.get(back)).status).toBe(400);
    const { read } = deps.store;
    expect(await read.db.select().from(read.tables.userSessions)).toHaveLength(1);
  });

  it('code injection: a code of another request signs nobody in', async () => {
    const { url, ask } = await open(dialect);
    const [thief, victim] = [new UserAgent(url), new UserAgent(url)];
    const theirs = new URL(await signInThere(victim, await victim.get(ask()), url, 'victim'));
    const mine = new URL(await signInThere(thief, await thief.get(ask()), url, 'thief'));
    mine.searchParams.set('code', theirs.searchParams.get('code') ?? '');
    expect((await thief.get(mine.href)).status).toBe(400);
    expect(thief.cookies.has(SESSION)).toBe(false);
  });

  it('a mix-up is refused: an answer that another issuer signed with its name', async () => {
    const { url, ask } = await open(dialect);
    const agent = new UserAgent(url);
    const back = new URL(await signInThere(agent, await agent.get(ask()), url, 'ada'));
    expect(back.searchParams.has('iss')).toBe(true);
    back.searchParams.set('iss', 'https://evil.example');
    expect((await agent.get(back.href)).status).toBe(400);
    expect(agent.cookies.has(SESSION)).toBe(false);
  });

  it('tells the application where the issuer lets nobody in, and where this server does not', async () => {
    const { deps, url, ask } = await open(dialect);
    const refused = new UserAgent(url);
    const { location } = await refused.get(ask());
    const state = new URL(location ?? '').searchParams.get('state') ?? '';
    const answer = `/oauth/upstream/callback?${new URLSearchParams({ error: 'access_denied', state, iss: new URL(location ?? '').origin })}`;
    const told = await refused.get(answer);
    expect(new URL(told.location ?? '').searchParams.get('error')).toBe('access_denied');
    const agent = new UserAgent(url);
    await agent.get(await signInThere(agent, await agent.get(ask()), url, 'ada'));
    const [user] = (await listUsers(deps, { limit: 1, offset: 0 })).data;
    await setUserEnabled(deps, callerWith('admin'), { id: user?.id ?? '' }, false);
    expect(await findUserSession(deps, agent.cookies.get(SESSION))).toBeNull();
    const again = new UserAgent(url);
    const disabled = await again.get(await signInThere(again, await again.get(ask()), url, 'ada'));
    expect(new URL(disabled.location ?? '').searchParams.get('error')).toBe('access_denied');
    expect(again.cookies.has(SESSION)).toBe(false);
  });

  it('no user is called what a machine, an organization, an application or a credential is, whatever the issuer says', async () => {
    const { deps, url, ask } = await open(dialect);
    for (const name of ['mch_1', 'org_1', 'oauthapp_1', 'oat_1', 'sk_1']) {
      const agent = new UserAgent(url);
      const { location } = await agent.get(await signInThere(agent, await agent.get(ask()), url, name));
      expect(new URL(location ?? '').searchParams.get('error'), name).toBe('access_denied');
      expect(agent.cookies.has(SESSION)).toBe(false);
    }
    expect((await listUsers(deps, { limit: 10, offset: 0 })).data).toEqual([]);
  });

  it('says so where the issuer cannot be reached, and nothing of why', async () => {
    const { deps, url, ask } = await open(dialect);
    Object.assign(deps, {
      signIn: { kind: 'oidc', issuer: 'http://127.0.0.1:1', clientId: 'x', clientSecret: null },
    });
    const page = await new UserAgent(url).get(ask());
    const error = new URL(page.location ?? '').searchParams;
    expect(error.get('error')).toBe('temporarily_unavailable');
    expect(error.get('error_description')).not.toMatch(/127\.0\.0\.1:1|ECONNREFUSED/);
  });

  it('asks the issuer to have the user sign in again, where the application does', async () => {
    const { url, ask } = await open(dialect);
    const { location } = await new UserAgent(url).get(
      ask({ prompt: 'login', login_hint: 'ada', max_age: '60' }),
    );
    const asked = new URL(location ?? '').searchParams;
    expect(Object.fromEntries(asked)).toMatchObject({
      prompt: 'login',
      login_hint: 'ada',
      max_age: '0',
      code_challenge_method: 'S256',
      nonce: expect.stringMatching(/^[\w-]{43}$/),
    });
  });

  it('believes no sign-in to be new that the issuer does not say is, whatever the browser took out of the URL', async () => {
    const { url, ask } = await open(dialect);
    const agent = new UserAgent(url);
    await agent.get(await signInThere(agent, await agent.get(ask()), url, 'ada'));
    const start = await agent.get(ask({ prompt: 'login' }));
    const tampered = new URL(start.location ?? '');
    tampered.searchParams.delete('prompt');
    tampered.searchParams.delete('max_age');
    const back = await signInThere(agent, { ...start, location: tampered.href }, url, 'ada');
    const refused = await agent.get(back);
    expect(new URL(refused.location ?? '').searchParams.get('error')).toBe('access_denied');
    const again = await signInThere(agent, await agent.get(ask({ prompt: 'login' })), url, 'ada');
    expect((await agent.get(again)).location).toContain(`${url}/oauth/consent?interaction=int_`);
  });

  it('somebody who only wants to see what they allowed signs in there too', async () => {
    const { url } = await open(dialect);
    const agent = new UserAgent(url);
    const start = await agent.get((await agent.get('/oauth/applications')).location ?? '');
    const { location } = await agent.get(await signInThere(agent, start, url, 'ada'));
    expect(location).toBe(`${url}/oauth/applications`);
  });
});
