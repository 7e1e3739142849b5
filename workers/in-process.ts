/** The transport for those who have no Redis: what is due is claimed and done in this process. */
import type { Logger } from '../server/logger.ts';
import {
  createPump,
  createRuns,
  type Job,
  type JobName,
  type Pump,
  Refill,
  RUNS_MAX,
  type Transport,
} from './transport.ts';

export function createInProcessTransport(jobs: readonly Job[], logger: Logger): Transport {
  const pumps = new Map<string, Pump>();
  const wake = (name: JobName) => pumps.get(name)?.wake();
  const refill = new Refill(wake);
  const runs = createRuns(logger);

  async function fill(job: Job) {
    for (let room = RUNS_MAX - runs.size; room > 0; room = RUNS_MAX - runs.size) {
      refill.isAwaited = false;
      const claimed = await job.claim(room);
      for (const ref of claimed) void runs.start(job, ref).then(() => refill.ended(job.name));
      if (claimed.length < room) return;
    }
    refill.isAwaited = true;
  }

  for (const job of jobs)
    pumps.set(
      job.name,
      createPump(job.name, logger, () => fill(job)),
    );
  return {
    wake,
    status: () => ({ transport: 'in-process', degraded: null }),
    async close() {
      await Promise.all([...pumps.values()].map((pump) => pump.close()));
      await runs.settle();
      refill.close();
    },
  };
}
