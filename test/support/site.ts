/** Where several servers find one database: what each is started with, and what the test reads of it. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { openStore, type Store } from '../../db/store.ts';
import type { Keyring } from '../../server/crypto/keyring.ts';
import { openInstallation } from '../../server/domain/installation.ts';
import { type Dialect, emptyDatabase, freshFolder, MASTER_KEY, type WhenDone } from './deps.ts';
import { type LaunchOptions, type RunningServer, startServer } from './server.ts';
import { freePort } from './services.ts';

export interface Site {
  location: string;
  /** For each server: its settings, with a port and a data directory. */
  settings: NodeJS.ProcessEnv[];
  /** For each of them; on SQLite they are one. */
  dataDirs: string[];
}

/** Tokens name the public URL, so servers that are to know each other's share it. */
const PUBLIC_URL = 'http://127.0.0.1:4400';

/**
 * Settings of that many servers on one database: on PostgreSQL with a data directory for each, as on several hosts; on
 * SQLite they share the file and its folder.
 */
export async function siteIn(
  folder: string,
  databaseUrl: string | null,
  servers: number,
  more: NodeJS.ProcessEnv = {},
): Promise<Site> {
  const dataDirs = Array.from({ length: servers }, (_, host) =>
    join(folder, databaseUrl === null ? 'data' : `host-${host}`),
  );
  const shared = {
    COUNTERSIGN_PUBLIC_URL: PUBLIC_URL,
    ...(databaseUrl && {
      DATABASE_URL: databaseUrl,
      COUNTERSIGN_MASTER_KEY: MASTER_KEY.toString('base64'),
    }),
    ...more,
  };
  const ports = await freePorts(servers);
  return {
    location: databaseUrl ?? join(folder, 'data', 'countersign.db'),
    settings: dataDirs.map((dataDir, i) => ({
      ...shared,
      PORT: `${ports[i]}`,
      COUNTERSIGN_DATA_DIR: dataDir,
    })),
    dataDirs: [...new Set(dataDirs)],
  };
}

async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  while (ports.size < count) ports.add(await freePort());
  return [...ports];
}

/** The same in a folder of its own, on a database with nothing in it. */
export async function newSite(
  dialect: Dialect,
  servers: number,
  more: NodeJS.ProcessEnv = {},
  whenDone: WhenDone = onTestFinished,
): Promise<Site> {
  const databaseUrl = dialect === 'sqlite' ? null : await emptyDatabase(dialect, whenDone);
  return siteIn(freshFolder(whenDone), databaseUrl, servers, more);
}

/** The paths at which a file of that name is in the data directories. */
export const filesOf = ({ dataDirs }: Site, name: string): string[] =>
  dataDirs.map((dataDir) => join(dataDir, name)).filter(existsSync);

/** Looks into the database of a site that was set up, with the site's master key. */
export async function inspect<T>(
  { location, settings, dataDirs: [dataDir = ''] }: Site,
  look: (opened: { store: Store; keyring: Keyring }) => Promise<T>,
): Promise<T> {
  const masterKey =
    settings[0]?.['COUNTERSIGN_MASTER_KEY'] ?? readFileSync(join(dataDir, 'master-key'), 'utf8');
  const store = await openStore({ location });
  try {
    const { keyring } = await openInstallation(store, {
      masterKey: Buffer.from(masterKey, 'base64'),
      signingAlg: 'ES256',
      now: Date.now,
    });
    return await look({ store, keyring });
  } finally {
    await store.close();
  }
}

/** Starts the server with these settings of a site, and waits until it is ready. */
export const startAt = (site: Site, server: number, options?: LaunchOptions): Promise<RunningServer> => {
  const settings = site.settings[server] ?? {};
  return startServer(settings['COUNTERSIGN_DATA_DIR'] ?? '', settings, options);
};
