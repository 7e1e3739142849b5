import { randomUUID } from 'node:crypto';
import { beforeAll, expect, it } from 'vitest';
import { emptyDatabase, freshFolder, whenSuiteDone } from '../support/deps.ts';
import { describeMode } from '../workers/transports.ts';
import { createRaceClient } from './client.ts';
import { type Fleet, startFleet, type Transport } from './fleet.ts';
import { race } from './race.ts';

/** The run by command is longer: `npm run race-test`. */
const KEYS = 500;
const VERIFIER_KEYS = 100;

function suite(dialect: 'sqlite' | 'postgres', transport: Transport) {
  const whenDone = whenSuiteDone();
  let fleet: Fleet;

  beforeAll(async () => {
    const databaseUrl = dialect === 'postgres' ? await emptyDatabase(dialect, whenDone) : null;
    fleet = await startFleet({
      folder: freshFolder(whenDone),
      databaseUrl,
      processes: 3,
      transport,
      whenDone,
    });
  });

  it(`no credential is valid at any of them once revoking it at one has returned (${KEYS} API keys)`, {
    timeout: 300_000,
  }, async () => {
    const { keys, tokens, webhooks, zombies, lost, ended } = await race(fleet, {
      keys: KEYS,
      serverKills: 1,
      redisKills: 1,
    });
    expect({ zombies, lost }).toEqual({ zombies: [], lost: [] });
    expect(keys).toBe(KEYS);
    expect(tokens).toBeGreaterThanOrEqual(KEYS / 2);
    expect(webhooks).toBeGreaterThan(0);
    expect(Object.keys(ended)).toHaveLength(16);
  });

  it(`through a verifier for each none is valid 2 s later (${VERIFIER_KEYS} API keys)`, {
    timeout: 300_000,
  }, async () => {
    const { zombies, lost } = await race(fleet, {
      keys: VERIFIER_KEYS,
      serverKills: 1,
      redisKills: 0,
      throughVerifiers: true,
    });
    expect({ zombies, lost }).toEqual({ zombies: [], lost: [] });
  });

  it('1,000 concurrent verifications at all of them spend credits for 100 exactly once', async () => {
    expect(await passedOf1000({ credits: { remaining: 100 } }, (i) => i % fleet.urls.length)).toBe(100);
  });

  if (transport === 'embedded') {
    it('1,000 concurrent verifications at one of them never pass a rate limit of 100', async () => {
      const rateLimit = { count: 100, windowSeconds: 3_600 };
      expect(await passedOf1000({ rateLimit }, () => 0)).toBe(100);
    });
  }

  /** How many of 1,000 verifications of a new key at the same time were valid. */
  async function passedOf1000(limits: object, serverOf: (i: number) => number): Promise<number> {
    const client = await createRaceClient(fleet);
    const { id, secret } = await client.call('apiKeys.create', {
      name: randomUUID(),
      subject: 'user_1',
      ...limits,
    });
    const credential = { kind: 'API key', id, verifyBody: JSON.stringify({ credential: secret }) } as const;
    const verify = (_: unknown, i: number) => client.verify(serverOf(i), credential);
    const answers = await Promise.all(Array.from({ length: 1_000 }, verify));
    await client.close();
    return answers.filter((valid) => valid).length;
  }

  it('the race finds those that are, where somebody remembers what was valid', async () => {
    const { zombies } = await race(fleet, { keys: 20, serverKills: 0, redisKills: 0, rememberMs: 2_000 });
    expect(zombies.length).toBeGreaterThan(10);
  });
}

describeMode('three servers on one SQLite file', [], () => suite('sqlite', 'embedded'));
describeMode('three servers on one PostgreSQL database, over Redis', ['postgres', 'redis'], () =>
  suite('postgres', 'bullmq'),
);
