/** Whether verification is held up while a million expired M2M tokens are being swept. */
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { copyOf } from '../fill.ts';
import { createKeys } from '../keys.ts';
import { makeScratch } from '../leftovers.ts';
import { arrive, p99, saturate } from '../load.ts';
import { createMinter, mintRequest } from '../minter.ts';
import { type MeasuredServer, startCountersign } from '../processes.ts';
import { verifyRequests } from '../requests.ts';
import { type Result, ratioCeiling } from '../results.ts';
import { CONNECTIONS, ROUND_MS, ROUNDS, WARM_UP_MS } from '../rounds.ts';
import { median } from '../statistics.ts';

const TOKENS = 1_000_000;
const DAY_MS = 24 * 3_600_000;
/** All of them take a quarter of an hour: the pace is the same throughout. */
const SWEEP_ROUNDS = 20;
/** The share of what it bears that it verifies meanwhile: a sweep takes what is left. */
const SHARE = 1 / 3;

export async function measureSweep(): Promise<Result[]> {
  const scratch = makeScratch();
  await fillWithExpired(scratch.folder);
  const server = await startCountersign({ dataDir: scratch.folder });
  const requests = verifyRequests(server.adminKey, await createKeys(server));
  const ratePerSecond = SHARE * (await borne(server, requests));
  const latency = async () =>
    p99(await arrive({ ...load(server, requests), durationMs: ROUND_MS, ratePerSecond }));
  await latency();
  const idle: number[] = [];
  for (let round = 0; round < ROUNDS; round++) idle.push(await latency());
  const before = countTokens(scratch.folder);
  await server.admin.jobs.run({ name: 'm2m-token-sweep' });
  const sweeping: number[] = [];
  while (sweeping.length < SWEEP_ROUNDS && (await isRunning(server))) sweeping.push(await latency());
  const swept = before - countTokens(scratch.folder);
  if (swept === 0) throw new Error('Wanted tokens swept meanwhile, found none');
  await server.stop();
  scratch.remove();
  const compared = { name: 'verify-p99-while-sweeping', against: 'nothing to sweep', atMost: 2 };
  return [ratioCeiling(compared, 'ms', sweeping, idle)];
}

const load = ({ port }: MeasuredServer, requests: readonly Buffer[]) => ({
  port,
  requests,
  connections: CONNECTIONS,
});

/** Verifications a second, as many as it can, once it is warm. */
async function borne(server: MeasuredServer, requests: readonly Buffer[]): Promise<number> {
  await saturate({ ...load(server, requests), durationMs: WARM_UP_MS });
  const rates: number[] = [];
  for (let round = 0; round < ROUNDS; round++)
    rates.push(await saturate({ ...load(server, requests), durationMs: ROUND_MS }));
  return median(rates);
}

/** It is due at once, and taken up within a second. */
async function isRunning({ admin }: MeasuredServer): Promise<boolean> {
  for (let tries = 0; tries < 3; tries++) {
    const job = (await admin.jobs.list()).find(({ name }) => name === 'm2m-token-sweep');
    if (job?.running) return true;
    if (job && job.lastSucceededAt !== null && job.lastSucceededAt >= (job.lastStartedAt ?? 0)) return false;
    await sleep(1_000);
  }
  throw new Error('Wanted the sweep to begin within some seconds');
}

/** Copies of one token that was minted, all of which expired two days ago. */
async function fillWithExpired(dataDir: string): Promise<void> {
  const server = await startCountersign({ dataDir });
  const secret = await createMinter(server);
  await saturate({ port: server.port, requests: [mintRequest(secret)], connections: 1, durationMs: 10 });
  await server.stop();
  const database = open(dataDir);
  database.pragma('synchronous = OFF');
  const { id } = database.prepare<[], { id: string }>('SELECT id FROM m2m_tokens LIMIT 1').get() ?? {
    id: '',
  };
  const insert = copyOf(database, 'm2m_tokens', 'id', id, ['id', 'hash', 'expires_at']);
  const now = Date.now();
  database.transaction(() => {
    for (let i = 0; i < TOKENS; i++)
      insert(`mt_${randomBytes(16).toString('hex')}`, randomBytes(32), now - 2 * DAY_MS - i);
  })();
  database.close();
}

function countTokens(dataDir: string): number {
  const database = open(dataDir);
  const { count } = database
    .prepare<[], { count: number }>('SELECT count(*) AS count FROM m2m_tokens')
    .get() ?? { count: 0 };
  database.close();
  return count;
}

const open = (dataDir: string) => new Database(join(dataDir, 'countersign.db'));
