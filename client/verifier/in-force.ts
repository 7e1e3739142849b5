/** What is in force against tokens that were not yet seen: a JWT is judged by it without asking. */
import { type Invalidation, nameOf } from './told.ts';

/** A selector speaks of what was issued before it; clocks of servers differ (docs/feed.md). */
const SKEW_MS = 60_000;
const PRUNE_MS = 60_000;

const OF_TOKENS: ReadonlySet<string> = new Set([
  'm2m_token',
  'machine',
  'machine_scope',
  'oauth_token',
  'oauth_grant',
  'oauth_application',
]);

/** After these a token is valid that was not: none that was issued before is not any more. */
const GIVING: ReadonlySet<string> = new Set(['created', 'enabled']);

/** What of a JWT decides whether something may be in force against it. */
export type Bearing = {
  id: string;
  kid: string;
  /** In milliseconds since 1970-01-01 UTC, rounded down. */
  issuedAt: number;
} & (
  | {
      machineId: string;
      /** The machine it is presented to. */
      audience: string;
    }
  | { applicationId: string; subject: string }
);

/** Revocations and changes that tokens issued before them may have outlived, as the feed told of them. */
export class InForce {
  readonly #idsMax: number;
  /** By token, until when it would be valid. */
  readonly #tokens = new Map<string, number>();
  /** By name of what tokens hang on, when the last of it happened. */
  readonly #times = new Map<string, number>();
  readonly #signingKeys = new Set<string>();
  /** Something is in force that there was no room for, or that concerns all tokens. */
  #isIncomplete = false;
  #prunedAt = Number.NEGATIVE_INFINITY;

  constructor(idsMax = 200_000) {
    this.#idsMax = idsMax;
  }

  take(item: Invalidation): void {
    const { at, kind, id, selector, reason, until } = item;
    if (kind === 'subject') this.#takeSubject(item);
    if (!OF_TOKENS.has(kind) || GIVING.has(reason)) return;
    const name = nameOfAll(selector ?? {});
    if (name !== null) keepLatest(this.#times, name, at);
    else if (selector?.signingKeyId !== undefined) this.#signingKeys.add(selector.signingKeyId);
    else if (id !== undefined && isToken(kind)) this.#tokens.set(id, until ?? Number.POSITIVE_INFINITY);
    else if (id === undefined) this.#isIncomplete = true;
    if (this.#tokens.size + this.#times.size <= this.#idsMax) return;
    this.clear();
    this.#isIncomplete = true;
  }

  /** Whoever is disabled may be issued tokens all the same: none of them is valid until they are enabled again. */
  #takeSubject({ at, selector, reason }: Invalidation): void {
    const name = nameOfAll(selector ?? {});
    if (name === null) return;
    if (reason === 'disabled') this.#times.set(name, Number.POSITIVE_INFINITY);
    else if (reason === 'enabled' && this.#times.has(name)) this.#times.set(name, at);
    else if (reason === 'deleted') keepLatest(this.#times, name, at);
  }

  /** Whether something in force may speak of the token: then who knows its row is asked. */
  mayConcern(token: Bearing): boolean {
    return (
      this.#isIncomplete ||
      this.#tokens.has(token.id) ||
      this.#signingKeys.has(token.kid) ||
      namesOfToken(token).some((name) => this.#isBefore(token.issuedAt, name))
    );
  }

  #isBefore(issuedAt: number, name: string): boolean {
    const at = this.#times.get(name);
    return at !== undefined && issuedAt < at + SKEW_MS;
  }

  /** Forgets what has expired anyway. */
  prune(now: number): void {
    if (now - this.#prunedAt < PRUNE_MS) return;
    this.#prunedAt = now;
    for (const [id, until] of this.#tokens) if (until + SKEW_MS < now) this.#tokens.delete(id);
  }

  clear(): void {
    this.#tokens.clear();
    this.#times.clear();
    this.#signingKeys.clear();
    this.#isIncomplete = false;
  }
}

const isToken = (kind: Invalidation['kind']) => kind === 'm2m_token' || kind === 'oauth_token';

/** By what every JWT says of itself: a grant goes by whose it is, and for which application. Null where all of a kind is spoken of. */
function nameOfAll(selector: NonNullable<Invalidation['selector']>): string | null {
  const { machineId, fromMachineId, toMachineId, subject, applicationId } = selector;
  if (machineId !== undefined) return nameOf.machine(machineId);
  if (fromMachineId !== undefined && toMachineId !== undefined) return nameOf.way(fromMachineId, toMachineId);
  if (applicationId !== undefined)
    return subject === undefined ? nameOf.application(applicationId) : nameOf.consent(subject, applicationId);
  return subject === undefined ? null : nameOf.subject(subject);
}

function namesOfToken(token: Bearing): string[] {
  if ('machineId' in token) {
    const { machineId, audience } = token;
    return [nameOf.machine(machineId), nameOf.machine(audience), nameOf.way(machineId, audience)];
  }
  const { applicationId, subject } = token;
  return [nameOf.application(applicationId), nameOf.subject(subject), nameOf.consent(subject, applicationId)];
}

function keepLatest(times: Map<string, number>, key: string, at: number): void {
  if (at > (times.get(key) ?? Number.NEGATIVE_INFINITY)) times.set(key, at);
}
