/** Countersign as a target of the crash test: revocations of API keys, sent to a webhook endpoint. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { WhenDone } from '../support/deps.ts';
import { ownRedis } from '../support/redis.ts';
import {
  type Launched,
  type RunningServer,
  send,
  startServer,
  startWorkersApart,
} from '../support/server.ts';
import { freePort } from '../support/services.ts';
import { anyOf, type Disturbance, type Target } from './crash.ts';

export interface CountersignOptions {
  folder: string;
  /** `bullmq`: a server that only serves, workers of their own, and a Redis. */
  transport: 'embedded' | 'bullmq';
  /** An empty PostgreSQL database; null for a SQLite file in the folder. */
  databaseUrl: string | null;
  masterKey: string;
  whenDone: WhenDone;
}

const START_MS_MAX = 120_000;
const REQUEST_MS_MAX = 10_000;
/** A claim of a process that died is void after a minute; a refusal is tried again after seconds. */
const SETTLE_MS_MAX = 240_000;
const ADMIN_KEY = `sk_${'crash_'.repeat(8)}`;

export async function startCountersign(options: CountersignOptions, receiverUrl: string): Promise<Target> {
  const { folder, transport, databaseUrl, whenDone } = options;
  const redis = transport === 'bullmq' ? await ownRedis(whenDone) : null;
  await redis?.start();
  const env = {
    PORT: `${await freePort()}`,
    COUNTERSIGN_DATA_DIR: join(folder, 'data'),
    COUNTERSIGN_BOOTSTRAP_KEY: ADMIN_KEY,
    COUNTERSIGN_MASTER_KEY: options.masterKey,
    COUNTERSIGN_LOG_LEVEL: 'info',
    ...(databaseUrl !== null && { DATABASE_URL: databaseUrl }),
    ...(redis && { REDIS_URL: redis.url }),
  };
  const launch = { whenDone, patienceMs: START_MS_MAX };
  const serve = () =>
    startServer(env.COUNTERSIGN_DATA_DIR, env, { ...launch, args: redis ? ['--server-only'] : [] });
  const work = () => startWorkersApart(env, launch);

  let server: RunningServer = await serve();
  let workers: Launched | null = redis ? await work() : null;
  const { url } = server;
  const call = async (path: string, input: object) => {
    const headers = { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' };
    const signal = AbortSignal.timeout(REQUEST_MS_MAX);
    const body = JSON.stringify(input);
    const answer = await send(`${url}/trpc/${path}`, { method: 'POST', headers, body, signal }).catch(
      () => null,
    );
    return answer?.body?.result?.data ?? null;
  };
  await call('webhookEndpoints.create', { url: receiverUrl, eventTypes: ['api_key.revoked'] });

  const parts: (() => Promise<Disturbance>)[] = [
    async () => {
      await server.stop('SIGKILL');
      server = await serve();
      return 'kill';
    },
  ];
  if (redis) {
    parts.push(
      async () => {
        workers?.process.kill('SIGKILL');
        await workers?.exit;
        workers = await work();
        return 'kill';
      },
      async () => {
        // It keeps nothing on disk: whoever comes back knows of no job.
        await redis.kill();
        await redis.start();
        return 'kill';
      },
      async () => {
        // Whoever is connected stays so, and is told nothing: jobs that wait, and that are under way, are gone.
        await redis.empty();
        return 'flush';
      },
    );
  }

  return {
    async commit() {
      const key = await call('apiKeys.create', { name: randomUUID(), subject: 'user_1' });
      if (key === null) return null;
      return (await call('apiKeys.revoke', { id: key.id })) === null ? null : key.id;
    },
    disturb: () => anyOf(parts),
    async committed() {
      const ids: string[] = [];
      for (let after = 0; ; ) {
        const page = await call('events.list', { after, limit: 500 });
        if (page === null) throw new Error('The server does not tell its events');
        for (const event of page.data) if (event.type === 'api_key.revoked') ids.push(event.objectId);
        if (page.data.length === 0) return ids;
        after = page.nextAfter;
      }
    },
    async settled() {
      const deadline = performance.now() + SETTLE_MS_MAX;
      // Two looks in a row, because an event of a moment ago may have no delivery yet.
      for (let looks = 0; looks < 2; ) {
        const pending = await call('deliveries.list', { state: 'pending', limit: 1 });
        looks = pending?.data.length === 0 ? looks + 1 : 0;
        if (performance.now() > deadline) return;
        await sleep(1_000);
      }
    },
  };
}
