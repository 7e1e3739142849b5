/** What the server answered, for as long as nothing was told that may make it wrong. */
import { LRUCache } from 'lru-cache';
import type { VerifyResult } from '../countersign.ts';
import { nameOf, type Told } from './told.ts';

export interface Remembered {
  readonly answer: VerifyResult;
  /** Whether a limit, credits or an address rule may make the next answer another: it is asked for each time. */
  readonly isLimited: boolean;
  /** The address it was asked for, where it is bound to addresses. */
  readonly ip: string | undefined;
  readonly names: readonly string[];
  /** The last message that had been told when it was asked for. */
  readonly mark: number;
  /** The last message it was held against since. */
  checkedMark: number;
}

/** How long an invalid answer is remembered: nothing tells of what never was. */
const INVALID_MS_MAX = 30_000;
/** Invalid answers there is room for, by how many valid ones: whoever sends made-up values drives out no others. */
const INVALID_SHARE = 10;

export class Memory {
  readonly #told: Told;
  readonly #valid: LRUCache<string, Remembered>;
  readonly #invalid: LRUCache<string, Remembered>;

  constructor(told: Told, entriesMax: number) {
    this.#told = told;
    this.#valid = new LRUCache({ max: entriesMax });
    this.#invalid = new LRUCache({
      max: Math.max(1, Math.ceil(entriesMax / INVALID_SHARE)),
      ttl: INVALID_MS_MAX,
    });
  }

  get size(): number {
    return this.#valid.size + this.#invalid.size;
  }

  /** What is remembered, and nothing was told against. */
  get(key: string): Remembered | undefined {
    const found = this.#valid.get(key) ?? this.#invalid.get(key);
    if (found === undefined || found.checkedMark === this.#told.mark) return found;
    if (this.#told.isTouchedSince(found.mark, found.names)) {
      this.#valid.delete(key);
      this.#invalid.delete(key);
      return undefined;
    }
    found.checkedMark = this.#told.mark;
    return found;
  }

  /** Keeps an answer that was asked for after the message `mark`, unless something was told of it since. */
  set(key: string, remembered: Omit<Remembered, 'checkedMark'>): void {
    const { mark, names, answer } = remembered;
    if (this.#told.isTouchedSince(mark, names)) return;
    // Callers share it: what one of them did to it the next would be told.
    freeze(answer);
    const kept = { ...remembered, checkedMark: this.#told.mark };
    (answer.valid ? this.#valid : this.#invalid).set(key, kept);
    (answer.valid ? this.#invalid : this.#valid).delete(key);
  }

  clear(): void {
    this.#valid.clear();
    this.#invalid.clear();
  }
}

function freeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return;
  Object.freeze(value);
  for (const inner of Object.values(value)) freeze(inner);
}

/** What an answer hangs on; of a token, with the machine it is presented to where that is known. */
export function namesOf(answer: VerifyResult, audience: string | undefined, kid?: string): string[] {
  if (!answer.valid) return namesOfInvalid(answer);
  const names = [nameOf.credential(answer.id), nameOf.every(answer.kind)];
  if (kid !== undefined) names.push(nameOf.signingKey(kid));
  switch (answer.kind) {
    case 'api_key':
      return [...names, nameOf.subject(answer.subject)];
    case 'oauth_token':
      return [...names, ...namesOfOauth(answer)];
    case 'm2m_token':
      return [...names, ...namesOfM2m(answer, audience)];
  }
}

type Valid<K> = Extract<VerifyResult, { valid: true; kind: K }>;

function namesOfM2m({ machineId, audience: all }: Valid<'m2m_token'>, audience: string | undefined) {
  const receivers = audience === undefined ? all : [audience];
  return [
    nameOf.machine(machineId),
    ...receivers.flatMap((to) => [nameOf.way(machineId, to), nameOf.machine(to)]),
  ];
}

function namesOfOauth({ subject, applicationId, grantId }: Valid<'oauth_token'>): string[] {
  const names = [nameOf.application(applicationId), nameOf.subject(subject)];
  if (grantId === undefined) return names;
  return [...names, nameOf.grant(grantId), nameOf.consent(subject, applicationId)];
}

/** What is not known hangs on everything that could make it known. */
function namesOfInvalid({ id, subject }: Extract<VerifyResult, { valid: false }>): string[] {
  const kinds = [
    nameOf.every('api_key'),
    nameOf.any('machine'),
    nameOf.any('machine_scope'),
    nameOf.any('oauth_application'),
  ];
  return [
    ...kinds,
    ...(id === undefined ? [] : [nameOf.credential(id)]),
    ...(subject === undefined ? [] : [nameOf.subject(subject)]),
  ];
}
