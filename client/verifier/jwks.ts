/** The server's public keys by `kid`. */
import { createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { isRecord } from '../answers.ts';

export const ALGORITHMS = ['RS256', 'ES256', 'EdDSA'] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

export interface PublicKey {
  kid: string;
  alg: Algorithm;
  key: KeyObject;
  /** Nothing that it signed is valid any more, but what that is called the server says. */
  isRetired: boolean;
}

/** Whatever `kid`s arrive, the set is fetched no more often; the feed tells of new keys. */
const REFETCH_MS = 30_000;
/** A server may not have a key yet that the feed told of: other processes of it make keys. */
const MISSING_MS = 5_000;
const FETCH_MS_MAX = 2_000;
/** Retired ones that are still known. */
const RETIRED_MAX = 100;
const BYTES_MAX = 256 * 1024;

export class Jwks {
  readonly #url: URL;
  readonly #fetch: typeof fetch;
  readonly #clock: () => number;
  #keys: ReadonlyMap<string, PublicKey> = new Map();
  readonly #retired = new LRUCache<string, PublicKey>({ max: RETIRED_MAX });
  #fetching: Promise<void> | undefined;
  #fetchedAt = Number.NEGATIVE_INFINITY;
  #isComplete = false;
  /** Keys that the feed said are published. */
  readonly #published = new Set<string>();

  constructor(base: URL, fetchLike: typeof fetch, clock = () => performance.now()) {
    this.#url = new URL('.well-known/jwks.json', base);
    this.#fetch = fetchLike;
    this.#clock = clock;
  }

  /** Whether what it does not know does not exist, as far as the feed told. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  get(kid: string): PublicKey | undefined {
    return this.#keys.get(kid) ?? this.#retired.get(kid);
  }

  /** The feed told of a key: the set is incomplete until it is there, or gone. */
  told({ kid, state }: { kid: string; state: string }): void {
    const isPublished = state !== 'retired';
    if (isPublished) this.#published.add(kid);
    else this.#published.delete(kid);
    if (isPublished === this.#keys.has(kid)) return;
    if (isPublished) {
      this.#isComplete = false;
      this.#fetchedAt = Number.NEGATIVE_INFINITY;
      void this.refresh();
    } else {
      const keys = new Map(this.#keys);
      const key = keys.get(kid);
      if (key) this.#retired.set(kid, { ...key, isRetired: true });
      keys.delete(kid);
      this.#keys = keys;
    }
  }

  /** Of another database nothing is known. */
  forget(): void {
    this.#keys = new Map();
    this.#retired.clear();
    this.#published.clear();
    this.#isComplete = false;
    this.#fetchedAt = Number.NEGATIVE_INFINITY;
  }

  /** Fetches the set, unless that was tried a moment ago. Never throws: what is not there is asked for. */
  async refresh(): Promise<void> {
    if (this.#fetching) return this.#fetching;
    if (this.#isComplete || this.#clock() - this.#fetchedAt < REFETCH_MS) return;
    this.#fetchedAt = this.#clock();
    this.#fetching = this.#read()
      .catch(() => {})
      .finally(() => {
        this.#fetching = undefined;
      });
    return this.#fetching;
  }

  async #read(): Promise<void> {
    const response = await this.#fetch(this.#url, {
      redirect: 'error',
      signal: AbortSignal.timeout(FETCH_MS_MAX),
    });
    if (!response.ok) throw new Error(`Wanted the JWKS, got status ${response.status}`);
    const text = await response.text();
    if (text.length > BYTES_MAX) throw new Error('The JWKS is too long');
    this.#keys = new Map(keysOf(JSON.parse(text)).map((key) => [key.kid, key]));
    this.#isComplete = [...this.#published].every((kid) => this.#keys.has(kid));
    if (!this.#isComplete) this.#fetchedAt = this.#clock() - REFETCH_MS + MISSING_MS;
  }
}

function keysOf(set: unknown): PublicKey[] {
  if (!isRecord(set) || !Array.isArray(set['keys'])) throw new Error('Wanted a JWKS');
  return set['keys'].flatMap((jwk: unknown) => keyOf(jwk) ?? []);
}

/** Null for a key of another use: its algorithm is the set's to say, never the token's. */
function keyOf(jwk: unknown): PublicKey | null {
  if (!isRecord(jwk) || typeof jwk['kid'] !== 'string' || (jwk['use'] ?? 'sig') !== 'sig') return null;
  const alg = ALGORITHMS.find((each) => each === jwk['alg']);
  if (alg === undefined) return null;
  const key = createPublicKey({ key: jwk as JsonWebKey, format: 'jwk' });
  return key.asymmetricKeyType === KEY_TYPES[alg] ? { kid: jwk['kid'], alg, key, isRetired: false } : null;
}

const KEY_TYPES: Record<Algorithm, string> = { RS256: 'rsa', ES256: 'ec', EdDSA: 'ed25519' };
