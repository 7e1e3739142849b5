/** Who may, and does so without end: what is written for them is bounded. */
import { count, eq } from 'drizzle-orm';
import { beforeEach, expect, it } from 'vitest';
import {
  answeredBy,
  authorizeParams,
  basic,
  challengeOf,
  clientOf,
  formOf,
  type ServedOauth,
  serveOauth,
  type TestApplication,
} from '../../support/authorization-server.ts';
import { describeOnEachDialect } from '../../support/deps.ts';
import type { UserAgent } from '../../support/plain-browser.ts';
import { planOf, statementsOf } from '../../support/plans.ts';
import type { Answer } from '../../support/server.ts';

const OTHER_USER = `user_${'3'.repeat(27)}`;
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
const TOKENS_PER_MINUTE = 5;
const LONG = { timeout: 60_000 };

describeOnEachDialect('without end', (dialect) => {
  let served: ServedOauth;

  beforeEach(async () => {
    served = await serveOauth(dialect, { tokensPerMinute: TOKENS_PER_MINUTE });
  });

  const wait = (ms: number) => {
    served.deps.clock.now += ms;
  };

  /** How many rows there are of all that is issued. */
  async function written(): Promise<number[]> {
    const { db, tables } = served.deps.store.read;
    const { oauthTokens, oauthRefreshTokens, oauthGrants, oauthCodes } = tables;
    const counts = await Promise.all([
      db.select({ rows: count() }).from(oauthTokens),
      db.select({ rows: count() }).from(oauthRefreshTokens),
      db.select({ rows: count() }).from(oauthGrants),
      db.select({ rows: count() }).from(oauthCodes),
    ]);
    return counts.map(([counted]) => counted?.rows ?? 0);
  }

  const refusalOf = ({ status, headers, body }: Answer) => [status, headers.get('retry-after'), body.error];
  const refusedFor = (seconds: number) => [429, `${seconds}`, 'temporarily_unavailable'];

  it('a client that mints without end is refused what is more than it may in a minute', async () => {
    const [client, other] = [
      await served.application({ grantTypes: ['client_credentials'] }),
      await served.application({ grantTypes: ['client_credentials'], accessTokenFormat: 'jwt' }),
    ];
    const mint = (who: TestApplication) =>
      served.post('/oauth/token', { grant_type: 'client_credentials' }, basic(who));
    // What fails to prove itself takes nothing from it.
    for (let i = 0; i < TOKENS_PER_MINUTE; i++)
      expect((await mint({ ...client, secret: other.secret })).status).toBe(401);
    for (let i = 0; i < TOKENS_PER_MINUTE; i++) expect((await mint(client)).status).toBe(200);
    expect(refusalOf(await mint(client))).toEqual(refusedFor(60));
    expect(await written()).toEqual([TOKENS_PER_MINUTE, 0, 0, 0]);
    expect((await mint(other)).status).toBe(200);
    wait(MINUTE_MS);
    expect((await mint(client)).status).toBe(200);
  });

  /** Refreshes with what each refresh is followed by. */
  function refresher(application: TestApplication, refreshToken: string) {
    const ask = (refresh_token: string) =>
      served.post('/oauth/token', { grant_type: 'refresh_token', refresh_token, ...clientOf(application) });
    const used: string[] = [];
    let current = refreshToken;
    return {
      ask,
      used,
      current: () => current,
      async refresh(): Promise<Answer> {
        const answer = await ask(current);
        if (answer.status !== 200) return answer;
        used.push(current);
        current = answer.body.refresh_token;
        return answer;
      },
    };
  }

  it('an agent that refreshes without end is refused, and its refresh token is good after the minute', async () => {
    const agent = await served.application({ name: 'Agent', public: true });
    const [one, two] = [
      refresher(agent, (await served.tokens(agent)).refreshToken),
      refresher(agent, (await served.tokens(agent)).refreshToken),
    ];
    for (let i = 0; i < 10; i++) expect((await one.refresh()).status).toBe(200);
    const before = await written();
    for (let i = 0; i < 3; i++) expect(refusalOf(await one.refresh())).toEqual(refusedFor(60));
    expect(await written()).toEqual(before);
    expect((await two.refresh()).status).toBe(200);
    wait(MINUTE_MS);
    expect((await one.refresh()).status).toBe(200);
    expect((await two.refresh()).status).toBe(200);
  });

  it('an agent that refreshes without end is found out all the same where it uses a token again', async () => {
    const agent = await served.application({ name: 'Agent', public: true });
    const { refresh, ask, used, current } = refresher(agent, (await served.tokens(agent)).refreshToken);
    for (let i = 0; i < 10; i++) expect((await refresh()).status).toBe(200);
    expect((await refresh()).status).toBe(429);
    expect((await ask(used[0] ?? '')).body.error).toBe('invalid_grant');
    wait(MINUTE_MS);
    expect((await ask(current())).body.error).toBe('invalid_grant');
  });

  it('an agent that refreshes without end is not refused what its access tokens take', async () => {
    const agent = await served.application({ name: 'Agent', public: true });
    const { refresh } = refresher(agent, (await served.tokens(agent)).refreshToken);
    await served.deps.store.tx(({ db, tables: { oauthApplications: a } }) =>
      db.update(a).set({ access_token_ttl_seconds: 8 }).where(eq(a.id, agent.id)),
    );
    for (let i = 0; i < 15; i++) expect((await refresh()).status).toBe(200);
    expect((await refresh()).status).toBe(429);
  });

  /** What the application is answered that sends the browser of a user to be authorized, as often as that. */
  async function authorize(application: TestApplication, agent: UserAgent, prompt?: 'none') {
    const query = formOf({ ...authorizeParams(application, challengeOf('v'.repeat(43))), prompt });
    const answered = answeredBy(await agent.open(`${served.url}/oauth/authorize?${query}`));
    return answered.get('error') ?? (answered.get('code') ? 'code' : null);
  }

  it('an agent that lets itself be authorized without end is told to come later, for that user alone', async () => {
    const [agent, other] = [await served.application(), await served.application({ consentRequired: false })];
    const [browser, othersBrowser] = [await served.browser(), await served.browser(OTHER_USER)];
    await served.code(agent, {}, browser);
    await served.code(agent, {}, othersBrowser);
    for (let i = 1; i < 30; i++)
      expect(await authorize(agent, browser, i % 2 === 0 ? 'none' : undefined)).toBe('code');
    const before = await written();
    for (const prompt of [undefined, 'none'] as const)
      expect(await authorize(agent, browser, prompt)).toBe('temporarily_unavailable');
    const asked = await served.code(agent, { prompt: 'consent' }, browser);
    expect(asked.code).toBe('');
    expect(await written()).toEqual(before);
    expect(await authorize(agent, othersBrowser)).toBe('code');
    expect(await authorize(other, browser)).toBe('code');
    wait(MINUTE_MS);
    expect(await authorize(agent, browser, 'none')).toBe('code');
  });

  if (dialect === 'sqlite')
    it('what a user was given is counted past nothing of others', async () => {
      const agent = await served.application({ consentRequired: false });
      const browser = await served.browser();
      const statements = await statementsOf(served.deps, () => authorize(agent, browser));
      const counting = statements.filter((statement) => statement.includes('offset'));
      expect(counting.flatMap((statement) => planOf(served.deps, statement))).toEqual([
        expect.stringContaining('oauth_grants_subject'),
      ]);
    });

  it('an agent that lets itself be authorized without end is told so for the day', LONG, async () => {
    const agent = await served.application({ consentRequired: false });
    const browser = await served.browser();
    for (let minute = 0; minute < 10; minute++, wait(MINUTE_MS))
      for (let i = 0; i < 30; i++) expect(await authorize(agent, browser)).toBe('code');
    expect(await authorize(agent, browser, 'none')).toBe('temporarily_unavailable');
    wait(DAY_MS);
    expect(await authorize(agent, await served.browser())).toBe('code');
  });
});
