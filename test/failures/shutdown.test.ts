import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, inject, it, vi } from 'vitest';
import { openStore } from '../../db/store.ts';
import { freshFolder } from '../support/deps.ts';
import { startReceiver } from '../support/receiver.ts';
import {
  type Launched,
  type RunningServer,
  send,
  startServer,
  startWorkersApart,
} from '../support/server.ts';
import { freePort } from '../support/services.ts';
import { describeMode } from '../workers/transports.ts';

/** Of each four at once: with these, more is claimed than one process does at the same time. */
const ENDPOINTS = 24;
const KEYS = 20;
const OWED = ENDPOINTS * KEYS;
/** Well below what a process gives itself, and what orchestrators give it: the slowest answer is a second away. */
const SHUTDOWN_MS_MAX = 10_000;
/** Long enough to be under way when the signal comes, and different for each. */
const answerMs = () => 100 + Math.random() * 900;

async function done(server: RunningServer, path: string, input: unknown) {
  const { status, body } = await server.call(path, input);
  expect([status, body.error]).toEqual([200, undefined]);
  return body.result.data;
}

/** Every delivery, and what came of each attempt at it. */
async function deliveriesIn(dataDir: string) {
  const store = await openStore({ location: join(dataDir, 'countersign.db') });
  try {
    const { db, tables } = store.read;
    const attempts = await db.select().from(tables.deliveryAttempts);
    return (await db.select().from(tables.deliveries)).map((row) => ({
      state: row.state,
      outcomes: attempts.filter((attempt) => attempt.delivery_id === row.id).map(({ status }) => status),
    }));
  } finally {
    await store.close();
  }
}

interface Started {
  server: RunningServer;
  /** All that has to leave. */
  processes: readonly Launched[];
}

function suite(start: (dataDir: string, port: string) => Promise<Started>, lateMs: number) {
  it('SIGTERM with hundreds of deliveries under way: all leave in time, every attempt has its outcome or its delivery is owed, and the next start sends it', {
    timeout: 180_000,
  }, async () => {
    const dataDir = freshFolder();
    const port = `${await freePort()}`;
    let answered = 0;
    const receiver = await startReceiver(async () => {
      await sleep(answerMs());
      answered++;
      return 200;
    });
    const { server, processes } = await start(dataDir, port);
    for (let i = 0; i < ENDPOINTS; i++)
      await done(server, 'webhookEndpoints.create', {
        url: `${receiver.url}/${i}`,
        eventTypes: ['api_key.created'],
      });
    for (let i = 0; i < KEYS; i++) await done(server, 'apiKeys.create', { name: `${i}`, subject: 'user_1' });
    await vi.waitFor(
      async () => expect((await done(server, 'deliveries.list', { limit: 500 })).data).toHaveLength(OWED),
      { timeout: 20_000, interval: 100 },
    );
    await receiver.arrived(40);

    // Under load to the end: who asks is answered, or told to go elsewhere.
    let isOver = false;
    const asking = Promise.all(
      [1, 2, 3, 4].map(async () => {
        while (!isOver) {
          const answer = await send(`${server.url}/readyz`).catch(() => null);
          if (answer === null) return;
          expect([200, 503]).toContain(answer.status);
        }
      }),
    );
    const began = performance.now();
    for (const { process } of processes) process.kill('SIGTERM');
    expect(await Promise.all(processes.map(({ exit }) => exit))).toEqual(processes.map(() => 0));
    expect(performance.now() - began).toBeLessThan(SHUTDOWN_MS_MAX);
    isOver = true;
    await asking;

    const left = await deliveriesIn(dataDir);
    expect(left).toHaveLength(OWED);
    const delivered = left.filter(({ state }) => state === 'delivered');
    // What the receiver answered is what is written down: no attempt was cut off, and none is unknown.
    expect(receiver.received).toHaveLength(answered);
    expect(delivered).toHaveLength(answered);
    for (const { outcomes } of delivered) expect(outcomes).toEqual([200]);
    const owed = left.filter(({ state }) => state === 'pending');
    expect(delivered.length + owed.length).toBe(OWED);
    expect(owed.length).toBeGreaterThan(OWED / 4);
    for (const { outcomes } of owed) expect(outcomes).toEqual([]);

    const again = await start(dataDir, port);
    await vi.waitFor(() => expect(receiver.received).toHaveLength(OWED), { timeout: lateMs, interval: 200 });
    const times = new Map<string, number>();
    for (const { headers } of receiver.received) {
      const id = String(headers['webhook-id']);
      times.set(id, (times.get(id) ?? 0) + 1);
    }
    expect([...times.values()]).toEqual(Array(KEYS).fill(ENDPOINTS));
    for (const { process } of again.processes) process.kill('SIGTERM');
    expect(await Promise.all(again.processes.map(({ exit }) => exit))).toEqual(again.processes.map(() => 0));
    expect((await deliveriesIn(dataDir)).filter(({ state }) => state !== 'delivered')).toEqual([]);
  });
}

describeMode('a server that works by itself', [], () =>
  suite(async (dataDir, PORT) => {
    const server = await startServer(dataDir, { PORT, COUNTERSIGN_LOG_LEVEL: 'error' });
    return { server, processes: [server] };
  }, 60_000),
);

describeMode('a server and workers apart, over BullMQ', ['redis'], () =>
  suite(async (dataDir, PORT) => {
    const env = { REDIS_URL: inject('redis').url ?? '', COUNTERSIGN_LOG_LEVEL: 'info' };
    const server = await startServer(dataDir, { PORT, ...env }, { args: ['--server-only'] });
    const workers = await startWorkersApart({ COUNTERSIGN_DATA_DIR: dataDir, ...env });
    return { server, processes: [server, workers] };
  }, 90_000),
);

it('SIGTERM while a client hangs: nothing new is begun for as long as that is waited for', {
  timeout: 60_000,
}, async () => {
  const dataDir = freshFolder();
  const server = await startServer(dataDir, { COUNTERSIGN_LOG_LEVEL: 'info' });
  const receiver = await startReceiver(() => 500);
  await done(server, 'webhookEndpoints.create', { url: receiver.url, eventTypes: ['api_key.created'] });
  const client = connect(Number(new URL(server.url).port), '127.0.0.1');
  client.on('error', () => {}).resume();
  client.write('POST /v1/verify HTTP/1.1\r\nHost: countersign\r\nContent-Length: 100\r\n\r\n{');
  await done(server, 'apiKeys.create', { name: 'refused', subject: 'user_1' });
  await receiver.arrived(1);
  const closed = once(client, 'close');
  // It is tried again in five seconds, and the client is waited for for ten.
  expect(await server.stop()).toBe(0);
  await closed;
  expect(receiver.received).toHaveLength(1);
  expect(await deliveriesIn(dataDir)).toEqual([{ state: 'pending', outcomes: [500] }]);
});
