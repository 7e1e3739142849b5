import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { openStore } from '../../db/store.ts';
import {
  type Dialect,
  describeOnEachDialect,
  emptyDatabase,
  freshFolder,
  MASTER_KEY,
} from '../support/deps.ts';
import { ownRedis } from '../support/redis.ts';
import { launchServer, type RunningServer, send, startServer, whyNoTerminal } from '../support/server.ts';
import { describeMode } from '../workers/transports.ts';

const GIVEN_KEY = { COUNTERSIGN_MASTER_KEY: MASTER_KEY.toString('base64') };

/** The environment of a server on a database with nothing in it. */
async function environment(dialect: Dialect): Promise<NodeJS.ProcessEnv> {
  return dialect === 'sqlite' ? {} : { DATABASE_URL: await emptyDatabase(dialect), ...GIVEN_KEY };
}

const dataFolder = () => join(freshFolder(), 'data');

/** What a server that refuses to start says, and its exit code. */
async function refusal(env: NodeJS.ProcessEnv, args: string[] = []) {
  const launched = await launchServer(env, { args });
  const code = await launched.exit;
  return { code, output: launched.stdout() + launched.stderr() };
}

const create = (server: RunningServer, name: string) => server.call('machines.create', { name });

async function machineNames(server: RunningServer): Promise<string[]> {
  const { body } = await server.call('machines.list', {
    limit: 500,
    orderBy: 'name',
    direction: 'ascending',
  });
  return body.result.data.data.map((machine: { name: string }) => machine.name);
}

/** Every row of the installation and the log, and every file, to compare. */
async function snapshot(dataDir: string): Promise<string> {
  const store = await openStore({ location: join(dataDir, 'countersign.db') });
  try {
    const { db, tables } = store.read;
    const all = [tables.installation, tables.wrappedKeys, tables.secretKeys, tables.events, tables.eventHead];
    const rows = await Promise.all(all.map((table) => db.select().from(table)));
    return JSON.stringify([rows, readdirSync(dataDir).sort()]);
  } finally {
    await store.close();
  }
}

describeOnEachDialect('server/main', (dialect) => {
  it('starts on nothing, says where and what next, and shows the first key to no pipe', async () => {
    const dataDir = dataFolder();
    const server = await startServer(dataDir, await environment(dialect));
    const lines = server.stdout().trim().split('\n');
    expect(lines).toEqual([
      `Countersign, machine authentication, is ready at ${server.url}`,
      `Data directory: ${dataDir}`,
      `First secret key: ${join(dataDir, 'first-secret-key')}`,
      `Console: ${server.url}/console/`,
      dialect === 'sqlite' ? `Master key: ${join(dataDir, 'master-key')}` : 'Master key: as given',
      'Lose this master key and every credential dies; back it up apart from the database',
      `Next: COUNTERSIGN_URL=${server.url} COUNTERSIGN_DATA_DIR='${dataDir}' npm run demo`,
    ]);
    expect((await create(server, 'billing')).status).toBe(200);
    expect(server.stdout() + server.stderr()).not.toContain(server.adminKey);
    for (const file of readdirSync(dataDir)) expect(statSync(join(dataDir, file)).mode & 0o077).toBe(0);
  });

  it('starts again on what it left, with the same key, and makes no new one', async () => {
    const dataDir = dataFolder();
    const env = await environment(dialect);
    const first = await startServer(dataDir, env);
    await create(first, 'billing');
    expect(await first.stop()).toBe(0);
    const second = await startServer(dataDir, env);
    expect(second.adminKey).toBe(first.adminKey);
    expect(second.stdout()).not.toContain('Lose this master key');
    expect(await machineNames(second)).toEqual(['billing']);
  });

  it('keeps every acknowledged write through kill -9, and a log without gaps', async () => {
    const dataDir = dataFolder();
    const env = await environment(dialect);
    const server = await startServer(dataDir, env);
    const acknowledged = await createUntilKilled(server, 60);
    const again = await startServer(dataDir, env);
    const names = new Set(await machineNames(again));
    expect(acknowledged.filter((name) => !names.has(name))).toEqual([]);
    const { body } = await again.call('events.list', { limit: 500 });
    const events: { seq: number; type: string }[] = body.result.data.data;
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
    expect(events.filter(({ type }) => type === 'machine.created')).toHaveLength(names.size);
  });
});

/** Eight callers create machines until the server is killed under them; answers the names that were acknowledged. */
async function createUntilKilled(server: RunningServer, enough: number): Promise<string[]> {
  const acknowledged: string[] = [];
  async function createMany(caller: number) {
    for (let i = 0; ; i++) {
      const name = `machine-${caller}-${i}`;
      const answer = await create(server, name).catch(() => null);
      if (answer === null) return;
      expect(answer.status).toBe(200);
      acknowledged.push(name);
      if (acknowledged.length === enough) server.process.kill('SIGKILL');
    }
  }
  await Promise.all(Array.from({ length: 8 }, (_, caller) => createMany(caller)));
  expect(await server.exit).toBe('SIGKILL');
  expect(acknowledged.length).toBeGreaterThanOrEqual(enough);
  return acknowledged;
}

const noTerminal = whyNoTerminal();

describe.skipIf(noTerminal)(
  `server/main in a terminal${noTerminal ? ` [skipped: ${noTerminal}]` : ''}`,
  () => {
    it('shows the first key there, the first time only, and leaves in order at ^C', async () => {
      const dataDir = dataFolder();
      const first = await startServer(dataDir, {}, { inTerminal: true });
      const lines = first.stdout().split('\n');
      const place = lines.indexOf(`First secret key: ${join(dataDir, 'first-secret-key')}`);
      expect(lines[place + 1]).toBe(`  ${first.adminKey}`);
      expect(lines[place + 2]).toMatch(
        /^Console, once and within 15 minutes: http:.*\/console\/#link=csl_\w{49}$/,
      );
      first.process.stdin?.write('\x03');
      expect(await first.exit).toBe(0);
      expect(first.stdout()).toContain('"shut down"');

      const second = await startServer(dataDir, {}, { inTerminal: true });
      expect(second.stdout()).not.toContain(second.adminKey);
      expect(second.stdout()).not.toContain('#link=');
      second.process.stdin?.write('\x03');
      expect(await second.exit).toBe(0);
    });
  },
);

describe('server/main refuses to start', () => {
  it('on settings that are not as wanted, all of them named and no secret shown', async () => {
    const dataDir = dataFolder();
    const { code, output } = await refusal({
      PORT: 'http',
      COUNTERSIGN_DATA_DIR: dataDir,
      COUNTERSIGN_MASTER_KEY: 'hunter2hunter2',
      COUNTERSIGN_MASTERKEY: 'hunter2hunter2',
      DATABASE_URL: 'mysql://app:hunter2@db',
    });
    expect(code).toBe(1);
    expect(output).toContain("PORT: wanted a whole number from 0 to 65535, found 'http'");
    expect(output).toContain('COUNTERSIGN_MASTERKEY: wanted a known setting, such as COUNTERSIGN_MASTER_KEY');
    expect(output).toContain('64 hex digits, found text of 14 characters');
    expect(output).not.toMatch(/hunter2|\n {4}at /);
    expect(existsSync(dataDir)).toBe(false);
  });

  it('with an argument it does not know', async () => {
    const { code, output } = await refusal({ COUNTERSIGN_DATA_DIR: dataFolder() }, ['--serveronly']);
    expect(code).toBe(1);
    expect(output).toContain("wanted '--server-only' or none, found '--serveronly'");
  });

  it('on a port that is taken, before it makes anything', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => void other.close());
    await once(other, 'listening');
    const { port } = other.address() as { port: number };
    const dataDir = dataFolder();
    const { code, output } = await refusal({ PORT: `${port}`, COUNTERSIGN_DATA_DIR: dataDir });
    expect([code, output]).toEqual([
      1,
      `Cannot start: port ${port} of 127.0.0.1 is in use; choose another with PORT\n`,
    ]);
    expect(existsSync(dataDir)).toBe(false);
  });

  it('on a PostgreSQL that is not there, without its password', async () => {
    const { code, output } = await refusal({
      COUNTERSIGN_DATA_DIR: dataFolder(),
      DATABASE_URL: 'postgres://app:hunter2@127.0.0.1:1/none',
      ...GIVEN_KEY,
    });
    expect(code).toBe(1);
    expect(output).toMatch(/^Cannot start: the database cannot be opened: connect ECONNREFUSED/m);
    expect(output).not.toContain('hunter2');
  });

  it.each([
    [
      'another',
      () => ({ COUNTERSIGN_MASTER_KEY: Buffer.alloc(32, 5).toString('base64') }),
      /not the one this/,
    ],
    ['a missing', (dataDir: string) => rmSync(join(dataDir, 'master-key')), /The master key is missing/],
  ])(
    'with %s master key: rows and files stay as they were, and no value is shown',
    async (_what, alter, said) => {
      const dataDir = dataFolder();
      const server = await startServer(dataDir);
      await create(server, 'billing');
      expect(await server.stop()).toBe(0);
      const kept = readFileSync(join(dataDir, 'master-key'), 'utf8').trim();
      const env = alter(dataDir) ?? {};
      const before = await snapshot(dataDir);
      const { code, output } = await refusal({ COUNTERSIGN_DATA_DIR: dataDir, ...env });
      expect(code).toBe(1);
      expect(output).toMatch(said);
      for (const key of [kept, ...Object.values(env)]) expect(output).not.toContain(key);
      expect(await snapshot(dataDir)).toBe(before);
    },
  );
});

describe('server/main on SIGTERM', () => {
  it('is told by npm when it was started by `npm start`, and puts everything in order', async () => {
    const server = await startServer(dataFolder(), {}, { byNpm: 'as typed' });
    await server.stop('SIGTERM');
    expect(server.log().map((line) => line['msg'])).toContain('shut down');
    await expect(fetch(server.url)).rejects.toThrow();
  });

  it('answers the request in flight, takes no other, and exits 0', async () => {
    const server = await startServer(dataFolder());
    const answer = await halfSent(server, async () => {
      server.process.kill('SIGTERM');
      await server.printed('stderr', /shutting down/);
      await expect(send(`${server.url}/healthz`)).rejects.toThrow();
    });
    expect(answer).toBe(200);
    expect(await server.exit).toBe(0);
    expect(server.log().at(-1)).toMatchObject({ msg: 'shut down' });
    // Everything is in the one file: who copies it has it all.
    expect(readdirSync(server.dataDir).filter((file) => /-(wal|shm)$/.test(file))).toEqual([]);
    const again = await startServer(server.dataDir);
    expect(await machineNames(again)).toEqual(['in-flight']);
  });

  it('exits 1 at once when told a second time', async () => {
    const server = await startServer(dataFolder());
    await expect(
      halfSent(server, async () => {
        server.process.kill('SIGTERM');
        await server.printed('stderr', /shutting down/);
        server.process.kill('SIGTERM');
        expect(await server.exit).toBe(1);
      }),
    ).rejects.toThrow(/socket hang up|ECONNRESET/);
  });
});

/** Sends half of a request that creates a machine, the rest once `meanwhile` is done; answers the status. */
async function halfSent(server: RunningServer, meanwhile: () => Promise<void>): Promise<number | undefined> {
  const body = JSON.stringify({ name: 'in-flight' });
  const half = request(`${server.url}/trpc/machines.create`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${server.adminKey}`,
      'content-type': 'application/json',
      'content-length': body.length,
      // The server says that it has begun to read by asking for more.
      expect: '100-continue',
    },
  });
  const answered = once(half, 'response');
  answered.catch(() => {});
  half.flushHeaders();
  await once(half, 'continue');
  half.write(body.slice(0, 5));
  await meanwhile();
  half.end(body.slice(5));
  const [response] = await answered;
  response.resume();
  return response.statusCode;
}

describeMode('server/main with Redis', ['redis'], () => {
  it('says what is degraded while Redis is away, and no longer once it is back', async () => {
    const redis = await ownRedis();
    await redis.start();
    const server = await startServer(dataFolder(), { REDIS_URL: redis.url });
    const degraded = async () => (await send(`${server.url}/readyz`)).body.degraded;
    await vi.waitFor(async () => expect(await degraded()).toBeNull(), { timeout: 10_000 });
    await redis.kill();
    await vi.waitFor(
      async () =>
        expect(await degraded()).toBe(
          'Redis cannot be reached: what is due is done by the process that finds it; Redis cannot be reached: rate limits are counted by each process alone',
        ),
      { timeout: 10_000 },
    );
    await redis.start();
    await vi.waitFor(async () => expect(await degraded()).toBeNull(), { timeout: 10_000 });
    expect(await server.stop()).toBe(0);
  });

  it('two servers of one installation count what a machine mints together', async () => {
    const redis = await ownRedis();
    await redis.start();
    const dataDir = dataFolder();
    const env = { REDIS_URL: redis.url };
    const [one, other] = await Promise.all([startServer(dataDir, env), startServer(dataDir, env)]);
    for (const { url } of [one, other]) {
      const degraded = async () => (await send(`${url}/readyz`)).body.degraded;
      await vi.waitFor(async () => expect(await degraded()).toBeNull(), { timeout: 10_000 });
    }
    // Again with another machine where Redis was too slow and each server counted alone.
    await vi.waitFor(async () => expect(await mintedOf20(one, other)).toBe(5), { timeout: 20_000 });
  });
});

/** How many of 20 tokens, asked of two servers at once, a machine gets that may mint 5 in a minute. */
async function mintedOf20(one: RunningServer, other: RunningServer): Promise<number> {
  const name = `machine-${randomUUID()}`;
  const { body } = await one.call('machines.create', { name, mintsPerMinuteMax: 5 });
  const headers = {
    authorization: `Bearer ${body.result.data.secret}`,
    'content-type': 'application/json',
  };
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, i) =>
      send(`${(i % 2 ? one : other).url}/v1/m2m_tokens`, { method: 'POST', headers, body: '{}' }),
    ),
  );
  const refused = answers.filter(({ status }) => status !== 201);
  for (const answer of refused) {
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(answer).toMatchObject({
      status: 429,
      body: { errors: [{ code: 'rate_limited', meta: { retry_after_ms: expect.any(Number) } }] },
    });
  }
  return answers.length - refused.length;
}
