import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Redis } from 'ioredis';
import { expect, inject, it, onTestFinished } from 'vitest';
import { openStore } from '../../db/store.ts';
import { freshFolder } from '../support/deps.ts';
import { type RunningServer, startServer } from '../support/server.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const { url: redisUrl, missing } = inject('redis');
const itWithRedis = redisUrl
  ? it
  : (name: string, run: () => Promise<void>) => it.skip(`${name} [skipped: ${missing}]`, run);

/** Runs the command that the server said comes next, as it stands there, and answers what it printed. */
async function runDemo(server: RunningServer): Promise<string[]> {
  const [, next = ''] = /\nNext: (.*)\n/.exec(server.stdout()) ?? [];
  const { stdout } = await promisify(execFile)('sh', ['-c', next], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'] },
  });
  return stdout.trim().split('\n');
}

function expectWholeTour(lines: string[]) {
  expect(lines.filter((line) => line.includes('refused at once (revoked)'))).toHaveLength(2);
  expect(lines.filter((line) => line.includes('the signature holds'))).toHaveLength(2);
  expect(lines.at(-1)).toBe('✓ All that was made is removed again');
}

async function startWorkers(env: NodeJS.ProcessEnv): Promise<void> {
  const workers: ChildProcess = spawn(process.execPath, ['dist/workers/main.js'], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  onTestFinished(async () => {
    const exited = once(workers, 'exit');
    workers.kill('SIGTERM');
    expect(await exited).toEqual([0, null]);
  });
  for await (const chunk of workers.stderr ?? []) if (String(chunk).includes('"msg":"ready"')) return;
}

/** What was in the jobs that BullMQ finished for the installation in this database, from its stream of events. */
async function completedJobs(location: string): Promise<string[]> {
  const store = await openStore({ location });
  const redis = new Redis(redisUrl ?? '');
  try {
    const [row] = await store.read.db.select().from(store.read.tables.installation);
    const entries = await redis.xrange(`{countersign}:bundles-${row?.epoch}:events`, '-', '+');
    const events = entries.map(([, fields]) => pairs(fields));
    return events.filter(({ event }) => event === 'completed').flatMap(({ jobId = '' }) => jobId.split('+'));
  } finally {
    redis.disconnect();
    await store.close();
  }
}

/** A stream's entry is a flat list of names and values. */
function pairs(fields: string[]): Record<string, string> {
  return Object.fromEntries(fields.flatMap((name, i) => (i % 2 === 0 ? [[name, fields[i + 1] ?? '']] : [])));
}

it('the demo passes with nothing else installed', async () => {
  expectWholeTour(await runDemo(await startServer(freshFolder())));
});

itWithRedis('the demo passes through BullMQ, and its deliveries were jobs in Redis', async () => {
  const server = await startServer(freshFolder(), { REDIS_URL: redisUrl ?? '' });
  expectWholeTour(await runDemo(server));
  expect(await completedJobs(join(server.dataDir, 'countersign.db'))).toEqual([
    expect.stringMatching(/^dlv_\w{27}-1$/),
    expect.stringMatching(/^dlv_\w{27}-1$/),
  ]);
});

itWithRedis('the demo passes with server and workers apart', async () => {
  const dataDir = freshFolder();
  const server = await startServer(dataDir, { REDIS_URL: redisUrl ?? '' }, { args: ['--server-only'] });
  await startWorkers({ COUNTERSIGN_DATA_DIR: dataDir, REDIS_URL: redisUrl ?? '' });
  expectWholeTour(await runDemo(server));
});
