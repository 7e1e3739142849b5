/** Redis of a test's own, alone, with Sentinels or as a Cluster, that may be killed, paused, filled and emptied. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { onTestFinished } from 'vitest';
import { parseRedisUrl, type RedisServers } from '../../server/config.ts';
import { freshFolder, type WhenDone } from './deps.ts';
import { binary } from './packages.ts';
import { freePort, listening } from './services.ts';

/** It is started by the test, as often as it likes on the same port, and is gone when the test ends. */
export async function ownRedis(whenDone: WhenDone = onTestFinished) {
  const node = await redisNode([], whenDone);
  return {
    ...node,
    url: `redis://127.0.0.1:${node.port}`,
    /** Forgets all it knows, and keeps the connections it has. */
    async empty() {
      const redis = new Redis(node.port);
      await redis.flushall().finally(() => redis.disconnect());
    },
  };
}

/** What `REDIS_URL` with this value means. */
export function redisAt(url: string): RedisServers {
  const servers = parseRedisUrl(url);
  if (!servers) throw new Error(`No URL of a Redis: ${url}`);
  return servers;
}

/** A connection that goes when the test ends. */
export function connectTo(url: string): Redis {
  const redis = new Redis(url);
  onTestFinished(() => redis.disconnect());
  return redis;
}

/** One process of redis-server, with further settings. */
async function redisNode(settings: readonly string[], whenDone: WhenDone, config: readonly string[] = []) {
  const port = await freePort();
  const folder = freshFolder(whenDone);
  let child: ChildProcess | undefined;

  async function start() {
    const all = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', ...settings];
    child = spawn(binary('redis-server') ?? '', [...config, ...all], { cwd: folder, stdio: 'ignore' });
    await listening(port);
  }
  async function kill() {
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
  whenDone(kill);
  return {
    port,
    start,
    kill,
    /** Keeps its connections and answers nothing. */
    pause: () => child?.kill('SIGSTOP'),
    resume: () => child?.kill('SIGCONT'),
  };
}

type Node = Awaited<ReturnType<typeof redisNode>>;

const PASSWORD = 'red:is@1';
const SENTINEL_PASSWORD = 'sentinel';
const LOGIN = `default:${encodeURIComponent(PASSWORD)}`;
const MASTER = 'main';
/** How long one is silent before the others call it dead. */
const DEAD_MS = 1_000;
const PATIENCE_MS = 30_000;

/** Does one thing on a node over a connection of its own. */
async function on<T>(port: number, password: string, work: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(port, { password });
  try {
    return await work(redis);
  } finally {
    redis.disconnect();
  }
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`Waited ${PATIENCE_MS} ms until ${what}`);
    await sleep(50);
  }
}

/** A master, its replica and three Sentinels, each with its password. */
export async function ownSentinels(whenDone: WhenDone = onTestFinished) {
  const login = ['--requirepass', PASSWORD, '--masterauth', PASSWORD];
  const master = await redisNode(login, whenDone);
  await master.start();
  const replica = await redisNode([...login, '--replicaof', `127.0.0.1 ${master.port}`], whenDone);
  await replica.start();
  const sentinels = await Promise.all([1, 2, 3].map(() => startSentinel(master, whenDone)));
  const ask = (port: number, ...command: [string, ...string[]]) =>
    on(port, SENTINEL_PASSWORD, (redis) => redis.call(...command)) as Promise<unknown>;
  await until('every Sentinel knows the others and the replica', async () => {
    const known = await Promise.all(
      sentinels.map(async ({ port }) =>
        Promise.all([
          ask(port, 'SENTINEL', 'CKQUORUM', MASTER),
          ask(port, 'SENTINEL', 'REPLICAS', MASTER),
        ]).then(
          ([quorum, replicas]) => /^OK 3 /.test(String(quorum)) && (replicas as unknown[]).length === 1,
          () => false,
        ),
      ),
    );
    return known.every(Boolean);
  });
  const hosts = sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',');
  return {
    url: `redis+sentinel://${LOGIN}@${hosts}/${MASTER}?sentinel_password=${SENTINEL_PASSWORD}`,
    /** Ends the master, as `kill -9` does: the replica takes over within seconds. */
    killMaster: master.kill,
  };
}

async function startSentinel(master: Node, whenDone: WhenDone): Promise<Node> {
  // Sentinels write down what they learn, so each has a file of its own.
  const path = join(freshFolder(whenDone), 'sentinel.conf');
  const settings = [
    `sentinel monitor ${MASTER} 127.0.0.1 ${master.port} 2`,
    `sentinel auth-pass ${MASTER} ${PASSWORD}`,
    `sentinel down-after-milliseconds ${MASTER} ${DEAD_MS}`,
    `sentinel failover-timeout ${MASTER} 5000`,
    `sentinel sentinel-pass ${SENTINEL_PASSWORD}`,
    `requirepass ${SENTINEL_PASSWORD}`,
  ];
  writeFileSync(path, `${settings.join('\n')}\n`);
  const sentinel = await redisNode(['--sentinel'], whenDone, [path]);
  await sentinel.start();
  return sentinel;
}

const SLOTS = 16_384;
const MASTERS = 3;

/** Three masters with a replica each. */
export async function ownCluster(whenDone: WhenDone = onTestFinished) {
  const nodes = await Promise.all(
    Array.from({ length: 2 * MASTERS }, async () => {
      const busPort = await freePort();
      const settings = {
        'cluster-enabled': 'yes',
        'cluster-port': `${busPort}`,
        'cluster-node-timeout': `${DEAD_MS}`,
        requirepass: PASSWORD,
        masterauth: PASSWORD,
      };
      const flags = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
      const node = await redisNode(flags, whenDone);
      await node.start();
      return { ...node, busPort };
    }),
  );
  const tell = (port: number, ...command: [string, ...string[]]) =>
    on(port, PASSWORD, (redis) => redis.call(...command)) as Promise<unknown>;
  const [first] = nodes;
  const masters = nodes.slice(0, MASTERS);
  const bounds = (master: number) => [
    Math.ceil((master * SLOTS) / MASTERS),
    Math.ceil(((master + 1) * SLOTS) / MASTERS) - 1,
  ];
  for (const { port, busPort } of nodes.slice(1))
    await tell(first?.port ?? 0, 'CLUSTER', 'MEET', '127.0.0.1', `${port}`, `${busPort}`);
  for (const [i, { port }] of masters.entries())
    await tell(port, 'CLUSTER', 'ADDSLOTSRANGE', ...bounds(i).map(String));
  const everywhere = async (holds: (info: string) => boolean, ...command: [string, ...string[]]) =>
    (await Promise.all(nodes.map(({ port }) => tell(port, ...command)))).every((info) => holds(String(info)));
  await until('every node knows the others', () =>
    everywhere((info) => info.includes(`cluster_known_nodes:${nodes.length}`), 'CLUSTER', 'INFO'),
  );
  for (const [i, { port }] of nodes.slice(MASTERS).entries())
    await tell(port, 'CLUSTER', 'REPLICATE', String(await tell(masters[i]?.port ?? 0, 'CLUSTER', 'MYID')));
  await until('the Cluster is whole', async () => {
    const isWhole = await everywhere((info) => info.includes('cluster_state:ok'), 'CLUSTER', 'INFO');
    const replicas = await Promise.all(
      nodes.slice(MASTERS).map(({ port }) => tell(port, 'INFO', 'replication')),
    );
    return isWhole && replicas.every((info) => String(info).includes('master_link_status:up'));
  });
  const hosts = masters.map(({ port }) => `127.0.0.1:${port}`).join(',');
  return {
    url: `redis+cluster://${LOGIN}@${hosts}`,
    /** Ends the master that has a key, as `kill -9` does: its replica takes over within seconds. */
    async killMasterOf(key: string) {
      const slot = Number(await tell(first?.port ?? 0, 'CLUSTER', 'KEYSLOT', key));
      const owner = masters.find((_, i) => slot <= (bounds(i)[1] ?? 0));
      await owner?.kill();
    },
  };
}
