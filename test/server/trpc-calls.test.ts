import { request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createExpressMiddleware } from '@trpc/server/adapters/express';
import express, { type Request } from 'express';
import fc from 'fast-check';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import type { RequestContext } from '../../server/authenticate.ts';
import { secondsToRetry } from '../../server/errors.ts';
import { createLogger } from '../../server/logger.ts';
import { translate } from '../../server/translate.ts';
import { appRouter } from '../../server/trpc/router.ts';
import { createTrpc } from '../../server/trpc-calls.ts';
import { anywhere, freshFolder, openTestDeps, whenSuiteDone } from '../support/deps.ts';
import { type RunningServer, send, startServer } from '../support/server.ts';

const BATCH_SIZE_MAX = 50;

/** Ours and tRPC's adapter, over the same database. */
async function serveBoth() {
  const deps = await openTestDeps('sqlite');
  const contextOf = ({ headers: { authorization } }: Pick<Request, 'headers'>): RequestContext => ({
    deps,
    authorization,
    address: anywhere,
    requestId: 'req_1',
  });
  const app = express();
  const options = { contextOf, bodyBytesMax: 10_000, batchSizeMax: BATCH_SIZE_MAX };
  app.use('/ours', createTrpc({ ...options, logger: createLogger('silent') }));
  app.use(
    '/theirs',
    createExpressMiddleware({
      router: appRouter,
      allowMethodOverride: true,
      maxBodySize: options.bodyBytesMax,
      createContext: ({ req }) => contextOf(req),
      responseMeta({ errors }) {
        const seconds = errors.flatMap((error) => secondsToRetry(translate(error, '')) ?? []);
        return seconds.length > 0
          ? { headers: new Headers({ 'Retry-After': `${Math.max(...seconds)}` }) }
          : {};
      },
    }),
  );
  const server = app.listen(0, '127.0.0.1');
  await new Promise((done) => server.once('listening', done));
  onTestFinished(() => void server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, adminKey: deps.adminKey };
}

type Both = Awaited<ReturnType<typeof serveBoth>>;

interface Call {
  path: string;
  body: string;
  key?: string;
  headers?: Record<string, string>;
}

async function answerOf(
  both: Both,
  side: 'ours' | 'theirs',
  { path, body, key = both.adminKey, headers }: Call,
) {
  const response = await fetch(`${both.url}/${side}/${path}`, {
    method: 'POST',
    body,
    headers: {
      'content-type': 'application/json',
      ...(key !== '' && { authorization: `Bearer ${key}` }),
      ...headers,
    },
  });
  return {
    status: response.status,
    headers: ['content-type', 'vary', 'retry-after'].map((name) => response.headers.get(name)),
    body: await response.text(),
  };
}

async function expectSame(both: Both, call: Call) {
  const ours = await answerOf(both, 'ours', call);
  expect(ours).toEqual(await answerOf(both, 'theirs', call));
  return ours;
}

const MISSING = '{"id":"mch_000000000000000000000000000"}';

describe('a request is answered as by the adapter of tRPC:', () => {
  it.each<[string, number, Call]>([
    ['what there is', 200, { path: 'machines.list', body: '{}' }],
    ['nothing said', 400, { path: 'machines.list', body: '' }],
    ['something that is not there', 404, { path: 'machines.get', body: MISSING }],
    ['an input that is refused', 400, { path: 'machines.create', body: '{"name":5,"more":true}' }],
    ['an input of another kind', 400, { path: 'machines.create', body: '"billing"' }],
    ['a body that is no JSON', 400, { path: 'machines.create', body: '{"name":' }],
    ['a body that is too large', 413, { path: 'machines.create', body: JSON.stringify('x'.repeat(20_000)) }],
    ['nobody who is known', 401, { path: 'machines.list', body: '{}', key: '' }],
    ['a procedure that is not there', 404, { path: 'machines.nope', body: '{}' }],
    ['the name of a prototype', 404, { path: 'constructor', body: '{}' }],
    ['a router', 404, { path: 'machines', body: '{}' }],
    ['a path with parts', 200, { path: 'more/machines.list', body: '{}' }],
    ['an encoded path', 200, { path: 'machines%2Elist', body: '{}' }],
    ['several without a batch', 404, { path: 'machines.list,machines.list', body: '{}' }],
    ['a batch of one', 200, { path: 'machines.list?batch=1', body: '{"0":{}}' }],
    ['a batch of nothing said', 400, { path: 'machines.list?batch=1', body: '' }],
    ['a batch of two', 200, { path: 'machines.list,apiKeys.list?batch=1', body: '{"0":{},"1":{}}' }],
    [
      'a batch with a comma that is encoded',
      200,
      { path: 'machines.list%2CapiKeys.list?batch=1', body: '{"0":{},"1":{}}' },
    ],
    [
      'a batch of which one is not there',
      207,
      { path: 'machines.list,machines.get?batch=1', body: `{"0":{},"1":${MISSING}}` },
    ],
    [
      'a batch of different refusals',
      207,
      { path: 'machines.get,machines.get?batch=1', body: `{"0":${MISSING}}` },
    ],
    [
      'a batch all of which is refused for the same',
      401,
      { path: 'machines.list,apiKeys.list?batch=1', body: '{}', key: 'sk_nobody' },
    ],
    ['a batch of queries and mutations', 400, { path: 'machines.list,machines.create?batch=1', body: '{}' }],
    ['a batch of inputs in a list', 400, { path: 'machines.list?batch=1', body: '[{}]' }],
    ['a batch of inputs in a string', 400, { path: 'machines.list?batch=1', body: '"{}"' }],
    ['a batch of null', 400, { path: 'machines.list?batch=1', body: 'null' }],
    ['a batch asked for otherwise', 400, { path: 'machines.list?batch=true', body: '{"0":{}}' }],
    ['a batch asked for twice', 400, { path: 'machines.list?batch=0&batch=1', body: '{"0":{}}' }],
    [
      'a batch in lines',
      200,
      { path: 'machines.list?batch=1', body: '{"0":{}}', headers: { 'trpc-accept': 'application/jsonl' } },
    ],
    [
      'a batch in lines, as any client asks',
      200,
      { path: 'machines.list?batch=1', body: '{"0":{}}', headers: { accept: 'application/jsonl' } },
    ],
    [
      'lines of one call',
      400,
      { path: 'machines.list', body: '{}', headers: { 'trpc-accept': 'application/jsonl' } },
    ],
  ])('%s', async (_, status, call) => {
    expect((await expectSame(await serveBoth(), call)).status).toBe(status);
  });

  it('who asks too often', async () => {
    const both = await serveBoth();
    const call = { path: 'apiKeys.revokeByValue', body: JSON.stringify({ value: 'sk_nothing' }) };
    for (let asked = 0; asked < 2_000; asked++)
      if ((await answerOf(both, 'ours', call)).status === 429) {
        expect((await expectSame(both, call)).headers[2]).toMatch(/^\d+$/);
        return;
      }
    expect.unreachable('Wanted a limit, found none');
  });

  it('anything else', async () => {
    const both = await serveBoth();
    const path = fc.array(
      fc.constantFrom('machines.list', 'machines.get', 'apiKeys.list', 'nope', '__proto__', ''),
      { minLength: 1, maxLength: 4 },
    );
    const query = fc.constantFrom('', '?batch=1', '?batch=', '?batch=1&batch=1', '?', '??batch=1');
    const input = fc.constantFrom({}, { id: 'mch_1' }, null, [], 'text', { limit: 1 });
    const body = fc.oneof(
      fc.json({ maxDepth: 2 }),
      fc.dictionary(fc.constantFrom('0', '1', '2', '3', 'x'), input).map((inputs) => JSON.stringify(inputs)),
      fc.constantFrom('', ' ', '{', 'undefined'),
    );
    await fc.assert(
      fc.asyncProperty(path, query, body, async (paths, search, text) => {
        await expectSame(both, { path: `${paths.join(',')}${search}`, body: text });
      }),
      { numRuns: 300 },
    );
  });
});

describe('a request of one call', () => {
  const whenDone = whenSuiteDone();
  let server: RunningServer;

  beforeAll(async () => {
    server = await startServer(freshFolder(whenDone), {}, { whenDone });
  });

  it('is read no sooner than its caller is known, and no further than it may be', async () => {
    const body = `{"name":"${'x'.repeat(2_000_000)}"}`;
    // Of unknown length, so that nothing but its bytes says how long it is.
    const chunked = (key: string) =>
      new Promise<number | undefined>((resolve, reject) => {
        const sent = request(`${server.url}/trpc/machines.create`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
        });
        sent.on('response', (response) => resolve(response.resume().statusCode));
        sent.on('error', reject);
        sent.write(body.slice(0, 1_500_000));
      });
    expect(await chunked('sk_nobody')).toBe(401);
    expect(await chunked(server.adminKey)).toBe(413);
  });

  it('of a client that goes away in the middle comes to nothing, and is no failure of the server', async () => {
    const sent = request(`${server.url}/trpc/machines.create`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'content-length': '100',
        authorization: `Bearer ${server.adminKey}`,
      },
    });
    sent.on('error', () => {});
    onTestFinished(() => void sent.destroy());
    await new Promise<void>((done) => sent.write('{"name":"half', () => done()));
    sent.destroy();
    await server.printed('stderr', /"aborted":true/);
    const listed = await send(`${server.url}/trpc/machines.list`, {
      method: 'POST',
      body: '{}',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${server.adminKey}` },
    });
    expect(listed.body.result.data.data).toEqual([]);
    expect(server.log().filter(({ level }) => Number(level) >= 50)).toEqual([]);
  });
});
