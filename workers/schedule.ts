/**
 * Runs scheduled jobs: whichever process finds one due takes its lease and works through it in small steps, between which
 * it lets others in. What it did is in rows, so that any other goes on where it stopped.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Deps } from '../server/deps.ts';
import {
  dueJobs,
  ensureJobs,
  failJob,
  finishJob,
  JOBS,
  type JobCursor,
  type JobName,
  type JobStep,
  LEASE_MS,
  type Lease,
  renewLease,
  takeLease,
  yieldJob,
} from '../server/domain/jobs.ts';
import { createComplaint, type Logger } from '../server/logger.ts';
import type { Metrics } from '../server/metrics.ts';
import { apiKeyPurge } from './api-key-purge.ts';
import { auditCheckpoint } from './audit-checkpoint.ts';
import { deliveryPrune } from './delivery-prune.ts';
import { eventPrune } from './event-prune.ts';
import { expirySweep } from './expiry-sweep.ts';
import { idempotencyPrune } from './idempotency-prune.ts';
import { keyRotation } from './key-rotation.ts';
import { m2mTokenSweep } from './m2m-token-sweep.ts';
import { oauthSweep } from './oauth-sweep.ts';
import { registrationPurge } from './registration-purge.ts';
import { secretRotation } from './secret-rotation.ts';
import { sessionPrune } from './session-prune.ts';

/** Does one small step of a job, from where the cursor says; null for the beginning. */
export type Step = (deps: Deps, cursor: JobCursor | null, logger: Logger) => Promise<JobStep>;

const STEPS: Record<JobName, Step> = {
  'key-rotation': keyRotation,
  'expiry-sweep': expirySweep,
  'secret-rotation': secretRotation,
  'audit-checkpoint': auditCheckpoint,
  'api-key-purge': apiKeyPurge,
  'm2m-token-sweep': m2mTokenSweep,
  'oauth-sweep': oauthSweep,
  'idempotency-prune': idempotencyPrune,
  'session-prune': sessionPrune,
  'registration-purge': registrationPurge,
  'delivery-prune': deliveryPrune,
  'event-prune': eventPrune,
};

const POLL_MS = 1_000;
/** After each step, of some two milliseconds, and so many times as long as it took: four fifths are for others. */
const STEP_PAUSE_MS = 4;
const STEP_PAUSE_TIMES = 4;
/** A lease is written anew when a third of it is over, not with every step. */
const RENEW_MS = LEASE_MS / 3;

export interface ScheduleOptions {
  logger: Logger;
  metrics: Pick<Metrics, 'job'>;
}

export interface Schedule {
  /** Takes nothing more, and waits for the steps under way. */
  close(): Promise<void>;
}

/** How a run of a job ended. */
export interface JobRun {
  outcome: 'succeeded' | 'failed' | 'interrupted' | 'lost' | 'postponed' | 'busy';
  /** Rows written, deleted or announced. */
  count: number;
  /** What failed, where it did. */
  error?: unknown;
}

/** A name of this process that no other has. */
export const newHolder = () => `proc_${randomBytes(9).toString('hex')}`;

/** Looks every second for jobs that are due; each is worked at beside the others. */
export function startSchedule(deps: Deps, options: ScheduleOptions): Schedule {
  const holder = newHolder();
  const running = new Map<JobName, Promise<unknown>>();
  const ending = new AbortController();
  const complaint = createComplaint(options.logger, {
    failing: 'Cannot look for scheduled jobs; it is tried again',
  });
  let looking: Promise<void> | undefined;
  let areEnsured = false;

  let isDoubted = false;

  /** Said once for each time: what waits for it is not failing, and would otherwise only look late. */
  function noteTime() {
    if (deps.isTimeDoubtful() === isDoubted) return;
    isDoubted = !isDoubted;
    if (isDoubted) options.logger.warn('The time of day jumped: nothing is purged while it is doubtful');
    else options.logger.info('The time of day is no longer doubtful: what was to be purged is');
  }

  async function look() {
    noteTime();
    if (!areEnsured) await ensureJobs(deps);
    areEnsured = true;
    for (const name of await dueJobs(deps)) {
      if (running.has(name) || ending.signal.aborted || isPostponed(deps, name)) continue;
      const run = runJobOnce(deps, name, { ...options, holder, signal: ending.signal })
        .catch((err: unknown) => options.logger.error({ err, job: name }, 'A job cannot be begun or ended'))
        .finally(() => running.delete(name));
      running.set(name, run);
    }
  }

  const timer = setInterval(() => {
    looking ??= look()
      .then(complaint.succeeded, complaint.failed)
      .finally(() => {
        looking = undefined;
      });
  }, POLL_MS);
  timer.unref();

  return {
    async close() {
      clearInterval(timer);
      ending.abort();
      await looking;
      await Promise.all(running.values());
    },
  };
}

const isPostponed = (deps: Deps, name: JobName) => JOBS[name].purges && deps.isTimeDoubtful();

/**
 * Runs one job to its end, if nobody else is at it and, unless it is to be `whenever`, it is due. Throws only what keeps
 * the run itself from being begun or its end from being noted.
 */
export async function runJobOnce(
  deps: Deps,
  name: JobName,
  options: ScheduleOptions & { holder: string; signal?: AbortSignal; whenever?: boolean },
): Promise<JobRun> {
  if (isPostponed(deps, name)) return { outcome: 'postponed', count: 0 };
  const lease = await takeLease(deps, name, options.holder, { whenever: options.whenever ?? false });
  if (!lease) return { outcome: 'busy', count: 0 };
  const beganAt = deps.now();
  const run = await work(deps, lease, options);
  options.metrics.job(name, run.outcome, deps.now() - beganAt);
  report(options.logger, name, run);
  return run;
}

async function work(
  deps: Deps,
  lease: Lease,
  { logger, signal }: ScheduleOptions & { signal?: AbortSignal },
): Promise<JobRun> {
  const step = STEPS[lease.name];
  let { cursor } = lease;
  let renewedAt = deps.now();
  let count = 0;
  let failure: { error: unknown } | undefined;
  for (;;) {
    if (signal?.aborted) {
      await yieldJob(deps, lease, cursor);
      return { outcome: 'interrupted', count };
    }
    const beganAt = deps.now();
    try {
      const made = await step(deps, cursor, logger);
      cursor = made.cursor;
      count += made.count;
      for (const error of made.errors ?? []) failure = { error };
      if (made.done) break;
    } catch (error) {
      failure = { error };
      break;
    }
    if (deps.now() - renewedAt >= RENEW_MS) {
      if (!(await renewLease(deps, lease, cursor))) return { outcome: 'lost', count };
      renewedAt = deps.now();
    }
    await sleep(Math.max(STEP_PAUSE_MS, STEP_PAUSE_TIMES * (deps.now() - beganAt)), undefined, {
      ...(signal && { signal }),
    }).catch(() => {});
  }
  if (!failure) {
    const isNoted = await finishJob(deps, lease, cursor);
    return { outcome: isNoted ? 'succeeded' : 'lost', count };
  }
  await failJob(deps, lease, { cursor, error: failure.error });
  return { outcome: 'failed', count, error: failure.error };
}

function report(logger: Logger, job: JobName, { outcome, count, error }: JobRun) {
  if (outcome === 'failed') logger.error({ job, count, err: error }, 'A job failed; it is tried again');
  else if (outcome === 'lost') logger.warn({ job, count }, 'A job took too long and was taken over');
  else logger.debug({ job, count, outcome }, 'A job was run');
}
