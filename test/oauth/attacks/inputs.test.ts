/** What is sent to wear the server out, to break it, or to learn from how long it takes. */
import { connect } from 'node:net';
import fc from 'fast-check';
import { beforeEach, expect, it, vi } from 'vitest';
import { PREFIXES } from '../../../server/crypto/format.ts';
import { newValue } from '../../../server/crypto/hashing.ts';
import {
  allow,
  answeredBy,
  authorizeParams,
  basic,
  challengeOf,
  clientOf,
  formOf,
  type ServedOauth,
  serveOauth,
  type TestApplication,
} from '../../support/authorization-server.ts';
import { describeOnEachDialect, type TestDeps } from '../../support/deps.ts';
import { newMachine } from '../../support/machines.ts';
import { send } from '../../support/server.ts';

const ENDPOINTS = [
  '/oauth/token',
  '/oauth/introspect',
  '/oauth/revoke',
  '/oauth/userinfo',
  '/oauth/authorize',
];

/** The text of every statement that reads from now on: of those prepared once, if nobody did before, at each execution. */
function readingOf({ store: { read } }: TestDeps): string[] {
  const texts: string[] = [];
  const prepare = read.prepare;
  vi.spyOn(read, 'prepare').mockImplementation((name, text) => {
    const run = prepare(name, text);
    return (values) => {
      texts.push(text);
      return run(values);
    };
  });
  const { session } = read.db as unknown as { session: { prepareQuery(query: { sql: string }): unknown } };
  const prepareQuery = session.prepareQuery.bind(session) as (...all: unknown[]) => unknown;
  session.prepareQuery = (query, ...rest: unknown[]) => {
    texts.push(query.sql);
    return prepareQuery(query, ...rest);
  };
  return texts;
}

describeOnEachDialect('inputs', (dialect) => {
  let served: ServedOauth;
  let application: TestApplication;

  beforeEach(async () => {
    served = await serveOauth(dialect);
    application = await served.application();
  });

  const query = (params: Record<string, string | string[]>) =>
    `${served.url}/oauth/authorize?${formOf({ ...authorizeParams(application, challengeOf('v'.repeat(43))), ...params })}`;

  it('huge inputs: a body beyond the limit is refused at every endpoint, and read no further', async () => {
    for (const path of ENDPOINTS) {
      const body = `token=${'a'.repeat(10 * 1024 * 1024)}`;
      const headers = { 'content-type': 'application/x-www-form-urlencoded', ...basic(application) };
      const refused = await send(served.url + path, { method: 'POST', body, headers }).catch(
        // The connection may be closed before all of it was sent.
        () => ({ status: 413 }),
      );
      expect([path, refused.status]).toEqual([path, 413]);
    }
  });

  it('huge inputs: a body that says it is short, and one that never ends, hold nothing up', async () => {
    const { port } = new URL(served.url);
    const socket = connect(Number(port), '127.0.0.1');
    socket.on('error', () => {});
    socket.write(
      'POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n',
    );
    const { status } = await served.post('/oauth/token', clientOf(application));
    expect(status).toBe(400);
    socket.destroy();
    expect(served.failures).toEqual([]);
  });

  /** Refused on a page of ours, or to the application: the error, or null for what was answered. */
  async function refusalOf(params: Record<string, string | string[]>) {
    const page = await allow(await served.browser(), query(params));
    if (page.left) return answeredBy(page).get('error');
    expect([page.status, page.forms]).toEqual([400, []]);
    return /Error <code>(\w+)<\/code>/.exec(page.text)?.[1];
  }

  it('huge inputs: each parameter has a limit, and is told back to nobody in full', async () => {
    const long = 'x'.repeat(6_000);
    const invalid = 'invalid_request';
    for (const [name, error] of [
      ['client_id', 'invalid_client'],
      ['redirect_uri', invalid],
      ['state', invalid],
      ['nonce', invalid],
      ['scope', 'invalid_scope'],
      ['code_challenge', invalid],
      ['code_challenge_method', invalid],
      ['prompt', invalid],
      ['max_age', invalid],
      ['login_hint', invalid],
      ['ui_locales', invalid],
      ['acr_values', invalid],
      ['display', invalid],
      ['response_type', 'unsupported_response_type'],
      ['response_mode', invalid],
    ] as const)
      expect([name, await refusalOf({ [name]: long })]).toEqual([name, error]);
    expect(await refusalOf({ resource: `https://api.example.com/${long}` })).toBe('invalid_target');
    // What nobody knows is ignored (RFC 6749, section 3.1), as far as all of the request may be as long.
    expect(await refusalOf({ [long.slice(0, 3_000)]: long })).toBeNull();
    const page = await (await served.browser()).open(query({ client_id: long, state: long }));
    expect(page.text).not.toContain(long);
    for (const form of [
      { client_id: long, client_secret: 'x' },
      { ...clientOf(application), client_secret: long },
      { ...clientOf(application), grant_type: long },
      { ...clientOf(application), grant_type: 'authorization_code', code: long },
      { ...clientOf(application), grant_type: 'refresh_token', refresh_token: long },
    ]) {
      const { status, body } = await served.post('/oauth/token', form);
      expect([400, 401]).toContain(status);
      expect(JSON.stringify(body).length).toBeLessThan(600);
    }
    expect(served.failures).toEqual([]);
  });

  it('huge inputs: hundreds of parameters, scopes and resources are refused, and those nobody knows ignored, quickly', async () => {
    const many = Array.from({ length: 700 }, (_, i) => `${i}`);
    const startedAt = performance.now();
    const scope = many.map((name) => `notes:${name}`).join(' ');
    expect(await refusalOf({ scope })).toBe('invalid_scope');
    const resource = many.slice(0, 200).map((i) => `https://api${i}.example.com/`);
    expect(await refusalOf({ resource })).toBe('invalid_target');
    expect(await refusalOf({ state: many })).toBe('invalid_request');
    expect(await refusalOf(Object.fromEntries(many.map((i) => [`p${i}`, i])))).toBeNull();
    for (const form of [
      { ...clientOf(application), grant_type: many },
      { ...clientOf(application), ...Object.fromEntries(many.map((i) => [`p${i}`, i])) },
    ])
      expect((await served.post('/oauth/token', form)).status).toBe(400);
    expect(performance.now() - startedAt).toBeLessThan(10_000);
    expect(served.failures).toEqual([]);
  });

  it('what has been made up at random is refused, and breaks nothing', async () => {
    const names = fc.constantFrom(
      'client_id',
      'client_secret',
      'grant_type',
      'code',
      'code_verifier',
      'redirect_uri',
      'refresh_token',
      'scope',
      'resource',
      'token',
      'token_type_hint',
      'response_type',
      'state',
      'prompt',
      'max_age',
      '__proto__',
      'constructor',
      'toString',
    );
    const values = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 60 }),
      fc.constantFrom(
        application.clientId,
        application.secret,
        'authorization_code',
        'code',
        '\u0000',
        '%00',
        '[]',
        '{}',
      ),
    );
    const pairs = fc.array(fc.tuple(names, values), { maxLength: 12 });
    const authorizations = fc.oneof(
      fc.constant(undefined),
      fc.string({ maxLength: 40 }).map((text) => `Basic ${Buffer.from(text).toString('base64')}`),
      fc.constantFrom('Basic', 'Basic ', 'Basic %%%', 'Bearer', 'Bearer x', basic(application).authorization),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...ENDPOINTS),
        pairs,
        authorizations,
        async (path, form, authorization) => {
          const answer = await send(served.url + path, {
            method: 'POST',
            body: new URLSearchParams(form),
            headers: { ...(authorization !== undefined && { authorization }) },
            redirect: 'manual',
          });
          expect(answer.status).toBeLessThan(500);
          if (path !== '/oauth/authorize' && answer.status >= 400)
            expect(Object.keys(answer.body).sort()).toEqual(['error', 'error_description']);
        },
      ),
      { numRuns: 100 },
    );
    expect(served.failures).toEqual([]);
  });

  it('bodies of another type, broken text and methods that there are not are refused', async () => {
    const bodies: [string, string | Uint8Array][] = [
      ['application/json', '{"grant_type":"client_credentials"}'],
      ['multipart/form-data; boundary=x', '--x\r\n\r\n'],
      ['text/plain', 'grant_type=client_credentials'],
      ['application/x-www-form-urlencoded', new Uint8Array([0xff, 0xfe, 0x3d])],
    ];
    for (const path of ENDPOINTS.slice(0, 3)) {
      for (const [type, body] of bodies) {
        const { status } = await send(served.url + path, {
          method: 'POST',
          body,
          headers: { 'content-type': type },
        });
        expect([path, type, status]).toEqual([path, type, 400]);
      }
      for (const method of ['GET', 'PUT', 'DELETE', 'PATCH'])
        expect((await send(served.url + path, { method })).status).toBe(405);
    }
  });

  it('an id that there is and one that there is not are refused alike, by the same statements', async () => {
    const texts = readingOf(served.deps);
    const machine = await newMachine(served.deps, 'known');
    const refusal = async (id: string, secret: string | undefined) => {
      texts.length = 0;
      const form = { grant_type: 'client_credentials', client_id: id, client_secret: secret };
      const { status, body, headers } = await served.post('/oauth/token', form);
      return { status, body, challenge: headers.get('www-authenticate'), texts: [...texts] };
    };
    const unknown = (id: string) => `${id.slice(0, -4)}${id.endsWith('0000') ? '1111' : '0000'}`;
    const ids = [application.clientId, unknown(application.clientId)];
    const wrong = newValue(PREFIXES.applicationSecret).value;
    const guesses = ids.flatMap((id) =>
      [wrong, 'malformed', newValue('msk_').value].map((s) => [id, s] as const),
    );
    const machines = [machine.id, unknown(machine.id)];
    for (const attempts of [
      guesses,
      ids.map((id) => [id, undefined] as const),
      machines.map((id) => [id, newValue(PREFIXES.machineSecretKey).value] as const),
    ]) {
      const refusals = [];
      for (const [id, secret] of attempts) refusals.push(await refusal(id, secret));
      const [first] = refusals;
      expect(first).toMatchObject({ status: 401, body: { error: 'invalid_client' } });
      expect(first?.texts).toHaveLength(1);
      for (const each of refusals) expect(each).toEqual(first);
    }
  });

  it('guessing secrets is limited for a network, and those who have them are let in all the same', async () => {
    const service = await served.application({
      redirectUris: [],
      grantTypes: ['client_credentials'],
      scopes: [],
    });
    const asking = { grant_type: 'client_credentials' };
    const statuses = new Set<number>();
    for (let i = 0; i < 130; i++) {
      const guess = { ...asking, client_id: service.clientId, client_secret: `guess ${i}` };
      statuses.add((await served.post('/oauth/token', guess)).status);
    }
    expect([...statuses]).toEqual([401, 429]);
    expect((await served.post('/oauth/token', { ...asking, ...clientOf(service) })).status).toBe(200);
  });
});
