/** Deliveries of webhooks: how many a second, and whether one receiver that hangs holds up the others. */
import { openConnections, p99 } from '../load.ts';
import { type MeasuredServer, startCountersign } from '../processes.ts';
import { type BenchReceiver, startBenchReceiver } from '../receiver.ts';
import { overRedis } from '../redis.ts';
import { floorResult, type Result, ratioCeiling, unmeasured } from '../results.ts';
import { createEndpoints, revocations, TO_LOOPBACK } from '../revocable.ts';
import { CONNECTIONS } from '../rounds.ts';

const UNIT = 'deliveries/s';
const PER_SECOND_MIN = 1_500;
const ENDPOINTS = 50;
const EVENTS_A_ROUND = 150;
const ROUNDS = 3;

export async function measureDeliveries(): Promise<Result[]> {
  return [await measureRates('deliveries', {})];
}

export async function measureDeliveriesBullmq(): Promise<Result[]> {
  const name = 'deliveries-bullmq';
  const without = (missing: string) => unmeasured(name, UNIT, `≥ ${PER_SECOND_MIN}`, missing);
  return [await overRedis((env) => measureRates(name, env), without)];
}

const measureRates = async (name: string, env: NodeJS.ProcessEnv) =>
  floorResult(name, UNIT, PER_SECOND_MIN, await rates(env));

/** Of rounds in which every endpoint is owed many events at once: from the first arrival to the last. */
async function rates(env: NodeJS.ProcessEnv): Promise<number[]> {
  const server = await startCountersign({ env: { ...TO_LOOPBACK, ...env } });
  const receiver = await startBenchReceiver();
  await createEndpoints(server, receiver.url, ENDPOINTS);
  const requests = await revocations(server, (ROUNDS + 1) * EVENTS_A_ROUND);
  const perSecond: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const begin = receiver.arrivals.length;
    await revokeAll(server, requests.splice(0, EVENTS_A_ROUND));
    await receiver.arrived(begin + EVENTS_A_ROUND * ENDPOINTS);
    const arrivals = receiver.arrivals.slice(begin);
    const seconds = ((arrivals.at(-1)?.at ?? 0) - (arrivals[0]?.at ?? 0)) / 1000;
    // The first round warms up.
    if (round > 0) perSecond.push(arrivals.length / seconds);
  }
  receiver.close();
  await server.stop();
  return perSecond;
}

const OTHERS = 999;
const EVENTS_TO_MANY = 4;
const MANY_ROUNDS = 3;

/** The p99 of the others, beside that of the same server before there was one that hangs. */
export async function measureDeliveriesOneHanging(): Promise<Result[]> {
  const server = await startCountersign({ env: TO_LOOPBACK });
  const [receiver, hanging] = [await startBenchReceiver(), await startBenchReceiver({ answers: false })];
  await createEndpoints(server, receiver.url, OTHERS);
  const requests = await revocations(server, (2 * MANY_ROUNDS + 1) * EVENTS_TO_MANY);
  await toOthers(server, receiver, requests);
  const before: number[] = [];
  const after: number[] = [];
  for (let round = 0; round < MANY_ROUNDS; round++) before.push(await toOthers(server, receiver, requests));
  await createEndpoints(server, hanging.url, 1);
  for (let round = 0; round < MANY_ROUNDS; round++) after.push(await toOthers(server, receiver, requests));
  await server.stop();
  receiver.close();
  hanging.close();
  const compared = { name: 'deliveries-one-hanging', against: 'none that hangs', atMost: 2 };
  return [ratioCeiling(compared, 'ms', after, before)];
}

/** The p99 of how long events took to each endpoint that answers. */
async function toOthers(
  server: MeasuredServer,
  receiver: BenchReceiver,
  requests: Buffer[],
): Promise<number> {
  const begin = receiver.arrivals.length;
  await revokeAll(server, requests.splice(0, EVENTS_TO_MANY));
  await receiver.arrived(begin + EVENTS_TO_MANY * OTHERS);
  return p99(receiver.arrivals.slice(begin).map(({ delayMs }) => delayMs));
}

async function revokeAll({ port }: MeasuredServer, requests: Buffer[]): Promise<void> {
  const open = await openConnections(port, CONNECTIONS);
  await Promise.all(
    open.map(async (connection) => {
      for (let request = requests.shift(); request; request = requests.shift())
        await connection.exchange(request);
    }),
  );
  for (const connection of open) connection.close();
}
