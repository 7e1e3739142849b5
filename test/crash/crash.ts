/**
 * What is committed while processes are killed, and what of it arrives. A target commits on request and tells a receiver
 * of each commit; the receiver refuses one time in five. In each round many commit at once while the target is disturbed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { WhenDone } from '../support/deps.ts';
import { type Received, type Receiver, startReceiver } from '../support/receiver.ts';

export type Disturbance = 'kill' | 'flush';

export interface Target {
  /** Commits one thing and answers its id, or null where nobody lived to say whether it was committed. */
  commit(): Promise<string | null>;
  /** Kills or empties one of its parts without warning, chosen by chance, and brings it back; answers which it did. */
  disturb(): Promise<Disturbance>;
  /** The ids of all that was committed, as its rows say. */
  committed(): Promise<string[]>;
  /** Resolves once nothing is owed to the receiver any more, or it is clear that no more will come. */
  settled(receiver: Receiver): Promise<void>;
}

export interface CrashResult {
  committed: number;
  /** Committed, and accepted by the receiver never. */
  lost: string[];
  /** Accepted more than once, each time under the same `webhook-id`. */
  duplicates: number;
  /** Ids that arrived under two different `webhook-id`s: a receiver could not tell that they are one. */
  renamed: string[];
  /** How often what was done to its parts. */
  disturbances: Record<Disturbance, number>;
}

export interface CrashOptions {
  rounds: number;
  start: (receiverUrl: string) => Promise<Target>;
  whenDone: WhenDone;
  say?: (line: string) => void;
}

const COMMITTERS = 8;
const DISTURBANCES_PER_ROUND = 2;
const PAUSE_MS_MAX = 1_500;
const REFUSED_SHARE = 0.2;
/** More would only wait for the later retries, minutes away. */
const REFUSALS_PER_ID_MAX = 2;

export async function crash({ rounds, start, whenDone, say = () => {} }: CrashOptions): Promise<CrashResult> {
  const accepted = new Map<string, { webhookId: string; times: number }>();
  const renamed = new Set<string>();
  const refusals = new Map<string, number>();

  function answer({ headers, payload }: Received): number {
    const webhookId = String(headers['webhook-id']);
    const refused = refusals.get(webhookId) ?? 0;
    if (refused < REFUSALS_PER_ID_MAX && Math.random() < REFUSED_SHARE) {
      refusals.set(webhookId, refused + 1);
      return 500;
    }
    const id = String(payload.data['objectId']);
    const before = accepted.get(id);
    if (before && before.webhookId !== webhookId) renamed.add(id);
    accepted.set(id, { webhookId, times: (before?.times ?? 0) + 1 });
    return 200;
  }

  const receiver = await startReceiver(answer, whenDone);
  const target = await start(receiver.url);
  const acknowledged = new Set<string>();
  const disturbances = { kill: 0, flush: 0 };
  for (let round = 1; round <= rounds; round++) {
    await disturbedRound(target, acknowledged, disturbances);
    say(`round ${round} of ${rounds}: ${acknowledged.size} acknowledged, ${accepted.size} received`);
  }
  await target.settled(receiver);
  const committed = new Set([...acknowledged, ...(await target.committed())]);
  const times = [...accepted.values()].map((each) => each.times);
  return {
    committed: committed.size,
    lost: [...committed].filter((id) => !accepted.has(id)),
    duplicates: times.filter((each) => each > 1).length,
    renamed: [...renamed],
    disturbances,
  };
}

async function disturbedRound(
  target: Target,
  acknowledged: Set<string>,
  disturbances: CrashResult['disturbances'],
): Promise<void> {
  let isOver = false;
  const committing = Array.from({ length: COMMITTERS }, async () => {
    while (!isOver) {
      const id = await target.commit();
      if (id === null) await sleep(20);
      else acknowledged.add(id);
    }
  });
  for (let i = 0; i < DISTURBANCES_PER_ROUND; i++) {
    await sleep(Math.random() * PAUSE_MS_MAX);
    disturbances[await target.disturb()]++;
  }
  isOver = true;
  await Promise.all(committing);
}

/** One of several ways to disturb, by chance. */
export async function anyOf(ways: readonly (() => Promise<Disturbance>)[]): Promise<Disturbance> {
  const way = ways[Math.floor(Math.random() * ways.length)];
  if (!way) throw new Error('There is no way to disturb');
  return way();
}

/** The line that a run ends with. */
export const summary = ({ committed, lost, duplicates }: CrashResult) =>
  `committed ${committed}, lost ${lost.length}, duplicates ${duplicates}`;
