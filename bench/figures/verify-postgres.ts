/** Verifying an API key over HTTP on PostgreSQL, a cluster of its own. */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { startServices } from '../../test/support/services.ts';
import { seedValues } from '../floors/floor.ts';
import { answerTo, createKeys } from '../keys.ts';
import { startCountersign, startFloor } from '../processes.ts';
import { verifyRequests } from '../requests.ts';
import { missingResult, type Result, rateResult } from '../results.ts';
import { byRequests, inTurn } from '../rounds.ts';

const RATED = {
  name: 'verify-postgres',
  against: 'the same floor over a bare pg read',
  unit: 'req/s',
  atLeast: 0.6,
};

export async function measureVerifyPostgres(): Promise<Result[]> {
  const { postgres, stop } = await startServices(['postgres']);
  try {
    return [postgres.url === null ? missingResult(RATED, postgres.missing) : await measureOn(postgres.url)];
  } finally {
    await stop();
  }
}

async function measureOn(url: string): Promise<Result> {
  await createDatabases(url, ['ours', 'floor']);
  const server = await startCountersign({
    env: {
      DATABASE_URL: `${url}/ours`,
      COUNTERSIGN_MASTER_KEY: randomBytes(32).toString('base64'),
    },
  });
  const keys = await createKeys(server);
  const floor = await startFloor('postgres-verify', {
    env: { DATABASE_URL: `${url}/floor` },
    answer: await answerTo(server, keys),
  });
  const seeds = seedValues();
  const rounds = await inTurn([
    byRequests(server, verifyRequests(server.adminKey, keys)),
    byRequests(floor, verifyRequests(seeds.caller, seeds.credentials)),
  ]);
  await Promise.all([server.stop(), floor.stop()]);
  return rateResult(RATED, ...rounds);
}

async function createDatabases(url: string, names: readonly string[]) {
  const client = new pg.Client({ connectionString: `${url}/postgres` });
  await client.connect();
  for (const name of names) await client.query(`CREATE DATABASE ${name}`);
  await client.end();
}
