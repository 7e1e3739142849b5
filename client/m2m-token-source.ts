/** M2M tokens kept for use: obtained once for all who wait, renewed ahead of their end, never by two at a time. */
import { CountersignError } from '../server/errors.ts';
import type { Countersign, Inputs } from './countersign.ts';
import { createOwnSecretCare, type OwnSecretCareOptions } from './own-secret-care.ts';

/** What a token is for. Those that are asked for alike share one. */
export type M2mTokenRequest = Pick<
  NonNullable<Inputs['m2mTokens']['create']>,
  'audience' | 'scopes' | 'claims' | 'format' | 'ttlSeconds'
>;

export interface M2mTokenSourceOptions {
  /** A client with a machine's own secret. */
  countersign: {
    m2mTokens: Pick<Countersign['m2mTokens'], 'create'>;
    machines: Pick<Countersign['machines'], 'getOwn' | 'rotateOwnSecret'>;
  };
  /** Rotates the machine's secret when its policy says that it is due. Without it, the secret stays as it is. */
  rotation?: OwnSecretCareOptions | undefined;
  /** Told of what failed and is tried again: a renewal, a rotation. What it throws is ignored. */
  onError?: ((error: unknown) => void) | undefined;
}

export interface M2mTokenSource {
  /** A token that is not about to expire. Throws the `CountersignError` of obtaining it where there is none. */
  get(request?: M2mTokenRequest): Promise<string>;
  /** Another token than one that was refused; the same where that is so new that another would fare no better. */
  replace(refused: string, request?: M2mTokenRequest): Promise<string>;
  /** Forgets all tokens, and ends what is on its way. It keeps nothing running by itself. */
  close(): void;
}

interface Held {
  value: string;
  obtainedAt: number;
  /** From then on another is obtained while this one is used. */
  renewAt: number;
  /** From then on it is not used. */
  endsAt: number;
}

interface Entry {
  held: Held | undefined;
  obtaining: Promise<Held> | undefined;
  failures: number;
  /** Not tried again before, and what to tell until then. */
  retryAt: number;
  error: unknown;
}

/** As many as one process is likely to need; the one that was longest not asked for goes. */
const ENTRIES_MAX = 1000;
/** When in its life a token is renewed: processes that started together do not come together. */
const RENEW_FROM = 0.7;
const RENEW_TO = 0.85;
/** How long a request that carries a token may be on its way. */
const MARGIN_MS_MAX = 30_000;
const MARGIN = 0.1;
const BACKOFF_MS_FIRST = 200;
const BACKOFF_MS_MAX = 30_000;
/** A token this young that is refused is refused for another reason than its age. */
const REPLACE_MS_MIN = 5_000;

/** Keeps tokens of one machine. Share one source among all that call as it. */
export function createM2mTokenSource(options: M2mTokenSourceOptions): M2mTokenSource {
  const { countersign } = options;
  const entries = new Map<string, Entry>();
  let isClosed = false;
  /** What ends each request that is on its way. */
  const endings = new Set<AbortController>();
  const tell = (error: unknown) => {
    if (isClosed) return;
    try {
      options.onError?.(error);
    } catch {
      // Whoever cannot be told goes without.
    }
  };
  const care = options.rotation && createOwnSecretCare(countersign.machines, options.rotation, tell);

  async function obtain(request: M2mTokenRequest): Promise<Held> {
    const obtainedAt = performance.now();
    const ending = new AbortController();
    endings.add(ending);
    const minted = await countersign.m2mTokens
      .create(request, { signal: ending.signal })
      .finally(() => endings.delete(ending));
    if (minted.token === undefined)
      throw new CountersignError('internal', 'A token was minted without its value');
    // Both instants are the server's, so that its clock and ours need not agree.
    const lifeMs = minted.expiresAt - minted.createdAt;
    return {
      value: minted.token,
      obtainedAt,
      renewAt: obtainedAt + lifeMs * (RENEW_FROM + Math.random() * (RENEW_TO - RENEW_FROM)),
      endsAt: obtainedAt + lifeMs - Math.min(MARGIN_MS_MAX, lifeMs * MARGIN),
    };
  }

  /** The one request of an entry that is in flight; while it has failed of late, that failure. */
  function renew(entry: Entry, request: M2mTokenRequest): Promise<Held> {
    if (entry.obtaining) return entry.obtaining;
    if (performance.now() < entry.retryAt) return Promise.reject(entry.error);
    entry.obtaining = obtain(request)
      .then(
        (held) => {
          Object.assign(entry, { held, failures: 0, retryAt: 0, error: undefined });
          return held;
        },
        (error: unknown) => {
          entry.failures++;
          entry.error = error;
          entry.retryAt = performance.now() + waitMsOf(error, entry.failures);
          tell(error);
          throw error;
        },
      )
      .finally(() => {
        entry.obtaining = undefined;
      });
    return entry.obtaining;
  }

  function entryOf(request: M2mTokenRequest): Entry {
    const key = keyOf(request);
    const entry = entries.get(key) ?? {
      held: undefined,
      obtaining: undefined,
      failures: 0,
      retryAt: 0,
      error: undefined,
    };
    entries.delete(key);
    entries.set(key, entry);
    const [oldest = ''] = entries.size > ENTRIES_MAX ? entries.keys() : [];
    entries.delete(oldest);
    return entry;
  }

  function assertOpen() {
    if (isClosed) throw closed();
  }

  return {
    async get(request = {}) {
      assertOpen();
      void care?.look();
      const entry = entryOf(request);
      const now = performance.now();
      const { held } = entry;
      if (!held || now >= held.endsAt) return (await renew(entry, request)).value;
      // The one there is will do: its renewal is nobody's to wait for, and its failure was told.
      if (now >= held.renewAt) renew(entry, request).catch(() => {});
      return held.value;
    },
    async replace(refused, request = {}) {
      assertOpen();
      const entry = entryOf(request);
      const { held } = entry;
      if (held && held.value !== refused && performance.now() < held.endsAt) return held.value;
      if (held && performance.now() - held.obtainedAt < REPLACE_MS_MIN) return held.value;
      return (await renew(entry, request)).value;
    },
    close() {
      isClosed = true;
      for (const ending of endings) ending.abort(closed());
      entries.clear();
    },
  };
}

const closed = () => new CountersignError('invalid_input', 'Cannot obtain token: this source is closed');

/** Lists in any order are alike. */
const keyOf = ({ audience, scopes, claims, format, ttlSeconds }: M2mTokenRequest) =>
  JSON.stringify([sorted(audience), sorted(scopes), claims, format, ttlSeconds]);

const sorted = (list: readonly string[] | null | undefined) => list && [...list].sort();

/** Exponential, with jitter of a half; longer where the server says so. */
function waitMsOf(error: unknown, failures: number): number {
  const asked = error instanceof CountersignError ? (error.retryAfterMs ?? 0) : 0;
  const backoff = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_FIRST * 2 ** (failures - 1));
  return Math.max(asked, backoff * (0.5 + Math.random() / 2));
}
