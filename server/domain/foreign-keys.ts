/** Key sets that others publish (RFC 7517): fetched when they are needed, and kept for some minutes. */
import { LRUCache } from 'lru-cache';
import { z } from 'zod';
import type { JWK } from '../crypto/jwt.ts';
import { CountersignError } from '../errors.ts';
import { type Outbound, OutboundError } from '../outbound.ts';
import { createKeptSet, type KeptSet } from './kept-set.ts';

export interface ForeignKeys {
  /** The keys at a URL; anew where none is called so, but no more than once in 30 s. Throws `unavailable`. */
  find(url: string, kid: string | null): Promise<{ keys: JWK[] }>;
}

interface ForeignKeySet {
  readAt: number;
  keys: JWK[];
}

const SETS_MAX = 100;
const AGE_MS_MAX = 10 * 60_000;
/** Whoever makes up names of keys has nobody fetch more often. */
const REFETCH_MS_MIN = 30_000;
const BYTES_MAX = 64 * 1024;

const keySet = z.object({
  keys: z.array(z.object({ kty: z.string(), kid: z.string().optional() }).loose()).max(100),
});

export function createForeignKeys(outbound: Pick<Outbound, 'get'>, clock: () => number): ForeignKeys {
  const sets = new LRUCache<string, KeptSet<ForeignKeySet>>({ max: SETS_MAX });

  function setAt(url: string): KeptSet<ForeignKeySet> {
    const known = sets.get(url);
    if (known) return known;
    const set = createKeptSet((readAt) => fetchKeys(outbound, url, readAt), clock);
    sets.set(url, set);
    return set;
  }

  return {
    async find(url, kid) {
      const set = setAt(url);
      const known = await set.get(AGE_MS_MAX);
      if (kid === null || known.keys.some((key) => key.kid === kid)) return known;
      return set.get(REFETCH_MS_MIN);
    },
  };
}

async function fetchKeys(
  outbound: Pick<Outbound, 'get'>,
  url: string,
  readAt: number,
): Promise<ForeignKeySet> {
  try {
    const { keys } = keySet.parse(JSON.parse(await outbound.get(url, BYTES_MAX)));
    return { readAt, keys: keys as JWK[] };
  } catch (error) {
    const reason = error instanceof OutboundError ? error.message : 'what came is no set of keys';
    throw new CountersignError('unavailable', `Cannot read the keys at '${url}': ${reason}`);
  }
}
