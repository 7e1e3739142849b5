/** Several real servers on one database, with a Redis of their own where they use one; each may be killed and comes back. */
import type { WhenDone } from '../support/deps.ts';
import { type Receiver, startReceiver } from '../support/receiver.ts';
import { ownRedis } from '../support/redis.ts';
import { type Launched, startWorkersApart } from '../support/server.ts';
import { siteIn, startAt } from '../support/site.ts';

export const TRANSPORTS = ['embedded', 'bullmq'] as const;
export type Transport = (typeof TRANSPORTS)[number];

export interface FleetOptions {
  folder: string;
  /** An empty PostgreSQL database; null for a SQLite file in the folder. */
  databaseUrl: string | null;
  processes: number;
  /** How workers are woken; `bullmq` takes a Redis. */
  transport: Transport;
  /** Processes of workers apart from the servers, which then only serve; without it each server works too. */
  workers?: number;
  whenDone: WhenDone;
}

export interface Fleet {
  urls: readonly string[];
  adminKey: string;
  /** Where webhooks are received, so that workers have work. */
  receiver: Receiver;
  /** Ends a server as `kill -9` does, and starts it again where it was; resolves once it is ready. */
  killServer(index: number): Promise<void>;
  /** The same with a process of workers; answers what the one that was ended had written. */
  killWorkers(index: number): Promise<Launched>;
  /** The processes of workers there are now. */
  workers(): readonly Launched[];
  /** Ends all servers so, and starts them again. */
  killAll(): Promise<void>;
  /** Ends Redis so, and starts one that knows nothing; does nothing where there is none. */
  killRedis(): Promise<void>;
}

/** They start while others are kept busy. */
const START_MS_MAX = 120_000;

const ADMIN_KEY = `sk_${'race_'.repeat(10)}`;

export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const { folder, databaseUrl, processes, transport, workers: apart = 0, whenDone } = options;
  const redis = transport === 'bullmq' ? await ownRedis(whenDone) : null;
  await redis?.start();
  const site = await siteIn(folder, databaseUrl, processes, {
    COUNTERSIGN_BOOTSTRAP_KEY: ADMIN_KEY,
    COUNTERSIGN_LOG_LEVEL: 'warn',
    ...(redis && { REDIS_URL: redis.url }),
  });
  const launch = { whenDone, patienceMs: START_MS_MAX };
  const startOne = (index: number) =>
    startAt(site, index, { ...launch, args: apart > 0 ? ['--server-only'] : [] });
  const servers = await Promise.all(site.settings.map((_, i) => startOne(i)));
  // Their lines tell which jobs they ran.
  const startWorkers = () =>
    startWorkersApart({ ...site.settings[0], COUNTERSIGN_LOG_LEVEL: 'debug' }, launch);
  const workers = await Promise.all(Array.from({ length: apart }, startWorkers));

  async function killServer(index: number) {
    await servers[index]?.stop('SIGKILL');
    servers[index] = await startOne(index);
  }

  async function killWorkers(index: number) {
    const killed = workers[index];
    if (!killed) throw new Error(`There are no workers ${index}`);
    killed.process.kill('SIGKILL');
    await killed.exit;
    workers[index] = await startWorkers();
    return killed;
  }

  return {
    urls: servers.map(({ url }) => url),
    adminKey: ADMIN_KEY,
    receiver: await startReceiver(() => 200, whenDone),
    killServer,
    killWorkers,
    workers: () => workers,
    killAll: async () => void (await Promise.all(servers.map((_, i) => killServer(i)))),
    async killRedis() {
      await redis?.kill();
      await redis?.start();
    },
  };
}
