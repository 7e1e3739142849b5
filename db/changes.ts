/** What brings changes while somebody wants to hear of them; answers how to end that. */
type Source = (changed: () => void) => () => void;

/** Those who want to hear of changes. The source of them works only while there are any. */
export class Changes {
  readonly #listeners = new Set<() => void>();
  readonly #source: Source;
  #stop: (() => void) | undefined;

  constructor(source: Source) {
    this.#source = source;
  }

  add(listener: () => void): () => void {
    // Two who bring the same function are two.
    const own = () => listener();
    this.#listeners.add(own);
    this.#stop ??= this.#source(() => this.tell());
    return () => {
      this.#listeners.delete(own);
      if (this.#listeners.size === 0) this.#end();
    };
  }

  tell(): void {
    for (const listener of this.#listeners) listener();
  }

  /** Tells nobody any more. */
  close(): void {
    this.#listeners.clear();
    this.#end();
  }

  #end(): void {
    this.#stop?.();
    this.#stop = undefined;
  }
}

/** The name of the channel that appended events are told on; SQLite has a function of PostgreSQL's name for it. */
export const CHANGE_CHANNEL = 'countersign';
