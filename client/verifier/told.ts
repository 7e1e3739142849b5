/** What the feed told of, so that nothing is answered from memory that it may have made wrong. */

/** What the feed calls an invalidation (docs/feed.md). */
export interface Invalidation {
  at: number;
  kind:
    | 'm2m_token'
    | 'machine'
    | 'machine_scope'
    | 'api_key'
    | 'oauth_token'
    | 'oauth_grant'
    | 'oauth_application'
    | 'subject'
    | 'secret_key';
  id?: string;
  selector?: Selector;
  reason: string;
  until?: number;
}

/** What has all of this in common. */
interface Selector {
  machineId?: string;
  fromMachineId?: string;
  toMachineId?: string;
  subject?: string;
  apiKeyIds?: string[];
  applicationId?: string;
  grantId?: string;
  signingKeyId?: string;
}

/** Names of what an answer hangs on. Those of different things never coincide: a subject may be called like a machine. */
export const nameOf = {
  credential: (id: string) => `id ${id}`,
  machine: (id: string) => `machine ${id}`,
  subject: (subject: string) => `subject ${subject}`,
  way: (from: string, to: string) => `way ${from} ${to}`,
  application: (id: string) => `application ${id}`,
  grant: (id: string) => `grant ${id}`,
  /** All that a user allowed an application. */
  consent: (subject: string, applicationId: string) => `consent ${applicationId} ${subject}`,
  signingKey: (kid: string) => `kid ${kid}`,
  /** Told with everything of that kind, whichever it is. */
  any: (kind: Invalidation['kind']) => `any ${kind}`,
  /** Told only with what concerns all of that kind. */
  every: (kind: Invalidation['kind']) => `every ${kind}`,
};

/** All that an invalidation speaks of. */
export function namesIn({ kind, id, selector = {} }: Invalidation): string[] {
  const { machineId, fromMachineId, toMachineId, apiKeyIds, signingKeyId } = selector;
  const names = [nameOf.any(kind)];
  if (id !== undefined) names.push(nameOfObject(kind, id));
  if (machineId !== undefined) names.push(nameOf.machine(machineId));
  if (fromMachineId !== undefined && toMachineId !== undefined)
    names.push(nameOf.way(fromMachineId, toMachineId));
  names.push(...namesOfUsers(selector));
  for (const each of apiKeyIds ?? []) names.push(nameOf.credential(each));
  if (signingKeyId !== undefined) names.push(nameOf.signingKey(signingKeyId));
  return names.length > 1 ? names : [...names, nameOf.every(kind)];
}

function nameOfObject(kind: Invalidation['kind'], id: string): string {
  switch (kind) {
    case 'machine':
      return nameOf.machine(id);
    case 'subject':
      return nameOf.subject(id);
    case 'oauth_application':
      return nameOf.application(id);
    case 'oauth_grant':
      return nameOf.grant(id);
    default:
      return nameOf.credential(id);
  }
}

/** Only what has all of it in common is spoken of, so only that is named. */
function namesOfUsers({ subject, applicationId, grantId }: Selector): string[] {
  if (grantId !== undefined) return [nameOf.grant(grantId)];
  if (subject !== undefined && applicationId !== undefined) return [nameOf.consent(subject, applicationId)];
  if (applicationId !== undefined) return [nameOf.application(applicationId)];
  return subject === undefined ? [] : [nameOf.subject(subject)];
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
