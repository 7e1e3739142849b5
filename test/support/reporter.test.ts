import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { freshFolder } from './deps.ts';

const REPORTER = fileURLToPath(new URL('./reporter.ts', import.meta.url));
const VITEST = fileURLToPath(new URL('../../node_modules/vitest/vitest.mjs', import.meta.url));

/** The last lines that a run of these test files prints, and its exit code. */
async function run(files: Record<string, string>): Promise<{ lines: string[]; exitCode: number }> {
  const root = freshFolder();
  for (const [name, text] of Object.entries(files)) writeFileSync(join(root, name), text);
  const flags = ['run', '--root', root, '--globals', '--reporter', 'default', '--reporter', REPORTER];
  return new Promise((resolve) => {
    execFile(process.execPath, [VITEST, ...flags], { cwd: root }, (error, stdout) =>
      resolve({ lines: stdout.trimEnd().split('\n'), exitCode: Number(error?.code ?? 0) }),
    );
  });
}

it('the run closes with its counts, after the reason of each skip', async () => {
  const { lines, exitCode } = await run({
    'a.test.js': `
      test('holds', () => {});
      describe.skip('needs it [skipped: redis-server is missing: only root may install it]', () => {
        test('one', () => {});
        test('two', () => {});
      });
      test('finds out late', ({ skip }) => skip('no tmpfs'));
      test.skip('for no reason', () => {});`,
  });
  expect(lines.slice(-4)).toEqual([
    'Skipped 2: redis-server is missing: only root may install it',
    'Skipped 1: no tmpfs',
    'Skipped 1: no reason given',
    '1 passed, 0 failed, 4 skipped',
  ]);
  expect(exitCode).toBe(0);
});

it('a file that cannot be loaded, a failing hook and a stray error count as failures', async () => {
  const { lines, exitCode } = await run({
    'unloadable.test.js': `import './missing.js';`,
    'failing.test.js': `test('fails', () => { throw new Error('as it should'); });`,
    'hook.test.js': `describe('suite', () => { afterAll(() => { throw new Error('leak'); }); test('holds', () => {}); });`,
    'stray.test.js': `test('holds', async () => {
      Promise.reject(new Error('nobody catches it'));
      await new Promise((resolve) => setTimeout(resolve, 50));
    });`,
  });
  expect(lines.at(-1)).toBe('2 passed, 4 failed, 0 skipped');
  expect(exitCode).not.toBe(0);
});
