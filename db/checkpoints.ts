import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';

/** So many commits within a second are a load under which checkpoints are worth a thread of their own, some 10 MB. */
const BUSY_COMMITS = 50;
const BUSY_MS = 1_000;
/** Commits from one checkpoint to the next: some hundred pages, as long as each changes a few. */
const COMMITS = 16;
/** The thread ends when nothing was committed for so long. */
const IDLE_MS = 5_000;
/** From how many pages on the log is begun anew, as SQLite has it by default. */
const LOG_PAGES = 1_000;
/** With the thread at work the writer copies pages itself only if the log grows beyond this: it fell behind, or failed. */
const LOG_PAGES_MAX = 8_000;

/** How long the thread waits for a transaction or a reader to end, before it leaves the log to be begun anew for the next time. */
const PATIENCE_MS = 5;

/**
 * What the thread does each time it is told to; plain JavaScript, since a thread is no module of the build. What was
 * committed is copied while others write. Only the rest, and only when the log is to begin anew, is copied under the
 * writer's lock, for which the writer waits asynchronously. What cannot be copied now is copied later.
 */
const THREAD = `
const { parentPort, workerData } = require('node:worker_threads');
const { driver, location, logPages, timeout } = workerData;
const connection = new (require(driver))(location, { timeout, fileMustExist: true });
parentPort.on('message', () => {
  try {
    const [{ log }] = connection.pragma('wal_checkpoint(PASSIVE)');
    if (log >= logPages) connection.pragma('wal_checkpoint(RESTART)');
  } catch {}
  parentPort.postMessage('done');
});
`;

const DRIVER = createRequire(import.meta.url).resolve('better-sqlite3');

/**
 * Copies SQLite's write-ahead log into the file on a thread of its own while much is written: COMMIT would do so every
 * thousand pages, and hold up the event loop for the tens of milliseconds that it takes. Where little is written it still
 * does. https://www.sqlite.org/wal.html#ckpt
 */
export class Checkpoints {
  readonly #location: string;
  readonly #limitLog: (pages: number) => void;
  #thread: Worker | undefined;
  #isCopying = false;
  #commits = 0;
  #since = Number.NEGATIVE_INFINITY;
  #idle: NodeJS.Timeout | undefined;

  /** `limitLog` sets after how many pages the writer copies them itself. */
  constructor(location: string, limitLog: (pages: number) => void) {
    this.#location = location;
    this.#limitLog = limitLog;
  }

  /** Told of each commit. */
  committed(): void {
    this.#commits++;
    if (this.#thread) this.#copyIfDue(this.#thread);
    else this.#beginIfBusy();
  }

  async close(): Promise<void> {
    const thread = this.#thread;
    this.#end();
    await thread?.terminate();
  }

  #beginIfBusy(): void {
    const now = performance.now();
    if (now - this.#since > BUSY_MS) {
      this.#since = now;
      this.#commits = 1;
    }
    if (this.#commits < BUSY_COMMITS) return;
    const workerData = {
      driver: DRIVER,
      location: this.#location,
      logPages: LOG_PAGES,
      timeout: PATIENCE_MS,
    };
    const resourceLimits = { maxOldGenerationSizeMb: 16, maxYoungGenerationSizeMb: 2 };
    const thread = new Worker(THREAD, { eval: true, workerData, resourceLimits });
    thread.unref();
    thread.on('message', () => {
      this.#isCopying = false;
    });
    // It is only help: without it COMMIT copies by itself, as it does with little to do.
    thread.on('error', () => {});
    thread.once('exit', () => {
      if (this.#thread === thread) this.#end();
    });
    this.#thread = thread;
    this.#isCopying = false;
    this.#idle = setInterval(() => this.#endIfIdle(), IDLE_MS);
    this.#idle.unref();
    this.#limitLog(LOG_PAGES_MAX);
  }

  #copyIfDue(thread: Worker): void {
    if (this.#isCopying || this.#commits < COMMITS) return;
    this.#commits = 0;
    this.#since = performance.now();
    this.#isCopying = true;
    thread.postMessage('copy');
  }

  #endIfIdle(): void {
    if (performance.now() - this.#since < IDLE_MS) return;
    void this.close();
  }

  #end(): void {
    clearInterval(this.#idle);
    this.#thread = undefined;
    this.#commits = 0;
    this.#since = Number.NEGATIVE_INFINITY;
    this.#limitLog(LOG_PAGES);
  }
}
