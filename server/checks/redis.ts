/** What the doctor looks at in Redis. */
import { isPostgres } from '../../db/store.ts';
import type { Config } from '../config.ts';
import { connectRedis } from '../redis.ts';
import { type Check, messageOf, ok, problem, type Seen, warning } from './finding.ts';

const CONNECT_MS_MAX = 5_000;
/** What BullMQ advises (https://docs.bullmq.io/guide/redis-tm-compatibility). */
const VERSION_WANTED = [6, 2] as const;

export const REDIS_CHECKS: readonly Check<Config>[] = [{ name: 'Redis', look: lookAtRedis }];

async function lookAtRedis({ redis: servers, databaseLocation }: Config): Promise<Seen> {
  if (!servers) {
    if (!isPostgres(databaseLocation)) return ok('none: this process wakes its own workers');
    return warning('none: each server counts rate limits for itself', 'Name one in REDIS_URL');
  }
  const redis = connectRedis(servers, {
    maxRetriesPerRequest: 1,
    commandTimeout: CONNECT_MS_MAX,
    isWanted: () => false,
  });
  try {
    return judge(parseInfo(await redis.info()));
  } catch (error) {
    return problem(
      `Cannot be reached: ${messageOf(error)}`,
      'Start it, or mend REDIS_URL. Meanwhile deliveries go on, later, and limits are counted for each process',
    );
  } finally {
    redis.disconnect();
  }
}

function judge(info: ReadonlyMap<string, string>): Seen {
  const version = info.get('redis_version') ?? 'unknown';
  const found = `${version}, ${info.get('role') ?? 'unknown'}`;
  const policy = info.get('maxmemory_policy');
  if (policy !== undefined && policy !== 'noeviction')
    return problem(
      `${found}, and evicts what does not fit ('${policy}'): jobs and limits vanish`,
      'CONFIG SET maxmemory-policy noeviction, and in redis.conf',
    );
  if (info.get('role') === 'slave')
    return problem(
      `${found}: nothing can be written to it`,
      'Name the master, or the Sentinels, in REDIS_URL',
    );
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major < VERSION_WANTED[0] || (major === VERSION_WANTED[0] && minor < VERSION_WANTED[1]))
    return warning(found, `Use ${VERSION_WANTED.join('.')} or newer`);
  return ok(found);
}

const parseInfo = (text: string): ReadonlyMap<string, string> =>
  new Map(
    text
      .split('\r\n')
      .filter((line) => line.includes(':'))
      .map((line) => line.split(/:(.*)/, 2) as [string, string]),
  );
