import type { Deps } from './deps.ts';
import type { Logger } from './logger.ts';

/** Whether requests should be sent here. */
export interface Readiness {
  ready: boolean;
  /** What works less well than it should, or null. */
  degraded: string | null;
}

const READ_MS_MAX = 1_000;

const FULL =
  'The disk is full: what takes something away is still written, from a reserve; all else is refused';

/**
 * Ready is who can read the database within a second, has room on the disk and is not on its way out. One reading serves all who ask at the
 * same time: nobody has to authenticate to ask.
 */
export function createReadiness(options: {
  deps: Deps;
  logger: Logger;
  degraded: () => string | null;
  isDraining: () => boolean;
}): () => Promise<Readiness> {
  const { deps, logger, degraded, isDraining } = options;
  let asking: Promise<boolean> | undefined;
  let answered = true;

  async function ask(): Promise<boolean> {
    const err = await failureWithin(READ_MS_MAX, readAnything(deps));
    if (err && answered) logger.error({ err }, 'The database does not answer: not ready');
    if (!err && !answered) logger.info('The database answers again: ready');
    answered = err === null;
    return answered;
  }

  return async () => {
    asking ??= ask().finally(() => {
      asking = undefined;
    });
    const databaseAnswers = await asking;
    const isFull = deps.store.isFull();
    const complaints = [isFull ? FULL : null, degraded()].filter((complaint) => complaint !== null);
    return { ready: databaseAnswers && !isFull && !isDraining(), degraded: complaints.join('; ') || null };
  };
}

async function readAnything({ store: { read } }: Deps): Promise<void> {
  const { installation } = read.tables;
  await read.db.select({ id: installation.id }).from(installation);
}

/** What went wrong, or null when the work was done in time. */
async function failureWithin(timeoutMs: number, work: Promise<void>): Promise<unknown> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<Error>((resolve) => {
    timer = setTimeout(() => resolve(new Error(`No answer within ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    const done = work.then(
      () => null,
      (error: unknown) => error,
    );
    return await Promise.race([done, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
