/** Everything that was handed out is looked for in the database and in the log: not there, in no form that could be used. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { eq, getTableName } from 'drizzle-orm';
import { beforeAll, expect, it, onTestFinished } from 'vitest';
import { authorizeParams, clientOf, formOf } from '../support/authorization-server.ts';
import { describeOnEachDialect, whenSuiteDone } from '../support/deps.ts';
import { openUserAgent } from '../support/plain-browser.ts';
import { type RunningServer, send } from '../support/server.ts';
import { inspect, newSite, type Site, startAt } from '../support/site.ts';
import {
  atFirst,
  CALLBACK,
  codeFor,
  formTo,
  type Started,
  startAuthorizationServerAt,
} from '../support/started.ts';
import { newIssuer, signInThere, UPSTREAM_CLIENT } from '../support/upstream.ts';
import { UserAgent } from '../support/user-agent.ts';

describeOnEachDialect('the database and the log', (dialect) => {
  const whenDone = whenSuiteDone();
  let site: Site;
  let server: Started;
  /** Another on the same database, which hands users to the host application. */
  let host: RunningServer;
  /** A third, whose users sign in at another issuer. */
  let relying: RunningServer;

  beforeAll(async () => {
    const more = { COUNTERSIGN_LOG_LEVEL: 'debug', COUNTERSIGN_OAUTH_CLIENTS: 'mcp' };
    site = atFirst(await newSite(dialect, 3, more, whenDone));
    Object.assign(site.settings[1] ?? {}, {
      COUNTERSIGN_SIGN_IN: 'handoff',
      COUNTERSIGN_HANDOFF_URL: 'https://host.example.com/sign-in',
    });
    server = await startAuthorizationServerAt(site, 0, { whenDone });
    host = await startAt(site, 1, { whenDone });
  }, 300_000);

  /** Every value that some flow hands out, by what it is. */
  async function handOut(): Promise<Record<string, string>> {
    const handed: Record<string, string> = { password: server.password };
    for (const accessTokenFormat of ['opaque', 'jwt']) {
      const application = await server.application({ name: accessTokenFormat, accessTokenFormat });
      const agent = server.browser();
      const { form } = await codeFor(server, application, agent);
      const issued = await formTo(server.url, '/oauth/token', { ...form, ...clientOf(application) });
      const refresh = { grant_type: 'refresh_token', refresh_token: issued.body.refresh_token };
      const refreshed = await formTo(server.url, '/oauth/token', { ...refresh, ...clientOf(application) });
      expect([issued.status, refreshed.status]).toEqual([200, 200]);
      for (const [name, { body }] of Object.entries({ issued, refreshed }))
        for (const kind of ['access_token', 'refresh_token', 'id_token'])
          handed[`${accessTokenFormat} ${name} ${kind}`] = body[kind];
      handed[`${accessTokenFormat} secret`] = application.secret;
      handed[`${accessTokenFormat} code`] = form['code'] ?? '';
      for (const [name, value] of agent.cookies) handed[`${accessTokenFormat} cookie ${name}`] = value;
      const { secret } = await server.administer('oauthApplications.rotateSecret', {
        id: application.id,
        overlapSeconds: 60,
      });
      handed[`${accessTokenFormat} rotated secret`] = secret;
    }
    Object.assign(handed, await handToThemselves(), await handToStrangers(), await handOff());
    Object.assign(handed, await handUpstream(), await handToPanels());
    const { link } = await server.administer('users.invite', { name: 'Grace' });
    handed['invitation'] = new URL(link).searchParams.get('value') ?? '';
    return handed;
  }

  /** What applications and machines get without a user. */
  async function handToThemselves(): Promise<Record<string, string>> {
    const machine = await server.administer('machines.create', { name: 'Robot' });
    const handed: Record<string, string> = { 'machine secret': machine.secret };
    const ask = async (form: Record<string, string>) => {
      const { status, body } = await formTo(server.url, '/oauth/token', {
        grant_type: 'client_credentials',
        ...form,
      });
      expect(status).toBe(200);
      return body.access_token;
    };
    for (const format of ['opaque', 'jwt']) {
      const application = await server.application({
        name: `itself ${format}`,
        accessTokenFormat: format,
        grantTypes: ['client_credentials'],
        redirectUris: [],
      });
      handed[`${format} token for itself`] = await ask(clientOf(application));
      handed[`${format} M2M token`] = await ask({
        client_id: machine.id,
        client_secret: machine.secret,
        token_format: format,
      });
    }
    return handed;
  }

  /** What an application gets that registers itself, and by what. */
  async function handToStrangers(): Promise<Record<string, string>> {
    const { token } = await server.administer('initialAccessTokens.create', { name: 'partners' });
    const { status, body } = await send(`${server.url}/oauth/register`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ redirect_uris: [CALLBACK], token_endpoint_auth_method: 'client_secret_post' }),
    });
    expect(status).toBe(201);
    return { 'initial access token': token, 'registered secret': body.client_secret };
  }

  /** That by which a browser comes back from the host application; it is not used up. */
  async function handOff(): Promise<Record<string, string>> {
    const application = await server.application({ name: 'handed off' });
    const query = formOf({ ...authorizeParams(application, 'x'.repeat(43)), redirect_uri: CALLBACK });
    const agent = openUserAgent(host.url);
    const { left } = await agent.open(`${host.url}/oauth/authorize?${query}`);
    const id = left?.url.searchParams.get('interaction');
    const { status, body } = await host.call(
      'interactions.complete',
      { id, subject: 'user_handed' },
      server.adminKey,
    );
    expect(status).toBe(200);
    const [, value = ''] = /(res_[0-9A-Za-z]+)/.exec(body.result.data.resumeUrl) ?? [];
    return { 'resume value': value, 'browser of the hand-off': [...agent.cookies.values()][0] ?? '' };
  }

  /** What a sign-in at another issuer is bound by, begun and not finished; and what another left behind that was. */
  async function handUpstream(): Promise<Record<string, string>> {
    const url = `http://127.0.0.1:${site.settings[2]?.['PORT']}`;
    const issuer = await newIssuer(url);
    Object.assign(site.settings[2] ?? {}, {
      COUNTERSIGN_PUBLIC_URL: url,
      COUNTERSIGN_SIGN_IN: 'oidc',
      COUNTERSIGN_OIDC_ISSUER: issuer.url,
      COUNTERSIGN_OIDC_CLIENT_ID: UPSTREAM_CLIENT.id,
      COUNTERSIGN_OIDC_CLIENT_SECRET: UPSTREAM_CLIENT.secret,
    });
    relying = await startAt(site, 2, { whenDone: onTestFinished });
    const application = await server.application({ name: 'signed in elsewhere' });
    const query = formOf({ ...authorizeParams(application, 'x'.repeat(43)), redirect_uri: CALLBACK });
    const start = async (agent: UserAgent) => agent.get(`${url}/oauth/authorize?${query}`);
    const [begun, finished] = [new UserAgent(url), new UserAgent(url)];
    const asked = new URL((await start(begun)).location ?? '').searchParams;
    const [id = '', state = ''] = asked.get('state')?.split('.') ?? [];
    const { nonce, codeVerifier } = await inspect(site, async ({ store: { read }, keyring }) => {
      const { oauthInteractions: i } = read.tables;
      const [row] = await read.db.select({ sealed: i.upstream }).from(i).where(eq(i.id, id));
      const secrets = keyring.unseal(`oauth_interactions.upstream.${id}`, row?.sealed ?? Buffer.of());
      return JSON.parse(secrets.toString());
    });
    expect(nonce).toBe(asked.get('nonce'));
    const back = await signInThere(finished, await start(finished), url, 'grace');
    expect((await finished.get(back)).status).toBe(303);
    return {
      'upstream state': state,
      'upstream nonce': nonce,
      'upstream verifier': codeVerifier,
      'upstream code': new URL(back).searchParams.get('code') ?? '',
      'upstream client secret': UPSTREAM_CLIENT.secret,
      'browser of a sign-in elsewhere': [...begun.cookies.values()][0] ?? '',
      'session of a sign-in elsewhere': finished.cookies.get('countersign_session') ?? '',
    };
  }

  /** What a page of API keys has, and a key made by it. */
  async function handToPanels(): Promise<Record<string, string>> {
    const { token } = await server.administer('panelTokens.create', {
      subject: 'user_of_a_panel',
      actions: ['read', 'create'],
      scopeCeiling: [],
    });
    expect(token).toMatch(/^pnl_/);
    const { status, body } = await send(`${server.url}/v1/panel/api_keys`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ name: 'by panel' }),
    });
    expect([status, body.secret]).toEqual([200, expect.stringMatching(/^ak_/)]);
    return { 'panel token': token, 'API key of a panel': body.secret };
  }

  /** A value as somebody could have kept it: as it is, in part, or hashed without a key. */
  function formsOf(value: string): (string | Buffer)[] {
    const digest = createHash('sha256').update(value).digest();
    // Of a JWT, what makes it one is the signature.
    const essence = value.startsWith('eyJ') ? (value.split('.')[2] ?? '') : value.replace(/^[a-z]+_/, '');
    return [
      essence,
      Buffer.from(value).toString('base64').slice(0, -4),
      Buffer.from(value).toString('hex'),
      digest,
      digest.toString('hex'),
      digest.toString('base64'),
      digest.toString('base64url'),
    ];
  }

  /** All rows of all tables, with bytes as hex and as they are. */
  const dump = () =>
    inspect(site, async ({ store: { read } }) => {
      const texts: string[] = [];
      for (const table of Object.values(read.tables)) {
        const rows = await read.db.select().from(table);
        texts.push(getTableName(table), JSON.stringify(rows, bytesAsHex));
      }
      return texts.join('\n');
    });

  const bytesAsHex = (_: string, value: unknown) =>
    typeof value === 'object' && value !== null && 'type' in value && value.type === 'Buffer'
      ? Buffer.from((value as unknown as { data: number[] }).data).toString('hex')
      : value;

  it('hold no value that was handed out', { timeout: 240_000 }, async () => {
    const handed = await handOut();
    for (const [name, value] of Object.entries(handed))
      expect([name, value.length > 16]).toEqual([name, true]);
    const log = [server, host, relying].map((each) => each.stdout() + each.stderr()).join('\n');
    const places: Record<string, Buffer> = {
      rows: Buffer.from(await dump()),
      log: Buffer.from(log),
      ...Object.fromEntries(
        ['', '-wal'].flatMap((end) => {
          const path = site.location + end;
          return existsSync(path) ? [[`file${end}`, readFileSync(path)]] : [];
        }),
      ),
    };
    // What is looked for would be found: what is no secret is.
    expect(places['rows']?.includes('Ada Lovelace')).toBe(true);
    const found = Object.entries(places).flatMap(([place, bytes]) =>
      Object.entries(handed).flatMap(([name, value]) =>
        formsOf(value).some((form) => bytes.includes(form)) ? [`${name} in ${place}`] : [],
      ),
    );
    expect(found).toEqual([]);
  });
});
