/** Metrics on a port of their own, for who scrapes and holds no key: the only way to those of workers apart. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Config } from './config.ts';
import type { Metrics } from './metrics.ts';

export interface MetricsListener {
  close(): Promise<void>;
}

const REQUEST_MS_MAX = 10_000;
const CONNECTIONS_MAX = 100;

/** Null where no port was named. It listens on the server's address, and answers `GET /metrics` alone. */
export async function listenForMetrics(
  { host, metricsPort }: Pick<Config, 'host' | 'metricsPort'>,
  metrics: Pick<Metrics, 'text' | 'contentType'>,
): Promise<MetricsListener | null> {
  if (metricsPort === undefined) return null;
  const server = createServer({ requestTimeout: REQUEST_MS_MAX }, (request, response) => {
    if (request.url !== '/metrics' || request.method !== 'GET') {
      response.writeHead(404).end();
      return;
    }
    metrics.text().then(
      (text) => response.writeHead(200, { 'Content-Type': metrics.contentType }).end(text),
      () => response.writeHead(503).end(),
    );
  });
  server.maxConnections = CONNECTIONS_MAX;
  server.listen(metricsPort, host);
  await once(server, 'listening');
  return {
    async close() {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}
