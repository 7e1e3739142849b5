import { beforeEach, describe, expect, it } from 'vitest';
import { openTestDeps, type TestDeps } from '../../support/deps.ts';
import { type AskOptions, type ServedRest, serveRest } from '../../support/rest.ts';

let deps: TestDeps;
let served: ServedRest;

beforeEach(async () => {
  deps = await openTestDeps('sqlite');
  served = await serveRest(deps);
});

/** Asks with the admin key. */
const ask = (method: string, path: string, body?: unknown, options: AskOptions = {}) =>
  served.ask(method, path, { credential: deps.adminKey, body, ...options });

const newMachine = async (name: string) => (await ask('POST', '/v1/machines', { name })).body;

describe('a route of the table', () => {
  it('answers exactly application/json, which nobody may keep', async () => {
    const { headers } = await ask('GET', '/v1/machines');
    expect(headers.get('content-type')).toBe('application/json');
    expect(headers.get('cache-control')).toBe('no-store');
    expect(headers.get('x-request-id')).toBe('req_test');
  });

  it('is the same with the version in its path and without', async () => {
    const { id } = await newMachine('billing');
    const versioned = await ask('GET', `/v1/machines/${id}`);
    expect(await ask('GET', `/machines/${id}`)).toMatchObject({ status: 200, body: versioned.body });
  });

  it('refuses bodies that are not JSON, not an object, or too large, and does without one where nothing must be in it', async () => {
    const { id } = await newMachine('billing');
    const typed = (type: string) =>
      ask('POST', '/v1/machines', '{"name":"x"}', { headers: { 'content-type': type } });
    expect((await typed('text/plain')).status).toBe(415);
    expect((await typed('application/x-www-form-urlencoded')).status).toBe(415);
    expect((await typed('application/json; charset=utf-8')).status).toBe(200);
    expect((await ask('POST', '/v1/machines', '[]')).body.errors[0].code).toBe('invalid_input');
    expect((await ask('POST', '/v1/machines', '{')).body.errors[0].code).toBe('malformed_json');
    expect((await ask('POST', '/v1/machines', { name: 'x'.repeat(70_000) })).status).toBe(413);
    expect((await ask('POST', `/v1/machines/${id}/disable`)).body).toMatchObject({ enabled: false });
  });

  it('takes HEAD where it takes GET, and tells of other methods which there are', async () => {
    const { id } = await newMachine('billing');
    const head = await ask('HEAD', `/v1/machines/${id}`);
    expect(head).toMatchObject({ status: 200, body: '' });
    const put = await ask('PUT', `/v1/machines/${id}`, {});
    expect(put.status).toBe(405);
    expect(put.headers.get('allow')).toBe('GET, HEAD, PATCH, DELETE');
    expect((await ask('GET', '/m2m_tokens/verify')).headers.get('allow')).toBe('POST');
  });

  it('says nothing of an input to whoever may not call it', async () => {
    for (const [method, path, body] of [
      ['POST', '/v1/machines', '{'],
      ['POST', '/v1/machines', { nope: 1 }],
      ['GET', '/v1/machines?nope=1', undefined],
      ['GET', '/v1/machines/%ff', undefined],
    ] as const)
      expect(await ask(method, path, body, { credential: undefined })).toMatchObject({
        status: 401,
        body: { errors: [{ code: 'clerk_key_invalid', meta: { countersign_code: 'unauthenticated' } }] },
      });
  });

  it.each([
    ['limit=0', 'limit'],
    ['limit=1.5', 'limit'],
    ['limit=ten', 'limit'],
    ['limit=1&limit=2', 'limit'],
    ['offset=-1', 'offset'],
    ['order_by=age', 'order_by'],
    ['orderBy=name', 'orderBy'],
    ['page=1', 'page'],
  ])('refuses the query %s, and names the parameter', async (query, parameter) => {
    expect(await ask('GET', `/v1/machines?${query}`)).toMatchObject({
      status: 400,
      body: { errors: [{ code: 'invalid_input', meta: { param_name: parameter } }] },
    });
  });

  it('takes a plus in a query for what it was before it was not encoded', async () => {
    for (const name of ['b', 'a']) await newMachine(name);
    for (const order of ['+name', '%2Bname', 'name']) {
      const { body } = await ask('GET', `/v1/machines?order_by=${order}`);
      expect(body.data.map(({ name }: { name: string }) => name)).toEqual(['a', 'b']);
    }
  });

  it.each([
    [{ name: 'x', maxTokenTtlSeconds: 5 }, 'maxTokenTtlSeconds'],
    [{ name: 'x', id: 'mch_1' }, 'id'],
    [{ name: 'x', default_token_ttl: 0 }, 'default_token_ttl'],
    [{ name: 'x', default_token_ttl: 10, max_token_ttl: 5 }, 'default_token_ttl'],
    [{ name: 'x', rotation: { period_seconds: 1 } }, 'rotation.period_seconds'],
    [{ name: 'x', 'Idempotency-Key': 'k' }, 'Idempotency-Key'],
  ])('refuses %j in the names of the wire', async (body, parameter) => {
    const { status, body: told } = await ask('POST', '/v1/machines', body);
    expect(status).toBe(400);
    expect(told.errors[0]).toMatchObject({ code: 'invalid_input', meta: { param_name: parameter } });
    expect(told.errors[0].long_message).toContain(`'${parameter}'`);
  });

  it('refuses in a body what its path names', async () => {
    const { id } = await newMachine('billing');
    expect((await ask('PATCH', `/v1/machines/${id}`, { id })).status).toBe(400);
  });

  it('makes one thing for one idempotency key, and answers its secret once', async () => {
    const headers = { 'idempotency-key': 'k1' };
    const first = await ask('POST', '/v1/machines', { name: 'billing' }, { headers });
    const again = await ask('POST', '/v1/machines', { name: 'billing' }, { headers });
    expect(again.body.id).toBe(first.body.id);
    expect(first.body.secret_key).toMatch(/^msk_/);
    expect(again.body).not.toHaveProperty('secret_key');
    const other = await ask('POST', '/v1/machines', { name: 'ledger' }, { headers });
    expect(other).toMatchObject({ status: 409, body: { errors: [{ code: 'idempotency_conflict' }] } });
  });
});

describe("verifying on Clerk's paths", () => {
  it('takes the value as token or as secret, one of the two', async () => {
    const ledger = await newMachine('ledger');
    const { body: billing } = await ask('POST', '/v1/machines', {
      name: 'billing',
      scoped_machines: [ledger.id],
    });
    const minted = await served.ask('POST', '/m2m_tokens', { credential: billing.secret_key, body: {} });
    const { token } = minted.body;
    for (const path of ['/m2m_tokens/verify', '/v1/m2m_tokens/verify'])
      for (const body of [{ token }, { secret: token }])
        expect(await ask('POST', path, body)).toMatchObject({ status: 200, body: { id: minted.body.id } });
    for (const body of [{}, { token, secret: token }, { token: '' }, { token: 'x'.repeat(16_385) }])
      expect((await ask('POST', '/m2m_tokens/verify', body)).status).toBe(400);
  });

  it('finds no other kind of credential, and nothing with a limit that is used up', async () => {
    const { body: key } = await ask('POST', '/v1/api_keys', {
      name: 'export',
      subject: 'user_1',
      rate_limit: { count: 1, window_seconds: 60 },
    });
    expect((await ask('POST', '/m2m_tokens/verify', { token: key.secret })).status).toBe(404);
    expect((await ask('POST', '/api_keys/verify', { secret: key.secret })).status).toBe(200);
    expect((await ask('POST', '/api_keys/verify', { secret: key.secret })).status).toBe(404);
  });

  it('verifies API keys only to machines that may', async () => {
    const { body: key } = await ask('POST', '/v1/api_keys', { name: 'export', subject: 'user_1' });
    const plain = await newMachine('plain');
    const { body: gateway } = await ask('POST', '/v1/machines', { name: 'gateway', may_verify: true });
    const verifyAs = async (credential: string) =>
      (await served.ask('POST', '/api_keys/verify', { credential, body: { secret: key.secret } })).status;
    expect(await verifyAs(plain.secret_key)).toBe(404);
    expect(await verifyAs(gateway.secret_key)).toBe(200);
  });
});
