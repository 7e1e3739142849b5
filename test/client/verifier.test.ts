import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { CountersignError, createCountersign, type VerifyInput } from '../../client/index.ts';
import {
  createVerifier,
  type Verifier,
  type VerifierEvent,
  type VerifierOptions,
} from '../../client/verifier.ts';
import { formatValue } from '../../server/crypto/format.ts';
import { freshFolder, whenSuiteDone } from '../support/deps.ts';
import { startProxy } from '../support/proxy.ts';
import { type RunningServer, startServer } from '../support/server.ts';

let server: RunningServer;
let admin: ReturnType<typeof createCountersign>;
const whenDone = whenSuiteDone();

beforeAll(async () => {
  server = await startServer(freshFolder(whenDone), { COUNTERSIGN_LOG_LEVEL: 'warn' }, { whenDone });
  admin = createCountersign({ url: server.url, secretKey: server.adminKey });
});

interface Watched {
  verifier: Verifier;
  events: VerifierEvent[];
  /** How many credentials the server was asked about. */
  asked(): number;
}

/** A verifier that is trusted. */
async function openVerifier(options: VerifierOptions = {}, waits = true): Promise<Watched> {
  const events: VerifierEvent[] = [];
  const verifier = createVerifier({
    url: server.url,
    ...(options.machineSecretKey === undefined && { secretKey: server.adminKey }),
    onEvent: (event) => events.push(event),
    ...options,
  });
  onTestFinished(() => verifier.close());
  if (waits) await vi.waitFor(() => expect(verifier.status().trusted).toBe(true), { timeout: 10_000 });
  const asked = () => events.reduce((sum, event) => sum + (event.type === 'asked' ? event.items : 0), 0);
  return { verifier, events, asked };
}

/** The runs that the bounds are told of are longer: `VERIFICATIONS=10000 LATE_ANSWERS=1000 UNKNOWN=50000 npx vitest run test/client/verifier.test.ts`. */
const sizeOf = (name: string, usual: number) => Number(process.env[name] ?? usual);

let keys = 0;
const newKey = async (more: object = {}) =>
  admin.apiKeys.create({ name: `key ${++keys}`, subject: `user_${keys}`, scopes: ['read'], ...more });

let machines = 0;
async function newPair(scopes: string[] = ['entries:write']) {
  const sender = await admin.machines.create({ name: `sender ${++machines}` });
  const receiver = await admin.machines.create({ name: `receiver ${machines}` });
  await admin.machineScopes.create({ fromMachineId: sender.id, toMachineId: receiver.id, scopes });
  const minter = createCountersign({ url: server.url, machineSecretKey: sender.secret });
  const mint = async (format: 'opaque' | 'jwt' = 'jwt', more: object = {}) =>
    minter.m2mTokens.create({ format, ...more });
  return { sender, receiver, mint };
}

describe('verify()', () => {
  it('asks once for an API key, and answers the same from memory', async () => {
    const { verifier, asked } = await openVerifier();
    const { secret = '', id } = await newKey();
    const first = await verifier.verify(secret);
    expect(first).toMatchObject({ valid: true, kind: 'api_key', id, scopes: ['read'] });
    expect(await verifier.verify(secret)).toEqual(first);
    expect(await verifier.verify(secret, { scopes: ['read'], kinds: ['api_key'] })).toEqual(first);
    expect(asked()).toBe(1);
    expect(await verifier.verify(secret, { scopes: ['write'] })).toEqual({
      valid: false,
      reason: 'insufficient_scope',
      id,
      subject: expect.any(String),
    });
    expect(await verifier.verify(secret, { kinds: ['m2m_token'] })).toEqual({
      valid: false,
      reason: 'wrong_kind',
    });
    expect(asked()).toBe(1);
  });

  it('answers as the server does, asked for the first time and again', async () => {
    const { verifier } = await openVerifier();
    const { mint, receiver, sender } = await newPair();
    const live = await newKey();
    const revoked = await newKey();
    await admin.apiKeys.revoke({ id: revoked.id });
    const disabled = await newKey();
    await admin.apiKeys.disable({ id: disabled.id });
    const expired = await newKey({ ttlSeconds: 1 });
    const narrow = await newKey({ allowedCidrs: ['192.0.2.0/24'] });
    const limited = await newKey({ rateLimit: { count: 1_000, windowSeconds: 3600 } });
    const jwt = await mint('jwt', { claims: { tenant: 7 } });
    const opaque = await mint('opaque');
    await sleep(1_100);
    const credentials = [
      ...[live, revoked, disabled, expired, narrow, limited].map(({ secret = '' }) => secret),
      ...[jwt, opaque].map(({ token = '' }) => token),
      `${jwt.token?.slice(0, -6)}AAAAAA`,
      formatValue('ak_', Buffer.alloc(32, 7)),
      formatValue('mt_', Buffer.alloc(32, 7)),
      server.adminKey,
      'ak_typo',
      'mt_typo',
      'nothing at all',
      'eyJhbGciOiJub25lIn0.eyJzdWIiOiJtY2hfMSJ9.AAAA',
    ];
    const questions: Omit<VerifyInput, 'credential'>[] = [
      {},
      { kinds: ['api_key'] },
      { kinds: ['m2m_token'] },
      { scopes: ['read'] },
      { audience: receiver.id },
      { audience: sender.id },
      { audience: receiver.id, scopes: ['entries:write'], kinds: ['m2m_token'] },
      { ip: '192.0.2.7' },
      { ip: '198.51.100.1' },
    ];
    const theirs = [];
    for (const credential of credentials)
      for (const question of questions) {
        const answer = await admin.verify({ credential, ...question });
        theirs.push(withoutRest({ credential, question, answer }));
      }
    for (let round = 0; round < 3; round++) {
      const ours = [];
      for (const credential of credentials)
        for (const question of questions)
          ours.push(
            withoutRest({ credential, question, answer: await verifier.verify(credential, question) }),
          );
      expect(ours).toEqual(theirs);
    }
  });

  it('judges a JWT it has not seen without asking, once it has seen that the server accepts one', async () => {
    const { mint, receiver } = await newPair();
    const { verifier, asked } = await openVerifier({ audience: receiver.id });
    const { token = '' } = await mint();
    expect(await verifier.verify(token)).toMatchObject({ valid: true });
    const before = asked();
    expect(before).toBe(1);
    for (let i = 0; i < 5; i++) {
      const next = await mint();
      expect(await verifier.verify(next.token ?? '', { scopes: ['entries:write'] })).toEqual({
        valid: true,
        kind: 'm2m_token',
        id: next.id,
        subject: next.machineId,
        machineId: next.machineId,
        audience: next.audience,
        scopes: ['entries:write'],
        claims: null,
        expiresAt: next.expiresAt,
      });
    }
    expect(asked()).toBe(before);
  });

  it('of a machine judges JWTs without asking too, and refuses those for another', async () => {
    const { mint, receiver } = await newPair();
    const other = await newPair();
    const { verifier, asked } = await openVerifier({ machineSecretKey: receiver.secret ?? '' });
    expect(await verifier.verify((await mint()).token ?? '')).toMatchObject({ valid: true });
    await vi.waitFor(async () => {
      const before = asked();
      expect(await verifier.verify((await mint()).token ?? '')).toMatchObject({ valid: true });
      expect(asked()).toBe(before);
    });
    expect(await verifier.verify((await other.mint()).token ?? '')).toEqual({
      valid: false,
      reason: 'unknown',
    });
    expect(await verifier.verify((await mint('opaque')).token ?? '')).toMatchObject({ valid: true });
  });

  it('refuses what has no checksum of ours without any I/O, until there are imported keys', async () => {
    const { verifier, asked } = await openVerifier();
    for (const value of ['ak_typo', 'mt_typo', 'x', 'sk_typo'])
      expect(await verifier.verify(value)).toEqual({ valid: false, reason: 'malformed' });
    expect(await verifier.verify(server.adminKey)).toEqual({ valid: false, reason: 'wrong_kind' });
    expect(asked()).toBe(0);
  });

  it('answers frozen, so that no caller changes what the next is told', async () => {
    const { verifier } = await openVerifier();
    const { secret = '' } = await newKey({ claims: { tenant: { id: 1 } } });
    const answer = await verifier.verify(secret);
    expect(() => Object.assign(answer, { valid: false })).toThrow(TypeError);
    const { claims } = answer as unknown as { claims: { tenant: object } };
    expect(() => Object.assign(claims.tenant, { id: 2 })).toThrow(TypeError);
  });

  it('asks in one request for what is asked at the same time, and for the same only once', async () => {
    const { verifier, events } = await openVerifier();
    const secrets = await Promise.all(Array.from({ length: 5 }, async () => (await newKey()).secret ?? ''));
    const answers = await Promise.all(
      [...secrets, ...secrets, ...secrets].map((value) => verifier.verify(value)),
    );
    expect(answers.every(({ valid }) => valid)).toBe(true);
    expect(events.flatMap((event) => (event.type === 'asked' ? [event.items] : []))).toEqual([5]);
  });

  it('asks each time for what has limits, credits or an address rule, unless told otherwise', async () => {
    const limited = await newKey({ rateLimit: { count: 100, windowSeconds: 3600 } });
    const bound = await newKey({ allowedCidrs: ['192.0.2.0/24'] });
    const credited = await newKey({ credits: { remaining: 4 } });
    const { verifier, asked } = await openVerifier();
    for (let i = 0; i < 2; i++) {
      expect(await verifier.verify(limited.secret ?? '')).toMatchObject({ rateLimit: { remaining: 99 - i } });
      expect(await verifier.verify(bound.secret ?? '', { ip: '192.0.2.1' })).toMatchObject({ valid: true });
      expect(await verifier.verify(bound.secret ?? '', { ip: '192.0.3.1' })).toMatchObject({
        reason: 'ip_not_allowed',
      });
    }
    expect(asked()).toBe(6);
    const both = await Promise.all([
      verifier.verify(credited.secret ?? ''),
      verifier.verify(credited.secret ?? ''),
    ]);
    expect(both.map((each) => 'creditsRemaining' in each && each.creditsRemaining).sort()).toEqual([2, 3]);

    const trusting = await openVerifier({ rememberLimited: true });
    for (let i = 0; i < 3; i++) {
      expect(await trusting.verifier.verify(limited.secret ?? '')).toMatchObject({ valid: true });
      expect(await trusting.verifier.verify(bound.secret ?? '', { ip: '192.0.2.1' })).toMatchObject({
        valid: true,
      });
      expect(await trusting.verifier.verify(bound.secret ?? '', { ip: '192.0.3.1' })).toMatchObject({
        reason: 'ip_not_allowed',
      });
    }
    expect(trusting.asked()).toBe(1 + 1 + 3);
  });

  it('never answers valid past the expiry of what it remembers', async () => {
    const { verifier } = await openVerifier();
    const { secret = '', expiresAt } = await newKey({ ttlSeconds: 2 });
    expect(await verifier.verify(secret)).toMatchObject({ valid: true });
    for (;;) {
      const at = Date.now();
      const { valid } = await verifier.verify(secret);
      if (!valid) break;
      expect(at).toBeLessThan((expiresAt ?? 0) + 5);
      await sleep(5);
    }
    expect(await verifier.verify(secret)).toMatchObject({ reason: 'expired' });
  });
});

/** What is left of limits changes with each answer. */
function withoutRest<T extends { answer: object }>({ answer, ...rest }: T) {
  const { rateLimit: _, ...kept } = answer as { rateLimit?: unknown };
  return { ...rest, answer: kept };
}

describe('what is remembered', () => {
  const untilRefused = async (verifier: Verifier, value: string) => {
    const startedAt = performance.now();
    while ((await verifier.verify(value)).valid) {
      if (performance.now() - startedAt > 2_000) throw new Error('Still valid after 2 s');
      await sleep(1);
    }
    return performance.now() - startedAt;
  };

  it.each<[string, (id: string, subject: string) => Promise<unknown>]>([
    ['revoked', (id) => admin.apiKeys.revoke({ id })],
    ['disabled', (id) => admin.apiKeys.disable({ id })],
    ['deleted', (id) => admin.apiKeys.delete({ id })],
    ['rotated with the old value ended', (id) => admin.apiKeys.rotate({ id, compromised: true })],
    ['given an address rule', (id) => admin.apiKeys.update({ id, allowedCidrs: ['192.0.2.0/24'] })],
    ['expired by an earlier expiry', (id) => admin.apiKeys.update({ id, expiresAt: Date.now() + 100 })],
    ['one of a subject that is disabled', (_, id) => admin.subjects.disable({ id })],
    ['one of a subject whose keys are all revoked', (_, subject) => admin.apiKeys.revokeAll({ subject })],
  ])('of an API key is not used once that is %s', async (_, end) => {
    const { verifier } = await openVerifier();
    const { secret = '', id, subject } = await newKey();
    expect(await verifier.verify(secret)).toMatchObject({ valid: true });
    await end(id, subject);
    expect(await untilRefused(verifier, secret)).toBeLessThan(1_000);
  });

  it('of scopes that were narrowed is not used', async () => {
    const { verifier } = await openVerifier();
    const { secret = '', id } = await newKey({ scopes: ['read', 'write'] });
    expect(await verifier.verify(secret, { scopes: ['write'] })).toMatchObject({ valid: true });
    await admin.apiKeys.update({ id, scopes: ['read'] });
    await vi.waitFor(async () =>
      expect(await verifier.verify(secret, { scopes: ['write'] })).toMatchObject({
        reason: 'insufficient_scope',
      }),
    );
  });

  it.each(['jwt', 'opaque'] as const)(
    'of a %s token is not used once it, its machine or its way is no more',
    async (format) => {
      const { verifier } = await openVerifier();
      const pair = await newPair();
      const options = { audience: pair.receiver.id };
      const ends: (() => Promise<unknown>)[] = [
        () => admin.m2mTokens.revokeAll({ machineId: pair.sender.id }),
        () => admin.machineScopes.delete({ fromMachineId: pair.sender.id, toMachineId: pair.receiver.id }),
      ];
      for (const end of [null, ...ends]) {
        const { token = '', id } = await pair.mint(format);
        expect(await verifier.verify(token, options)).toMatchObject({ valid: true });
        await (end ? end() : admin.m2mTokens.revoke({ id }));
        await vi.waitFor(
          async () => expect(await verifier.verify(token, options)).toMatchObject({ valid: false }),
          {
            timeout: 500,
            interval: 1,
          },
        );
        // Also where it is seen for the first time.
        const late = await openVerifier();
        expect(await late.verifier.verify(token, options)).toMatchObject({ valid: false });
      }
    },
  );

  it('refuses a revoked JWT that it never saw, without having been there when it was revoked', async () => {
    const pair = await newPair();
    const [revoked, good] = [await pair.mint(), await pair.mint()];
    await admin.m2mTokens.revoke({ id: revoked.id });
    const { verifier, asked } = await openVerifier({ audience: pair.receiver.id });
    expect(await verifier.verify(good.token ?? '')).toMatchObject({ valid: true });
    expect(await verifier.verify(revoked.token ?? '')).toMatchObject({ valid: false, reason: 'revoked' });
    expect(await verifier.verify((await pair.mint()).token ?? '')).toMatchObject({ valid: true });
    expect(asked()).toBe(2);
  });

  it('of a signing key that was retired is not used, and is called what the server calls it', async () => {
    const pair = await newPair();
    const { verifier } = await openVerifier({ audience: pair.receiver.id });
    const [seen, unseen] = [(await pair.mint()).token ?? '', (await pair.mint()).token ?? ''];
    expect(await verifier.verify(seen)).toMatchObject({ valid: true });
    const active = (await admin.signingKeys.list()).find(({ state }) => state === 'active');
    await admin.signingKeys.emergencyRetire({ kid: active?.kid ?? '' });
    expect(await untilRefused(verifier, seen)).toBeLessThan(1_000);
    for (const credential of [seen, unseen]) {
      const answer = await admin.verify({ credential, audience: pair.receiver.id });
      expect(answer).toMatchObject({ valid: false });
      expect(await verifier.verify(credential)).toEqual(answer);
    }
    expect(await verifier.verify((await pair.mint()).token ?? '')).toMatchObject({ valid: true });
  });

  it('of what was unknown or disabled is not used once it may be another', async () => {
    const { verifier } = await openVerifier();
    const { secret = '', id } = await newKey();
    await admin.apiKeys.disable({ id });
    await vi.waitFor(async () => expect(await verifier.verify(secret)).toMatchObject({ reason: 'disabled' }));
    await admin.apiKeys.enable({ id });
    await vi.waitFor(async () => expect(await verifier.verify(secret)).toMatchObject({ valid: true }), {
      timeout: 1_000,
    });
  });
});

describe('once revoke() has returned', () => {
  const VERIFICATIONS = sizeOf('VERIFICATIONS', 300);
  const AT_ONCE = 10;

  it(`of ${VERIFICATIONS} verifications that begin 50 ms later, in another process than the server's, 99 of 100 refuse`, {
    timeout: 30_000 + VERIFICATIONS * 30,
  }, async () => {
    const { verifier } = await openVerifier();
    let refused = 0;
    for (let done = 0; done < VERIFICATIONS; done += AT_ONCE) {
      const made = await Promise.all(Array.from({ length: AT_ONCE }, () => newKey()));
      for (const { secret = '' } of made)
        expect(await verifier.verify(secret)).toMatchObject({ valid: true });
      await Promise.all(
        made.map(async ({ id, secret = '' }) => {
          await admin.apiKeys.revoke({ id });
          await sleep(50);
          if (!(await verifier.verify(secret)).valid) refused++;
        }),
      );
    }
    expect(refused / VERIFICATIONS).toBeGreaterThanOrEqual(0.99);
  });
});

describe('what was answered from memory', () => {
  it('is counted by the server too, and moves last use, at the latest when the verifier closes', async () => {
    const { verifier, asked } = await openVerifier();
    const { secret = '', id } = await newKey();
    for (let i = 0; i < 7; i++) await verifier.verify(secret);
    await verifier.verify(secret, { scopes: ['write'] });
    await verifier.verify(secret, { kinds: ['m2m_token'] });
    expect(asked()).toBe(1);
    await verifier.close();
    await vi.waitFor(
      async () => {
        const { data } = await admin.usage.ofApiKeys({ ids: [id] });
        expect(data[0]?.usage).toMatchObject([{ valid: 7, refused: 1 }]);
      },
      { timeout: 15_000, interval: 200 },
    );
    expect((await admin.apiKeys.get({ id })).lastUsedAt).toBeGreaterThan(Date.now() - 60_000);
    await expect(verifier.verify(`${secret.slice(0, -1)}`)).rejects.toMatchObject({ code: 'unavailable' });
  });
});

describe('a feed that fails', () => {
  /** Answers come from a server that can be reached; only the feed goes through the proxy. */
  async function behindProxy(options: VerifierOptions = {}) {
    const proxy = await startProxy(server.url);
    let pauseMs = 0;
    const lagging = (response: Response) =>
      new Response(
        response.body?.pipeThrough(
          new TransformStream({
            async transform(chunk, controller) {
              if (pauseMs > 0) await sleep(pauseMs);
              controller.enqueue(chunk);
            },
          }),
        ),
        response,
      );
    const through = async (url: string | URL | Request, init?: RequestInit) => {
      const target = new URL(String(url));
      if (target.pathname !== '/v1/feed') return fetch(target, init);
      target.port = new URL(proxy.url).port;
      return lagging(await fetch(target, init));
    };
    const watched = await openVerifier({ fetch: through as typeof fetch, ...options }, false);
    const lag = (ms: number) => {
      pauseMs = ms;
    };
    return { proxy, lag, ...watched };
  }

  type Behind = Awaited<ReturnType<typeof behindProxy>>;

  const untilTrusted = (verifier: Verifier) =>
    vi.waitFor(() => expect(verifier.status().trusted).toBe(true), { timeout: 15_000, interval: 5 });

  it.each([
    ['cut', ({ proxy }: Behind) => proxy.cut()],
    ['stalled', ({ proxy }: Behind) => proxy.stall()],
    ['delayed by 5 s, byte by byte', ({ proxy }: Behind) => proxy.delay(5_000)],
    ['read 3 s late', ({ lag }: Behind) => lag(3_000)],
  ])('is %s: nothing is valid more than 2 s after it was revoked', async (_, disturb) => {
    const behind = await behindProxy();
    const { verifier } = behind;
    await untilTrusted(verifier);
    const revoked = await Promise.all(Array.from({ length: 10 }, () => newKey()));
    for (const { secret = '' } of revoked)
      expect(await verifier.verify(secret)).toMatchObject({ valid: true });
    disturb(behind);
    const late: unknown[] = [];
    await Promise.all(
      revoked.map(async ({ id, secret = '' }, index) => {
        await sleep(index * 300);
        await admin.apiKeys.revoke({ id });
        const revokedAt = performance.now();
        while (performance.now() - revokedAt < 6_500) {
          const askedAt = performance.now();
          const { valid } = await verifier.verify(secret);
          if (valid && askedAt - revokedAt > 2_000) late.push([index, askedAt - revokedAt]);
          await sleep(10);
        }
      }),
    );
    expect(late).toEqual([]);
    expect(verifier.status().trusted).toBe(false);
  });

  it('is delayed by 3 s from the beginning: memory is not used', async () => {
    const { proxy, verifier, asked } = await behindProxy();
    // What is held back for longer than 5 s counts as silence, and says nothing of clocks.
    proxy.delay(3_000);
    proxy.cut();
    proxy.restore();
    proxy.delay(3_000);
    const { secret = '' } = await newKey();
    const startedAt = performance.now();
    let verified = 0;
    while (performance.now() - startedAt < 7_000) {
      expect(await verifier.verify(secret)).toMatchObject({ valid: true });
      expect(verifier.status().trusted).toBe(false);
      verified++;
      await sleep(50);
    }
    expect(asked()).toBe(verified);
  });

  it('goes on where it was, and what was revoked meanwhile is not valid any more', async () => {
    const { proxy, verifier, asked } = await behindProxy();
    await untilTrusted(verifier);
    const [gone, kept] = [await newKey(), await newKey()];
    for (const { secret = '' } of [gone, kept]) await verifier.verify(secret);
    proxy.cut();
    await admin.apiKeys.revoke({ id: gone.id });
    await vi.waitFor(() => expect(verifier.status().trusted).toBe(false), { timeout: 5_000 });
    proxy.restore();
    await untilTrusted(verifier);
    const before = asked();
    expect(await verifier.verify(kept.secret ?? '')).toMatchObject({ valid: true });
    expect(asked()).toBe(before);
    expect(await verifier.verify(gone.secret ?? '')).toMatchObject({ valid: false, reason: 'revoked' });
  });
});

describe('answers that are late', () => {
  const LATE = sizeOf('LATE_ANSWERS', 100);

  it('are not remembered when something was told of them since they were asked for', {
    timeout: 30_000 + LATE * 40,
  }, async () => {
    const late: Promise<unknown>[] = [];
    let delayMs = 0;
    const slow = async (url: string | URL | Request, init?: RequestInit) => {
      const response = await fetch(url, init);
      if (!String(url).includes('/v1/verify') || delayMs === 0) return response;
      const text = await response.text();
      const waiting = sleep(delayMs);
      late.push(waiting);
      await waiting;
      return new Response(text, response);
    };
    const { verifier } = await openVerifier({ fetch: slow as typeof fetch });
    let validBefore = 0;
    for (let round = 0; round < LATE / 100; round++) {
      const made = await Promise.all(Array.from({ length: 100 }, () => newKey()));
      delayMs = 500;
      const answers = await Promise.all(
        made.map(async ({ id, secret = '' }) => {
          const answering = verifier.verify(secret);
          // Judged by the server by then, and on its way back.
          await sleep(100);
          await admin.apiKeys.revoke({ id });
          return answering;
        }),
      );
      validBefore += answers.filter(({ valid }) => valid).length;
      delayMs = 0;
      await sleep(100);
      const after = await Promise.all(made.map(({ secret = '' }) => verifier.verify(secret)));
      expect(after.filter(({ valid }) => valid)).toEqual([]);
    }
    expect(late.length).toBeGreaterThan(0);
    expect(validBefore).toBeGreaterThan(LATE / 2);
  });
});

describe('who begins after a revocation was told', () => {
  it('is not answered by a request that was sent before it', async () => {
    let delayMs = 0;
    const slow = async (url: string | URL | Request, init?: RequestInit) => {
      const response = await fetch(url, init);
      if (!String(url).includes('/v1/verify') || delayMs === 0) return response;
      const text = await response.text();
      await sleep(delayMs);
      return new Response(text, response);
    };
    const { verifier } = await openVerifier({ fetch: slow as typeof fetch });
    const { id, secret = '' } = await newKey();
    delayMs = 600;
    const before = verifier.verify(secret);
    await sleep(150);
    await admin.apiKeys.revoke({ id });
    await sleep(200);
    expect(await verifier.verify(secret)).toMatchObject({ valid: false, reason: 'revoked' });
    await before;
    delayMs = 0;
    expect(await verifier.verify(secret)).toMatchObject({ valid: false, reason: 'revoked' });
  });
});

describe('a token for several machines', () => {
  it('has at each of them the scopes that its machine scope allows there', async () => {
    const sender = await admin.machines.create({ name: `sender ${++machines}` });
    const [one, two] = [
      await admin.machines.create({ name: `one ${machines}` }),
      await admin.machines.create({ name: `two ${machines}` }),
    ];
    await admin.machineScopes.create({ fromMachineId: sender.id, toMachineId: one.id, scopes: ['read'] });
    await admin.machineScopes.create({ fromMachineId: sender.id, toMachineId: two.id, scopes: ['write'] });
    const minter = createCountersign({ url: server.url, machineSecretKey: sender.secret });
    const { verifier } = await openVerifier();
    for (let i = 0; i < 3; i++) {
      const { token = '' } = await minter.m2mTokens.create({ format: 'jwt' });
      expect(await verifier.verify(token, { audience: one.id })).toMatchObject({ scopes: ['read'] });
      expect(await verifier.verify(token, { audience: two.id })).toMatchObject({ scopes: ['write'] });
      expect(await verifier.verify(token, { audience: one.id, scopes: ['write'] })).toMatchObject({
        reason: 'insufficient_scope',
      });
    }
  });
});

describe('a machine that is deleted', () => {
  it('is no audience any more, of tokens seen before and of new ones, also to who begins later', async () => {
    const { mint, receiver } = await newPair();
    const { verifier } = await openVerifier({ audience: receiver.id });
    const [seen, fresh, later] = [await mint(), await mint(), await mint()];
    expect(await verifier.verify(seen.token ?? '')).toMatchObject({ valid: true });
    await admin.machines.delete({ id: receiver.id });
    for (const { token = '' } of [seen, fresh])
      await vi.waitFor(async () => expect(await verifier.verify(token)).toMatchObject({ valid: false }), {
        timeout: 1_000,
      });
    const other = await newPair();
    const late = await openVerifier({ audience: receiver.id });
    const known = await other.mint();
    await late.verifier.verify(known.token ?? '', { audience: other.receiver.id });
    expect(await late.verifier.verify(later.token ?? '')).toMatchObject({ valid: false });
  });
});

describe('a machine that names another as the audience', () => {
  it('is answered as the server answers it', async () => {
    const { mint, receiver, sender } = await newPair();
    const { verifier } = await openVerifier({ machineSecretKey: receiver.secret ?? '' });
    for (let i = 0; i < 3; i++) {
      const { token = '' } = await mint();
      expect(await verifier.verify(token)).toMatchObject({ valid: true });
      expect(await verifier.verify(token, { audience: sender.id })).toEqual({
        valid: false,
        reason: 'unknown',
      });
      expect(await verifier.verify(token, { audience: receiver.id })).toMatchObject({ valid: true });
    }
  });
});

describe('made-up values', () => {
  const UNKNOWN = sizeOf('UNKNOWN', 5_000);

  it('drive out nothing, open no breaker, and stay bounded', { timeout: 30_000 + UNKNOWN * 6 }, async () => {
    const { verifier, events } = await openVerifier({ rememberMax: 2_000 });
    const hot: string[] = [];
    for (let i = 0; i < UNKNOWN / 50; i += 20)
      hot.push(...(await Promise.all(Array.from({ length: 20 }, async () => (await newKey()).secret ?? ''))));
    await Promise.all(hot.map((value) => verifier.verify(value)));
    let fromMemory = 0;
    let verified = 0;
    for (let round = 0; round < UNKNOWN / 100; round++) {
      const unknown = Array.from({ length: 100 }, () => formatValue('ak_', randomBytes(32)));
      const answers = await Promise.all(unknown.map((value) => verifier.verify(value)));
      expect(answers.every(({ valid }) => !valid)).toBe(true);
      for (const value of hot) {
        const before = events.length;
        expect(await verifier.verify(value)).toMatchObject({ valid: true });
        const [event] = events.slice(before);
        verified++;
        if (event?.type === 'verified' && event.from === 'memory') fromMemory++;
      }
      expect(verifier.status().remembered).toBeLessThanOrEqual(2_200);
      events.length = 0;
    }
    expect(fromMemory / verified).toBeGreaterThanOrEqual(0.99);
    expect(await verifier.verify(formatValue('ak_', randomBytes(32)))).toEqual({
      valid: false,
      reason: 'unknown',
    });
  });

  it('of one address are looked up so often and no more, while others are served', async () => {
    const { verifier, asked } = await openVerifier({ unknownPerMinuteMax: 5 });
    const made = Array.from({ length: 8 }, () => formatValue('ak_', randomBytes(32)));
    const answers = await Promise.all(
      made.map((value) => verifier.verify(value, { clientAddress: '192.0.2.1' })),
    );
    const reasons = answers.map((answer) => (answer.valid ? 'valid' : answer.reason));
    expect(reasons.sort()).toEqual([...Array(3).fill('rate_limited'), ...Array(5).fill('unknown')]);
    expect(asked()).toBe(5);
    const { secret = '' } = await newKey();
    expect(await verifier.verify(secret, { clientAddress: '192.0.2.2' })).toMatchObject({ valid: true });
    // What is remembered costs nobody anything.
    expect(await verifier.verify(secret, { clientAddress: '192.0.2.1' })).toMatchObject({ valid: true });
  });

  it('as JWTs with keys of their own have the JWKS fetched once', async () => {
    let fetched = 0;
    const counting = ((url: string | URL | Request, init?: RequestInit) => {
      if (String(url).endsWith('jwks.json')) fetched++;
      return fetch(url, init);
    }) as typeof fetch;
    const { mint, receiver } = await newPair();
    const { verifier, asked } = await openVerifier({ audience: receiver.id, fetch: counting });
    const { token = '' } = await mint();
    expect(await verifier.verify(token)).toMatchObject({ valid: true });
    const [, payload = '', signature = ''] = token.split('.');
    const before = asked();
    for (let i = 0; i < 1_000; i++) {
      const header = { alg: 'RS256', typ: 'JWT', cat: 'cl_B7d4PD333AAA', kid: `key_${i}` };
      const forged = `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${payload}.${signature}`;
      expect(await verifier.verify(forged)).toEqual({ valid: false, reason: 'unknown' });
    }
    expect(fetched).toBeLessThanOrEqual(2);
    expect(asked()).toBe(before);
  });
});

describe('a server that ends', () => {
  it('and comes back: what was revoked in between is not valid 2 s later, nor ever again', async () => {
    const folder = freshFolder();
    const first = await startServer(folder, { COUNTERSIGN_LOG_LEVEL: 'warn' });
    const own = createCountersign({ url: first.url, secretKey: first.adminKey });
    const [gone, kept] = await Promise.all(
      ['gone', 'kept'].map((name) => own.apiKeys.create({ name, subject: 'user_1' })),
    );
    const { verifier } = await openVerifier({ url: first.url, secretKey: first.adminKey });
    for (const key of [gone, kept])
      expect(await verifier.verify(key?.secret ?? '')).toMatchObject({ valid: true });
    await first.stop('SIGKILL');
    await vi.waitFor(() => expect(verifier.status().trusted).toBe(false), { timeout: 3_000, interval: 5 });
    await expect(verifier.verify(kept?.secret ?? '')).rejects.toMatchObject({ code: 'network' });

    const second = await startServer(folder, {
      COUNTERSIGN_LOG_LEVEL: 'warn',
      PORT: new URL(first.url).port,
    });
    const again = createCountersign({ url: second.url, secretKey: first.adminKey });
    await again.apiKeys.revoke({ id: gone?.id ?? '' });
    await vi.waitFor(
      async () => expect(await verifier.verify(gone?.secret ?? '')).toMatchObject({ reason: 'revoked' }),
      { timeout: 15_000 },
    );
    await vi.waitFor(() => expect(verifier.status().trusted).toBe(true), { timeout: 15_000 });
    expect(await verifier.verify(gone?.secret ?? '')).toMatchObject({ reason: 'revoked' });
    expect(await verifier.verify(kept?.secret ?? '')).toMatchObject({ valid: true });
  });

  it('and is another database then: everything is forgotten', async () => {
    const { secret = '' } = await newKey();
    const other = await startServer(freshFolder(), {
      COUNTERSIGN_LOG_LEVEL: 'warn',
      COUNTERSIGN_BOOTSTRAP_KEY: server.adminKey,
    });
    const proxy = await startProxy(server.url);
    const { verifier, events } = await openVerifier({ url: proxy.url });
    expect(await verifier.verify(secret)).toMatchObject({ valid: true });
    proxy.redirect(other.url);
    proxy.cut();
    proxy.restore();
    await vi.waitFor(() => expect(events.map(({ type }) => type)).toContain('reset'), { timeout: 10_000 });
    await vi.waitFor(() => expect(verifier.status().trusted).toBe(true), { timeout: 10_000 });
    expect(await verifier.verify(secret)).toEqual({ valid: false, reason: 'unknown' });
  });

  it('or was not there from the beginning is waited for', async () => {
    const { verifier } = await openVerifier({ url: 'http://127.0.0.1:1' }, false);
    const startedAt = performance.now();
    const refused: string[] = [];
    for (let i = 0; i < 12; i++)
      await verifier.verify(formatValue('ak_', randomBytes(32))).catch(({ code }) => refused.push(code));
    expect(refused).toHaveLength(12);
    // The breaker answers most of them at once.
    expect(new Set(refused)).toEqual(new Set(['network', 'unavailable']));
    expect(performance.now() - startedAt).toBeLessThan(15_000);
  });

  it('is done without for as long as was said, where that was chosen', async () => {
    const folder = freshFolder();
    const ended = await startServer(folder, { COUNTERSIGN_LOG_LEVEL: 'warn' });
    const own = createCountersign({ url: ended.url, secretKey: ended.adminKey });
    const { secret = '' } = await own.apiKeys.create({ name: 'script', subject: 'user_1' });
    const { verifier, events } = await openVerifier({
      url: ended.url,
      secretKey: ended.adminKey,
      onUnavailable: 'stale',
      staleMsMax: 6_000,
    });
    expect(await verifier.verify(secret)).toMatchObject({ valid: true });
    await ended.stop('SIGKILL');
    await vi.waitFor(() => expect(verifier.status().trusted).toBe(false), { timeout: 3_000 });
    expect(await verifier.verify(secret)).toMatchObject({ valid: true });
    expect(events.at(-1)).toMatchObject({ type: 'verified', from: 'stale' });
    await sleep(6_000);
    await expect(verifier.verify(secret)).rejects.toBeInstanceOf(CountersignError);
  });
});

describe('createVerifier()', () => {
  it.each([
    ['no URL', { url: 'example' }],
    ['http off loopback', { url: 'http://example.com' }],
    ['both keys', { machineSecretKey: 'msk_x' }],
    ['no bound for what is stale', { onUnavailable: 'stale' as const }],
    ['a bound of more than an hour', { onUnavailable: 'stale' as const, staleMsMax: 3_600_001 }],
    ['nothing remembered', { rememberMax: 0 }],
  ])('refuses %s', (_, options) => {
    const wrong = () => createVerifier({ url: server.url, secretKey: server.adminKey, ...options });
    expect(wrong).toThrow(CountersignError);
  });
});
