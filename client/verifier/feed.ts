/** Follows the feed, and knows at each moment whether memory may be trusted (docs/feed.md, the rule of trust). */
import { setTimeout as sleep } from 'node:timers/promises';
import { isRecord } from '../answers.ts';
import type { Invalidation } from './told.ts';

const TRUST_MS = 2_000;
/** Without a message for this long the connection is dead, whatever the network says. */
const SILENCE_MS = 5_000;
/** How often a connection is begun anew, because of what two clocks differ by more with time. */
const CONNECTION_MS_MAX = 10 * 60_000;
const RECONNECT_MS_FIRST = 100;
const RECONNECT_MS_MAX = 5_000;
/** More than any message of ours. */
const MESSAGE_CHARS_MAX = 4 * 1024 * 1024;

export interface FeedListener {
  /** What was told before is of no use: forget all. */
  reset(): void;
  /** Something is in force, as of the snapshot. */
  inForce(item: Invalidation): void;
  invalidated(item: Invalidation): void;
  signingKey(state: { kid: string; state: string }): void;
  /** The snapshot is complete. */
  begun(snapshot: { hasImportedKeys: boolean }): void;
  /** The state of the connection changed, or an attempt at it failed. */
  connection(state: 'open' | 'closed', error?: unknown): void;
}

export interface FeedOptions {
  base: URL;
  authorization: string;
  fetch: typeof fetch;
  listener: FeedListener;
  clock?: () => number;
}

export class Feed {
  readonly #options: FeedOptions;
  readonly #clock: () => number;
  readonly #ending = new AbortController();
  readonly #following: Promise<void>;
  /** Of the connection there is. Not `AbortSignal.any`: on Node 20 its signals may be collected before they are needed. */
  #connection = new AbortController();
  #lastEventId: string | undefined;
  /** The epoch that the listener knows something of. */
  #epoch: string | undefined;
  #isComplete = false;
  #readAt = Number.NEGATIVE_INFINITY;
  /** At most this much is the server's clock ahead of ours. */
  #aheadMs = Number.POSITIVE_INFINITY;

  constructor(options: FeedOptions) {
    this.#options = options;
    this.#clock = options.clock ?? (() => performance.now());
    this.#following = this.#follow();
  }

  /** Whether all that was told was told in time: the server's time is not 2 s past its last reading, at the latest that it can be. */
  get isTrusted(): boolean {
    return this.isWithin(TRUST_MS);
  }

  /** The same for another bound than the rule's. */
  isWithin(boundMs: number): boolean {
    return this.#isComplete && this.serverNow() < this.#readAt + boundMs;
  }

  /** Whether what happens from now on is told, or will be once there is a connection again. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** The server's time in milliseconds since 1970-01-01 UTC, at the latest that it can be. */
  serverNow(): number {
    return this.#clock() + this.#aheadMs;
  }

  async close(): Promise<void> {
    this.#ending.abort();
    this.#connection.abort();
    await this.#following;
  }

  async #follow(): Promise<void> {
    const { signal } = this.#ending;
    const { listener } = this.#options;
    let waitMs = 0;
    while (!signal.aborted) {
      await sleep(waitMs * (0.5 + Math.random() / 2), undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted) break;
      try {
        await this.#connect(() => {
          waitMs = 0;
          listener.connection('open');
        });
        listener.connection('closed');
      } catch (error) {
        if (signal.aborted) break;
        listener.connection('closed', error);
      }
      waitMs = Math.min(Math.max(waitMs * 2, RECONNECT_MS_FIRST), RECONNECT_MS_MAX);
    }
  }

  /** One connection, from the last event that was told on; resolves when it ends. */
  async #connect(onOpen: () => void): Promise<void> {
    const { base, authorization, fetch: fetchLike } = this.#options;
    const connection = new AbortController();
    this.#connection = connection;
    const end = (reason: string) => connection.abort(new Error(reason));
    const silence = setTimeout(end, SILENCE_MS, 'Nothing was heard').unref();
    const age = setTimeout(end, CONNECTION_MS_MAX, 'It is begun anew').unref();
    const sentAt = this.#clock();
    try {
      const response = await unlessAborted(
        connection.signal,
        fetchLike(new URL('v1/feed', base), {
          headers: {
            authorization,
            accept: 'text/event-stream',
            ...(this.#lastEventId !== undefined && { 'last-event-id': this.#lastEventId }),
          },
          redirect: 'error',
          signal: connection.signal,
        }),
      );
      if (!response.ok || !response.body) {
        await response.body?.cancel();
        throw new Error(`Wanted the feed, got status ${response.status}`);
      }
      const theirClock = new ServerClock(sentAt, timeIn(response.headers));
      onOpen();
      for await (const message of messagesOf(response.body, connection.signal)) {
        silence.refresh();
        this.#take(message, theirClock);
      }
      connection.signal.throwIfAborted();
    } finally {
      clearTimeout(silence);
      clearTimeout(age);
    }
  }

  #take(message: Message, theirClock: ServerClock): void {
    const { listener } = this.#options;
    const { event, data, id } = message;
    switch (event) {
      case 'reset':
        this.#begin();
        break;
      case 'snapshot':
        if (!this.#isComplete) this.#takeSnapshot(data);
        break;
      case 'invalidate':
        listener.invalidated(data as unknown as Invalidation);
        break;
      case 'signing_key':
        listener.signingKey(data as { kid: string; state: string });
        break;
      case 'heartbeat':
        this.#readAt = Number(data['readAt']);
        this.#aheadMs = theirClock.aheadMs(this.#readAt, this.#clock());
        break;
    }
    if (id !== undefined) this.#moveTo(id);
  }

  #takeSnapshot(data: Record<string, unknown>): void {
    const { listener } = this.#options;
    for (const item of data['items'] as Invalidation[]) listener.inForce(item);
    if (data['complete'] !== true) return;
    this.#isComplete = true;
    listener.begun({ hasImportedKeys: data['hasImportedKeys'] !== false });
  }

  /** Only once all of a message is applied, so that what broke off is told again. */
  #moveTo(id: string): void {
    const epoch = id.slice(0, id.lastIndexOf('-'));
    // Another database than the one that was followed, and no word of it: nothing that is remembered is of this one.
    if (this.#epoch !== undefined && this.#epoch !== epoch && this.#isComplete) {
      this.#begin();
      throw new Error('The feed went on in another epoch');
    }
    this.#epoch = epoch;
    this.#lastEventId = id;
  }

  #begin(): void {
    this.#isComplete = false;
    this.#lastEventId = undefined;
    this.#epoch = undefined;
    this.#options.listener.reset();
  }
}

/** The server's clock as one connection shows it. Ours is monotonic, so only what is ahead of it can be known. */
class ServerClock {
  readonly #sentAt: number;
  #ahead: number;

  /** `admittedAt` is the server's time when it had the request: no earlier than we sent it. */
  constructor(sentAt: number, admittedAt: number | null) {
    this.#sentAt = sentAt;
    this.#ahead = admittedAt === null ? Number.POSITIVE_INFINITY : admittedAt - sentAt;
  }

  /** The most that it can be ahead, after a message that says what its clock said before it was sent. */
  aheadMs(readAt: number, receivedAt: number): number {
    if (this.#ahead === Number.POSITIVE_INFINITY) this.#ahead = readAt - this.#sentAt;
    // It runs faster than ours: at least this far it is ahead by now.
    this.#ahead = Math.max(this.#ahead, readAt - receivedAt);
    return this.#ahead;
  }
}

function timeIn(headers: Headers): number | null {
  const text = headers.get('x-server-time');
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

interface Message {
  event: string;
  data: Record<string, unknown>;
  id: string | undefined;
}

/** Settles with `work`, or as the signal says, whatever becomes of `work` then. */
function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
    work.then(resolve, reject);
  });
}

/**
 * Server-sent events, as ours are written: https://html.spec.whatwg.org/multipage/server-sent-events.html. Ends with the
 * signal by itself: Node 20's `fetch` may not, once its own signal was collected as garbage.
 */
async function* messagesOf(body: ReadableStream<Uint8Array>, signal: AbortSignal): AsyncGenerator<Message> {
  const reader = body.getReader();
  const cancel = () => void reader.cancel().catch(() => {});
  signal.addEventListener('abort', cancel, { once: true });
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      const parts = (rest + decoder.decode(read.value, { stream: true })).split('\n\n');
      rest = parts.pop() ?? '';
      if (rest.length > MESSAGE_CHARS_MAX) throw new Error('A message of the feed is too long');
      for (const part of parts) yield parse(part);
    }
  } finally {
    cancel();
  }
}

function parse(text: string): Message {
  const fields = new Map(
    text.split('\n').map((line) => {
      const at = line.indexOf(':');
      return [line.slice(0, at), line.slice(at + 1).trimStart()] as const;
    }),
  );
  const data: unknown = JSON.parse(fields.get('data') ?? '{}');
  if (!isRecord(data)) throw new Error('A message of the feed is no object');
  return { event: fields.get('event') ?? '', data, id: fields.get('id') };
}
