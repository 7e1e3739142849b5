/**
 * Follows the feed, and says at each moment whether what is remembered of verifications may be trusted. Run it with
 * `npm run example:feed-consumer`, with COUNTERSIGN_URL and COUNTERSIGN_SECRET_KEY or COUNTERSIGN_MACHINE_SECRET_KEY; type
 * the id of a token, an API key or a machine to ask about it.
 */
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

interface Invalidation {
  at: number;
  kind: string;
  id?: string;
  selector?: Record<string, string | string[]>;
  reason: string;
  until?: number;
}

/** docs/feed.md: memory may be used while now < readAt + 2 s. */
const TRUST_MS = 2_000;
/** Without a heartbeat for this long the connection is dead, whatever the network says. */
const SILENCE_MS = 5_000;
const RECONNECT_MS = 200;
const RECONNECT_MS_MAX = 10_000;

const url = process.env['COUNTERSIGN_URL'] ?? 'http://127.0.0.1:4400';
const key = process.env['COUNTERSIGN_SECRET_KEY'] || process.env['COUNTERSIGN_MACHINE_SECRET_KEY'];

/** What may not be answered from memory: by what names it, and for each name by reason. */
const invalid = new Map<string, Map<string, Invalidation>>();
let isComplete = false;
/**
 * The server's clock less ours, by the message that was shortest on its way. One that was long on its way makes the
 * server seem to be behind: believing it, we would trust for too long.
 */
let offsetMs = Number.NEGATIVE_INFINITY;
let readAt = Number.NEGATIVE_INFINITY;
let lastEventId: string | undefined;

if (!key) {
  say('Wanted a key in COUNTERSIGN_SECRET_KEY or COUNTERSIGN_MACHINE_SECRET_KEY, found none');
  process.exit(2);
}
createInterface({ input: process.stdin }).on('line', (line) => say(answer(line.trim())));
for (let waitMs = RECONNECT_MS; ; waitMs = Math.min(waitMs * 2, RECONNECT_MS_MAX)) {
  try {
    await follow(key, () => {
      waitMs = RECONNECT_MS;
    });
    say('The feed has ended');
  } catch (error) {
    say(`The feed was cut: ${error instanceof Error ? error.message : error}`);
  }
  await sleep(waitMs * (0.5 + Math.random() / 2));
}

/** One connection, from the last event that was told on. */
async function follow(secret: string, onMessage: () => void): Promise<void> {
  const silence = new AbortController();
  const watch = setTimeout(() => silence.abort(new Error('nothing was heard')), SILENCE_MS);
  try {
    const response = await fetch(new URL('/v1/feed', url), {
      headers: {
        authorization: `Bearer ${secret}`,
        ...(lastEventId !== undefined && { 'last-event-id': lastEventId }),
      },
      signal: silence.signal,
    });
    if (!response.ok || !response.body)
      throw new Error(`answered ${response.status}: ${await response.text()}`);
    let rest = '';
    for await (const text of response.body.pipeThrough(new TextDecoderStream())) {
      const messages = (rest + text).split('\n\n');
      rest = messages.pop() ?? '';
      for (const message of messages) take(message);
      watch.refresh();
      onMessage();
    }
  } finally {
    clearTimeout(watch);
  }
}

function take(message: string): void {
  const fields = new Map(message.split('\n').map((line) => line.split(/: (.*)/s, 2) as [string, string]));
  const data = JSON.parse(fields.get('data') ?? '{}');
  switch (fields.get('event')) {
    case 'reset':
      // What came between is lost: nothing that is remembered may be used, and a snapshot follows.
      invalid.clear();
      isComplete = false;
      lastEventId = undefined;
      say('Start anew');
      break;
    case 'snapshot':
      for (const item of data.items) remember(item);
      isComplete ||= data.complete;
      if (data.complete) say(`${invalid.size} in force`);
      break;
    case 'invalidate':
      remember(data);
      say(`Forget: ${JSON.stringify(data)}`);
      break;
    case 'signing_key':
      say(`Signing key ${data.kid} is ${data.state}`);
      break;
    case 'heartbeat':
      readAt = data.readAt;
      offsetMs = Math.max(offsetMs, data.readAt - performance.now());
      prune();
      break;
  }
  // Only once all of a message is applied, so that a crash repeats it.
  lastEventId = fields.get('id') ?? lastEventId;
}

function remember(item: Invalidation): void {
  const names = [item.id, ...Object.values(item.selector ?? {}).flat()].filter((name) => name !== undefined);
  for (const name of names.length > 0 ? names : [item.kind]) {
    const known = invalid.get(name) ?? new Map<string, Invalidation>();
    invalid.set(name, known);
    // What was told of it for another reason stays true: tokens that were revoked do not come back with their machine.
    if (item.reason === 'enabled') known.delete('disabled');
    else known.set(item.reason, item);
    if (known.size === 0) invalid.delete(name);
  }
}

/** What has expired needs no remembering. */
function prune(): void {
  for (const [name, known] of invalid) {
    for (const [reason, { until }] of known) if (until !== undefined && until < readAt) known.delete(reason);
    if (known.size === 0) invalid.delete(name);
  }
}

/** Whether memory may be used: the server's time, as we know it, is not 2 s past its last reading. */
function isTrusted(): boolean {
  return isComplete && performance.now() + offsetMs < readAt + TRUST_MS;
}

function answer(name: string): string {
  if (!isTrusted()) return `${name}: ask the server, for the feed is not to be trusted now`;
  const told = [...(invalid.get(name)?.values() ?? [])].map(({ kind, reason }) => `${kind} ${reason}`);
  return told.length > 0
    ? `${name}: forget what you know (${told.join(', ')})`
    : `${name}: nothing was told of it`;
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
