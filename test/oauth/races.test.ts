/** Eight at once, with one code or one refresh token, over two servers on one database: exactly one wins. */
import { and, eq } from 'drizzle-orm';
import { beforeAll, expect, it } from 'vitest';
import { clientOf, type TestApplication } from '../support/authorization-server.ts';
import { describeOnEachDialect, whenSuiteDone } from '../support/deps.ts';
import type { Answer } from '../support/server.ts';
import { inspect, newSite, type Site } from '../support/site.ts';
import { atFirst, codeFor, formTo, type Started, startAuthorizationServerAt } from '../support/started.ts';

const RIVALS = 8;
const ROUNDS = 5;

describeOnEachDialect('eight at once, over two servers,', (dialect) => {
  const whenDone = whenSuiteDone();
  let site: Site;
  let servers: [Started, Started];

  beforeAll(async () => {
    site = atFirst(await newSite(dialect, 2, {}, whenDone));
    const first = await startAuthorizationServerAt(site, 0, { whenDone });
    servers = [first, await startAuthorizationServerAt(site, 1, { whenDone, as: first })];
  }, 300_000);

  const race = (form: Record<string, string>): Promise<Answer[]> =>
    Promise.all(
      Array.from({ length: RIVALS }, (_, i) => formTo((servers[i % 2] as Started).url, '/oauth/token', form)),
    );

  /** What an application was issued, and what the log says of it. */
  const issuedTo = ({ id }: TestApplication) =>
    inspect(site, async ({ store: { read } }) => {
      const { oauthTokens: t, oauthRefreshTokens: r, oauthGrants: g, events: e } = read.tables;
      const accessTokens = await read.db.select().from(t).where(eq(t.application_id, id));
      const refreshTokens = await read.db.select().from(r).where(eq(r.application_id, id));
      const grants = await read.db.select().from(g).where(eq(g.application_id, id));
      const [grant] = grants;
      const events = await read.db
        .select({ type: e.type })
        .from(e)
        .where(and(eq(e.object_id, grant?.id ?? '')));
      return {
        accessTokens: accessTokens.length,
        refreshTokens: refreshTokens.length,
        grants: grants.map(({ revocation_reason: reason }) => reason),
        events: events.map(({ type }) => type),
      };
    });

  const outcomesOf = (answers: readonly Answer[]) =>
    answers.map(({ status, body }) => (status === 200 ? 'issued' : body.error)).sort();

  const ONE_WINS = [...Array<string>(RIVALS - 1).fill('invalid_grant'), 'issued'];

  it.each(['opaque', 'jwt'] as const)(
    'one redeems a code, and it ends with its grant: %s',
    async (format) => {
      for (let round = 0; round < ROUNDS; round++) {
        const application = await servers[0].application({
          name: `${format} ${round}`,
          accessTokenFormat: format,
        });
        const { form } = await codeFor(servers[0], application);
        expect(outcomesOf(await race({ ...form, ...clientOf(application) }))).toEqual(ONE_WINS);
        expect(await issuedTo(application)).toEqual({
          accessTokens: 1,
          refreshTokens: 1,
          grants: ['code_reused'],
          events: ['oauth_consent.given', 'oauth_grant.created', 'oauth_grant.revoked'],
        });
      }
    },
  );

  it.each(['opaque', 'jwt'] as const)('one refreshes, and it ends with its grant: %s', async (format) => {
    for (let round = 0; round < ROUNDS; round++) {
      const application = await servers[0].application({
        name: `${format} refreshed ${round}`,
        accessTokenFormat: format,
      });
      const { form } = await codeFor(servers[0], application);
      const { body } = await formTo(servers[1].url, '/oauth/token', { ...form, ...clientOf(application) });
      const refresh = { grant_type: 'refresh_token', refresh_token: body.refresh_token };
      expect(outcomesOf(await race({ ...refresh, ...clientOf(application) }))).toEqual(ONE_WINS);
      expect(await issuedTo(application)).toEqual({
        accessTokens: 2,
        refreshTokens: 2,
        grants: ['refresh_token_reused'],
        events: ['oauth_consent.given', 'oauth_grant.created', 'oauth_grant.revoked'],
      });
    }
  });
});
