/** Workers as they run for real, over each transport and each database. */
import { describe, inject, onTestFinished } from 'vitest';
import type { Deps } from '../../server/deps.ts';
import { createMachine, createMachineInput, setMachineEnabled } from '../../server/domain/machines.ts';
import { createWebhookEndpoint, createWebhookEndpointInput } from '../../server/domain/webhook-endpoints.ts';
import { createLogger } from '../../server/logger.ts';
import { createMetrics } from '../../server/metrics.ts';
import { createOutbound } from '../../server/outbound.ts';
import { startWorkers, type Workers, type WorkersOptions } from '../../workers/workers.ts';
import { callerWith, type Dialect, openTestDeps, type TestDeps } from '../support/deps.ts';
import { redisAt } from '../support/redis.ts';

export interface Mode {
  dialect: Dialect;
  redisUrl: string | undefined;
}

/** Runs a suite in-process and over BullMQ, on both databases; skips, with the reason, what is not to be had. */
export function describeOnEachTransport(name: string, suite: (mode: Mode) => void) {
  describeMode(`${name} in-process`, [], () => suite({ dialect: 'sqlite', redisUrl: undefined }));
  describeMode(`${name} in-process on PostgreSQL`, ['postgres'], () =>
    suite({ dialect: 'postgres', redisUrl: undefined }),
  );
  describeOnBullmq(name, suite);
}

function describeOnBullmq(name: string, suite: (mode: Mode) => void) {
  const redisUrl = inject('redis').url ?? undefined;
  describeMode(`${name} over BullMQ`, ['redis'], () => suite({ dialect: 'sqlite', redisUrl }));
  describeMode(`${name} over BullMQ on PostgreSQL`, ['redis', 'postgres'], () =>
    suite({ dialect: 'postgres', redisUrl }),
  );
}

export function describeMode(name: string, needs: ('redis' | 'postgres')[], suite: () => void) {
  const missing = needs.map((service) => inject(service)).find((service) => service.url === null);
  if (missing) describe.skip(`${name} [skipped: ${missing.missing}]`, suite);
  else describe(name, suite);
}

const admin = callerWith('admin');

export interface House {
  deps: TestDeps;
  /** Starts workers that end with the test; `deps.wake` wakes those started last. */
  start(options?: Partial<WorkersOptions>): Promise<Workers>;
  /** What the workers logged. */
  lines: string[];
}

/** An installed database with workers that really send. The clock starts at today, since receivers judge timestamps. */
export async function openHouse({ dialect, redisUrl }: Mode): Promise<House> {
  const lines: string[] = [];
  const logger = createLogger('debug', { write: (line) => void lines.push(line) });
  let latest: Workers | undefined;
  const base = await openTestDeps(dialect);
  base.clock.now = Date.now();
  const deps: TestDeps = {
    ...base,
    outbound: createOutbound({ allowLoopbackHttp: true }),
    wake: (job) => latest?.wake(job),
  };
  onTestFinished(() => deps.outbound.close());
  return {
    deps,
    lines,
    async start(options = {}) {
      const workers = await startWorkers(deps, {
        redis: redisUrl === undefined ? undefined : redisAt(redisUrl),
        logger,
        metrics: createMetrics(),
        role: 'all',
        ...options,
      });
      onTestFinished(() => workers.close());
      latest = workers;
      return workers;
    },
  };
}

/** An endpoint for these types, and its secret. */
export async function subscribe(deps: Deps, url: string, ...eventTypes: string[]) {
  const input = createWebhookEndpointInput.parse({ url, eventTypes });
  const { id, secret = '' } = await createWebhookEndpoint(deps, admin, input);
  return { id, secret };
}

let machines = 0;

/** Appends one ordinary event and answers the machine's id. */
export async function somethingHappens(deps: Deps): Promise<string> {
  const input = createMachineInput.parse({ name: `machine-${++machines}` });
  return (await createMachine(deps, admin, input)).id;
}

/** Appends one revocation: the machine is disabled. */
export async function somethingIsRevoked(deps: Deps, machineId: string): Promise<void> {
  await setMachineEnabled(deps, admin, machineId, false);
}
