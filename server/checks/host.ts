/** What the doctor looks at on the host itself: Node, addresses, files, the disk. */
import { existsSync, statfsSync, statSync } from 'node:fs';
import { holderOf } from '../../db/host.ts';
import { isPostgres } from '../../db/store.ts';
import { type Config, isLoopback } from '../config.ts';
import { keyFile } from '../key-files.ts';
import { type Check, ok, problem, type Seen, skipped, warning } from './finding.ts';

const GB = 1e9;
/** Beneath that the log and a checkpoint of a busy minute may not fit. */
const FREE_BYTES_WANTED = GB;

export const HOST_CHECKS: readonly Check<Config>[] = [
  { name: 'Node', look: () => lookAtNode(process.versions.node) },
  { name: 'public URL', look: lookAtPublicUrl },
  { name: 'trusted proxies', look: lookAtProxies },
  { name: 'data directory', look: ({ dataDir }) => lookAtDataDir(dataDir) },
  { name: 'key files', look: ({ dataDir }) => lookAtKeyFiles(dataDir) },
  { name: 'first secret key', look: ({ dataDir }) => lookAtFirstSecretKey(dataDir) },
  { name: 'disk', look: lookAtDisk },
  { name: 'host', look: lookAtHost },
];

/** The oldest release that is still mended (https://nodejs.org/en/about/previous-releases). */
const MENDED_MAJOR = 22;

export function lookAtNode(version: string): Seen {
  const major = Number(version.split('.')[0]);
  if (major >= MENDED_MAJOR) return ok(version);
  return warning(`${version}, in which holes are no longer mended`, 'Run Node 24');
}

function lookAtPublicUrl({ host, publicUrl }: Config): Seen {
  const isSeenAsLoopback = isLoopback(new URL(publicUrl).hostname);
  if (!isLoopback(host) && isSeenAsLoopback)
    return problem(
      `${publicUrl}, while other machines reach ${host}: links and the issuer of JWTs lead them to themselves`,
      'Set COUNTERSIGN_PUBLIC_URL to the origin that callers use',
    );
  if (!isSeenAsLoopback && !publicUrl.startsWith('https:'))
    return warning(
      `${publicUrl}: credentials travel in the clear`,
      'End TLS before the server, and set COUNTERSIGN_PUBLIC_URL to the https origin',
    );
  return ok(publicUrl);
}

function lookAtProxies({ publicUrl, trustedProxies }: Config): Seen {
  if (trustedProxies.length > 0) return ok(trustedProxies.join(', '));
  if (!publicUrl.startsWith('https:')) return ok('none');
  return warning(
    'none, while TLS ends somewhere before: CIDR blocks and limits of a network are judged by the address of the proxy',
    "Set COUNTERSIGN_TRUSTED_PROXIES to the proxy's addresses",
  );
}

function lookAtDataDir(dataDir: string): Seen {
  if (!existsSync(dataDir)) return ok(`${dataDir} is not there yet: the first start makes it`);
  return lookAtMode(dataDir, '0700');
}

function lookAtKeyFiles(dataDir: string): Seen {
  const present = (['master-key', 'master-key.new', 'first-secret-key'] as const)
    .map((name) => keyFile(dataDir, name))
    .filter((path) => existsSync(path));
  const seen = present.map((path) => lookAtMode(path, '0600')).find(({ state }) => state !== 'ok');
  if (seen) return seen;
  if (existsSync(keyFile(dataDir, 'master-key.new')))
    return warning(
      'A rotation of the master key was cut off',
      'Run `npm run rotate:master-key` again, or start a server: either brings it to its end',
    );
  return ok(present.length === 0 ? 'none' : present.join(', '));
}

/** Whoever can read it holds all that it protects. */
function lookAtMode(path: string, mode: '0600' | '0700'): Seen {
  const { mode: found, uid } = statSync(path);
  if ((found & 0o077) !== 0)
    return problem(
      `Other users of this machine can reach '${path}' (mode ${(found & 0o777).toString(8)})`,
      `chmod ${mode} '${path}', and rotate what they may have read`,
    );
  const own = process.getuid?.();
  if (own !== undefined && own !== 0 && own !== uid)
    return problem(`'${path}' is of another user (${uid})`, `chown it to the user that runs the server`);
  return ok(path);
}

function lookAtFirstSecretKey(dataDir: string): Seen {
  const path = keyFile(dataDir, 'first-secret-key');
  if (!existsSync(path)) return ok('in no file');
  return warning(
    `In '${path}'`,
    'Create an admin key that does not expire and keep it elsewhere: the file then goes by itself',
  );
}

function lookAtDisk({ dataDir, databaseLocation, sqliteFile }: Config): Seen {
  if (isPostgres(databaseLocation)) return skipped('The database is elsewhere');
  if (!existsSync(dataDir)) return skipped('There is no data directory yet');
  const { bavail, bsize } = statfsSync(dataDir);
  const free = `${((bavail * bsize) / GB).toFixed(1)} GB free`;
  const mend = 'Make room, or move the data directory to a larger disk';
  if (existsSync(sqliteFile) && !existsSync(`${sqliteFile}.reserve`))
    return problem(`${free}, and what is kept for revocations is used up or was never made`, mend);
  return bavail * bsize < FREE_BYTES_WANTED ? warning(free, mend) : ok(free);
}

function lookAtHost({ databaseLocation, sqliteFile, hostId }: Config): Seen {
  if (isPostgres(databaseLocation)) return skipped('A PostgreSQL database is for any number of hosts');
  const holder = holderOf(`${sqliteFile}.host`);
  if (holder === null || holder.id === hostId) return ok(hostId);
  return warning(
    `The SQLite file was last used by the host '${holder.name}'`,
    'Only one host may use it: see that nothing runs there. A host that was only started anew is the same one',
  );
}
