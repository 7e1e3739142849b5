/** What is read whole and kept in memory for a while, together with when it was read, by the clock of whoever keeps it. */
export interface KeptSet<T extends { readAt: number }> {
  /** The set, at most `ageMsMax` old; those who need it at the same time read it once. */
  get(ageMsMax: number): Promise<T>;
  /** Reads it anew, however young it is. */
  read(): Promise<T>;
  /** Has it read before it is used again. */
  forget(): void;
}

export function createKeptSet<T extends { readAt: number }>(
  readSet: (readAt: number) => Promise<T>,
  clock: () => number,
): KeptSet<T> {
  let known: T | undefined;
  let reading: Promise<T> | undefined;

  /** What was begun before the set was forgotten is answered to those who asked then, and kept for nobody else. */
  function read(): Promise<T> {
    const begun = readSet(clock())
      .then((set) => {
        if (reading === begun) known = set;
        return set;
      })
      .finally(() => {
        if (reading === begun) reading = undefined;
      });
    reading = begun;
    return begun;
  }

  return {
    async get(ageMsMax) {
      if (known && clock() - known.readAt < ageMsMax) return known;
      return reading ?? read();
    },
    read,
    forget() {
      known = undefined;
      reading = undefined;
    },
  };
}
