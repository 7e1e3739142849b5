import { setTimeout as sleep } from 'node:timers/promises';
import type { Database, Statement } from 'better-sqlite3';
import type { Reserve } from './reserve.ts';
import { isRepeated, type Lane, type Rows, StoreError, storeFailure } from './store.ts';

/** A batch takes no further transaction after this long, so that others get their share of the event loop. */
const BATCH_MS_MAX = 4;

/** As long as each turn of the event loop brings more transactions, a batch waits for them, but no longer than this. */
const GATHER_MS_MAX = 1;

/** What is unhurried is committed after this long, or with so many of its kind, if nothing else is before. */
const UNHURRIED_MS_MAX = 25;
const UNHURRIED_MAX = 8;

/** Who goes first; those of one rank in the order in which they came. */
const RANKS = {
  revocation: 0,
  normal: 1,
  claiming: 1,
  unhurried: 2,
  minting: 3,
  sweeping: 3,
} as const satisfies Record<Lane, number>;

interface Waiting {
  lane: Lane;
  work: (tx: Rows) => Promise<unknown>;
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
}

type Outcome = { value: unknown } | { error: unknown };

interface Done {
  waiting: Waiting;
  outcome: Outcome;
}

/** The connection that writes, and what transactions see of it. */
export interface Writer {
  readonly connection: Database;
  readonly rows: Rows;
  /** Around each member of a batch; prepared, as every transaction there is runs them. */
  readonly begin: Statement;
  readonly keep: Statement;
}

export interface QueueOptions {
  /** How long another process's lock is waited for. */
  lockTimeoutMs: number;
  /** Without it revocations fail like everything else when the disk is full. */
  reserve?: Reserve | undefined;
  /** Told of each commit: how many transactions it carried. */
  onCommit: (transactions: number) => void;
}

/**
 * The one writer of a SQLite file. Transactions that wait at the same time run one after the other, each in a
 * savepoint, are committed once, and only then answered: one fsync serves them all, or none is needed.
 */
export class WriteQueue {
  /** By rank. */
  readonly #queues: readonly [Waiting[], Waiting[], Waiting[], Waiting[]] = [[], [], [], []];
  readonly #open: () => Writer;
  readonly #options: QueueOptions;
  #writer: Writer | undefined;
  /** Connections on which COMMIT does not wait for the disk at the moment. */
  readonly #unflushed = new WeakSet<Database>();
  #draining: Promise<void> | undefined;
  /** Until when what is unhurried may wait. */
  #patience: NodeJS.Timeout | undefined;
  #isImpatient = false;
  #closed = false;

  constructor(open: () => Writer, options: QueueOptions) {
    this.#open = open;
    this.#options = options;
    this.#writer = open();
  }

  add<T>(work: (tx: Rows) => Promise<T>, lane: Lane): Promise<T> {
    if (this.#closed)
      return Promise.reject(new StoreError('unavailable', 'Cannot write: the store is closed'));
    return new Promise<T>((resolve, reject) => {
      const waiting = { lane, work, resolve: resolve as (value: unknown) => void, reject };
      this.#queues[RANKS[lane]].push(waiting);
      if (lane === 'unhurried') this.#patience ??= setTimeout(() => this.#losePatience(), UNHURRIED_MS_MAX);
      this.#begin();
    });
  }

  #losePatience(): void {
    this.#isImpatient = true;
    this.#begin();
  }

  #begin(): void {
    if (this.#isDue()) this.#draining ??= this.#drain();
  }

  /** Takes no more transactions, and waits for those it took. */
  async end(): Promise<void> {
    this.#closed = true;
    this.#losePatience();
    await this.#draining;
  }

  /** After how many pages of the write-ahead log COMMIT copies them into the file; a connection opened later does so after 1,000. */
  limitLog(pages: number): void {
    if (this.#writer?.connection.open) this.#writer.connection.pragma(`wal_autocheckpoint = ${pages}`);
  }

  closeWriter(): void {
    this.#discardWriter();
  }

  /**
   * Of a batch that is not flushed nobody is a member who must survive a loss of power, and of one on a full disk nobody
   * but revocations.
   */
  #next(isFlushed: boolean, isFull = false): Waiting | undefined {
    const queue = isFull ? this.#queues[0] : this.#queues.find(({ length }) => length > 0);
    const [first] = queue ?? [];
    return first && (isFlushed || isRepeated(first.lane)) ? queue?.shift() : undefined;
  }

  get #mustFlush(): boolean {
    return this.#queues.some((queue) => queue.some(({ lane }) => !isRepeated(lane)));
  }

  get #unhurried(): number {
    return this.#queues[RANKS.unhurried].length;
  }

  async #drain(): Promise<void> {
    for (;;) {
      await this.#gather();
      if (!this.#isDue()) break;
      try {
        await this.#batch(await this.#lock());
      } catch (error) {
        for (let waiting = this.#next(true); waiting; waiting = this.#next(true)) waiting.reject(error);
      }
      if (this.#unhurried === 0) this.#calmDown();
    }
    this.#draining = undefined;
  }

  #calmDown(): void {
    clearTimeout(this.#patience);
    this.#patience = undefined;
    this.#isImpatient = false;
  }

  /** Turns of the event loop: everything that arrives in them joins the batch. */
  async #gather(): Promise<void> {
    const started = performance.now();
    let before: number;
    do {
      before = this.#waiting();
      await new Promise(setImmediate);
    } while (this.#waiting() > before && performance.now() - started < GATHER_MS_MAX);
  }

  #waiting(): number {
    return this.#queues.reduce((sum, { length }) => sum + length, 0);
  }

  #isDue(): boolean {
    const unhurried = this.#unhurried;
    return this.#waiting() > unhurried || unhurried >= UNHURRIED_MAX || (this.#isImpatient && unhurried > 0);
  }

  /** Takes SQLite's write lock, waiting for another process to let go of it. */
  async #lock(): Promise<{ writer: Writer; isFlushed: boolean }> {
    const { lockTimeoutMs, reserve } = this.#options;
    const deadline = performance.now() + lockTimeoutMs;
    for (;;) {
      try {
        if (!this.#writer?.connection.open) this.#writer = this.#open();
        const isFlushed = this.#mustFlush;
        this.#setFlushing(this.#writer.connection, isFlushed);
        this.#writer.connection.exec('BEGIN IMMEDIATE');
        return { writer: this.#writer, isFlushed };
      } catch (error) {
        if (storeFailure(error) === 'full' && reserve?.giveUp()) continue;
        if (!isBusy(error)) throw refused(error);
        if (performance.now() > deadline) {
          throw new StoreError(
            'unavailable',
            `Cannot write: the database was locked for ${lockTimeoutMs} ms`,
            { cause: error },
          );
        }
      }
      await sleep(1 + Math.random() * 4);
    }
  }

  /**
   * Whether COMMIT waits for the disk. What it did not wait for is in the log before what it waits for next, and so is on
   * the disk by then too. https://www.sqlite.org/pragma.html#pragma_synchronous
   */
  #setFlushing(connection: Database, isFlushed: boolean): void {
    if (isFlushed !== this.#unflushed.has(connection)) return;
    connection.pragma(`synchronous = ${isFlushed ? 'FULL' : 'NORMAL'}`);
    if (isFlushed) this.#unflushed.delete(connection);
    else this.#unflushed.add(connection);
  }

  async #batch({ writer, isFlushed }: { writer: Writer; isFlushed: boolean }): Promise<void> {
    const started = performance.now();
    const done: Done[] = [];
    const guard = new LoopGuard();
    const isFull = this.#options.reserve?.isMissing();
    if (isFull) this.#refuseOrdinary();
    try {
      for (let waiting = this.#next(isFlushed, isFull); waiting; ) {
        done.push({ waiting, outcome: await runMember(writer, waiting.work, guard) });
        if (!writer.connection.inTransaction || guard.tripped) break;
        waiting = performance.now() - started < BATCH_MS_MAX ? this.#next(isFlushed, isFull) : undefined;
      }
      commit(writer.connection, done);
    } catch (error) {
      this.#rollBack(writer.connection);
      const refusal = refused(error);
      this.#settle(
        done.map(({ waiting, outcome }) => ({
          waiting,
          outcome: 'error' in outcome ? outcome : { error: refusal },
        })),
      );
      return;
    } finally {
      guard.stop();
      // What tripped it goes on running: on a connection that is closed, its later statements can do no harm.
      if (guard.tripped) this.#discardWriter();
    }
    this.#settle(done);
    this.#options.onCommit(done.length);
  }

  /** Answers everybody, but for revocations that found the disk full: they are tried again with the reserve given up. */
  #settle(done: readonly Done[]): void {
    const isFull = ({ outcome }: Done) => 'error' in outcome && storeFailure(outcome.error) === 'full';
    const gaveUp = done.some(isFull) && this.#options.reserve?.giveUp();
    const again: Waiting[] = [];
    for (const each of done) {
      const { waiting, outcome } = each;
      if (gaveUp && waiting.lane === 'revocation' && isFull(each)) again.push(waiting);
      else if ('error' in outcome) waiting.reject(outcome.error);
      else waiting.resolve(outcome.value);
    }
    this.#queues[0].unshift(...again);
  }

  /** What is left of the disk is for revocations. */
  #refuseOrdinary(): void {
    const error = new StoreError(
      'full',
      'Cannot write: the disk is full, and its reserve is for revocations',
    );
    const [, ...ordinary] = this.#queues;
    for (const queue of ordinary) for (const waiting of queue.splice(0)) waiting.reject(error);
  }

  #rollBack(connection: Database): void {
    try {
      if (connection.inTransaction) connection.exec('ROLLBACK');
    } catch {
      // Closing it rolls back too.
      this.#discardWriter();
    }
  }

  /** The next batch opens another connection. */
  #discardWriter(): void {
    this.#writer?.connection.close();
    this.#writer = undefined;
  }
}

async function runMember(writer: Writer, work: Waiting['work'], guard: LoopGuard): Promise<Outcome> {
  const { connection, rows, begin, keep } = writer;
  try {
    begin.run();
    const value = await guard.watch(work(rows));
    keep.run();
    return { value };
  } catch (error) {
    rollBackMember(connection);
    return { error };
  }
}

/** Where a member cannot be undone alone, the whole batch is, by closing the connection; `commit` then refuses it. */
function rollBackMember(connection: Database): void {
  try {
    if (connection.inTransaction) connection.exec('ROLLBACK TO member; RELEASE member');
  } catch {
    connection.close();
  }
}

/** SQLITE_FULL, for one, ends the whole transaction and not just the statement: then nothing of the batch is there. */
function commit(connection: Database, done: readonly Done[]): void {
  if (connection.inTransaction) {
    connection.exec('COMMIT');
    return;
  }
  const last = done.at(-1)?.outcome;
  const cause = last && 'error' in last ? last.error : undefined;
  throw new StoreError(
    storeFailure(cause) ?? 'unavailable',
    'Cannot write: the database rolled back what was to be committed together',
    { cause },
  );
}

/**
 * Trips when the event loop turns while a transaction is open: SQLite answers within the turn, so the callback awaited
 * something else and would hold the writer, and with it everyone, for as long as that takes.
 */
class LoopGuard {
  tripped = false;
  #trip: ((error: Error) => void) | undefined;
  readonly #immediate = setImmediate(() => {
    this.tripped = true;
    this.#trip?.(new Error('A transaction may await nothing but the database'));
  });

  watch<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#trip = reject;
      work.then(resolve, reject);
    });
  }

  stop(): void {
    clearImmediate(this.#immediate);
  }
}

function isBusy(error: unknown): boolean {
  return /^SQLITE_(BUSY|LOCKED)/.test(String((error as { code?: unknown }).code));
}

function refused(error: unknown): unknown {
  const failure = storeFailure(error);
  return failure && !(error instanceof StoreError)
    ? new StoreError(failure, 'Cannot write: the database refused', { cause: error })
    : error;
}
