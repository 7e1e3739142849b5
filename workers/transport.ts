/**
 * How workers are woken. The database says what is due; a transport only carries "try this one", so whatever it loses,
 * repeats or reorders is made good by asking the rows again.
 */
import { createComplaint, type Logger } from '../server/logger.ts';

/** One piece of work that was claimed: an id and which attempt at it this is, never authority or content. */
export interface JobRef {
  id: string;
  attempt: number;
}

export interface Claimed extends JobRef {
  /** Goes ahead of what waits already. */
  urgent: boolean;
  /** What is of one group goes to the same place, and is slow or fast together. */
  group: string;
}

export type JobName = 'revocation-webhooks';

export interface Job {
  readonly name: JobName;
  /**
   * Takes up to `limit` pieces of work that are due, so that nobody else takes them until a deadline of the job's has
   * passed; fewer than `limit` means that nothing more is due.
   */
  claim(limit: number): Promise<Claimed[]>;
  /**
   * Takes what falls due with a transaction that is not committed yet, in another that is committed with it where there is
   * time for that. What it leaves is for `claim`. Call it within `store.onAppend`.
   */
  claimAhead(limit: number): Promise<Claimed[]>;
  /** Does one, if it is still to be done: rereads its row, and leaves alone what somebody else claimed since. */
  run(ref: JobRef): Promise<void>;
}

export interface TransportStatus {
  transport: 'in-process' | 'bullmq';
  /** What works less well than it should, or null. */
  degraded: string | null;
}

export interface Transport {
  /** Says that something may be due. Never waits, never throws; may be lost, since the rows are asked regularly. */
  wake(job: JobName): void;
  status(): TransportStatus;
  /** Claims nothing more, and waits for what is under way. */
  close(): Promise<void>;
}

/** How many pieces of work one process does at the same time; over BullMQ as many jobs, in each of which may be several. */
export const RUNS_MAX = 32;

/** What takes longer waits for somebody else, and is set aside: it takes no room from others any more. */
const ASIDE_MS = 200;
/** As many are aside at most, each with a connection of its own; what is slow beyond that keeps its room. */
const ASIDE_MAX = 480;

/** How often the rows are asked whether or not anybody was woken. */
const POLL_MS = 500;

export interface Pump {
  wake(): void;
  /** Has it fill by other means, at once, unless it is filling already. */
  ahead(fillAhead: () => Promise<void>): void;
  close(): Promise<void>;
}

/** Calls `fill` when woken and every `POLL_MS`: never twice at once, and again if it was woken meanwhile. */
export function createPump(name: string, logger: Logger, fill: () => Promise<void>): Pump {
  let isWoken = false;
  let isClosed = false;
  let pumping: Promise<void> | undefined;
  const complaint = createComplaint(
    logger,
    { failing: 'Cannot claim work; it is tried again', again: 'Work is claimed again' },
    { job: name },
  );

  async function pump(first = fill) {
    for (let next = first; isWoken && !isClosed; next = fill) {
      isWoken = false;
      await next().then(complaint.succeeded, complaint.failed);
    }
    pumping = undefined;
  }

  function wake() {
    if (isClosed) return;
    isWoken = true;
    pumping ??= pump();
  }

  const timer = setInterval(wake, POLL_MS);
  wake();
  return {
    wake,
    ahead(fillAhead) {
      if (isClosed || pumping) return;
      isWoken = true;
      pumping = pump(fillAhead);
    },
    async close() {
      isClosed = true;
      clearInterval(timer);
      await pumping;
    },
  };
}

/** With more waiting than there was room for, so many ends are awaited before more is claimed: a claim is a transaction. */
const REFILL = 8;
/** Or so long: where most hang, the few that end must not wait for more to do so. */
const REFILL_MS = 5;

/** Wakes who had no room for all that waits once some of what is under way has ended. */
export class Refill {
  readonly #wake: (job: JobName) => void;
  #isAwaited = false;
  #ends = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(wake: (job: JobName) => void) {
    this.#wake = wake;
  }

  /** Whether somebody waits for it. */
  set isAwaited(isAwaited: boolean) {
    this.#isAwaited = isAwaited;
    this.#ends = 0;
  }

  ended(job: JobName): void {
    if (!this.#isAwaited) return;
    this.#ends++;
    if (this.#ends >= REFILL) this.#refill(job);
    else this.#timer ??= setTimeout(() => this.#refill(job), REFILL_MS);
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #refill(job: JobName): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#ends = 0;
    this.#wake(job);
  }
}

/** What a process is doing itself at the moment. */
export interface Runs {
  /** How many take room. */
  readonly size: number;
  /**
   * Begins one; what it throws is logged, and its row falls due again by itself. Resolves once it takes no room any more:
   * it ended, or was set aside and goes on.
   */
  start(job: Job, ref: JobRef): Promise<void>;
  /** Waits until none is under way. */
  settle(): Promise<void>;
}

export function createRuns(logger: Logger): Runs {
  const running = new Set<Promise<void>>();
  const aside = new Set<Promise<void>>();

  async function run(job: Job, { id, attempt }: JobRef) {
    try {
      await job.run({ id, attempt });
    } catch (err) {
      logger.error({ err, job: job.name, id, attempt }, 'Cannot do or record work; it is tried again later');
    }
  }

  async function untilRoom(done: Promise<void>) {
    let timer: NodeJS.Timeout | undefined;
    const setAside = new Promise<void>((resolve) => {
      timer = setTimeout(() => {
        if (aside.size >= ASIDE_MAX) return;
        aside.add(done);
        resolve();
      }, ASIDE_MS);
    });
    await Promise.race([done, setAside]);
    clearTimeout(timer);
  }

  return {
    get size() {
      return running.size - aside.size;
    },
    start(job, ref) {
      const done = run(job, ref).finally(() => {
        running.delete(done);
        aside.delete(done);
      });
      running.add(done);
      return untilRoom(done);
    },
    async settle() {
      while (running.size > 0) await Promise.all(running);
    },
  };
}
