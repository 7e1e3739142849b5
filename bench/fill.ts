/**
 * Millions of API keys in a SQLite file within minutes. One key is created by the server; its rows are the model of all
 * others, which differ in what tells keys apart and nothing else, and have the server's own hashes.
 */
import { createHash } from 'node:crypto';
import { readFileSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { openStore } from '../db/store.ts';
import { parseMasterKey } from '../server/config.ts';
import { formatValue, PREFIXES } from '../server/crypto/format.ts';
import { startOf } from '../server/crypto/hashing.ts';
import { hexId, sortableId } from '../server/crypto/ids.ts';
import type { Keyring } from '../server/crypto/keyring.ts';
import { openInstallation } from '../server/domain/installation.ts';
import { COMMON } from './keys.ts';
import { startCountersign } from './processes.ts';

/** On disk, with the indexes; and half as much again while these are being sorted. */
const BYTES_A_KEY = 1_500;

/** Throws unless the folder's disk has room for so many keys. */
export function assertRoom(folder: string, count: number): void {
  const { bavail, bsize } = statfsSync(folder);
  const [free, needed] = [bavail * bsize, count * BYTES_A_KEY];
  if (free >= needed) return;
  const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;
  throw new Error(
    `Cannot fill '${folder}' with ${count} keys: wanted ${gigabytes(needed)} free, found ${gigabytes(free)}; TMPDIR may name another disk`,
  );
}

/** The value of one of the keys. */
export const keyValue = (index: number) =>
  formatValue(PREFIXES.apiKey, createHash('sha256').update(`key ${index}`).digest());

/** Makes a data directory with so many keys that verify. No server may run on it meanwhile. */
export async function fill(dataDir: string, count: number, say: (text: string) => void): Promise<void> {
  const id = await createModel(dataDir);
  const file = join(dataDir, 'countersign.db');
  const keyring = await openKeyring(dataDir, file);
  const database = new Database(file);
  try {
    // What a power cut would lose is filled again.
    database.pragma('synchronous = OFF');
    database.pragma('cache_size = -1000000');
    const recreateIndexes = dropIndexes(database);
    insertKeys(database, keyring, { id, count, say });
    recreateIndexes(say);
  } finally {
    database.close();
  }
}

/** Creates a key as any client would; answers its id. */
async function createModel(dataDir: string): Promise<string> {
  const server = await startCountersign({ dataDir });
  const { id } = await server.admin.apiKeys.create({ name: 'key', subject: 'user', ...COMMON });
  await server.stop();
  return id;
}

async function openKeyring(dataDir: string, location: string): Promise<Keyring> {
  const masterKey = parseMasterKey(readFileSync(join(dataDir, 'master-key'), 'utf8').trim());
  if (!masterKey) throw new Error(`Wanted a master key in '${dataDir}'`);
  const store = await openStore({ location });
  try {
    const options = { masterKey, signingAlg: 'ES256', now: Date.now } as const;
    return (await store.exclusively(() => openInstallation(store, options))).keyring;
  } finally {
    await store.close();
  }
}

/** Sorting ten million entries once is many times faster than putting each in its place. */
function dropIndexes(database: Database.Database): (say: (text: string) => void) => void {
  const indexes = database
    .prepare<[], { name: string; sql: string }>(
      "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN ('api_keys', 'secrets')",
    )
    .all();
  for (const { name } of indexes) database.exec(`DROP INDEX "${name}"`);
  return (say) => {
    for (const { name, sql } of indexes) {
      say(`index ${name}`);
      database.exec(sql);
    }
  };
}

interface Model {
  /** The key whose rows are the model. */
  id: string;
  count: number;
  say: (text: string) => void;
}

const KEYS_A_TRANSACTION = 100_000;
const KEYS_A_LINE = 1_000_000;

function insertKeys(database: Database.Database, keyring: Keyring, { id, count, say }: Model) {
  const insertKey = copyOf(database, 'api_keys', 'id', id, ['id', 'subject', 'name', 'live_name']);
  const insertSecret = copyOf(database, 'secrets', 'owner_id', id, ['id', 'owner_id', 'hash', 'start']);
  const insertMany = database.transaction((begin: number, end: number) => {
    for (let i = begin; i < end; i++) {
      const now = Date.now();
      const value = keyValue(i);
      const keyId = hexId('ak_', now);
      insertKey(keyId, `user_${i}`, `key ${i}`, `key ${i}`);
      insertSecret(sortableId('sec_', now), keyId, keyring.hash(value), startOf(value, PREFIXES.apiKey));
    }
  });
  for (let begin = 0; begin < count; begin += KEYS_A_TRANSACTION) {
    const end = Math.min(begin + KEYS_A_TRANSACTION, count);
    insertMany(begin, end);
    if (end % KEYS_A_LINE === 0 || end === count) say(`${end} of ${count} keys`);
  }
}

/** Inserts copies of the one row where `key` is `id`, other than it in the columns that are given. */
export function copyOf(
  database: Database.Database,
  table: string,
  key: string,
  id: string,
  given: readonly string[],
): (...values: (string | number | Buffer)[]) => void {
  const row = database
    .prepare<[string], Record<string, unknown>>(`SELECT * FROM ${table} WHERE ${key} = ?`)
    .get(id);
  if (!row) throw new Error(`Wanted the row of the model in '${table}'`);
  const columns = Object.keys(row);
  const values = Object.values(row);
  const places = given.map((column) => columns.indexOf(column));
  if (places.includes(-1)) throw new Error(`Wanted the columns ${given.join(', ')} in '${table}'`);
  const insert = database.prepare(
    `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`,
  );
  return (...others) => {
    for (const [i, place] of places.entries()) values[place] = others[i];
    insert.run(values);
  };
}
