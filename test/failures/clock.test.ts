import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
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
import { latestInstant } from '../../server/domain/installation.ts';
import { ensureJobs, takeLease } from '../../server/domain/jobs.ts';
import { createLogger, type Logger } from '../../server/logger.ts';
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
import { newAccessToken, newApplication } from '../support/oauth-tokens.ts';
import { type Receiver, startReceiver, verifySignature } from '../support/receiver.ts';
import { subscribe } from '../workers/transports.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
/** A jump counts as one when it is more than an hour. */
const JUMP = HOUR + MINUTE;

const admin = callerWith('admin');
const silent = createLogger('silent');

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

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** Of processes that are opened from then on: does what they do every five seconds, and only when it is called. */
function upkeepByHand(): () => void {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  return () => void vi.advanceTimersByTime(5_000);
}

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

async function open(config: Config, logger: Logger = silent): Promise<Opened> {
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

async function reasonOf({ deps, verifier }: Opened, credential: string, audience?: string): Promise<string> {
  const answer = await call(deps, verifier, 'credentials.verify', { credential, audience });
  const { valid, reason } = answer as { valid: boolean; reason?: string };
  return valid ? 'valid' : (reason ?? '');
}

/** A token of a machine and one of an application, of which neither lives for more than an hour. */
async function newTokens({ deps, verifier }: Opened) {
  const newMachine = async (input: object) =>
    (await call(deps, verifier, 'machines.create', input)) as { id: string; secret: string };
  const receiver = await newMachine({ name: 'receiver' });
  const sender = await newMachine({ name: 'sender', mayCall: [receiver.id] });
  const { token } = (await call(deps, sender.secret, 'm2mTokens.create', { ttlSeconds: 5 })) as {
    token: string;
  };
  const { row } = await newApplication(deps);
  const { value } = await newAccessToken(deps, row);
  return {
    reasons: async (by: Opened) => [await reasonOf(by, token, receiver.id), await reasonOf(by, value)],
  };
}

const run = (deps: Deps, name: Parameters<typeof runJobOnce>[1], whenever = true) =>
  runJobOnce(deps, name, { logger: silent, metrics: createMetrics(), holder: 'proc_test', whenever });

/** Starts workers, which end with the test at the latest. */
async function work(deps: Deps) {
  const options = { redis: undefined, logger: silent, metrics: createMetrics(), role: 'all' as const };
  const workers = await startWorkers(deps, options);
  let closing: Promise<void> | undefined;
  const close = () => (closing ??= workers.close());
  onTestFinished(close);
  return { close };
}

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

  it.each([
    ['was closed', ({ close }: Opened) => close()],
    [
      'was killed when it had gone on for five seconds',
      async ({ deps }: Opened, keepUp: () => void) => {
        const now = deps.now();
        keepUp();
        await vi.waitFor(async () => expect(await latestInstant(deps.store)).toBeGreaterThanOrEqual(now));
      },
    ],
  ])(
    'back by an hour brings back nothing whose end no event tells, after a process that %s',
    async (_how, end) => {
      const [clocks, keepUp] = [moveableClocks(), upkeepByHand()];
      const config = await settings(dialect);
      const opened = await open(config);
      const tokens = await newTokens(opened);
      expect(await tokens.reasons(opened)).toEqual(['valid', 'valid']);
      clocks.pass(HOUR + MINUTE);
      expect(await tokens.reasons(opened)).toEqual(['expired', 'expired']);
      await end(opened, keepUp);
      clocks.setBy(-JUMP);
      expect(await tokens.reasons(await open(config))).toEqual(['expired', 'expired']);
    },
  );

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
    const first = await work(deps);
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
    await work(deps);
    await receiver.arrived(3);
    expect(new Set(receiver.received.map(({ headers }) => headers['webhook-id'])).size).toBe(2);
  });
});

/** Revokes something, and answers the webhook that tells it. */
async function toldOfRevocation({ deps }: Opened, receiver: Receiver) {
  const before = receiver.received.length;
  const { id } = await newKey(deps, 'revoked');
  await revokeApiKey(deps, admin, revokeApiKeyInput.parse({ id }));
  const workers = await work(deps);
  const webhook = await receiver.arrived(before + 1);
  await workers.close();
  return webhook;
}

describeOnEachDialect('a webhook', (dialect) => {
  it.each([
    ['began half an hour fast and was set right', 30 * MINUTE, -30 * MINUTE],
    ['was suspended for half an hour', 0, 30 * MINUTE],
  ])(
    'of a host that %s is of the time that its receiver has, also after a restart',
    async (_way, aheadMs, setMs) => {
      const clocks = moveableClocks();
      clocks.setBy(aheadMs);
      const config = await settings(dialect);
      const receiver = await startReceiver();
      const first = await open(config);
      const { secret } = await subscribe(first.deps, receiver.url, 'api_key.revoked');
      clocks.setBy(setMs);
      verifySignature(secret, await toldOfRevocation(first, receiver));
      await first.close();
      verifySignature(secret, await toldOfRevocation(await open(config), receiver));
    },
  );
});

describe('a time of day that is not the time of the process', () => {
  it('is told once, and again after it was right in between', async () => {
    const [clocks, keepUp] = [moveableClocks(), upkeepByHand()];
    const told: { level: string; aheadMs?: number }[] = [];
    await open(
      await settings('sqlite'),
      createLogger('info', { write: (line) => void told.push(JSON.parse(line)) }),
    );
    told.length = 0;
    for (const setMs of [0, 2 * MINUTE, 0, -2 * MINUTE, -2 * MINUTE, 0]) {
      clocks.setBy(setMs);
      keepUp();
    }
    expect(told.map(({ level }) => level)).toEqual(['warn', 'info', 'warn']);
    const [ahead, , behind] = told.map(({ aheadMs = 0 }) => Math.round(aheadMs / MINUTE));
    expect([ahead, behind]).toEqual([-2, 2]);
  });
});
