/**
 * A load generator that costs less than what it measures: raw sockets, requests written as ready-made buffers, one in
 * flight per connection. It fails on any answer that is not as wanted, for a bench full of refusals runs faster.
 */
import { connect, type Socket } from 'node:net';
import { quantile } from './statistics.ts';

export interface LoadOptions {
  port: number;
  /** Ready-made HTTP/1.1 requests, used in turn. */
  requests: readonly Buffer[];
  connections: number;
  durationMs: number;
}

/** As fast as answers come: each connection sends its next request once it has its answer. Requests a second. */
export async function saturate({ port, requests, connections, durationMs }: LoadOptions): Promise<number> {
  const open = await openConnections(port, connections);
  const started = performance.now();
  let next = 0;
  await Promise.all(
    open.map(async (connection) => {
      while (performance.now() < started + durationMs) {
        await connection.exchange(requests[next++ % requests.length] as Buffer);
      }
    }),
  );
  const elapsedMs = performance.now() - started;
  for (const connection of open) connection.close();
  return (next * 1000) / elapsedMs;
}

/**
 * At a rate, whether answers come or not: requests fall due at even distances, and one that finds every connection
 * taken waits for the first that is free. Its latency counts from when it was due, so that a stall is charged to all
 * who would have come meanwhile. Answers the latencies in ms.
 */
export async function arrive(options: LoadOptions & { ratePerSecond: number }): Promise<number[]> {
  const { port, requests, durationMs, ratePerSecond } = options;
  const open = await openConnections(port, options.connections);
  const free = [...open];
  const latencies: number[] = [];
  const count = Math.floor((durationMs * ratePerSecond) / 1000);
  const started = performance.now();
  const dueAt = (index: number) => started + (index * 1000) / ratePerSecond;
  let next = 0;

  await new Promise<void>((resolve, reject) => {
    let hasFailed = false;
    // Turns of the event loop instead of timers, which are late by a millisecond: this core has nothing else to do.
    function turn() {
      for (let now = performance.now(); next < count && dueAt(next) <= now && free.length > 0; next++) {
        send(free.pop() as Connection, next);
      }
      if (latencies.length === count) resolve();
      else if (!hasFailed) setImmediate(turn);
    }
    function send(connection: Connection, index: number) {
      connection.exchange(requests[index % requests.length] as Buffer).then(() => {
        latencies.push(performance.now() - dueAt(index));
        free.push(connection);
      }, fail);
    }
    function fail(error: Error) {
      hasFailed = true;
      reject(error);
    }
    turn();
  });
  for (const connection of open) connection.close();
  return latencies;
}

export const p99 = (latencies: readonly number[]) => quantile(latencies, 0.99);

export const openConnections = (port: number, count: number): Promise<Connection[]> =>
  Promise.all(Array.from({ length: count }, () => Connection.open(port)));

const HEADER_END = Buffer.from('\r\n\r\n');
const LAST_CHUNK = Buffer.from('0\r\n\r\n');
const LENGTH = Buffer.from('\r\nContent-Length: ');
const DIGIT_0 = 0x30;
/** Where the status begins in `HTTP/1.1 200 OK`. */
const STATUS_AT = 9;

/** Whether an answer has arrived to its end: by its length, or by its last chunk. */
function isWhole(answer: Buffer, headerEnd: number): boolean {
  const bodyBegin = headerEnd + HEADER_END.length;
  const length = contentLength(answer, headerEnd);
  if (length !== undefined) return answer.length >= bodyBegin + length;
  return answer.subarray(bodyBegin).subarray(-LAST_CHUNK.length).equals(LAST_CHUNK);
}

/** Read from the bytes, as Node writes it; only where it is written otherwise as text. */
function contentLength(answer: Buffer, headerEnd: number): number | undefined {
  const found = answer.indexOf(LENGTH);
  if (found >= 0 && found < headerEnd) {
    let length = 0;
    for (let at = found + LENGTH.length; ; at++) {
      const digit = (answer[at] ?? 0) - DIGIT_0;
      if (digit < 0 || digit > 9) return length;
      length = length * 10 + digit;
    }
  }
  const written = /\r\ncontent-length: *(\d+)/i.exec(answer.toString('latin1', 0, headerEnd))?.[1];
  return written === undefined ? undefined : Number(written);
}

/** One keep-alive connection with one request in flight. */
export class Connection {
  readonly #socket: Socket;
  #received: Buffer | undefined;
  #answered:
    | { statusClass: number; resolve: (answer: Buffer) => void; reject: (error: Error) => void }
    | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk) => this.#take(chunk));
    socket.on('error', (error) => this.#answered?.reject(error));
    socket.on('close', () => this.#answered?.reject(new Error('The server closed the connection')));
  }

  static open(port: number): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1', () => resolve(new Connection(socket)));
      socket.once('error', reject);
    });
  }

  /** Answers what arrived, once it has whole; rejects unless its status is of the class: 2 stands for 2xx. */
  exchange(request: Buffer, statusClass = 2): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#answered = { statusClass, resolve, reject };
      this.#socket.write(request);
    });
  }

  close(): void {
    this.#answered = undefined;
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    const answer = this.#received === undefined ? chunk : Buffer.concat([this.#received, chunk]);
    this.#received = answer;
    const headerEnd = answer.indexOf(HEADER_END);
    if (headerEnd < 0 || !isWhole(answer, headerEnd)) return;
    this.#received = undefined;
    const answered = this.#answered;
    this.#answered = undefined;
    if (!answered) return;
    const { statusClass, resolve, reject } = answered;
    if (answer[STATUS_AT] === DIGIT_0 + statusClass) resolve(answer);
    else reject(new Error(`Wanted a ${statusClass}xx answer, found '${answer.toString('utf8', 0, 600)}'`));
  }
}
