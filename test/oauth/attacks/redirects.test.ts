/** Where an answer may be sent: to nobody who did not register for it, and never so that it seems another's. */
import fc from 'fast-check';
import { beforeEach, expect, it } from 'vitest';
import {
  allow,
  answeredBy,
  authorizeParams,
  challengeOf,
  clientOf,
  type Form,
  formOf,
  REDIRECT_URI,
  type ServedOauth,
  serveOauth,
  type TestApplication,
} from '../../support/authorization-server.ts';
import { describeOnEachDialect } from '../../support/deps.ts';
import type { UserAgent } from '../../support/plain-browser.ts';

const CHALLENGE = challengeOf('v'.repeat(43));

/** What only looks like `https://app.example.com/callback`, or comes to it by a way that comparing texts does not see. */
const LOOK_ALIKES = [
  // Cyrillic а, е, о, р and с; fullwidth letters; a soft hyphen; a zero width joiner.
  'https://аpp.example.com/callback',
  'https://app.еxample.com/callback',
  'https://app.example.соm/callback',
  'https://app.example.com/сallback',
  'https://ａｐｐ.example.com/callback',
  'https://app.exampl\u00ade.com/callback',
  'https://app.example.com/call\u200dback',
  'https://app.example.com/call\u00adback',
  'https://xn--pp-7kc.example.com/callback',
  // Another full stop, or slash.
  'https://app。example。com/callback',
  'https://app.example.com／callback',
  'https://app.example.com\u2215callback',
  'https://app.example.com\u2044callback',
  // Another host, written so that part of it reads like ours.
  'https://app.example.com.evil.example/callback',
  'https://app.example.com@evil.example/callback',
  'https://app.example.com:pass@evil.example/callback',
  'https://evil.example/callback#https://app.example.com/callback',
  'https://evil.example\\@app.example.com/callback',
  'https://evil.example/?https://app.example.com/callback',
  'https:///evil.example/callback',
  'https:\\\\app.example.com\\callback',
  '//app.example.com/callback',
  '/callback',
  // Another place on the same host, or another spelling of the same place.
  'https://app.example.com/callback/../evil',
  'https://app.example.com/callback/%2e%2e/evil',
  'https://app.example.com/%63allback',
  'https://app.example.com/callback%00',
  'https://app.example.com/callback%0d%0aLocation:%20https://evil.example',
  'https://app.example.com/callback\r\nLocation: https://evil.example',
  'https://app.example.com/callback\t',
  ' https://app.example.com/callback',
  'https://app.example.com/callback ',
  'https://app.example.com/Callback',
  'HTTPS://app.example.com/callback',
  'https://app.example.com:443/callback',
  'https://app.example.com/callback?',
  'https://app.example.com/callback#',
  'https://app.example.com/callback;a=b',
  'https://app.example.com./callback',
  // No place at all, but a program.
  'javascript:alert(1)//app.example.com/callback',
  'data:text/html,https://app.example.com/callback',
  'vbscript:https://app.example.com/callback',
];

describeOnEachDialect('open redirect and mix-up', (dialect) => {
  let served: ServedOauth;
  let application: TestApplication;
  let agent: UserAgent;

  beforeEach(async () => {
    served = await serveOauth(dialect);
    application = await served.application();
    agent = await served.browser();
  });

  const urlOf = (params: Form) =>
    `${served.url}/oauth/authorize?${formOf({ ...authorizeParams(application, CHALLENGE), ...params })}`;

  it('unicode look-alike URIs and other spellings are led nowhere', async () => {
    for (const redirect_uri of LOOK_ALIKES) {
      const { left, status } = await agent.open(urlOf({ redirect_uri }));
      expect([redirect_uri, left, status]).toEqual([redirect_uri, null, 400]);
    }
  });

  it('unicode look-alike URIs, user names, fragments and programs are not registered either', async () => {
    const refused = LOOK_ALIKES.filter((uri) => /[^\x21-\x7e]|@|#|^\w+:(?!\/\/)|^\//.test(uri));
    expect(refused.length).toBeGreaterThan(20);
    for (const uri of refused)
      await expect(served.application({ name: 'Evil', redirectUris: [uri] })).rejects.toThrow();
  });

  it('open redirect: no URI that was not registered is ever led to, whatever else is right or wrong', async () => {
    const uris = fc.oneof(
      fc.webUrl({ withFragments: true, withQueryParameters: true }),
      fc.string().map((text) => REDIRECT_URI + text),
      fc.string().map((text) => text + REDIRECT_URI),
      fc.constantFrom(...LOOK_ALIKES),
    );
    const others = fc.record(
      {
        response_type: fc.constantFrom('token', 'magic', ''),
        scope: fc.constantFrom('"', 'openid'),
        prompt: fc.constantFrom('none', 'dance'),
        code_challenge_method: fc.constantFrom('plain', ''),
        response_mode: fc.constantFrom('form_post', 'fragment'),
        request: fc.constant('x'),
      },
      { requiredKeys: [] },
    );
    await fc.assert(
      fc.asyncProperty(uris, others, async (redirect_uri, params) => {
        fc.pre(redirect_uri !== REDIRECT_URI && redirect_uri !== '');
        const page = await agent.open(urlOf({ ...params, redirect_uri }));
        expect(page.left).toBeNull();
        expect(page.status).toBe(400);
      }),
      { numRuns: 120 },
    );
  });

  it('open redirect: an unknown client, a disabled one and one without redirect URIs are led nowhere', async () => {
    const { store } = served.deps;
    const service = await served.application({ redirectUris: [], grantTypes: ['client_credentials'] });
    for (const client_id of ['nobody', service.clientId, undefined])
      expect((await agent.open(urlOf({ client_id }))).left).toBeNull();
    await store.tx(({ db, tables }) => db.update(tables.oauthApplications).set({ enabled: false }));
    expect((await agent.open(urlOf({}))).left).toBeNull();
  });

  it('open redirect: the port alone is free, and on loopback alone', async () => {
    application = await served.application({
      name: 'On a device',
      redirectUris: ['http://127.0.0.1/callback'],
    });
    const isLed = async (redirect_uri: string) => (await allow(agent, urlOf({ redirect_uri }))).left !== null;
    expect(await isLed('http://127.0.0.1:9/callback')).toBe(true);
    for (const uri of [
      'http://127.0.0.1:9/other',
      'http://127.0.0.2:9/callback',
      'http://127.1:9/callback',
      'http://2130706433:9/callback',
      'http://0x7f.1:9/callback',
      'https://127.0.0.1:9/callback',
      'http://localhost:9/callback',
      'http://[::1]:9/callback',
      'http://127.0.0.1:9@evil.example/callback',
      'http://127.0.0.1.evil.example:9/callback',
      'http://127.0.0.1:99999/callback',
    ])
      expect([uri, await isLed(uri)]).toEqual([uri, false]);
  });

  it('the query of a redirect URI stays as it was registered, in redirects and in forms', async () => {
    const redirect_uri = `${REDIRECT_URI}?x=a%20b&flag`;
    application = await served.application({ name: 'With a query', redirectUris: [redirect_uri] });
    const { left } = await allow(agent, urlOf({ redirect_uri }));
    expect(left?.url.href).toMatch(`${redirect_uri}&code=oac_`);
    const form = await agent.open(urlOf({ redirect_uri, response_mode: 'form_post' }));
    expect((await agent.submit(form)).left?.url.href).toBe(redirect_uri);
  });

  it('mix-up: the answer says who it is from, also where it is a refusal', async () => {
    const allowed = answeredBy(await allow(agent, urlOf({})));
    expect([allowed.get('iss'), allowed.has('code')]).toEqual([served.url, true]);
    const refused = answeredBy(await agent.open(urlOf({ response_type: 'token' })));
    expect([refused.get('iss'), refused.get('error')]).toEqual([served.url, 'unsupported_response_type']);
  });

  it('mix-up: a code of one application is nothing in the hands of another, and is not used up by that', async () => {
    const other = await served.application({ name: 'Other' });
    const { form } = await served.code(application);
    const stolen = await served.post('/oauth/token', { ...form, ...clientOf(other) });
    expect(stolen).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
    expect((await served.post('/oauth/token', { ...form, ...clientOf(application) })).status).toBe(200);
  });

  it('a redirect is got whatever was posted, tells no referrer, and is not kept', async () => {
    const response = await fetch(urlOf({ response_type: 'token' }), { redirect: 'manual' });
    expect(response.status).toBe(303);
    expect(response.headers.get('referrer-policy')).toBe('no-referrer');
    expect(response.headers.get('cache-control')).toBe('no-store');
  });
});
