/** `npm run backup -- file`: writes all of an installation to one file, while servers go on. */
import { existsSync, rmSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { appliedMigrations, schemaVersion } from '../db/migrations.ts';
import { openSnapshot, sealFile } from '../db/snapshot.ts';
import { openStore, type Store } from '../db/store.ts';
import { ConfigError, loadConfig } from './config.ts';
import { createCopyProgress } from './copy-progress.ts';
import { BACKUP_FORMAT, type BackupManifest, backedUp, standingOf } from './domain/backups.ts';
import { InstallationError } from './domain/installation.ts';
import {
  copyTables,
  differing,
  insertInto,
  rowsIn,
  sumTables,
  type TableSums,
} from './domain/table-copies.ts';
import { withInstalledStore } from './installed-store.ts';
import { renameDurably } from './key-files.ts';
import { refuseToStart } from './lifecycle.ts';

// Whatever this process makes is its owner's alone.
process.umask(0o077);
await main().catch((error) => refuseToStart(error, 'back up'));

async function main() {
  const file = readFile(process.argv.slice(2));
  const { databaseLocation } = loadConfig(process.env);
  // A database that was never set up is refused before a file is made.
  await withInstalledStore({ location: databaseLocation }, assertOurSchema);
  const unfinished = join(dirname(file), `.${basename(file)}.unfinished`);
  rmSync(unfinished, { force: true });
  try {
    const manifest = await write(databaseLocation, unfinished);
    renameDurably(unfinished, file);
    process.stdout.write(
      `${rowsIn(manifest.tables as TableSums)} rows up to event ${manifest.seq} are in '${file}', which was read back and holds them all\n` +
        'The master key is not in it: keep that apart. Export the log from time to time too: `countersign events export`\n',
    );
  } finally {
    for (const suffix of ['', '-wal', '-shm']) rmSync(`${unfinished}${suffix}`, { force: true });
  }
}

/** Of tables that it does not know this binary would leave out what is new, or look for what is not there yet. */
async function assertOurSchema(store: Store) {
  const applied = await appliedMigrations(store);
  if (applied === schemaVersion()) return;
  throw new InstallationError(
    `The database has the schema version ${applied}, and this binary ${schemaVersion()}: back it up with the version that runs on it`,
  );
}

function readFile([file, ...others]: readonly string[]): string {
  if (file === undefined || file.startsWith('-') || others.length > 0)
    throw new ConfigError([
      {
        name: 'arguments',
        wanted: 'the path of the file to write',
        found: `'${[file, ...others].join(' ')}'`,
      },
    ]);
  if (existsSync(file))
    throw new ConfigError([{ name: 'file', wanted: 'one that is not there yet', found: `'${file}'` }]);
  return resolve(file);
}

async function write(location: string, file: string): Promise<BackupManifest> {
  const from = await openSnapshot(location);
  const madeAt = Date.now();
  try {
    const names = backedUp(from);
    const to = await openStore({ location: file });
    const tables = await (async () => {
      await to.migrate();
      return copyTables(
        from,
        names,
        (name, rows) => to.tx((tx) => insertInto(tx)(name, rows)),
        createCopyProgress(),
      );
    })().finally(() => to.close());
    const manifest: BackupManifest = {
      format: BACKUP_FORMAT,
      schema: schemaVersion(),
      madeAt,
      ...(await standingOf(from)),
      tables: tables as BackupManifest['tables'],
    };
    sealFile(file, manifest);
    await readBack(file, manifest);
    return manifest;
  } finally {
    await from.close();
  }
}

async function readBack(file: string, manifest: BackupManifest) {
  const written = await openSnapshot(file);
  const found = await sumTables(written, backedUp(written), createCopyProgress()).finally(() =>
    written.close(),
  );
  const wrong = differing(found, manifest.tables);
  if (wrong.length > 0) throw new Error(`The file does not hold what was read: ${wrong.join(', ')} differ`);
}
