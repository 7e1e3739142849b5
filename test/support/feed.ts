/** Somebody who follows the feed over HTTP, and keeps all that it is told. */
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';

export interface Told {
  event: string;
  id: string | null;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into frames of every shape
  data: any;
  /** On this process' monotonic clock, in milliseconds. */
  receivedAt: number;
}

export interface Following {
  status: number;
  told: Told[];
  /** Resolves with the first message, of those after `from`, that `isWanted`; rejects after some seconds without. */
  until(isWanted: (told: Told) => boolean, from?: number): Promise<Told>;
  /** Resolves with the snapshot's items once it is complete. */
  snapshot(): Promise<Told['data'][]>;
  ids(event: string): unknown[];
  lastId(): string;
  isEnded(): boolean;
  ended: Promise<void>;
  response: IncomingMessage;
  close(): void;
}

const PATIENCE_MS = 10_000;

/** Follows the feed at `url`. Without `reads`, it reads nothing until its response is resumed. */
export async function followFeed(
  url: string,
  key: string,
  { lastEventId, reads = true }: { lastEventId?: string; reads?: boolean } = {},
): Promise<Following> {
  const { response, sent } = await open(`${url}/v1/feed`, {
    authorization: `Bearer ${key}`,
    ...(lastEventId !== undefined && { 'last-event-id': lastEventId }),
  });
  const told: Told[] = [];
  let rest = '';
  let isEnded = false;
  const ended = new Promise<void>((resolve) => response.once('close', resolve)).then(() => {
    isEnded = true;
  });
  response.on('error', () => {});
  if (reads)
    response.setEncoding('utf8').on('data', (text: string) => {
      const messages = (rest + text).split('\n\n');
      rest = messages.pop() ?? '';
      told.push(...messages.map(parse));
    });
  const close = () => void sent.destroy();
  onTestFinished(close);

  async function until(isWanted: (told: Told) => boolean, from = 0): Promise<Told> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      const found = told.slice(from).find(isWanted);
      if (found) return found;
      if (performance.now() > deadline) throw new Error(`Was told only: ${JSON.stringify(told.slice(-20))}`);
      await sleep(2);
    }
  }

  return {
    status: response.statusCode ?? 0,
    told,
    until,
    async snapshot() {
      await until(({ event, data }) => event === 'snapshot' && data.complete);
      return told.flatMap(({ event, data }) => (event === 'snapshot' ? data.items : []));
    },
    ids: (event) => told.flatMap((each) => (each.event === event ? [each.data.id ?? each.data.kid] : [])),
    lastId: () => told.findLast(({ id }) => id !== null)?.id ?? '',
    isEnded: () => isEnded,
    ended,
    response,
    close,
  };
}

function open(
  url: string,
  headers: Record<string, string>,
): Promise<{ response: IncomingMessage; sent: ClientRequest }> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { headers, agent: false }, (response) => resolve({ response, sent }));
    sent.on('error', reject).end();
  });
}

function parse(message: string): Told {
  const fields = new Map(
    message.split('\n').map((line) => {
      const colon = line.indexOf(': ');
      return [line.slice(0, colon), line.slice(colon + 2)];
    }),
  );
  return {
    event: fields.get('event') ?? '',
    id: fields.get('id') ?? null,
    data: JSON.parse(fields.get('data') ?? 'null'),
    receivedAt: performance.now(),
  };
}

/** The epoch that the ids of the feed's messages carry. */
export async function epochOf(url: string, key: string): Promise<string> {
  const following = await followFeed(url, key);
  const { id } = await following.until((told) => told.id !== null);
  following.close();
  return id?.split('-')[0] ?? '';
}
