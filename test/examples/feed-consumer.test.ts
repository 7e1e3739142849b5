import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it, onTestFinished } from 'vitest';
import { withLines } from '../support/children.ts';
import { freshFolder } from '../support/deps.ts';
import { startServer } from '../support/server.ts';

const script = new URL('../../examples/feed-consumer.ts', import.meta.url).pathname;

function startConsumer(env: Record<string, string>) {
  const child = spawn(process.execPath, ['--import', 'tsx', script], {
    env: { PATH: process.env['PATH'] ?? '', ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  return { child, ...withLines(child) };
}

it('the consumer forgets what is revoked, asks the server while it is away, and goes on with it', {
  timeout: 90_000,
}, async () => {
  const dataDir = freshFolder();
  const server = await startServer(dataDir);
  const { adminKey, url } = server;
  const created = await server.call('apiKeys.create', { name: 'ci', subject: 'user_1' });
  const { id } = created.body.result.data;
  const consumer = startConsumer({ COUNTERSIGN_URL: url, COUNTERSIGN_SECRET_KEY: adminKey });
  /** Asks until it answers so: what it may answer from memory depends on the last heartbeat. */
  const answers = async (name: string, wanted: string) => {
    await expect
      .poll(
        () => {
          consumer.tell(name);
          return consumer.lines.at(-1);
        },
        { timeout: 20_000, interval: 100 },
      )
      .toBe(`${name}: ${wanted}`);
  };
  await consumer.line((line) => line === '0 in force');
  await answers(id, 'nothing was told of it');

  await server.call('apiKeys.revoke', { id });
  const told = await consumer.line((line) => line.startsWith('Forget: '));
  expect(JSON.parse(told.slice('Forget: '.length))).toMatchObject({ kind: 'api_key', id, reason: 'revoked' });
  await answers(id, 'forget what you know (api_key revoked)');

  await server.stop();
  await consumer.line((line) => /^The feed (was cut|has ended)/.test(line));
  await answers(id, 'ask the server, for the feed is not to be trusted now');

  await startServer(dataDir, { PORT: new URL(url).port });
  await answers(id, 'forget what you know (api_key revoked)');
  // It went on after the last event that it was told, without another snapshot.
  expect(consumer.lines.filter((line) => /in force$|^Start anew/.test(line))).toEqual(['0 in force']);
});

it('the consumer says what it wants when it has no key', async () => {
  const { child, lines } = startConsumer({});
  expect(await once(child, 'close')).toEqual([2, null]);
  expect(lines).toEqual([
    'Wanted a key in COUNTERSIGN_SECRET_KEY or COUNTERSIGN_MACHINE_SECRET_KEY, found none',
  ]);
});
