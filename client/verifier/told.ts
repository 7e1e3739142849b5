/** What the feed told of, so that nothing is answered from memory that it may have made wrong. */

/** What the feed calls an invalidation (docs/feed.md). */
export interface Invalidation {
  at: number;
  kind: 'm2m_token' | 'machine' | 'machine_scope' | 'api_key' | 'subject' | 'secret_key';
  id?: string;
  selector?: Selector;
  reason: string;
  until?: number;
}

interface Selector {
  machineId?: string;
  fromMachineId?: string;
  toMachineId?: string;
  subject?: string;
  apiKeyIds?: string[];
  signingKeyId?: string;
}

/** Names of what an answer hangs on. Those of different things never coincide: a subject may be called like a machine. */
export const nameOf = {
  credential: (id: string) => `id ${id}`,
  machine: (id: string) => `machine ${id}`,
  subject: (subject: string) => `subject ${subject}`,
  way: (from: string, to: string) => `way ${from} ${to}`,
  signingKey: (kid: string) => `kid ${kid}`,
  /** Told with everything of that kind, whichever it is. */
  any: (kind: Invalidation['kind']) => `any ${kind}`,
  /** Told only with what concerns all of that kind. */
  every: (kind: Invalidation['kind']) => `every ${kind}`,
};

/** All that an invalidation speaks of. */
export function namesIn({ kind, id, selector = {} }: Invalidation): string[] {
  const { machineId, fromMachineId, toMachineId, subject, apiKeyIds, signingKeyId } = selector;
  const names = [nameOf.any(kind)];
  if (id !== undefined) {
    if (kind === 'machine') names.push(nameOf.machine(id));
    else names.push(kind === 'subject' ? nameOf.subject(id) : nameOf.credential(id));
  }
  if (machineId !== undefined) names.push(nameOf.machine(machineId));
  if (fromMachineId !== undefined && toMachineId !== undefined)
    names.push(nameOf.way(fromMachineId, toMachineId));
  if (subject !== undefined) names.push(nameOf.subject(subject));
  for (const each of apiKeyIds ?? []) names.push(nameOf.credential(each));
  if (signingKeyId !== undefined) names.push(nameOf.signingKey(signingKeyId));
  return names.length > 1 ? names : [...names, nameOf.every(kind)];
}

/**
 * When each name was last told of, counted in messages. What is kept is compared with it when it is used, so that a
 * message costs the same however much hangs on it.
 */
export class Told {
  readonly #namesMax: number;
  readonly #marks = new Map<string, number>();
  #mark = 0;
  /** Of names that were last told of before, it is not known any more when. */
  #floor = 0;

  constructor(namesMax = 100_000) {
    this.#namesMax = namesMax;
  }

  /** The number of the last message. */
  get mark(): number {
    return this.#mark;
  }

  tell(names: readonly string[]): void {
    this.#mark++;
    for (const name of names) {
      // Anew, so that the first of the map is the one that was told of longest ago.
      this.#marks.delete(name);
      this.#marks.set(name, this.#mark);
    }
    while (this.#marks.size > this.#namesMax) {
      const [oldest] = this.#marks as Iterable<[string, number]>;
      if (!oldest) break;
      this.#marks.delete(oldest[0]);
      this.#floor = oldest[1];
    }
  }

  /** Whether one of the names was told of after a message. */
  isTouchedSince(mark: number, names: readonly string[]): boolean {
    if (mark < this.#floor) return true;
    for (const name of names) if ((this.#marks.get(name) ?? 0) > mark) return true;
    return false;
  }
}
