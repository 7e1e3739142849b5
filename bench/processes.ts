/** The processes a figure is measured on: each pinned to the core that the load generator leaves alone. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../', import.meta.url));

/** The server's core, and the load generator's. */
export const CORES = { server: '0', load: '1' } as const;

export const canPin = spawnSync('taskset', ['-c', '0,1', 'true']).status === 0;

export interface Measured {
  port: number;
  /** Resident memory, in MB. */
  rssMb(): number;
  stop(): Promise<void>;
}

export interface MeasuredServer extends Measured {
  url: string;
  adminKey: string;
}

export async function startFloor(name: string): Promise<Measured> {
  const { child, port } = await start(
    ['--import', 'tsx', join(ROOT, `bench/floors/${name}.ts`)],
    {},
    /listening on (\d+)/,
  );
  return { port, rssMb: () => rssMb(child), stop: () => stop(child) };
}

/** The built server on a database of its own. It logs warnings only: a line a request is the operator's choice. */
export async function startCountersign(env: NodeJS.ProcessEnv = {}): Promise<MeasuredServer> {
  const dataDir = mkdtempSync(join(tmpdir(), 'countersign-bench-'));
  const given = { COUNTERSIGN_DATA_DIR: dataDir, COUNTERSIGN_LOG_LEVEL: 'warn', PORT: '0', ...env };
  const { child, port } = await start(
    [join(ROOT, 'dist/server/main.js')],
    given,
    /ready at \S+:(\d+)[\s\S]*Next:/,
  );
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    adminKey: readFileSync(join(dataDir, 'first-secret-key'), 'utf8').trim(),
    rssMb: () => rssMb(child),
    async stop() {
      await stop(child);
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

async function start(args: string[], env: NodeJS.ProcessEnv, ready: RegExp) {
  const pinned = canPin ? ['taskset', '-c', CORES.server, process.execPath] : [process.execPath];
  const [program = '', ...rest] = [...pinned, ...args];
  const child = spawn(program, rest, {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  for await (const chunk of child.stdout) {
    output += String(chunk);
    const port = ready.exec(output)?.[1];
    if (port !== undefined) return { child, port: Number(port) };
  }
  throw new Error(`${rest.join(' ')} ended before it was ready: ${output}`);
}

/** From the kernel's account of the process, in pages of 4 KB. */
function rssMb(child: ChildProcess): number {
  const pages = Number(readFileSync(`/proc/${child.pid}/statm`, 'utf8').split(' ')[1]);
  return (pages * 4096) / 1e6;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  await exited;
}
