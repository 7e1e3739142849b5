import { eq } from 'drizzle-orm';
import { describe, expect, it } from 'vitest';
import {
  clientIdRefusal,
  createClientDocuments,
  findDocumentApplication,
  freshMsOf,
} from '../../../server/domain/client-metadata-documents.ts';
import { listEvents } from '../../../server/domain/events.ts';
import type { OauthSettings } from '../../../server/domain/oauth-settings.ts';
import { createOutbound, OutboundError } from '../../../server/outbound.ts';
import { call } from '../../support/calls.ts';
import { type Answering, answering, CLIENT_HOST, withDocuments } from '../../support/client-documents.ts';
import { anywhere, describeOnEachDialect, openTestDeps, type TestDeps } from '../../support/deps.ts';

const URL_OF_CLIENT = `https://${CLIENT_HOST}/oauth/client.json`;
const ASKING = { address: anywhere, requestId: 'req_documents' };
const HOUR_MS = 3_600_000;

const DOCUMENT = {
  client_id: URL_OF_CLIENT,
  client_name: 'Notes',
  client_uri: 'https://client.example',
  redirect_uris: ['https://client.example/callback', 'http://127.0.0.1/callback'],
  token_endpoint_auth_method: 'none',
};

async function open(
  policy: OauthSettings['metadataDocuments'] | null = 'first_seen',
  dialect: 'sqlite' | 'postgres' = 'sqlite',
) {
  const { deps, site } = await withDocuments(await openTestDeps(dialect), answering(DOCUMENT));
  if (policy !== null) await call(deps, deps.adminKey, 'oauthSettings.update', { metadataDocuments: policy });
  return { deps, site, find: (url = URL_OF_CLIENT) => findDocumentApplication(deps, url, ASKING) };
}

const events = async (deps: TestDeps) =>
  (await listEvents(deps, { after: 0, limit: 500 })).data.filter(({ type }) =>
    type.startsWith('oauth_application.'),
  );

const rows = ({ store: { read } }: TestDeps) => read.db.select().from(read.tables.oauthApplications);

describe('clientIdRefusal()', () => {
  it.each([
    URL_OF_CLIENT,
    'https://client.example/client.json?v=1',
    'https://client.example/a/',
    'https://xn--bcher-kva.example/client',
  ])('takes %s', (url) => expect(clientIdRefusal(url)).toBeNull());

  it.each([
    ['http://client.example/client.json', 'wanted https'],
    ['https://client.example', 'wanted a path'],
    ['https://client.example/', 'wanted a path'],
    ['https://client.example?client', 'wanted a path'],
    ['https://client.example:8443/client.json', 'wanted port 443'],
    ['https://client.example:22/client.json', 'wanted port 443'],
    ['https://user@client.example/client.json', 'wanted no user name'],
    ['https://:pass@client.example/client.json', 'wanted no user name'],
    ['https://client.example/client.json#x', 'wanted no fragment'],
    ['https://client.example/a/../client.json', 'wanted its canonical form'],
    ['https://client.example/./client.json', 'wanted its canonical form'],
    ['https://client.example/%2e%2e/client.json', 'wanted its canonical form'],
    ['https://CLIENT.example/client.json', 'wanted its canonical form'],
    ['https://client.example:443/client.json', 'wanted its canonical form'],
    ['HTTPS://client.example/client.json', 'wanted its canonical form'],
    ['https:client.example/client.json', 'wanted its canonical form'],
    ['https:\\\\client.example\\client.json', 'wanted its canonical form'],
    ['https://0x7f000001/client.json', 'wanted its canonical form'],
    ['https://2130706433/client.json', 'wanted its canonical form'],
    ['https://сlient.example/client.json', 'wanted a URL of printable ASCII'],
    ['https://client.example/client.json ', 'wanted a URL of printable ASCII'],
    ['https://client.example/\nclient.json', 'wanted a URL of printable ASCII'],
    [`https://client.example/${'x'.repeat(2048)}`, 'wanted a URL of printable ASCII'],
    ['https://', 'wanted a URL of printable ASCII'],
    ['javascript:alert(1)', 'wanted https'],
    ['file:///etc/passwd', 'wanted https'],
    ['', 'wanted a URL of printable ASCII'],
  ])('refuses %s', (url, wanted) => expect(clientIdRefusal(url)).toMatch(wanted));
});

describe('addresses that are not for strangers to choose', () => {
  const outbound = createOutbound({
    allowLoopbackHttp: false,
    allowSubnets: ['10.1.0.0/16'],
    resolve: (name) =>
      Promise.resolve([{ address: name.startsWith('metadata') ? '169.254.169.254' : '10.1.2.3', family: 4 }]),
  });
  const limits = { bytesMax: 100, timeoutMs: 2_000 };

  it.each([
    'https://127.0.0.1/client.json',
    'https://[::1]/client.json',
    'https://[::ffff:127.0.0.1]/client.json',
    'https://10.0.0.1/client.json',
    'https://192.168.1.1/client.json',
    'https://169.254.169.254/latest/meta-data',
    'https://[fd00:ec2::254]/latest/meta-data',
    'https://0.0.0.0/client.json',
    'https://localhost/client.json',
    'https://client.localhost/client.json',
    // Webhooks may go there: an operator opened it for those, and for nobody else.
    'https://10.1.2.3/client.json',
    'https://metadata.example/client.json',
    'https://rebound.example/client.json',
  ])('are not asked: %s', async (url) => {
    await expect(outbound.read(url, limits)).rejects.toThrow(/^The (URL|address) is not allowed/);
  });

  it('make nobody a client', async () => {
    const { deps } = await open();
    const guarded = { ...deps, clientDocuments: createClientDocuments(outbound, deps.now) };
    for (const url of ['https://169.254.169.254/client.json', 'https://metadata.example/client.json'])
      expect(await findDocumentApplication(guarded, url, ASKING)).toBeNull();
    expect(await rows(deps)).toEqual([]);
  });
});

describeOnEachDialect('findDocumentApplication()', (dialect) => {
  it('lets in who has a document, once, with an event', async () => {
    const { deps, site, find } = await open('first_seen', dialect);
    const row = await find();
    expect(row).toMatchObject({
      client_id: URL_OF_CLIENT,
      source: 'metadata_document',
      name: 'Notes',
      client_uri: 'https://client.example',
      public: true,
      pkce_required: true,
      consent_required: true,
      grant_types: ['authorization_code', 'refresh_token'],
      redirect_uris: DOCUMENT.redirect_uris,
      unused_until: deps.clock.now + 24 * HOUR_MS,
    });
    expect(await find()).toEqual(row);
    expect(site.asked).toHaveLength(1);
    expect(site.asked[0]?.headers).toMatchObject({ accept: 'application/json' });
    expect(site.asked[0]?.headers).not.toHaveProperty('cookie');
    expect(await events(deps)).toMatchObject([
      {
        type: 'oauth_application.first_seen',
        objectId: row?.id,
        data: { name: 'Notes', clientId: URL_OF_CLIENT, redirectHosts: ['client.example', '127.0.0.1'] },
      },
    ]);
  });

  it('of several who come first at once makes one application, and asks once', async () => {
    const { deps, site, find } = await open('first_seen', dialect);
    // Long enough for the last of them to have looked in the database, and found nothing.
    const { answer } = site;
    site.answer = (...exchange) => setTimeout(answer, 500, ...exchange);
    const found = await Promise.all(Array.from({ length: 8 }, () => find()));
    expect(new Set(found.map((row) => row?.id)).size).toBe(1);
    expect(site.asked).toHaveLength(1);
    expect(await events(deps)).toHaveLength(1);
  });
});

describe('the policy', () => {
  it('is none unless somebody said otherwise, and `first_seen` for agents', async () => {
    const { deps, site, find } = await open(null);
    expect(await find()).toBeNull();
    expect(site.asked).toEqual([]);
    expect(
      await findDocumentApplication({ ...deps, oauthClients: 'mcp' }, URL_OF_CLIENT, ASKING),
    ).not.toBeNull();
  });

  it('`block` knows those that were seen before, and asks for no others', async () => {
    const { deps, site, find } = await open();
    const known = await find();
    await call(deps, deps.adminKey, 'oauthSettings.update', { metadataDocuments: 'block' });
    expect((await find())?.id).toBe(known?.id);
    expect(await find('https://other.example/client.json')).toBeNull();
    expect(site.asked).toHaveLength(1);
    await call(deps, deps.adminKey, 'oauthSettings.update', { metadataDocuments: 'off' });
    expect(await find()).toBeNull();
  });

  const moved = { ...DOCUMENT, redirect_uris: ['https://evil.example/callback'] };

  it('`first_seen` does not follow a document to hosts that were not there at first', async () => {
    const { deps, site, find } = await open();
    await find();
    site.answer = answering({
      ...DOCUMENT,
      redirect_uris: [
        'https://client.example/other',
        'https://evil.example/callback',
        'https://client.example:8443/x',
        'http://localhost:1/new',
      ],
    });
    deps.clock.now += HOUR_MS;
    expect((await find())?.redirect_uris).toEqual(['https://client.example/other', 'http://localhost:1/new']);
    site.answer = answering(moved);
    deps.clock.now += HOUR_MS;
    expect(await find()).toBeNull();
  });

  it('`allow` follows it anywhere, with an event', async () => {
    const { deps, site, find } = await open('allow');
    await find();
    site.answer = answering({ ...moved, client_name: 'Moved' });
    deps.clock.now += HOUR_MS;
    expect(await find()).toMatchObject({ name: 'Moved', redirect_uris: moved.redirect_uris });
    expect((await events(deps)).map(({ type, data }) => [type, data['changed']])).toEqual([
      ['oauth_application.first_seen', undefined],
      ['oauth_application.updated', ['name', 'redirectUris']],
    ]);
  });

  it('leaves one that is disabled as it is, and asks for it no more', async () => {
    const { deps, site, find } = await open();
    const known = await find();
    await call(deps, deps.adminKey, 'oauthApplications.disable', { id: known?.id });
    deps.clock.now += 48 * HOUR_MS;
    expect((await find())?.enabled).toBe(false);
    expect(site.asked).toHaveLength(1);
  });
});

describe('a document', () => {
  const big = { ...DOCUMENT, padding: 'x'.repeat(5 * 1024) };

  it.each<[string, Answering]>([
    ['that names another client', answering({ ...DOCUMENT, client_id: 'https://other.example/client.json' })],
    ['that names none', answering({ ...DOCUMENT, client_id: undefined })],
    ['with a secret', answering({ ...DOCUMENT, client_secret: 'hunter2' })],
    ['of one with a secret', answering({ ...DOCUMENT, token_endpoint_auth_method: 'client_secret_basic' })],
    ['of one with a key', answering({ ...DOCUMENT, token_endpoint_auth_method: 'private_key_jwt' })],
    ['without redirect URIs', answering({ ...DOCUMENT, redirect_uris: undefined })],
    ['with none that may be', answering({ ...DOCUMENT, redirect_uris: ['http://a.example/', 'x:'] })],
    ['for another grant', answering({ ...DOCUMENT, grant_types: ['client_credentials'] })],
    ['with a name that turns around', answering({ ...DOCUMENT, client_name: 'a\u202eb' })],
    ['that is a list', answering([DOCUMENT])],
    ['that is null', answering('null')],
    ['that is no JSON', answering('<html>')],
    ['of over 5 KB', answering(big)],
    [
      'of over 5 KB in pieces',
      (_, response) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        response.write(JSON.stringify(big).slice(0, 3_000));
        response.end(JSON.stringify(big).slice(3_000));
      },
    ],
    ['elsewhere', answering('', { location: 'https://client.example/other.json' }, 302)],
    ['that is not there', answering(DOCUMENT, {}, 404)],
    ['that is not there just now', answering(DOCUMENT, {}, 503)],
    ['that was created', answering(DOCUMENT, {}, 201)],
  ])('%s makes nobody a client', async (_, answer) => {
    const { deps, site, find } = await open();
    site.answer = answer;
    expect(await find()).toBeNull();
    expect(site.asked).toHaveLength(1);
    expect(await rows(deps)).toEqual([]);
    expect(await events(deps)).toEqual([]);
  });

  it('that does not come within 2 s makes nobody a client', async () => {
    const { site, find } = await open();
    site.answer = (_, response) => void response.writeHead(200).write('{');
    const begunAt = performance.now();
    expect(await find()).toBeNull();
    expect(performance.now() - begunAt).toBeGreaterThan(1_900);
    expect(performance.now() - begunAt).toBeLessThan(4_500);
  });

  it('of a host that nobody vouches for makes nobody a client', async () => {
    const { find } = await open();
    expect(await find('https://stranger.example/client.json')).toBeNull();
  });

  it('loses redirect URIs that may not be, and scopes that nobody advertises', async () => {
    const { site, find } = await open();
    site.answer = answering({
      ...DOCUMENT,
      client_name: undefined,
      client_uri: 'javascript:alert(1)',
      redirect_uris: ['notes://callback', 'https://client.example/callback'],
      scope: 'openid unknown:scope',
    });
    expect(await find()).toMatchObject({
      name: 'client.example',
      client_uri: null,
      redirect_uris: ['https://client.example/callback'],
      default_scopes: ['openid'],
    });
  });
});

describe('freshMsOf()', () => {
  const MINUTE_MS = 60_000;
  it.each<[Record<string, string>, number]>([
    [{}, 60],
    [{ 'cache-control': 'max-age=1800' }, 30],
    [{ 'cache-control': 'public, max-age=1800, s-maxage=3600' }, 60],
    [{ 'cache-control': 'Max-Age="1800"' }, 30],
    [{ 'cache-control': 'max-age=1800', age: '600' }, 20],
    [{ 'cache-control': 'max-age=1' }, 5],
    [{ 'cache-control': 'no-store' }, 5],
    [{ 'cache-control': 'no-cache, max-age=1800' }, 5],
    [{ 'cache-control': 'max-age=31536000' }, 24 * 60],
    [{ 'cache-control': 'max-age=-1' }, 5],
    [{ 'cache-control': 'max-age=99999999999999999999' }, 5],
    [{ expires: 'Tue, 06 Jan 2026 12:30:00 GMT', date: 'Tue, 06 Jan 2026 12:00:00 GMT' }, 30],
    [{ expires: '0', date: 'Tue, 06 Jan 2026 12:00:00 GMT' }, 5],
    [{ expires: 'Tue, 06 Jan 2026 12:30:00 GMT' }, 5],
  ])('of %o is %i minutes', (headers, minutes) => {
    expect(freshMsOf({ headers })).toBe(minutes * MINUTE_MS);
  });
});

describe('a known client', () => {
  it('is asked for again when its headers say so, and not before', async () => {
    const { deps, site, find } = await open();
    site.answer = answering(DOCUMENT, { 'cache-control': 'max-age=1800' });
    await find();
    deps.clock.now += 1_800_000 - 1;
    await find();
    expect(site.asked).toHaveLength(1);
    deps.clock.now += 1;
    await find();
    expect(site.asked).toHaveLength(2);
    expect((await events(deps)).map(({ type }) => type)).toEqual(['oauth_application.first_seen']);
  });

  it('stays for a day while its host is silent, and is asked for once a minute', async () => {
    const { deps, site, find } = await open();
    const known = await find();
    site.answer = answering('', {}, 500);
    deps.clock.now += HOUR_MS;
    for (let i = 0; i < 5; i++) expect((await find())?.id).toBe(known?.id);
    expect(site.asked).toHaveLength(2);
    deps.clock.now += 60_000;
    expect((await find())?.id).toBe(known?.id);
    expect(site.asked).toHaveLength(3);
    deps.clock.now += 24 * HOUR_MS;
    expect(await find()).toBeNull();
    site.answer = answering(DOCUMENT);
    deps.clock.now += 60_000;
    expect((await find())?.id).toBe(known?.id);
  });

  it('is none once its document says so', async () => {
    const { deps, site, find } = await open();
    await find();
    site.answer = answering('', {}, 404);
    deps.clock.now += HOUR_MS;
    expect(await find()).toBeNull();
  });

  it('keeps what an administrator changed of it', async () => {
    const { deps, find } = await open();
    const known = await find();
    const { oauthApplications: a } = deps.store.read.tables;
    await deps.store.tx(({ db }) =>
      db
        .update(a)
        .set({ scopes: ['openid'] })
        .where(eq(a.id, known?.id ?? '')),
    );
    deps.clock.now += HOUR_MS;
    expect((await find())?.scopes).toEqual(['openid']);
  });
});

describe('how often', () => {
  it('one network may come with clients that are new is limited', async () => {
    const { deps, site, find } = await open();
    site.answer = answering('', {}, 404);
    for (let i = 0; i < 20; i++) expect(await find(`https://host${i}.many.example/client.json`)).toBeNull();
    await expect(find('https://host20.many.example/client.json')).rejects.toMatchObject({
      code: 'rate_limited',
    });
    expect(site.asked).toHaveLength(20);
    const elsewhere = () => '192.0.2.1';
    expect(
      await findDocumentApplication(deps, 'https://h.many.example/c.json', { ...ASKING, address: elsewhere }),
    ).toBeNull();
  });

  it('one host is asked is limited, whoever has us ask', async () => {
    const { deps, site } = await open();
    site.answer = answering('', {}, 404);
    const outcomes = [];
    for (let i = 0; i < 31; i++) {
      const found = findDocumentApplication(deps, `https://${CLIENT_HOST}/${i}`, {
        ...ASKING,
        address: () => `192.0.2.${i}`,
      });
      outcomes.push(await found.catch(({ code }: { code: string }) => code));
    }
    expect(outcomes).toEqual([...Array(30).fill(null), 'rate_limited']);
    expect(site.asked).toHaveLength(30);
  });

  it('what came to nothing is asked for is once a minute', async () => {
    const { deps, site, find } = await open();
    site.answer = answering('', {}, 404);
    for (let i = 0; i < 3; i++) expect(await find()).toBeNull();
    expect(site.asked).toHaveLength(1);
    site.answer = answering(DOCUMENT);
    deps.clock.now += 60_000;
    expect(await find()).not.toBeNull();
  });

  it('is no matter of failures of ours: those are thrown', async () => {
    const { deps } = await open();
    const documents = createClientDocuments({ read: () => Promise.reject(new Error('broken')) }, deps.now);
    await expect(documents.fetch(URL_OF_CLIENT)).rejects.toThrow('broken');
    const silent = createClientDocuments(
      { read: () => Promise.reject(new OutboundError('silent')) },
      deps.now,
    );
    expect(await silent.fetch(URL_OF_CLIENT)).toEqual({ outcome: 'unanswered' });
  });
});
