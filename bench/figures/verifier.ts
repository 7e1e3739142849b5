/** The verifier: from memory, for JWTs beside jose, and for a mix beside Clerk's SDK at the same server. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { createCountersign } from '../../client/index.ts';
import { leave } from '../leftovers.ts';
import { CORES, canPin, type MeasuredServer, SETUP_MS_MAX, startCountersign } from '../processes.ts';
import type { Given, Rates } from '../programs/verifier.ts';
import { floorResult, type Result, rateResult } from '../results.ts';
import type { Round } from '../rounds.ts';

const KEYS = 1_000;
const KEYS_ONCE = 1_500;
const JWTS = 2_500;
/** As many as travel in one request of the client. */
const AT_ONCE = 50;
const CACHED_MIN = 400_000;

export async function measureVerifier(): Promise<Result[]> {
  const server = await startCountersign();
  const given = await give(server);
  const rates = await measure(given);
  await server.stop();
  const rated = (name: string, against: string, atLeast: number, ours: number[], theirs: number[]) =>
    rateResult({ name, against, unit: 'calls/s', atLeast }, roundsOf(ours), roundsOf(theirs));
  return [
    floorResult('verifier-cached', 'calls/s', CACHED_MIN, rates.cached),
    rated('verifier-jwt-seen', "jose's jwtVerify", 10, rates.jwtSeen, rates.jwtSeenByJose),
    rated('verifier-jwt-new', "jose's jwtVerify", 0.9, rates.jwtNew, rates.jwtNewByJose),
    rated('verifier-mixed', '@clerk/backend, same server', 1, rates.mixed, rates.mixedByClerk),
  ];
}

/** Both share one process and core. */
const roundsOf = (rates: readonly number[]): Round[] => rates.map((perSecond) => ({ perSecond, busy: 1 }));

async function give(server: MeasuredServer): Promise<Given> {
  const { url, admin, adminKey } = server;
  const keys = await many(KEYS + KEYS_ONCE, async (i) => {
    const { secret = '' } = await admin.apiKeys.create({
      name: `key ${i}`,
      subject: `user_${i}`,
      scopes: ['read'],
    });
    return secret;
  });
  const sender = await admin.machines.create({ name: 'sender', mintsPerMinuteMax: 1_000_000 });
  const receiver = await admin.machines.create({ name: 'receiver' });
  await admin.machineScopes.create({ fromMachineId: sender.id, toMachineId: receiver.id, scopes: ['read'] });
  const machineSecretKey = sender.secret ?? '';
  const minter = createCountersign({ url, machineSecretKey, timeoutMs: SETUP_MS_MAX });
  const jwts = await many(JWTS, async () => (await minter.m2mTokens.create({ format: 'jwt' })).token ?? '');
  return { url, key: adminKey, audience: receiver.id, keys: keys.splice(0, KEYS), keysOnce: keys, jwts };
}

async function many(count: number, make: (index: number) => Promise<string>): Promise<string[]> {
  const made: string[] = [];
  while (made.length < count) {
    const size = Math.min(AT_ONCE, count - made.length);
    made.push(...(await Promise.all(Array.from({ length: size }, (_, i) => make(made.length + i)))));
  }
  return made;
}

const PROGRAM = fileURLToPath(new URL('../programs/verifier.ts', import.meta.url));

async function measure(given: Given): Promise<Rates> {
  const pinned = canPin ? ['taskset', '-c', CORES.load, process.execPath] : [process.execPath];
  const [program = '', ...args] = [...pinned, '--import', 'tsx', PROGRAM];
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  leave(() => child.kill('SIGKILL'));
  child.stdin.end(JSON.stringify(given));
  const [printed] = await Promise.all([text(child.stdout), once(child, 'exit')]);
  return JSON.parse(printed) as Rates;
}
