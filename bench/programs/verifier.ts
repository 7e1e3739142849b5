/**
 * What the verifier does in a second, in a process of its own beside jose and Clerk's SDK. Reads JSON from its input (see
 * `Given`), and prints the rates of each round as JSON.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { createClerkClient } from '@clerk/backend';
import { createLocalJWKSet, type JSONWebKeySet, jwtVerify } from 'jose';
import { createVerifier } from '../../client/verifier.ts';

export interface Given {
  url: string;
  key: string;
  /** The machine that the tokens are for. */
  audience: string;
  /** Verified again and again. */
  keys: string[];
  /** Verified once each. */
  keysOnce: string[];
  /** Some thousand, each of them verified once as a new one. */
  jwts: string[];
}

export interface Rates {
  cached: number[];
  jwtSeen: number[];
  jwtSeenByJose: number[];
  jwtNew: number[];
  jwtNewByJose: number[];
  mixed: number[];
  mixedByClerk: number[];
}

const ROUNDS = 5;
const CACHED_CALLS = 400_000;
const SEEN = 100;
const SEEN_CALLS = 50_000;
const JOSE_CALLS = 2_000;
const MIXED_CALLS = 2_500;
const MIXED_LOOPS = 32;
/** So often others get their turn of the event loop: without it no heartbeat would be heard. */
const CALLS_PER_TURN = 1_000;

let text = '';
for await (const chunk of process.stdin) text += String(chunk);
const given = JSON.parse(text) as Given;

const verifier = createVerifier({ url: given.url, secretKey: given.key, audience: given.audience });
while (!verifier.status().trusted) await turn();
const jwks = createLocalJWKSet(
  (await (await fetch(`${given.url}/.well-known/jwks.json`)).json()) as JSONWebKeySet,
);
const clerk = createClerkClient({ apiUrl: given.url, secretKey: given.key });

async function ours(value: string): Promise<void> {
  const { valid } = await verifier.verify(value);
  if (!valid) throw new Error('Wanted a valid credential, found another');
}

async function byJose(jwt: string): Promise<void> {
  await jwtVerify(jwt, jwks);
}

async function byClerk(value: string): Promise<void> {
  const request = new Request('http://127.0.0.1/', { headers: { authorization: `Bearer ${value}` } });
  const { isAuthenticated } = await clerk.authenticateRequest(request, { acceptsToken: 'api_key' });
  if (!isAuthenticated) throw new Error('Wanted a valid credential, found another');
}

/** One call after the other. */
async function rateOf(values: readonly string[], calls: number, call: (value: string) => Promise<void>) {
  const startedAt = performance.now();
  for (let i = 0; i < calls; i++) {
    await call(values[i % values.length] ?? '');
    if (i % CALLS_PER_TURN === 0) await turn();
  }
  return (calls * 1000) / (performance.now() - startedAt);
}

/** Nine of ten are of those that come again. */
async function mixedRate(once: readonly string[], call: (value: string) => Promise<void>) {
  const startedAt = performance.now();
  let calls = 0;
  const loop = async () => {
    for (let i = calls++; i < MIXED_CALLS; i = calls++)
      await call((i % 10 === 0 ? once[i / 10] : given.keys[i % 100]) ?? '');
  };
  await Promise.all(Array.from({ length: MIXED_LOOPS }, loop));
  return (MIXED_CALLS * 1000) / (performance.now() - startedAt);
}

const seen = given.jwts.splice(0, SEEN);
for (const value of [...seen, ...given.keys]) await ours(value);
const perRound = Math.floor(given.jwts.length / (ROUNDS + 1));
const takeNew = () => given.jwts.splice(0, perRound);
const perMix = MIXED_CALLS / 10;
const takeOnce = () => given.keysOnce.splice(0, perMix);

const rates: Rates = {
  cached: [],
  jwtSeen: [],
  jwtSeenByJose: [],
  jwtNew: [],
  jwtNewByJose: [],
  mixed: [],
  mixedByClerk: [],
};
for (let round = 0; round <= ROUNDS; round++) {
  const fresh = takeNew();
  const once = takeOnce();
  const measured: Record<keyof Rates, number> = {
    cached: await rateOf(given.keys, CACHED_CALLS, ours),
    jwtSeen: await rateOf(seen, SEEN_CALLS, ours),
    jwtSeenByJose: await rateOf(seen, JOSE_CALLS, byJose),
    jwtNew: await rateOf(fresh, perRound, ours),
    jwtNewByJose: await rateOf(fresh, perRound, byJose),
    mixed: await mixedRate(once, ours),
    mixedByClerk: await mixedRate(once, byClerk),
  };
  // The first round warms up.
  if (round > 0) for (const name of Object.keys(rates) as (keyof Rates)[]) rates[name].push(measured[name]);
}
process.stdout.write(`${JSON.stringify(rates)}\n`);
await verifier.close();
