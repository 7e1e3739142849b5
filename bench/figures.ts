/** What is measured, against what, and by which gate. */
import { createCountersign } from '../client/index.ts';
import { CREDENTIALS, seedValues } from './floors/floor.ts';
import { load } from './load.ts';
import { type Measured, type MeasuredServer, startCountersign, startFloor } from './processes.ts';
import { ceilingResult, type Result, ratioResult } from './results.ts';

interface Figure {
  name: string;
  measure(): Promise<Result[]>;
}

const ROUNDS = 5;
const WARM_UP_MS = 1_500;
const ROUND_MS = 2_500;
const CONNECTIONS = 32;

export const FIGURES: readonly Figure[] = [
  { name: 'verify', measure: measureVerify },
  { name: 'verify-client', measure: measureClient },
  { name: 'mint-es256', measure: measureMint },
];

const P99_MS_GATE = 5;
const RSS_MB_GATE = 150;

async function measureVerify(): Promise<Result[]> {
  const floor = await startFloor('sqlite-verify');
  const server = await startCountersign();
  const { caller, credentials } = seedValues();
  const theirs = credentials.map((credential) => post('/v1/verify', caller, { credential }));
  const ours = (await createKeys(server)).map((credential) =>
    post('/v1/verify', server.adminKey, { credential }),
  );
  const rounds = await inTurn(
    () => throughput(server, ours),
    () => throughput(floor, theirs),
  );
  const halfLoad = { port: server.port, requests: ours, connections: CONNECTIONS, durationMs: ROUND_MS };
  const latencies: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const ratePerSecond = Math.min(...rounds.map((values) => values.ours)) / 2;
    latencies.push((await load({ ...halfLoad, ratePerSecond })).latencyMsP99);
  }
  const rss = server.rssMb();
  await Promise.all([floor.stop(), server.stop()]);
  return [
    ratioResult('verify', 'req/s', 'node:http + SQLite that reads both rows in one statement', 0.75, rounds),
    ceilingResult('verify-p99-at-half-load', 'ms', P99_MS_GATE, latencies),
    ceilingResult('verify-rss', 'MB', RSS_MB_GATE, [rss]),
  ];
}

async function measureClient(): Promise<Result[]> {
  const floor = await startFloor('trpc-express');
  const server = await startCountersign();
  const theirs = seedValues().credentials.map((credential) => post('/trpc/verify', 'nobody', { credential }));
  const keys = await createKeys(server);
  const client = createCountersign({ url: server.url, secretKey: server.adminKey });
  const rounds = await inTurn(
    () =>
      callRate(
        (call) => client.verify({ credential: keys[call % keys.length] ?? '' }),
        (answer) => answer.valid,
      ),
    () => throughput(floor, theirs),
  );
  await Promise.all([floor.stop(), server.stop()]);
  return [ratioResult('verify-client', 'calls/s', 'tRPC on Express', 3, rounds)];
}

async function measureMint(): Promise<Result[]> {
  const floor = await startFloor('es256');
  const server = await startCountersign({ COUNTERSIGN_SIGNING_ALG: 'ES256' });
  const admin = createCountersign({ url: server.url, secretKey: server.adminKey });
  const { secret = '' } = await admin.machines.create({ name: 'bench' });
  const rounds = await inTurn(
    () => throughput(server, [post('/v1/m2m_tokens', secret, { token_format: 'jwt' })]),
    () => throughput(floor, [post('/', 'nobody', {})]),
  );
  await Promise.all([floor.stop(), server.stop()]);
  return [ratioResult('mint-es256', 'req/s', 'node:http + node:crypto, no row', 0.4, rounds)];
}

/** Warms both up, then measures them one after the other, round by round. */
async function inTurn(ours: () => Promise<number>, theirs: () => Promise<number>) {
  const rounds: { ours: number; theirs: number }[] = [];
  for (let round = 0; round < ROUNDS; round++) rounds.push({ ours: await ours(), theirs: await theirs() });
  return rounds;
}

const warm = new WeakSet<Measured>();

async function throughput(target: Measured, requests: readonly Buffer[]): Promise<number> {
  const options = { port: target.port, requests, connections: CONNECTIONS };
  if (!warm.has(target)) await load({ ...options, durationMs: WARM_UP_MS });
  warm.add(target);
  return (await load({ ...options, durationMs: ROUND_MS })).requestsPerSecond;
}

/** Calls a second of as many loops as there are connections elsewhere; throws at the first answer that is not as wanted. */
async function callRate<T>(
  call: (index: number) => Promise<T>,
  isWanted: (answer: T) => boolean,
): Promise<number> {
  const started = performance.now();
  let calls = 0;
  await Promise.all(
    Array.from({ length: CONNECTIONS }, async () => {
      while (performance.now() < started + ROUND_MS) {
        const answer = await call(calls++);
        if (!isWanted(answer)) throw new Error(`Wanted a valid credential, found ${JSON.stringify(answer)}`);
      }
    }),
  );
  return (calls * 1000) / (performance.now() - started);
}

async function createKeys({ url, adminKey }: MeasuredServer): Promise<string[]> {
  const admin = createCountersign({ url, secretKey: adminKey, timeoutMs: 60_000 });
  const keys = await Promise.all(
    Array.from({ length: CREDENTIALS }, (_, i) =>
      admin.apiKeys.create({ name: `key ${i}`, subject: `user_${i}`, scopes: ['read', 'write'] }),
    ),
  );
  return keys.map(({ secret = '' }) => secret);
}

function post(path: string, credential: string, body: unknown): Buffer {
  const text = JSON.stringify(body);
  const head = [
    `POST ${path} HTTP/1.1`,
    'Host: 127.0.0.1',
    `Authorization: Bearer ${credential}`,
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(text)}`,
  ];
  return Buffer.from(`${head.join('\r\n')}\r\n\r\n${text}`);
}
