/** Runs one scheduled job by hand, now, beside whatever runs: `npm run job -- name`. Says what it did. */
import { type JobRun, newHolder, runJobOnce } from '../workers/schedule.ts';
import { ConfigError, loadConfig } from './config.ts';
import { ensureJobs, JOB_NAMES, type JobName } from './domain/jobs.ts';
import { refuseToStart } from './lifecycle.ts';
import { createLogger } from './logger.ts';
import { createMetrics } from './metrics.ts';
import { openDeps } from './open.ts';

const SAYINGS: Record<JobRun['outcome'], (run: JobRun) => string> = {
  succeeded: ({ count }) => (count === 0 ? 'nothing was to be done' : `done, ${count} in all`),
  failed: ({ count }) =>
    `failed after ${count}; the log of this process has the reason, and it is tried again`,
  interrupted: ({ count }) => `interrupted after ${count}; the next run goes on from there`,
  lost: ({ count }) => `taken over by another process after ${count}`,
  postponed: () => 'not run, because the time of day jumped by over an hour',
  busy: () => 'not run, because another process is at it',
};

// Whatever this process makes is its owner's alone.
process.umask(0o077);
await main().catch((error) => refuseToStart(error, 'run the job'));

async function main() {
  const name = readName(process.argv.slice(2));
  const config = loadConfig(process.env);
  const logger = createLogger(config.logLevel);
  const metrics = createMetrics();
  const { deps, close } = await openDeps(config, { logger, metrics, wake: () => {} });
  try {
    await ensureJobs(deps);
    const run = await runJobOnce(deps, name, { logger, metrics, holder: newHolder(), whenever: true });
    process.stdout.write(`${name}: ${SAYINGS[run.outcome](run)}\n`);
    if (run.outcome !== 'succeeded') process.exitCode = 1;
  } finally {
    await close();
  }
}

function readName([name, ...others]: readonly string[]): JobName {
  const known = JOB_NAMES.find((each) => each === name);
  if (known && others.length === 0) return known;
  const found = name === undefined ? 'none' : `'${[name, ...others].join(' ')}'`;
  throw new ConfigError([{ name: 'argument', wanted: `one of ${JOB_NAMES.join(', ')}`, found }]);
}
