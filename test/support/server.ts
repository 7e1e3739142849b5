/** The real server: built as it is installed, started as a child process, spoken to over HTTP. */
import { type ChildProcess, execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';
import { openStore } from '../../db/store.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const SOURCES = ['db', 'server', 'workers', 'client'];

/** Beyond the 25 seconds that a server gives itself to shut down. */
const PATIENCE_MS = 28_000;

export interface Launched {
  process: ChildProcess;
  /** What it has written so far. */
  stdout(): string;
  stderr(): string;
  /** The log: the lines of standard error, each of which must be JSON. */
  log(): Record<string, unknown>[];
  /** Resolves when `stream` has a match; rejects when the process ends without one. */
  printed(stream: 'stdout' | 'stderr', pattern: RegExp): Promise<RegExpExecArray>;
  /** Its exit code, or the signal that ended it. */
  exit: Promise<number | NodeJS.Signals>;
}

export interface RunningServer extends Launched {
  url: string;
  dataDir: string;
  /** The value of the first admin key; empty where no file of this data directory has it. */
  adminKey: string;
  /** Calls a procedure with the admin key, or with `credential`. */
  call(path: string, input?: unknown, credential?: string): Promise<Answer>;
  /** Sends a signal, and resolves when it is gone. */
  stop(signal?: NodeJS.Signals): Promise<number | NodeJS.Signals>;
}

export interface Answer {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
  body: any;
}

export interface LaunchOptions {
  args?: readonly string[];
  /** Which program of the server's to start instead. */
  main?: 'main' | 'rotate-keys' | 'workers';
  /**
   * To start it as people do, by `npm start`, which builds; or by the same without building what is built already, beside
   * tests that run it. The process is npm's then, and leads a group.
   */
  byNpm?: 'as typed' | 'once built';
  /** The folder of another version, built there, to be started instead of this one. */
  root?: string;
  /** How long to wait for what it is to print: below a test's timeout, unless told otherwise. */
  patienceMs?: number;
  /** Whether its streams are a terminal, both printed to `stdout`; then the process is the terminal's, and `^C` ends it. */
  inTerminal?: boolean;
  /** Where to hand the cleaning up of a server that a whole suite shares; without it, the test's end is its end. */
  whenDone?: (cleanUp: () => Promise<void>) => void;
}

/** Starts the built server, and waits for nothing. The child sees only `env` and where programs are. */
export async function launchServer(env: NodeJS.ProcessEnv, options: LaunchOptions = {}): Promise<Launched> {
  const { root = ROOT, patienceMs = PATIENCE_MS } = options;
  if (root === ROOT) await build();
  const [program = '', ...args] = commandOf(options, root);
  const child = spawn(program, [...args, ...(options.args ?? [])], {
    cwd: root,
    env: { PATH: process.env['PATH'], PORT: '0', COUNTERSIGN_SIGNING_ALG: 'ES256', ...env },
    stdio: 'pipe',
    detached: options.byNpm !== undefined,
  });
  if (!options.inTerminal) child.stdin.end();
  const exit = once(child, 'close').then(([code, signal]) => (code ?? signal) as number | NodeJS.Signals);
  const output = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      // A terminal ends its lines with both.
      output[stream] += text.replaceAll('\r', '');
    });
  (options.whenDone ?? onTestFinished)(async () => {
    signal(child, 'SIGKILL', options);
    await exit;
  });
  return {
    process: child,
    stdout: () => output.stdout,
    stderr: () => output.stderr,
    log: () => parseLines(output.stderr),
    exit,
    async printed(stream, pattern) {
      const deadline = performance.now() + patienceMs;
      for (;;) {
        const match = pattern.exec(output[stream]);
        if (match) return match;
        const ended = child.exitCode !== null || child.signalCode !== null;
        if (ended || performance.now() > deadline) {
          throw new Error(`The server never printed ${pattern}: ${output.stdout}${output.stderr}`);
        }
        await Promise.race([exit, sleep(20)]);
      }
    },
  };
}

/** npm passes on what it is told, but for SIGKILL, of which it hears nothing. */
function signal(child: ChildProcess, name: NodeJS.Signals, { byNpm }: LaunchOptions) {
  const hasEnded = child.exitCode !== null || child.signalCode !== null;
  if (byNpm && name === 'SIGKILL' && child.pid !== undefined && !hasEnded) process.kill(-child.pid, name);
  else child.kill(name);
}

function commandOf({ byNpm, inTerminal, main: name = 'main' }: LaunchOptions, root: string): string[] {
  if (byNpm) return ['npm', 'start', '--silent', ...(byNpm === 'once built' ? ['--ignore-scripts'] : [])];
  const main = join(root, name === 'workers' ? 'dist/workers/main.js' : `dist/server/${name}.js`);
  if (!inTerminal) return [process.execPath, main];
  return ['script', '--quiet', '--return', '--command', `exec '${process.execPath}' '${main}'`, '/dev/null'];
}

/** Why no program here makes a terminal for another, or null when one does. */
export function whyNoTerminal(): string | null {
  const { stdout } = spawnSync('script', ['--version'], { encoding: 'utf8' });
  return stdout?.includes('util-linux') ? null : "the program 'script' of util-linux is missing";
}

export interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs a command of the server's, such as `backup`, to its end. It sees only `env` and where programs are. */
export async function runProgram(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<Ran> {
  await build();
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [join(ROOT, 'dist/server', `${program}.js`), ...args],
      { env: { PATH: process.env['PATH'], COUNTERSIGN_LOG_LEVEL: 'warn', ...env } },
      (error, stdout, stderr) => resolve({ code: error ? Number(error.code ?? 1) : 0, stdout, stderr }),
    );
  });
}

/** Starts the built server on a data directory and waits until it is ready. */
export async function startServer(
  dataDir: string,
  env: NodeJS.ProcessEnv = {},
  options: LaunchOptions = {},
): Promise<RunningServer> {
  const launched = await launchServer({ COUNTERSIGN_DATA_DIR: dataDir, ...env }, options);
  const [, announced = ''] = await launched.printed('stdout', /ready at (\S+)[\s\S]*\nNext: .*\n/);
  // It announces its public URL, which several servers may share; where it was told to listen is its own.
  const url = env['PORT'] === undefined ? announced : `http://127.0.0.1:${env['PORT']}`;
  const adminKey = env['COUNTERSIGN_BOOTSTRAP_KEY'] ?? readFirstSecretKey(dataDir);
  return {
    ...launched,
    url,
    dataDir,
    adminKey,
    call: (path, input, credential = adminKey) => call(url, path, input, credential),
    stop(name = 'SIGTERM') {
      signal(launched.process, name, options);
      return launched.exit;
    },
  };
}

/** Starts the built workers, apart from any server, and waits until they are ready. */
export async function startWorkersApart(
  env: NodeJS.ProcessEnv,
  options: LaunchOptions = {},
): Promise<Launched> {
  const workers = await launchServer(env, { ...options, main: 'workers' });
  await workers.printed('stderr', /"msg":"ready"/);
  return workers;
}

function readFirstSecretKey(dataDir: string): string {
  const path = join(dataDir, 'first-secret-key');
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
}

async function call(url: string, path: string, input: unknown, credential: string): Promise<Answer> {
  return send(`${url}/trpc/${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${credential}`, 'content-type': 'application/json' },
    body: JSON.stringify(input) ?? '',
  });
}

/** One request, with its answer parsed where it is JSON. */
export async function send(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, init);
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.includes('json');
  return {
    status: response.status,
    headers: response.headers,
    body: isJson && text !== '' ? JSON.parse(text) : text,
  };
}

function parseLines(text: string): Record<string, unknown>[] {
  // What follows the last line break is a line still being written.
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line));
}

let built: Promise<void> | undefined;

/** Builds the programs if their sources are newer than what is built last: once, whichever of the test processes comes first. */
export function build(): Promise<void> {
  built ??= buildIfStale();
  return built;
}

async function buildIfStale(): Promise<void> {
  const dist = join(ROOT, 'dist');
  mkdirSync(dist, { recursive: true });
  const lock = await openStore({ location: join(dist, '.build') });
  try {
    await lock.exclusively(async () => {
      if (newestSource() > modifiedAt(join(dist, 'console/index.html'))) {
        execFileSync('npm', ['run', '--silent', 'build'], { cwd: ROOT, stdio: 'inherit' });
      }
    });
  } finally {
    await lock.close();
  }
}

function newestSource(): number {
  const files = SOURCES.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => /\.(tsx?|css|html)$/.test(file))
      .map((file) => join(ROOT, folder, file)),
  );
  return Math.max(...files.map(modifiedAt));
}

const modifiedAt = (path: string) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
