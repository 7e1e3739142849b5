/** Clerk's Backend API as an import reads it: page by page, a few requests at a time, as slowly as it asks for. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isLoopback } from '../client/options.ts';
import { CountersignError } from './errors.ts';

export interface ClerkMachine {
  id: string;
  name: string;
  created_at: number;
  default_token_ttl: number;
  scoped_machines: { id: string }[];
}

export interface ClerkApiKey {
  id: string;
  type: string;
  subject: string;
  name: string;
  description: string | null;
  scopes: string[];
  claims: unknown;
  revoked: boolean;
  expired: boolean;
  expiration: number | null;
  created_by: string | null;
  created_at: number;
}

export interface ClerkApi {
  machines(): AsyncIterable<ClerkMachine>;
  /** Users and organizations. */
  subjectCount(): Promise<number>;
  userIds(): AsyncIterable<string>;
  organizationIds(): AsyncIterable<string>;
  /** Those that are revoked or expired too. */
  apiKeys(subject: string): AsyncIterable<ClerkApiKey>;
  machineSecret(id: string): Promise<string>;
  apiKeySecret(id: string): Promise<string>;
}

export interface ClerkApiOptions {
  url: string;
  secretKey: string;
  /** Told of waits, for whoever wonders why nothing happens. */
  note(text: string): void;
}

const PAGE = 500;
/** Clerk's longest page of API keys. */
const API_KEYS_PAGE = 100;
const IN_FLIGHT_MAX = 8;
const ATTEMPTS_MAX = 6;
const BACKOFF_MS_FIRST = 250;
const TIMEOUT_MS = 30_000;
const WAIT_SECONDS_MAX = 300;

export function createClerkApi({ url, secretKey, note }: ClerkApiOptions): ClerkApi {
  const base = baseUrl(url);
  const gate = createGate(IN_FLIGHT_MAX);

  async function attempt(path: string): Promise<Response> {
    try {
      return await fetch(new URL(path, base), {
        headers: { authorization: `Bearer ${secretKey}`, accept: 'application/json' },
        // The secret key goes to the API and nowhere else.
        redirect: 'error',
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
    } catch (error) {
      const { code, message } = ((error as Error).cause ?? error) as { code?: string; message?: string };
      throw new CountersignError('network', `Cannot read ${base.origin}: ${code ?? message}`);
    }
  }

  /** Where it says no, or is out of reach, for the last time: `network`. */
  async function get(path: string): Promise<unknown> {
    for (let tries = 1; ; tries++) {
      const answer = await gate.pass(() => attempt(path)).catch((error: CountersignError) => error);
      if (answer instanceof Response && answer.ok) return jsonOf(answer, path);
      const isPassing = answer instanceof CountersignError || answer.status === 429 || answer.status >= 500;
      if (!isPassing || tries === ATTEMPTS_MAX)
        throw answer instanceof CountersignError ? answer : await refusalOf(answer, path);
      if (answer instanceof Response) await answer.body?.cancel();
      const waitMs = waitMsOf(answer, tries);
      if (waitMs >= 1000) note(`Clerk asks to wait for ${Math.ceil(waitMs / 1000)} s`);
      await gate.closeFor(waitMs);
    }
  }

  async function* pages<T>(path: string, limit: number): AsyncGenerator<T> {
    for (let offset = 0; ; offset += limit) {
      const page = await get(`${path}${path.includes('?') ? '&' : '?'}limit=${limit}&offset=${offset}`);
      const items = Array.isArray(page) ? page : (page as { data?: unknown }).data;
      if (!Array.isArray(items)) throw unexpected(path);
      yield* items;
      if (items.length < limit) return;
    }
  }

  /** From the oldest on, so that what is made meanwhile moves no page. */
  async function* ids(path: string): AsyncGenerator<string> {
    for await (const { id } of pages<{ id: string }>(`${path}?order_by=%2Bcreated_at`, PAGE)) yield id;
  }

  async function count(path: string): Promise<number> {
    const answer = (await get(path)) as { total_count?: unknown };
    return typeof answer.total_count === 'number' ? answer.total_count : 0;
  }

  async function secret(path: string): Promise<string> {
    const answer = (await get(path)) as { secret?: unknown };
    if (typeof answer.secret === 'string' && answer.secret !== '') return answer.secret;
    throw unexpected(path);
  }

  return {
    machines: () => pages('v1/machines?order_by=%2Bcreated_at', PAGE),
    subjectCount: async () => (await count('v1/users/count')) + (await count('v1/organizations?limit=1')),
    userIds: () => ids('v1/users'),
    organizationIds: () => ids('v1/organizations'),
    apiKeys: (subject) =>
      pages(`api_keys?subject=${encodeURIComponent(subject)}&include_invalid=true`, API_KEYS_PAGE),
    machineSecret: (id) => secret(`v1/machines/${encodeURIComponent(id)}/secret_key`),
    apiKeySecret: (id) => secret(`api_keys/${encodeURIComponent(id)}/secret`),
  };
}

/** Lets a few through at a time, and nobody while it is closed. */
function createGate(max: number) {
  let inside = 0;
  let opens: Promise<unknown> = Promise.resolve();
  let opensAt = 0;
  const waiting: (() => void)[] = [];

  async function enter() {
    if (inside < max) inside++;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    for (let seen: Promise<unknown> | undefined; seen !== opens; ) {
      seen = opens;
      await seen;
    }
  }

  function leave() {
    const next = waiting.shift();
    if (next) next();
    else inside--;
  }

  return {
    async pass<T>(work: () => Promise<T>): Promise<T> {
      await enter();
      try {
        return await work();
      } finally {
        leave();
      }
    },
    async closeFor(waitMs: number): Promise<void> {
      const until = performance.now() + waitMs;
      if (until > opensAt) {
        opensAt = until;
        opens = sleep(waitMs);
      }
      await opens;
    },
  };
}

/** As long as it asks for, else exponentially, with jitter. */
function waitMsOf(answer: Response | CountersignError, tries: number): number {
  const asked = answer instanceof Response ? Number(answer.headers.get('retry-after')) : Number.NaN;
  if (asked > 0) return Math.min(asked, WAIT_SECONDS_MAX) * 1000;
  return BACKOFF_MS_FIRST * 2 ** (tries - 1) * (0.5 + Math.random() / 2);
}

async function jsonOf(answer: Response, path: string): Promise<unknown> {
  try {
    return await answer.json();
  } catch {
    throw unexpected(path);
  }
}

async function refusalOf(answer: Response, path: string): Promise<CountersignError> {
  const body = (await answer.json().catch(() => null)) as { errors?: { code?: string }[] } | null;
  const code = body?.errors?.[0]?.code ?? 'without a code';
  return new CountersignError('network', `Clerk refused ${pathOf(path)}: ${answer.status} ${code}`);
}

const unexpected = (path: string) =>
  new CountersignError('network', `Wanted an answer of Clerk's API to ${pathOf(path)}, found something else`);

const pathOf = (path: string) => `'/${path.split('?')[0]}'`;

function baseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text.endsWith('/') ? text : `${text}/`) : null;
  if (url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(url.hostname))) return url;
  throw new CountersignError('invalid_input', "'--api-url' must be https, or http on loopback");
}
