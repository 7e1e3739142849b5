/** Connections to Redis, however its servers are arranged. Loaded only by those who have one. */
import { Cluster, Redis } from 'ioredis';
import type { RedisServers } from './config.ts';

/** Commands are the same over both; the masters alone are asked, because scripts write. */
export type RedisConnection = Redis | Cluster;

export interface RedisManner {
  /** Without it commands wait for a connection; `false` has them fail at once. */
  enableOfflineQueue?: boolean;
  /** Times that a command is sent again after a connection broke; null for as often as it takes. */
  maxRetriesPerRequest: number | null;
  /** How long a command may take. */
  commandTimeout?: number;
  /** How long a connection may be silent while it owes an answer. */
  socketTimeout?: number;
  /** Once it says no, a connection that was lost is given up, copies of it included. */
  isWanted?: () => boolean;
}

const RETRY_MS = 100;
const RETRY_MS_MAX = 1_000;
/** A Sentinel or node that hangs is left for the next. */
const DISCOVERY_MS_MAX = 1_000;

/** Connects in the background, and again and again. Whether it is connected says its `status`. */
export function connectRedis(
  servers: RedisServers,
  { isWanted = () => true, ...manner }: RedisManner,
): RedisConnection {
  const retryStrategy = (times: number) => (isWanted() ? Math.min(times * RETRY_MS, RETRY_MS_MAX) : null);
  const redis = open(servers, manner, retryStrategy);
  // What is wrong is told by what fails; without a listener it would end the process.
  redis.on('error', () => {});
  return redis;
}

function open(
  servers: RedisServers,
  manner: Omit<RedisManner, 'isWanted'>,
  retryStrategy: (times: number) => number | null,
): RedisConnection {
  if (servers.kind === 'single') return new Redis(servers.url, { ...manner, retryStrategy });
  const { nodes, login } = servers;
  const tls = servers.tls && { tls: {} };
  if (servers.kind === 'sentinel') {
    return new Redis({
      ...manner,
      ...login,
      ...tls,
      sentinels: [...nodes],
      name: servers.master,
      db: servers.db,
      ...sentinelLogin(servers.sentinelLogin),
      ...(servers.tls && { sentinelTLS: {}, enableTLSForSentinelMode: true }),
      retryStrategy,
      sentinelRetryStrategy: retryStrategy,
      sentinelCommandTimeout: DISCOVERY_MS_MAX,
    });
  }
  const { enableOfflineQueue = true, ...ofNodes } = manner;
  return new Cluster([...nodes], {
    redisOptions: { ...ofNodes, ...login, ...tls },
    enableOfflineQueue,
    clusterRetryStrategy: retryStrategy,
    slotsRefreshTimeout: DISCOVERY_MS_MAX,
    // A certificate is for a name: nodes are known by theirs.
    ...(servers.tls && { dnsLookup: (name, found) => found(null, name) }),
  });
}

const sentinelLogin = ({ username, password }: { username?: string; password?: string }) => ({
  ...(username !== undefined && { sentinelUsername: username }),
  ...(password !== undefined && { sentinelPassword: password }),
});
