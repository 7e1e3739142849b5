/** The real parts the suite runs against: a private PostgreSQL cluster and a private Redis, started for this run. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { openStore } from '../../db/store.ts';
import { binary, ensureInstalled, type Part, postgresBinaries, programOf, thisMachine } from './packages.ts';

export interface Service {
  /** Where it listens, or null when it is not to be had. */
  url: string | null;
  /** Why it is not to be had. */
  missing: string;
}

declare module 'vitest' {
  export interface ProvidedContext {
    postgres: Service;
    /** A file of SQLite. */
    sqliteTemplate: string;
    redis: Service;
    chromium: Program;
    nginx: Program;
    python: Program;
    authlib: Program;
  }
}

export interface Program {
  /** Its path, or null when it is not to be had. */
  path: string | null;
  /** Why it is not to be had. */
  missing: string;
}

export const TEMPLATE_DATABASE = 'countersign_template';

export default async function setup(project: TestProject) {
  const folder = mkdtempSync(join(tmpdir(), 'countersign-template-'));
  project.provide('sqliteTemplate', await migratedFile(folder));
  const missing = ensureInstalled(thisMachine);
  for (const part of ['chromium', 'nginx', 'python', 'authlib'] as const)
    project.provide(part, { path: programOf(part), missing: missing[part] ?? '' });
  const { postgres, redis, stop } = await startServices(['postgres', 'redis']);
  project.provide('postgres', postgres);
  project.provide('redis', redis);
  return async () => {
    rmSync(folder, { recursive: true, force: true });
    await stop();
  };
}

/** Databases of tests are copies of one that is already migrated. */
async function migratedFile(folder: string): Promise<string> {
  const location = join(folder, 'countersign.db');
  await migrate(location);
  return location;
}

async function migrate(location: string) {
  const store = await openStore({ location });
  await store.exclusively(() => store.migrate());
  await store.close();
}

type Services = Record<'postgres' | 'redis', Service> & { stop(): Promise<void> };

/** Starts those of the wanted parts that are to be had, after installing what may be installed. */
export async function startServices(wanted: readonly Part[]): Promise<Services> {
  const missing = ensureInstalled(thisMachine, wanted);
  const folder = mkdtempSync(join(quickestFolder(), 'countersign-services-'));
  const children: ChildProcess[] = [];
  async function stopAll() {
    await Promise.all(children.map(stop));
    rmSync(folder, { recursive: true, force: true });
  }
  async function provided(part: 'postgres' | 'redis', start: typeof startPostgres): Promise<Service> {
    if (!wanted.includes(part)) return { url: null, missing: `${part} was not asked for` };
    const reason = missing[part];
    if (reason !== undefined) return { url: null, missing: reason };
    return { url: await start(folder, children), missing: '' };
  }
  try {
    return {
      postgres: await provided('postgres', startPostgres),
      redis: await provided('redis', startRedis),
      stop: stopAll,
    };
  } catch (error) {
    await stopAll();
    throw error;
  }
}

const MEMORY = '/dev/shm';
const MEMORY_BYTES_MIN = 4 * 2 ** 30;

/** Memory, where there is plenty: a database made for each test is a few hundred files, and all of it goes with the run. */
function quickestFolder(): string {
  if (!existsSync(MEMORY)) return tmpdir();
  const { bavail, bsize } = statfsSync(MEMORY);
  return bavail * bsize >= MEMORY_BYTES_MIN ? MEMORY : tmpdir();
}

interface User {
  uid: number;
  gid: number;
}

async function startPostgres(parent: string, children: ChildProcess[]): Promise<string> {
  const { url, port, command, folder, user } = await newCluster(parent);
  children.push(spawnBound(command, folder, user));
  await listening(port);
  await prepareTemplate(url);
  return url;
}

/** A PostgreSQL cluster in a folder below `parent`, and how it is started. */
export async function newCluster(parent: string) {
  const binaries = postgresBinaries() ?? '';
  const user = unprivileged();
  const folder = folderOf(parent, 'postgres', user);
  const data = join(folder, 'data');
  execFileSync(
    join(binaries, 'initdb'),
    ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C.UTF-8', '-N'],
    { ...user, cwd: folder, stdio: 'pipe' },
  );
  const port = await freePort();
  const settings = {
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
    fsync: 'off',
    max_connections: 300,
  };
  const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  return {
    url: `postgres://postgres@127.0.0.1:${port}`,
    port,
    command: [join(binaries, 'postgres'), '-D', data, ...flags],
    folder,
    user,
  };
}

async function prepareTemplate(url: string) {
  const client = await connectWhenReady(`${url}/postgres`);
  await client.query(`CREATE DATABASE ${TEMPLATE_DATABASE}`);
  await client.end();
  await migrate(`${url}/${TEMPLATE_DATABASE}`);
}

/** Resolves once the server lets somebody in. */
export async function connectWhenReady(connectionString: string): Promise<pg.Client> {
  for (;;) {
    const client = new pg.Client({ connectionString });
    try {
      await client.connect();
      return client;
    } catch (error) {
      // cannot_connect_now: it listens and is still starting up.
      if ((error as { code?: string }).code !== '57P03') throw error;
    }
    await sleep(25);
  }
}

async function startRedis(parent: string, children: ChildProcess[]): Promise<string> {
  const port = await freePort();
  const settings = {
    port,
    bind: '127.0.0.1',
    save: '',
    appendonly: 'no',
    'maxmemory-policy': 'noeviction',
  };
  const flags = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, `${value}`]);
  children.push(spawnBound([binary('redis-server') ?? '', ...flags], folderOf(parent, 'redis')));
  await listening(port);
  return `redis://127.0.0.1:${port}`;
}

function folderOf(parent: string, name: string, user?: User): string {
  const folder = join(parent, name);
  mkdirSync(folder);
  if (user) {
    chownSync(parent, user.uid, user.gid);
    chownSync(folder, user.uid, user.gid);
  }
  return folder;
}

/**
 * Ends the service and removes its folder once standard input closes. The kernel closes it when the run ends in any
 * way, `kill -9` included, so no cluster outlives its run. SIGINT is PostgreSQL's fast shutdown and Redis' orderly one.
 */
const BOUND = `folder=$1; shift
"$@" & service=$!
cat > /dev/null
kill -INT $service 2> /dev/null
wait $service
cd / && rm -rf "$folder" && rmdir "$(dirname "$folder")" 2> /dev/null`;

/** Starts a service that cannot outlive this process. It leads a group of its own: a Ctrl-C is ours to pass on. */
export function spawnBound(command: readonly string[], folder: string, user?: User): ChildProcess {
  return spawn('sh', ['-c', BOUND, 'sh', folder, ...command], {
    ...user,
    cwd: folder,
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
}

async function stop(child: ChildProcess) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.stdin?.end();
  await exited;
}

/** initdb refuses root: as root, the cluster belongs to somebody else. */
function unprivileged(): User | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const users = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  const [, , uid, gid] =
    users.find(([name]) => name === 'postgres') ?? users.find(([name]) => name === 'nobody') ?? [];
  return uid && gid ? { uid: Number(uid), gid: Number(gid) } : undefined;
}

/** Below the ports that the system gives to outgoing connections, one of which might otherwise be quicker. */
const PORTS = { first: 12_000, last: 32_000 };

/** A port that nobody listens on, for somebody who will in a moment. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(PORTS.first, PORTS.last);
    if (await canListen(port)) return port;
  }
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

export async function listening(port: number, timeoutMs = 20_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await accepts(port))) {
    if (performance.now() > deadline)
      throw new Error(`Nothing listens on port ${port} after ${timeoutMs} ms`);
    await sleep(25);
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
