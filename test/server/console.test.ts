import { beforeAll, describe, expect, it } from 'vitest';
import { freshFolder, whenSuiteDone } from '../support/deps.ts';
import { type RunningServer, startServer } from '../support/server.ts';

let server: RunningServer;
const whenDone = whenSuiteDone();

beforeAll(async () => {
  server = await startServer(freshFolder(whenDone), { COUNTERSIGN_LOG_LEVEL: 'info' }, { whenDone });
});

const ours = () => ({ origin: server.url, 'x-countersign': 'console' });

const post = (headers: Record<string, string>, body: unknown = { secretKey: server.adminKey }) =>
  request(`${server.url}/console/session`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });

/** The cookie of a new session, as a browser sends it. */
async function signIn(): Promise<string> {
  const response = await post(ours());
  expect(response.status).toBe(200);
  return response.headers.get('set-cookie')?.split(';')[0] ?? '';
}

const list = (headers: Record<string, string>) =>
  request(`${server.url}/trpc/machines.list`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: '{}',
  });

/** Its body is read whatever becomes of it, lest the connection stays open. */
async function request(url: string, init?: RequestInit): Promise<Response> {
  const response = await fetch(url, init);
  const text = await response.text();
  return new Response(text === '' ? null : text, response);
}

const statusOf = async (url: string, init?: RequestInit) => (await request(url, init)).status;

const codeOf = async (response: Response) => {
  const { errors, error } = (await response.json()) as {
    errors?: { code: string }[];
    error?: { data: { code: string } };
  };
  return errors?.[0]?.code ?? error?.data.code;
};

describe('POST /console/session', () => {
  it('answers who that is, and sets a cookie that scripts and other sites do not see', async () => {
    const response = await post(ours());
    expect(await response.json()).toMatchObject({
      role: 'admin',
      secretKeyId: expect.stringMatching(/^sk_/),
    });
    const cookie = response.headers.get('set-cookie');
    expect(cookie).toMatch(/^countersign_console=ses_\w{49}; Path=\/; HttpOnly; SameSite=Strict$/);
  });

  it.each<[string, () => Record<string, string>]>([
    ['without the header', () => ({ origin: server.url })],
    ['of another origin', () => ({ ...ours(), origin: 'https://evil.example' })],
    ['without an origin', () => ({ 'x-countersign': 'console' })],
    ['of an origin that begins alike', () => ({ ...ours(), origin: `${server.url}.evil.example` })],
  ])('is refused %s', async (_, headers) => {
    const response = await post(headers());
    expect([response.status, await codeOf(response)]).toEqual([403, 'forbidden']);
    expect(response.headers.get('set-cookie')).toBeNull();
  });

  it.each<[string, Record<string, string>, unknown, string]>([
    [
      'a form',
      { 'content-type': 'application/x-www-form-urlencoded' },
      'secretKey=a',
      'unsupported_media_type',
    ],
    ['no JSON', {}, '{', 'malformed_json'],
    ['too much', {}, { secretKey: 'a'.repeat(5_000) }, 'payload_too_large'],
    ['both', {}, { secretKey: 'sk_1', link: 'csl_1' }, 'invalid_input'],
    ['nothing', {}, {}, 'invalid_input'],
    ['a key that is none', {}, { secretKey: `sk_${'0'.repeat(49)}` }, 'unauthenticated'],
  ])('refuses %s', async (_, headers, body, code) => {
    expect(await codeOf(await post({ ...ours(), ...headers }, body))).toBe(code);
  });

  it('by a link, which `countersign console` prints, works once; the value is in no log', async () => {
    const { body } = await server.call('signInLinks.issue');
    const { url } = body.result.data as { url: string };
    expect(url.startsWith(`${server.url}/console/#link=csl_`)).toBe(true);
    const link = url.split('=')[1] ?? '';
    expect((await post(ours(), { link })).status).toBe(200);
    expect(await codeOf(await post(ours(), { link }))).toBe('unauthenticated');
    expect(server.stderr() + server.stdout()).not.toContain(link);
  });

  it('ends the session that the browser had', async () => {
    const before = await signIn();
    await post({ ...ours(), cookie: before });
    expect(await codeOf(await list({ ...ours(), cookie: before }))).toBe('unauthenticated');
  });
});

describe('a session', () => {
  it('calls procedures, with our header and our origin, and is read and ended', async () => {
    const cookie = await signIn();
    expect((await list({ ...ours(), cookie })).status).toBe(200);
    const read = { headers: { 'x-countersign': 'console', cookie } };
    expect(await (await request(`${server.url}/console/session`, read)).json()).toMatchObject({
      role: 'admin',
    });
    const ended = await request(`${server.url}/console/session`, {
      method: 'DELETE',
      headers: { ...ours(), cookie },
    });
    expect([ended.status, ended.headers.get('set-cookie')]).toEqual([
      204,
      expect.stringContaining('Max-Age=0'),
    ]);
    expect(await codeOf(await list({ ...ours(), cookie }))).toBe('unauthenticated');
    expect(await statusOf(`${server.url}/console/session`, read)).toBe(401);
  });

  it.each<[string, () => Record<string, string>]>([
    ['the header', () => ({ origin: server.url })],
    ['our origin', () => ({ ...ours(), origin: 'https://evil.example' })],
  ])('counts for nothing without %s', async (_, headers) => {
    expect(await codeOf(await list({ ...headers(), cookie: await signIn() }))).toBe('unauthenticated');
  });

  it('counts for nothing on the REST API, the feed and the hot routes', async () => {
    const cookie = await signIn();
    for (const path of ['/v1/machines', '/v1/feed', '/metrics'])
      expect(await statusOf(server.url + path, { headers: { ...ours(), cookie } })).toBe(401);
  });

  it('may do what its key may, and no more', async () => {
    const { body } = await server.call('secretKeys.create', { name: 'looker', role: 'read' });
    const response = await post(ours(), { secretKey: body.result.data.secret });
    const cookie = response.headers.get('set-cookie')?.split(';')[0] ?? '';
    expect((await list({ ...ours(), cookie })).status).toBe(200);
    const created = await request(`${server.url}/trpc/machines.create`, {
      method: 'POST',
      headers: { ...ours(), cookie, 'content-type': 'application/json' },
      body: '{"name":"m"}',
    });
    expect(await codeOf(created)).toBe('forbidden');
  });
});

describe('/console', () => {
  it('is one page below that path, under a policy with a nonce of its own', async () => {
    const policies = await Promise.all(
      ['/console/', '/console/signing-keys'].map(async (path) => {
        const response = await request(server.url + path);
        const [policy, page] = [response.headers.get('content-security-policy') ?? '', await response.text()];
        const [, nonce = ''] = /'nonce-([\w-]{22})'/.exec(policy) ?? [];
        expect(page).toContain(`content="${nonce}"`);
        expect(policy).toContain("default-src 'none'; script-src 'self';");
        expect(policy).not.toContain('unsafe');
        expect(response.headers.get('cache-control')).toBe('no-store');
        return policy;
      }),
    );
    expect(new Set(policies).size).toBe(2);
    expect((await request(`${server.url}/console`, { redirect: 'manual' })).headers.get('location')).toBe(
      '/console/',
    );
  });

  it('has its files kept for ever, since their names change, and nothing beside them', async () => {
    const page = await (await request(`${server.url}/console/`)).text();
    const [, script = ''] = /src="(\/console\/assets\/[^"]+\.js)"/.exec(page) ?? [];
    const response = await request(server.url + script);
    expect(response.headers.get('content-type')).toContain('javascript');
    expect(response.headers.get('cache-control')).toContain('immutable');
    for (const path of [
      '/console/assets/../../server/main.js',
      '/console/assets/%2e%2e%2f%2e%2e%2fserver/main.js',
      '/console/assets/none.js',
    ])
      expect(await statusOf(server.url + path)).not.toBe(200);
  });

  it('is not there where it is switched off', async () => {
    const without = await startServer(freshFolder(), { COUNTERSIGN_CONSOLE: 'off' });
    expect(await statusOf(`${without.url}/console/`)).toBe(404);
    expect(await (await request(without.url)).text()).not.toContain('/console/');
  });
});
