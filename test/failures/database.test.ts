import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { describe, expect, it, vi } from 'vitest';
import { freshFolder, MASTER_KEY } from '../support/deps.ts';
import { followFeed } from '../support/feed.ts';
import { ownPostgres } from '../support/postgres.ts';
import { startReceiver } from '../support/receiver.ts';
import { type RunningServer, send, startServer } from '../support/server.ts';
import { describeMode } from '../workers/transports.ts';

/** Connections are given up after five seconds, and whoever waits for a lock is refused then. */
const ANSWER_MS_MAX = 8_000;

async function done(server: RunningServer, path: string, input: unknown) {
  const { body } = await server.call(path, input);
  expect(body.error).toBeUndefined();
  return body.result.data;
}

const newKey = (server: RunningServer, name: string) =>
  done(server, 'apiKeys.create', { name, subject: 'user_1' });

async function verify(server: RunningServer, credential: string) {
  const { status, body } = await send(`${server.url}/v1/verify`, {
    method: 'POST',
    headers: { authorization: `Bearer ${server.adminKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({ credential }),
  });
  return { status, ...body };
}

const UNAVAILABLE = { status: 503, errors: [{ code: 'unavailable' }] };

describeMode('a server whose PostgreSQL is stopped', ['postgres'], () => {
  it('refuses as unavailable and in time, is not ready, and goes on by itself where it was', async () => {
    const postgres = await ownPostgres();
    await postgres.start();
    const receiver = await startReceiver();
    const server = await startServer(freshFolder(), {
      DATABASE_URL: postgres.url,
      COUNTERSIGN_MASTER_KEY: MASTER_KEY.toString('base64'),
      COUNTERSIGN_LOG_LEVEL: 'silent',
    });
    await done(server, 'webhookEndpoints.create', { url: receiver.url, eventTypes: ['api_key.revoked'] });
    const [one, other] = [await newKey(server, 'one'), await newKey(server, 'other')];
    const feed = await followFeed(server.url, server.adminKey);
    await feed.until(({ event }) => event === 'heartbeat');

    await postgres.stop();
    const began = performance.now();
    expect(await verify(server, one.secret)).toMatchObject(UNAVAILABLE);
    const refused = await server.call('apiKeys.revoke', { id: one.id });
    expect([refused.status, refused.body.error?.data.code]).toEqual([503, 'unavailable']);
    expect((await send(`${server.url}/readyz`)).status).toBe(503);
    expect((await send(`${server.url}/healthz`)).status).toBe(200);
    expect(performance.now() - began).toBeLessThan(ANSWER_MS_MAX);
    // Whoever trusts memory must be told that nobody reads the log: no heartbeat.
    const beats = feed.ids('heartbeat').length;
    await sleep(1_200);
    expect(feed.ids('heartbeat')).toHaveLength(beats);

    await postgres.start();
    await vi.waitFor(async () => expect((await send(`${server.url}/readyz`)).status).toBe(200), {
      timeout: 10_000,
    });
    expect(await verify(server, one.secret)).toMatchObject({ valid: true });
    await done(server, 'apiKeys.revoke', { id: other.id });
    expect(await verify(server, other.secret)).toMatchObject({ valid: false, reason: 'revoked' });
    await feed.until(({ event, data }) => event === 'invalidate' && data.id === other.id);
    expect((await receiver.arrived(1)).payload.data).toMatchObject({ objectId: other.id });
  });
});

describe('a server whose SQLite file another process locks', () => {
  it('verifies, refuses changes as unavailable after some seconds, and makes them once it is free', async () => {
    const server = await startServer(freshFolder());
    const key = await newKey(server, 'locked');
    const other = new Database(`${server.dataDir}/countersign.db`);
    other.exec('BEGIN EXCLUSIVE');
    const began = performance.now();
    const revoking = server.call('apiKeys.revoke', { id: key.id });
    // Its usage is counted, and written later: nothing of a verification waits for the lock.
    while (performance.now() - began < 3_000) {
      const asked = performance.now();
      expect(await verify(server, key.secret)).toMatchObject({ valid: true });
      expect(performance.now() - asked).toBeLessThan(1_000);
    }
    const { status, body } = await revoking;
    expect([status, body.error?.data.code]).toEqual([503, 'unavailable']);
    expect(performance.now() - began).toBeLessThan(ANSWER_MS_MAX);

    other.exec('ROLLBACK');
    other.close();
    await done(server, 'apiKeys.revoke', { id: key.id });
    expect(await verify(server, key.secret)).toMatchObject({ valid: false, reason: 'revoked' });
  });
});
