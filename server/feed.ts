/** The feed over HTTP: who follows it, what each has been told, and that nobody holds up the others. */
import type { ServerResponse } from 'node:http';
import { authenticate, authorize, presentedBy, type RequestContext } from './authenticate.ts';
import type { Deps, Principal } from './deps.ts';
import { type Event, readEvents } from './domain/events.ts';
import {
  canResume,
  changesConcerns,
  concerns,
  type Frame,
  formatCursor,
  framesOf,
  parseCursor,
  readPosition,
  readSnapshot,
  type Snapshot,
} from './domain/feed.ts';
import { findCaller } from './domain/secrets.ts';
import { CountersignError } from './errors.ts';
import { type Complaint, createComplaint, type Logger } from './logger.ts';

/** threats.md, feed and verifier. */
const CONNECTIONS_PER_KEY_MAX = 10;
const CONNECTIONS_MAX = 1_000;
const BUFFER_BYTES_MAX = 256 * 1024;

/** What server/access.ts knows it by. */
const FOLLOW = 'feed.follow';

const HEARTBEAT_MS = 500;
/** How long somebody who catches up may read nothing of what was written. */
const STALL_MS_MAX = 30_000;
const EVENTS_PER_READ = 500;
const ITEMS_PER_CHUNK = 500;
/** A snapshot that was read is given to everybody who comes within this time; what happened since is told after it. */
const SNAPSHOT_MS_MAX = 5_000;
/** After this much, sockets get their turn: a burst must not look like somebody who does not read. */
const BYTES_PER_TURN = 64 * 1024;
const RETRY_AFTER_MS = 5_000;

export interface Feeds {
  /** Answers a request with the feed; resolves when it has ended. Throws before anything was sent. */
  open(request: RequestContext, response: ServerResponse, lastEventId: string | undefined): Promise<void>;
  /** Ends all of them, and takes no more. */
  close(): void;
}

/** The feeds of one process: one reading of new events, shared by all who follow. */
export function createFeeds(deps: Deps, logger: Pick<Logger, 'error' | 'info'>): Feeds {
  const hub = new Hub(deps, logger);
  return {
    async open(request, response, lastEventId) {
      const { principal } = await authenticate(request, FOLLOW);
      const follower = hub.admit(principal, request, response);
      try {
        await hub.follow(follower, lastEventId);
      } catch (err) {
        if (!response.headersSent) throw err;
        logger.error({ err, requestId: request.requestId }, 'A feed broke off');
        follower.drop();
      }
      await follower.closed;
    },
    close: () => hub.close(),
  };
}

/** Somebody who follows: a connection, and how far it has been told. */
class Follower {
  principal: Principal;
  /** The last event it was told of, or would have been had it concerned it. */
  seq = 0;
  /** The last event that changed what concerns it, and after which it began anew. */
  anewSeq = 0;
  isOpen = true;
  readonly request: RequestContext;
  readonly #response: ServerResponse;
  readonly closed: Promise<void>;

  constructor(principal: Principal, request: RequestContext, response: ServerResponse) {
    this.principal = principal;
    this.request = request;
    this.#response = response;
    this.closed = new Promise((resolve) => {
      if (response.destroyed) resolve();
      else response.once('close', resolve);
    });
  }

  /** Whether it has to begin anew before it is told of this event. */
  endsWith(event: Event): boolean {
    return event.seq > this.anewSeq && changesConcerns(this.principal, event);
  }

  begin(requestId: string, now: number): void {
    this.#response.writeHead(200, {
      // Whoever knows when it asked knows by that how far our clock is ahead of its own at most.
      'X-Server-Time': `${now}`,
      'Content-Type': 'text/event-stream',
      'Cache-Control': 'no-store',
      'X-Accel-Buffering': 'no',
      'X-Request-Id': requestId,
    });
    this.#response.flushHeaders();
  }

  /** Writes to whoever reads; whoever does not read is dropped, and disturbs nobody. */
  tell(text: string): void {
    if (!this.isOpen || text === '') return;
    if (this.#response.writableLength + Buffer.byteLength(text) > BUFFER_BYTES_MAX) this.drop();
    else this.#response.write(text);
  }

  /** Writes, and waits until it was read. Answers whether there is still somebody. */
  async write(text: string): Promise<boolean> {
    if (!this.isOpen) return false;
    if (!this.#response.write(text)) await this.#drained();
    return this.isOpen;
  }

  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const stall = setTimeout(() => this.drop(), STALL_MS_MAX);
      stall.unref();
      const done = () => {
        clearTimeout(stall);
        this.#response.off('drain', done);
        resolve();
      };
      this.#response.once('drain', done);
      void this.closed.then(done);
    });
  }

  /** Ends the connection at once, with what is buffered. */
  drop(): void {
    this.isOpen = false;
    this.#response.destroy();
  }

  /** Ends it after what is buffered. */
  end(): void {
    this.isOpen = false;
    this.#response.end();
    // Whoever does not read would keep it open for as long as it likes.
    if (this.#response.writableLength > 0) setTimeout(() => this.#response.destroy(), HEARTBEAT_MS).unref();
  }
}

class Hub {
  readonly #deps: Deps;
  readonly #complaint: Complaint;
  readonly #followers = new Set<Follower>();
  /** Those who have been told everything up to `#seq`, and are told what comes; and what ends that for each. */
  readonly #live = new Map<Follower, () => void>();
  /** Those who believe to be as far, until the next reading. */
  readonly #joining = new Map<Follower, () => void>();
  #epoch = '';
  #seq = 0;
  #isReading = false;
  #isNudged = false;
  #isHeartbeatDue = false;
  #isChecking = false;
  #snapshot: Promise<Snapshot> | undefined;
  #stop: (() => void) | undefined;
  #isClosed = false;

  constructor(deps: Deps, logger: Pick<Logger, 'error' | 'info'>) {
    this.#deps = deps;
    this.#complaint = createComplaint(logger, {
      failing: 'Cannot read what is new for the feed',
      again: 'The feed is told again',
    });
  }

  /** Throws `rate_limited` where the caller, or everybody together, follows as often as may be. */
  admit(principal: Principal, request: RequestContext, response: ServerResponse): Follower {
    if (this.#isClosed) throw new CountersignError('unavailable', 'The server is shutting down');
    const own = [...this.#followers].filter((follower) => follower.principal.id === principal.id).length;
    if (own >= CONNECTIONS_PER_KEY_MAX) throw tooMany(`${CONNECTIONS_PER_KEY_MAX} feeds of one key`);
    if (this.#followers.size >= CONNECTIONS_MAX)
      throw tooMany(`${CONNECTIONS_MAX} feeds of all keys together`);
    const follower = new Follower(principal, request, response);
    this.#followers.add(follower);
    response.once('close', () => this.#forget(follower));
    // It may have gone while it was authenticated.
    if (response.destroyed) this.#forget(follower);
    this.#start();
    return follower;
  }

  #forget(follower: Follower): void {
    follower.isOpen = false;
    this.#followers.delete(follower);
    for (const group of [this.#live, this.#joining]) {
      group.get(follower)?.();
      group.delete(follower);
    }
    if (this.#followers.size === 0) this.#end();
  }

  close(): void {
    this.#isClosed = true;
    for (const follower of this.#followers) follower.end();
    this.#end();
  }

  #start(): void {
    if (this.#stop || this.#followers.size === 0) return;
    const unsubscribe = this.#deps.store.onChange(() => this.#nudge());
    const timer = setInterval(() => this.#beat(), HEARTBEAT_MS);
    timer.unref();
    this.#stop = () => {
      clearInterval(timer);
      unsubscribe();
    };
  }

  #end(): void {
    this.#stop?.();
    this.#stop = undefined;
  }

  /** Tells one who follows everything, from its cursor or a snapshot on, and then with the others, until it has ended. */
  async follow(follower: Follower, lastEventId: string | undefined): Promise<void> {
    const position = await readPosition(this.#deps.store.read);
    this.#epoch = position.epoch;
    follower.begin(follower.request.requestId, this.#deps.now());
    const cursor = lastEventId === undefined ? null : parseCursor(lastEventId);
    if (cursor && canResume(cursor, position)) {
      follower.seq = cursor.seq;
    } else {
      if (lastEventId !== undefined) follower.tell(RESET);
      await this.#tellSnapshot(follower);
    }
    while (follower.isOpen) if (await this.#catchUp(follower)) await this.#join(follower);
  }

  async #tellSnapshot(follower: Follower): Promise<void> {
    const { seq, items, signingKeys, hasImportedKeys } = await this.#readSnapshot();
    follower.seq = seq;
    // Not before: changes after `seq` are told, changes until then have to be known.
    follower.principal = await this.#judge(follower);
    for (const key of signingKeys) follower.tell(frameText('signing_key', key));
    const concerning = items.filter(({ to }) => concerns(follower.principal, to));
    let next = 0;
    do {
      const chunk = concerning.slice(next, next + ITEMS_PER_CHUNK);
      next += ITEMS_PER_CHUNK;
      const complete = next >= concerning.length;
      const data = { items: chunk.map((item) => item.data), complete, ...(complete && { hasImportedKeys }) };
      // The cursor comes with the last: whoever has only some of them begins again.
      if (!(await follower.write(frameText('snapshot', data, complete ? this.#idOf(seq) : undefined))))
        return;
    } while (next < concerning.length);
  }

  /** One reading for all who come while it is made, and shortly after. */
  #readSnapshot(): Promise<Snapshot> {
    this.#snapshot ??= this.#shared(readSnapshot(this.#deps));
    return this.#snapshot;
  }

  #shared(reading: Promise<Snapshot>): Promise<Snapshot> {
    const drop = () => {
      this.#snapshot = undefined;
    };
    reading.then(() => setTimeout(drop, SNAPSHOT_MS_MAX).unref(), drop);
    return reading;
  }

  /** Tells one follower a page of events, at the speed at which it reads; answers whether that was the last. */
  async #catchUp(follower: Follower): Promise<boolean> {
    const { store } = this.#deps;
    const events = await readEvents(store.read, follower.seq, EVENTS_PER_READ);
    const end = events.find((event) => follower.endsWith(event));
    const before = end ? events.slice(0, events.indexOf(end)) : events;
    const told = await framesOf(store.read, before, isMachine(follower));
    const text = told
      .map(({ event, frames }) => this.#textOf(event.seq, frames.filter(concerning(follower))))
      .join('');
    if (text !== '') await follower.write(text);
    follower.seq = before.at(-1)?.seq ?? follower.seq;
    if (!end) return events.length < EVENTS_PER_READ;
    follower.anewSeq = end.seq;
    follower.tell(RESET);
    await this.#tellSnapshot(follower);
    return false;
  }

  /** Has the follower told with the others; resolves when it has to catch up again, or has ended. */
  #join(follower: Follower): Promise<void> {
    if (!follower.isOpen) return Promise.resolve();
    return new Promise((resolve) => {
      this.#joining.set(follower, resolve);
      this.#nudge();
    });
  }

  /** Between two readings, so that none is missing from what is read and told to those who are live then. */
  #letIn(): void {
    if (this.#live.size === 0) this.#seq = Math.max(0, ...[...this.#joining.keys()].map(({ seq }) => seq));
    for (const [follower, leave] of this.#joining) {
      if (follower.seq >= this.#seq) this.#live.set(follower, leave);
      else leave();
    }
    this.#joining.clear();
  }

  #beat(): void {
    this.#isHeartbeatDue = true;
    this.#nudge();
    void this.#checkCallers();
  }

  /** Has new events read, once more if that is going on. */
  #nudge(): void {
    this.#isNudged = true;
    if (!this.#isReading) void this.#read();
  }

  async #read(): Promise<void> {
    this.#isReading = true;
    while (this.#isNudged && !this.#isClosed) {
      this.#isNudged = false;
      this.#letIn();
      if (this.#live.size > 0) await this.#tellNew().then(this.#complaint.succeeded, this.#complaint.failed);
    }
    this.#isReading = false;
  }

  /** Reads new events once and tells them; a heartbeat that is due goes after all there was to read. */
  async #tellNew(): Promise<void> {
    const { store, now } = this.#deps;
    const readAt = now();
    const events = await readEvents(store.read, this.#seq, EVENTS_PER_READ);
    const told = await framesOf(store.read, events, [...this.#live.keys()].some(isMachine));
    let bytes = 0;
    for (const { event, frames } of told) {
      bytes += this.#tellAll(event, frames);
      if (bytes < BYTES_PER_TURN) continue;
      bytes = 0;
      await nextTurn();
    }
    this.#seq = events.at(-1)?.seq ?? this.#seq;
    if (events.length === EVENTS_PER_READ) {
      this.#isNudged = true;
      await nextTurn();
    } else if (this.#isHeartbeatDue) {
      this.#isHeartbeatDue = false;
      const text = frameText('heartbeat', { readAt, seq: this.#seq }, this.#idOf(this.#seq));
      for (const follower of this.#live.keys()) follower.tell(text);
    }
  }

  /** Each text is made once for all whom the same frames concern. Answers how long it is for whom all of them do. */
  #tellAll(event: Event, frames: Frame[]): number {
    const { seq } = event;
    const texts = new Map<string, string>();
    for (const [follower, leave] of this.#live) {
      if (follower.seq >= seq) continue;
      if (follower.endsWith(event)) {
        this.#live.delete(follower);
        leave();
        continue;
      }
      follower.seq = seq;
      const own = frames.filter(concerning(follower));
      const key = own.map((frame) => frames.indexOf(frame)).join();
      const text = texts.get(key) ?? this.#textOf(seq, own);
      texts.set(key, text);
      follower.tell(text);
    }
    return Math.max(0, ...[...texts.values()].map(({ length }) => length));
  }

  #textOf(seq: number, frames: Frame[]): string {
    // The cursor comes with the last frame of an event: whoever has only some of them is told all again.
    return frames
      .map(({ event, data }, i) =>
        frameText(event, data, i === frames.length - 1 ? this.#idOf(seq) : undefined),
      )
      .join('');
  }

  #idOf(seq: number): string {
    return formatCursor({ epoch: this.#epoch, seq });
  }

  /** Ends the feeds of whoever may not follow any more, one question for all of the same caller. */
  async #checkCallers(): Promise<void> {
    if (this.#isChecking) return;
    this.#isChecking = true;
    const callers = new Map<string, Follower[]>();
    for (const follower of this.#followers) {
      const { value, address } = presentedBy(follower.request);
      const caller = `${value} ${address()}`;
      callers.set(caller, [...(callers.get(caller) ?? []), follower]);
    }
    await Promise.all([...callers.values()].map((followers) => this.#check(followers)));
    this.#isChecking = false;
  }

  async #check(followers: Follower[]): Promise<void> {
    try {
      await this.#judge(followers[0] as Follower);
    } catch (error) {
      // A database that does not answer says nothing of anybody; without it there is no heartbeat either.
      if (!(error instanceof CountersignError)) return;
      for (const follower of followers) follower.drop();
    }
  }

  /** Answers who it is now; throws if it may not follow any more. */
  async #judge({ request }: Follower): Promise<Principal> {
    const { value, address } = presentedBy(request);
    const found = value === null ? null : await findCaller(this.#deps, value, address);
    return authorize(found, FOLLOW, true);
  }
}

const nextTurn = () => new Promise(setImmediate);

const isMachine = ({ principal }: Follower) => principal.kind === 'machine';

const concerning =
  ({ principal }: Follower) =>
  ({ to }: Frame) =>
    concerns(principal, to);

/** One message: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. */
function frameText(event: string, data: unknown, id?: string): string {
  const named = id === undefined ? '' : `id: ${id}\n`;
  return `${named}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

const RESET = frameText('reset', {});

const tooMany = (found: string) =>
  new CountersignError('rate_limited', `Cannot follow the feed: there are ${found} already`, {
    retryAfterMs: RETRY_AFTER_MS,
  });
