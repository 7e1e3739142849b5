/** Whose sign-in it is: an interaction belongs to the browser that began it, and a page to the server that shows it. */
import { beforeEach, expect, it } from 'vitest';
import {
  allow,
  answeredBy,
  authorizeParams,
  challengeOf,
  clientOf,
  formOf,
  REDIRECT_URI,
  type ServedOauth,
  SIGN_IN_PAGE,
  serveOauth,
  type TestApplication,
} from '../../support/authorization-server.ts';
import { describeOnEachDialect } from '../../support/deps.ts';
import { openUserAgent, type UserAgent } from '../../support/plain-browser.ts';

const VICTIM = `user_${'7'.repeat(27)}`;
const ATTACKER = `user_${'6'.repeat(27)}`;

describeOnEachDialect('hand-off', (dialect) => {
  let served: ServedOauth;
  let application: TestApplication;

  beforeEach(async () => {
    served = await serveOauth(dialect);
    application = await served.application({ consentRequired: false });
  });

  const request = (more: Record<string, string> = {}) =>
    `${served.url}/oauth/authorize?${formOf({ ...authorizeParams(application, challengeOf('v'.repeat(43))), ...more })}`;

  /** Begins an authorization that the host application is to sign somebody in for. */
  async function begin(agent: UserAgent): Promise<string> {
    const { left } = await agent.open(request());
    expect(left?.url.href.startsWith(SIGN_IN_PAGE)).toBe(true);
    return left?.url.searchParams.get('interaction') ?? '';
  }

  const complete = (id: string, subject: string) => served.handOff(id, subject);

  it('the user comes back to the browser that left: the tests can fail', async () => {
    const agent = openUserAgent(served.url);
    const resumeUrl = await complete(await begin(agent), VICTIM);
    expect(answeredBy(await allow(agent, resumeUrl)).has('code')).toBe(true);
  });

  it('hand-off fixation: what the victim completed for the attacker is worth nothing in either browser', async () => {
    const [attacker, victim] = [openUserAgent(served.url), openUserAgent(served.url)];
    // The attacker begins, and has the victim sign in by the link.
    const resumeUrl = await complete(await begin(attacker), VICTIM);
    const atVictim = await victim.open(resumeUrl);
    expect(atVictim).toMatchObject({ left: null });
    expect(atVictim.status).toBeGreaterThanOrEqual(400);
    expect(victim.cookies.has('countersign_session')).toBe(false);
    expect((await attacker.open(request({ prompt: 'none' }))).left?.url.searchParams.get('error')).toBe(
      'login_required',
    );
  });

  it('hand-off fixation: nobody is signed in as the attacker by a link of theirs', async () => {
    const [attacker, victim] = [openUserAgent(served.url), openUserAgent(served.url)];
    const resumeUrl = await complete(await begin(attacker), ATTACKER);
    await begin(victim);
    expect((await victim.open(resumeUrl)).left).toBeNull();
    expect(victim.cookies.has('countersign_session')).toBe(false);
  });

  it('a resume value is used once, and is over after five minutes', async () => {
    const agent = openUserAgent(served.url);
    const resumeUrl = await complete(await begin(agent), VICTIM);
    await allow(agent, resumeUrl);
    expect((await agent.open(resumeUrl)).left).toBeNull();
    const late = openUserAgent(served.url);
    const lateUrl = await complete(await begin(late), VICTIM);
    served.deps.clock.now += 5 * 60_000;
    expect((await late.open(lateUrl)).left).toBeNull();
  });

  it('an interaction is completed for nobody who is no user, and for nobody once its user is back', async () => {
    const agent = openUserAgent(served.url);
    const id = await begin(agent);
    for (const prefix of ['mch_', 'org_', 'oauthapp_', 'oat_', 'sk_'])
      await expect(complete(id, prefix + '0'.repeat(27))).rejects.toThrow();
    const first = await complete(id, ATTACKER);
    const second = await complete(id, VICTIM);
    // The host application may say it again until then; what it said before is void.
    expect((await agent.open(first)).left).toBeNull();
    expect(answeredBy(await allow(agent, second)).has('code')).toBe(true);
    await expect(complete(id, ATTACKER)).rejects.toThrow();
  });

  it('session fixation: signing in gives a new value, whatever the browser had', async () => {
    const agent = openUserAgent(served.url);
    agent.cookies.set('countersign_session', 'chosen-by-somebody-else');
    const resumeUrl = await complete(await begin(agent), VICTIM);
    await allow(agent, resumeUrl);
    expect(agent.cookies.get('countersign_session')).toMatch(/^uss_/);
  });
});

describeOnEachDialect('a browser that people share', (dialect) => {
  const [ALICE, BOB] = [`user_${'a'.repeat(27)}`, `user_${'b'.repeat(27)}`];
  const VERIFIER = 'v'.repeat(43);
  const ACME = { id: 'org_7', name: 'Acme' };

  let served: ServedOauth;
  /** Needs no consent: nothing of ours asks whoever sits there. */
  let silent: TestApplication;
  let asking: TestApplication;
  let agent: UserAgent;

  beforeEach(async () => {
    served = await serveOauth(dialect);
    silent = await served.application({ consentRequired: false });
    asking = await served.application();
    agent = openUserAgent(served.url);
  });

  const open = (application: TestApplication, more: Record<string, string> = {}) => {
    const query = { ...authorizeParams(application, challengeOf(VERIFIER)), scope: 'openid', ...more };
    return agent.open(`${served.url}/oauth/authorize?${formOf(query)}`);
  };

  /** The interaction that the host application was handed; null where it was not asked. */
  async function handedOver(application: TestApplication, more: Record<string, string> = {}) {
    const { left } = await open(application, more);
    return left?.url.href.startsWith(SIGN_IN_PAGE) ? left.url.searchParams.get('interaction') : null;
  }

  type More = Parameters<ServedOauth['handOff']>[2];

  /** Handed over, signed in there, and back with what the application gets. */
  async function signIn(subject: string, application: TestApplication, more: More = {}) {
    const id = await handedOver(application);
    if (id === null) throw new Error('Wanted a hand-off');
    return answeredBy(await agent.open(await served.handOff(id, subject, more)));
  }

  async function subjectOf(code: string | null): Promise<string> {
    const { status, body } = await served.post('/oauth/token', {
      ...clientOf(silent),
      grant_type: 'authorization_code',
      code: code ?? '',
      redirect_uri: REDIRECT_URI,
      code_verifier: VERIFIER,
    });
    expect(status).toBe(200);
    const [, payload = ''] = String(body.id_token).split('.');
    return (JSON.parse(Buffer.from(payload, 'base64url').toString()) as { sub: string }).sub;
  }

  const errorOf = async (application: TestApplication, more: Record<string, string>) =>
    answeredBy(await open(application, more)).get('error');

  it('gives an application the tokens of who is signed in at the host application now', async () => {
    expect(await subjectOf((await signIn(ALICE, silent)).get('code'))).toBe(ALICE);
    expect(await errorOf(silent, { prompt: 'none' })).toBe('login_required');
    expect(await subjectOf((await signIn(BOB, silent)).get('code'))).toBe(BOB);
  });

  it('has the host application asked for each application, and for each consent that is wanted', async () => {
    const consent = { scopes: ['openid'] };
    await signIn(ALICE, asking, { consent });
    const other = await served.application();
    expect(await handedOver(other)).not.toBeNull();
    expect(await handedOver(asking, { prompt: 'consent' })).not.toBeNull();
    expect(await handedOver(asking)).not.toBeNull();
    expect(await errorOf(asking, { prompt: 'none' })).toBe('login_required');
  });

  it('acts for the organizations of now, not for those of the hand-off before', async () => {
    const consent = { scopes: ['openid'], organizationId: ACME.id };
    await signIn(ALICE, asking, { organizations: [ACME], consent });
    // Who has left the organization is asked, by the page that is left to ask.
    const id = (await handedOver(asking)) ?? '';
    const page = await agent.open(await served.handOff(id, ALICE));
    expect(page.left).toBeNull();
    expect(page.text).not.toContain('Acme');
  });

  it('a session that is not remembered consents to what it was begun for, and to nothing after', async () => {
    for (const button of [/not allow/i, /^allow/i]) {
      const id = (await handedOver(asking)) ?? '';
      const consent = await agent.open(await served.handOff(id, ALICE));
      expect(consent.text).toContain('Allow Notebook?');
      const answer = answeredBy(await agent.submit(consent, {}, button));
      expect(answer.has('code') || answer.get('error') === 'access_denied').toBe(true);
      expect((await agent.submit(consent, {}, /^allow/i)).left).toBeNull();
      expect(await errorOf(asking, { prompt: 'none' })).toBe('login_required');
    }
  });

  it('consent is given within five minutes by a session that is not remembered', async () => {
    const id = (await handedOver(asking)) ?? '';
    const consent = await agent.open(await served.handOff(id, ALICE));
    served.deps.clock.now += 5 * 60_000;
    expect((await agent.submit(consent, {}, /^allow/i)).left).toBeNull();
  });

  it('a session that is remembered answers until it is over, used or not', async () => {
    await signIn(ALICE, silent, { rememberSeconds: 600 });
    served.deps.clock.now += 599_000;
    expect(await subjectOf(answeredBy(await open(silent, { prompt: 'none' })).get('code'))).toBe(ALICE);
    served.deps.clock.now += 1_000;
    expect(await errorOf(silent, { prompt: 'none' })).toBe('login_required');
    expect(await handedOver(silent)).not.toBeNull();
  });

  it('a sign-in that is not remembered ends the one that was', async () => {
    await signIn(ALICE, silent, { rememberSeconds: 1_209_600 });
    const id = (await handedOver(silent, { prompt: 'login' })) ?? '';
    await agent.open(await served.handOff(id, BOB, { authTime: served.deps.now() }));
    expect(await errorOf(silent, { prompt: 'none' })).toBe('login_required');
  });
});
