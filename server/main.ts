/** The server's process: opens, listens, announces itself, and leaves in order when told to. */
import { once } from 'node:events';
import type { RequestListener, Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, resolve } from 'node:path';
import { startWorkers, type Workers } from '../workers/workers.ts';
import { answerStarting, createHttpServer, createRequestListener } from './app.ts';
import { type Config, ConfigError, listeningOn, loadConfig } from './config.ts';
import { createSignInLink } from './domain/operator-sessions.ts';
import { findCaller } from './domain/secrets.ts';
import { createFeeds } from './feed.ts';
import { createLifecycle, dieLoudly, refuseToStart } from './lifecycle.ts';
import { createLogger } from './logger.ts';
import { createMetrics } from './metrics.ts';
import { listenForMetrics } from './metrics-listener.ts';
import { type Opened, openDeps } from './open.ts';

const DRAIN_MS_MAX = 10_000;
const SERVER_ONLY = '--server-only';

/** What `npm run demo` takes for granted. */
const DEMO_URL = 'http://127.0.0.1:4400';
const DEMO_DATA_DIR = resolve('data');

// Whatever this process makes is its owner's alone: database, keys, logs of the database.
process.umask(0o077);
await main().catch(refuseToStart);

async function main() {
  const role = readRole(process.argv.slice(2));
  const settings = loadConfig(process.env);
  const logger = createLogger(settings.logLevel);
  const metrics = createMetrics();
  dieLoudly(logger);

  const lifecycle = createLifecycle(logger);
  let listener: RequestListener = answerStarting;
  const server = createHttpServer((request, response) => listener(request, response));
  // The port comes first: with PORT=0 our own URL depends on it, and one that is taken should not cost a migration.
  const config = listeningOn(settings, await listen(server, settings));

  const metricsListener = await listenForMetrics(config, metrics);
  let workers: Workers | undefined;
  const opened = await openDeps(config, { logger, metrics, wake: (job) => workers?.wake(job) });
  const started = await startWorkers(opened.deps, { redis: config.redis, logger, metrics, role });
  workers = started;
  const feeds = createFeeds(opened.deps, logger);
  listener = createRequestListener({
    deps: opened.deps,
    feeds,
    config,
    logger,
    metrics,
    openQueueBoard: started.openBoard,
    degraded: () => together(started.status().degraded, opened.deps.limits.degraded()),
    isDraining: lifecycle.isEnding,
  });
  lifecycle.onEnd(async () => {
    feeds.close();
    // At the same time: what is claimed while requests are waited for would have to be waited for after them.
    await Promise.all([drain(server), started.close()]);
    await metricsListener?.close();
    await opened.close();
  });
  announce(config, opened, await firstLink(config, opened));
  logger.info({ url: config.publicUrl, dialect: opened.deps.store.dialect, ...started.status() }, 'ready');
}

/** Several complaints as one, or null. */
function together(...complaints: (string | null)[]): string | null {
  return complaints.filter((complaint) => complaint !== null).join('; ') || null;
}

function readRole(args: readonly string[]): 'all' | 'producer' {
  const unknown = args.find((argument) => argument !== SERVER_ONLY);
  if (unknown !== undefined) {
    throw new ConfigError([{ name: 'argument', wanted: `'${SERVER_ONLY}' or none`, found: `'${unknown}'` }]);
  }
  return args.includes(SERVER_ONLY) ? 'producer' : 'all';
}

async function listen(server: Server, { port, host }: Config): Promise<number> {
  server.listen(port, host);
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

/** Takes no new connection, and waits for the requests in flight, but not forever. */
async function drain(server: Server) {
  const closed = once(server, 'close');
  server.close();
  // A connection that was busy when the server closed is kept alive after its answer: it is idle by the next round.
  const idle = setInterval(() => server.closeIdleConnections(), 50);
  const deadline = setTimeout(() => server.closeAllConnections(), DRAIN_MS_MAX);
  await closed;
  clearInterval(idle);
  clearTimeout(deadline);
}

/** A link that signs in with the first key: shown to a terminal only, as the key itself is. */
async function firstLink({ console }: Config, { deps, firstSecretKey }: Opened): Promise<string | null> {
  if (!console || firstSecretKey === null || !process.stdout.isTTY) return null;
  const principal = await findCaller(deps, firstSecretKey, () => '127.0.0.1');
  return principal && (await createSignInLink(deps, principal)).url;
}

/** What people are told. The value of a key is shown to a terminal only: what is piped somewhere is kept there. */
function announce(config: Config, opened: Opened, link: string | null) {
  const lines = [
    `Countersign, machine authentication, is ready at ${config.publicUrl}`,
    `Data directory: ${config.dataDir}`,
  ];
  if (opened.firstSecretKeyPath !== null) lines.push(`First secret key: ${opened.firstSecretKeyPath}`);
  if (opened.firstSecretKey !== null && process.stdout.isTTY) lines.push(`  ${opened.firstSecretKey}`);
  if (link !== null) lines.push(`Console, once and within 15 minutes: ${link}`);
  else if (config.console) lines.push(`Console: ${config.publicUrl}/console/`);
  if (opened.isFirstStart) {
    lines.push(
      `Master key: ${opened.masterKeyPath ?? 'as given'}`,
      'Lose this master key and every credential dies; back it up apart from the database',
    );
  }
  lines.push(`Next: ${nextCommand(config, opened)}`);
  process.stdout.write(`${lines.join('\n')}\n`);
}

/** As it must be typed in another terminal: with what differs from what the demo takes for granted. */
function nextCommand({ publicUrl, dataDir }: Config, { firstSecretKeyPath }: Opened): string {
  const settings: string[] = [];
  if (publicUrl !== DEMO_URL) settings.push(`COUNTERSIGN_URL=${publicUrl}`);
  if (firstSecretKeyPath === null) settings.push('COUNTERSIGN_SECRET_KEY=<an admin key>');
  else if (dirname(firstSecretKeyPath) !== DEMO_DATA_DIR) settings.push(`COUNTERSIGN_DATA_DIR='${dataDir}'`);
  return [...settings, 'npm run demo'].join(' ');
}
