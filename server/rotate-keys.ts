/**
 * The commands that replace the keys behind all others: `master-key` gives the installation another master key, `pepper`
 * retires the pepper. Either may be cut off at any moment; run again, it goes on from what rows and files say.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Store } from '../db/store.ts';
import { type Config, ConfigError, loadConfig, MASTER_KEY_WANTED } from './config.ts';
import { assertMayOpen, isMasterKey } from './domain/installation.ts';
import { rotateMasterKey } from './domain/master-key.ts';
import {
  beginPepperRetirement,
  finishPepperRetirement,
  HASH_TABLES,
  type RehashProgress,
  rehashAll,
} from './domain/peppers.ts';
import { withInstalledStore } from './installed-store.ts';
import {
  adoptMasterKey,
  finishMasterKeyRotation,
  keptMasterKey,
  keyFile,
  prepareMasterKey,
} from './key-files.ts';
import { asThisHost, refuseToStart } from './lifecycle.ts';
import { createLogger, type Logger, maskCredentials } from './logger.ts';

/** What a command works with. */
interface Opened {
  config: Config;
  logger: Logger;
  store: Store;
}

/** How long running processes are given to notice: they look every five seconds (open.ts). */
const WAIT_SECONDS = 15;
const WAIT_SECONDS_MAX = 3_600;

/** Nobody waits for an answer here, so another's lock is waited for longer than a server would. */
const LOCK_TIMEOUT_MS = 60_000;

/** How often progress is told where it cannot be written over. */
const LINE_MS = 3_000;

// Whatever this process makes is its owner's alone.
process.umask(0o077);
await main().catch((error) => refuseToStart(error, 'rotate keys'));

async function main() {
  const command = readCommand(process.argv.slice(2));
  const config = loadConfig(process.env);
  const logger = createLogger(config.logLevel);
  const options = {
    location: config.databaseLocation,
    lockTimeoutMs: LOCK_TIMEOUT_MS,
    host: asThisHost(config, logger),
  };
  await withInstalledStore(options, (store) => command({ config, logger, store }));
}

function readCommand([name, ...options]: readonly string[]): (opened: Opened) => Promise<void> {
  if (name === 'master-key' && options.length === 0) return changeMasterKey;
  if (name === 'pepper') {
    const waitSeconds = readWaitSeconds(options);
    if (waitSeconds !== null) return (opened) => retirePepper(opened, waitSeconds);
  }
  const wanted = `'master-key', or 'pepper' and perhaps '--wait-seconds' and a whole number up to ${WAIT_SECONDS_MAX}`;
  const found = name === undefined ? 'none' : `'${[name, ...options].join(' ')}'`;
  throw new ConfigError([{ name: 'arguments', wanted, found }]);
}

function readWaitSeconds(options: readonly string[]): number | null {
  if (options.length === 0) return WAIT_SECONDS;
  const [, seconds] = /^--wait-seconds[= ](\d{1,4})$/.exec(options.join(' ')) ?? [];
  return seconds !== undefined && Number(seconds) <= WAIT_SECONDS_MAX ? Number(seconds) : null;
}

async function changeMasterKey(opened: Opened) {
  const { masterKey } = opened.config;
  await opened.store.exclusively(() =>
    masterKey ? replaceGivenKey(opened, masterKey) : replaceKeptKey(opened),
  );
}

async function replaceGivenKey({ config: { newMasterKey }, store }: Opened, masterKey: Buffer) {
  if (!newMasterKey) throw badNewMasterKey(MASTER_KEY_WANTED, 'nothing');
  if (newMasterKey.equals(masterKey)) throw badNewMasterKey('another key', 'the one in use');
  if (await isMasterKey(store, newMasterKey)) {
    say('The database has the new master key already; nothing was changed');
    return;
  }
  await assertMayOpen(store, masterKey);
  await store.migrate();
  await rotateMasterKey(store, { masterKey, newMasterKey, now: Date.now });
  say(
    'The master key is rotated. What runs goes on; give what starts from now on the new key, as COUNTERSIGN_MASTER_KEY or COUNTERSIGN_MASTER_KEY_FILE',
    'Back it up apart from the database. Backups of before need the old key',
  );
}

/** The new key is durable before any row needs it, and takes the old one's place once all do. */
async function replaceKeptKey({ config, logger, store }: Opened) {
  const { dataDir, newMasterKey: given } = config;
  const path = keyFile(dataDir, 'master-key');
  if (given) throw badNewMasterKey(`nothing, because '${path}' keeps the key and the new one is made`, 'one');
  const wasCutOff = await finishMasterKeyRotation(store, dataDir, logger);
  if (!wasCutOff) {
    const masterKey = await keptMasterKey(store, config, logger);
    await assertMayOpen(store, masterKey);
    await store.migrate();
    const newMasterKey = prepareMasterKey(dataDir);
    await rotateMasterKey(store, { masterKey, newMasterKey, now: Date.now });
    adoptMasterKey(dataDir);
  }
  say(
    `The master key is rotated: '${path}' has the new one. What runs goes on`,
    'Back it up apart from the database. Backups of before need the old key',
  );
}

function badNewMasterKey(wanted: string, found: string) {
  return new ConfigError([{ name: 'COUNTERSIGN_NEW_MASTER_KEY', wanted, found }]);
}

async function retirePepper({ config, logger, store }: Opened, waitSeconds: number) {
  const retirement = await store.exclusively(async () => {
    const masterKey = config.masterKey ?? (await keptMasterKey(store, config, logger));
    await assertMayOpen(store, masterKey);
    await store.migrate();
    return beginPepperRetirement(store, { masterKey, now: Date.now });
  });
  const retired = retirement.keyring.pepperVersion - 1;
  note(
    `Pepper ${retired} is being retired: no server starts until it is done. Cut off, run this again: it goes on`,
  );
  if (waitSeconds > 0) note(`Waiting ${waitSeconds} s for what still runs to end itself`);
  await sleep(waitSeconds * 1000);
  const progress = createProgress();
  await rehashAll(store, retirement, progress.tell);
  progress.end();
  await compact(store);
  await finishPepperRetirement(store, retirement, Date.now);
  say(
    `Pepper ${retired} is retired. Servers and workers can be started`,
    'Backups of before still hold hashes that it checks: destroy them when you no longer need them',
  );
}

/** What the disk still holds of old hashes would serve whoever has the old pepper; but servers are waited for. */
async function compact(store: Store) {
  note('Rewriting the tables, so that no old hash is left in their files');
  try {
    await store.compact(HASH_TABLES);
  } catch (error) {
    const reason = error instanceof Error ? maskCredentials(error.message) : 'unknown';
    note(`Old hashes may be left in unused parts of the files: they could not be rewritten (${reason})`);
  }
}

/** On a terminal one line that is written over; elsewhere a line now and then, and the last. */
function createProgress() {
  const { stderr } = process;
  let saidAt = Number.NEGATIVE_INFINITY;
  let said = '';
  let latest = '';
  function sayLatest() {
    if (latest !== said) note(latest);
    said = latest;
    saidAt = performance.now();
  }
  return {
    tell({ done, total }: RehashProgress) {
      latest = `Wrapped ${done} of ${total} hashes (${total === 0 ? 100 : Math.floor((100 * done) / total)} %)`;
      if (stderr.isTTY) stderr.write(`\r\x1b[K${latest}`);
      else if (performance.now() - saidAt >= LINE_MS) sayLatest();
    },
    end() {
      if (stderr.isTTY) stderr.write('\n');
      else sayLatest();
    },
  };
}

function note(line: string) {
  process.stderr.write(`${line}\n`);
}

function say(...lines: string[]) {
  process.stdout.write(`${lines.join('\n')}\n`);
}
