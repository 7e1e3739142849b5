import { inspect } from 'node:util';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { CountersignError, createCountersign } from '../../client/index.ts';
import { PROCEDURES } from '../../client/procedures.ts';
import { ACCESS } from '../../server/access.ts';
import { appRouter } from '../../server/trpc/router.ts';
import { openTestDeps } from '../support/deps.ts';
import { listen, serveProcedures } from '../support/procedures.ts';

const SECRET_KEY = `sk_${'A'.repeat(49)}`;
const MACHINE_SECRET_KEY = `msk_${'B'.repeat(49)}`;
const MACHINE_ID = `mch_${'0'.repeat(27)}`;

const refusalOf = async (call: Promise<unknown>): Promise<CountersignError> => {
  const thrown = await call.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(CountersignError);
  return thrown as CountersignError;
};

const json =
  (status: number, body: unknown): Parameters<typeof listen>[0] =>
  (_, response) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  };

/** Stands where a server's error would, in the envelope of `/v1`. */
const envelope = (code: string, message = 'no') => ({
  errors: [{ code, message, long_message: message, meta: {} }],
  clerk_trace_id: 'req_7',
});

describe('the table of procedures', () => {
  it('names every procedure with its type, and as repeatable what is a query or says that it is idempotent', () => {
    const FASTER = ['m2mTokens.create', 'credentials.verify', 'credentials.verifyBatch'];
    const procedures = appRouter._def.procedures as unknown as Record<
      string,
      { _def: { type: string; meta?: { idempotent?: boolean } } }
    >;
    const expected = Object.fromEntries(
      Object.entries(procedures)
        .filter(([path]) => !FASTER.includes(path))
        .map(([path, { _def }]) => [
          path,
          { type: _def.type, repeatable: _def.type === 'query' || _def.meta?.idempotent === true },
        ]),
    );
    expect(PROCEDURES).toEqual(expected);
    expect([...Object.keys(PROCEDURES), ...FASTER].sort()).toEqual(Object.keys(ACCESS).sort());
  });

  it('repeats nothing that a second time would make another, or take along what was made in between', () => {
    const repeated = Object.entries(PROCEDURES)
      .filter(([, { type, repeatable }]) => type === 'mutation' && repeatable)
      .map(([path]) => path.split('.')[1]);
    expect(repeated.filter((verb) => /^(create|rotate|revokeAll|delete)/.test(verb ?? ''))).toEqual([]);
    expect(repeated).toContain('revoke');
  });
});

describe('createCountersign()', () => {
  const create = (options: Parameters<typeof createCountersign>[0]) => () => createCountersign(options);

  it.each(['http://example.com', 'http://127.0.0.1.example.com', 'http://10.0.0.1:4400', 'ftp://127.0.0.1'])(
    'refuses %s, over which a key would travel in the clear',
    (url) => {
      expect(create({ url, secretKey: SECRET_KEY })).toThrow(/must be https, or http on loopback/);
    },
  );

  it.each(['https://example.com/auth', 'http://localhost:4400', 'http://127.8.9.1', 'http://[::1]:4400'])(
    'takes %s',
    (url) => {
      expect(create({ url, secretKey: SECRET_KEY })).not.toThrow();
    },
  );

  it('refuses two keys, no key, and the wrong kind of key, and tells none', () => {
    const url = 'http://127.0.0.1:1';
    const refused = [
      { url, secretKey: SECRET_KEY, machineSecretKey: MACHINE_SECRET_KEY },
      { url },
      { url, secretKey: MACHINE_SECRET_KEY },
      { url, machineSecretKey: SECRET_KEY },
      { url, secretKey: `${SECRET_KEY}\n` },
      { url: `http://user:${SECRET_KEY}@127.0.0.1`, secretKey: SECRET_KEY },
      { url: SECRET_KEY, secretKey: SECRET_KEY },
    ];
    for (const options of refused) {
      const error = (() => {
        try {
          return createCountersign(options);
        } catch (thrown) {
          return thrown;
        }
      })();
      expect(error).toMatchObject({ code: 'invalid_input' });
      expect(inspect(error)).not.toMatch(/AAAA|BBBB/);
    }
  });

  it('takes what is not given from the environment, and a given key over it', async () => {
    const server = await listen((request, response) => {
      json(200, { valid: false, reason: request.headers.authorization })(request, response);
    });
    onTestFinished(() => {
      vi.unstubAllEnvs();
    });
    vi.stubEnv('COUNTERSIGN_URL', server.url);
    vi.stubEnv('COUNTERSIGN_MACHINE_SECRET_KEY', MACHINE_SECRET_KEY);
    const reasonOf = async (countersign: ReturnType<typeof createCountersign>) =>
      JSON.stringify(await countersign.verify({ credential: 'x' }));
    expect(await reasonOf(createCountersign())).toContain(`Bearer ${MACHINE_SECRET_KEY}`);
    expect(await reasonOf(createCountersign({ secretKey: SECRET_KEY }))).toContain(`Bearer ${SECRET_KEY}`);
    vi.stubEnv('COUNTERSIGN_SECRET_KEY', SECRET_KEY);
    expect(create({})).toThrow(/found both/);
  });

  it('shows no key of its own, however it is printed', () => {
    const countersign = createCountersign({ url: 'https://example.com', secretKey: SECRET_KEY });
    expect(inspect(countersign, { depth: 9, showHidden: true })).not.toContain('AAAA');
  });
});

describe('a procedure', () => {
  it('answers what the server answers, with its codes, request ids and fields for refusals', async () => {
    const deps = await openTestDeps('sqlite');
    const { url } = await serveProcedures(deps);
    const countersign = createCountersign({ url, secretKey: deps.adminKey });
    const created = await countersign.machines.create({ name: 'billing' });
    expect(created).toMatchObject({ name: 'billing', secret: expect.stringMatching(/^msk_/) });
    expect((await countersign.machines.list()).data).toMatchObject([{ id: created.id }]);
    expect(await refusalOf(countersign.machines.create({ name: 'billing' }))).toMatchObject({
      code: 'name_taken',
      status: 409,
      field: 'name',
      requestId: expect.stringMatching(/^req_/),
      retryable: false,
    });
    expect(await refusalOf(countersign.machines.get({ id: MACHINE_ID }))).toMatchObject({
      code: 'not_found',
    });
    expect(await refusalOf(countersign.machines.get({ id: 'mch_' }))).toMatchObject({
      code: 'invalid_input',
      field: 'id',
    });
    const stranger = createCountersign({ url, secretKey: SECRET_KEY });
    expect(await refusalOf(stranger.machines.list())).toMatchObject({ code: 'unauthenticated', status: 401 });
  });

  it('travels with others made at the same time, at most 50 in a request, its input in no URL', async () => {
    const deps = await openTestDeps('sqlite');
    const { url, paths } = await serveProcedures(deps);
    const countersign = createCountersign({ url, secretKey: deps.adminKey });
    const created = await Promise.all(
      Array.from({ length: 60 }, (_, index) => countersign.machines.create({ name: `machine ${index}` })),
    );
    const found = await Promise.all(created.map(({ id }) => countersign.machines.get({ id })));
    expect(found.map(({ name }) => name)).toEqual(created.map(({ name }) => name));
    expect(paths.map((path) => path.split(',').length)).toEqual([50, 10, 50, 10]);
    expect(paths.join()).not.toMatch(/input|mch_/);
  });

  it('fails alone: others of its batch are answered', async () => {
    const deps = await openTestDeps('sqlite');
    const { url } = await serveProcedures(deps);
    const countersign = createCountersign({ url, secretKey: deps.adminKey });
    const [list, missing] = await Promise.allSettled([
      countersign.machines.list(),
      countersign.machines.get({ id: MACHINE_ID }),
    ]);
    expect(list).toMatchObject({ status: 'fulfilled', value: { data: [] } });
    expect(missing).toMatchObject({ status: 'rejected', reason: { code: 'not_found' } });
  });
});

describe('the fast way', () => {
  it('mints and verifies M2M tokens, with the answers that the procedures give', async () => {
    const deps = await openTestDeps('sqlite');
    const { url, paths } = await serveProcedures(deps);
    const admin = createCountersign({ url, secretKey: deps.adminKey });
    const billing = await admin.machines.create({ name: 'billing' });
    const ledger = await admin.machines.create({ name: 'ledger' });
    await admin.machineScopes.create({
      fromMachineId: billing.id,
      toMachineId: ledger.id,
      scopes: ['entries:write'],
    });
    const asBilling = createCountersign({ url, machineSecretKey: billing.secret });
    const asLedger = createCountersign({ url, machineSecretKey: ledger.secret });

    for (const format of ['opaque', 'jwt'] as const) {
      const minted = await asBilling.m2mTokens.create({
        format,
        audience: [ledger.id],
        scopes: ['entries:write'],
        claims: { tenant: 7 },
        ttlSeconds: 60,
      });
      const { token: credential = '', ...shown } = minted;
      expect(await admin.m2mTokens.get({ id: minted.id })).toEqual(shown);
      expect(await asLedger.verify({ credential, scopes: ['entries:write'] })).toMatchObject({
        valid: true,
        kind: 'm2m_token',
        id: minted.id,
        subject: billing.id,
        claims: { tenant: 7 },
      });
      await admin.m2mTokens.revoke({ id: minted.id });
      expect(await asLedger.verifyBatch([{ credential }, { credential: 'x' }])).toMatchObject([
        { valid: false, reason: 'revoked' },
        { valid: false, reason: 'malformed' },
      ]);
    }
    expect(paths).toContain('/v1/m2m_tokens');
    expect(paths).toContain('/v1/verify');
    expect(paths.join()).not.toContain('m2mTokens.create');
  });

  it('hands out a token again where enough of its life remains', async () => {
    const deps = await openTestDeps('sqlite');
    const { url } = await serveProcedures(deps);
    const admin = createCountersign({ url, secretKey: deps.adminKey });
    const { secret: machineSecretKey } = await admin.machines.create({ name: 'billing' });
    const machine = createCountersign({ url, machineSecretKey });
    const first = await machine.m2mTokens.create({ minRemainingTtlSeconds: 60 });
    expect(await machine.m2mTokens.create({ minRemainingTtlSeconds: 60 })).toEqual(first);
    expect((await machine.m2mTokens.create()).id).not.toBe(first.id);
  });

  it('mints once for one idempotency key, and answers it again without its value', async () => {
    const deps = await openTestDeps('sqlite');
    const { url, paths } = await serveProcedures(deps);
    const admin = createCountersign({ url, secretKey: deps.adminKey });
    const { secret: machineSecretKey } = await admin.machines.create({ name: 'billing' });
    for (const options of [{}, { fetch }]) {
      const machine = createCountersign({ url, machineSecretKey, ...options });
      const idempotencyKey = `order-${paths.length}`;
      const { token, ...shown } = await machine.m2mTokens.create({ idempotencyKey });
      expect(token).toMatch(/^mt_/);
      expect(await machine.m2mTokens.create({ idempotencyKey })).toStrictEqual(shown);
      expect(await refusalOf(machine.m2mTokens.create({ idempotencyKey, ttlSeconds: 60 }))).toMatchObject({
        code: 'idempotency_conflict',
        field: 'idempotencyKey',
        message: expect.stringContaining("'idempotencyKey'"),
      });
      const sent = paths.length;
      for (const unfit of ['', 'two words', 'a\nb: c', 'x'.repeat(256)]) {
        expect(await refusalOf(machine.m2mTokens.create({ idempotencyKey: unfit }))).toMatchObject({
          code: 'invalid_input',
          field: 'idempotencyKey',
        });
      }
      expect(paths).toHaveLength(sent);
    }
  });

  it('refuses with the codes, fields and request ids that the procedures refuse with', async () => {
    const deps = await openTestDeps('sqlite');
    const { url } = await serveProcedures(deps);
    const admin = createCountersign({ url, secretKey: deps.adminKey });
    expect(await refusalOf(admin.m2mTokens.create())).toMatchObject({ code: 'forbidden', status: 403 });
    expect(await refusalOf(admin.verify({ credential: '' }))).toMatchObject({
      code: 'invalid_input',
      field: 'credential',
      requestId: expect.stringMatching(/^req_/),
    });
    const { secret: machineSecretKey } = await admin.machines.create({ name: 'billing' });
    const machine = createCountersign({ url, machineSecretKey });
    expect(await refusalOf(machine.m2mTokens.create({ ttlSeconds: 315_360_000 }))).toMatchObject({
      code: 'invalid_input',
      field: 'ttlSeconds',
      message: expect.stringContaining("'ttlSeconds' must be at most 2592000"),
    });
    const { secret: slowSecret } = await admin.machines.create({ name: 'ledger', mintsPerMinuteMax: 1 });
    const slow = createCountersign({ url, machineSecretKey: slowSecret });
    await slow.m2mTokens.create();
    expect(await refusalOf(slow.m2mTokens.create())).toMatchObject({
      code: 'rate_limited',
      status: 429,
      retryAfterMs: 60_000,
      retryable: true,
    });
    const stranger = createCountersign({ url, secretKey: SECRET_KEY });
    expect(await refusalOf(stranger.verify({ credential: 'x' }))).toMatchObject({ code: 'unauthenticated' });
  });
});

describe('a failure', () => {
  const queryAt = (url: string, options = {}) =>
    createCountersign({ url, secretKey: SECRET_KEY, ...options }).machines.list();
  const mutationAt = (url: string, options = {}) =>
    createCountersign({ url, secretKey: SECRET_KEY, ...options }).machines.create({ name: 'x' });
  const namedAt = (url: string, options = {}) =>
    createCountersign({ url, secretKey: SECRET_KEY, ...options }).machines.create({
      name: 'x',
      idempotencyKey: 'order-1',
    });
  const mintAt = (url: string, options = {}) =>
    createCountersign({ url, machineSecretKey: MACHINE_SECRET_KEY, ...options }).m2mTokens.create();
  const namedMintAt = (url: string, options = {}) =>
    createCountersign({ url, machineSecretKey: MACHINE_SECRET_KEY, ...options }).m2mTokens.create({
      idempotencyKey: 'order-1',
    });
  const verifyAt = (url: string, options = {}) =>
    createCountersign({ url, secretKey: SECRET_KEY, ...options }).verify({ credential: 'x' });

  it('of the connection is `network`, and sent again only where a call may be repeated', async () => {
    const server = await listen((request) => request.socket.destroy());
    const calls = {
      query: queryAt,
      verify: verifyAt,
      mutation: mutationAt,
      namedMutation: namedAt,
      mint: mintAt,
      namedMint: namedMintAt,
    };
    const sent: Record<string, number> = {};
    for (const [name, call] of Object.entries(calls)) {
      const before = server.paths.length;
      expect(await refusalOf(call(server.url))).toMatchObject({
        code: 'network',
        status: 0,
        retryable: true,
      });
      sent[name] = server.paths.length - before;
    }
    expect(sent).toEqual({ query: 3, verify: 3, mutation: 1, namedMutation: 3, mint: 1, namedMint: 3 });
  });

  it('that passes is not seen by the caller', async () => {
    let asked = 0;
    const server = await listen((request, response) => {
      asked++;
      if (asked === 1) request.socket.destroy();
      else if (asked === 2) json(503, envelope('unavailable'))(request, response);
      else json(200, { valid: false, reason: 'unknown' })(request, response);
    });
    expect(await verifyAt(server.url)).toEqual({ valid: false, reason: 'unknown' });
    expect(asked).toBe(3);
  });

  it('that does not pass is told at once', async () => {
    const server = await listen(json(403, envelope('forbidden', 'You may not')));
    expect(await refusalOf(verifyAt(server.url))).toMatchObject({
      code: 'forbidden',
      message: 'You may not',
      requestId: 'req_7',
      retryable: false,
    });
    expect(server.paths).toHaveLength(1);
  });

  it('for having asked too often is told at once, with the wait, also by a server with newer codes', async () => {
    for (const code of ['rate_limited', 'address_rate_limited']) {
      const [error] = envelope(code, 'Too often').errors;
      const body = { errors: [{ ...error, meta: { retry_after_ms: 1_500 } }], clerk_trace_id: 'req_7' };
      const server = await listen(json(429, body));
      expect(await refusalOf(verifyAt(server.url))).toMatchObject({
        code: 'rate_limited',
        message: 'Too often',
        retryAfterMs: 1_500,
        retryable: true,
      });
      expect(server.paths).toHaveLength(1);
    }
  });

  it('of a silent server is `timeout` for the whole call, whatever is sent again within', async () => {
    const server = await listen(() => {});
    for (const call of [queryAt, verifyAt, mutationAt]) {
      expect(await refusalOf(call(server.url, { timeoutMs: 400 }))).toMatchObject({
        code: 'timeout',
        message: expect.stringContaining('within 400 ms'),
      });
    }
    expect(server.paths.filter((path) => path.includes('machines.create'))).toHaveLength(1);
    expect(server.paths.filter((path) => path.includes('verify')).length).toBeGreaterThan(1);
  });

  it.each([
    ['a page', 200, '<html>Sign in to the network</html>'],
    ['another JSON', 200, '{"ok":true}'],
    ['a proxy that found nobody', 502, 'Bad Gateway'],
    ['no result', 200, '[]'],
    ['the word valid', 200, '{"valid":"true"}'],
  ])("by a stranger's answer, %s, is `network` and never a result", async (_, status, body) => {
    const server = await listen((_, response) => void response.writeHead(status).end(body));
    for (const call of [queryAt, verifyAt, mutationAt]) {
      expect(await refusalOf(call(server.url, { retries: 0 }))).toMatchObject({ code: 'network' });
    }
  });

  it('by redirection is `network`: a credential is sent nowhere else', async () => {
    const elsewhere = await listen(json(200, { valid: true }));
    const server = await listen((_, response) => {
      response.writeHead(307, { location: `${elsewhere.url}/v1/verify` }).end();
    });
    for (const options of [{}, { fetch }]) {
      const call = verifyAt(server.url, { retries: 0, ...options });
      expect(await refusalOf(call)).toMatchObject({ code: 'network' });
    }
    expect(elsewhere.paths).toEqual([]);
  });

  it("with a code of a later server's becomes the one of its status", async () => {
    const server = await listen(json(403, envelope('moon_phase')));
    expect(await refusalOf(verifyAt(server.url))).toMatchObject({ code: 'forbidden' });
  });

  it("by the caller's own signal throws that signal's reason and ends the request", async () => {
    let closed = (_: unknown) => {};
    const gone = new Promise((resolve) => {
      closed = resolve;
    });
    const arrived = new AbortController();
    const server = await listen((_, response) => {
      response.on('close', closed);
      arrived.abort(new Error('enough'));
    });
    const countersign = createCountersign({ url: server.url, secretKey: SECRET_KEY });
    await expect(countersign.verify({ credential: 'x' }, { signal: arrived.signal })).rejects.toThrow(
      'enough',
    );
    await gone;
    await expect(countersign.machines.list({}, { signal: arrived.signal })).rejects.toThrow('enough');
    expect(server.paths).toHaveLength(1);
  });

  it('holds no key, however it is printed', async () => {
    const server = await listen((request) => request.socket.destroy());
    for (const options of [{}, { fetch }]) {
      for (const call of [queryAt, verifyAt, mutationAt]) {
        const error = await refusalOf(call(server.url, { retries: 0, ...options }));
        expect(inspect(error, { depth: 9, showHidden: true })).not.toContain('AAAA');
      }
    }
  });
});
