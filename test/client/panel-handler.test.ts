import { once } from 'node:events';
import { createServer } from 'node:http';
import express from 'express';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { apiKeysHandler as expressHandler, type PanelGrant } from '../../client/express.ts';
import { apiKeysHandler as fetchHandler } from '../../client/fetch.ts';
import { freshFolder, whenSuiteDone } from '../support/deps.ts';
import { listen } from '../support/procedures.ts';
import { type RunningServer, startServer } from '../support/server.ts';
import { freePort } from '../support/services.ts';

const whenDone = whenSuiteDone();
let server: RunningServer;
let key: { id: string; secret: string };

const newKey = async () =>
  (await server.call('secretKeys.create', { name: 'host', role: 'interaction' })).body.result.data;

beforeAll(async () => {
  server = await startServer(freshFolder(whenDone), { COUNTERSIGN_LOG_LEVEL: 'warn' }, { whenDone });
  key = await newKey();
});

const OURS = { 'content-type': 'application/json', 'x-countersign': 'panel' };
const ALL: PanelGrant = { subject: 'user_1', actions: ['read', 'create', 'update', 'rotate', 'revoke'] };

interface Options {
  grant?: PanelGrant | null;
  secretKey?: string;
  url?: string;
  onError?: (error: unknown) => void;
  fetch?: typeof fetch;
}

const resolverOf = ({ grant = ALL }: Options) => ({ resolveSubject: () => grant });
const optionsOf = (options: Options) => ({
  url: server.url,
  secretKey: key.secret,
  ...options,
  ...resolverOf(options),
});

/** The same handler as each kind of application has it. */
const APPLICATIONS: Record<string, (options: Options) => Promise<string>> = {
  'Express, before any parser': async (options) => {
    const app = express();
    app.use('/api/keys', expressHandler(optionsOf(options)));
    return (await listen(app)).url;
  },
  'Express, after its parser': async (options) => {
    const app = express();
    app.use(express.json());
    app.use('/api/keys', expressHandler(optionsOf(options)));
    return (await listen(app)).url;
  },
  fetch: async (options) => {
    const handle = fetchHandler(optionsOf(options));
    const { url } = await listen(async (incoming, outgoing) => {
      const chunks = [];
      for await (const chunk of incoming) chunks.push(chunk);
      const request = new Request(`http://127.0.0.1${incoming.url}`, {
        method: incoming.method ?? '',
        headers: incoming.headers as Record<string, string>,
        ...(incoming.method === 'POST' && { body: Buffer.concat(chunks) }),
      });
      const response = await handle(request);
      outgoing.writeHead(response.status, Object.fromEntries(response.headers));
      outgoing.end(await response.text());
    });
    return url;
  },
};

for (const [name, start] of Object.entries(APPLICATIONS))
  describe(`apiKeysHandler of ${name}`, () => {
    async function open(options: Options = {}) {
      const url = await start(options);
      return async (verb: string, input?: object | string, init: RequestInit = {}) => {
        const response = await fetch(`${url}/api/keys/panelKeys.${verb}`, {
          method: 'POST',
          headers: OURS,
          ...(input !== undefined && { body: typeof input === 'string' ? input : JSON.stringify(input) }),
          ...init,
        });
        const text = await response.text();
        const body = text.startsWith('{') ? JSON.parse(text) : {};
        return {
          status: response.status,
          code: body.error?.data.code,
          data: body.result?.data,
          headers: response.headers,
        };
      };
    }

    it('passes on what its own pages ask, as the one who is signed in, and keeps it out of caches', async () => {
      const ask = await open({ grant: { ...ALL, subject: `org of ${name}`, createdBy: 'user_1' } });
      const { status, data, headers } = await ask('create', { name: 'ci' });
      expect([status, data.createdBy]).toEqual([200, 'user_1']);
      expect(headers.get('cache-control')).toBe('no-store');
      expect((await ask('list', {})).data.data.map(({ id }: { id: string }) => id)).toEqual([data.id]);
      expect((await ask('options')).data.subject).toBe(`org of ${name}`);
    });

    it('answers nobody 401, and everything but what a panel asks 404', async () => {
      const ask = await open({ grant: null });
      expect(await ask('list', {})).toMatchObject({ status: 401, code: 'unauthenticated' });
      const url = await start({});
      for (const path of [
        '/api/keys/machines.list',
        '/api/keys/panelKeys.delete',
        '/api/keys/',
        '/api/keys/panelKeys.list/..%2fmachines.list',
      ]) {
        const response = await fetch(`${url}${path}`, { method: 'POST', headers: OURS, body: '{}' });
        await response.text();
        expect([path, response.status]).toEqual([path, 404]);
      }
    });

    it('does nothing for pages of another origin, whatever cookies come along', async () => {
      const ask = await open();
      const refused: [RequestInit, string][] = [
        [{ headers: { 'content-type': 'application/json' } }, 'forbidden'],
        [{ headers: { ...OURS, 'x-countersign': 'console' } }, 'forbidden'],
        [{ headers: { ...OURS, 'sec-fetch-site': 'cross-site' } }, 'forbidden'],
        [{ headers: { ...OURS, 'sec-fetch-site': 'same-site' } }, 'forbidden'],
        [{ headers: { ...OURS, 'content-type': 'text/plain' } }, 'unsupported_media_type'],
        [{ method: 'GET', body: null }, 'method_not_allowed'],
      ];
      for (const [init, code] of refused) {
        const answer = await ask('create', { name: 'forged' }, init);
        expect([init, answer.code]).toEqual([init, code]);
      }
    });

    it('passes refusals on as they are, and never what an action may not', async () => {
      const ask = await open({ grant: { subject: 'user_1', actions: ['read'] } });
      expect(await ask('create', { name: 'ci' })).toMatchObject({ status: 403, code: 'forbidden' });
      expect(await ask('list', { limit: 0 })).toMatchObject({ status: 400, code: 'invalid_input' });
      expect(await ask('list', '{"query":')).toMatchObject({ status: 400 });
    });

    it('refuses a body that is too long', async () => {
      const ask = await open();
      const { status } = await ask('create', { name: 'x'.repeat(70_000) });
      // After a parser of the application's own it is the server that refuses it.
      expect([400, 413]).toContain(status);
    });
  });

describe('apiKeysHandler', () => {
  const handlerOf = (options: Options) => {
    const handle = fetchHandler(optionsOf(options));
    return async (verb = 'list', body = '{}') => {
      const request = new Request(`http://host.example/k/panelKeys.${verb}`, {
        method: 'POST',
        headers: OURS,
        body,
      });
      const response = await handle(request);
      return { status: response.status, text: await response.text() };
    };
  };

  it('mints one token for many requests, and another where that one ended before its time', async () => {
    const { id, secret } = await newKey();
    const minted: string[] = [];
    const counting: typeof fetch = (input, init) => {
      minted.push(String(input).replace(/.*\/trpc\//, ''));
      return fetch(input, init);
    };
    const ask = handlerOf({ secretKey: secret, fetch: counting });
    const statuses = (await Promise.all(Array.from({ length: 5 }, () => ask()))).map(({ status }) => status);
    expect(statuses).toEqual([200, 200, 200, 200, 200]);
    const mintings = () => minted.filter((path) => path.startsWith('panelTokens.create')).length;
    expect(mintings()).toBe(1);
    // Whoever has the value may have minted tokens: they all end. The key's new value would be the application's to take.
    await server.call('secretKeys.revoke', { id });
    expect(await ask()).toMatchObject({ status: 503 });
    expect(mintings()).toBe(2);
  });

  it('tells an end user nothing of the application’s own faults, and its log everything', async () => {
    const errors: unknown[] = [];
    const onError = (error: unknown) => errors.push(error);
    const { secret } = (await server.call('secretKeys.create', { name: 'r', role: 'read' })).body.result.data;
    const ask = handlerOf({ secretKey: secret, onError });
    const { status, text } = await ask();
    expect([status, JSON.parse(text).error.data.code]).toEqual([503, 'unavailable']);
    expect(text).not.toMatch(/secret key|role|panelTokens/);
    const cause = expect.objectContaining({ code: 'forbidden' });
    expect(errors).toEqual([expect.objectContaining({ code: 'unavailable', cause })]);
    const away = handlerOf({ url: `http://127.0.0.1:${await freePort()}`, onError });
    expect(await away()).toMatchObject({ status: 503 });
    expect(errors).toHaveLength(2);
  });

  it('is unavailable where something else than a server answers', async () => {
    const other = createServer((_request, response) => response.end('<html></html>'));
    other.listen(0, '127.0.0.1');
    await once(other, 'listening');
    onTestFinished(() => void other.close());
    const { port } = other.address() as { port: number };
    expect(await handlerOf({ url: `http://127.0.0.1:${port}` })()).toMatchObject({ status: 503 });
  });
});
