/** A real HTTP receiver of webhooks, on loopback, that answers as the test says and goes when the test ends. */
import { EventEmitter, once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { Webhook } from 'standardwebhooks';
import { Webhook as SvixWebhook } from 'svix';
import { onTestFinished } from 'vitest';
import type { WhenDone } from './deps.ts';

export interface Received {
  headers: IncomingHttpHeaders;
  body: string;
  payload: { type: string; timestamp: string; data: Record<string, unknown> };
}

export interface Receiver {
  url: string;
  /** Everything that arrived, in order. */
  received: readonly Received[];
  /** The HTTP status to answer with, now or later; 200 unless set. */
  answer: (received: Received) => number | Promise<number>;
  /** Resolves once `count` webhooks have arrived, and answers the last of them. */
  arrived(count: number): Promise<Received>;
  /** Stops listening: connections are refused until `up()`. */
  down(): Promise<void>;
  up(): Promise<void>;
}

export async function startReceiver(
  answer: Receiver['answer'] = () => 200,
  whenDone: WhenDone = onTestFinished,
): Promise<Receiver> {
  const received: Received[] = [];
  const arrivals = new EventEmitter().setMaxListeners(0);

  async function receive(request: IncomingMessage): Promise<number> {
    const body = await text(request);
    const item: Received = { headers: request.headers, body, payload: JSON.parse(body) };
    received.push(item);
    arrivals.emit('arrival');
    return receiver.answer(item);
  }

  const server = createServer(async (request, response) => {
    response.writeHead(await receive(request)).end('ok');
  });
  async function down() {
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  }
  async function listen(port: number): Promise<number> {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  }

  const port = await listen(0);
  const receiver: Receiver = {
    url: `http://127.0.0.1:${port}/hooks`,
    received,
    answer,
    async arrived(count) {
      for (;;) {
        const last = received[count - 1];
        if (last) return last;
        await once(arrivals, 'arrival');
      }
    },
    down,
    up: async () => void (await listen(port)),
  };
  whenDone(async () => {
    if (server.listening) await down();
  });
  return receiver;
}

/** Throws unless the official libraries accept the signature of what arrived; they also refuse old timestamps. */
export function verifySignature(secret: string, { headers, body }: Received): void {
  new Webhook(secret).verify(body, headers as Record<string, string>);
  new SvixWebhook(secret).verify(body, headers as Record<string, string>);
}
