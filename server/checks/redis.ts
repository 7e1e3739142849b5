/** What the doctor looks at in Redis. */
import { isPostgres } from '../../db/store.ts';
import type { Config } from '../config.ts';
import { connectRedis } from '../redis.ts';
import { type Check, messageOf, ok, problem, type Seen, warning } from './finding.ts';

const CONNECT_MS_MAX = 5_000;
/** What BullMQ advises (https://docs.bullmq.io/guide/redis-tm-compatibility). */
const VERSION_WANTED = [6, 2] as const;
/** What BullMQ refuses to work with less than. */
const VERSION_NEEDED = [5, 0] as const;

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

export function judge(info: ReadonlyMap<string, string>): Seen {
  const version = info.get('redis_version') ?? 'unknown';
  // Nothing depends on it: what is owed is in rows. Limits begin anew with a Redis that forgot them.
  const keeps = info.get('aof_enabled') === '1' ? 'an append-only file' : 'no append-only file';
  const found = `${version}, ${info.get('role') ?? 'unknown'}, ${keeps}`;
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
  if (isOlder(version, VERSION_NEEDED))
    return problem(`${found}: workers refuse it`, `Use ${VERSION_WANTED.join('.')} or newer`);
  if (isOlder(version, VERSION_WANTED)) return warning(found, `Use ${VERSION_WANTED.join('.')} or newer`);
  return ok(found);
}

function isOlder(version: string, [wantedMajor, wantedMinor]: readonly [number, number]): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major < wantedMajor || (major === wantedMajor && minor < wantedMinor);
}

const parseInfo = (text: string): ReadonlyMap<string, string> =>
  new Map(
    text
      .split('\r\n')
      .filter((line) => line.includes(':'))
      .map((line) => line.split(/:(.*)/, 2) as [string, string]),
  );
