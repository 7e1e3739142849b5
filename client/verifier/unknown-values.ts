/** How many values that nobody knows an address may have looked up. */
import { LRUCache } from 'lru-cache';
import { networkOf } from '../../server/domain/addresses.ts';

const WINDOW_MS = 60_000;
const ADDRESSES_MAX = 10_000;

class Window {
  readonly endsAt: number;
  /** Looked up in vain. */
  unknown = 0;
  underWay = 0;
  /** Who waits for one that is under way to end. */
  waiting: (() => void)[] = [];

  constructor(endsAt: number) {
    this.endsAt = endsAt;
  }
}

/** One look-up: to be ended when it is known what came of it. */
export interface Lookup {
  end(wasUnknown: boolean): void;
}

/**
 * What is under way counts as unknown until it has ended, so that asking for many at once is no way around the limit.
 * What exceeds it for that alone waits: a busy address whose values are all known is not refused.
 */
export class UnknownValues {
  readonly #perMinuteMax: number;
  readonly #clock: () => number;
  readonly #windows = new LRUCache<string, Window>({ max: ADDRESSES_MAX });

  constructor(perMinuteMax: number, clock = () => performance.now()) {
    this.#perMinuteMax = perMinuteMax;
    this.#clock = clock;
  }

  /** Begins a look-up; or answers how long until the address may have another, in milliseconds. */
  async begin(address: string): Promise<Lookup | number> {
    const network = networkOf(address);
    for (;;) {
      const now = this.#clock();
      let window = this.#windows.get(network);
      if (!window || window.endsAt <= now) {
        window = new Window(now + WINDOW_MS);
        this.#windows.set(network, window);
      }
      const { waiting } = window;
      if (window.unknown >= this.#perMinuteMax) return Math.ceil(window.endsAt - now);
      if (window.unknown + window.underWay < this.#perMinuteMax) return begun(window);
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
  }
}

function begun(window: Window): Lookup {
  window.underWay++;
  return {
    end(wasUnknown) {
      window.underWay--;
      if (wasUnknown) window.unknown++;
      for (const resolve of window.waiting.splice(0)) resolve();
    },
  };
}
