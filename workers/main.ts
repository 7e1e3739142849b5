/** The workers' own process, apart from any server: opens, works, and leaves in order when told to. */
import { loadConfig } from '../server/config.ts';
import { createLifecycle, dieLoudly, refuseToStart } from '../server/lifecycle.ts';
import { createLogger } from '../server/logger.ts';
import { createMetrics } from '../server/metrics.ts';
import { listenForMetrics } from '../server/metrics-listener.ts';
import { openDeps } from '../server/open.ts';
import { startWorkers, type Workers } from './workers.ts';

// Whatever this process makes is its owner's alone.
process.umask(0o077);
await main().catch(refuseToStart);

async function main() {
  const config = loadConfig(process.env);
  const logger = createLogger(config.logLevel);
  const metrics = createMetrics();
  dieLoudly(logger);

  const lifecycle = createLifecycle(logger);
  const metricsListener = await listenForMetrics(config, metrics);
  let workers: Workers | undefined;
  const opened = await openDeps(config, { logger, metrics, wake: (job) => workers?.wake(job) });
  const started = await startWorkers(opened.deps, {
    redis: config.redis,
    logger,
    metrics,
    role: 'consumer',
  });
  workers = started;
  lifecycle.onEnd(async () => {
    await started.close();
    await metricsListener?.close();
    await opened.close();
  });
  logger.info({ dialect: opened.deps.store.dialect, ...started.status() }, 'ready');
}
