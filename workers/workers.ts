/** Starts what works in the background, over Redis where there is one. */
import type { RedisServers } from '../server/config.ts';
import type { Deps } from '../server/deps.ts';
import type { Logger } from '../server/logger.ts';
import type { Metrics } from '../server/metrics.ts';
import { createInProcessTransport } from './in-process.ts';
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

/** `close` waits for what is under way: at most an attempt's timeout, or a step of a job. */
export type Workers = Transport;

/** Starts them without waiting for Redis: whether it can be reached is a matter of `status()`. */
export async function startWorkers(deps: Deps, options: WorkersOptions): Promise<Workers> {
  const transport = await startTransport(deps, options);
  if (options.role === 'producer') return transport;
  const schedule = startSchedule(deps, options);
  return {
    ...transport,
    async close() {
      await Promise.all([transport.close(), schedule.close()]);
    },
  };
}

async function startTransport(deps: Deps, options: WorkersOptions): Promise<Transport> {
  const { redis, logger, metrics, role } = options;
  const jobs = role === 'producer' ? [] : [revocationWebhooks(deps, logger, metrics)];
  // Without Redis and jobs this does nothing: the process that has the jobs asks the rows itself.
  if (redis === undefined) return createInProcessTransport(jobs, logger);
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
