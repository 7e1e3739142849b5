/** Starts what works in the background, over Redis where there is one. */
import type { RedisServers } from '../server/config.ts';
import type { Deps } from '../server/deps.ts';
import type { Logger } from '../server/logger.ts';
import type { Metrics } from '../server/metrics.ts';
import { createInProcessTransport } from './in-process.ts';
import type { Board } from './queue-board.ts';
import { revocationWebhooks } from './revocation-webhooks.ts';
import { startSchedule } from './schedule.ts';
import type { Transport } from './transport.ts';

export interface WorkersOptions {
  redis: RedisServers | undefined;
  logger: Logger;
  metrics: Metrics;
  /** `producer` only wakes others, `consumer` is woken and works, `all` does both. */
  role: 'all' | 'producer' | 'consumer';
}

export interface Workers extends Transport {
  /** Opens the board of the queue, below `path`, when it is first called; null where there is no queue. */
  openBoard: ((path: string) => Promise<Board>) | null;
  /** Waits for what was claimed: at most an attempt's timeout and what it may wait for others, or a step of a job. */
  close(): Promise<void>;
}

/** Starts them without waiting for Redis: whether it can be reached is a matter of `status()`. */
export async function startWorkers(deps: Deps, options: WorkersOptions): Promise<Workers> {
  const transport = await startTransport(deps, options);
  const schedule = options.role === 'producer' ? null : startSchedule(deps, options);
  const board = createBoardOpener(deps, options);
  return {
    ...transport,
    openBoard: board?.open ?? null,
    async close() {
      await Promise.all([transport.close(), schedule?.close(), board?.close()]);
    },
  };
}

/** Only who asks for the board pays for it. */
function createBoardOpener(deps: Deps, { redis, logger }: WorkersOptions) {
  if (redis === undefined) return null;
  let opened: Promise<{ board: Board; close(): Promise<void> }> | undefined;

  async function open(path: string) {
    const [{ openQueueToLookAt }, { createBoard }, epoch] = await Promise.all([
      import('./bullmq.ts'),
      import('./queue-board.ts'),
      readEpoch(deps),
    ]);
    const { queue, close } = await openQueueToLookAt({ redis: redis as RedisServers, epoch, logger });
    return { board: createBoard(queue, path), close };
  }

  return {
    async open(path: string): Promise<Board> {
      opened ??= open(path);
      try {
        return (await opened).board;
      } catch (error) {
        opened = undefined;
        throw error;
      }
    },
    close: async () => (await opened?.catch(() => undefined))?.close(),
  };
}

async function startTransport(deps: Deps, options: WorkersOptions): Promise<Transport> {
  const { redis, logger, metrics, role } = options;
  const jobs = role === 'producer' ? [] : [revocationWebhooks(deps, logger, metrics)];
  // Without Redis and jobs this does nothing: the process that has the jobs asks the rows itself.
  if (redis === undefined) return createInProcessTransport(jobs, logger, deps.store);
  // Only those who have Redis pay for its client, some 20 MB.
  const { createBullmqConsumer, createBullmqProducer } = await import('./bullmq.ts');
  const connection = { redis, epoch: await readEpoch(deps), logger };
  return role === 'producer' ? createBullmqProducer(connection) : createBullmqConsumer(connection, jobs);
}

/** What tells installations that share one Redis apart, and a restored database from what it was before. */
async function readEpoch({ store: { read } }: Deps): Promise<string> {
  const { installation } = read.tables;
  const [row] = await read.db.select({ epoch: installation.epoch }).from(installation);
  if (!row) throw new Error('The database was never set up');
  return row.epoch;
}
