/**
 * `npm run migrate-to-postgres`: moves the installation of a SQLite file to the empty PostgreSQL database that
 * DATABASE_URL names, all of it or nothing. It stays the same installation: every credential is answered as before.
 */
import { existsSync } from 'node:fs';
import { type HeldFile, holdFile, type TableName } from '../db/snapshot.ts';
import { isPostgres, openStore, type Store, storeFailure } from '../db/store.ts';
import { type Config, ConfigError, loadConfig } from './config.ts';
import { createCopyProgress } from './copy-progress.ts';
import { holds, standingOf } from './domain/backups.ts';
import { assertMayOpen, InstallationError, isInstalled, markMoved } from './domain/installation.ts';
import { copyInto, rowsIn } from './domain/table-copies.ts';
import { withInstalledStore } from './installed-store.ts';
import { asThisHost, refuseToStart } from './lifecycle.ts';
import { createLogger } from './logger.ts';

await main().catch((error) => refuseToStart(error, 'migrate'));

async function main() {
  const config = readSettings(process.argv.slice(2));
  await bringUpToDate(config);
  const from = await hold(config);
  const to = await openStore({ location: config.databaseLocation });
  try {
    process.stdout.write(await move(from, to));
    await markMoved(from);
    from.commit();
    process.stdout.write(
      `'${config.sqliteFile}' is not opened by any server any more. Start servers and workers with DATABASE_URL, and the master key in COUNTERSIGN_MASTER_KEY or COUNTERSIGN_MASTER_KEY_FILE\n`,
    );
  } finally {
    await to.close();
    await from.close();
  }
}

function readSettings(args: readonly string[]): Config & { masterKey: Buffer } {
  const config = loadConfig(process.env);
  if (args.length > 0)
    throw new ConfigError([{ name: 'arguments', wanted: 'none', found: `'${args.join(' ')}'` }]);
  const { databaseLocation, masterKey } = config;
  // With DATABASE_URL there is a master key.
  if (!isPostgres(databaseLocation) || !masterKey)
    throw new ConfigError([
      { name: 'DATABASE_URL', wanted: 'the PostgreSQL database to migrate to', found: 'nothing' },
    ]);
  if (!existsSync(config.sqliteFile))
    throw new ConfigError([
      {
        name: 'COUNTERSIGN_DATA_DIR',
        wanted: "a folder with 'countersign.db' in it",
        found: `'${config.dataDir}'`,
      },
    ]);
  return { ...config, masterKey };
}

/** Both databases then have the same tables. */
async function bringUpToDate(config: Config & { masterKey: Buffer }) {
  const host = asThisHost(config, createLogger(config.logLevel));
  await withInstalledStore({ location: config.sqliteFile, host }, async (store) => {
    await assertMayOpen(store, config.masterKey);
    await store.exclusively(() => store.migrate());
  });
}

async function hold({ sqliteFile }: Config): Promise<HeldFile> {
  try {
    return await holdFile(sqliteFile);
  } catch (error) {
    if (storeFailure(error) === null) throw error;
    throw new InstallationError(
      `'${sqliteFile}' is in use: stop the servers and workers first, so that nothing is revoked in one database only`,
    );
  }
}

/** Answers what was done. */
async function move(from: HeldFile, to: Store): Promise<string> {
  const names = Object.keys(from.tables) as TableName[];
  const standing = await standingOf(from);
  return to.exclusively(async () => {
    if (await isInstalled(to)) {
      if (await holds(to.read, standing))
        return 'The PostgreSQL database holds this installation already: an earlier run was cut off, and nothing is copied again\n';
      throw new InstallationError('The database that DATABASE_URL names is in use: give an empty one');
    }
    await to.migrate();
    const sums = await copyInto(to, from, names, createCopyProgress());
    const tables = names
      .map((name) => ({ name, count: sums[name]?.count ?? 0 }))
      .filter(({ count }) => count > 0)
      .map(({ name, count }) => `  ${name}: ${count}\n`);
    return `${tables.join('')}${rowsIn(sums)} rows up to event ${standing.seq} were copied and read back; counts and checksums of all ${names.length} tables are the same\n`;
  });
}
