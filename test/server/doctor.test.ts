import { chmodSync, existsSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, inject, it } from 'vitest';
import { openStore } from '../../db/store.ts';
import type { Finding } from '../../server/checks/finding.ts';
import { lookAtNode } from '../../server/checks/host.ts';
import { describeOnEachDialect, freshDatabase, freshFolder } from '../support/deps.ts';
import { listen } from '../support/procedures.ts';
import { connectTo, ownRedis } from '../support/redis.ts';
import { type RunningServer, runProgram, startServer } from '../support/server.ts';
import { freePort } from '../support/services.ts';

const DAY_MS = 24 * 3_600_000;
const MASTER_KEY = Buffer.alloc(32, 7).toString('base64');

async function examine(env: NodeJS.ProcessEnv, ...args: string[]) {
  const { code, stdout, stderr } = await runProgram('doctor', [...args, '--json'], env);
  expect(stderr).toBe('');
  const findings = JSON.parse(stdout) as Finding[];
  return {
    code,
    findings,
    of: (check: string) => findings.find((finding) => finding.check === check),
    /** What is wrong, but for the age of the Node that runs the tests. */
    wrong: findings
      .filter(({ check, state }) => check !== 'Node' && (state === 'problem' || state === 'warning'))
      .map(({ check }) => check),
  };
}

async function installation(dialect: 'sqlite' | 'postgres') {
  const dataDir = freshFolder();
  const env: NodeJS.ProcessEnv = {
    COUNTERSIGN_DATA_DIR: dataDir,
    COUNTERSIGN_MASTER_KEY: MASTER_KEY,
    COUNTERSIGN_BOOTSTRAP_KEY: `sk_${'b'.repeat(48)}`,
    ...(dialect === 'postgres' && { DATABASE_URL: await freshDatabase('postgres') }),
  };
  const server = await startServer(dataDir, { ...env, COUNTERSIGN_LOG_LEVEL: 'warn' });
  await untilWorkersBegan(server);
  const location = env['DATABASE_URL'] ?? join(dataDir, 'countersign.db');
  return { dataDir, env, server, location };
}

const untilWorkersBegan = (server: RunningServer) =>
  expect
    .poll(async () => (await server.call('jobs.list')).body.result.data.length, { timeout: 20_000 })
    .toBeGreaterThan(0);

async function change(location: string, ...statements: string[]) {
  const store = await openStore({ location });
  try {
    await store.tx(async ({ prepare }) => {
      for (const [i, text] of statements.entries()) await prepare(`doctored_${i}`, text)([]);
    });
  } finally {
    await store.close();
  }
}

describeOnEachDialect('npm run doctor', (dialect) => {
  it('finds nothing to mend where nothing is wrong, beside a server, and leaves everything as it was', {
    timeout: 60_000,
  }, async () => {
    const { dataDir, env, server } = await installation(dialect);
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

  it('finds a master key of another database, a job that fails, a key that was not rotated, and what was not migrated', {
    timeout: 60_000,
  }, async () => {
    const { env, server, location } = await installation(dialect);
    await server.stop();
    const [now, long] = [Date.now(), Date.now() - 40 * DAY_MS];
    await change(
      location,
      `UPDATE signing_keys SET activated_at = ${long}`,
      `UPDATE jobs SET failures = 3, next_at = ${now + 60_000} WHERE name = 'expiry-sweep'`,
      `UPDATE event_head SET at = ${now + 60_000}`,
      'DELETE FROM __drizzle_migrations WHERE created_at = (SELECT max(created_at) FROM __drizzle_migrations)',
    );
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
    expect(of('schema')).toMatchObject({
      state: 'warning',
      mend: expect.stringContaining('Back it up first'),
    });
  });

  it('finds jobs that nobody runs, and an endpoint that was disabled because it fails', {
    timeout: 60_000,
  }, async () => {
    const { env, server, location } = await installation(dialect);
    await server.call('webhookEndpoints.create', { url: 'https://receiver.example/hook' });
    await server.stop();
    await change(
      location,
      `UPDATE jobs SET next_at = ${Date.now() - DAY_MS}`,
      "UPDATE webhook_endpoints SET disabled_reason = 'failing'",
    );
    const { of } = await examine(env);
    expect(of('jobs')).toMatchObject({
      state: 'problem',
      found: expect.stringMatching(/^Overdue: .*key-rotation/),
    });
    expect(of('webhooks')).toMatchObject({
      state: 'problem',
      found: expect.stringContaining('receiver.example'),
    });
  });
});

it('finds files that others can read, a first secret key that was left, and another host', {
  timeout: 60_000,
}, async () => {
  const dataDir = freshFolder();
  const env = { COUNTERSIGN_DATA_DIR: dataDir };
  const server = await startServer(dataDir, { ...env, COUNTERSIGN_LOG_LEVEL: 'warn' });
  await untilWorkersBegan(server);
  await server.stop();
  expect((await examine(env)).wrong).toEqual(['first secret key']);
  chmodSync(dataDir, 0o755);
  chmodSync(join(dataDir, 'master-key'), 0o644);
  writeFileSync(join(dataDir, 'countersign.db.host'), 'other elsewhere 0'.padEnd(512));
  rmSync(join(dataDir, 'countersign.db.reserve'));
  const { of, wrong } = await examine(env);
  expect(wrong).toEqual(['data directory', 'key files', 'first secret key', 'disk', 'host']);
  expect(of('data directory')?.mend).toContain(`chmod 0700 '${dataDir}'`);
  expect(of('key files')?.found).toContain('(mode 644)');
  expect(of('host')?.found).toContain("'elsewhere'");
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
  const proxied = { COUNTERSIGN_DATA_DIR: dataDir, COUNTERSIGN_PUBLIC_URL: 'https://auth.example.com' };
  expect((await examine(proxied)).wrong).toEqual(['trusted proxies']);
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
  const gone = await examine(env, `http://127.0.0.1:${await freePort()}`);
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
  expect(of('feed')).toMatchObject({
    state: 'problem',
    mend: expect.stringContaining('proxy_buffering off'),
  });
});

it('refuses what is neither a URL nor an option, and shows people aligned lines', async () => {
  for (const args of [['--yaml'], ['ftp://host'], ['http://one', 'http://two'], ['http://host/path']])
    expect(await runProgram('doctor', args, {})).toMatchObject({ code: 2, stdout: '' });
  const { stdout } = await runProgram('doctor', [], { COUNTERSIGN_DATA_DIR: freshFolder() });
  expect(stdout).toMatch(/^ok {7}settings {10}as wanted$/m);
  expect(stdout).toMatch(/\n0 problems, \d warnings, \d+ as they should be, \d+ not looked at\n$/);
});

it('lookAtNode() warns of releases that are no longer mended', () => {
  expect([lookAtNode('20.19.0').state, lookAtNode('22.0.0').state, lookAtNode('24.1.0').state]).toEqual([
    'warning',
    'ok',
    'ok',
  ]);
});
