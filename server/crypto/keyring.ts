import { randomBytes } from 'node:crypto';
import { hmac, pepperedHash } from './hashing.ts';
import { seal, unseal } from './sealing.ts';

/** What each random key of ours is for. */
export const KEY_PURPOSES = ['pepper', 'sealing', 'log', 'row_mac'] as const;
export type KeyPurpose = (typeof KEY_PURPOSES)[number];

/** The keys in use, unwrapped: only ever in memory. */
export interface Keyring {
  readonly pepperVersion: number;
  /** Hash of a value as `secrets.hash` and `m2m_tokens.hash` hold it. */
  hash(value: string): Buffer;
  seal(place: string, plaintext: Buffer | string): Buffer;
  unseal(place: string, sealed: Buffer): Buffer;
  /** Key of the HMAC that chains the log. */
  readonly log: Buffer;
  /** Key of the HMACs over rows that a writer to the database must not be able to change. */
  readonly rowMac: Buffer;
}

export function createKeyring(keys: Record<KeyPurpose, Buffer>, pepperVersion: number): Keyring {
  return {
    pepperVersion,
    hash: (value) => pepperedHash(keys.pepper, value),
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
