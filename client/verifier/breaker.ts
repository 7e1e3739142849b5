/** Spares a server that does not answer, and those who wait for it. */

/** So many requests must fail one after the other. */
const FAILURES = 5;
const OPEN_MS_FIRST = 500;
const OPEN_MS_MAX = 10_000;

export class Breaker {
  readonly #clock: () => number;
  #failures = 0;
  #openMs = OPEN_MS_FIRST;
  /** Until when nothing is sent; then one request is, to see. */
  #openUntil = Number.NEGATIVE_INFINITY;
  #isTrying = false;

  constructor(clock = () => performance.now()) {
    this.#clock = clock;
  }

  get isOpen(): boolean {
    return this.#failures >= FAILURES && (this.#isTrying || this.#clock() < this.#openUntil);
  }

  /** Called before a request that is sent. */
  begin(): void {
    if (this.#failures >= FAILURES) this.#isTrying = true;
  }

  /** Whatever it was that the server answered. */
  succeeded(): void {
    this.#failures = 0;
    this.#openMs = OPEN_MS_FIRST;
    this.#isTrying = false;
  }

  failed(): void {
    this.#failures++;
    this.#isTrying = false;
    if (this.#failures < FAILURES) return;
    this.#openUntil = this.#clock() + this.#openMs * (0.5 + Math.random() / 2);
    this.#openMs = Math.min(this.#openMs * 2, OPEN_MS_MAX);
  }
}
