import { randomBytes } from 'node:crypto';
import { digestOf, hmac, hmacOfDigests } from './hashing.ts';
import { seal, unseal } from './sealing.ts';

/** What each random key of ours is for. */
export const KEY_PURPOSES = ['pepper', 'sealing', 'log', 'row_mac'] as const;
export type KeyPurpose = (typeof KEY_PURPOSES)[number];

/** Every key of an installation, unwrapped: of the peppers all there ever were, in the order of their versions from 1. */
export type Keys = Record<Exclude<KeyPurpose, 'pepper'>, Buffer> & { pepper: readonly Buffer[] };

/** The keys in use, unwrapped: only ever in memory. */
export interface Keyring {
  /** The version of the newest pepper; and how many there are. */
  readonly pepperVersion: number;
  /** Hash of a value as `secrets.hash` and `m2m_tokens.hash` hold it. */
  hash(value: string): Buffer;
  /** The same of a value that only its holder knows, from its SHA-256. */
  hashOf(sha256: Buffer): Buffer;
  /** A hash that was stored while `version` was the newest pepper, as `hash` answers it now. */
  rehash(hash: Buffer, version: number): Buffer;
  seal(place: string, plaintext: Buffer | string): Buffer;
  unseal(place: string, sealed: Buffer): Buffer;
  /** Key of the HMAC that chains the log. */
  readonly log: Buffer;
  /** Key of the HMACs over rows that a writer to the database must not be able to change. */
  readonly rowMac: Buffer;
}

export function createKeyring(keys: Keys): Keyring {
  const peppers = keys.pepper.map(hmacOfDigests);
  /** HMAC under one pepper after another: HMAC(p_n, … HMAC(p_1, digest)). */
  const under = (chain: typeof peppers, digest: string) =>
    Buffer.from(
      chain.reduce((inner, pepper) => pepper(inner), digest),
      'latin1',
    );
  return {
    pepperVersion: peppers.length,
    hash: (value) => under(peppers, digestOf(value)),
    hashOf: (sha256) => under(peppers, sha256.toString('latin1')),
    rehash: (hash, version) => under(peppers.slice(version), hash.toString('latin1')),
    seal: (place, plaintext) => seal(keys.sealing, place, plaintext),
    unseal: (place, sealed) => unseal(keys.sealing, place, sealed),
    log: keys.log,
    rowMac: keys.row_mac,
  };
}

export const newKey = (): Buffer => randomBytes(32);

const wrapPlace = (purpose: KeyPurpose, version: number) => `wrapped_keys.${purpose}.${version}`;

export function wrapKey(masterKey: Buffer, purpose: KeyPurpose, version: number, key: Buffer): Buffer {
  return seal(masterKey, wrapPlace(purpose, version), key);
}

export function unwrapKey(masterKey: Buffer, purpose: KeyPurpose, version: number, wrapped: Buffer): Buffer {
  return unseal(masterKey, wrapPlace(purpose, version), wrapped);
}

/** Kept in the database, so that a process started with another master key notices before it does anything. */
export function masterKeyCheck(masterKey: Buffer, epoch: string): Buffer {
  return hmac(masterKey, `countersign master key check ${epoch}`);
}
