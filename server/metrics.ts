import { Counter, collectDefaultMetrics, Histogram, Registry } from 'prom-client';

/** What operators can watch. Labels come from closed sets: nothing a caller sends becomes one. */
export interface Metrics {
  /** One answered request. `route` is the pattern that took it, never the path as it was sent. */
  httpRequest(route: string, method: string, status: number, seconds: number): void;
  /** One verification: `valid`, or the reason it was not. */
  verification(outcome: string): void;
  /** One SQLite commit, and how many transactions it carried. */
  commit(transactions: number): void;
  /** One attempt at a webhook delivery, and how long after its event the first attempt or the delivery came. */
  delivery(
    outcome: 'delivered' | 'failed' | 'dead',
    msSinceEvent: { firstAttemptMs?: number | undefined; deliveredMs?: number | undefined },
  ): void;
  /** Everything in the text format of Prometheus. */
  text(): Promise<string>;
  /** Its media type. */
  readonly contentType: string;
}

const REQUEST_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const TRANSACTIONS = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/** From a wake-up to the last retry, 75 hours later. */
const DELIVERY_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600, 36_000, 270_000];

/** Metrics in a registry of their own, so that two servers in one process do not share counts. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });

  const requests = new Histogram({
    name: 'countersign_http_requests_seconds',
    help: 'Seconds from the first byte of a request to the last of its answer',
    labelNames: ['route', 'method', 'status'],
    buckets: REQUEST_SECONDS,
    registers,
  });
  const verifications = new Counter({
    name: 'countersign_verifications_total',
    help: 'Verifications by outcome: valid, or the reason it was not',
    labelNames: ['outcome'],
    registers,
  });
  const commits = new Histogram({
    name: 'countersign_commit_transactions',
    help: 'Transactions carried by one commit of SQLite',
    buckets: TRANSACTIONS,
    registers,
  });
  const deliveries = new Counter({
    name: 'countersign_deliveries_total',
    help: 'Attempts at webhook deliveries by outcome',
    labelNames: ['outcome'],
    registers,
  });
  const firstAttempts = new Histogram({
    name: 'countersign_delivery_first_attempt_seconds',
    help: 'Seconds from an event to the first attempt at its delivery',
    buckets: DELIVERY_SECONDS,
    registers,
  });
  const delivered = new Histogram({
    name: 'countersign_delivery_delivered_seconds',
    help: 'Seconds from an event to the receiver accepting it',
    buckets: DELIVERY_SECONDS,
    registers,
  });

  return {
    httpRequest: (route, method, status, seconds) => requests.observe({ route, method, status }, seconds),
    verification: (outcome) => verifications.inc({ outcome }),
    commit: (transactions) => commits.observe(transactions),
    delivery(outcome, { firstAttemptMs, deliveredMs }) {
      deliveries.inc({ outcome });
      if (firstAttemptMs !== undefined) firstAttempts.observe(firstAttemptMs / 1000);
      if (deliveredMs !== undefined) delivered.observe(deliveredMs / 1000);
    },
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}
