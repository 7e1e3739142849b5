/** The processes a figure is measured on: each pinned to the core that the load generator leaves alone. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Countersign, createCountersign } from '../client/index.ts';
import { leave, makeScratch, type Scratch } from './leftovers.ts';

const ROOT = fileURLToPath(new URL('../', import.meta.url));

/** The server's core, and the load generator's. */
export const CORES = { server: '0', load: '1' } as const;

/** What `npm start` has node do. */
const START = startScript();

function startScript(): { threads: string; args: string[] } {
  const [, threads, command] =
    /"start": "UV_THREADPOOL_SIZE=\S+:-(\d+)\} exec node ([^"]+)"/.exec(
      readFileSync(join(ROOT, 'package.json'), 'utf8'),
    ) ?? [];
  if (threads === undefined || command === undefined)
    throw new Error("Wanted a script 'start' that executes node, found none");
  const args = command.split(' ').map((word) => (word.startsWith('dist/') ? join(ROOT, word) : word));
  return { threads, args };
}

export const canPin = spawnSync('taskset', ['-c', '0,1', 'true']).status === 0;

export interface Measured {
  port: number;
  /** Resident memory, in MB. */
  rssMb(): number;
  /** Time it has had a core for, all its threads together. */
  cpuSeconds(): number;
  /** Stands it still, timers and all, so that nothing it does falls into another's turn. */
  pause(): void;
  resume(): void;
  stop(): Promise<void>;
}

export interface MeasuredServer extends Measured {
  url: string;
  adminKey: string;
  /** For what is set up before anything is measured: patient, for the machine may be busy. */
  admin: Countersign;
}

interface FloorOptions {
  env?: NodeJS.ProcessEnv;
  /** What it answers. */
  answer?: unknown;
}

/** A program of `bench/floors`. */
export async function startFloor(name: string, { env, answer }: FloorOptions = {}): Promise<Measured> {
  const scratch = makeScratch();
  const program = join(ROOT, `bench/floors/${name}.ts`);
  const { child, ready } = await start(
    ['--import', 'tsx', program, scratch.folder, JSON.stringify(answer ?? {})],
    { NODE_ENV: 'production', ...env },
    /listening on (\d+)\n/,
  );
  return measured(child, Number(ready), scratch);
}

/** A program that says in JSON where it listens and what else is to be known. */
export async function startPeerProgram<T extends { port: number }>(
  path: string,
  args: readonly string[],
): Promise<T & Measured> {
  const scratch = makeScratch();
  const { child, ready } = await start(
    [path, ...args, scratch.folder],
    { NODE_ENV: 'production' },
    /^ready (.+)\n/m,
  );
  const said = JSON.parse(ready) as T;
  return { ...said, ...measured(child, said.port, scratch) };
}

export const SETUP_MS_MAX = 60_000;

interface CountersignOptions {
  env?: NodeJS.ProcessEnv;
  /** Where its data is, which then stays; without it, a folder of its own, which goes. */
  dataDir?: string;
}

/** The built server. It logs warnings only: a line a request is the operator's choice. */
export async function startCountersign({
  env = {},
  dataDir,
}: CountersignOptions = {}): Promise<MeasuredServer> {
  const scratch = dataDir === undefined ? makeScratch() : { folder: dataDir, remove() {} };
  const given = {
    UV_THREADPOOL_SIZE: START.threads,
    COUNTERSIGN_DATA_DIR: scratch.folder,
    COUNTERSIGN_LOG_LEVEL: 'warn',
    PORT: '0',
    ...env,
  };
  const { child, ready } = await start(START.args, given, /ready at \S+:(\d+)[\s\S]*Next:/);
  const port = Number(ready);
  const url = `http://127.0.0.1:${port}`;
  const adminKey = readFileSync(join(scratch.folder, 'first-secret-key'), 'utf8').trim();
  const admin = createCountersign({ url, secretKey: adminKey, timeoutMs: SETUP_MS_MAX });
  return { ...measured(child, port, scratch), url, adminKey, admin };
}

/** Starts a program and waits until `ready` fits what it prints; answers what its group caught. */
async function start(args: string[], env: NodeJS.ProcessEnv, ready: RegExp) {
  const pinned = canPin ? ['taskset', '-c', CORES.server, process.execPath] : [process.execPath];
  const [program = '', ...rest] = [...pinned, ...args];
  const child = spawn(program, rest, {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  leave(() => child.kill('SIGKILL'));
  let output = '';
  let complaints = '';
  child.stderr.on('data', (chunk) => {
    complaints = `${complaints}${chunk}`.slice(-4_000);
  });
  child.once('exit', (code) => {
    if (code !== 0 && code !== null) process.stderr.write(complaints);
  });
  for await (const chunk of child.stdout.iterator({ destroyOnReturn: false })) {
    output += String(chunk);
    const caught = ready.exec(output)?.[1];
    if (caught === undefined) continue;
    child.stdout.resume();
    return { child, ready: caught };
  }
  throw new Error(`${rest.join(' ')} ended before it was ready: ${output.slice(-4_000)}`);
}

function measured(child: ChildProcess, port: number, scratch: Scratch): Measured {
  return {
    port,
    rssMb: () => rssMb(child),
    cpuSeconds: () => cpuSeconds(child),
    pause: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    async stop() {
      await stop(child);
      scratch.remove();
    },
  };
}

/** From the kernel's account of the process, in pages of 4 KB. */
function rssMb(child: ChildProcess): number {
  const pages = Number(readFileSync(`/proc/${child.pid}/statm`, 'utf8').split(' ')[1]);
  return (pages * 4096) / 1e6;
}

/** Fields 14 and 15 of proc_pid_stat(5), utime and stime, in ticks of 10 ms. The name in field 2 may hold spaces. */
function cpuSeconds(child: ChildProcess): number {
  const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  child.kill('SIGCONT');
  await exited;
}
