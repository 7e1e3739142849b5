/** The keys that the data directory keeps, each in a file that only its owner may read. */
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { isPostgres, type Reader, type Store } from '../db/store.ts';
import { type Config, MASTER_KEY_WANTED, parseMasterKey } from './config.ts';
import { newKey } from './crypto/keyring.ts';
import { InstallationError, isMasterKey } from './domain/installation.ts';
import type { Logger } from './logger.ts';

/** `master-key.new` is there while the master key is being rotated, and no longer. */
type KeyFile = 'master-key' | 'master-key.new' | 'first-secret-key';

export const keyFile = (dataDir: string, file: KeyFile) => join(dataDir, file);

/** The master key at the first start: one that is there already, or a new one. */
export function firstMasterKey(config: Config, logger: Logger): Buffer {
  const path = keyFile(config.dataDir, 'master-key');
  const pending = keyFile(config.dataDir, 'master-key.new');
  if (existsSync(pending)) {
    throw new InstallationError(
      `'${pending}' is there, so the master key of some database was being rotated; the one opened now was never set up. Nothing was changed. If it is the right one, move '${pending}' to a safe place first`,
    );
  }
  if (existsSync(path)) return readMasterKey(path, logger);
  if (isPostgres(config.databaseLocation)) throw missingMasterKey(path);
  const masterKey = newKey();
  writeDurably(path, masterKey.toString('base64'));
  return masterKey;
}

/** The master key of a database that was set up. A rotation of it that was cut off is finished before. */
export async function keptMasterKey(store: Store, { dataDir }: Config, logger: Logger): Promise<Buffer> {
  await finishMasterKeyRotation(store, dataDir, logger);
  const path = keyFile(dataDir, 'master-key');
  if (!existsSync(path)) throw missingMasterKey(path);
  return readMasterKey(path, logger);
}

const missingMasterKey = (path: string) =>
  new InstallationError(
    `The master key is missing: this database was set up with one, and neither COUNTERSIGN_MASTER_KEY, COUNTERSIGN_MASTER_KEY_FILE nor '${path}' has it. Nothing was changed`,
  );

/** Makes the next master key, beside the one in use until `adoptMasterKey` puts it in its place. */
export function prepareMasterKey(dataDir: string): Buffer {
  const masterKey = newKey();
  writeDurably(keyFile(dataDir, 'master-key.new'), masterKey.toString('base64'));
  return masterKey;
}

export function adoptMasterKey(dataDir: string) {
  renameDurably(keyFile(dataDir, 'master-key.new'), keyFile(dataDir, 'master-key'));
}

/**
 * Brings a rotation that was cut off to one of its two ends: the key that fits the database is kept, and the other goes;
 * where neither fits, both stay. Call it within `store.exclusively`, so that no rotation is under way. Answers whether
 * the new key had come into force.
 */
export async function finishMasterKeyRotation(
  store: Store,
  dataDir: string,
  logger: Logger,
): Promise<boolean> {
  const [path, pending] = [keyFile(dataDir, 'master-key'), keyFile(dataDir, 'master-key.new')];
  rmSync(unfinished(pending), { force: true });
  if (!existsSync(pending)) return false;
  if (await holdsMasterKey(store, pending)) {
    adoptMasterKey(dataDir);
    logger.warn(
      { path },
      'A rotation of the master key that was cut off is finished: the new key is in force',
    );
    return true;
  }
  if (await holdsMasterKey(store, path)) {
    rmSync(pending);
    logger.warn({ path }, 'A rotation of the master key that was cut off is undone: the old key is in force');
  }
  return false;
}

/** Whether a file holds the master key of the database. */
export async function holdsMasterKey(store: Pick<Reader, 'read'>, path: string): Promise<boolean> {
  const masterKey = existsSync(path) ? parseMasterKey(readFileSync(path, 'utf8').trim()) : undefined;
  return masterKey !== undefined && (await isMasterKey(store, masterKey));
}

export function readMasterKey(path: string, logger: Logger): Buffer {
  const text = readFileSync(path, 'utf8').trim();
  const masterKey = parseMasterKey(text);
  if (!masterKey) {
    throw new InstallationError(
      `The master key in '${path}' is damaged: wanted ${MASTER_KEY_WANTED}, found text of ${text.length} characters. Nothing was changed`,
    );
  }
  if ((statSync(path).mode & 0o077) !== 0) {
    logger.warn({ path }, 'The file of the master key can be read by other users of this machine');
  }
  return masterKey;
}

const unfinished = (path: string) => `${path}.unfinished`;

/** Writes a file that only its owner may read, whole or not at all, and answers once it would survive a power cut. */
export function writeDurably(path: string, text: string) {
  rmSync(unfinished(path), { force: true });
  const file = openSync(unfinished(path), 'wx', 0o600);
  try {
    writeSync(file, `${text}\n`);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameDurably(unfinished(path), path);
}

export function renameDurably(from: string, to: string) {
  renameSync(from, to);
  const folder = openSync(dirname(to), 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
