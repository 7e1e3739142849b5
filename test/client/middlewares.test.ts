/** `countersign/express` and `countersign/fetch`, held to the same answers. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:net';
import express, { type Request as ExpressRequest } from 'express';
import { describe, expect, it, onTestFinished } from 'vitest';
import * as ofExpress from '../../client/express.ts';
import * as ofFetch from '../../client/fetch.ts';
import { CountersignError, createCountersign, type VerifyResult } from '../../client/index.ts';
import { createApiKey, createApiKeyInput, revokeApiKey } from '../../server/domain/api-keys.ts';
import { callerWith, openTestDeps } from '../support/deps.ts';
import { allow, newMachine } from '../support/machines.ts';
import { serveProcedures } from '../support/procedures.ts';

type Options = Omit<ofExpress.ProtectOptions<unknown>, 'ip'> & { ip?: () => string | undefined };
type Verify = ofExpress.CredentialVerifier['verify'];

const KEY: VerifyResult = {
  valid: true,
  kind: 'api_key',
  id: `ak_${'0'.repeat(32)}`,
  subject: 'user_1',
  name: 'ci',
  scopes: ['invoices:read'],
  claims: null,
  expiresAt: null,
};

const answering = (result: VerifyResult): ofExpress.CredentialVerifier => ({ verify: async () => result });
const refusing = (reason: Extract<VerifyResult, { valid: false }>['reason']) =>
  answering({ valid: false, reason });

interface Seen {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
  body: any;
}

/** Serves one protected route, and answers what asks it. The route shows whose request it was given. */
type Serve = (options: Options) => Promise<(headers?: Record<string, string>) => Promise<Seen>>;

const seenOf = async (response: Response): Promise<Seen> => ({
  status: response.status,
  headers: response.headers,
  body: await response.json(),
});

async function listening(app: Parameters<typeof createServer>[1]): Promise<string> {
  const server = createServer(app as never);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const SERVES: Record<string, Serve> = {
  async express(options) {
    const app = express();
    const route = ofExpress.protect<ExpressRequest>(options as ofExpress.ProtectOptions<ExpressRequest>);
    app.get('/', route, (request, response) => {
      response.json({
        auth: route.authOf(request) ?? null,
        same: (request as { auth?: unknown }).auth ?? null,
      });
    });
    const url = await listening(app as never);
    return async (headers = {}) => seenOf(await fetch(url, { headers }));
  },
  async fetch(options) {
    const route = ofFetch.protect(options as ofFetch.ProtectOptions<Request>);
    const handle = route.handle((_, auth) => Response.json({ auth: auth ?? null, same: auth ?? null }));
    return async (headers = {}) => seenOf(await handle(new Request('http://localhost/', { headers })));
  },
};

const bearer = (value: string) => ({ authorization: `Bearer ${value}` });

describe.each(Object.entries(SERVES))('countersign/%s', (_, serve) => {
  it('hands on whose request it is, and asks for what the options say', async () => {
    const asked: Parameters<Verify>[] = [];
    const verify: Verify = async (...given) => {
      asked.push(given);
      return KEY;
    };
    const options: Options = {
      verifier: { verify },
      kinds: ['api_key'],
      scopes: ['invoices:read'],
      audience: 'mch_1',
      cost: 3,
      ip: () => '192.0.2.7',
    };
    const ask = await serve(options);
    const { status, body } = await ask({ authorization: 'bearer   ak_x' });
    expect({ status, body }).toEqual({ status: 200, body: { auth: KEY, same: KEY } });
    expect(asked).toEqual([
      [
        'ak_x',
        {
          kinds: ['api_key'],
          scopes: ['invoices:read'],
          audience: 'mch_1',
          cost: 3,
          ip: '192.0.2.7',
          clientAddress: '192.0.2.7',
        },
      ],
    ]);
  });

  it('states no address unless it is told how to', async () => {
    const questions: unknown[] = [];
    const verify: Verify = async (__, question) => {
      questions.push(question);
      return KEY;
    };
    const ask = await serve({ verifier: { verify } });
    await ask({ ...bearer('ak_x'), 'x-forwarded-for': '192.0.2.7', forwarded: 'for=192.0.2.7' });
    expect(questions).toEqual([{}]);
  });

  it('challenges a request without a credential, and says of no error', async () => {
    const ask = await serve({
      verifier: answering(KEY),
      scopes: ['a', 'b'],
      realm: 'billing',
      resource: 'https://api.example.com/v1',
    });
    for (const headers of [{}, { authorization: 'Basic dTpw' }, { cookie: '__session=x' }]) {
      const { status, headers: answered, body } = await ask(headers as Record<string, string>);
      expect(status).toBe(401);
      expect(answered.get('www-authenticate')).toBe(
        'Bearer realm="billing", scope="a b", resource_metadata="https://api.example.com/.well-known/oauth-protected-resource/v1"',
      );
      expect(answered.get('cache-control')).toBe('no-store');
      expect(body).toEqual({ code: 'unauthenticated', message: 'Wanted a credential, found none' });
    }
  });

  it.each([
    ['two headers', { authorization: 'Bearer ak_x', 'x-api-key': 'ak_x' }],
    ['nothing behind its scheme', { authorization: 'Bearer' }],
    ['two words', { authorization: 'Bearer ak_x ak_y' }],
    ['an empty header', { 'x-api-key': '' }],
    ['two values in one header', { 'x-api-key': 'ak_x, ak_y' }],
  ])('answers 400 to %s, and verifies nothing', async (__, headers) => {
    const verify: Verify = () => expect.fail('Nothing is to be verified');
    const ask = await serve({ verifier: { verify }, header: 'X-API-Key', optional: true });
    const { status, headers: answered, body } = await ask(headers as Record<string, string>);
    expect({ status, code: body.code }).toEqual({ status: 400, code: 'invalid_input' });
    expect(answered.get('www-authenticate')).toMatch(
      /^Bearer realm="countersign", error="invalid_request", error_description="Wanted [^"]+"$/,
    );
  });

  it('takes a credential from the one header it was told of, and from no other', async () => {
    const ask = await serve({ verifier: answering(KEY), header: 'X-API-Key' });
    expect((await ask({ 'x-api-key': 'ak_x' })).status).toBe(200);
    expect((await ask({ 'x-other-key': 'ak_x' })).status).toBe(401);
    const bare = await serve({ verifier: answering(KEY) });
    expect((await bare({ 'x-api-key': 'ak_x' })).status).toBe(401);
  });

  it.each([
    ['malformed', 401, 'unauthenticated', 'invalid_token'],
    ['wrong_kind', 401, 'unauthenticated', 'invalid_token'],
    ['unknown', 401, 'unauthenticated', 'invalid_token'],
    ['audience_required', 401, 'unauthenticated', 'invalid_token'],
    ['wrong_audience', 401, 'unauthenticated', 'invalid_token'],
    ['revoked', 401, 'unauthenticated', 'invalid_token'],
    ['disabled', 401, 'unauthenticated', 'invalid_token'],
    ['expired', 401, 'unauthenticated', 'invalid_token'],
    ['proof_required', 401, 'unauthenticated', 'invalid_token'],
    ['ip_not_allowed', 403, 'forbidden', null],
    ['insufficient_scope', 403, 'forbidden', 'insufficient_scope'],
    ['rate_limited', 429, 'rate_limited', null],
    ['out_of_credits', 402, 'out_of_credits', null],
  ] as const)('answers %s with %i and the code %s', async (reason, wanted, code, error) => {
    const ask = await serve({ verifier: refusing(reason), scopes: ['invoices:read'] });
    const { status, headers, body } = await ask(bearer('ak_x'));
    expect({ status, body }).toEqual({ status: wanted, body: { code, reason, message: expect.any(String) } });
    const challenge = headers.get('www-authenticate');
    if (error === null) expect(challenge).toBeNull();
    else {
      expect(challenge).toContain(`error="${error}"`);
      expect(challenge).toContain('scope="invoices:read"');
    }
  });

  it('says when one that is limited may come again, in whole seconds', async () => {
    const verifier = answering({ valid: false, reason: 'rate_limited', retryAfterMs: 1200 } as VerifyResult);
    const { headers } = await (await serve({ verifier }))(bearer('ak_x'));
    expect(headers.get('retry-after')).toBe('2');
  });

  it.each([
    ['throws', () => Promise.reject(new CountersignError('network', 'secret detail'))],
    [
      'throws at once',
      () => {
        throw new Error('secret detail');
      },
    ],
    ['is refused itself', () => Promise.reject(new CountersignError('unauthenticated', 'secret detail'))],
    ['answers nothing', async () => undefined as never],
  ])('answers 503 where the verifier %s, also on optional routes', async (__, verify: Verify) => {
    const refusals: ofExpress.Refusal[] = [];
    const ask = await serve({
      verifier: { verify },
      optional: true,
      onRefusal: (refusal) => void refusals.push(refusal),
    });
    const { status, headers, body } = await ask(bearer('ak_x'));
    expect({ status, body }).toEqual({
      status: 503,
      body: { code: 'unavailable', message: 'Cannot verify the credential now' },
    });
    expect(headers.get('www-authenticate')).toBeNull();
    expect(refusals).toMatchObject([{ status: 503, cause: expect.anything() }]);
  });

  it('holds a verifier to what was asked of it', async () => {
    const kinds = await serve({ verifier: answering(KEY), kinds: ['m2m_token'] });
    expect(await kinds(bearer('ak_x'))).toMatchObject({ status: 401, body: { reason: 'wrong_kind' } });
    const scopes = await serve({ verifier: answering(KEY), scopes: ['invoices:write'] });
    expect(await scopes(bearer('ak_x'))).toMatchObject({
      status: 403,
      body: { reason: 'insufficient_scope' },
    });
    const untrue = await serve({ verifier: answering({ ...KEY, valid: 1 } as never) });
    expect((await untrue(bearer('ak_x'))).status).toBe(401);
  });

  it('lets the anonymous pass where that is allowed, and refuses an invalid credential there too', async () => {
    const ask = await serve({ verifier: refusing('revoked'), optional: true });
    expect(await ask()).toMatchObject({ status: 200, body: { auth: null, same: null } });
    expect(await ask(bearer('ak_x'))).toMatchObject({ status: 401, body: { reason: 'revoked' } });
  });

  it('leaves to others what is not ours', async () => {
    const verify: Verify = () => expect.fail('Nothing is to be verified');
    const isOurs = (value: string) => value.startsWith('ak_');
    const open = await serve({ verifier: { verify }, optional: true, isOurs });
    expect(await open(bearer('eyJ'))).toMatchObject({ status: 200, body: { auth: null } });
    const closed = await serve({ verifier: { verify }, isOurs });
    expect((await closed(bearer('eyJ'))).status).toBe(401);
  });

  it('tells the service more of a refusal than the client, and refuses though the log fails', async () => {
    const refusals: ofExpress.Refusal[] = [];
    const verifier = answering({
      valid: false,
      reason: 'revoked',
      id: KEY.id,
      subject: 'user_1',
    } as VerifyResult);
    const ask = await serve({
      verifier,
      onRefusal(refusal) {
        refusals.push(refusal);
        throw new Error('The log is full');
      },
    });
    const { status, body } = await ask(bearer('ak_x'));
    expect(status).toBe(401);
    expect(JSON.stringify(body)).not.toMatch(/user_1|ak_0/);
    expect(refusals).toEqual([
      expect.objectContaining({ status: 401, reason: 'revoked', id: KEY.id, subject: 'user_1' }),
    ]);
  });

  it.each([
    ['realm', { realm: 'a"b' }],
    ['realm', { realm: 'a\nb' }],
    ['scopes', { scopes: ['a\\'] }],
    ['resource', { resource: 'example.com' }],
    ['resource', { resource: 'https://example.com/?a' }],
  ])('refuses a %s that no challenge can hold, when it is set up', async (field, options) => {
    await expect(serve({ verifier: answering(KEY), ...options })).rejects.toMatchObject({
      code: 'invalid_input',
      field,
    });
  });

  it('asks a running server by a client, with its own secret', async () => {
    const deps = await openTestDeps('sqlite');
    const { url } = await serveProcedures(deps);
    const ledger = await newMachine(deps, 'ledger', { mayVerify: true });
    const billing = await newMachine(deps, 'billing');
    await allow(deps, billing.id, ledger.id, ['entries:write']);
    const admin = callerWith('admin');
    const key = await createApiKey(deps, admin, createApiKeyInput.parse({ name: 'ci', subject: 'user_1' }));
    const { token = '' } = await createCountersign({
      url,
      machineSecretKey: billing.secret,
    }).m2mTokens.create();
    const verifier = ofExpress.clientVerifier(createCountersign({ url, machineSecretKey: ledger.secret }));
    const ask = await serve({ verifier, ip: () => '192.0.2.7' });
    expect(await ask(bearer(token))).toMatchObject({
      status: 200,
      body: { auth: { machineId: billing.id } },
    });
    expect(await ask(bearer(key.secret ?? ''))).toMatchObject({ body: { auth: { subject: 'user_1' } } });
    await revokeApiKey(deps, admin, { id: key.id, reason: 'compromised' });
    expect(await ask(bearer(key.secret ?? ''))).toMatchObject({ status: 401, body: { reason: 'revoked' } });
  });
});

describe('countersign/express', () => {
  it.each(['Bearer a', 'Basic dTpw'])('sees an Authorization header that Node hides, %s', async (other) => {
    const app = express();
    app.get('/', ofExpress.protect({ verifier: answering(KEY) }), (_, response) => {
      response.json({});
    });
    const { port } = new URL(await listening(app as never));
    for (const [first, second] of [
      ['Bearer ak_x', other],
      [other, 'Bearer ak_x'],
    ]) {
      const socket = connect(Number(port), '127.0.0.1');
      socket.write(`GET / HTTP/1.1\r\nHost: a\r\nAuthorization: ${first}\r\n`);
      socket.end(`Authorization: ${second}\r\nConnection: close\r\n\r\n`);
      let answered = '';
      for await (const chunk of socket) answered += chunk;
      expect(answered).toMatch(/^HTTP\/1\.1 400 /);
    }
  });

  it('leaves what a handler throws to the error handler, and calls no handler twice', async () => {
    const app = express();
    let calls = 0;
    app.get('/', ofExpress.protect({ verifier: answering(KEY) }), () => {
      calls++;
      throw new Error('handler');
    });
    const onError: express.ErrorRequestHandler = (error, _, response, __) => {
      response.status(418).json({ message: error.message });
    };
    app.use(onError);
    const url = await listening(app as never);
    const response = await fetch(url, { headers: bearer('ak_x') });
    expect([response.status, await response.json(), calls]).toEqual([418, { message: 'handler' }, 1]);
  });

  it('answers for nothing that did not pass it', () => {
    const route = ofExpress.protect({ verifier: answering(KEY) });
    expect(() => route.authOf({ auth: KEY })).toThrowError(/did not pass/);
  });

  it('types the request by the kinds, and takes the address as Express knows it', () => {
    const route = ofExpress.protect({
      verifier: answering(KEY),
      kinds: ['m2m_token'],
      ip: (request: ExpressRequest) => request.ip,
    });
    const machineOf = (request: ExpressRequest): string => route.authOf(request).machineId;
    const open = ofExpress.protect({ verifier: answering(KEY), kinds: ['api_key'], optional: true });
    const nameOf = (request: ExpressRequest): string | undefined => open.authOf(request)?.name;
    expect([machineOf, nameOf]).toHaveLength(2);
  });
});

describe('the metadata of a protected resource', () => {
  const options = {
    resource: 'https://api.example.com/v1',
    authorizationServers: ['https://auth.example.com'],
    scopes: ['invoices:read'],
    name: 'Invoices',
    documentation: 'https://example.com/docs',
  };
  const document = {
    resource: 'https://api.example.com/v1',
    authorization_servers: ['https://auth.example.com'],
    scopes_supported: ['invoices:read'],
    bearer_methods_supported: ['header'],
    resource_name: 'Invoices',
    resource_documentation: 'https://example.com/docs',
  };
  const path = '/.well-known/oauth-protected-resource/v1';

  it('is served by Express to everybody, and nothing else is', async () => {
    const app = express().use(ofExpress.protectedResourceMetadata(options));
    const url = await listening(app as never);
    const response = await fetch(`${url}${path}?a=b`);
    expect(await response.json()).toEqual(document);
    expect(response.headers.get('access-control-allow-origin')).toBe('*');
    const others = [
      fetch(`${url}/.well-known/oauth-protected-resource`),
      fetch(`${url}${path}`, { method: 'POST' }),
    ];
    expect((await Promise.all(others)).map(({ status }) => status)).toEqual([404, 404]);
    expect((await fetch(`${url}${path}`, { method: 'HEAD' })).status).toBe(200);
  });

  it('is answered to a Request, and null to every other', async () => {
    const metadata = ofFetch.protectedResourceMetadata(options);
    expect(await metadata(new Request(`https://inner${path}`))?.json()).toEqual(document);
    expect(metadata(new Request('https://inner/'))).toBeNull();
    const root = ofFetch.protectedResourceMetadata({ ...options, resource: 'https://api.example.com' });
    expect(root(new Request('https://inner/.well-known/oauth-protected-resource'))).not.toBeNull();
  });
});
