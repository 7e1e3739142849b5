/** A receiver of webhooks that costs little: it notes when each arrived. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { leave } from './leftovers.ts';

export interface Arrival {
  /** Milliseconds since 1970, as its clock says that sends: it is the same machine's. */
  at: number;
  /** How long after the event it tells of, in milliseconds. */
  delayMs: number;
}

export interface BenchReceiver {
  url: string;
  arrivals: readonly Arrival[];
  /** Resolves once so many arrived; throws where nothing arrives for a while. */
  arrived(count: number): Promise<void>;
  close(): void;
}

const SILENCE_MS_MAX = 20_000;

/** One that `answers` nothing notes nothing either. */
export async function startBenchReceiver({ answers = true } = {}): Promise<BenchReceiver> {
  const arrivals: Arrival[] = [];
  const server = createServer((request, response) => {
    const at = Date.now();
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      if (!answers) return;
      const { timestamp } = JSON.parse(Buffer.concat(chunks).toString()) as { timestamp: string };
      arrivals.push({ at, delayMs: at - Date.parse(timestamp) });
      response.writeHead(200, ['Content-Length', '0']).end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = leave(() => end(server));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    arrivals,
    async arrived(count) {
      for (let seen = 0, since = Date.now(); arrivals.length < count; ) {
        if (arrivals.length > seen) [seen, since] = [arrivals.length, Date.now()];
        else if (Date.now() - since > SILENCE_MS_MAX)
          throw new Error(`Wanted ${count} webhooks, found ${arrivals.length} and then none`);
        await sleep(5);
      }
    },
    close,
  };
}

function end(server: Server): void {
  server.closeAllConnections();
  server.close();
}
