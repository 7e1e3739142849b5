/** What was answered without the server, reported to it so that usage and last use stay true. */
import { randomUUID } from 'node:crypto';
import type { VerifyResult } from '../countersign.ts';

const HOUR_MS = 3_600_000;
const FLUSH_MS = 5_000;
/** Counts in one report. */
const BATCH_MAX = 100;
/** Credentials and hours kept at once: while the server is away further ones go uncounted. */
const COUNTS_MAX = 100_000;

export interface UsageCount {
  kind: 'api_key' | 'm2m_token' | 'oauth_token';
  id: string;
  /** Hours since 1970. */
  hour: number;
  valid: number;
  refused: number;
  lastUsedAt?: number;
}

export interface UsageReport {
  /** The same when it is sent again, so that the server counts it once. */
  batchId: string;
  counts: UsageCount[];
}

export interface UsageOptions {
  /** Throws where the server may not have it; what it refused for good it does not throw for. */
  report: (report: UsageReport) => Promise<void>;
  /** The server's time. */
  now: () => number;
  flushMs?: number;
}

export class Usage {
  readonly #options: UsageOptions;
  readonly #timer: NodeJS.Timeout;
  #counts = new Map<string, UsageCount>();
  /** Taken, and not known to have arrived. */
  #unsent: UsageReport[] = [];
  #flushing: Promise<void> | undefined;

  constructor(options: UsageOptions) {
    this.#options = options;
    this.#timer = setInterval(() => void this.flush(), options.flushMs ?? FLUSH_MS);
    this.#timer.unref();
  }

  count(kind: UsageCount['kind'], answer: VerifyResult): void {
    const { id } = answer;
    if (id === undefined) return;
    const now = this.#options.now();
    const hour = Math.floor(now / HOUR_MS);
    const key = `${hour}${id}`;
    let entry = this.#counts.get(key);
    if (!entry) {
      if (this.#counts.size >= COUNTS_MAX) return;
      entry = { kind, id, hour, valid: 0, refused: 0 };
      this.#counts.set(key, entry);
    }
    if (answer.valid) {
      entry.valid++;
      entry.lastUsedAt = Math.floor(now);
    } else entry.refused++;
  }

  /** Reports what was counted. Never throws: what did not arrive is reported with the next. */
  flush(): Promise<void> {
    this.#flushing ??= this.#send().finally(() => {
      this.#flushing = undefined;
    });
    return this.#flushing;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.flush();
    // What was counted while another flush was under way.
    if (this.#counts.size > 0) await this.flush();
  }

  async #send(): Promise<void> {
    const counts = [...this.#counts.values()];
    this.#counts = new Map();
    for (let i = 0; i < counts.length; i += BATCH_MAX)
      this.#unsent.push({ batchId: randomUUID(), counts: counts.slice(i, i + BATCH_MAX) });
    this.#unsent = this.#unsent.slice(-COUNTS_MAX / BATCH_MAX);
    try {
      for (let next = this.#unsent[0]; next; next = this.#unsent[0]) {
        await this.#options.report(next);
        this.#unsent.shift();
      }
    } catch {
      // The server is away: with the next flush.
    }
  }
}
