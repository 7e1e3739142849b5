/** A server that dies between any two steps of handing something out: nothing is lost, and nothing is handed out twice. */
import { eq } from 'drizzle-orm';
import { beforeAll, expect, it } from 'vitest';
import { clientOf, type TestApplication } from '../support/authorization-server.ts';
import { describeOnEachDialect, whenSuiteDone } from '../support/deps.ts';
import { inspect, newSite, type Site, startAt } from '../support/site.ts';
import { type StallPoint, stallAt } from '../support/stalls.ts';
import { atFirst, codeFor, formTo, type Started, startAuthorizationServerAt } from './clients/started.ts';

const REDEEMING: StallPoint[] = [
  { table: 'oauth_codes', on: 'UPDATE', when: 'NEW.redeemed_at IS NOT NULL' },
  { table: 'oauth_tokens', on: 'INSERT', when: '1 = 1' },
  { table: 'oauth_refresh_tokens', on: 'INSERT', when: '1 = 1' },
  { table: 'event_head', on: 'UPDATE', when: '1 = 1' },
  { table: 'events', on: 'INSERT', when: "NEW.type = 'oauth_grant.created'" },
];

const REFRESHING: StallPoint[] = [
  { table: 'oauth_refresh_tokens', on: 'UPDATE', when: 'NEW.used_at IS NOT NULL' },
  { table: 'oauth_tokens', on: 'INSERT', when: '1 = 1' },
  { table: 'oauth_refresh_tokens', on: 'INSERT', when: '1 = 1' },
];

const named = (points: StallPoint[]) => points.map((point) => [`${point.on} ${point.table}`, point] as const);

describeOnEachDialect('a server that is killed', (dialect) => {
  const whenDone = whenSuiteDone();
  let site: Site;
  let server: Started;

  beforeAll(async () => {
    site = atFirst(await newSite(dialect, 1, {}, whenDone));
    server = await startAuthorizationServerAt(site, 0, { whenDone });
  }, 300_000);

  /** Has the server stand still in the middle of what `ask` asks, kills it there, and starts it again. */
  async function dieAt(point: StallPoint, ask: () => Promise<unknown>) {
    const stall = await stallAt(site.location, point);
    const asked = ask().then(
      () => 'answered',
      () => 'cut off',
    );
    await stall.reached();
    await server.stop('SIGKILL');
    await stall.clear();
    expect(await asked).toBe('cut off');
    const restarted = await startAt(site, 0, { whenDone });
    server = { ...server, ...restarted, adminKey: server.adminKey };
  }

  const issuedTo = ({ id }: TestApplication) =>
    inspect(site, async ({ store: { read } }) => {
      const { oauthTokens: t, oauthRefreshTokens: r, oauthGrants: g } = read.tables;
      const accessTokens = await read.db.select().from(t).where(eq(t.application_id, id));
      const refreshTokens = await read.db.select().from(r).where(eq(r.application_id, id));
      const grants = await read.db.select().from(g).where(eq(g.application_id, id));
      return [
        accessTokens.length,
        refreshTokens.length,
        refreshTokens.filter(({ used_at: usedAt }) => usedAt !== null).length,
        grants.filter(({ revoked_at: revokedAt }) => revokedAt !== null).length,
      ];
    });

  it.each(named(REDEEMING))(
    'while a code is redeemed has consumed nothing: at %s',
    { timeout: 240_000 },
    async (_, point) => {
      const application = await server.application({ name: `redeems ${point.table}`, codeTtlSeconds: 600 });
      const { form } = await codeFor(server, application);
      const redeem = () => formTo(server.url, '/oauth/token', { ...form, ...clientOf(application) });
      await dieAt(point, redeem);
      expect(await issuedTo(application)).toEqual([0, 0, 0, 0]);
      expect((await redeem()).status).toBe(200);
      expect(await issuedTo(application)).toEqual([1, 1, 0, 0]);
    },
  );

  it.each(named(REFRESHING))(
    'while a token is refreshed has used nothing up: at %s',
    { timeout: 240_000 },
    async (_, point) => {
      const application = await server.application({ name: `refreshes ${point.on} ${point.table}` });
      const { form } = await codeFor(server, application);
      const { body } = await formTo(server.url, '/oauth/token', { ...form, ...clientOf(application) });
      const refresh = () =>
        formTo(server.url, '/oauth/token', {
          grant_type: 'refresh_token',
          refresh_token: body.refresh_token,
          ...clientOf(application),
        });
      await dieAt(point, refresh);
      expect(await issuedTo(application)).toEqual([1, 1, 0, 0]);
      expect((await refresh()).status).toBe(200);
      expect(await issuedTo(application)).toEqual([2, 2, 1, 0]);
    },
  );

  it('at any moment: what was answered is there, and what was not is whole or not at all', {
    timeout: 480_000,
  }, async () => {
    for (let round = 0; round < 4; round++) {
      const application = await server.application({ name: `round ${round}`, codeTtlSeconds: 600 });
      const codes = [];
      while (codes.length < 12) codes.push(await codeFor(server, application));
      const redeem = ({ form }: { form: Record<string, string> }) =>
        formTo(server.url, '/oauth/token', { ...form, ...clientOf(application) });
      const asked = codes.map((code) => redeem(code).catch(() => null));
      await new Promise((resolve) => setTimeout(resolve, 3 + round * 4));
      await server.stop('SIGKILL');
      const answers = await Promise.all(asked);
      server = { ...server, ...(await startAt(site, 0, { whenDone })), adminKey: server.adminKey };
      const [accessTokens = 0, refreshTokens = 0] = await issuedTo(application);
      const answered = answers.filter((answer) => answer?.status === 200).length;
      // An answer may be lost with the server, never what it tells of.
      expect(accessTokens).toBeGreaterThanOrEqual(answered);
      expect(refreshTokens).toBe(accessTokens);
      for (const answer of answers.filter((each) => each?.status === 200)) {
        const told = await formTo(server.url, '/oauth/introspect', {
          token: answer?.body.access_token,
          ...clientOf(application),
        });
        expect(told.body.active).toBe(true);
      }
      const again = await Promise.all(codes.map(redeem));
      expect(again.filter(({ status }) => status === 200).length).toBe(codes.length - accessTokens);
      expect((await issuedTo(application))[0]).toBe(codes.length);
    }
  });
});
