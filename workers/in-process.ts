/** The transport for those who have no Redis: what is due is claimed and done in this process. */
import type { Logger } from '../server/logger.ts';
import {
  createPump,
  createRuns,
  type Job,
  type JobName,
  type Pump,
  RUNS_MAX,
  type Transport,
} from './transport.ts';

/** With more waiting than there was room for, so many ends are awaited before more is claimed: a claim is a transaction. */
const REFILL = 8;
/** Or so long: where most hang, the few that end must not wait for more to do so. */
const REFILL_MS = 5;

export function createInProcessTransport(jobs: readonly Job[], logger: Logger): Transport {
  const pumps = new Map<string, Pump>();
  let isFull = false;
  let refill: NodeJS.Timeout | undefined;
  const runs = createRuns(logger, ({ name }) => {
    if (!isFull) return;
    if (RUNS_MAX - runs.size >= REFILL) wake(name);
    else refill ??= setTimeout(wake, REFILL_MS, name);
  });

  function wake(name: JobName) {
    clearTimeout(refill);
    refill = undefined;
    pumps.get(name)?.wake();
  }

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
    wake,
    status: () => ({ transport: 'in-process', degraded: null }),
    async close() {
      await Promise.all([...pumps.values()].map((pump) => pump.close()));
      await runs.settle();
      clearTimeout(refill);
    },
  };
}
