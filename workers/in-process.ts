/** The transport for those who have no Redis: what is due is claimed and done in this process. */
import type { Logger } from '../server/logger.ts';
import { createPump, createRuns, type Job, type Pump, RUNS_MAX, type Transport } from './transport.ts';

/** With more waiting than there was room for, so many ends are awaited before more is claimed: a claim is a transaction. */
const REFILL = 8;

export function createInProcessTransport(jobs: readonly Job[], logger: Logger): Transport {
  const pumps = new Map<string, Pump>();
  let isFull = false;
  const runs = createRuns(logger, (job) => {
    if (isFull && RUNS_MAX - runs.size >= REFILL) pumps.get(job.name)?.wake();
  });

  async function fill(job: Job) {
    for (let room = RUNS_MAX - runs.size; room > 0; room = RUNS_MAX - runs.size) {
      isFull = false;
      const claimed = await job.claim(room);
      for (const ref of claimed) void runs.start(job, ref);
      if (claimed.length < room) return;
    }
    isFull = true;
  }

  for (const job of jobs)
    pumps.set(
      job.name,
      createPump(job.name, logger, () => fill(job)),
    );
  return {
    wake: (name) => pumps.get(name)?.wake(),
    status: () => ({ transport: 'in-process', degraded: null }),
    async close() {
      await Promise.all([...pumps.values()].map((pump) => pump.close()));
      await runs.settle();
    },
  };
}
