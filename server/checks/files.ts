/** What the doctor looks at in the data directory, and of the disk that it is on. */
import { existsSync, readdirSync, readFileSync, realpathSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { otherHost } from '../../db/host.ts';
import { isPostgres } from '../../db/store.ts';
import type { Config } from '../config.ts';
import { keyFile } from '../key-files.ts';
import { type Check, ok, problem, type Seen, skipped, warning } from './finding.ts';
import { type Mount, mountOf } from './mounts.ts';

const GB = 1e9;
/** Beneath that the log and a checkpoint of a busy minute may not fit. */
const FREE_BYTES_WANTED = GB;

/** While it is a problem, the database is not opened either. */
export const HOST_MARK = 'host';

export const FILE_CHECKS: readonly Check<Config>[] = [
  { name: 'data directory', look: whereMade(lookAtDataDir) },
  { name: 'key files', look: ({ dataDir }) => lookAtKeyFiles(dataDir) },
  { name: 'first secret key', look: ({ dataDir }) => lookAtFirstSecretKey(dataDir) },
  { name: 'disk', look: whereSqlite(whereMade(lookAtDisk)) },
  { name: 'file system', look: whereSqlite(whereMade(lookAtFileSystem)) },
  { name: HOST_MARK, look: whereSqlite(lookAtHost) },
];

function whereSqlite(look: Check<Config>['look']): Check<Config>['look'] {
  return (config) =>
    isPostgres(config.databaseLocation) ? skipped('The database is in PostgreSQL') : look(config);
}

function whereMade(look: Check<Config>['look']): Check<Config>['look'] {
  return (config) =>
    existsSync(config.dataDir)
      ? look(config)
      : skipped(`${config.dataDir} is not there yet: the first start makes it`);
}

/** Not what else may be there, such as `lost+found`. */
const OURS = /^(countersign\.db|master-key|first-secret-key)/;

function lookAtDataDir({ dataDir }: Config): Seen {
  const seen = lookAtMode(dataDir, '0700');
  if (seen.state !== 'ok') return seen;
  const { uid } = statSync(dataDir);
  const strange = readdirSync(dataDir)
    .filter((name) => OURS.test(name))
    .map((name) => join(dataDir, name))
    .find((path) => (statSync(path, { throwIfNoEntry: false })?.uid ?? uid) !== uid);
  if (strange === undefined) return seen;
  return problem(
    `'${strange}' is of another user than the directory, and a server may be unable to open it`,
    `chown -R --reference='${dataDir}' '${dataDir}', and run commands as the user that runs the server`,
  );
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
    return problem(`'${path}' is of another user (${uid})`, 'chown it to the user that runs the server');
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

function lookAtDisk({ dataDir, sqliteFile }: Config): Seen {
  const { bavail, bsize } = statfsSync(dataDir);
  const free = `${((bavail * bsize) / GB).toFixed(1)} GB free`;
  const mend = 'Make room, or move the data directory to a larger disk';
  if (existsSync(sqliteFile) && !existsSync(`${sqliteFile}.reserve`))
    return problem(`${free}, and what is kept for revocations is used up or was never made`, mend);
  return bavail * bsize < FREE_BYTES_WANTED ? warning(free, mend) : ok(free);
}

const MOUNTS = '/proc/self/mountinfo';

function lookAtFileSystem({ dataDir }: Config): Seen {
  if (!existsSync(MOUNTS)) return skipped('This system does not say what it is on');
  const mount = mountOf(realpathSync(dataDir), readFileSync(MOUNTS, 'utf8'));
  return mount === null ? skipped('It is on none that this system names') : judgeMount(mount);
}

/** https://www.sqlite.org/wal.html: the log does not work over a network. */
const OVER_A_NETWORK =
  /^(nfs4?|cifs|smb3|smbfs|9p|afs|ceph|glusterfs|lustre|fuse\.(sshfs|s3fs|glusterfs|cephfs))$/;
const IN_MEMORY = /^(tmpfs|ramfs)$/;
/** With these what fsync has answered for may be lost with the power. */
const WITHOUT_BARRIERS = /(^|,)(nobarrier|barrier=0)(,|$)/;

export function judgeMount({ type, options }: Mount): Seen {
  if (OVER_A_NETWORK.test(type))
    return warning(
      `${type}, over a network: locks and what is synced are the server's there, and SQLite vouches for neither`,
      'Move the data directory to a disk of this host, or use PostgreSQL',
    );
  if (IN_MEMORY.test(type))
    return warning(
      `${type}, in memory: all is lost when the host stops`,
      'Move the data directory to a disk',
    );
  if (type === 'overlay')
    return warning(
      'overlay, a layer of the container: all is lost when it is replaced',
      'Mount a volume as the data directory',
    );
  if (WITHOUT_BARRIERS.test(options))
    return warning(
      `${type} without barriers: what was committed may be lost with the power`,
      "Mount it without 'nobarrier' and 'barrier=0'",
    );
  return ok(type);
}

async function lookAtHost({ sqliteFile, hostId }: Config): Promise<Seen> {
  const other = await otherHost(`${sqliteFile}.host`, hostId);
  if (other === null) return ok(hostId);
  if (other.isUsing)
    return problem(
      `The host '${other.name}' is using the SQLite file, and only one may`,
      'Stop it there before anything starts here, or use PostgreSQL',
    );
  return warning(
    `The SQLite file was last used by the host '${other.name}'`,
    'Only one host may use it: see that nothing runs there. A host that was only started anew is the same one',
  );
}
