import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { expect, it, onTestFinished, vi } from 'vitest';
import { freshFolder } from './deps.ts';
import { freePort, listening } from './services.ts';

const SERVICE = `require('node:net').createServer().listen(process.argv[1], '127.0.0.1')`;

it('spawnBound() ends the service and removes its folder when its parent is killed with SIGKILL', async () => {
  const parentFolder = freshFolder();
  const folder = join(parentFolder, 'service');
  mkdirSync(folder);
  const port = await freePort();
  const script = `
    import { spawnBound } from ${JSON.stringify(new URL('./services.ts', import.meta.url).href)};
    spawnBound(${JSON.stringify([process.execPath, '-e', SERVICE, `${port}`])}, ${JSON.stringify(folder)});
    setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script]);
  onTestFinished(() => void parent.kill('SIGKILL'));
  await listening(port);

  parent.kill('SIGKILL');
  await once(parent, 'exit');
  await vi.waitFor(() => expect(existsSync(folder)).toBe(false), { timeout: 10_000, interval: 25 });
  const [error] = await once(connect(port, '127.0.0.1'), 'error');
  expect(error).toMatchObject({ code: 'ECONNREFUSED' });
});
