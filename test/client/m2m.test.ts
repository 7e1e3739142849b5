import type { IncomingMessage, RequestListener } from 'node:http';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { clientVerifier, protect } from '../../client/express.ts';
import { CountersignError, createCountersign } from '../../client/index.ts';
import { createM2mFetch, createM2mTokenSource, type M2mTokenSourceOptions } from '../../client/m2m.ts';
import { revokeM2mToken } from '../../server/domain/m2m-tokens.ts';
import { createMachine, createMachineInput } from '../../server/domain/machines.ts';
import { findCaller } from '../../server/domain/secrets.ts';
import { anywhere, callerWith, openTestDeps } from '../support/deps.ts';
import { allow, newMachine } from '../support/machines.ts';
import { listen, serveProcedures } from '../support/procedures.ts';

const HOUR = 3_600_000;

/** A client that mints as it is told to, and counts. */
function minting(lifeMs = HOUR) {
  const asked: unknown[] = [];
  const state = { fail: undefined as Error | undefined, hold: undefined as Promise<void> | undefined };
  const create = async (request: unknown, { signal }: { signal: AbortSignal }) => {
    asked.push(request);
    const value = `mt_${asked.length}`;
    const ended = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason));
    });
    if (state.hold) await Promise.race([state.hold, ended]);
    if (state.fail) throw state.fail;
    return { token: value, createdAt: 0, expiresAt: lifeMs };
  };
  const countersign = {
    m2mTokens: { create },
    machines: {},
  } as unknown as M2mTokenSourceOptions['countersign'];
  return { asked, state, countersign };
}

/** Lets what was begun in the background come to its end. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

describe('createM2mTokenSource()', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
  afterEach(() => void vi.useRealTimers());

  it('obtains one token for all who ask alike at the same time, and one for each who asks otherwise', async () => {
    const { asked, countersign } = minting();
    const tokens = createM2mTokenSource({ countersign });
    const alike = Array.from({ length: 50 }, (_, i) =>
      tokens.get({ scopes: i % 2 ? ['a', 'b'] : ['b', 'a'], audience: ['mch_1'] }),
    );
    expect(new Set(await Promise.all(alike)).size).toBe(1);
    expect(asked).toHaveLength(1);
    await tokens.get({ scopes: ['a'] });
    await tokens.get({ scopes: ['a', 'b'], audience: ['mch_1'], claims: { tenant: 7 } });
    await tokens.get({ scopes: ['a', 'b'], audience: ['mch_1'] });
    expect(asked).toHaveLength(3);
  });

  it('renews ahead of the end, with one request, and uses the old token meanwhile', async () => {
    const { asked, state, countersign } = minting();
    const tokens = createM2mTokenSource({ countersign });
    expect(await tokens.get()).toBe('mt_1');
    vi.advanceTimersByTime(HOUR * 0.69);
    expect([await tokens.get(), asked.length]).toEqual(['mt_1', 1]);
    vi.advanceTimersByTime(HOUR * 0.17);
    let release = () => {};
    state.hold = new Promise((resolve) => {
      release = resolve;
    });
    const meanwhile = await Promise.all(Array.from({ length: 50 }, () => tokens.get()));
    expect([new Set(meanwhile), asked.length]).toEqual([new Set(['mt_1']), 2]);
    release();
    await settled();
    expect([await tokens.get(), asked.length]).toEqual(['mt_2', 2]);
  });

  it('does not renew all at one instant', async () => {
    const renewedAt = async () => {
      const { asked, countersign } = minting();
      const tokens = createM2mTokenSource({ countersign });
      await tokens.get();
      for (let minute = 0; ; minute++) {
        await tokens.get();
        if (asked.length === 2) return minute;
        vi.advanceTimersByTime(60_000);
      }
    };
    const minutes = [];
    for (let i = 0; i < 20; i++) minutes.push(await renewedAt());
    expect(new Set(minutes).size).toBeGreaterThan(2);
  });

  it('goes on with the old token while renewing fails, tries less and less often, and tells', async () => {
    const { asked, state, countersign } = minting();
    const errors: unknown[] = [];
    const tokens = createM2mTokenSource({ countersign, onError: (error) => void errors.push(error) });
    await tokens.get();
    vi.advanceTimersByTime(HOUR * 0.86);
    state.fail = new CountersignError('network', 'gone');
    for (let second = 0; second < 120; second++) {
      expect(await tokens.get()).toBe('mt_1');
      await settled();
      vi.advanceTimersByTime(1000);
    }
    expect(asked.length).toBeGreaterThan(4);
    expect(asked.length).toBeLessThan(20);
    expect(errors).toHaveLength(asked.length - 1);
    state.fail = undefined;
    vi.advanceTimersByTime(30_000);
    await tokens.get();
    await settled();
    expect(await tokens.get()).not.toBe('mt_1');
  });

  it('never uses a token to its very end', async () => {
    const { countersign } = minting(60_000);
    const tokens = createM2mTokenSource({ countersign });
    await tokens.get();
    vi.advanceTimersByTime(54_001);
    expect(await tokens.get()).toBe('mt_2');
  });

  it('has all who wait hear of one failure, and asks again no earlier than it was told to', async () => {
    const { asked, state, countersign } = minting();
    const tokens = createM2mTokenSource({ countersign });
    state.fail = new CountersignError('rate_limited', 'slower', { retryAfterMs: 5000 });
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => tokens.get()));
    expect(outcomes.every(({ status }) => status === 'rejected')).toBe(true);
    await expect(tokens.get()).rejects.toBe(state.fail);
    expect(asked).toHaveLength(1);
    state.fail = undefined;
    vi.advanceTimersByTime(4999);
    await expect(tokens.get()).rejects.toThrowError('slower');
    vi.advanceTimersByTime(1);
    expect(await tokens.get()).toBe('mt_2');
  });

  it('replaces a token that was refused once for all, and none that has only been obtained', async () => {
    const { asked, countersign } = minting();
    const tokens = createM2mTokenSource({ countersign });
    await tokens.get();
    expect([await tokens.replace('mt_1'), asked.length]).toEqual(['mt_1', 1]);
    vi.advanceTimersByTime(5000);
    const replaced = await Promise.all(Array.from({ length: 20 }, () => tokens.replace('mt_1')));
    expect([new Set(replaced), asked.length]).toEqual([new Set(['mt_2']), 2]);
    expect([await tokens.replace('mt_1'), asked.length]).toEqual(['mt_2', 2]);
  });

  it('keeps a thousand tokens, and lets go of those that were longest not asked for', async () => {
    const { asked, countersign } = minting();
    const tokens = createM2mTokenSource({ countersign });
    const get = (i: number) => tokens.get({ claims: { i } });
    for (let i = 0; i < 1000; i++) await get(i);
    await get(0);
    await get(1000);
    expect([await get(0), asked.length]).toEqual(['mt_1', 1001]);
    await get(1);
    expect(asked).toHaveLength(1002);
  });

  it('close() ends what is on its way, and nothing is obtained afterwards', async () => {
    const { asked, state, countersign } = minting();
    const errors: unknown[] = [];
    const tokens = createM2mTokenSource({ countersign, onError: (error) => void errors.push(error) });
    state.hold = new Promise(() => {});
    const waiting = tokens.get();
    tokens.close();
    await expect(waiting).rejects.toThrowError(/closed/);
    await expect(tokens.get()).rejects.toThrowError(/closed/);
    expect([asked.length, errors]).toEqual([1, []]);
  });

  it('has a token that was minted without its value be a failure', async () => {
    const { countersign } = minting();
    const create = async () => ({ createdAt: 0, expiresAt: HOUR });
    const tokens = createM2mTokenSource({ countersign: { ...countersign, m2mTokens: { create } } as never });
    await expect(tokens.get()).rejects.toMatchObject({ code: 'internal' });
  });
});

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
}

interface Called {
  path: string | undefined;
  method: string | undefined;
  authorization: string | undefined;
  type: string | undefined;
  body: string;
}

/** A callee that answers each request with the next of `answers`: a status, or where to. */
async function callee(...answers: (number | [status: number, location: string])[]) {
  const calls: Called[] = [];
  const answer: RequestListener = async (request, response) => {
    const { url, method, headers } = request;
    const body = await bodyOf(request);
    const { authorization, 'content-type': type } = headers;
    calls.push({ path: url, method, authorization, type, body });
    const next = answers.shift() ?? 200;
    if (typeof next === 'number') response.writeHead(next).end('done');
    else response.writeHead(next[0], { location: next[1] }).end();
  };
  const { url } = await listen(answer);
  return { url, calls };
}

/** Tokens that are another each time one is refused. */
function numbered() {
  let count = 1;
  return {
    get: async () => `mt_${count}`,
    replace: async () => `mt_${++count}`,
  };
}

const sent = (calls: Called[]) =>
  calls.map(({ method, path, authorization, body }) => [method, path, authorization, body]);

describe('createM2mFetch()', () => {
  it('sends the token to the origins it was told of', async () => {
    const { url, calls } = await callee();
    const call = createM2mFetch({ tokens: numbered(), origins: [url] });
    const response = await call(`${url}/a`, { method: 'POST', body: 'b', headers: { 'x-own': '1' } });
    expect([response.status, await response.text()]).toEqual([200, 'done']);
    await call(new Request(`${url}/b`, { method: 'PUT', body: 'c' }));
    expect(sent(calls)).toEqual([
      ['POST', '/a', 'Bearer mt_1', 'b'],
      ['PUT', '/b', 'Bearer mt_1', 'c'],
    ]);
  });

  it('refuses every other origin before anything is sent, and obtains no token', async () => {
    const { url, calls } = await callee();
    const tokens = { get: () => expect.fail(), replace: () => expect.fail() };
    const call = createM2mFetch({ tokens, origins: ['https://ledger.example.com'] });
    await expect(call(url)).rejects.toMatchObject({ code: 'url_not_allowed' });
    await expect(call('https://ledger.example.com.evil.example/')).rejects.toMatchObject({
      code: 'url_not_allowed',
    });
    await expect(call('https://ledger.example.com@evil.example/')).rejects.toMatchObject({
      code: 'url_not_allowed',
    });
    expect(calls).toEqual([]);
  });

  it('refuses a request that has a credential already', async () => {
    const { url, calls } = await callee();
    const call = createM2mFetch({ tokens: numbered(), origins: [url] });
    const headers = { Authorization: 'Bearer other' };
    await expect(call(url, { headers })).rejects.toMatchObject({ code: 'invalid_input' });
    await expect(call(new Request(url, { headers }))).rejects.toMatchObject({ code: 'invalid_input' });
    expect(calls).toEqual([]);
  });

  it.each(['http://ledger.example.com', 'https://ledger.example.com/path', 'ledger.example.com', 'ftp://a'])(
    'refuses %s as an origin',
    (origin) => {
      expect(() => createM2mFetch({ tokens: numbered(), origins: [origin] })).toThrowError(
        /'origins' must be/,
      );
    },
  );

  it('sends once more what is answered 401, with another token and the same body', async () => {
    const { url, calls } = await callee(401, 200);
    const call = createM2mFetch({ tokens: numbered(), origins: [url] });
    const response = await call(`${url}/a`, { method: 'POST', body: new TextEncoder().encode('b') });
    expect(response.status).toBe(200);
    expect(sent(calls)).toEqual([
      ['POST', '/a', 'Bearer mt_1', 'b'],
      ['POST', '/a', 'Bearer mt_2', 'b'],
    ]);
  });

  it('answers the second 401, and the first where there is no other token', async () => {
    const { url, calls } = await callee(401, 401, 401);
    const call = createM2mFetch({ tokens: numbered(), origins: [url] });
    expect((await call(url)).status).toBe(401);
    expect(calls).toHaveLength(2);
    const tokens = { ...numbered(), replace: () => Promise.reject(new CountersignError('network', 'gone')) };
    const response = await createM2mFetch({ tokens, origins: [url] })(url);
    expect([response.status, await response.text(), calls.length]).toEqual([401, 'done', 3]);
  });

  it('sends a stream once', async () => {
    const { url, calls } = await callee(401, [307, '/b']);
    const call = createM2mFetch({ tokens: numbered(), origins: [url] });
    const stream = () => ({ method: 'POST', body: new Blob(['b']).stream(), duplex: 'half' }) as RequestInit;
    expect((await call(url, stream())).status).toBe(401);
    expect((await call(url, stream())).status).toBe(307);
    expect(calls).toHaveLength(2);
  });

  it('never follows a redirect to another origin', async () => {
    const elsewhere = await callee();
    for (const status of [301, 302, 303, 307, 308]) {
      const { url } = await callee([status, `${elsewhere.url}/stolen`]);
      const call = createM2mFetch({ tokens: numbered(), origins: [url] });
      const response = await call(url, { method: 'POST', body: 'b' });
      expect([response.status, response.headers.get('location')]).toEqual([
        status,
        `${elsewhere.url}/stolen`,
      ]);
    }
    expect(elsewhere.calls).toEqual([]);
  });

  it('follows redirects within its origins as Fetch does', async () => {
    const { url, calls } = await callee([307, '/b'], [303, '/c'], [301, '/d']);
    const call = createM2mFetch({ tokens: numbered(), origins: [url] });
    expect((await call(`${url}/a`, { method: 'POST', body: 'x' })).status).toBe(200);
    expect(sent(calls)).toEqual([
      ['POST', '/a', 'Bearer mt_1', 'x'],
      ['POST', '/b', 'Bearer mt_1', 'x'],
      ['GET', '/c', 'Bearer mt_1', ''],
      ['GET', '/d', 'Bearer mt_1', ''],
    ]);
    expect(calls.map(({ type }) => type !== undefined)).toEqual([true, true, false, false]);
  });

  it('gives up going round, and follows none where it is told so', async () => {
    const { url, calls } = await callee(...Array.from({ length: 20 }, () => [302, '/'] as [number, string]));
    const call = createM2mFetch({ tokens: numbered(), origins: [url] });
    expect((await call(url)).status).toBe(302);
    expect(calls).toHaveLength(6);
    expect((await call(url, { redirect: 'manual' })).status).toBe(302);
    await expect(call(url, { redirect: 'error' })).rejects.toThrowError();
    expect(calls).toHaveLength(8);
  });
});

describe('countersign/m2m against a server', () => {
  const admin = callerWith('admin');

  it('calls a protected service, and again with another token when the one it has was revoked', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const deps = await openTestDeps('sqlite');
    const { url } = await serveProcedures(deps);
    const [billing, ledger] = [await newMachine(deps, 'billing'), await newMachine(deps, 'ledger')];
    await allow(deps, billing.id, ledger.id, ['entries:write']);
    const route = protect({
      verifier: clientVerifier(createCountersign({ url, machineSecretKey: ledger.secret })),
      kinds: ['m2m_token'],
      scopes: ['entries:write'],
    });
    const service = await listen((request, response) => {
      route(request, response, () => response.end(route.authOf(request).id));
    });
    const tokens = createM2mTokenSource({
      countersign: createCountersign({ url, machineSecretKey: billing.secret }),
    });
    const call = createM2mFetch({
      tokens,
      origins: [service.url],
      scopes: ['entries:write'],
      audience: [ledger.id],
    });
    const first = await (await call(service.url)).text();
    expect(await (await call(service.url)).text()).toBe(first);
    await revokeM2mToken(deps, admin, { id: first, reason: 'compromised' });
    vi.advanceTimersByTime(5000);
    const second = await call(service.url).finally(() => vi.useRealTimers());
    expect(second.status).toBe(200);
    expect(await second.text()).not.toBe(first);
    tokens.close();
  });

  async function withPolicy(period: { periodSeconds: number } | null) {
    const deps = await openTestDeps('sqlite');
    deps.clock.now = Date.now();
    const { url } = await serveProcedures(deps);
    const ledger = await newMachine(deps, 'ledger');
    const input = createMachineInput.parse({ name: 'billing', rotation: period });
    const { id, secret = '' } = await createMachine(deps, admin, input);
    await allow(deps, id, ledger.id);
    const countersign = createCountersign({ url, machineSecretKey: secret });
    return { deps, countersign };
  }

  /** Waits for what a use set going: it has no end that anybody could await. */
  const soon = (isSo: () => boolean) => vi.waitFor(() => expect(isSo()).toBe(true));

  it('rotates its secret when that is due, stores it first, and offers again what could not be stored', async () => {
    const { deps, countersign } = await withPolicy({ periodSeconds: 86_400 });
    deps.clock.now += 86_400_000;
    const real = Date.now;
    vi.spyOn(Date, 'now').mockImplementation(() => real() + 86_400_000 * 0.8);
    const errors: unknown[] = [];
    const offered: string[] = [];
    const store = (secret: string) => {
      offered.push(secret);
      if (offered.length === 1) throw new Error('The disk is full');
    };
    vi.useFakeTimers({ toFake: ['performance'] });
    const tokens = createM2mTokenSource({
      countersign,
      rotation: { store },
      onError: (error) => void errors.push(error),
    });
    await tokens.get();
    await soon(() => errors.length === 1);
    expect(errors).toMatchObject([{ code: 'not_stored' }]);
    await tokens.get();
    expect(offered).toHaveLength(1);
    vi.advanceTimersByTime(60_000);
    await tokens.get();
    await soon(() => offered.length === 2);
    expect(offered[1]).toBe(offered[0]);
    expect(await findCaller(deps, offered[0] ?? '', anywhere)).toMatchObject({ kind: 'machine' });
    tokens.close();
    vi.useRealTimers();
    vi.restoreAllMocks();
  });

  it.each([
    ['a policy of which a quarter is left', { periodSeconds: 86_400 }],
    ['no policy', null],
  ])('leaves its secret alone with %s', async (_, period) => {
    const { countersign } = await withPolicy(period);
    let looked = 0;
    const watched = {
      m2mTokens: countersign.m2mTokens,
      machines: {
        getOwn: async () => {
          const own = await countersign.machines.getOwn();
          looked++;
          return own;
        },
        rotateOwnSecret: () => expect.fail('Nothing is due'),
      },
    } as unknown as M2mTokenSourceOptions['countersign'];
    const errors: unknown[] = [];
    const rotation = { store: () => expect.fail('Nothing is due') };
    const tokens = createM2mTokenSource({
      countersign: watched,
      rotation,
      onError: (error) => void errors.push(error),
    });
    await tokens.get();
    await tokens.get();
    await soon(() => looked === 1);
    await settled();
    expect(errors).toEqual([]);
    tokens.close();
  });
});
