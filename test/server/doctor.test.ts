import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { eq } from 'drizzle-orm';
import { expect, inject, it } from 'vitest';
import { schemaVersion } from '../../db/migrations.ts';
import { openStore, type Rows } from '../../db/store.ts';
import type { Finding } from '../../server/checks/finding.ts';
import { openInstallation } from '../../server/domain/installation.ts';
import { ensureJobs } from '../../server/domain/jobs.ts';
import { type Dialect, describeOnEachDialect, freshDatabase, freshFolder } from '../support/deps.ts';
import { listen } from '../support/procedures.ts';
import { connectTo, ownRedis } from '../support/redis.ts';
import { type RunningServer, runProgram, startServer } from '../support/server.ts';
import { freePort } from '../support/services.ts';

const DAY_MS = 24 * 3_600_000;
const MASTER_KEY = Buffer.alloc(32, 7).toString('base64');

const OF_THE_TESTS = new Set(['Node', 'file system']);

async function examine(env: NodeJS.ProcessEnv, ...args: string[]) {
  const { code, stdout, stderr } = await runProgram('doctor', [...args, '--json'], env);
  expect(stderr).toBe('');
  const findings = JSON.parse(stdout) as Finding[];
  return {
    code,
    findings,
    of: (check: string) => findings.find((finding) => finding.check === check),
    /** What is wrong, but for the Node that runs the tests and where its folders are. */
    wrong: findings
      .filter(({ check, state }) => !OF_THE_TESTS.has(check) && (state === 'problem' || state === 'warning'))
      .map(({ check }) => check),
  };
}

/** An installation beside a server that works on it. */
async function served(dialect: Dialect) {
  const dataDir = freshFolder();
  const env: NodeJS.ProcessEnv = {
    COUNTERSIGN_DATA_DIR: dataDir,
    COUNTERSIGN_MASTER_KEY: MASTER_KEY,
    COUNTERSIGN_BOOTSTRAP_KEY: `sk_${'b'.repeat(48)}`,
    ...(dialect === 'postgres' && { DATABASE_URL: await freshDatabase('postgres') }),
  };
  const server = await startServer(dataDir, { ...env, COUNTERSIGN_LOG_LEVEL: 'warn' });
  await untilWorkersBegan(server);
  return { dataDir, env, server };
}

/** An installation that no process works on; `change` changes rows of it. */
async function installed(dialect: Dialect) {
  const location = await freshDatabase(dialect);
  const dataDir = dialect === 'sqlite' ? dirname(location) : freshFolder();
  chmodSync(dataDir, 0o700);
  async function change(work: (tx: Rows) => Promise<unknown>) {
    const store = await openStore({ location });
    await store.tx(work).finally(() => store.close());
  }
  const store = await openStore({ location });
  await store.migrate();
  const masterKey = Buffer.from(MASTER_KEY, 'base64');
  await openInstallation(store, { masterKey, signingAlg: 'ES256', now: Date.now });
  await ensureJobs({ store, now: Date.now });
  await store.close();
  if (dialect === 'sqlite') writeFileSync(`${location}.reserve`, '');
  const env: NodeJS.ProcessEnv = {
    COUNTERSIGN_DATA_DIR: dataDir,
    COUNTERSIGN_MASTER_KEY: MASTER_KEY,
    ...(dialect === 'postgres' && { DATABASE_URL: location }),
  };
  return { dataDir, env, change };
}

const untilWorkersBegan = (server: RunningServer) =>
  expect
    .poll(async () => (await server.call('jobs.list')).body.result.data.length, { timeout: 20_000 })
    .toBeGreaterThan(0);

/** What each file of a folder holds. That of `-shm` is SQLite's own index of the log, which is made anew when it is lost. */
const contentsOf = (folder: string) =>
  Object.fromEntries(
    readdirSync(folder).map((name) => [
      name,
      name.endsWith('-shm') ||
        createHash('sha256')
          .update(readFileSync(join(folder, name)))
          .digest('hex'),
    ]),
  );

const ENDPOINT = {
  id: 'ep_1',
  url: 'https://receiver.example/hook',
  event_types: [],
  enabled: false,
  disabled_reason: 'failing' as const,
  sealed_secret: Buffer.alloc(1),
  created_seq: 1,
  created_at: 1,
  updated_at: 1,
};

describeOnEachDialect('npm run doctor', (dialect) => {
  it('finds nothing to mend where nothing is wrong, beside a server, and leaves everything as it was', {
    timeout: 60_000,
  }, async () => {
    const { dataDir, env, server } = await served(dialect);
    const filesOf = () =>
      readdirSync(dataDir).map((name) => [name, statSync(join(dataDir, name)).size > 0 || null]);
    const before = filesOf();
    const found = await examine({ ...env, COUNTERSIGN_SECRET_KEY: server.adminKey }, server.url);
    // Without Redis each server on PostgreSQL counts limits for itself.
    expect([found.wrong, found.code]).toEqual([dialect === 'postgres' ? ['Redis'] : [], 0]);
    expect(found.findings.filter(({ state }) => state === 'ok').length).toBeGreaterThan(15);
    expect(found.of('feed')?.found).toMatch(/^heartbeats \d+ ms apart at most$/);
    expect(filesOf()).toEqual(before);
    expect(JSON.stringify(found.findings)).not.toContain(server.adminKey);
  });

  it('finds a master key of another database, a job that fails, a key that was not rotated, and a clock that was put back', async () => {
    const { env, change } = await installed(dialect);
    const [now, long] = [Date.now(), Date.now() - 40 * DAY_MS];
    await change(async ({ db, tables }) => {
      await db.update(tables.signingKeys).set({ activated_at: long });
      await db
        .update(tables.jobs)
        .set({ failures: 3, next_at: now + 60_000 })
        .where(eq(tables.jobs.name, 'expiry-sweep'));
      await db.update(tables.eventHead).set({ at: now + 60_000 });
    });
    const other = { ...env, COUNTERSIGN_MASTER_KEY: Buffer.alloc(32, 8).toString('base64') };
    const { code, of } = await examine(other);
    expect(code).toBe(1);
    expect(of('master key')).toMatchObject({
      state: 'problem',
      found: expect.stringContaining('not the one'),
    });
    expect(of('jobs')).toMatchObject({ state: 'problem', found: 'Failing: expiry-sweep (3 times in a row)' });
    expect(of('signing keys')).toMatchObject({
      state: 'problem',
      found: expect.stringContaining('since 40 days'),
    });
    expect(of('clock')).toMatchObject({ state: 'problem', found: expect.stringContaining('in the future') });
  });

  it('finds jobs that nobody runs, a next key that was not published, an endpoint that was disabled because it fails, and what was given up', async () => {
    const { env, change } = await installed(dialect);
    const now = Date.now();
    await change(async ({ db, tables }) => {
      await db.update(tables.jobs).set({ next_at: now - DAY_MS });
      await db.update(tables.signingKeys).set({ activated_at: now - 29.5 * DAY_MS });
      await db.insert(tables.webhookEndpoints).values(ENDPOINT);
    });
    const { of } = await examine(env);
    expect(of('jobs')).toMatchObject({
      state: 'problem',
      found: expect.stringMatching(/^Overdue: .*key-rotation/),
    });
    expect(of('signing keys')).toMatchObject({
      state: 'problem',
      found: expect.stringContaining('is not published'),
    });
    expect(of('webhooks')).toMatchObject({
      state: 'problem',
      found: expect.stringContaining('receiver.example'),
    });
    await change(async ({ db, tables }) => {
      await db.update(tables.webhookEndpoints).set({ enabled: true, disabled_reason: null });
      const attempt = { delivery_id: 'dlv_1', attempt: 1, began_at: now, ended_at: now };
      await db.insert(tables.deliveryAttempts).values(attempt);
      await db.insert(tables.deliveries).values({
        id: attempt.delivery_id,
        event_seq: 1,
        endpoint_id: ENDPOINT.id,
        state: 'dead',
        priority: 1,
        attempt: 1,
        next_at: now,
        created_at: now,
      });
    });
    expect((await examine(env)).of('webhooks')).toMatchObject({
      state: 'warning',
      found: '1 deliveries were given up within a day',
    });
  });

  it('finds a schema that was not migrated, and one that wants a newer binary, and asks nothing of either that it may lack', async () => {
    const { env, change } = await installed(dialect);
    const resting = ['signing keys', 'jobs', 'secrets due', 'webhooks'];
    const last = 'SELECT max(created_at) FROM __drizzle_migrations';
    await change(async ({ prepare }) =>
      prepare('undone', `DELETE FROM __drizzle_migrations WHERE created_at = (${last})`)([]),
    );
    const waiting = await examine(env);
    expect(waiting.of('schema')).toMatchObject({
      state: 'warning',
      mend: expect.stringContaining('Back it up first'),
    });
    expect(waiting.of('master key')?.state).toBe('ok');
    for (const check of resting) expect(waiting.of(check)?.state).toBe('skipped');
    expect([waiting.wrong, waiting.code]).toEqual([
      dialect === 'postgres' ? ['schema', 'Redis'] : ['schema'],
      0,
    ]);

    await change(({ db, tables }) =>
      db.update(tables.installation).set({ oldest_binary: schemaVersion() + 1 }),
    );
    const newer = await examine(env);
    expect(newer.of('schema')).toMatchObject({
      state: 'problem',
      found: expect.stringContaining('Start a newer version'),
    });
    for (const check of ['master key', ...resting]) expect(newer.of(check)?.state).toBe('skipped');
    expect(newer.code).toBe(1);
  });
});

it('leaves what a server that was killed left on disk as it is', async () => {
  const dataDir = freshFolder();
  const env = { COUNTERSIGN_DATA_DIR: dataDir };
  const server = await startServer(dataDir, { ...env, COUNTERSIGN_LOG_LEVEL: 'warn' });
  await untilWorkersBegan(server);
  await server.stop('SIGKILL');
  expect(existsSync(join(dataDir, 'countersign.db-wal'))).toBe(true);
  const before = contentsOf(dataDir);
  expect((await examine(env)).of('jobs')?.state).toBe('ok');
  expect(contentsOf(dataDir)).toEqual(before);
});

it('leaves a file alone that another host is using', async () => {
  const { dataDir, env } = await installed('sqlite');
  let beats = 0;
  const beat = () =>
    writeFileSync(join(dataDir, 'countersign.db.host'), `other elsewhere ${beats++}`.padEnd(512));
  beat();
  const timer = setInterval(beat, 100);
  const { of, code } = await examine(env).finally(() => clearInterval(timer));
  expect(of('host')).toMatchObject({
    state: 'problem',
    found: expect.stringContaining("'elsewhere' is using"),
  });
  expect(of('database')).toMatchObject({ state: 'skipped', found: 'Another host is using the file' });
  expect(code).toBe(1);
});

it('finds a file of the master key that cannot be read, is damaged, or waits to be replaced, and looks at the rest', async () => {
  const { dataDir, env } = await installed('sqlite');
  const ofFile = { COUNTERSIGN_DATA_DIR: env['COUNTERSIGN_DATA_DIR'] };
  const path = join(dataDir, 'master-key');
  mkdirSync(path, { mode: 0o700 });
  const unreadable = await examine(ofFile);
  expect(unreadable.of('master key')).toMatchObject({
    state: 'problem',
    found: expect.stringContaining('EISDIR'),
  });
  expect(unreadable.of('jobs')?.state).toBe('ok');
  rmSync(path, { recursive: true });

  writeFileSync(path, 'nonsense', { mode: 0o600 });
  expect((await examine(ofFile)).of('master key')).toMatchObject({
    state: 'problem',
    found: expect.stringContaining('is damaged: wanted 32 bytes'),
  });

  writeFileSync(`${path}.new`, MASTER_KEY, { mode: 0o600 });
  expect((await examine(ofFile)).of('master key')).toMatchObject({
    state: 'warning',
    mend: expect.stringContaining('npm run rotate:master-key'),
  });
});

it.skipIf(process.getuid?.() !== 0)('finds a file of another user than the directory', async () => {
  const { dataDir, env } = await installed('sqlite');
  chownSync(join(dataDir, 'countersign.db'), 12_345, 12_345);
  expect((await examine(env)).of('data directory')).toMatchObject({
    state: 'problem',
    mend: expect.stringContaining('chown -R'),
  });
});

it('finds files that others can read and a first secret key that was left, and changes none', {
  timeout: 60_000,
}, async () => {
  const dataDir = freshFolder();
  const env = { COUNTERSIGN_DATA_DIR: dataDir };
  const server = await startServer(dataDir, { ...env, COUNTERSIGN_LOG_LEVEL: 'warn' });
  await untilWorkersBegan(server);
  await server.stop();
  const before = contentsOf(dataDir);
  expect((await examine(env)).wrong).toEqual(['first secret key']);
  expect(contentsOf(dataDir)).toEqual(before);
  chmodSync(dataDir, 0o755);
  chmodSync(join(dataDir, 'master-key'), 0o644);
  rmSync(join(dataDir, 'countersign.db.reserve'));
  const { of, wrong } = await examine(env);
  expect(wrong).toEqual(['data directory', 'key files', 'first secret key', 'disk']);
  expect(of('data directory')?.mend).toContain(`chmod 0700 '${dataDir}'`);
  expect(of('key files')?.found).toContain('(mode 644)');
});

it('finds settings that cannot be, and those that lead callers astray', async () => {
  const dataDir = freshFolder();
  const bad = await examine({ COUNTERSIGN_DATA_DIR: dataDir, PORT: 'x', COUNTERSIGN_PUBLIC_ULR: 'y' });
  expect([bad.code, bad.wrong]).toEqual([1, ['settings']]);
  expect(bad.of('settings')?.found).toMatch(/COUNTERSIGN_PUBLIC_ULR: wanted .*; PORT: wanted/);
  expect(bad.of('database')).toMatchObject({ state: 'skipped' });

  const astray = await examine({
    COUNTERSIGN_DATA_DIR: join(dataDir, 'none'),
    COUNTERSIGN_HOST: '0.0.0.0',
    COUNTERSIGN_ALLOW_INSECURE_HTTP: 'true',
  });
  expect(astray.wrong).toEqual(['public URL']);
  const proxied = {
    COUNTERSIGN_DATA_DIR: dataDir,
    COUNTERSIGN_PUBLIC_URL: 'https://auth.example.com',
    UV_THREADPOOL_SIZE: '4',
  };
  expect((await examine(proxied)).wrong).toEqual(['threads', 'trusted proxies']);
  const clear = { COUNTERSIGN_DATA_DIR: dataDir, COUNTERSIGN_PUBLIC_URL: 'http://auth.example.com' };
  expect((await examine(clear)).wrong).toEqual(['public URL']);
  expect(existsSync(join(dataDir, 'countersign.db'))).toBe(false);
});

it('finds databases that cannot be reached, and says no password', async () => {
  const { code, findings, of } = await examine({
    COUNTERSIGN_DATA_DIR: freshFolder(),
    COUNTERSIGN_MASTER_KEY: MASTER_KEY,
    DATABASE_URL: 'postgres://app:hunter2@127.0.0.1:1/none',
    REDIS_URL: 'redis://:hunter2@127.0.0.1:1',
  });
  expect(code).toBe(1);
  expect(of('database')).toMatchObject({ state: 'problem', found: expect.stringContaining('ECONNREFUSED') });
  expect(of('schema')).toMatchObject({ state: 'skipped', found: 'The database cannot be read' });
  expect(of('Redis')).toMatchObject({
    state: 'problem',
    found: expect.stringContaining('Cannot be reached'),
  });
  expect(JSON.stringify(findings)).not.toContain('hunter2');
});

const { url: redisUrl, missing } = inject('redis');
it.skipIf(redisUrl === null)(
  `finds a Redis that evicts${redisUrl ? '' : ` [skipped: ${missing}]`}`,
  async () => {
    const redis = await ownRedis();
    await redis.start();
    const env = { COUNTERSIGN_DATA_DIR: freshFolder(), REDIS_URL: redis.url };
    expect((await examine(env)).of('Redis')?.state).toBe('ok');
    await connectTo(redis.url).config('SET', 'maxmemory-policy', 'allkeys-lru');
    expect((await examine(env)).of('Redis')).toMatchObject({
      state: 'problem',
      found: expect.stringContaining("'allkeys-lru'"),
      mend: expect.stringContaining('noeviction'),
    });
  },
);

it('finds a server that is not there, one of somebody else, and a proxy that gathers the feed', {
  timeout: 60_000,
}, async () => {
  const env = { COUNTERSIGN_DATA_DIR: freshFolder(), COUNTERSIGN_SECRET_KEY: `sk_${'b'.repeat(48)}` };
  const gone = await examine(env, `http://127.0.0.1:${await freePort()}/`);
  expect(gone.of('server')).toMatchObject({
    state: 'problem',
    found: expect.stringContaining('ECONNREFUSED'),
  });
  const gathering = await listen((request, response) => {
    response.writeHead(200, { date: new Date(Date.now() - 3_600_000).toUTCString() });
    if (request.url !== '/v1/feed') response.end('<html>');
    else
      for (let i = 0; i < 4; i++)
        setTimeout(() => response.write('event: heartbeat\ndata: {}\n\n'), i * 1_600);
  });
  const { of, code } = await examine(env, gathering.url);
  expect(code).toBe(1);
  expect(of('server')?.found).toContain('not as a server of ours');
  expect(of("server's clock")).toMatchObject({
    state: 'warning',
    found: expect.stringMatching(/^3(599|600) s apart/),
  });
  expect(of('JWKS')?.state).toBe('problem');
  expect(of('API')?.state).toBe('warning');
  expect(of('feed')).toMatchObject({
    state: 'problem',
    mend: expect.stringContaining('proxy_buffering off'),
  });
});

it('refuses what is neither a URL nor an option, and shows people aligned lines', async () => {
  const wrong = [
    ['--yaml'],
    ['ftp://host'],
    ['http://one', 'http://two'],
    ['http://host/path'],
    ['http://[bad'],
    ['http://user:password@host'],
  ];
  for (const ran of await Promise.all(wrong.map((args) => runProgram('doctor', args, {}))))
    expect(ran).toMatchObject({ code: 2, stdout: '' });
  const { stdout } = await runProgram('doctor', [], { COUNTERSIGN_DATA_DIR: freshFolder() });
  expect(stdout).toMatch(/^ok {7}settings {10}as wanted$/m);
  expect(stdout).toMatch(/\n0 problems, \d warnings, \d+ as they should be, \d+ not looked at\n$/);
});
