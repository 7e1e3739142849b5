/** A server that dies between any two steps of handing something out: nothing is lost, and nothing is handed out twice. */
import { eq } from 'drizzle-orm';
import { beforeAll, expect, it, vi } from 'vitest';
import { authorizeParams, clientOf, formOf, type TestApplication } from '../support/authorization-server.ts';
import { describeOnEachDialect, whenSuiteDone } from '../support/deps.ts';
import type { UserAgent } from '../support/plain-browser.ts';
import { type Answer, send } from '../support/server.ts';
import { inspect, newSite, type Site, startAt } from '../support/site.ts';
import { type StallPoint, stallAt } from '../support/stalls.ts';
import {
  atFirst,
  CALLBACK,
  cameBack,
  codeFor,
  fillIn,
  formTo,
  type Started,
  startAuthorizationServerAt,
} from '../support/started.ts';

const REDEEMING: StallPoint[] = [
  { table: 'oauth_codes', on: 'UPDATE', when: 'NEW.redeemed_at IS NOT NULL' },
  { table: 'oauth_tokens', on: 'INSERT', when: '1 = 1' },
  { table: 'oauth_refresh_tokens', on: 'INSERT', when: '1 = 1' },
  { table: 'events', on: 'INSERT', when: "NEW.type = 'oauth_grant.created'" },
];

const REFRESHING: StallPoint[] = [
  { table: 'oauth_refresh_tokens', on: 'UPDATE', when: 'NEW.used_at IS NOT NULL' },
  { table: 'oauth_tokens', on: 'INSERT', when: '1 = 1' },
  { table: 'oauth_refresh_tokens', on: 'INSERT', when: '1 = 1' },
];

const CONSENTING: StallPoint[] = [
  { table: 'oauth_interactions', on: 'DELETE', when: '1 = 1' },
  { table: 'oauth_codes', on: 'INSERT', when: '1 = 1' },
  { table: 'oauth_consents', on: 'INSERT', when: '1 = 1' },
  { table: 'events', on: 'INSERT', when: "NEW.type = 'oauth_consent.given'" },
];

const REUSING: StallPoint[] = [
  { table: 'oauth_grants', on: 'UPDATE', when: 'NEW.revoked_at IS NOT NULL' },
  { table: 'events', on: 'INSERT', when: "NEW.type = 'oauth_grant.revoked'" },
];

const REVOKING: StallPoint[] = [
  { table: 'oauth_tokens', on: 'UPDATE', when: 'NEW.revoked_at IS NOT NULL' },
  { table: 'events', on: 'INSERT', when: "NEW.type = 'oauth_token.revoked'" },
];

const ACCEPTING: StallPoint[] = [
  { table: 'user_invitations', on: 'DELETE', when: '1 = 1' },
  { table: 'users', on: 'INSERT', when: '1 = 1' },
  { table: 'events', on: 'INSERT', when: "NEW.type = 'user.created'" },
];

const named = (points: StallPoint[]) => points.map((point) => [`${point.on} ${point.table}`, point] as const);

describeOnEachDialect('a server that is killed', (dialect) => {
  const whenDone = whenSuiteDone();
  let site: Site;
  let server: Started;
  /** Signed in from the first on: that takes longer than all else. */
  let agent: UserAgent;

  beforeAll(async () => {
    site = atFirst(await newSite(dialect, 1, { COUNTERSIGN_OAUTH_CLIENTS: 'mcp' }, whenDone));
    server = await startAuthorizationServerAt(site, 0, { whenDone });
    agent = server.browser();
    await codeFor(server, await server.application({ name: 'signs in' }), agent);
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
      const { form } = await codeFor(server, application, agent);
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
      const { form } = await codeFor(server, application, agent);
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

  it.each(named(REUSING))(
    'while a refresh token that was used revokes its grant has revoked nothing: at %s',
    { timeout: 240_000 },
    async (_, point) => {
      const application = await server.application({ name: `reuses ${point.table}` });
      const { form } = await codeFor(server, application, agent);
      const { body } = await formTo(server.url, '/oauth/token', { ...form, ...clientOf(application) });
      const refresh = () =>
        formTo(server.url, '/oauth/token', {
          grant_type: 'refresh_token',
          refresh_token: body.refresh_token,
          ...clientOf(application),
        });
      expect((await refresh()).status).toBe(200);
      await dieAt(point, refresh);
      expect(await issuedTo(application)).toEqual([2, 2, 1, 0]);
      expect(await refresh()).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
      expect(await issuedTo(application)).toEqual([2, 2, 1, 1]);
    },
  );

  /** What an application has that got a token for itself. */
  async function tokenForItself(name: string) {
    const application = await server.application({
      name,
      grantTypes: ['client_credentials'],
      redirectUris: [],
      scopes: ['notes:read'],
    });
    const ask = () =>
      formTo(server.url, '/oauth/token', {
        grant_type: 'client_credentials',
        ...clientOf(application),
      });
    return { application, ask };
  }

  it('while an application gets a token for itself has made none', { timeout: 240_000 }, async () => {
    const { application, ask } = await tokenForItself('for itself');
    await dieAt({ table: 'oauth_tokens', on: 'INSERT', when: '1 = 1' }, ask);
    expect(await issuedTo(application)).toEqual([0, 0, 0, 0]);
    expect((await ask()).status).toBe(200);
    expect(await issuedTo(application)).toEqual([1, 0, 0, 0]);
  });

  it.each(named(REVOKING))(
    'while a token is revoked has revoked nothing: at %s',
    { timeout: 240_000 },
    async (_, point) => {
      const { application, ask } = await tokenForItself(`revokes ${point.table}`);
      const { body } = await ask();
      const asked = { token: body.access_token, ...clientOf(application) };
      const revoke = () => formTo(server.url, '/oauth/revoke', asked);
      const isActive = async () => (await formTo(server.url, '/oauth/introspect', asked)).body.active;
      await dieAt(point, revoke);
      expect(await isActive()).toBe(true);
      expect((await revoke()).status).toBe(200);
      expect(await isActive()).toBe(false);
    },
  );

  it.each(named(ACCEPTING))(
    'while an invitation makes a user has made none, and the invitation is good: at %s',
    { timeout: 240_000 },
    async (_, point) => {
      const { link } = await server.administer('users.invite', { name: `Invited ${point.table}` });
      const person = { name: `invited.${point.table}`, password: server.password };
      const invited = server.browser();
      const page = await invited.open(link);
      const accept = () => fillIn(invited, page, person);
      const madeAndOpen = () =>
        inspect(site, async ({ store: { read } }) => {
          const { users: u, userInvitations: i } = read.tables;
          const made = await read.db.select().from(u).where(eq(u.source_subject, person.name));
          return [made.length, (await read.db.select().from(i)).length];
        });
      await dieAt(point, accept);
      expect(await madeAndOpen()).toEqual([0, 1]);
      expect((await accept()).status).toBe(200);
      expect(await madeAndOpen()).toEqual([1, 0]);
    },
  );

  /** Consent is remembered only for who is on no device. */
  const ELSEWHERE = 'https://notes.example.com/callback';

  const rowsOf = ({ id }: TestApplication) =>
    inspect(site, async ({ store: { read } }) => {
      const { oauthConsents: c, oauthGrants: g, oauthCodes: o, oauthInteractions: i } = read.tables;
      const count = async (table: typeof c | typeof g | typeof o | typeof i) =>
        (await read.db.select().from(table).where(eq(table.application_id, id))).length;
      const grants = await read.db.select().from(g).where(eq(g.application_id, id));
      return {
        waiting: await count(i),
        consents: await count(c),
        grants: grants.filter(({ revoked_at: revokedAt }) => revokedAt === null).length,
        codes: await count(o),
      };
    });

  const ASKED = { waiting: 1, consents: 0, grants: 0, codes: 0 };
  const ALLOWED = { waiting: 0, consents: 1, grants: 1, codes: 1 };

  function authorize(application: TestApplication) {
    const query = formOf({
      ...authorizeParams(application, 'x'.repeat(43)),
      redirect_uri: ELSEWHERE,
      scope: 'openid',
    });
    return agent.open(`${server.url}/oauth/authorize?${query}`);
  }

  /** Has the user led to the page of consent; answers how they allow it there, again and again. */
  async function askedFor(application: TestApplication) {
    const page = await authorize(application);
    return async () => cameBack(await agent.submit(page, {}, /allow/i)).searchParams.get('code');
  }

  it.each(named(CONSENTING))(
    'while a user allows has noted nothing, and asks on: at %s',
    { timeout: 240_000 },
    async (_, point) => {
      const redirectUris = [ELSEWHERE];
      const application = await server.application({ name: `allowed ${point.table}`, redirectUris });
      const consent = await askedFor(application);
      await dieAt(point, consent);
      expect(await rowsOf(application)).toEqual(ASKED);
      expect(await consent()).toMatch(/^oac_/);
      expect(await rowsOf(application)).toEqual(ALLOWED);
    },
  );

  it.each(['oauth_grants', 'oauth_codes'])(
    'while it answers whoever is remembered has noted nothing: at INSERT %s',
    { timeout: 240_000 },
    async (table) => {
      const redirectUris = [ELSEWHERE];
      const application = await server.application({ name: `remembered ${table}`, redirectUris });
      await (await askedFor(application))();
      const ask = () => authorize(application);
      await dieAt({ table, on: 'INSERT', when: '1 = 1' }, ask);
      expect(await rowsOf(application)).toEqual(ALLOWED);
      expect(cameBack(await ask()).searchParams.get('code')).toMatch(/^oac_/);
      expect(await rowsOf(application)).toEqual({ ...ALLOWED, grants: 2, codes: 2 });
    },
  );

  it('while it takes back what a user allowed has taken back nothing', { timeout: 240_000 }, async () => {
    const application = await server.application({ name: 'taken back', redirectUris: [ELSEWHERE] });
    await (await askedFor(application))();
    const { data } = await server.administer('oauthGrants.list', { applicationId: application.id });
    const withdraw = () =>
      server.administer('oauthGrants.withdraw', {
        subject: data[0].subject,
        applicationId: application.id,
      });
    await dieAt({ table: 'oauth_consents', on: 'DELETE', when: '1 = 1' }, withdraw);
    expect(await rowsOf(application)).toEqual(ALLOWED);
    await withdraw();
    expect(await rowsOf(application)).toMatchObject({ consents: 0, grants: 0 });
  });

  it('while an application registers itself has registered none', { timeout: 240_000 }, async () => {
    const { token } = await server.administer('initialAccessTokens.create', { name: 'partner' });
    const register = () =>
      send(`${server.url}/oauth/register`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify({ redirect_uris: [CALLBACK], client_name: 'Registered' }),
      });
    const registered = async () =>
      (await server.administer('oauthApplications.list', { query: 'Registered' })).data.length;
    await dieAt({ table: 'oauth_applications', on: 'INSERT', when: "NEW.source = 'registration'" }, register);
    expect(await registered()).toBe(0);
    // The token of one use is not used up.
    expect((await register()).status).toBe(201);
    expect(await registered()).toBe(1);
  });

  it('at any moment: what was answered is there, and what was not is whole or not at all', {
    timeout: 480_000,
  }, async () => {
    let cutInTheMiddle = 0;
    for (let round = 0; round < 4; round++) {
      const application = await server.application({ name: `round ${round}`, codeTtlSeconds: 600 });
      const codes = [];
      while (codes.length < 12) codes.push(await codeFor(server, application, agent));
      const redeem = ({ form }: { form: Record<string, string> }) =>
        formTo(server.url, '/oauth/token', { ...form, ...clientOf(application) });
      // No span of time ends in the middle on every machine, so the first answers say when it is.
      const answered: Answer[] = [];
      const asked = codes.map(async (code) => {
        const answer = await redeem(code).catch(() => null);
        if (answer) answered.push(answer);
        return answer;
      });
      await vi.waitUntil(() => answered.length > round, { interval: 1, timeout: 30_000 });
      await server.stop('SIGKILL');
      const answers = await Promise.all(asked);
      server = { ...server, ...(await startAt(site, 0, { whenDone })), adminKey: server.adminKey };
      expect(answered.map(({ status }) => status)).toEqual(answered.map(() => 200));
      if (answers.includes(null)) cutInTheMiddle += 1;
      const [accessTokens = 0, refreshTokens = 0] = await issuedTo(application);
      // An answer may be lost with the server, never what it tells of.
      expect(accessTokens).toBeGreaterThanOrEqual(answered.length);
      expect(refreshTokens).toBe(accessTokens);
      for (const { body } of answered) {
        const told = await formTo(server.url, '/oauth/introspect', {
          token: body.access_token,
          ...clientOf(application),
        });
        expect(told.body.active).toBe(true);
      }
      const again = await Promise.all(codes.map(redeem));
      expect(again.filter(({ status }) => status === 200).length).toBe(codes.length - accessTokens);
      expect((await issuedTo(application))[0]).toBe(codes.length);
    }
    expect(cutInTheMiddle).toBeGreaterThan(0);
  });
});
