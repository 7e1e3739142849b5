/** Opening what a process works with: data directory, database, keys, clock. Used by every main. */
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { openStore, type Store } from '../db/store.ts';
import { type Config, isLoopback } from './config.ts';
import { PREFIXES, parseValue } from './crypto/format.ts';
import { newValue } from './crypto/hashing.ts';
import type { Deps } from './deps.ts';
import { createClientDocuments } from './domain/client-metadata-documents.ts';
import { createForeignKeys } from './domain/foreign-keys.ts';
import {
  assertMayOpen,
  type InstallationOptions,
  isInstalled,
  latestInstant,
  noteInstant,
  openInstallation,
} from './domain/installation.ts';
import { createKeyShapes } from './domain/key-shapes.ts';
import { createM2mTokenCounter } from './domain/m2m-token-counts.ts';
import { createMintedPool } from './domain/m2m-token-pool.ts';
import { hasOurPeppers } from './domain/peppers.ts';
import { createRecentVerifications } from './domain/recent-verifications.ts';
import { shouldKeepFirstSecretKeyFile } from './domain/secret-keys.ts';
import { findCaller, findOwner } from './domain/secrets.ts';
import { createSigner } from './domain/signing-keys.ts';
import { readStanding } from './domain/standing.ts';
import { createStatusIndexes } from './domain/status-indexes.ts';
import { createStatusLists } from './domain/status-lists.ts';
import { createUsageCounter } from './domain/usage.ts';
import { firstMasterKey, keptMasterKey, keyFile, writeDurably } from './key-files.ts';
import { asThisHost, endSuperseded } from './lifecycle.ts';
import { createLimits, type Limits } from './limits.ts';
import { createComplaint, type Logger } from './logger.ts';
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

/**
 * A revocation writes some 40 KB to SQLite's log, which is written over again each 4 MB; what stays of it is under 1 KB.
 * So this is enough for tens of thousands.
 */
const RESERVE_BYTES = 16 * 1024 * 1024;

const UPKEEP_MS = 5_000;
/** After each millisecond or so of writing what was counted, for as long as it does not pile up. */
const FLUSH_PAUSE_MS = 4;
const FLUSH_PAUSES_MS_MAX = 2_000;
const DAY_MS = 24 * 3_600_000;
/** threats.md, operation: the wall clock moved more than that from where it was at start. */
const JUMP_MS_MAX = 3_600_000;
/** The wall clock is that far from the time that expiries are judged by: somebody should look at it. */
const APART_MS_MAX = 60_000;

/**
 * Opens the installation that `config` names, and sets it up if there is none. Throws `InstallationError` when the
 * master key is missing, malformed or another, and then has changed nothing.
 */
export async function openDeps(config: Config, options: OpenOptions): Promise<Opened> {
  const { logger, metrics, wake } = options;
  const clock = startClock();
  mkdirSync(config.dataDir, { recursive: true, mode: 0o700 });
  const store = await openStore({
    location: config.databaseLocation,
    onCommit: metrics.commit,
    reserveBytes: RESERVE_BYTES,
    host: asThisHost(config, logger),
  });
  let limits: Limits | undefined;
  try {
    const installed = await store.exclusively(() => install(store, config, logger, clock.now));
    clock.notBefore(await latestInstant(store));
    limits = await createLimits({
      redis: config.redis,
      epoch: installed.epoch,
      now: clock.now,
      logger,
    });
    const outbound = createOutbound({
      allowLoopbackHttp: isOnLoopback(config),
      allowSubnets: config.webhookAllowSubnets,
    });
    const deps: Deps = {
      store,
      keyring: installed.keyring,
      signer: createSigner(store, installed.keyring),
      now: clock.now,
      wallClock: clock.wall,
      isTimeDoubtful: clock.isDoubtful,
      publicUrl: config.publicUrl,
      keyRotationMs: config.keyRotationDays * DAY_MS,
      oauthClients: config.oauthClients,
      oauthTokensPerMinute: config.oauthTokensPerMinute,
      signIn: config.signIn,
      usage: createUsageCounter(),
      pool: createMintedPool(),
      mintCounts: createM2mTokenCounter(),
      statusIndexes: createStatusIndexes(),
      statusLists: createStatusLists(),
      shapes: createKeyShapes(store),
      limits,
      outbound,
      foreignKeys: createForeignKeys(outbound, clock.now),
      clientDocuments: createClientDocuments(outbound, clock.now),
      recentVerifications: createRecentVerifications(),
      observer: metrics,
      wake,
    };
    metrics.watch(() => readStanding(deps));
    const firstSecretKeyPath = await tidyFirstSecretKey(deps, config.dataDir);
    const upkeep = startUpkeep(deps, config.dataDir, logger);
    return {
      deps,
      isFirstStart: installed.isFirstStart,
      masterKeyPath: config.masterKey ? null : keyFile(config.dataDir, 'master-key'),
      firstSecretKeyPath,
      firstSecretKey: installed.firstSecretKey,
      async close() {
        await upkeep.stop();
        await deps.limits.close();
        await deps.outbound.close();
        await store.close();
      },
    };
  } catch (error) {
    await limits?.close();
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
  /** Whole milliseconds since 1970-01-01 UTC, as the host has them. */
  wall(): number;
  /** Moves the clock to `at` if it is behind. */
  notBefore(at: number): void;
  /** Whether the wall clock and this one are so far apart that one of them is wrong: then nothing is purged by either. */
  isDoubtful(): boolean;
}

function startClock(): Clock {
  const wall = () => Date.now();
  let origin = wall() - performance.now();
  const now = () => Math.floor(origin + performance.now());
  return {
    now,
    wall,
    notBefore(at) {
      origin += Math.max(0, at - now());
    },
    isDoubtful: () => Math.abs(wall() - now()) > JUMP_MS_MAX,
  };
}

/**
 * Migrates and opens the installation. The files are durable before the rows that need them, so that whatever moment
 * the process dies at, no key is in the database that nobody knows: what it left is used or replaced by the next start.
 */
async function install(store: Store, config: Config, logger: Logger, now: () => number) {
  const isFirstStart = !(await isInstalled(store));
  const masterKey =
    config.masterKey ??
    (isFirstStart ? firstMasterKey(config, logger) : await keptMasterKey(store, config, logger));
  if (!isFirstStart) await assertMayOpen(store, masterKey);
  await store.migrate();
  const settings: InstallationOptions = { masterKey, signingAlg: config.signingAlg, now };
  if (!isFirstStart || config.bootstrapKey !== undefined) {
    const { keyring, epoch } = await openInstallation(store, {
      ...settings,
      bootstrapKey: config.bootstrapKey,
    });
    return { keyring, epoch, isFirstStart, firstSecretKey: null };
  }
  const firstSecretKey = keptFirstSecretKey(config) ?? newValue(PREFIXES.secretKey).value;
  writeDurably(keyFile(config.dataDir, 'first-secret-key'), firstSecretKey);
  const { keyring, epoch } = await openInstallation(store, { ...settings, bootstrapKey: firstSecretKey });
  return { keyring, epoch, isFirstStart, firstSecretKey };
}

/**
 * A value that an earlier start left: of a first start that was cut off, or of another installation with this data
 * directory. It becomes the first key here too, for writing over it might lose the only copy there is.
 */
function keptFirstSecretKey(config: Config): string | null {
  const path = keyFile(config.dataDir, 'first-secret-key');
  const value = existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
  return parseValue(value)?.prefix === PREFIXES.secretKey ? value : null;
}

/**
 * Removes the file of the first secret key once there is another admin key that does not expire, or once the key in it is
 * none any more.
 * Answers its path while it holds a live key. A key that this database never knew is another installation's, perhaps its
 * only copy, and stays.
 */
async function tidyFirstSecretKey(deps: Deps, dataDir: string): Promise<string | null> {
  const path = keyFile(dataDir, 'first-secret-key');
  if (!existsSync(path)) return null;
  const value = readFileSync(path, 'utf8').trim();
  if ((await findOwner(deps, value)) === null) return null;
  const isLive = (await findCaller(deps, value, () => '127.0.0.1')) !== null;
  if (isLive && (await shouldKeepFirstSecretKeyFile(deps))) return path;
  rmSync(path, { force: true });
  return null;
}

/**
 * Every few seconds: notes what time it is, flushes what was counted, and looks whether the first secret key's file may go.
 * One round at a time, and beside it looks whether this process may stay, and whether it goes by the time of day.
 */
function startUpkeep(deps: Deps, dataDir: string, logger: Logger) {
  let round: Promise<void> | undefined;
  let isEnding = false;
  const complaint = createComplaint(logger, {
    failing: 'Cannot write usage and what time it is; both are kept in memory and tried again',
    again: 'Usage and the time are being written again',
  });

  /** Pauses of one flush, until there were enough of them or nobody else is served any more. */
  function pacing(): () => Promise<void> {
    let left = FLUSH_PAUSES_MS_MAX;
    return async () => {
      if (isEnding || left <= 0) return;
      left -= FLUSH_PAUSE_MS;
      await sleep(FLUSH_PAUSE_MS);
    };
  }

  async function keepUp() {
    try {
      await noteInstant(deps.store, deps.now());
      await deps.mintCounts.flush(deps.store, deps.now());
      await deps.usage.flush(deps.store, pacing());
      await tidyFirstSecretKey(deps, dataDir);
      complaint.succeeded();
    } catch (err) {
      complaint.failed(err);
    }
  }

  const noteTime = createTimeWatch(deps, logger);
  noteTime();
  const timer = setInterval(() => {
    noteTime();
    void endIfSuperseded(deps, logger);
    round ??= keepUp().finally(() => {
      round = undefined;
    });
  }, UPKEEP_MS);
  timer.unref();
  return {
    async stop() {
      isEnding = true;
      clearInterval(timer);
      await round;
      await keepUp();
    },
  };
}

/** Says once for each time that `now` and the clock of this host part, and when they meet again. */
function createTimeWatch({ now, wallClock }: Deps, logger: Logger): () => void {
  let areApart = false;
  return () => {
    const aheadMs = now() - wallClock();
    if (Math.abs(aheadMs) > APART_MS_MAX === areApart) return;
    areApart = !areApart;
    if (areApart)
      logger.warn(
        { aheadMs },
        'Expiry is judged by a time that is over a minute from what the clock of this host shows: set it right, or restart where it is right',
      );
    else logger.info('The clock of this host shows the time that expiry is judged by again');
  };
}

/** A pepper is being retired, or was: with ours we would find no credential, and write hashes that nobody else finds. */
async function endIfSuperseded(deps: Deps, logger: Logger): Promise<void> {
  // A database that does not answer takes no hash from us either.
  if (await hasOurPeppers(deps).catch(() => true)) return;
  endSuperseded(
    logger,
    'The pepper is being retired: the process ends, and can be started again once that is finished',
  );
}
