import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdirSync, statSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import { SETTINGS } from '../server/config.ts';
import { freshFolder } from './support/deps.ts';
import { blocksOf, readPage, sectionOf } from './support/markdown.ts';
import { freePort } from './support/services.ts';

const ROOT = fileURLToPath(new URL('../', import.meta.url));
const README = readPage('README.md');
const [START = '', ...STEPS] = blocksOf(sectionOf(README, 'Five minutes to a verified request'), 'sh');

/** Whether to install as it is written, from a registry: minutes. Without it, what is installed here is lent. */
const installs = process.env['COUNTERSIGN_TEST_INSTALL'] === '1';
const STEPS_MS_MAX = installs ? 600_000 : 240_000;

/** What a clone of this working tree would hold: what is tracked, and what is not ignored. */
function filesOfClone(): string[] {
  const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  const deleted = execFileSync('git', ['ls-files', '-z', '--deleted'], { cwd: ROOT, encoding: 'utf8' });
  const gone = new Set(deleted.split('\0'));
  return [...new Set(listed.split('\0'))].filter((name) => name !== '' && !gone.has(name));
}

function freshClone(): string {
  const folder = freshFolder();
  for (const file of filesOfClone()) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    copyFileSync(join(ROOT, file), join(folder, file));
  }
  return folder;
}

/** What somebody sees who has nothing but programs and a port of their own. */
const environment = (port: number) => ({
  PATH: process.env['PATH'],
  HOME: process.env['HOME'],
  PORT: String(port),
});

/** The first terminal: its command runs until the test ends, and with it whatever it started. */
async function startIn(folder: string, command: string, port: number): Promise<void> {
  const terminal = spawn('sh', ['-c', command], {
    cwd: folder,
    env: environment(port),
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exit = once(terminal, 'exit');
  onTestFinished(async () => {
    if (terminal.pid !== undefined && terminal.exitCode === null) process.kill(-terminal.pid, 'SIGTERM');
    await exit;
  });
  await printed(terminal, /^Next: /m);
}

function printed(child: ChildProcess, pattern: RegExp): Promise<void> {
  return new Promise((resolve, reject) => {
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        output += text;
        if (pattern.test(output)) resolve();
      });
    }
    child.once('exit', (code) => reject(new Error(`'${START}' ended with ${code}: ${output}`)));
  });
}

const bodiesOf = (output: string) =>
  output.split(/(?<=\})(?=\{)/).map((text) => JSON.parse(text) as Record<string, unknown>);

it('the steps of README.md, typed into a clone as they are written, reach a verified request', {
  timeout: STEPS_MS_MAX,
}, async () => {
  const folder = freshClone();
  const port = await freePort();
  const install = 'npm ci && ';
  expect(START.startsWith(install)).toBe(true);
  if (!installs) symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  await startIn(folder, installs ? START : START.slice(install.length), port);

  const { stdout, stderr } = await promisify(execFile)('sh', ['-e', '-c', STEPS.join('')], {
    cwd: folder,
    env: environment(port),
  });
  expect(stderr).toBe('');
  const [scope, verified, revoked, refused, key] = bodiesOf(stdout);
  expect(scope).toMatchObject({ object: 'machine_scope', scopes: ['entries:write'] });
  expect(verified).toMatchObject({ valid: true, kind: 'm2m_token', scopes: ['entries:write'] });
  expect(revoked).toMatchObject({ object: 'machine_to_machine_token', revoked: true });
  expect(refused).toMatchObject({ valid: false, reason: 'revoked' });
  expect(key).toMatchObject({ valid: true, kind: 'api_key', subject: 'user_42' });

  // What the page shows of the answers has the fields that they have.
  const shown = blocksOf(sectionOf(README, 'Five minutes to a verified request'), 'json');
  expect(shown.map((text) => Object.keys(JSON.parse(text)))).toEqual(
    [verified, refused, key].map((body) => Object.keys(body ?? {})),
  );
});

describe('README.md', () => {
  it('lists the settings that there are', () => {
    const rows = [...sectionOf(README, 'Configuration').matchAll(/^\| `(\w+)`(, or `…_FILE`)? \|/gm)];
    const named = rows.flatMap(([, name = '', file]) => (file ? [name, `${name}_FILE`] : [name]));
    expect(named.sort()).toEqual(Object.keys(SETTINGS).sort());
  });

  it('shows the figures that were measured last', () => {
    const measured = new Map<string, string>();
    for (const { name, value, unit } of JSON.parse(readPage('bench/results.json')))
      measured.set(name, `${value} ${unit}`);
    const promises = sectionOf(README, 'What it promises, and where that stops');
    const rows = [...promises.matchAll(/^\| .*\(`([\w-]+)`\) \| (.+?) \|/gm)];
    expect(rows.length).toBeGreaterThan(5);
    for (const [, name = '', shown] of rows)
      expect(`${name}: ${shown}`).toBe(`${name}: ${measured.get(name)}`);
  });
});

describe('what people read', () => {
  const pages = filesOfClone().filter((file) => file.endsWith('.md'));

  it.each(pages)('%s leads to pages and headings that there are', (page) => {
    const text = readPage(page).replace(/^```[\s\S]*?^```$/gm, '');
    const links = [...text.matchAll(/\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)/g)];
    const broken = links.filter(([, path = '', heading]) => {
      const target = path === '' ? page : join(dirname(page), path);
      if (!existsSync(join(ROOT, target))) return true;
      return heading !== undefined && !headingsOf(target).includes(heading);
    });
    expect(broken.map(([link]) => link)).toEqual([]);
  });

  /** As GitHub names them in links. */
  const headingsOf = (page: string) =>
    [...readPage(page).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    );

  it('docs/how-to-change-the-code.md names files that there are', () => {
    const text = readPage('docs/how-to-change-the-code.md');
    const named = [...text.matchAll(/`((?:client|db|deploy|docs|scripts|server|test|workers)\/[^`<*\s]*)`/g)];
    expect(named.length).toBeGreaterThan(30);
    const paths = named.map(([, path = '']) => path);
    expect(paths.filter((path) => !statSync(join(ROOT, path), { throwIfNoEntry: false }))).toEqual([]);
  });
});
