/** Verifying an API key over HTTP on SQLite. */
import { seedValues } from '../floors/floor.ts';
import { answerTo, createKeys } from '../keys.ts';
import { arrive, p99 } from '../load.ts';
import { PEERS, startPeer } from '../peers.ts';
import { type Measured, startCountersign, startFloor } from '../processes.ts';
import { verifyRequests } from '../requests.ts';
import { ceilingResult, missingResult, type Result, rateResult } from '../results.ts';
import { byPeerRequests, byRequests, CONNECTIONS, inTurn, ROUND_MS, ROUNDS, type Round } from '../rounds.ts';
import { median } from '../statistics.ts';

const AGAINST_FLOOR = {
  name: 'verify',
  against: 'node:http + SQLite that reads both rows in one statement',
  unit: 'req/s',
  atLeast: 0.75,
};
const AGAINST_PEER = { name: 'verify', against: PEERS['better-auth'], unit: 'req/s', atLeast: 10 };
const P99_MS_MAX = 5;
const RSS_MB_MAX = 150;

export async function measureVerify(): Promise<Result[]> {
  const server = await startCountersign();
  const keys = await createKeys(server);
  const requests = verifyRequests(server.adminKey, keys);
  const floor = await startFloor('sqlite-verify', { answer: await answerTo(server, keys) });
  const { program: peer, missing } = await startPeer('better-auth');
  const seeds = seedValues();
  const [ours, floors, peers] = await inTurn([
    byRequests(server, requests),
    byRequests(floor, verifyRequests(seeds.caller, seeds.credentials)),
    ...(peer ? [byPeerRequests(peer)] : []),
  ]);
  await Promise.all([floor.stop(), peer?.stop()]);
  const latencies = await latenciesAtHalfLoad(server, requests, ours);
  const rss = server.rssMb();
  await server.stop();
  return [
    rateResult(AGAINST_FLOOR, ours, floors),
    peers ? rateResult(AGAINST_PEER, ours, peers) : missingResult(AGAINST_PEER, missing, ours),
    ceilingResult('verify-p99-at-half-load', 'ms', P99_MS_MAX, latencies),
    ceilingResult('verify-rss', 'MB', RSS_MB_MAX, [rss]),
  ];
}

/** The p99 of each round at half the median of what it bore in the same run. */
async function latenciesAtHalfLoad({ port }: Measured, requests: readonly Buffer[], borne: readonly Round[]) {
  const ratePerSecond = median(borne.map(({ perSecond }) => perSecond)) / 2;
  const latencies: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const options = { port, requests, connections: CONNECTIONS, durationMs: ROUND_MS, ratePerSecond };
    latencies.push(p99(await arrive(options)));
  }
  return latencies;
}
