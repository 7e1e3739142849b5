/** What the doctor looks at from outside: a server that runs, through whatever stands before it. */
import { isLoopback } from '../config.ts';
import { type Check, messageOf, ok, problem, type Seen, skipped, warning } from './finding.ts';

export interface AboutServer {
  url: string;
  /** For the feed, which is for nobody without one. */
  secretKey: string | undefined;
  now: () => number;
}

const ANSWER_MS_MAX = 5_000;
const HEARTBEATS = 4;
/** The server sends one every 500 ms, and memory may be used for 2 s after the last (contract.md, feed). */
const HEARTBEAT_MS_MAX = 1_500;
/** Less than that after the one before, and it was held back together with it. */
const TOGETHER_MS_MAX = 100;
const CLOCK_MS_MAX = 2_000;
const HEARTBEAT = 'event: heartbeat';

export const SERVER_CHECKS: readonly Check<AboutServer>[] = [
  { name: 'server', look: lookAtReadiness },
  { name: "server's clock", look: lookAtClock },
  { name: 'JWKS', look: lookAtJwks },
  { name: 'API', look: lookAtApi },
  { name: 'feed', look: lookAtFeed },
];

async function lookAtReadiness({ url }: AboutServer): Promise<Seen> {
  const answer = await ask(`${url}/readyz`);
  if (!(answer instanceof Response)) return unreachable(answer);
  const { status, degraded } = (await jsonOf(answer)) as { status?: unknown; degraded?: unknown };
  if (status !== 'ready' && status !== 'not_ready')
    return problem(
      `${url}/readyz answers ${answer.status}, and not as a server of ours`,
      'See where the proxy sends it, and whether the URL is right',
    );
  if (status === 'not_ready')
    return problem(`Not ready: ${degraded ?? 'it cannot read its database'}`, 'Its log says more');
  if (degraded) return warning(`Ready, but: ${degraded}`, 'Its log says more');
  return ok('ready');
}

const unreachable = (reason: string): Seen =>
  problem(`Cannot be reached: ${reason}`, 'Start it, and see that the proxy and the name lead to it');

async function lookAtClock({ url, now }: AboutServer): Promise<Seen> {
  const before = now();
  const answer = await ask(`${url}/healthz`);
  if (!(answer instanceof Response)) return skipped('The server cannot be reached');
  const at = Date.parse(answer.headers.get('date') ?? '');
  if (Number.isNaN(at)) return skipped('It does not say what time it is');
  // The header has whole seconds, rounded down.
  const apartMs = Math.max(0, before - (at + 1_000), at - now());
  if (apartMs > CLOCK_MS_MAX)
    return warning(
      `${Math.round(apartMs / 1000)} s apart from the clock of this host`,
      'Have the clocks of all hosts set by NTP: verifiers judge JWTs by theirs',
    );
  return ok('as of this host');
}

async function lookAtJwks({ url }: AboutServer): Promise<Seen> {
  const path = '/.well-known/jwks.json';
  const answer = await ask(`${url}${path}`);
  if (!(answer instanceof Response)) return skipped('The server cannot be reached');
  const { keys } = (await jsonOf(answer)) as { keys?: unknown };
  if (!answer.ok || !Array.isArray(keys) || keys.length === 0)
    return problem(
      `${path} answers ${answer.status} and no keys`,
      'Let the proxy pass it: without it nobody verifies a JWT',
    );
  return ok(`${keys.length} keys`);
}

async function lookAtApi({ url }: AboutServer): Promise<Seen> {
  const path = '/openapi.json';
  const answer = await ask(`${url}${path}`);
  if (!(answer instanceof Response)) return skipped('The server cannot be reached');
  const { openapi, info, servers } = (await jsonOf(answer)) as {
    openapi?: unknown;
    info?: { version?: unknown };
    servers?: { url?: unknown }[];
  };
  if (!answer.ok || openapi === undefined)
    return warning(
      `${path} answers ${answer.status} and no description`,
      'Let the proxy pass it: the API reference and generated clients need it',
    );
  return ok(`${info?.version}, of ${servers?.[0]?.url ?? 'no URL'}`);
}

async function lookAtFeed({ url, secretKey }: AboutServer): Promise<Seen> {
  if (secretKey === undefined) return skipped('Give a key in COUNTERSIGN_SECRET_KEY, of the role verify');
  // As clients refuse it: whoever is on the way could keep the key (contract.md, environment).
  const { protocol, hostname } = new URL(url);
  if (protocol === 'http:' && !isLoopback(hostname))
    return skipped('The key would travel in the clear: name the https URL');
  const answer = await ask(`${url}/v1/feed`, { authorization: `Bearer ${secretKey}` });
  if (!(answer instanceof Response)) return skipped('The server cannot be reached');
  if (!answer.ok) {
    await answer.body?.cancel();
    return problem(`Answers ${answer.status}`, 'Give a live key of the role verify, read or admin');
  }
  return judgeSilences(await silences(answer));
}

export function judgeSilences(silencesMs: readonly number[] | null): Seen {
  const mend =
    'Turn buffering and compression off for /v1/feed (nginx: proxy_buffering off); until then verifiers ask for everything';
  if (silencesMs === null)
    return problem('Too few heartbeats in 5 s: something before the server holds them back', mend);
  const longestMs = Math.max(...silencesMs);
  const gathered = 'heartbeats that are sent every 500 ms: something before the server gathers them';
  if (longestMs > HEARTBEAT_MS_MAX) return problem(`${longestMs} ms between ${gathered}`, mend);
  // A process that was kept from its turn once may bring two together.
  if (silencesMs.filter((silenceMs) => silenceMs < TOGETHER_MS_MAX).length > 1)
    return warning(`${silencesMs.join(', ')} ms between ${gathered}`, mend);
  return ok(`heartbeats ${longestMs} ms apart at most`);
}

/** Between heartbeats; null where there were too few of them. */
async function silences({ body }: Response): Promise<number[] | null> {
  const cameAt: number[] = [];
  let text = '';
  const decoder = new TextDecoder();
  try {
    for await (const chunk of body ?? []) {
      text += decoder.decode(chunk, { stream: true });
      for (let at = text.indexOf(HEARTBEAT); at !== -1; at = text.indexOf(HEARTBEAT)) {
        cameAt.push(performance.now());
        text = text.slice(at + HEARTBEAT.length);
      }
      if (cameAt.length >= HEARTBEATS) break;
    }
  } catch {
    // The time is over.
  }
  if (cameAt.length < HEARTBEATS) return null;
  return cameAt.slice(1, HEARTBEATS).map((at, i) => Math.round(at - (cameAt[i] ?? 0)));
}

/** What the server answers within its time, or why it does not. */
async function ask(url: string, headers: Record<string, string> = {}): Promise<Response | string> {
  try {
    return await fetch(url, { headers, redirect: 'manual', signal: AbortSignal.timeout(ANSWER_MS_MAX) });
  } catch (error) {
    return messageOf(error);
  }
}

async function jsonOf(answer: Response): Promise<object> {
  const body = (await answer.json().catch(() => null)) as unknown;
  return typeof body === 'object' && body !== null ? body : {};
}
