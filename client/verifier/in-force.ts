/** What is in force against tokens that were not yet seen: a JWT is judged by it without asking. */
import type { Invalidation } from './told.ts';

/** A selector speaks of what was issued before it; clocks of servers differ (docs/feed.md). */
const SKEW_MS = 60_000;
const PRUNE_MS = 60_000;

const OF_TOKENS: ReadonlySet<string> = new Set(['m2m_token', 'machine', 'machine_scope']);

/** After these a token is valid that was not: none that was issued before is not any more. */
const GIVING: ReadonlySet<string> = new Set(['created', 'enabled']);

/** What of a JWT decides whether something may be in force against it. */
export interface Bearing {
  id: string;
  machineId: string;
  /** The machine it is presented to. */
  audience: string;
  kid: string;
  /** In milliseconds since 1970-01-01 UTC, rounded down. */
  issuedAt: number;
}

/** Revocations and changes that tokens issued before them may have outlived, as the feed told of them. */
export class InForce {
  readonly #idsMax: number;
  /** By token, until when it would be valid. */
  readonly #tokens = new Map<string, number>();
  /** By machine and by way, when the last of it happened. */
  readonly #machines = new Map<string, number>();
  readonly #ways = new Map<string, number>();
  readonly #signingKeys = new Set<string>();
  /** Something is in force that there was no room for, or that concerns all tokens. */
  #isIncomplete = false;
  #prunedAt = Number.NEGATIVE_INFINITY;

  constructor(idsMax = 200_000) {
    this.#idsMax = idsMax;
  }

  take({ at, kind, id, selector = {}, reason, until }: Invalidation): void {
    if (!OF_TOKENS.has(kind) || GIVING.has(reason)) return;
    const { machineId, fromMachineId, toMachineId, signingKeyId } = selector;
    if (machineId !== undefined) keepLatest(this.#machines, machineId, at);
    else if (fromMachineId !== undefined && toMachineId !== undefined)
      keepLatest(this.#ways, wayOf(fromMachineId, toMachineId), at);
    else if (signingKeyId !== undefined) this.#signingKeys.add(signingKeyId);
    else if (kind === 'm2m_token' && id !== undefined)
      this.#tokens.set(id, until ?? Number.POSITIVE_INFINITY);
    else if (id === undefined) this.#isIncomplete = true;
    if (this.#tokens.size + this.#machines.size + this.#ways.size > this.#idsMax) {
      this.clear();
      this.#isIncomplete = true;
    }
  }

  /** Whether something in force may speak of the token: then who knows its row is asked. */
  mayConcern({ id, machineId, audience, kid, issuedAt }: Bearing): boolean {
    const isBefore = (at: number | undefined) => at !== undefined && issuedAt < at + SKEW_MS;
    return (
      this.#isIncomplete ||
      this.#tokens.has(id) ||
      this.#signingKeys.has(kid) ||
      isBefore(this.#machines.get(machineId)) ||
      isBefore(this.#machines.get(audience)) ||
      isBefore(this.#ways.get(wayOf(machineId, audience)))
    );
  }

  /** Forgets what has expired anyway. */
  prune(now: number): void {
    if (now - this.#prunedAt < PRUNE_MS) return;
    this.#prunedAt = now;
    for (const [id, until] of this.#tokens) if (until + SKEW_MS < now) this.#tokens.delete(id);
  }

  clear(): void {
    this.#tokens.clear();
    this.#machines.clear();
    this.#ways.clear();
    this.#signingKeys.clear();
    this.#isIncomplete = false;
  }
}

const wayOf = (from: string, to: string) => `${from} ${to}`;

function keepLatest(times: Map<string, number>, key: string, at: number): void {
  if (at > (times.get(key) ?? Number.NEGATIVE_INFINITY)) times.set(key, at);
}
