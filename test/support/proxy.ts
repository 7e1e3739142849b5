/** A TCP proxy between a client and a server, that a test can cut, stall or slow down. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';

export interface Proxy {
  url: string;
  /** Connections made so far. */
  connections(): number;
  /** Ends what is open, and refuses what comes. */
  cut(): void;
  /** Keeps connections open, and passes nothing on. */
  stall(): void;
  /** Passes each byte of what the server sends on only after so long. */
  delay(ms: number): void;
  /** Goes on as if nothing had been; what was held back while stalled is passed on. */
  restore(): void;
  /** Sends what comes from now on to another server. */
  redirect(url: string): void;
}

export async function startProxy(target: string): Promise<Proxy> {
  let to = new URL(target);
  let mode: 'open' | 'cut' | 'stalled' = 'open';
  let delayMs = 0;
  let connections = 0;
  const sockets = new Set<Socket>();
  const held: (() => void)[] = [];

  const pass = (from: Socket, onto: Socket, isAnswer: boolean) =>
    from.on('data', (chunk: Buffer) => {
      const send = (bytes: Buffer) => {
        if (mode === 'stalled') held.push(() => send(bytes));
        else if (!onto.destroyed) onto.write(bytes);
      };
      if (!isAnswer || delayMs === 0) send(chunk);
      else for (const byte of chunk) setTimeout(send, delayMs, Buffer.of(byte)).unref();
    });

  const server = createServer((inner) => {
    connections++;
    if (mode === 'cut') {
      inner.destroy();
      return;
    }
    const outer = connect(Number(to.port), to.hostname);
    for (const [socket, other] of [
      [inner, outer],
      [outer, inner],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    pass(inner, outer, false);
    pass(outer, inner, true);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const endAll = () => {
    for (const socket of sockets) socket.destroy();
  };
  onTestFinished(() => {
    endAll();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    connections: () => connections,
    cut() {
      mode = 'cut';
      endAll();
    },
    stall() {
      mode = 'stalled';
    },
    delay(ms) {
      delayMs = ms;
    },
    restore() {
      mode = 'open';
      delayMs = 0;
      for (const write of held.splice(0)) write();
    },
    redirect(url) {
      to = new URL(url);
    },
  };
}
