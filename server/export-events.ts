/** The log as JSON lines, from any event on: once, or for as long as there are new ones. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Countersign } from '../client/index.ts';
import { CountersignError } from './errors.ts';

export interface ExportEventsOptions {
  /** The sequence of the last event that is known already. */
  after: number;
  follow: boolean;
}

export interface ExportEventsTerminal {
  /** Takes whole lines. */
  write(lines: string): unknown;
  note(text: string): void;
}

const PAGE_SIZE = 500;
const POLL_MS = 500;
const RETRY_MS = 1_000;

/**
 * Writes the events after `after` in commit order. Following, it waits for more, also while the server is away, until it
 * is interrupted. Answers the sequence of the last event written, from which another can go on.
 */
export async function exportEvents(
  connect: () => Promise<Countersign>,
  { after, follow }: ExportEventsOptions,
  terminal: ExportEventsTerminal,
  interrupted: AbortSignal,
): Promise<number> {
  const countersign = await connect();
  const next = follow ? outlasting(terminal, interrupted) : (page: Promise<Page>) => page;
  while (!interrupted.aborted) {
    const page = await next(countersign.events.list({ after, limit: PAGE_SIZE }));
    if (page === null) continue;
    if (page.data.length > 0) terminal.write(page.data.map((event) => `${JSON.stringify(event)}\n`).join(''));
    after = page.nextAfter;
    if (page.data.length === PAGE_SIZE) continue;
    if (!follow) break;
    await pause(POLL_MS, interrupted);
  }
  return after;
}

type Page = Awaited<ReturnType<Countersign['events']['list']>>;

/** Null, after a while, for a page that could not be had but may be later. Says so once, and once when it is over. */
function outlasting({ note }: ExportEventsTerminal, interrupted: AbortSignal) {
  let isAway = false;
  return async (asked: Promise<Page>): Promise<Page | null> => {
    try {
      const page = await asked;
      if (isAway) note('The server answers again');
      isAway = false;
      return page;
    } catch (error) {
      if (!(error instanceof CountersignError && error.retryable)) throw error;
      if (!isAway) note(`${error.code}: ${error.message}; waiting for the server`);
      isAway = true;
      await pause(RETRY_MS, interrupted);
      return null;
    }
  };
}

const pause = (ms: number, signal: AbortSignal) => sleep(ms, undefined, { signal }).catch(() => {});
