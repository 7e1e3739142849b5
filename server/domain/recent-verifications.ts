/** What this process verified in the last hour, minute by minute: in memory alone. */
const MINUTE_MS = 60_000;
const MINUTES = 60;

/** One minute, and in it how many verifications had each outcome: `valid`, or the reason. */
export interface VerifiedMinute {
  /** When it began, in milliseconds since 1970-01-01 UTC. */
  at: number;
  outcomes: Record<string, number>;
}

export interface RecentVerifications {
  count(outcome: string, now: number): void;
  /** Every minute of the last hour, the one that runs last; those without any too. */
  read(now: number): VerifiedMinute[];
}

export function createRecentVerifications(): RecentVerifications {
  /** By minute since 1970, modulo their number. */
  const ring: { minute: number; outcomes: Map<string, number> }[] = [];

  return {
    count(outcome, now) {
      const minute = Math.floor(now / MINUTE_MS);
      let slot = ring[minute % MINUTES];
      if (slot?.minute !== minute) {
        slot = { minute, outcomes: new Map() };
        ring[minute % MINUTES] = slot;
      }
      slot.outcomes.set(outcome, (slot.outcomes.get(outcome) ?? 0) + 1);
    },
    read(now) {
      const last = Math.floor(now / MINUTE_MS);
      return Array.from({ length: MINUTES }, (_, i) => {
        const minute = last - MINUTES + 1 + i;
        const slot = ring[minute % MINUTES];
        const outcomes = slot?.minute === minute ? Object.fromEntries(slot.outcomes) : {};
        return { at: minute * MINUTE_MS, outcomes };
      });
    },
  };
}
