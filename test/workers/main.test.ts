import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { expect, inject, it, onTestFinished } from 'vitest';
import { loadConfig } from '../../server/config.ts';
import { listDeliveries, listDeliveriesInput } from '../../server/domain/deliveries.ts';
import { createLogger } from '../../server/logger.ts';
import { createMetrics } from '../../server/metrics.ts';
import { openDeps } from '../../server/open.ts';
import { startWorkers, type Workers } from '../../workers/workers.ts';
import { freshFolder } from '../support/deps.ts';
import { startReceiver, verifySignature } from '../support/receiver.ts';
import { freePort } from '../support/services.ts';
import { describeMode, somethingHappens, subscribe } from './transports.ts';

const script = new URL('../../workers/main.ts', import.meta.url).pathname;

function startProcess(env: Record<string, string>) {
  const child = spawn(process.execPath, ['--import', 'tsx', script], {
    env: { PATH: process.env['PATH'] ?? '', ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  return child;
}

/** Answers a function that resolves once a line with a message was logged. */
function logs({ stderr }: ReturnType<typeof startProcess>) {
  const lines: string[] = [];
  const reader = createInterface({ input: stderr });
  reader.on('line', (line) => lines.push(line));
  return async (message: string) => {
    while (!lines.some((line) => line.includes(`"msg":"${message}"`))) await once(reader, 'line');
  };
}

/** A server's half: the same installation, opened by another process, that only wakes the workers. */
async function openServerHalf(env: Record<string, string>) {
  const config = loadConfig({ ...env });
  const logger = createLogger('silent');
  const metrics = createMetrics();
  let producer: Workers | undefined;
  const opened = await openDeps(config, { logger, metrics, wake: (job) => producer?.wake(job) });
  producer = await startWorkers(opened.deps, {
    redis: config.redis,
    logger,
    metrics,
    role: 'producer',
  });
  onTestFinished(async () => {
    await producer?.close();
    await opened.close();
  });
  return opened.deps;
}

function suite(environment: () => Record<string, string>) {
  it('delivers what another process records; SIGTERM lets the attempt under way end, then it exits 0', async () => {
    const port = await freePort();
    const env = { COUNTERSIGN_DATA_DIR: freshFolder(), ...environment() };
    const child = startProcess({ ...env, COUNTERSIGN_METRICS_PORT: `${port}` });
    const logged = logs(child);
    await logged('ready');
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    let arrivals = 0;
    const receiver = await startReceiver(async () => {
      arrivals++;
      if (arrivals > 1) await held;
      return 200;
    });
    const deps = await openServerHalf(env);
    const { secret } = await subscribe(deps, receiver.url);
    await somethingHappens(deps);
    verifySignature(secret, await receiver.arrived(1));
    const scrape = () => fetch(`http://127.0.0.1:${port}/metrics`);
    expect((await scrape()).headers.get('content-type')).toContain('text/plain');
    // Counted once its outcome is written down.
    await expect
      .poll(async () => (await scrape()).text(), { timeout: 10_000 })
      .toMatch(/^countersign_delivery_first_attempt_seconds_count 1$/m);
    expect((await fetch(`http://127.0.0.1:${port}/`)).status).toBe(404);

    await somethingHappens(deps);
    await receiver.arrived(2);
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    await logged('shutting down');
    release();
    expect(await exited).toEqual([0, null]);
    const delivered = { state: 'delivered', attempt: 1, lastStatus: 200 };
    expect((await listDeliveries(deps, listDeliveriesInput.parse({}))).data).toMatchObject([
      delivered,
      delivered,
    ]);
  });
}

describeMode('workers apart from a server', [], () => suite(() => ({})));
describeMode('workers apart from a server, over BullMQ', ['redis'], () =>
  suite(() => ({ REDIS_URL: inject('redis').url ?? '' })),
);

it('a setting that is not as wanted ends the process before it begins, naming it and not its value', async () => {
  const child = startProcess({ COUNTERSIGN_DATA_DIR: freshFolder(), REDIS_URL: 'http://:hunter2@nowhere' });
  let said = '';
  child.stderr.on('data', (chunk) => {
    said += chunk;
  });
  expect(await once(child, 'close')).toEqual([1, null]);
  expect(said).toContain('REDIS_URL');
  expect(said).not.toContain('hunter2');
});
