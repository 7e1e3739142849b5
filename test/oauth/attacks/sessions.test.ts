/** Whose sign-in it is: an interaction belongs to the browser that began it, and a page to the server that shows it. */
import { beforeEach, expect, it } from 'vitest';
import {
  allow,
  answeredBy,
  authorizeParams,
  challengeOf,
  formOf,
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
