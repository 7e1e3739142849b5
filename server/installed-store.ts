/** The database for commands that work on an installation and make none. */
import { existsSync } from 'node:fs';
import { isPostgres, openStore, type Store, type StoreOptions } from '../db/store.ts';
import { InstallationError, isInstalled } from './domain/installation.ts';

/** Does `work` with a database that was set up; throws `InstallationError` where there is none. */
export async function withInstalledStore(
  options: StoreOptions,
  work: (store: Store) => Promise<void>,
): Promise<void> {
  const { location } = options;
  if (!isPostgres(location) && !existsSync(location)) throw neverSetUp();
  const store = await openStore(options);
  try {
    if (!(await isInstalled(store))) throw neverSetUp();
    await work(store);
  } finally {
    await store.close();
  }
}

const neverSetUp = () =>
  new InstallationError(
    'There is no database that was set up: look at DATABASE_URL and COUNTERSIGN_DATA_DIR',
  );
