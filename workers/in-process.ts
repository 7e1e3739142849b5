/** The transport for those who have no Redis: what is due is claimed and done in this process. */
import type { Store } from '../db/store.ts';
import type { Logger } from '../server/logger.ts';
import {
  type Claimed,
  createPump,
  createRuns,
  type Job,
  type JobName,
  type Pump,
  Refill,
  RUNS_MAX,
  type Transport,
} from './transport.ts';

export function createInProcessTransport(
  jobs: readonly Job[],
  logger: Logger,
  { onAppend }: Pick<Store, 'onAppend'>,
): Transport {
  const pumps = new Map<string, Pump>();
  const wake = (name: JobName) => pumps.get(name)?.wake();
  const refill = new Refill(wake);
  const runs = createRuns(logger);

  async function fill(job: Job) {
    for (let room = RUNS_MAX - runs.size; room > 0; room = RUNS_MAX - runs.size) {
      refill.isAwaited = false;
      const claimed = await job.claim(room);
      start(job, claimed);
      if (claimed.length < room) return;
    }
    refill.isAwaited = true;
  }

  async function fillAhead(job: Job) {
    const room = RUNS_MAX - runs.size;
    if (room > 0) start(job, await job.claimAhead(room));
  }

  function start(job: Job, claimed: readonly Claimed[]) {
    for (const ref of claimed) void runs.start(job, ref).then(() => refill.ended(job.name));
  }

  for (const job of jobs)
    pumps.set(
      job.name,
      createPump(job.name, logger, () => fill(job)),
    );
  const letBe = onAppend(() => {
    for (const job of jobs) pumps.get(job.name)?.ahead(() => fillAhead(job));
  });
  return {
    wake,
    status: () => ({ transport: 'in-process', degraded: null }),
    async close() {
      letBe();
      await Promise.all([...pumps.values()].map((pump) => pump.close()));
      await runs.settle();
      refill.close();
    },
  };
}
