/** Measuring several things in one run so that what else the machine does falls on all of them. */
import { saturate } from './load.ts';
import type { PeerProgram } from './peers.ts';
import type { Measured } from './processes.ts';
import { toBuffer } from './requests.ts';

export const ROUNDS = 5;
export const ROUND_MS = 2_500;
export const CONNECTIONS = 32;
/** As long as V8 takes to have compiled most of what is measured: rates still rise for some seconds. */
export const WARM_UP_MS = 6_000;

export interface Contender {
  measured: Measured;
  /** Puts as much on it as it bears for this long; answers how much that was, a second. */
  run(durationMs: number): Promise<number>;
}

export interface Round {
  perSecond: number;
  /** The share of its core that the measured process had: well below 1, something else was the limit. */
  busy: number;
}

/**
 * Warms everybody up, then measures one after the other, round by round, every other round in the opposite order. Who
 * is not being measured is stopped. Answers the rounds of each; all of them are running again afterwards.
 */
export async function inTurn<const T extends readonly Contender[]>(
  contenders: T,
  { rounds = ROUNDS, roundMs = ROUND_MS } = {},
): Promise<{ -readonly [K in keyof T]: Round[] }> {
  for (const { measured } of contenders) measured.pause();
  for (const contender of contenders) await turnOf(contender, WARM_UP_MS);
  const measuredRounds = contenders.map((): Round[] => []);
  for (let round = 0; round < rounds; round++) {
    const order = [...contenders.entries()];
    if (round % 2 === 1) order.reverse();
    for (const [index, contender] of order) measuredRounds[index]?.push(await turnOf(contender, roundMs));
  }
  for (const { measured } of contenders) measured.resume();
  return measuredRounds as { -readonly [K in keyof T]: Round[] };
}

async function turnOf({ measured, run }: Contender, durationMs: number): Promise<Round> {
  measured.resume();
  const cpuBefore = measured.cpuSeconds();
  const started = performance.now();
  const perSecond = await run(durationMs);
  const seconds = (performance.now() - started) / 1000;
  const busy = (measured.cpuSeconds() - cpuBefore) / seconds;
  measured.pause();
  return { perSecond, busy };
}

export const byRequests = (measured: Measured, requests: readonly Buffer[]): Contender => ({
  measured,
  run: (durationMs) => saturate({ port: measured.port, requests, connections: CONNECTIONS, durationMs }),
});

export const byPeerRequests = (peer: PeerProgram): Contender => byRequests(peer, peer.requests.map(toBuffer));

/** As many loops as there are connections elsewhere; throws at the first answer that is not as wanted. */
export const byCalls = <T>(
  measured: Measured,
  call: (index: number) => Promise<T>,
  isWanted: (answer: T) => boolean,
): Contender => ({
  measured,
  async run(durationMs) {
    const started = performance.now();
    let calls = 0;
    async function loop() {
      while (performance.now() < started + durationMs) {
        const answer = await call(calls++);
        if (!isWanted(answer)) throw new Error(`Wanted another answer, found ${JSON.stringify(answer)}`);
      }
    }
    await Promise.all(Array.from({ length: CONNECTIONS }, loop));
    return (calls * 1000) / (performance.now() - started);
  },
});
