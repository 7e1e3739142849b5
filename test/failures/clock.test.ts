import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, it, onTestFinished, vi } from 'vitest';
import { type Config, loadConfig } from '../../server/config.ts';
import type { Deps } from '../../server/deps.ts';
import {
  createApiKey,
  createApiKeyInput,
  revokeApiKey,
  revokeApiKeyInput,
} from '../../server/domain/api-keys.ts';
import { claimDeliveries } from '../../server/domain/delivery-claims.ts';
import { expandEvents } from '../../server/domain/delivery-expansion.ts';
import { ensureJobs, takeLease } from '../../server/domain/jobs.ts';
import { createLogger } from '../../server/logger.ts';
import { createMetrics } from '../../server/metrics.ts';
import { openDeps } from '../../server/open.ts';
import { runJobOnce } from '../../workers/schedule.ts';
import { startWorkers } from '../../workers/workers.ts';
import { call } from '../support/calls.ts';
import {
  callerWith,
  type Dialect,
  describeOnEachDialect,
  emptyDatabase,
  freshFolder,
  MASTER_KEY,
} from '../support/deps.ts';
import { startReceiver } from '../support/receiver.ts';
import { subscribe } from '../workers/transports.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** A jump counts as one when it is more than an hour. */
const JUMP = HOUR + MINUTE;

const admin = callerWith('admin');
const logger = createLogger('silent');

/** The clocks of this process: `wall` is the time of day, `monotonic` what has passed. */
function moveableClocks() {
  const clocks = { wallMs: 0, monotonicMs: 0 };
  const { now } = Date;
  const passed = performance.now.bind(performance);
  vi.spyOn(Date, 'now').mockImplementation(() => now() + clocks.wallMs);
  vi.spyOn(performance, 'now').mockImplementation(() => passed() + clocks.monotonicMs);
  return {
    /** The time of day is set, and nothing passes. */
    setBy(ms: number) {
      clocks.wallMs += ms;
    },
    /** So much passes, whether or not anybody is running. */
    pass(ms: number) {
      clocks.wallMs += ms;
      clocks.monotonicMs += ms;
    },
  };
}

afterEach(() => vi.restoreAllMocks());

async function settings(dialect: Dialect): Promise<Config> {
  const env: NodeJS.ProcessEnv = {
    COUNTERSIGN_DATA_DIR: join(freshFolder(), 'data'),
    COUNTERSIGN_SIGNING_ALG: 'ES256',
  };
  if (dialect === 'postgres') {
    env['DATABASE_URL'] = await emptyDatabase(dialect);
    env['COUNTERSIGN_MASTER_KEY'] = MASTER_KEY.toString('hex');
  }
  return loadConfig(env);
}

interface Opened {
  deps: Deps;
  /** An admin key. */
  verifier: string;
  close(): Promise<void>;
}

async function open(config: Config): Promise<Opened> {
  const { deps, close } = await openDeps(config, { logger, metrics: createMetrics(), wake: () => {} });
  let closing: Promise<void> | undefined;
  const closeOnce = () => (closing ??= close());
  onTestFinished(closeOnce);
  await ensureJobs(deps);
  const verifier = readFileSync(join(config.dataDir, 'first-secret-key'), 'utf8').trim();
  return { deps, verifier, close: closeOnce };
}

const newKey = async (deps: Deps, name: string, ttlSeconds?: number) => {
  const input = createApiKeyInput.parse({ name, subject: 'user_1', ttlSeconds });
  const { id, secret = '' } = await createApiKey(deps, admin, input);
  return { id, secret };
};

async function reasonOf({ deps, verifier }: Opened, credential: string): Promise<string> {
  const answer = await call(deps, verifier, 'credentials.verify', { credential });
  const { valid, reason } = answer as { valid: boolean; reason?: string };
  return valid ? 'valid' : (reason ?? '');
}

const run = (deps: Deps, name: Parameters<typeof runJobOnce>[1], whenever = true) =>
  runJobOnce(deps, name, { logger, metrics: createMetrics(), holder: 'proc_test', whenever });

describeOnEachDialect('a time of day that is set', (dialect) => {
  it('back by an hour brings nothing back to life, in this process or the next, and purges wait', async () => {
    const clocks = moveableClocks();
    const config = await settings(dialect);
    const opened = await open(config);
    const { deps } = opened;
    const [expired, revoked] = [await newKey(deps, 'expired', 60), await newKey(deps, 'revoked')];
    clocks.pass(2 * MINUTE);
    await revokeApiKey(deps, admin, revokeApiKeyInput.parse({ id: revoked.id }));
    expect(await run(deps, 'expiry-sweep')).toMatchObject({ outcome: 'succeeded' });
    const before = deps.now();

    clocks.setBy(-JUMP);
    expect(deps.now()).toBeGreaterThanOrEqual(before);
    const dead = async (of: Opened) => [
      await reasonOf(of, expired.secret),
      await reasonOf(of, revoked.secret),
    ];
    expect(await dead(opened)).toEqual(['expired', 'revoked']);
    expect(await run(deps, 'm2m-token-sweep')).toMatchObject({ outcome: 'postponed' });
    expect(await run(deps, 'key-rotation')).toMatchObject({ outcome: 'succeeded' });
    await opened.close();
    expect(await dead(await open(config))).toEqual(['expired', 'revoked']);
  });

  it('forward by an hour ends nothing that is alive, and purges wait until it is right again', async () => {
    const clocks = moveableClocks();
    const opened = await open(await settings(dialect));
    const { deps } = opened;
    const key = await newKey(deps, 'alive', 30 * 60);
    clocks.setBy(JUMP);
    expect(await reasonOf(opened, key.secret)).toBe('valid');
    expect(await run(deps, 'api-key-purge')).toMatchObject({ outcome: 'postponed' });
    expect(await run(deps, 'key-rotation')).toMatchObject({ outcome: 'succeeded' });
    clocks.setBy(-JUMP);
    expect(await run(deps, 'api-key-purge')).toMatchObject({ outcome: 'succeeded' });
  });
});

describeOnEachDialect('a process that was stopped for two hours', (dialect) => {
  it('waits for nothing: what was claimed, leased or to be tried later is done at once, and what expired is dead', async () => {
    const clocks = moveableClocks();
    const opened = await open(await settings(dialect));
    const { deps } = opened;
    const receiver = await startReceiver(() => (receiver.received.length === 1 ? 500 : 200));
    const key = await newKey(deps, 'expires', 3_600);
    await subscribe(deps, receiver.url, 'api_key.created');

    // One delivery that failed, and is to be tried again in some seconds or minutes; one that is claimed; one job leased.
    const options = { redis: undefined, logger, metrics: createMetrics(), role: 'all' as const };
    const first = await startWorkers(deps, options);
    await newKey(deps, 'failed');
    await receiver.arrived(1);
    await first.close();
    await newKey(deps, 'claimed');
    await expandEvents(deps);
    expect(await claimDeliveries(deps, 10)).toHaveLength(1);
    expect(await takeLease(deps, 'm2m-token-sweep', 'proc_dead', { whenever: true })).not.toBeNull();

    clocks.pass(2 * HOUR);
    expect(deps.isTimeDoubtful()).toBe(false);
    expect(await reasonOf(opened, key.secret)).toBe('expired');
    expect(await run(deps, 'm2m-token-sweep', false)).toMatchObject({ outcome: 'succeeded' });
    const again = await startWorkers(deps, options);
    onTestFinished(() => again.close());
    await receiver.arrived(3);
    expect(new Set(receiver.received.map(({ headers }) => headers['webhook-id'])).size).toBe(2);
  });
});
