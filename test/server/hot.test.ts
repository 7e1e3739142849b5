import { createServer, request as httpRequest } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { createLocalJWKSet, decodeJwt, jwtVerify } from 'jose';
import { expect, it, onTestFinished } from 'vitest';
import { openStore } from '../../db/store.ts';
import { formatValue } from '../../server/crypto/format.ts';
import type { CountersignError } from '../../server/errors.ts';
import { createFeeds } from '../../server/feed.ts';
import { createHotRoutes } from '../../server/hot.ts';
import { createLogger } from '../../server/logger.ts';
import { describeOnEachDialect, openTestDeps, type TestDeps } from '../support/deps.ts';
import { allow, newMachine } from '../support/machines.ts';
import { freePort } from '../support/services.ts';

interface Served {
  url: string;
  port: number;
  reported: CountersignError[];
}

/** A server of nothing but the hot routes; what they do not take is answered 404 with no body. */
async function serve(deps: TestDeps): Promise<Served> {
  const reported: CountersignError[] = [];
  const routes = createHotRoutes({
    deps,
    feeds: createFeeds(deps, createLogger('silent')),
    addressOf: ({ socket }) => socket.remoteAddress ?? '',
    report: (failure) => reported.push(failure),
  });
  const server = createServer((request, response) => {
    if (!routes(request, response, 'req_1', 0)) response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, port, reported };
}

interface PostOptions {
  caller?: string | null;
  type?: string;
  idempotencyKey?: string;
}

async function post(
  served: Served,
  path: string,
  body: unknown,
  { caller, type, idempotencyKey }: PostOptions = {},
) {
  const response = await fetch(served.url + path, {
    method: 'POST',
    headers: {
      'content-type': type ?? 'application/json',
      ...(caller && { authorization: `Bearer ${caller}` }),
      ...(idempotencyKey !== undefined && { 'idempotency-key': idempotencyKey }),
    },
    body: typeof body === 'string' || body instanceof Uint8Array ? (body as string) : JSON.stringify(body),
  });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    body: JSON.parse(text) as Record<string, unknown>,
  };
}

const envelope = (code: string, more: Record<string, unknown> = {}) => ({
  errors: [{ code, message: expect.any(String), long_message: expect.any(String), ...more }],
  clerk_trace_id: 'req_1',
});

describeOnEachDialect('hot routes', (dialect) => {
  async function setup() {
    const deps = await openTestDeps(dialect);
    const a = await newMachine(deps, 'a');
    const b = await newMachine(deps, 'b');
    await allow(deps, a.id, b.id, ['read']);
    return { deps, a, b, served: await serve(deps) };
  }

  it('POST /v1/m2m_tokens and /m2m_tokens mint what POST /v1/verify verifies at its audience', async () => {
    const { deps, a, b, served } = await setup();
    for (const [path, token_format] of [
      ['/v1/m2m_tokens', 'opaque'],
      ['/m2m_tokens', 'jwt'],
    ] as const) {
      const minted = await post(
        served,
        path,
        { token_format, seconds_until_expiration: null, claims: { foo: 'bar' } },
        { caller: a.secret },
      );
      expect(minted.status).toBe(201);
      expect(minted.body).toEqual({
        object: 'machine_to_machine_token',
        id: expect.stringMatching(/^mt_[0-9a-f]{32}$/),
        subject: a.id,
        claims: { foo: 'bar' },
        scopes: [b.id],
        audience: [b.id],
        custom_scopes: ['read'],
        token: expect.any(String),
        revoked: false,
        revocation_reason: null,
        expired: false,
        expiration: deps.clock.now + 3_600_000,
        last_used_at: null,
        created_at: deps.clock.now,
        updated_at: deps.clock.now,
      });
      const { token: credential, id } = minted.body;
      const verified = await post(served, '/v1/verify?x=1', { credential }, { caller: b.secret });
      expect(verified).toMatchObject({ status: 200, body: { valid: true, id, scopes: ['read'] } });
      const refused = await post(served, '/v1/verify', { credential }, { caller: a.secret });
      expect(refused).toMatchObject({ status: 200, body: { valid: false, reason: 'unknown' } });
    }
  });

  it('POST /v1/m2m_tokens with an Idempotency-Key mints once, and answers it again without its value', async () => {
    const { deps, a, b, served } = await setup();
    const mint = (body: object, idempotencyKey: string, caller = a.secret) =>
      post(served, '/v1/m2m_tokens', body, { caller, idempotencyKey });
    for (const token_format of ['opaque', 'jwt']) {
      const body = { token_format, claims: { foo: 'bar' }, min_remaining_ttl_seconds: null };
      const first = await mint(body, `order-${token_format}`);
      expect(first).toMatchObject({ status: 201, body: { token: expect.any(String) } });
      deps.clock.now += 2_000;
      const { token: _, ...shown } = first.body;
      const again = await mint(body, `order-${token_format}`);
      expect(again.status).toBe(201);
      expect(again.body).toStrictEqual(shown);
      expect((await mint(body, 'another')).body['id']).not.toBe(first.body['id']);
      expect((await mint(body, `order-${token_format}`, b.secret)).body['id']).not.toBe(first.body['id']);
      expect(await mint({ ...body, claims: {} }, `order-${token_format}`)).toMatchObject({
        status: 409,
        body: {
          errors: [
            {
              code: 'idempotency_conflict',
              long_message: expect.stringContaining("'Idempotency-Key'"),
              meta: { param_name: 'Idempotency-Key' },
            },
          ],
        },
      });
      deps.clock.now += 24 * 3_600_000;
    }
  });

  it('POST /v1/m2m_tokens with an Idempotency-Key asks no pool, and fills it', async () => {
    const { a, served } = await setup();
    const pooled = { min_remaining_ttl_seconds: 60 };
    const mint = (more: PostOptions = {}) =>
      post(served, '/v1/m2m_tokens', pooled, { caller: a.secret, ...more });
    const first = await mint();
    const second = await mint({ idempotencyKey: 'k' });
    expect(second.body['id']).not.toBe(first.body['id']);
    expect((await mint()).body['id']).toBe(second.body['id']);
    expect((await mint({ idempotencyKey: 'k' })).body).not.toHaveProperty('token');
  });

  it.each(['', 'two words', 'a, b', 'é', 'x'.repeat(256)])(
    'POST /v1/m2m_tokens refuses the Idempotency-Key %j',
    async (idempotencyKey) => {
      const { a, served } = await setup();
      expect(await post(served, '/v1/m2m_tokens', {}, { caller: a.secret, idempotencyKey })).toMatchObject({
        status: 400,
        body: {
          errors: [
            {
              code: 'invalid_input',
              long_message: `Cannot create token: 'Idempotency-Key' must be 1 to 255 characters of printable ASCII without spaces, got ${idempotencyKey.length} characters`,
              meta: { param_name: 'Idempotency-Key' },
            },
          ],
        },
      });
    },
  );

  it('POST /v1/m2m_tokens takes audience, custom scopes and pooling, and names its own fields in refusals', async () => {
    const { a, b, served } = await setup();
    const mint = (body: unknown) => post(served, '/v1/m2m_tokens', body, { caller: a.secret });
    const pooled = { audience: [b.id], custom_scopes: ['read'], min_remaining_ttl_seconds: 60 };
    const first = await mint(pooled);
    expect((await mint(pooled)).body).toEqual(first.body);
    expect(await mint({ seconds_until_expiration: 31 * 86_400 })).toMatchObject({
      status: 400,
      body: {
        errors: [
          {
            code: 'invalid_input',
            long_message:
              "Cannot create token: 'seconds_until_expiration' must be at most 2592000, the machine's maximum, got 2678400",
            meta: { param_name: 'seconds_until_expiration' },
          },
        ],
      },
    });
    expect(await mint({ custom_scopes: ['write'] })).toMatchObject({
      status: 403,
      body: { errors: [{ code: 'scope_not_allowed', meta: { param_name: 'custom_scopes' } }] },
    });
    expect(await mint({ claims: { iss: 'x' } })).toMatchObject({
      status: 400,
      body: { errors: [{ code: 'reserved_claim' }] },
    });
    for (const wrong of [
      { claim: {} },
      { seconds_until_expiration: 0 },
      { seconds_until_expiration: '60' },
      [],
      null,
    ]) {
      expect(await mint(wrong)).toMatchObject({
        status: 400,
        body: { errors: [{ code: 'invalid_input' }], clerk_trace_id: 'req_1' },
      });
    }
  });

  it('POST /v1/verify/batch answers a hundred items in order', async () => {
    const { a, b, served } = await setup();
    const { body: minted } = await post(served, '/v1/m2m_tokens', {}, { caller: a.secret });
    const items = Array.from({ length: 100 }, (_, i) => ({ credential: i % 2 ? minted['token'] : `x${i}` }));
    const { status, body } = await post(served, '/v1/verify/batch', { items }, { caller: b.secret });
    expect(status).toBe(200);
    expect((body as unknown as { valid: boolean }[]).map(({ valid }) => valid)).toEqual(
      items.map((_, i) => i % 2 === 1),
    );
  });

  it('answers are exactly application/json, of a known length, and are not cached', async () => {
    const { deps, served } = await setup();
    for (const credential of ['x', '', 'é'.repeat(9)]) {
      const { headers, body } = await post(served, '/v1/verify', { credential }, { caller: deps.adminKey });
      expect(headers.get('content-type')).toBe('application/json');
      expect(headers.get('content-length')).toBe(`${Buffer.byteLength(JSON.stringify(body))}`);
      expect(headers.get('cache-control')).toBe('no-store');
    }
  });

  it('GET and HEAD of the JWKS are public, may be kept for a minute, and verify our JWTs', async () => {
    const { a, served } = await setup();
    const { body: minted } = await post(
      served,
      '/v1/m2m_tokens',
      { token_format: 'jwt' },
      { caller: a.secret },
    );
    for (const path of ['/v1/jwks', '/.well-known/jwks.json?v=1']) {
      const got = await fetch(served.url + path);
      const head = await fetch(served.url + path, { method: 'HEAD' });
      const jwks = (await got.json()) as Parameters<typeof createLocalJWKSet>[0];
      const { payload } = await jwtVerify(`${minted['token']}`, createLocalJWKSet(jwks), {
        currentDate: new Date(Number(minted['created_at'])),
      });
      expect(payload.sub).toBe(a.id);
      expect(JSON.stringify(jwks)).not.toMatch(/"(d|p|q|dp|dq|qi|k)":/);
      for (const { status, headers } of [got, head]) {
        expect(status).toBe(200);
        expect(headers.get('content-type')).toBe('application/json');
        expect(headers.get('cache-control')).toBe('public, max-age=60');
        expect(headers.get('access-control-allow-origin')).toBe('*');
        expect(headers.get('content-length')).toBe(`${Buffer.byteLength(JSON.stringify(jwks))}`);
      }
      expect(await head.text()).toBe('');
    }
  });

  it('GET and HEAD of a status list are public, may be kept for seconds, and are not sent twice to who has it', async () => {
    const { a, served } = await setup();
    const minted = await post(served, '/v1/m2m_tokens', { token_format: 'jwt' }, { caller: a.secret });
    const { status } = decodeJwt<{ status: { status_list: { uri: string } } }>(`${minted.body['token']}`);
    const { uri } = status.status_list;
    const url = served.url + new URL(uri).pathname;
    const got = await fetch(`${url}?x=1`, { headers: { accept: 'application/statuslist+jwt' } });
    const head = await fetch(url, { method: 'HEAD' });
    const jwt = await got.text();
    expect(decodeJwt(jwt)).toMatchObject({ sub: uri, status_list: { bits: 1 } });
    for (const { status, headers } of [got, head]) {
      expect(status).toBe(200);
      expect(headers.get('content-type')).toBe('application/statuslist+jwt');
      expect(headers.get('content-length')).toBe(`${Buffer.byteLength(jwt)}`);
      expect(headers.get('cache-control')).toBe('public, max-age=5');
      expect(headers.get('access-control-allow-origin')).toBe('*');
    }
    expect(await head.text()).toBe('');
    const etag = got.headers.get('etag') ?? '';
    for (const tags of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const kept = await fetch(url, { headers: { 'if-none-match': tags } });
      expect(kept.status).toBe(304);
      expect(await kept.text()).toBe('');
      expect(kept.headers.get('etag')).toBe(etag);
      expect(kept.headers.get('cache-control')).toBe('public, max-age=5');
    }
    expect((await fetch(url, { headers: { 'if-none-match': '"other"' } })).status).toBe(200);
  });

  it('GET /v1/status-lists names them all, and of others it is said that there are none', async () => {
    const { a, served } = await setup();
    const url = `${served.url}/v1/status-lists`;
    expect(await (await fetch(url)).json()).toEqual({ status_lists: [] });
    const minted = await post(served, '/v1/m2m_tokens', { token_format: 'jwt' }, { caller: a.secret });
    const { status } = decodeJwt<{ status: { status_list: { uri: string } } }>(`${minted.body['token']}`);
    const listed = await fetch(url);
    expect(await listed.json()).toEqual({ status_lists: [status.status_list.uri] });
    expect(listed.headers.get('content-type')).toBe('application/json');
    expect(listed.headers.get('access-control-allow-origin')).toBe('*');
    const refused = await fetch(`${url}?after=x`);
    expect(refused.status).toBe(400);
    expect(await refused.json()).toEqual(envelope('invalid_input', { meta: { param_name: 'after' } }));
    for (const path of ['/', '/x', `/sl_${'0'.repeat(27)}`, `/${'x'.repeat(5_000)}`, '/{id}', '/%00']) {
      const missing = await fetch(url + path);
      expect(missing.status).toBe(404);
      expect(missing.headers.get('cache-control')).toBe('no-store');
      expect(missing.headers.get('access-control-allow-origin')).toBe('*');
      expect(await missing.json()).toEqual(envelope('not_found'));
    }
  });

  it('a caller that is nobody is told so, and nothing else, whatever the body', async () => {
    const { served } = await setup();
    for (const [path, code] of [
      ['/v1/verify', null],
      ['/v1/verify/batch', null],
      ['/v1/m2m_tokens', 'machine_secret_key_invalid'],
      ['/m2m_tokens', 'machine_secret_key_invalid'],
      ['/m2m_tokens/verify', 'machine_secret_key_invalid'],
      ['/api_keys/verify', 'clerk_key_invalid'],
    ] as const) {
      const told = code ? { meta: { countersign_code: 'unauthenticated' } } : {};
      for (const caller of [
        null,
        'x',
        formatValue('msk_', Buffer.alloc(32)),
        formatValue('sk_', Buffer.alloc(32)),
      ]) {
        for (const body of [{ credential: 'x' }, {}, '{', '']) {
          const { status, headers, body: refused } = await post(served, path, body, { caller });
          expect(status).toBe(401);
          expect(headers.get('www-authenticate')).toBe('Bearer');
          expect(refused).toEqual(envelope(code ?? 'unauthenticated', told));
        }
      }
    }
  });

  it('a caller of the wrong role is forbidden', async () => {
    const { deps, served } = await setup();
    const { status, body } = await post(served, '/v1/m2m_tokens', {}, { caller: deps.adminKey });
    expect({ status, body }).toEqual({ status: 403, body: envelope('forbidden') });
  });

  it.each([
    ['malformed JSON', '{', 'malformed_json', 400],
    ['an empty body', '', 'malformed_json', 400],
    ['bytes that are not UTF-8', Buffer.from('{"credential":"\xff"}', 'latin1'), 'malformed_json', 400],
    ['an unknown field', { credential: 'x', surprise: 1 }, 'invalid_input', 400],
    ['a wrong type', { credential: 7 }, 'invalid_input', 400],
    ['a missing field', {}, 'invalid_input', 400],
    ['a list', [], 'invalid_input', 400],
    ['a foreign audience', { credential: 'x', audience: 'mch_x' }, 'invalid_input', 400],
    ['an address that is none', { credential: 'x', ip: '1.2.3' }, 'invalid_input', 400],
  ])('POST /v1/verify refuses %s', async (_, body, code, status) => {
    const { deps, served } = await setup();
    const answer = await post(served, '/v1/verify', body, { caller: deps.adminKey });
    expect(answer.status).toBe(status);
    expect(answer.body).toMatchObject({ errors: [{ code }], clerk_trace_id: 'req_1' });
    expect(served.reported).toEqual([]);
  });

  it('names the field at fault and never repeats what was in it', async () => {
    const { deps, served } = await setup();
    const credential = formatValue('mt_', Buffer.alloc(32, 5));
    const { body } = await post(
      served,
      '/v1/verify',
      { credential, kinds: [credential], [credential]: 1 },
      { caller: deps.adminKey },
    );
    expect(body).toMatchObject({
      errors: [{ code: 'invalid_input', meta: { param_name: expect.any(String) } }],
    });
    expect(JSON.stringify(body)).not.toContain(credential);
  });

  it.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data',
    'application/jsonp',
    '',
  ])("refuses the content type '%s'", async (type) => {
    const { deps, served } = await setup();
    const answer = await post(served, '/v1/verify', Buffer.from('{"credential":"x"}'), {
      caller: deps.adminKey,
      type,
    });
    expect(answer).toMatchObject({ status: 415, body: envelope('unsupported_media_type') });
  });

  it('accepts parameters and any case of the content type', async () => {
    const { deps, served } = await setup();
    for (const type of ['application/json; charset=utf-8', 'Application/JSON']) {
      expect(
        (await post(served, '/v1/verify', { credential: 'x' }, { caller: deps.adminKey, type })).status,
      ).toBe(200);
    }
  });

  it('refuses other methods on its paths and says which it takes', async () => {
    const { served } = await setup();
    for (const [path, method, allow] of [
      ['/v1/verify', 'GET', 'POST'],
      ['/v1/m2m_tokens', 'DELETE', 'GET, HEAD, POST'],
      ['/m2m_tokens', 'PUT', 'GET, HEAD, POST'],
      ['/m2m_tokens/verify', 'GET', 'POST'],
      ['/api_keys/verify', 'PATCH', 'POST'],
      ['/machines/mch_1', 'POST', 'GET, HEAD, PATCH, DELETE'],
      ['/v1/jwks', 'POST', 'GET, HEAD'],
      ['/.well-known/jwks.json', 'DELETE', 'GET, HEAD'],
      ['/v1/status-lists', 'POST', 'GET, HEAD'],
      ['/v1/status-lists/x', 'PUT', 'GET, HEAD'],
    ] as const) {
      const response = await fetch(served.url + path, { method });
      expect(response.status).toBe(405);
      expect(response.headers.get('allow')).toBe(allow);
      expect(await response.json()).toEqual(envelope('method_not_allowed'));
    }
  });

  it('leaves every other path to others', async () => {
    const { served } = await setup();
    for (const path of [
      '/',
      '/v1/verify/',
      '/V1/verify',
      '/v1/verify/batch/x',
      '/trpc/credentials.verify',
      '/v1',
    ]) {
      expect((await fetch(served.url + path, { method: 'POST' })).status).toBe(404);
    }
  });

  it.each([
    ['/v1/verify', 16 * 1024],
    ['/v1/m2m_tokens', 16 * 1024],
    ['/v1/verify/batch', 1024 * 1024],
  ])('%s accepts a body of %d bytes and refuses one more, declared or not', async (path, bytesMax) => {
    const { deps, served } = await setup();
    const fits = await post(served, path, '{}'.padEnd(bytesMax), { caller: deps.adminKey });
    expect(fits.status).not.toBe(413);
    const declared = await post(served, path, '{}'.padEnd(bytesMax + 1), { caller: deps.adminKey });
    expect(declared).toMatchObject({ status: 413, body: envelope('payload_too_large') });
    expect(declared.headers.get('connection')).toBe('close');
    expect(await postChunked(served, path, bytesMax + 1)).toBe(413);
  });

  it('stops reading a body that never ends, answers, and closes the connection', async () => {
    const { served } = await setup();
    const socket = connect(served.port, '127.0.0.1');
    const closed = new Promise((resolve) => socket.once('close', resolve));
    let answer = '';
    socket.on('data', (chunk) => {
      answer += chunk.toString();
    });
    socket.on('error', () => {});
    socket.write(
      'POST /v1/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n',
    );
    const chunk = `1000\r\n${'x'.repeat(4096)}\r\n`;
    const pump = setInterval(() => socket.writable && socket.write(chunk), 1);
    await closed;
    clearInterval(pump);
    expect(answer).toMatch(/^HTTP\/1\.1 413 /);
    expect(socket.bytesWritten).toBeLessThan(32 * 1024 * 1024);
  });

  it('a client that goes away in the middle of its body is nobody’s failure', async () => {
    const { deps, served } = await setup();
    const socket = connect(served.port, '127.0.0.1');
    socket.write(
      'POST /v1/verify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"cre',
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    socket.destroy();
    expect((await post(served, '/v1/verify', { credential: 'x' }, { caller: deps.adminKey })).status).toBe(
      200,
    );
    expect(served.reported).toEqual([]);
  });

  it('says nothing of a failure to the caller, and everything to the operator', async () => {
    const { deps } = await setup();
    const broken = {
      ...deps,
      store: {
        ...deps.store,
        get read(): never {
          throw new Error('secret detail at /srv/app.ts');
        },
      },
    };
    const served = await serve(broken);
    const { status, body } = await post(served, '/v1/verify', { credential: 'x' }, { caller: deps.adminKey });
    expect({ status, body }).toEqual({ status: 500, body: envelope('internal') });
    expect(JSON.stringify(body)).not.toContain('secret detail');
    expect(served.reported).toMatchObject([
      { code: 'internal', requestId: 'req_1', cause: { message: /secret detail/ } },
    ]);
  });

  it('answers unavailable, and never valid, while the database cannot be reached', async () => {
    const { deps, a, b, served } = await setup();
    const { body: minted } = await post(served, '/v1/m2m_tokens', {}, { caller: a.secret });
    const store = await openStore({ location: `postgres://127.0.0.1:${await freePort()}/gone` });
    onTestFinished(() => store.close());
    const cut = await serve({ ...deps, store });
    for (const [path, caller] of [
      ['/v1/verify', b.secret],
      ['/m2m_tokens', a.secret],
    ] as const) {
      const answer = await post(cut, path, { credential: minted['token'] }, { caller });
      expect(answer).toMatchObject({ status: 503, body: envelope('unavailable') });
    }
    expect(cut.reported).toMatchObject([{ code: 'unavailable' }, { code: 'unavailable' }]);
  });
});

/** Sends a body without saying beforehand how long it is; answers the status. */
function postChunked(served: Served, path: string, bytes: number): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(served.url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
    });
    request.on('response', (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on('error', reject);
    for (let sent = 0; sent < bytes; sent += 8192) request.write(' '.repeat(Math.min(8192, bytes - sent)));
    request.end();
  });
}
