/** Asks the server, at most once at a time for the same, and for many in one request. */

import { CountersignError } from '../../server/errors.ts';
import type { VerifyInput, VerifyResult } from '../countersign.ts';
import type { VerifyCalls } from '../fast-calls.ts';
import { Breaker } from './breaker.ts';

const BATCH_MAX = 100;

export interface QuestionsOptions {
  client: VerifyCalls;
  /** Told of each request: for how many, how long it took, and how it failed, if it did. */
  onRequest: (request: { items: number; ms: number; error?: unknown }) => void;
}

interface Asked {
  input: VerifyInput;
  /** Told when it goes out: from then on nobody else's question may travel with it. */
  onSent: () => void;
  resolve: (answer: VerifyResult) => void;
  reject: (error: unknown) => void;
}

interface UnderWay {
  answer: Promise<VerifyResult>;
  isSent: boolean;
  knowledge: string | null;
}

export class Questions {
  readonly #options: QuestionsOptions;
  readonly #breaker = new Breaker();
  readonly #underWay = new Map<string, UnderWay>();
  #waiting: Asked[] = [];

  constructor(options: QuestionsOptions) {
    this.#options = options;
  }

  get isBroken(): boolean {
    return this.#breaker.isOpen;
  }

  /**
   * What the server says. The same that is being asked already is not asked again, unless its answer takes something from
   * a limit or credits, which each must pay for itself. Nor is one joined that was sent before something was told: it may
   * have been judged before that too. `knowledge` names all that was told by now, and is null where more may have happened.
   * Throws what a client throws, and `unavailable` at once while the server has not been answering.
   */
  async ask(input: VerifyInput, knowledge: string | null): Promise<VerifyResult> {
    const key = JSON.stringify(input);
    const underWay = this.#underWay.get(key);
    const mayJoin =
      underWay && (!underWay.isSent || (knowledge !== null && knowledge === underWay.knowledge));
    if (mayJoin) {
      const answer = await underWay.answer;
      return isPaid(answer) ? this.#send(input) : answer;
    }
    const asking: UnderWay = { answer: this.#send(input, () => sent()), isSent: false, knowledge };
    const sent = () => {
      asking.isSent = true;
    };
    this.#underWay.set(key, asking);
    try {
      return await asking.answer;
    } finally {
      if (this.#underWay.get(key) === asking) this.#underWay.delete(key);
    }
  }

  #send(input: VerifyInput, onSent = () => {}): Promise<VerifyResult> {
    if (this.#breaker.isOpen) {
      return Promise.reject(
        new CountersignError(
          'unavailable',
          'Cannot verify: the server has not been answering, and is not asked for a moment',
        ),
      );
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ input, onSent, resolve, reject });
      // All that is asked in one turn of the event loop travels together.
      if (this.#waiting.length === 1) setImmediate(() => this.#flush());
    });
  }

  #flush(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { onSent } of waiting) onSent();
    for (let i = 0; i < waiting.length; i += BATCH_MAX) void this.#request(waiting.slice(i, i + BATCH_MAX));
  }

  async #request(asked: readonly Asked[]): Promise<void> {
    const { onRequest } = this.#options;
    const startedAt = performance.now();
    const end = (error?: unknown) => {
      const ms = performance.now() - startedAt;
      onRequest({ items: asked.length, ms, ...(error !== undefined && { error }) });
    };
    this.#breaker.begin();
    try {
      const answers = await this.#answers(asked);
      this.#breaker.succeeded();
      end();
      for (const [index, { resolve }] of asked.entries()) resolve(answers[index] as VerifyResult);
    } catch (error) {
      if (isAnswered(error)) this.#breaker.succeeded();
      else this.#breaker.failed();
      end(error);
      // One that cannot be asked, or all together too long: the others must not pay for it.
      if (asked.length > 1 && isOfInput(error)) {
        for (const one of asked) void this.#request([one]);
        return;
      }
      for (const { reject } of asked) reject(error);
    }
  }

  async #answers(asked: readonly Asked[]): Promise<VerifyResult[]> {
    const { client } = this.#options;
    const [first] = asked;
    if (first && asked.length === 1) return [await client.verify(first.input)];
    return client.verifyBatch(asked.map(({ input }) => input));
  }
}

/** Whether the answer took something from a limit or credits, or found nothing left to take. */
export const isPaid = (answer: VerifyResult): boolean =>
  answer.valid
    ? answer.kind === 'api_key' && (answer.rateLimit !== undefined || answer.creditsRemaining !== undefined)
    : answer.reason === 'rate_limited' || answer.reason === 'out_of_credits';

/** A refusal of the server's is an answer too: it is there. */
const isAnswered = (error: unknown) =>
  error instanceof CountersignError && error.status > 0 && error.status < 500;

const isOfInput = (error: unknown) =>
  error instanceof CountersignError && (error.status === 400 || error.status === 413);
