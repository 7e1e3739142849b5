/** How many values that nobody knows an address may have looked up. */
import { LRUCache } from 'lru-cache';

const WINDOW_MS = 60_000;
const ADDRESSES_MAX = 10_000;

interface Window {
  count: number;
  endsAt: number;
}

export class UnknownValues {
  readonly #perMinuteMax: number;
  readonly #clock: () => number;
  readonly #windows = new LRUCache<string, Window>({ max: ADDRESSES_MAX });

  constructor(perMinuteMax: number, clock = () => performance.now()) {
    this.#perMinuteMax = perMinuteMax;
    this.#clock = clock;
  }

  /** How long until the address may have another looked up; 0 for at once. */
  waitMs(address: string): number {
    const window = this.#windows.get(address);
    const now = this.#clock();
    if (!window || window.endsAt <= now || window.count < this.#perMinuteMax) return 0;
    return Math.ceil(window.endsAt - now);
  }

  /** Notes one that was looked up in vain. */
  count(address: string): void {
    const now = this.#clock();
    const window = this.#windows.get(address);
    if (window && window.endsAt > now) window.count++;
    else this.#windows.set(address, { count: 1, endsAt: now + WINDOW_MS });
  }
}
