import { hash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { canonicalJson } from './canonical-json.ts';

/** A minted opaque token whose value this process still holds. It is written nowhere. */
export interface MintedToken {
  id: string;
  value: string;
  expiresAt: number;
}

/** Tokens that may be handed out again to the machine that asked for the very same; the memory of one process. */
export type MintedPool = LRUCache<string, MintedToken>;

const POOL_SIZE_MAX = 10_000;

export const createMintedPool = (): MintedPool => new LRUCache({ max: POOL_SIZE_MAX });

/** Everything two requests must have in common to be answered with one token. */
export interface PooledRequest {
  machineId: string;
  secretId: string;
  audience: readonly string[];
  scopes: readonly string[];
  claims: Record<string, unknown> | null;
  ttlSeconds: number;
}

/** SHA-256 of the request in one canonical form: all of it counts, whatever the order in which it was written. */
export function poolKey(request: PooledRequest): string {
  const { machineId, secretId, audience, scopes, claims, ttlSeconds } = request;
  const parts = [
    machineId,
    secretId,
    [...audience].sort(),
    [...scopes].sort(),
    canonicalJson(claims),
    ttlSeconds,
  ];
  return hash('sha256', JSON.stringify(parts), 'base64');
}
