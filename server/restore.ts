/**
 * `npm run restore -- file [--events log.ndjson]`: makes an installation of a backup where there is none, with an epoch
 * of its own. What an exported log says was taken away since is taken away again before anybody is served.
 */
import { copyFileSync, createReadStream, existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { schemaVersion } from '../db/migrations.ts';
import { openSnapshot, readManifest, unsealFile } from '../db/snapshot.ts';
import { isPostgres, openStore } from '../db/store.ts';
import { type Config, ConfigError, loadConfig } from './config.ts';
import { createCopyProgress } from './copy-progress.ts';
import { type BackupManifest, backedUp, backupManifest, beginEpoch } from './domain/backups.ts';
import { assertMayOpen, InstallationError, isInstalled } from './domain/installation.ts';
import { type ExportedEvent, exportedEvent, type ReplayReport, replayEvents } from './domain/replays.ts';
import { copyInto, differing, sumTables, type TableSums } from './domain/table-copies.ts';
import { keyFile, readMasterKey, renameDurably } from './key-files.ts';
import { refuseToStart } from './lifecycle.ts';
import { createLogger, type Logger } from './logger.ts';
import { createMetrics } from './metrics.ts';
import { openDeps } from './open.ts';

interface Given {
  file: string;
  eventsFile: string | null;
}

const HOUR_MS = 3_600_000;

// Whatever this process makes is its owner's alone.
process.umask(0o077);
await main().catch((error) => refuseToStart(error, 'restore'));

async function main() {
  const given = readArguments(process.argv.slice(2));
  const config = loadConfig(process.env);
  const logger = createLogger(config.logLevel);
  const masterKey = config.masterKey ?? readKept(config, logger);
  await assertEmpty(config);
  mkdirSync(config.dataDir, { recursive: true, mode: 0o700 });
  const work = join(config.dataDir, 'restoring.db');
  remove(work);
  try {
    const manifest = await unpack(given.file, work);
    const events = given.eventsFile === null ? [] : await readEvents(given.eventsFile, manifest);
    await assertOpens(work, masterKey);
    sayAge(manifest, given.eventsFile !== null);
    const local = { ...config, databaseLocation: work, masterKey, redis: undefined };
    const report = await begin(local, logger, manifest, events);
    await land(work, config);
    sayReport(report);
  } finally {
    remove(work);
  }
}

function readArguments(args: readonly string[]): Given {
  const [file, option, eventsFile, ...others] = args;
  const isSound = file !== undefined && !file.startsWith('-') && others.length === 0;
  if (isSound && option === undefined) return { file, eventsFile: null };
  if (isSound && option === '--events' && eventsFile !== undefined) return { file, eventsFile };
  throw new ConfigError([
    {
      name: 'arguments',
      wanted: "the path of a backup, and perhaps '--events' and the path of an exported log",
      found: args.length === 0 ? 'none' : `'${args.join(' ')}'`,
    },
  ]);
}

function readKept({ dataDir }: Config, logger: Logger): Buffer {
  const path = keyFile(dataDir, 'master-key');
  if (existsSync(path)) return readMasterKey(path, logger);
  throw new InstallationError(
    `The master key of the backup is missing: give it in COUNTERSIGN_MASTER_KEY or COUNTERSIGN_MASTER_KEY_FILE, or put it at '${path}'`,
  );
}

/** Nothing that is there is written over. */
async function assertEmpty({ databaseLocation }: Config) {
  if (!isPostgres(databaseLocation)) {
    const present = ['', '-wal', '-shm', '-journal']
      .map((suffix) => `${databaseLocation}${suffix}`)
      .filter((path) => existsSync(path));
    if (present.length > 0)
      throw new InstallationError(
        `There is a database, or what it had not brought to an end yet: move all of it away first, together: ${present.join(', ')}`,
      );
    return;
  }
  const store = await openStore({ location: databaseLocation });
  try {
    if (await isInstalled(store))
      throw new InstallationError('The database that DATABASE_URL names is in use: give an empty one');
  } finally {
    await store.close();
  }
}

function remove(location: string) {
  for (const suffix of ['', '-wal', '-shm', '.lock', '.host', '.reserve'])
    rmSync(`${location}${suffix}`, { force: true, recursive: true });
}

/** A copy to work on: the backup itself stays as it is. */
async function unpack(file: string, work: string): Promise<BackupManifest> {
  if (!existsSync(file)) throw new InstallationError(`There is no file at '${file}'`);
  copyFileSync(file, work);
  const manifest = backupManifest.safeParse(readManifest(work)).data;
  if (!manifest) throw new InstallationError(`'${file}' is no backup, or it is damaged`);
  if (manifest.schema !== schemaVersion())
    throw new InstallationError(
      `'${file}' is of the schema version ${manifest.schema}, and this binary of ${schemaVersion()}: restore it with the version that made it, and update then`,
    );
  const wrong = differing(await sumsIn(work, manifest), manifest.tables);
  if (wrong.length > 0)
    throw new InstallationError(`'${file}' is damaged: ${wrong.join(', ')} do not hold what was written`);
  unsealFile(work);
  return manifest;
}

/** What cannot be read any more holds nothing. */
async function sumsIn(work: string, { tables }: BackupManifest): Promise<TableSums> {
  const snapshot = await openSnapshot(work);
  try {
    return await sumTables(snapshot, Object.keys(tables) as (keyof typeof snapshot.tables)[]);
  } catch (error) {
    if (error instanceof SyntaxError) return {};
    throw error;
  } finally {
    await snapshot.close();
  }
}

async function assertOpens(work: string, masterKey: Buffer) {
  const store = await openStore({ location: work });
  try {
    await assertMayOpen(store, masterKey);
    await store.migrate();
  } finally {
    await store.close();
  }
}

/**
 * The events after the backup's last. The file is anybody's: each line is judged, and none may be missing. An export that
 * was begun anew may have written some of them again, and one that was cut off leaves a piece of a line at the end.
 */
async function readEvents(file: string, { seq, eventId }: BackupManifest): Promise<ExportedEvent[]> {
  const events: ExportedEvent[] = [];
  /** By sequence, of those that the backup holds too: their ids alone are of interest. */
  const ids = new Map<number, string>();
  let line = 0;
  let broken: number | null = null;
  for await (const text of createInterface({
    input: createReadStream(file),
    crlfDelay: Number.POSITIVE_INFINITY,
  })) {
    line += 1;
    if (text === '') continue;
    if (broken !== null) throw notAnEvent(file, broken);
    const event = parseEvent(text);
    if (event === null) {
      broken = line;
      continue;
    }
    if (ids.get(event.seq) === event.id) continue;
    if (ids.size > 0 && !ids.has(event.seq - 1))
      throw new InstallationError(
        `'${file}' lacks events before ${event.seq}: wanted each after the one before`,
      );
    ids.set(event.seq, event.id);
    if (event.seq >= seq) events.push(event);
  }
  if (broken !== null) {
    if (ids.size === 0) throw notAnEvent(file, broken);
    process.stderr.write(`Line ${broken} of '${file}', the last, is cut off and passed over\n`);
  }
  const last = events.find((event) => event.seq === seq);
  if (last?.id !== eventId)
    throw new InstallationError(
      `'${file}' is not of the log that the backup ends: wanted event ${seq} with the id '${eventId}', found ${last ? `'${last.id}'` : 'none'}`,
    );
  return events.filter((event) => event.seq > seq);
}

function parseEvent(text: string): ExportedEvent | null {
  try {
    return exportedEvent.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

function notAnEvent(file: string, line: number): InstallationError {
  return new InstallationError(
    `Line ${line} of '${file}' is no event as 'countersign events export' writes it`,
  );
}

async function begin(
  config: Config & { masterKey: Buffer },
  logger: Logger,
  manifest: BackupManifest,
  events: readonly ExportedEvent[],
): Promise<ReplayReport> {
  const { deps, close } = await openDeps(config, { logger, metrics: createMetrics(), wake: () => {} });
  try {
    await beginEpoch(deps, config.masterKey, manifest);
    return await replayEvents(deps, events);
  } finally {
    await close();
  }
}

/** All of it, or nothing: nobody starts with what was not replayed. */
async function land(work: string, { databaseLocation }: Config) {
  if (!isPostgres(databaseLocation)) {
    // One file, without a log beside it: opened and closed once more.
    await (await openStore({ location: work })).close();
    renameDurably(work, databaseLocation);
    return;
  }
  const from = await openSnapshot(work);
  const to = await openStore({ location: databaseLocation });
  try {
    await to.exclusively(async () => {
      if (await isInstalled(to)) throw new InstallationError('Somebody else set the database up meanwhile');
      await to.migrate();
      await copyInto(to, from, backedUp(from), createCopyProgress());
    });
  } finally {
    await to.close();
    await from.close();
  }
}

function sayAge({ madeAt, seq }: BackupManifest, hasEvents: boolean) {
  const hours = Math.floor((Date.now() - madeAt) / HOUR_MS);
  process.stdout.write(
    `The backup is of ${new Date(madeAt).toISOString()}, ${hours} hours ago, up to event ${seq}\n`,
  );
  if (!hasEvents)
    process.stdout.write(
      "Without '--events' nothing that was revoked since is: if there is an exported log, stop, and restore with it\n",
    );
}

function sayReport({ replayed, unknown, failed, toLookAt }: ReplayReport) {
  process.stdout.write(
    `Restored, with a new epoch. ${replayed} revocations were done again, ${unknown} were of things made after the backup\n`,
  );
  for (const { seq, type, objectId, message } of failed)
    process.stdout.write(`Not done: event ${seq}, ${type} of '${objectId}': ${message}\n`);
  for (const { type, objectId } of toLookAt)
    process.stdout.write(`Look at '${objectId}': ${type} since, and not done again\n`);
  process.stdout.write('Sign-ins to the console and panel tokens have ended. Start the servers\n');
  if (failed.length > 0) process.exitCode = 2;
}
