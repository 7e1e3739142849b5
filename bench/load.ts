/**
 * A load generator that costs less than what it measures: raw sockets, requests written as ready-made buffers, one in
 * flight per connection. It fails on any answer that is not 2xx, for a bench full of refusals runs faster.
 */
import { connect, type Socket } from 'node:net';

export interface LoadOptions {
  port: number;
  /** Ready-made HTTP/1.1 requests, used in turn. */
  requests: readonly Buffer[];
  connections: number;
  durationMs: number;
  /** Requests a second over all connections; without it, as fast as answers come. */
  ratePerSecond?: number;
}

export interface LoadResult {
  requestsPerSecond: number;
  latencyMsP50: number;
  latencyMsP99: number;
  requests: number;
}

const HEADER_END = Buffer.from('\r\n\r\n');

export async function load({
  port,
  requests,
  connections,
  durationMs,
  ratePerSecond,
}: LoadOptions): Promise<LoadResult> {
  const latencies: number[] = [];
  const started = performance.now();
  const end = started + durationMs;
  let next = 0;
  const intervalMs = ratePerSecond ? 1000 / ratePerSecond : 0;

  await Promise.all(
    Array.from({ length: connections }, async () => {
      const connection = await Connection.open(port);
      while (performance.now() < end) {
        const index = next++;
        let sentAt = performance.now();
        if (intervalMs > 0) {
          // Latency counts from when the request was due, so that a stall is not hidden by waiting with the next.
          const due = started + index * intervalMs;
          if (due > end) break;
          if (due > sentAt) await new Promise((resolve) => setTimeout(resolve, due - sentAt));
          sentAt = Math.max(due, sentAt);
        }
        await connection.exchange(requests[index % requests.length] as Buffer);
        latencies.push(performance.now() - sentAt);
      }
      connection.close();
    }),
  );

  latencies.sort((a, b) => a - b);
  const at = (quantile: number) =>
    latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * quantile))] ?? 0;
  return {
    requestsPerSecond: (latencies.length * 1000) / (performance.now() - started),
    latencyMsP50: at(0.5),
    latencyMsP99: at(0.99),
    requests: latencies.length,
  };
}

const LAST_CHUNK = Buffer.from('0\r\n\r\n');

/** Whether an answer has arrived to its end: by its length, or by its last chunk. */
function isWhole(answer: Buffer, head: string, bodyBegin: number): boolean {
  const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
  if (length !== undefined) return answer.length >= bodyBegin + Number(length);
  return answer.subarray(bodyBegin).subarray(-LAST_CHUNK.length).equals(LAST_CHUNK);
}

/** One keep-alive connection with one request in flight. */
class Connection {
  readonly #socket: Socket;
  #received: Buffer[] = [];
  #answered: { resolve: () => void; reject: (error: Error) => void } | undefined;

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

  exchange(request: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#answered = { resolve, reject };
      this.#socket.write(request);
    });
  }

  close(): void {
    this.#answered = undefined;
    this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    this.#received.push(chunk);
    const whole = this.#received.length === 1 ? chunk : Buffer.concat(this.#received);
    const headerEnd = whole.indexOf(HEADER_END);
    if (headerEnd < 0) return;
    const head = whole.toString('latin1', 0, headerEnd);
    if (!isWhole(whole, head, headerEnd + HEADER_END.length)) return;
    this.#received = [];
    if (head[9] !== '2') {
      this.#fail(`Wanted a 2xx answer, found '${whole.toString('utf8', 0, 600)}'`);
      return;
    }
    const answered = this.#answered;
    this.#answered = undefined;
    answered?.resolve();
  }

  #fail(message: string): void {
    this.#answered?.reject(new Error(message));
  }
}
