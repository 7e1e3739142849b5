/** How long a call may take, and when it is sent again. */
import { setTimeout as sleep } from 'node:timers/promises';
import { CountersignError, type ErrorCode } from '../server/errors.ts';

export interface Patience {
  /** The whole call's limit, with everything that is sent again. */
  timeoutMs: number;
  /** How often a call that may be repeated is sent again. */
  retries: number;
  /** Ends the call early; it then throws the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** What may be gone by the next attempt: the server did not answer, or said that it is not able to now, or not sure. */
const PASSING: ReadonlySet<ErrorCode> = new Set(['timeout', 'network', 'unavailable', 'outcome_unknown']);

const BACKOFF_MS_FIRST = 50;
const BACKOFF_MS_MAX = 1000;

/**
 * Sends a call, and sends it again while it may be, within one limit for all. An attempt that is not the last may use
 * half of the time that is left, so that a connection which went silent does not use up the whole of it.
 */
export async function persist<T>(
  name: string,
  repeatable: boolean,
  { timeoutMs, retries, signal }: Patience,
  send: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const endsAt = performance.now() + timeoutMs;
  const attempts = repeatable ? retries + 1 : 1;
  for (let attempt = 1; ; attempt++) {
    const last = attempt === attempts;
    const leftMs = endsAt - performance.now();
    const limitMs = last ? leftMs : leftMs / 2;
    try {
      return await within(limitMs, signal, send, () => noAnswer(name, timeoutMs));
    } catch (error) {
      if (last || !isPassing(error)) throw error;
      const waitMs = Math.min(backoffMs(attempt), (endsAt - performance.now()) / 2);
      await sleep(waitMs, undefined, { signal }).catch(() => signal?.throwIfAborted());
    }
  }
}

const isPassing = (error: unknown) => error instanceof CountersignError && PASSING.has(error.code);

/** Exponential, with full jitter: callers that failed together do not come back together. */
const backoffMs = (attempt: number) =>
  Math.random() * Math.min(BACKOFF_MS_MAX, BACKOFF_MS_FIRST * 2 ** (attempt - 1));

const noAnswer = (name: string, timeoutMs: number) =>
  new CountersignError('timeout', `Cannot call '${name}': wanted an answer within ${timeoutMs} ms, got none`);

/** Settles with `send`, or earlier with the time limit or the caller's signal, which `send` is told of. */
async function within<T>(
  limitMs: number,
  outer: AbortSignal | undefined,
  send: (signal: AbortSignal) => Promise<T>,
  late: () => CountersignError,
): Promise<T> {
  outer?.throwIfAborted();
  const inner = new AbortController();
  const ended = new Promise<never>((_, reject) => {
    inner.signal.addEventListener('abort', () => reject(inner.signal.reason), { once: true });
  });
  const passOn = () => inner.abort(outer?.reason);
  const timer = setTimeout(() => inner.abort(late()), Math.max(0, limitMs));
  outer?.addEventListener('abort', passOn, { once: true });
  try {
    return await Promise.race([send(inner.signal), ended]);
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener('abort', passOn);
  }
}
