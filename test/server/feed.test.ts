import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import type { Deps, Role } from '../../server/deps.ts';
import {
  createApiKey,
  createApiKeyInput,
  revokeApiKey,
  revokeApiKeyInput,
} from '../../server/domain/api-keys.ts';
import { change } from '../../server/domain/events.ts';
import {
  createM2mToken,
  createM2mTokenInput,
  revokeM2mToken,
  revokeM2mTokenInput,
} from '../../server/domain/m2m-tokens.ts';
import { createMachineScope, createMachineScopeInput } from '../../server/domain/machine-scopes.ts';
import { deleteMachine, setMachineEnabled, updateMachine } from '../../server/domain/machines.ts';
import { createSecretKey, createSecretKeyInput, revokeSecretKey } from '../../server/domain/secret-keys.ts';
import { createFeeds } from '../../server/feed.ts';
import { createHotRoutes } from '../../server/hot.ts';
import { createLogger } from '../../server/logger.ts';
import { callerWith, describeOnEachDialect, openTestDeps, type TestDeps } from '../support/deps.ts';
import { type Following, followFeed } from '../support/feed.ts';
import { newMachine } from '../support/machines.ts';
import { send } from '../support/server.ts';
import { newSite, startAt } from '../support/site.ts';

const admin = callerWith('admin');

async function serve(deps: Deps): Promise<string> {
  const feeds = createFeeds(deps, createLogger('silent'));
  const routes = createHotRoutes({ deps, feeds, addressOf: ({ socket }) => socket.remoteAddress ?? '' });
  const server = createServer((request, response) => {
    if (!routes(request, response, 'req_1', 0)) response.writeHead(404).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    feeds.close();
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Appends an event about an API key that there is not. */
const append = (deps: TestDeps, objectId: string) =>
  change(deps, admin, async () => ({
    result: objectId,
    event: { type: 'api_key.revoked', objectId, subject: 'user_1', data: { name: 'not told' } },
  }));

const keyWith = async (deps: TestDeps, role: Role) => {
  const { id, secret = '' } = await createSecretKey(
    deps,
    admin,
    createSecretKeyInput.parse({ name: role, role }),
  );
  return { id, secret };
};

const allow = (deps: TestDeps, fromMachineId: string, toMachineId: string) =>
  createMachineScope(deps, admin, createMachineScopeInput.parse({ fromMachineId, toMachineId, scopes: [] }));

const mint = (deps: TestDeps, machine: { caller: typeof admin }) =>
  createM2mToken(deps, machine.caller, createM2mTokenInput.parse({}));

const revoke = (deps: TestDeps, id: string) => revokeM2mToken(deps, admin, revokeM2mTokenInput.parse({ id }));

const objectIds = (feed: Following) =>
  feed.told.flatMap(({ event, data }) =>
    event === 'invalidate' ? [data.id ?? JSON.stringify(data.selector)] : [],
  );

const keysFor = async (deps: TestDeps, count: number) =>
  Promise.all(Array.from({ length: count }, async () => (await keyWith(deps, 'verify')).secret));

/** Ten connections by each key, as many as one may have. */
const followAll = async (url: string, secrets: readonly string[]) =>
  (
    await Promise.all(
      secrets.map((secret) => Promise.all(Array.from({ length: 10 }, () => followFeed(url, secret)))),
    )
  ).flat();

describeOnEachDialect('GET /v1/feed', (dialect) => {
  it('opens with a complete snapshot, goes on with what is committed, and beats', async () => {
    const deps = await openTestDeps(dialect);
    const url = await serve(deps);
    const { secret } = await keyWith(deps, 'verify');
    const feed = await followFeed(url, secret);
    expect(feed.status).toBe(200);
    expect(feed.response.headers).toMatchObject({
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
    });
    expect(await feed.snapshot()).toEqual([]);
    await feed.until(({ event }) => event === 'heartbeat');
    deps.clock.now += 1;
    const committedAt = performance.now();
    await append(deps, 'ak_1');
    const { id, data, receivedAt } = await feed.until(({ event }) => event === 'invalidate');
    expect(receivedAt - committedAt).toBeLessThan(400);
    const [, epoch] = /^([0-9a-f]{16})-3$/.exec(id ?? '') ?? [];
    expect(epoch).toBeDefined();
    expect(data).toEqual({ seq: 3, at: deps.clock.now, kind: 'api_key', id: 'ak_1', reason: 'revoked' });
    const beat = await feed.until(({ event, data }) => event === 'heartbeat' && data.seq === 3);
    expect(beat).toMatchObject({ id: `${epoch}-3`, data: { readAt: deps.clock.now, seq: 3 } });
    expect(feed.told.filter(({ event }) => event === 'signing_key')).toMatchObject([
      { data: { state: 'active' } },
    ]);
  });

  it('is for the roles that may follow it, by GET, with the credential in the header alone', async () => {
    const deps = await openTestDeps(dialect);
    const url = await serve(deps);
    for (const role of ['admin', 'read', 'verify'] as const) {
      const feed = await followFeed(url, (await keyWith(deps, role)).secret);
      expect(feed.status).toBe(200);
      feed.close();
    }
    for (const role of ['issuer', 'interaction'] as const)
      expect((await followFeed(url, (await keyWith(deps, role)).secret)).status).toBe(403);
    expect((await send(`${url}/v1/feed?key=${deps.adminKey}`)).status).toBe(401);
    const posted = await send(`${url}/v1/feed`, { method: 'POST' });
    expect([posted.status, posted.headers.get('allow')]).toEqual([405, 'GET']);
  });

  it('resumes after the last event without a gap or a repetition, under writers that go on', async () => {
    const deps = await openTestDeps(dialect);
    const url = await serve(deps);
    const told: string[] = [];
    let lastEventId: string | undefined;
    let isOver = false;
    const written: string[] = [];
    const writing = Promise.all(
      [0, 1, 2, 3].map(async (writer) => {
        for (let i = 0; i < 60; i++) {
          written.push(await append(deps, `ak_${writer}_${i}`));
          await sleep(3);
        }
      }),
    ).then(() => {
      isOver = true;
    });
    const first = await followFeed(url, deps.adminKey);
    const snapshotSeq = await first
      .until(({ event }) => event === 'snapshot')
      .then(({ id }) => Number(id?.split('-')[1]));
    for (
      let feed = first;
      ;
      feed = await followFeed(url, deps.adminKey, { ...(lastEventId && { lastEventId }) })
    ) {
      await sleep(40);
      const isLast = isOver;
      if (isLast) await feed.until(({ event }) => event === 'heartbeat');
      feed.close();
      await feed.ended;
      lastEventId = feed.lastId() || lastEventId;
      told.push(...feed.told.flatMap(({ event, data }) => (event === 'invalidate' ? [data.seq] : [])));
      expect(feed.told.some(({ event }) => event === 'reset')).toBe(false);
      if (isLast) break;
    }
    await writing;
    expect(told).toEqual(Array.from({ length: 241 - snapshotSeq }, (_, i) => snapshotSeq + 1 + i));
  });

  it('says reset, and begins with a snapshot, when the cursor is of another epoch, ahead, pruned or none at all', async () => {
    const deps = await openTestDeps(dialect);
    const url = await serve(deps);
    for (const id of ['ak_1', 'ak_2', 'ak_3']) await append(deps, id);
    await deps.store.tx(async ({ db, tables }) => {
      await db.insert(tables.eventAnchor).values({ id: 1, seq: 2, hash: Buffer.alloc(32), at: 0 });
    });
    const known = await followFeed(url, deps.adminKey);
    await known.snapshot();
    const [epoch] = known.lastId().split('-');
    for (const lastEventId of [`${'0'.repeat(16)}-3`, `${epoch}-5`, `${epoch}-1`, 'garbage', '']) {
      const feed = await followFeed(url, deps.adminKey, { lastEventId });
      expect(await feed.snapshot()).toEqual([]);
      expect(feed.told.map(({ event }) => event)).toEqual(['reset', 'signing_key', 'snapshot']);
      expect(feed.lastId()).toBe(`${epoch}-4`);
      feed.close();
      await feed.ended;
    }
    for (const [after, ids] of [
      [2, ['ak_2', 'ak_3']],
      [4, []],
    ] as const) {
      const feed = await followFeed(url, deps.adminKey, { lastEventId: `${epoch}-${after}` });
      await feed.until(({ event }) => event === 'heartbeat');
      expect(feed.told.map(({ event }) => event)).toEqual([...ids.map(() => 'invalidate'), 'heartbeat']);
      expect(objectIds(feed)).toEqual(ids);
      feed.close();
      await feed.ended;
    }
  });

  it('tells a machine what concerns tokens addressed to itself, and of API keys if it may verify them', async () => {
    const deps = await openTestDeps(dialect);
    const url = await serve(deps);
    const a = await newMachine(deps, 'a');
    const b = await newMachine(deps, 'b');
    const c = await newMachine(deps, 'c');
    const v = await newMachine(deps, 'v', { mayVerify: true });
    await allow(deps, a.id, b.id);
    await allow(deps, a.id, v.id);
    await allow(deps, b.id, c.id);
    const tokens = { a: await mint(deps, a), b: await mint(deps, b) };
    const feeds = await Promise.all([b, c, v].map(({ secret }) => followFeed(url, secret)));
    for (const feed of feeds) await feed.until(({ event }) => event === 'heartbeat');
    await revoke(deps, tokens.a.id);
    await revoke(deps, tokens.b.id);
    await append(deps, 'ak_1');
    await setMachineEnabled(deps, admin, a.id, false);
    await deleteMachine(deps, admin, a.id);
    const seq = 13;
    for (const feed of feeds) await feed.until(({ event, data }) => event === 'heartbeat' && data.seq >= seq);
    expect(feeds.map(objectIds)).toEqual([
      [tokens.a.id, a.id, a.id],
      [tokens.b.id],
      [tokens.a.id, 'ak_1', a.id, a.id],
    ]);
    const resumed = await followFeed(url, b.secret, { lastEventId: feeds[0]?.told[1]?.id ?? '' });
    await resumed.until(({ event }) => event === 'heartbeat');
    expect(objectIds(resumed)).toEqual([tokens.a.id, a.id, a.id]);
    // A snapshot is read once for all who come at about the same time: another server reads its own.
    const fresh = await serve(deps);
    expect(await (await followFeed(fresh, c.secret)).snapshot()).toMatchObject([{ id: tokens.b.id }]);
    expect(await (await followFeed(fresh, b.secret)).snapshot()).toEqual([
      expect.objectContaining({
        kind: 'machine',
        id: a.id,
        selector: { machineId: a.id },
        reason: 'deleted',
      }),
    ]);
  });

  it('a machine that may verify from now on begins anew, and misses nothing of API keys from then on', async () => {
    const deps = await openTestDeps(dialect);
    const url = await serve(deps);
    const m = await newMachine(deps, 'm', { mayVerify: true });
    const { id } = await createApiKey(
      deps,
      admin,
      createApiKeyInput.parse({ name: 'key', subject: 'user_1' }),
    );
    const feed = await followFeed(url, m.secret);
    await feed.until(({ event }) => event === 'heartbeat');
    const cursor = feed.lastId();
    const set = (mayVerify: boolean) => updateMachine(deps, admin, { id: m.id, mayVerify });
    // At once, so that a look at who may follow comes too late, or in between.
    await set(false);
    await revokeApiKey(deps, admin, revokeApiKeyInput.parse({ id }));
    await set(true);
    await append(deps, 'ak_later');
    const seq = 7;
    await feed.until(({ event, data }) => event === 'heartbeat' && data.seq === seq);
    const resumed = await followFeed(url, m.secret, { lastEventId: cursor });
    await resumed.until(({ event, data }) => event === 'heartbeat' && data.seq === seq);
    for (const { told } of [feed, resumed]) {
      const anew = told.slice(told.findLastIndex(({ event }) => event === 'reset'));
      const known = anew.flatMap(({ event, data }) => (event === 'snapshot' ? data.items : [data]));
      expect(anew.map(({ event }) => event).slice(0, 3)).toEqual(['reset', 'signing_key', 'snapshot']);
      expect(known).toContainEqual(expect.objectContaining({ kind: 'api_key', id, reason: 'revoked' }));
      expect(anew).toContainEqual(
        expect.objectContaining({ event: 'invalidate', data: expect.objectContaining({ id: 'ak_later' }) }),
      );
    }
    expect(await set(true)).toMatchObject({ mayVerify: true });
    await append(deps, 'ak_last');
    await feed.until(({ data }) => data.id === 'ak_last');
  });

  it('reads one snapshot for all who come while it is read, however long that takes', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    onTestFinished(() => void vi.useRealTimers());
    const deps = await openTestDeps(dialect);
    const { read } = deps.store;
    let readings = 0;
    let finish = () => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const { signingKeys } = read.tables;
    /** As it is, except that signing keys are read slowly, which only snapshots are here. */
    const db = new Proxy(read.db, {
      get: (target, name) =>
        name === 'select'
          ? (fields: { kid: typeof signingKeys.kid }) => ({
              from: (table: typeof signingKeys) =>
                table === signingKeys
                  ? { orderBy: () => slowly(() => target.select(fields).from(table)) }
                  : target.select(fields).from(table),
            })
          : Reflect.get(target, name),
    });
    const slowly = async (work: () => PromiseLike<unknown>) => {
      readings++;
      await finished;
      return work();
    };
    const url = await serve({ ...deps, store: { ...deps.store, read: { ...read, db } } });
    const first = await followFeed(url, deps.adminKey);
    deps.clock.now += 60_000;
    const second = await followFeed(url, deps.adminKey);
    first.close();
    await first.ended;
    second.close();
    await second.ended;
    const third = await followFeed(url, deps.adminKey);
    finish();
    expect(await third.snapshot()).toEqual([]);
    expect(readings).toBe(1);
    // What was read long ago is not kept.
    const later = await followFeed(url, deps.adminKey);
    expect(await later.snapshot()).toEqual([]);
    expect(readings).toBe(1);
    vi.advanceTimersByTime(5_000);
    expect(await (await followFeed(url, deps.adminKey)).snapshot()).toEqual([]);
    expect(readings).toBe(2);
  });

  it('carries no names, actors or claims', async () => {
    const deps = await openTestDeps(dialect);
    const url = await serve(deps);
    const feed = await followFeed(url, deps.adminKey);
    await feed.snapshot();
    const input = {
      name: 'confidential',
      subject: 'user_1',
      claims: { plan: 'secret plan' },
      createdBy: 'user_9',
    };
    const { id } = await createApiKey(deps, admin, createApiKeyInput.parse(input));
    await revokeApiKey(deps, admin, revokeApiKeyInput.parse({ id, note: 'a private note' }));
    await feed.until(({ event }) => event === 'invalidate');
    const again = await followFeed(await serve(deps), deps.adminKey);
    expect(await again.snapshot()).toMatchObject([{ kind: 'api_key', id, reason: 'revoked' }]);
    for (const word of ['confidential', 'secret plan', 'user_9', 'private', admin.principal.id])
      expect(JSON.stringify([feed.told, again.told])).not.toContain(word);
  });

  it('refuses the eleventh connection of a key with rate_limited, until one of the ten is closed', async () => {
    const deps = await openTestDeps(dialect);
    const url = await serve(deps);
    const feeds = await Promise.all(Array.from({ length: 10 }, () => followFeed(url, deps.adminKey)));
    expect(feeds.map(({ status }) => status)).toEqual(Array(10).fill(200));
    const headers = { authorization: `Bearer ${deps.adminKey}` };
    const refused = await send(`${url}/v1/feed`, { headers });
    expect(refused).toMatchObject({ status: 429, body: { errors: [{ code: 'rate_limited' }] } });
    expect(refused.headers.get('retry-after')).toBe('5');
    const other = await followFeed(url, (await keyWith(deps, 'read')).secret);
    expect(other.status).toBe(200);
    feeds[0]?.close();
    await sleep(100);
    expect((await followFeed(url, deps.adminKey)).status).toBe(200);
  });

  it('tells each of fifty connections everything, in order, and takes no eleventh of any of their keys', async () => {
    const deps = await openTestDeps(dialect);
    const url = await serve(deps);
    const secrets = await keysFor(deps, 5);
    const feeds = await followAll(url, secrets);
    expect(feeds.map(({ status }) => status)).toEqual(Array(50).fill(200));
    for (const secret of secrets) expect((await followFeed(url, secret)).status).toBe(429);
    await Promise.all(feeds.map((feed) => feed.snapshot()));
    const { db, tables } = deps.store.read;
    const [head] = await db.select({ seq: tables.eventHead.seq }).from(tables.eventHead);
    const from = head?.seq ?? 0;
    const events = 40;
    await Promise.all(
      [0, 1, 2, 3].map(async (writer) => {
        for (let i = 0; i < events / 4; i++) await append(deps, `ak_${writer}_${i}`);
      }),
    );
    await Promise.all(feeds.map((feed) => feed.until(({ data }) => data.seq === from + events)));
    const wanted = Array.from({ length: events }, (_, i) => from + 1 + i);
    for (const { told } of feeds)
      expect(told.flatMap(({ event, data }) => (event === 'invalidate' ? [data.seq] : []))).toEqual(wanted);
  });

  it('ends within a second when its key is revoked, expires, or its machine is disabled; others go on', async () => {
    const deps = await openTestDeps(dialect);
    const url = await serve(deps);
    const stays = await followFeed(url, deps.adminKey);
    const revoked = await keyWith(deps, 'verify');
    const expiresAt = deps.clock.now + 60_000;
    const input = createSecretKeyInput.parse({ name: 'short', role: 'verify', expiresAt });
    const { secret: expiring = '' } = await createSecretKey(deps, admin, input);
    const machine = await newMachine(deps, 'm');
    const endings = [
      [revoked.secret, () => revokeSecretKey(deps, admin, { id: revoked.id })],
      [machine.secret, () => setMachineEnabled(deps, admin, machine.id, false)],
      [
        expiring,
        async () => {
          deps.clock.now = expiresAt;
        },
      ],
    ] as const;
    for (const [secret, end] of endings) {
      const feed = await followFeed(url, secret);
      await feed.snapshot();
      await end();
      const endedAt = performance.now();
      await feed.ended;
      expect(performance.now() - endedAt).toBeLessThan(1_000);
    }
    await stays.until(({ event }) => event === 'heartbeat', stays.told.length);
    expect(stays.isEnded()).toBe(false);
  });

  it('drops whoever does not read, once 256 KB wait for it, and tells the others everything', async () => {
    const deps = await openTestDeps(dialect);
    const url = await serve(deps);
    const stalled = await followFeed(url, deps.adminKey, { reads: false });
    const reading = await followFeed(url, deps.adminKey);
    await reading.until(({ event }) => event === 'heartbeat');
    // What the kernel keeps for a connection comes before what we do.
    const events = 300;
    for (let i = 0; i < events; i++) await append(deps, `ak_${i}_${'x'.repeat(20_000)}`);
    await reading.until(({ data }) => data.seq === events + 1);
    expect(objectIds(reading)).toHaveLength(events);
    stalled.response.resume();
    await stalled.ended;
    expect(stalled.response.complete).toBe(false);
    expect(reading.isEnded()).toBe(false);
  });

  it('does not beat while the database cannot be read, and goes on where it was', async () => {
    const deps = await openTestDeps(dialect);
    let isGone = false;
    const { read } = deps.store;
    const store = Object.defineProperty({ ...deps.store }, 'read', {
      get() {
        if (isGone) throw new Error('The database is gone');
        return read;
      },
    });
    const url = await serve({ ...deps, store });
    const feed = await followFeed(url, deps.adminKey);
    await feed.until(({ event }) => event === 'heartbeat');
    isGone = true;
    await append(deps, 'ak_1');
    const told = feed.told.length;
    await sleep(1_300);
    expect(feed.told).toHaveLength(told);
    isGone = false;
    await feed.until(({ data }) => data.id === 'ak_1');
    await feed.until(({ event }) => event === 'heartbeat', told);
    expect(feed.isEnded()).toBe(false);
  });
});

/** A connection that reads what comes and keeps none of it: what follows a thousand times must cost little. */
async function followBlindly(url: string, secret: string) {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  onTestFinished(() => void socket.destroy());
  socket.write(`GET /v1/feed HTTP/1.1\r\nHost: ${hostname}\r\nAuthorization: Bearer ${secret}\r\n\r\n`);
  const [head] = await once(socket, 'data');
  socket.resume();
  return { socket, status: Number(String(head).split(' ')[1]) };
}

describe('a thousand feeds', () => {
  it('are as many as there may be: the next is refused with rate_limited until one is closed', {
    timeout: 60_000,
  }, async () => {
    const deps = await openTestDeps('sqlite');
    const url = await serve(deps);
    const secrets = await keysFor(deps, 100);
    const feeds = (
      await Promise.all(
        secrets.map((secret) => Promise.all(Array.from({ length: 10 }, () => followBlindly(url, secret)))),
      )
    ).flat();
    expect(feeds.filter(({ status }) => status === 200)).toHaveLength(1_000);
    const headers = { authorization: `Bearer ${deps.adminKey}` };
    const refused = await send(`${url}/v1/feed`, { headers });
    expect(refused).toMatchObject({ status: 429, body: { errors: [{ code: 'rate_limited' }] } });
    feeds[0]?.socket.destroy();
    const next = () => followBlindly(url, deps.adminKey);
    await expect.poll(async () => (await next()).status).toBe(200);
  });
});

describeOnEachDialect('the feed of one server', (dialect) => {
  it('tells what is revoked at another within 50 ms or so, ends in order with its server, and is resumed at the other', async () => {
    const site = await newSite(dialect, 2);
    const one = await startAt(site, 0);
    const other = await startAt(site, 1);
    const key = one.adminKey;
    const feed = await followFeed(other.url, key);
    await feed.until(({ event }) => event === 'heartbeat');
    const delays: number[] = [];
    for (let i = 0; i < 20; i++) {
      const { body } = await one.call('apiKeys.create', { name: `key ${i}`, subject: 'user_1' }, key);
      const { id } = body.result.data;
      await one.call('apiKeys.revoke', { id }, key);
      const answeredAt = performance.now();
      const { receivedAt } = await feed.until(({ data }) => data.id === id);
      delays.push(receivedAt - answeredAt);
    }
    expect(delays.sort((a, b) => a - b)[10]).toBeLessThan(100);
    expect(await other.stop()).toBe(0);
    await feed.ended;
    const { body } = await one.call('apiKeys.create', { name: 'later', subject: 'user_1' }, key);
    await one.call('apiKeys.disable', { id: body.result.data.id }, key);
    const resumed = await followFeed(one.url, key, { lastEventId: feed.lastId() });
    await resumed.until(({ event }) => event === 'heartbeat');
    expect(objectIds(resumed)).toEqual([body.result.data.id]);
    expect(await one.stop()).toBe(0);
  });
});
