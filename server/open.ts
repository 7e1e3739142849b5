/** Opening what a process works with: data directory, database, keys, clock. Used by every main. */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { isPostgres, openStore, type Store } from '../db/store.ts';
import { type Config, isLoopback, parseMasterKey } from './config.ts';
import { PREFIXES, parseValue } from './crypto/format.ts';
import { newValue } from './crypto/hashing.ts';
import { newKey } from './crypto/keyring.ts';
import type { Deps } from './deps.ts';
import {
  assertMasterKey,
  InstallationError,
  type InstallationOptions,
  isInstalled,
  openInstallation,
} from './domain/installation.ts';
import { createMintedPool } from './domain/m2m-token-pool.ts';
import { shouldKeepFirstSecretKeyFile } from './domain/secret-keys.ts';
import { findCaller, findOwner } from './domain/secrets.ts';
import { createSigner } from './domain/signing-keys.ts';
import { createUsageCounter } from './domain/usage.ts';
import type { Logger } from './logger.ts';
import type { Metrics } from './metrics.ts';
import { createOutbound } from './outbound.ts';

export interface Opened {
  deps: Deps;
  /** Whether this call set the database up. */
  isFirstStart: boolean;
  /** Where the master key is kept, or null where the operator gave it. */
  masterKeyPath: string | null;
  /** Where the first secret key is kept, or null when there is no such file. */
  firstSecretKeyPath: string | null;
  /** Its value, if this call made it. */
  firstSecretKey: string | null;
  /** Flushes what was counted and closes every connection. */
  close(): Promise<void>;
}

export interface OpenOptions {
  logger: Logger;
  metrics: Metrics;
  wake: Deps['wake'];
}

const UPKEEP_MS = 5_000;
const FUTURE_MS_MAX = 3_600_000;

/**
 * Opens the installation that `config` names, and sets it up if there is none. Throws `InstallationError` when the
 * master key is missing, malformed or another, and then has changed nothing.
 */
export async function openDeps(config: Config, options: OpenOptions): Promise<Opened> {
  const { logger, metrics, wake } = options;
  const clock = startClock();
  mkdirSync(config.dataDir, { recursive: true, mode: 0o700 });
  const store = openStore({ location: config.databaseLocation, onCommit: metrics.commit });
  try {
    const installed = await store.exclusively(() => install(store, config, logger, clock.now));
    clock.notBefore(await lastEventAt(store), logger);
    const deps: Deps = {
      store,
      keyring: installed.keyring,
      signer: createSigner(store, installed.keyring),
      now: clock.now,
      publicUrl: config.publicUrl,
      usage: createUsageCounter(),
      pool: createMintedPool(),
      outbound: createOutbound({ allowLoopbackHttp: isOnLoopback(config) }),
      observer: metrics,
      wake,
    };
    const firstSecretKeyPath = await tidyFirstSecretKey(deps, config.dataDir);
    const upkeep = startUpkeep(deps, config.dataDir, logger);
    return {
      deps,
      isFirstStart: installed.isFirstStart,
      masterKeyPath: config.masterKey ? null : pathOf(config.dataDir, 'master-key'),
      firstSecretKeyPath,
      firstSecretKey: installed.firstSecretKey,
      async close() {
        await upkeep.stop();
        await deps.outbound.close();
        await store.close();
      },
    };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** Whether only this machine can reach us; then so may webhooks. */
const isOnLoopback = ({ host, publicUrl }: Config) =>
  isLoopback(host) && isLoopback(new URL(publicUrl).hostname);

interface Clock {
  /** Whole milliseconds since 1970-01-01 UTC: the wall clock at start, and monotonic time from there. */
  now(): number;
  /** Moves the clock to `at` if it is behind. */
  notBefore(at: number, logger: Logger): void;
}

function startClock(): Clock {
  let origin = Date.now() - performance.now();
  const now = () => Math.floor(origin + performance.now());
  return {
    now,
    notBefore(at, logger) {
      const aheadMs = at - now();
      if (aheadMs <= 0) return;
      if (aheadMs > FUTURE_MS_MAX) {
        logger.warn({ aheadMs }, 'The last event is dated in the future; time goes on from there');
      }
      origin += aheadMs;
    },
  };
}

async function lastEventAt({ read: { db, tables } }: Store): Promise<number> {
  const [head] = await db.select({ at: tables.eventHead.at }).from(tables.eventHead);
  return head?.at ?? 0;
}

/**
 * Migrates and opens the installation. The files are durable before the rows that need them, so that whatever moment
 * the process dies at, no key is in the database that nobody knows: what it left is used or replaced by the next start.
 */
async function install(store: Store, config: Config, logger: Logger, now: () => number) {
  const isFirstStart = !(await isInstalled(store));
  const masterKey = config.masterKey ?? keptMasterKey(config, isFirstStart, logger);
  if (!isFirstStart) await assertMasterKey(store, masterKey);
  await store.migrate();
  const settings: InstallationOptions = { masterKey, signingAlg: config.signingAlg, now };
  if (!isFirstStart || config.bootstrapKey !== undefined) {
    const { keyring } = await openInstallation(store, { ...settings, bootstrapKey: config.bootstrapKey });
    return { keyring, isFirstStart, firstSecretKey: null };
  }
  const firstSecretKey = keptFirstSecretKey(config) ?? newValue(PREFIXES.secretKey).value;
  writeDurably(pathOf(config.dataDir, 'first-secret-key'), firstSecretKey);
  const { keyring } = await openInstallation(store, { ...settings, bootstrapKey: firstSecretKey });
  return { keyring, isFirstStart, firstSecretKey };
}

/**
 * A value that an earlier start left: of a first start that was cut off, or of another installation with this data
 * directory. It becomes the first key here too, for writing over it might lose the only copy there is.
 */
function keptFirstSecretKey(config: Config): string | null {
  const path = pathOf(config.dataDir, 'first-secret-key');
  const value = existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
  return parseValue(value)?.prefix === PREFIXES.secretKey ? value : null;
}

const pathOf = (dataDir: string, file: 'master-key' | 'first-secret-key') => join(dataDir, file);

/** The master key that the data directory keeps; made at the first start on SQLite, and then only. */
function keptMasterKey(config: Config, isFirstStart: boolean, logger: Logger): Buffer {
  const path = pathOf(config.dataDir, 'master-key');
  if (existsSync(path)) return readMasterKey(path, logger);
  if (!isFirstStart || isPostgres(config.databaseLocation)) {
    throw new InstallationError(
      `The master key is missing: this database was set up with one, and neither COUNTERSIGN_MASTER_KEY, COUNTERSIGN_MASTER_KEY_FILE nor '${path}' has it. Nothing was changed`,
    );
  }
  const masterKey = newKey();
  writeDurably(path, masterKey.toString('base64'));
  return masterKey;
}

function readMasterKey(path: string, logger: Logger): Buffer {
  const text = readFileSync(path, 'utf8').trim();
  const masterKey = parseMasterKey(text);
  if (!masterKey) {
    throw new InstallationError(
      `The master key in '${path}' is damaged: wanted 32 bytes as base64, base64url or 64 hex digits, found text of ${text.length} characters. Nothing was changed`,
    );
  }
  if ((statSync(path).mode & 0o077) !== 0) {
    logger.warn({ path }, 'The file of the master key can be read by other users of this machine');
  }
  return masterKey;
}

/** Writes a file that only its owner may read, whole or not at all, and answers once it would survive a power cut. */
function writeDurably(path: string, text: string) {
  const unfinished = `${path}.new`;
  rmSync(unfinished, { force: true });
  const file = openSync(unfinished, 'wx', 0o600);
  try {
    writeSync(file, `${text}\n`);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(unfinished, path);
  const folder = openSync(dirname(path), 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/**
 * Removes the file of the first secret key once another admin key exists, or once the key in it is no longer one.
 * Answers its path while it holds a live key. A key that this database never knew is another installation's, perhaps its
 * only copy, and stays.
 */
async function tidyFirstSecretKey(deps: Deps, dataDir: string): Promise<string | null> {
  const path = pathOf(dataDir, 'first-secret-key');
  if (!existsSync(path)) return null;
  const value = readFileSync(path, 'utf8').trim();
  if ((await findOwner(deps, value)) === null) return null;
  const isLive = (await findCaller(deps, value)) !== null;
  if (isLive && (await shouldKeepFirstSecretKeyFile(deps))) return path;
  rmSync(path, { force: true });
  return null;
}

/** Every few seconds: flushes usage, and looks whether the first secret key's file may go. One round at a time. */
function startUpkeep(deps: Deps, dataDir: string, logger: Logger) {
  let round: Promise<void> | undefined;
  let isFailing = false;

  async function keepUp() {
    try {
      await deps.usage.flush(deps.store);
      await tidyFirstSecretKey(deps, dataDir);
      if (isFailing) logger.info('Usage is being written again');
      isFailing = false;
    } catch (err) {
      // Said once: a database that is down would otherwise fill the log with the same line.
      if (!isFailing) logger.error({ err }, 'Cannot write usage; it is kept in memory and tried again');
      isFailing = true;
    }
  }

  const timer = setInterval(() => {
    round ??= keepUp().finally(() => {
      round = undefined;
    });
  }, UPKEEP_MS);
  timer.unref();
  return {
    async stop() {
      clearInterval(timer);
      await round;
      await keepUp();
    },
  };
}
