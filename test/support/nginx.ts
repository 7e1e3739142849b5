/** A real nginx of a test's own, with a configuration that people are given. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inject, onTestFinished } from 'vitest';
import { freshFolder } from './deps.ts';
import { listening } from './services.ts';

/** What nginx writes to belongs into a folder of the test's. */
const temporary = (folder: string) =>
  ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((kind) => `${kind}_temp_path ${join(folder, kind)};`)
    .join(' ');

/** Starts it with a whole configuration, and files beside it, that has it listen on `port`. It goes when the test ends. */
export async function startNginx(
  config: string,
  port: number,
  files: Record<string, string> = {},
): Promise<void> {
  const folder = freshFolder();
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  writeFileSync(join(folder, 'nginx.conf'), config.replace(/^http \{/m, `http { ${temporary(folder)}`));
  // Its own user could not read a folder of ours.
  const user = process.getuid?.() === 0 ? 'user root;' : '';
  const settings = `daemon off; pid ${join(folder, 'nginx.pid')}; ${user}`;
  const nginx = spawn(inject('nginx').path ?? '', ['-p', folder, '-c', 'nginx.conf', '-g', settings], {
    cwd: folder,
    stdio: 'ignore',
  });
  const exit = once(nginx, 'exit');
  onTestFinished(async () => {
    nginx.kill('SIGTERM');
    await exit;
  });
  await listening(port);
}
