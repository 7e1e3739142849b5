/** How long after it was committed a revocation reaches a receiver of webhooks, and who follows the feed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { leave } from '../leftovers.ts';
import { arrive, p99, saturate } from '../load.ts';
import { createMinter, mintRequest } from '../minter.ts';
import { type MeasuredServer, startCountersign } from '../processes.ts';
import { type BenchReceiver, startBenchReceiver } from '../receiver.ts';
import { overRedis } from '../redis.ts';
import { ceilingResult, type Result, unmeasured } from '../results.ts';
import { createEndpoints, revocations, TO_LOOPBACK } from '../revocable.ts';

const PER_SECOND = 200;
const ROUNDS = 3;
const ROUND_MS = 5_000;
/** As long as it takes V8 to compile what a revocation goes through. */
const WARM_UP_MS = 8_000;
const IN_PROCESS_MS_MAX = 50;
const BULLMQ_MS_MAX = 250;

/** Without Redis: to a receiver, and to who follows the feed in another process. */
export async function measureRevocations(): Promise<Result[]> {
  const server = await startCountersign({ env: TO_LOOPBACK });
  const consumer = await startConsumer(server);
  const attempts = await firstAttempts(server);
  const told = await consumer.delays();
  await server.stop();
  return [
    ceilingResult('revocation-to-first-attempt', 'ms', IN_PROCESS_MS_MAX, attempts),
    ceilingResult('revocation-to-feed', 'ms', IN_PROCESS_MS_MAX, [p99(told)]),
  ];
}

export async function measureRevocationsBullmq(): Promise<Result[]> {
  const name = 'revocation-to-first-attempt-bullmq';
  const measure = async (env: NodeJS.ProcessEnv) => {
    const server = await startCountersign({ env: { ...TO_LOOPBACK, ...env } });
    const attempts = await firstAttempts(server);
    await server.stop();
    return ceilingResult(name, 'ms', BULLMQ_MS_MAX, attempts);
  };
  return [await overRedis(measure, (missing) => unmeasured(name, 'ms', `≤ ${BULLMQ_MS_MAX}`, missing))];
}

/** While a machine mints as fast as it can: revocations go ahead of minting. */
export async function measureRevocationsWhileMinting(): Promise<Result[]> {
  const server = await startCountersign({ env: TO_LOOPBACK });
  const secret = await createMinter(server);
  let isMinting = true;
  const minting = (async () => {
    const requests = [mintRequest(secret)];
    while (isMinting) await saturate({ port: server.port, requests, connections: 8, durationMs: 500 });
  })();
  const attempts = await firstAttempts(server);
  isMinting = false;
  await minting;
  await server.stop();
  return [ceilingResult('revocation-to-first-attempt-while-minting', 'ms', IN_PROCESS_MS_MAX, attempts)];
}

/** The p99 of each round, in ms from the event's instant to the arrival of its webhook. */
async function firstAttempts(server: MeasuredServer): Promise<number[]> {
  const receiver = await startBenchReceiver();
  await createEndpoints(server, receiver.url, 1);
  const perRound = (PER_SECOND * ROUND_MS) / 1000;
  const requests = await revocations(server, (PER_SECOND * WARM_UP_MS) / 1000 + ROUNDS * perRound);
  await revokeAtRate(server, receiver, requests.splice(0, (PER_SECOND * WARM_UP_MS) / 1000));
  const p99s: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const begin = receiver.arrivals.length;
    await revokeAtRate(server, receiver, requests.splice(0, perRound));
    p99s.push(p99(receiver.arrivals.slice(begin).map(({ delayMs }) => delayMs)));
  }
  receiver.close();
  return p99s;
}

async function revokeAtRate({ port }: MeasuredServer, receiver: BenchReceiver, requests: readonly Buffer[]) {
  const before = receiver.arrivals.length;
  const durationMs = (requests.length * 1000) / PER_SECOND;
  await arrive({ port, requests, connections: 32, durationMs, ratePerSecond: PER_SECOND });
  await receiver.arrived(before + requests.length);
}

const CONSUMER = fileURLToPath(new URL('../programs/feed-consumer.ts', import.meta.url));

/** Follows the feed in a process of its own, beside the load. */
async function startConsumer({ url, adminKey }: MeasuredServer) {
  const child = spawn(process.execPath, ['--import', 'tsx', CONSUMER, url, adminKey], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  leave(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout });
  await once(lines, 'line');
  return {
    /** Of every revocation so far, in ms; then it is gone. */
    async delays(): Promise<number[]> {
      await sleep(500);
      child.stdin.end();
      const [line] = (await once(lines, 'line')) as [string];
      return JSON.parse(line) as number[];
    },
  };
}
