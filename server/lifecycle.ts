/** How a process of ours begins and ends: what every main shares. */
import { type HostOptions, storeFailure } from '../db/store.ts';
import { type Config, ConfigError } from './config.ts';
import { InstallationError } from './domain/installation.ts';
import { type Logger, maskCredentials } from './logger.ts';

const SHUTDOWN_MS_MAX = 25_000;

/** A process in an unknown state serves nobody; whoever runs it starts it again. */
export function dieLoudly(logger: Logger) {
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (err: unknown) => {
      logger.fatal({ err }, `${event}: the process ends`);
      process.exit(1);
    });
  }
}

/** Ends the process because another took over what it works with. */
export function endSuperseded(logger: Logger, why: string): never {
  logger.fatal(why);
  process.exit(1);
}

/** Holds a SQLite file for this host, and ends the process when another host took it. */
export const asThisHost = ({ hostId }: Config, logger: Logger): HostOptions => ({
  id: hostId,
  onLost: () => endSuperseded(logger, 'Another host has taken the SQLite file: the process ends'),
});

/** Ends the process at the first SIGTERM or SIGINT, in order once there is something to put in order; at the second, at once. */
export function createLifecycle(logger: Logger) {
  let leave: (() => Promise<void>) | undefined;
  let isEnding = false;

  async function end(signal: NodeJS.Signals) {
    if (isEnding) process.exit(1);
    isEnding = true;
    if (!leave) process.exit(0);
    logger.info({ signal }, 'shutting down');
    setTimeout(() => {
      logger.error(`Not everything could be put in order within ${SHUTDOWN_MS_MAX} ms`);
      process.exit(1);
    }, SHUTDOWN_MS_MAX).unref();
    await leave();
    logger.info('shut down');
    process.exit(0);
  }

  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void end(signal));
  return {
    isEnding: () => isEnding,
    onEnd(work: () => Promise<void>) {
      leave = work;
    },
  };
}

/** Ends the process with what a person can act on; no credential is printed. */
export function refuseToStart(error: unknown, task = 'start'): never {
  process.stderr.write(`${maskCredentials(describeRefusal(error, task))}\n`);
  process.exit(1);
}

function describeRefusal(error: unknown, task: string): string {
  if (error instanceof ConfigError) return error.message;
  if (error instanceof InstallationError) return `Cannot ${task}: ${error.message}`;
  if (!(error instanceof Error)) return `Cannot ${task}: something that is no error was thrown`;
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (syscall === 'listen') return describeListenFailure(error);
  if (storeFailure(error)) return `Cannot ${task}: the database cannot be opened: ${rootMessageOf(error)}`;
  if (code !== undefined && syscall !== undefined) return `Cannot ${task}: ${error.message}`;
  return `Cannot ${task}: ${error.stack}`;
}

function describeListenFailure(error: NodeJS.ErrnoException & { address?: string; port?: number }): string {
  const place = `${error.address}:${error.port}`;
  if (error.code === 'EADDRINUSE') {
    return `Cannot start: port ${error.port} of ${error.address} is in use; choose another with PORT`;
  }
  return `Cannot start: cannot listen on ${place} (${error.code}); choose another with PORT or COUNTERSIGN_HOST`;
}

/** What the driver said; a connection refused at each of several addresses has only a code. */
function rootMessageOf(error: Error): string {
  if (error.cause instanceof Error) return rootMessageOf(error.cause);
  return error.message || String((error as NodeJS.ErrnoException).code);
}
