/** For development: follows the log of a running server and posts its events to a URL, as webhooks are. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Countersign } from '../client/index.ts';
import { WEBHOOK_SECRET_PREFIX } from './crypto/webhook-signature.ts';
import type { Event } from './domain/events.ts';
import { webhookBodyOf, webhookHeadersOf } from './domain/webhook-messages.ts';
import { CountersignError } from './errors.ts';

export interface ListenOptions {
  /** An http or https URL. */
  forwardTo: string;
  /** Ends it. */
  signal: AbortSignal;
  note(text: string): void;
}

const POLL_MS = 500;
const TIMEOUT_MS = 15_000;
const SECRET_BYTES = 32;
const PAGE_SIZE = 100;

/** Posts every event from now on until the signal; answers how many were accepted and how many were not. */
export async function listen(
  countersign: Countersign,
  { forwardTo, signal, note }: ListenOptions,
): Promise<{ delivered: number; failed: number }> {
  const secret = WEBHOOK_SECRET_PREFIX + randomBytes(SECRET_BYTES).toString('base64');
  const totals = { delivered: 0, failed: 0 };
  let after = await headOf(countersign);
  note(`Forwarding events to ${forwardTo}; Ctrl-C ends it`);
  note(`The signing secret, until then: ${secret}`);
  const poll = createPoll(countersign, note);
  while (!signal.aborted) {
    const events = await poll(after);
    for (const event of events) {
      if (signal.aborted) return totals;
      const { accepted, told } = await forward(event, { forwardTo, secret, signal });
      if (signal.aborted) return totals;
      totals[accepted ? 'delivered' : 'failed']++;
      note(`${new Date(event.at).toISOString()} ${event.type} ${event.id}: ${told}`);
      after = event.seq;
    }
    if (events.length === 0) await sleep(POLL_MS, undefined, { signal }).catch(() => {});
  }
  return totals;
}

/** The sequence of the last event: as there are no gaps, it is found by halves. */
async function headOf(countersign: Countersign): Promise<number> {
  const isBefore = async (seq: number) =>
    (await countersign.events.list({ after: seq, limit: 1 })).data.length > 0;
  let step = 1;
  while (await isBefore(step)) step *= 2;
  let head = 0;
  for (; step >= 1; step /= 2) if (await isBefore(head + step - 1)) head += step;
  return head;
}

/** Answers the next events; none, said once, while the server cannot be asked. */
function createPoll(countersign: Countersign, note: ListenOptions['note']) {
  let isAway = false;
  return async (after: number): Promise<Event[]> => {
    try {
      const { data } = await countersign.events.list({ after, limit: PAGE_SIZE });
      if (isAway) note('The server answers again');
      isAway = false;
      return data;
    } catch (error) {
      if (!(error instanceof CountersignError) || !error.retryable) throw error;
      if (!isAway) note(`The server does not answer (${error.code}); it is asked again`);
      isAway = true;
      return [];
    }
  };
}

async function forward(
  event: Event,
  { forwardTo, secret, signal }: { forwardTo: string; secret: string; signal: AbortSignal },
): Promise<{ accepted: boolean; told: string }> {
  const body = webhookBodyOf(event);
  try {
    const answer = await fetch(forwardTo, {
      method: 'POST',
      headers: webhookHeadersOf({ secrets: [secret], privateKey: null }, event.id, Date.now(), body),
      body,
      redirect: 'manual',
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    });
    await answer.body?.cancel();
    return { accepted: answer.ok, told: `${answer.status}` };
  } catch (error) {
    const { code } = (error instanceof Error ? (error.cause ?? error) : {}) as { code?: unknown };
    return { accepted: false, told: `no answer${typeof code === 'string' ? ` (${code})` : ''}` };
  }
}
