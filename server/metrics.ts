import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

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
  /** One run of a scheduled job by this process. */
  job(name: string, outcome: string, durationMs: number): void;
  /** Says how to read what is in the database; asked when the metrics are. */
  watch(read: () => Promise<Standing>): void;
  /** Everything in the text format of Prometheus. */
  text(): Promise<string>;
  /** Its media type. */
  readonly contentType: string;
}

const REQUEST_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const TRANSACTIONS = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/** From nothing to do to a backlog of millions. */
const JOB_SECONDS = [0.01, 0.1, 1, 10, 60, 600, 3600];
/** From a wake-up to the last retry, 75 hours later. */
const DELIVERY_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3600, 36_000, 270_000];

/** What rows say, of all processes together. */
export interface Standing {
  /** Deliveries that are to be attempted now, and those that wait for a later attempt; counted up to 10,000 in all. */
  pending: { due: number; waiting: number };
  /** How old the oldest of them is; 0 for none. */
  oldestPendingMs: number;
  /** Secrets that should have been rotated; counted up to 10,000. */
  overdueSecrets: number;
  jobs: readonly { name: string; failures: number; lastSucceededAt: number | null; overdueMs: number }[];
}

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

  const jobRuns = new Counter({
    name: 'countersign_job_runs_total',
    help: 'Runs of scheduled jobs by this process, by outcome',
    labelNames: ['job', 'outcome'],
    registers,
  });
  const jobSeconds = new Histogram({
    name: 'countersign_job_duration_seconds',
    help: 'Seconds that a run of a scheduled job took',
    labelNames: ['job'],
    buckets: JOB_SECONDS,
    registers,
  });
  const standing = createStanding(registers);

  return {
    httpRequest: (route, method, status, seconds) => requests.observe({ route, method, status }, seconds),
    verification: (outcome) => verifications.inc({ outcome }),
    commit: (transactions) => commits.observe(transactions),
    delivery(outcome, { firstAttemptMs, deliveredMs }) {
      deliveries.inc({ outcome });
      if (firstAttemptMs !== undefined) firstAttempts.observe(firstAttemptMs / 1000);
      if (deliveredMs !== undefined) delivered.observe(deliveredMs / 1000);
    },
    job(name, outcome, durationMs) {
      jobRuns.inc({ job: name, outcome });
      jobSeconds.observe({ job: name }, durationMs / 1000);
    },
    watch: standing.watch,
    async text() {
      await standing.read();
      return registry.metrics();
    },
    contentType: registry.contentType,
  };
}

/** Gauges of what rows say: any process can tell, also of workers that nobody asks for metrics. */
function createStanding(registers: Registry[]) {
  const gauge = (name: string, help: string, labelNames: string[] = []) =>
    new Gauge({ name: `countersign_${name}`, help, labelNames, registers });
  const pending = gauge('deliveries_pending', 'Deliveries still owed, counted up to 10,000', ['state']);
  const oldest = gauge('deliveries_oldest_pending_seconds', 'Age of the oldest delivery still owed');
  const secrets = gauge('secrets_overdue', 'Secrets overdue for rotation, counted up to 10,000');
  const failures = gauge('job_failures', 'Runs that failed since the last that did not', ['job']);
  const overdue = gauge('job_overdue_seconds', 'How long ago a run was due that nobody began', ['job']);
  const succeeded = gauge('job_last_success_timestamp_seconds', 'When a run last succeeded; 0 for never', [
    'job',
  ]);
  const isRead = gauge(
    'standing_read',
    'Whether the database could be asked for the gauges of what rows say',
  );
  let ask: (() => Promise<Standing>) | undefined;

  function show({ pending: { due, waiting }, oldestPendingMs, overdueSecrets, jobs }: Standing) {
    pending.set({ state: 'due' }, due);
    pending.set({ state: 'waiting' }, waiting);
    oldest.set(oldestPendingMs / 1000);
    secrets.set(overdueSecrets);
    for (const { name, failures: failed, lastSucceededAt, overdueMs } of jobs) {
      failures.set({ job: name }, failed);
      overdue.set({ job: name }, overdueMs / 1000);
      succeeded.set({ job: name }, (lastSucceededAt ?? 0) / 1000);
    }
  }

  return {
    watch(read: () => Promise<Standing>) {
      ask = read;
    },
    /** A database that is down takes these gauges away, and no others. */
    async read() {
      const found = await ask?.().catch(() => null);
      isRead.set(found ? 1 : 0);
      if (found) show(found);
      else for (const each of [pending, oldest, secrets, failures, overdue, succeeded]) each.reset();
    },
  };
}
