import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createHttpServer } from '../../server/app.ts';
import { formatValue, PREFIXES } from '../../server/crypto/format.ts';
import { ERRORS } from '../../server/errors.ts';
import { type RunningServer, send, startServer } from '../support/server.ts';

const ORIGIN = 'https://app.example.com';
const JSON_TYPE = { 'content-type': 'application/json' };
const newValue = (prefix: string) => formatValue(prefix, randomBytes(32));

let server: RunningServer;
let dataDir: string;

const cleanUps: (() => Promise<void>)[] = [];
afterAll(async () => {
  for (const cleanUp of cleanUps) await cleanUp();
  rmSync(dataDir, { recursive: true, force: true });
});

beforeAll(async () => {
  dataDir = mkdtempSync(join(tmpdir(), 'countersign-app-'));
  server = await startServer(
    dataDir,
    { COUNTERSIGN_CORS_ORIGINS: ORIGIN, COUNTERSIGN_LOG_LEVEL: 'debug', NODE_ENV: 'development' },
    { whenDone: (cleanUp) => cleanUps.push(cleanUp) },
  );
});

const post = (
  path: string,
  body: NonNullable<RequestInit['body']>,
  headers: Record<string, string> = JSON_TYPE,
) =>
  send(server.url + path, {
    method: 'POST',
    body,
    headers: { authorization: `Bearer ${server.adminKey}`, ...headers },
  });

/** How many administrative changes there have been. */
async function eventCount(): Promise<number> {
  const { body } = await server.call('events.list', { limit: 500 });
  return body.result.data.data.length;
}

/** The access log's line of a request. */
async function lineOf(requestId: string | null) {
  await server.printed('stderr', new RegExp(`"requestId":"${requestId}".*\n`));
  return server.log().find((line) => line['requestId'] === requestId && line['msg'] === 'request');
}

describe('createHttpServer()', () => {
  it('bounds what a slow sender may hold: headers, the whole of a request, and a connection without one', () => {
    const { headersTimeout, requestTimeout, keepAliveTimeout } = createHttpServer(() => {});
    expect({ headersTimeout, requestTimeout, keepAliveTimeout }).toEqual({
      headersTimeout: 10_000,
      requestTimeout: 30_000,
      keepAliveTimeout: 65_000,
    });
  });
});

describe('every answer', () => {
  it('carries a fresh request id that finds the line in the log, whatever id was sent', async () => {
    const sent = { 'x-request-id': 'req_mine' };
    const answers = await Promise.all(
      ['/', '/healthz', '/v1/verify', '/trpc/machines.list', '/none'].map((path) =>
        send(server.url + path, { headers: sent }),
      ),
    );
    const ids = answers.map(({ headers }) => headers.get('x-request-id'));
    for (const id of ids) {
      expect(id).toMatch(/^req_[0-9a-f]{32}$/);
      expect(await lineOf(id)).toMatchObject({ method: 'GET', client: '127.0.0.1' });
    }
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('says nothing of what it is made of, and may not be kept', async () => {
    for (const path of ['/', '/healthz', '/none', '/trpc/none']) {
      const { headers } = await send(server.url + path);
      expect(headers.get('x-powered-by')).toBeNull();
      expect(headers.get('server')).toBeNull();
      expect(headers.get('cache-control')).toBe('no-store');
      expect(headers.get('x-content-type-options')).toBe('nosniff');
      expect(headers.get('set-cookie')).toBeNull();
    }
  });
});

describe('/', () => {
  it('says what this is and what comes next, without scripts and under a policy that allows none', async () => {
    const { status, headers, body } = await send(`${server.url}/`);
    expect(status).toBe(200);
    expect(body).toContain('Countersign, machine authentication');
    expect(body).toContain(server.url);
    expect(body).toContain('npm run demo');
    expect(body).not.toContain('<script');
    expect(headers.get('content-security-policy')).toMatch(
      /^default-src 'none';style-src 'sha256-[^']+';base-uri 'none';form-action 'none';frame-ancestors 'none'$/,
    );
  });
});

describe('/healthz and /readyz', () => {
  it('answer that the process lives and is ready', async () => {
    expect(await send(`${server.url}/healthz`)).toMatchObject({ status: 200, body: { status: 'ok' } });
    expect(await send(`${server.url}/readyz`)).toMatchObject({
      status: 200,
      body: { status: 'ready', degraded: null },
    });
  });

  it('take GET and HEAD only', async () => {
    expect(await send(`${server.url}/healthz`, { method: 'HEAD' })).toMatchObject({ status: 200 });
    const { status, headers, body } = await send(`${server.url}/readyz`, { method: 'DELETE' });
    expect([status, headers.get('allow')]).toEqual([405, 'GET, HEAD']);
    expect(body.errors[0].code).toBe('method_not_allowed');
  });
});

describe('/openapi.json and /docs', () => {
  it('describe every route to everybody, in pages of every origin', async () => {
    const { status, headers, body } = await send(`${server.url}/openapi.json`);
    expect([status, headers.get('content-type')]).toEqual([200, 'application/json']);
    expect(headers.get('access-control-allow-origin')).toBe('*');
    expect(body).toMatchObject({
      openapi: '3.1.0',
      servers: [{ url: server.url }],
      paths: { '/v1/machines': { post: { summary: 'Create a machine; its secret is answered this once' } } },
    });
    const operations = Object.values<Record<string, { operationId: string; summary: string }>>(
      body.paths,
    ).flatMap((operations) => Object.values(operations));
    expect(operations.filter(({ summary }) => summary === '')).toEqual([]);
    expect(new Set(operations.map(({ operationId }) => operationId)).size).toBe(operations.length);
  });

  it('are a page of files from here alone, without inline scripts, under a policy of their own', async () => {
    const { status, headers, body } = await send(`${server.url}/docs`);
    expect(status).toBe(200);
    expect(headers.get('content-security-policy')).toMatch(
      /^default-src 'none'; script-src 'self'; style-src 'self';/,
    );
    expect(body).not.toMatch(/<script(?! src="\/docs\/[\w-]+\.js"><\/script>)|https?:| style=| on\w+=/);
    const files = [...body.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path]) => path);
    expect(files).toHaveLength(3);
    for (const path of files) {
      const file = await send(server.url + path);
      expect(file.status).toBe(200);
      expect(file.headers.get('content-type')).toBe(
        path.endsWith('.css') ? 'text/css; charset=utf-8' : 'text/javascript; charset=utf-8',
      );
      expect(file.headers.get('x-content-type-options')).toBe('nosniff');
    }
    expect((await send(`${server.url}/docs/package.json`)).status).toBe(404);
    expect((await send(`${server.url}/`)).headers.get('content-security-policy')).not.toContain('script-src');
  });
});

describe('/v1', () => {
  const asAdmin = () => ({ headers: { authorization: `Bearer ${server.adminKey}` } });

  it('is called by its pattern in the log, with the version or without, whatever stands in the path', async () => {
    for (const path of ['/v1/subjects/user_secret', '/subjects/user_secret']) {
      const { status, headers } = await send(server.url + path, asAdmin());
      expect(status).toBe(200);
      expect(await lineOf(headers.get('x-request-id'))).toMatchObject({ route: '/v1/subjects/{id}' });
    }
    expect(server.stderr()).not.toContain('user_secret');
  });

  it("knows no OAuth token yet: Clerk's SDK takes that for one that is not valid", async () => {
    const { status, headers, body } = await post(
      '/oauth_applications/access_tokens/verify',
      '{"access_token":"oat_x"}',
    );
    expect([status, headers.get('content-type')]).toEqual([404, 'application/json']);
    expect(body.errors).toHaveLength(1);
  });
});

describe('/metrics', () => {
  const metrics = (credential?: string) =>
    send(`${server.url}/metrics`, credential ? { headers: { authorization: `Bearer ${credential}` } } : {});

  it('refuses who presents no key, a dead one, or one of another role', async () => {
    const created = await server.call('secretKeys.create', { name: 'verifier', role: 'verify' });
    const { status, headers, body } = await metrics();
    expect([status, headers.get('www-authenticate')]).toEqual([401, 'Bearer']);
    expect(body.errors[0].code).toBe('unauthenticated');
    expect((await metrics(newValue(PREFIXES.secretKey))).status).toBe(401);
    expect((await metrics(created.body.result.data.secret)).status).toBe(403);
  });

  it('shows requests by route, and no path as it was sent', async () => {
    await send(`${server.url}/none/${newValue(PREFIXES.apiKey)}`);
    await server.call('machines.list', {});
    await server.call('machines.nope', {});
    await server.call('machines.list,events.list?batch=1', {});
    const { status, headers, body } = await metrics(server.adminKey);
    expect([status, headers.get('content-type')]).toEqual([200, expect.stringMatching(/^text\/plain/)]);
    const routes = [...body.matchAll(/requests_seconds_count\{route="([^"]+)"/g)].map(([, route]) => route);
    expect(routes).toEqual(
      expect.arrayContaining(['none', '/trpc', '/trpc/machines.list', '/trpc (batch)', '/metrics']),
    );
    for (const route of routes)
      expect(route).toMatch(/^(none|preflight|\/trpc( \(batch\))?|\/(trpc\/)?[a-zA-Z0-9_./{}-]*)$/);
    expect(body).not.toMatch(/nope|ak_/);
  });

  it('opens to a key that may read', async () => {
    const { body } = await server.call('secretKeys.create', { name: 'watcher', role: 'read' });
    expect((await metrics(body.result.data.secret)).status).toBe(200);
  });
});

describe('bad input at the edge', () => {
  const calls = (length: number, path: string) => Array.from({ length }, () => path).join(',');
  const machine = (name: string) => JSON.stringify({ name });

  const CASES: [what: string, send: () => Promise<Awaited<ReturnType<typeof send>>>, code: string][] = [
    ['malformed JSON', () => post('/trpc/machines.create', '{"name":'), 'malformed_json'],
    [
      'a form',
      () => post('/trpc/machines.create', new URLSearchParams({ name: 'x' }), {}),
      'unsupported_media_type',
    ],
    [
      'multipart',
      () => {
        const form = new FormData();
        form.set('name', 'x');
        return post('/trpc/machines.create', form, {});
      },
      'unsupported_media_type',
    ],
    [
      'text that a browser sends without asking',
      () => post('/trpc/machines.create', machine('x'), { 'content-type': 'text/plain;application/json' }),
      'unsupported_media_type',
    ],
    [
      'another character set',
      () =>
        post('/trpc/machines.create', machine('x'), { 'content-type': 'application/json; charset=utf-16' }),
      'unsupported_media_type',
    ],
    [
      'bytes',
      () => post('/trpc/machines.create', randomBytes(8), { 'content-type': 'application/octet-stream' }),
      'unsupported_media_type',
    ],
    [
      'a body over 1 MB',
      () => post('/trpc/machines.create', machine('x'.repeat(1_100_000))),
      'payload_too_large',
    ],
    [
      'a body over 1 MB of untold length',
      () =>
        send(`${server.url}/trpc/machines.create`, {
          method: 'POST',
          headers: { authorization: `Bearer ${server.adminKey}`, ...JSON_TYPE },
          body: new Blob([machine('x'.repeat(1_100_000))]).stream(),
          duplex: 'half',
        } as RequestInit),
      'payload_too_large',
    ],
    ['7,000 calls in a batch', () => post(`/trpc/${calls(7_000, 'x.y')}?batch=1`, '{}'), 'batch_too_large'],
    [
      '51 calls in a batch',
      () => post(`/trpc/${calls(51, 'machines.create')}?batch=1`, '{}'),
      'batch_too_large',
    ],
    ['an unknown procedure', () => post('/trpc/machines.nope', '{}'), 'not_found'],
    ['the name of a prototype', () => post('/trpc/constructor.constructor', '{}'), 'not_found'],
    ['a path that cannot be decoded', () => post('/trpc/%E0%A4%A', '{}'), 'invalid_input'],
    ['an unknown field', () => post('/trpc/machines.create', '{"name":"x","admin":true}'), 'invalid_input'],
    ['a batch whose input is a list', () => post('/trpc/machines.create?batch=1', '"x"'), 'invalid_input'],
    [
      'GET',
      () =>
        send(`${server.url}/trpc/machines.list?input={}`, {
          headers: { authorization: `Bearer ${server.adminKey}` },
        }),
      'method_not_allowed',
    ],
    ['GET of something that changes', () => send(`${server.url}/trpc/machines.create`), 'method_not_allowed'],
    [
      'PUT',
      () => send(`${server.url}/trpc/machines.create`, { method: 'PUT', body: '{}', headers: JSON_TYPE }),
      'method_not_allowed',
    ],
    [
      'nobody',
      () => post('/trpc/machines.create', machine('x'), { ...JSON_TYPE, authorization: '' }),
      'unauthenticated',
    ],
    [
      'a cookie alone',
      () =>
        post('/trpc/machines.create', machine('x'), {
          ...JSON_TYPE,
          authorization: '',
          cookie: `session=${newValue(PREFIXES.secretKey)}`,
        }),
      'unauthenticated',
    ],
  ];

  it.each(CASES)(
    '%s is refused with a closed code, and changes and leaks nothing',
    async (_what, request, code) => {
      const before = await eventCount();
      const { status, headers, body } = await request();
      const error = Array.isArray(body) ? body[0].error : body.error;
      expect(error).toMatchObject({
        message: expect.stringMatching(/^[A-Z]/),
        data: { code, httpStatus: ERRORS[code as keyof typeof ERRORS].status },
      });
      expect(error.data.requestId).toBe(headers.get('x-request-id'));
      expect(status).toBe(error.data.httpStatus);
      expect(JSON.stringify(body)).not.toMatch(/\bat [^ ]+ \(|node_modules|\/server\/|stack|SyntaxError/);
      expect(await eventCount()).toBe(before);
    },
  );

  it('takes 50 calls in a batch', async () => {
    const paths = Array.from({ length: 50 }, () => 'machines.list').join(',');
    const inputs = Array.from({ length: 50 }, (_, index) => [index, {}]);
    const { status, body } = await post(`/trpc/${paths}?batch=1`, JSON.stringify(Object.fromEntries(inputs)));
    expect(status).toBe(200);
    expect(body).toHaveLength(50);
  });

  it('answers every other path in the envelope of the REST API', async () => {
    for (const path of ['/none', '/healthz/', '/TRPC/machines.list', '/%E0%A4%A', '//none']) {
      const { status, headers, body } = await send(server.url + path);
      expect(status).toBe(404);
      expect(body).toMatchObject({
        errors: [{ code: 'not_found' }],
        clerk_trace_id: headers.get('x-request-id'),
      });
    }
  });

  it('refuses 7,000 calls whose names alone are more than it reads', async () => {
    const { status, headers, body } = await post(`/trpc/${calls(7_000, 'machines.create')}?batch=1`, '{}');
    expect(status).toBe(431);
    expect(body).toMatchObject({
      errors: [{ code: 'headers_too_large' }],
      clerk_trace_id: headers.get('x-request-id'),
    });
  });

  it('answers and ends a connection whose headers are no HTTP or too many', async () => {
    expect(await raw('NONSENSE\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 .*"code":"malformed_request"/s);
    expect(await raw(`GET / HTTP/1.1\r\nHost: x\r\nX-Long: ${'x'.repeat(40_000)}\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 431 .*"code":"headers_too_large"/s,
    );
  });
});

/** What the server says to some bytes before it closes the connection. */
function raw(bytes: string): Promise<string> {
  const { hostname, port } = new URL(server.url);
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(Number(port), hostname, () => socket.write(bytes));
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('close', () => resolve(text));
    socket.on('error', (error) => (text === '' ? reject(error) : resolve(text)));
  });
}

describe('CORS', () => {
  const preflight = (origin: string) =>
    send(`${server.url}/v1/verify`, {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST' },
    });

  it('lets every origin read what is public', async () => {
    for (const path of ['/.well-known/jwks.json', '/v1/jwks', '/v1/status-lists'])
      for (const origin of [ORIGIN, 'https://other.example.com']) {
        const { headers } = await send(server.url + path, { headers: { origin } });
        expect(headers.get('access-control-allow-origin')).toBe('*');
        expect(headers.get('access-control-allow-credentials')).toBeNull();
      }
  });

  it('lets every origin ask for what is public with headers of its own', async () => {
    for (const path of ['/.well-known/jwks.json', '/v1/jwks', '/v1/status-lists', '/v1/status-lists/sl_x']) {
      const { status, headers } = await send(server.url + path, {
        method: 'OPTIONS',
        headers: {
          origin: 'https://other.example.com',
          'access-control-request-method': 'GET',
          'access-control-request-headers': 'mcp-protocol-version',
        },
      });
      expect([path, status]).toEqual([path, 204]);
      expect(headers.get('access-control-allow-origin')).toBe('*');
      expect(headers.get('access-control-allow-methods')).toBe('GET');
      expect(headers.get('access-control-allow-headers')).toContain('MCP-Protocol-Version');
    }
  });

  it('lets a listed origin in, without credentials', async () => {
    const { status, headers } = await preflight(ORIGIN);
    expect(status).toBe(204);
    expect(headers.get('access-control-allow-origin')).toBe(ORIGIN);
    expect(headers.get('access-control-allow-credentials')).toBeNull();
    const { headers: answered } = await send(`${server.url}/healthz`, { headers: { origin: ORIGIN } });
    expect(answered.get('access-control-allow-origin')).toBe(ORIGIN);
    expect(answered.get('vary')).toContain('Origin');
  });

  it('says nothing to any other', async () => {
    for (const origin of ['https://evil.example.com', 'null', `${ORIGIN}.evil.com`]) {
      const { status, headers } = await preflight(origin);
      expect(status).not.toBe(204);
      expect(headers.get('access-control-allow-origin')).toBeNull();
    }
  });
});

describe('the log', () => {
  it('holds no credential, whether it was sent in a URL, a header or a body', async () => {
    const values = [server.adminKey, ...Object.values(PREFIXES).map(newValue)];
    for (const value of values) {
      await send(`${server.url}/${value}?key=${value}`, {
        headers: {
          authorization: `Bearer ${value}`,
          cookie: value,
          'user-agent': value,
          'x-forwarded-for': value,
        },
      });
      await server.call('machines.create', { name: value }, value);
      await server.call(value, { [value]: value });
      await post('/v1/verify', JSON.stringify({ credential: value, [value]: 1 }));
      await post('/v1/verify', value);
    }
    const { headers } = await send(`${server.url}/healthz`);
    await lineOf(headers.get('x-request-id'));
    for (const value of values) expect(server.stderr()).not.toContain(value);
    expect(server.stdout()).not.toContain(server.adminKey);
  });

  it('has a line for each request with method, route, status, time and request id', async () => {
    const { headers } = await server.call('machines.list', { query: 'hunter2' });
    expect(await lineOf(headers.get('x-request-id'))).toEqual({
      level: 'info',
      time: expect.any(String),
      method: 'POST',
      route: '/trpc/machines.list',
      status: 200,
      ms: expect.any(Number),
      client: '127.0.0.1',
      requestId: headers.get('x-request-id'),
      msg: 'request',
    });
    expect(server.stderr()).not.toContain('hunter2');
  });
});
