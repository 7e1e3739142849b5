/** What the server said of OAuth applications, which a JWT of theirs does not: by it such a JWT can be judged here. */
import { LRUCache } from 'lru-cache';
import { nameOf, type Told } from './told.ts';

export interface Application {
  applicationId: string;
  applicationName: string;
}

interface Known {
  application: Application;
  /** The last message that had been told when it was asked for. */
  mark: number;
}

const APPLICATIONS_MAX = 10_000;

export class Applications {
  readonly #told: Told;
  readonly #known = new LRUCache<string, Known>({ max: APPLICATIONS_MAX });

  constructor(told: Told) {
    this.#told = told;
  }

  /** What is known of an application, and nothing was told against. */
  get(clientId: string): Application | undefined {
    const known = this.#known.get(clientId);
    if (!known) return undefined;
    const names = [nameOf.application(known.application.applicationId)];
    if (!this.#told.isTouchedSince(known.mark, names)) return known.application;
    this.#known.delete(clientId);
    return undefined;
  }

  /** Keeps what was asked for after the message `mark`. */
  learn(clientId: string, { applicationId, applicationName }: Application, mark: number): void {
    this.#known.set(clientId, { application: { applicationId, applicationName }, mark });
  }

  clear(): void {
    this.#known.clear();
  }
}
