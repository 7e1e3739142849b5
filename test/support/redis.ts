/** A Redis of a test's own, that may be killed, paused, filled and emptied. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Redis } from 'ioredis';
import { onTestFinished } from 'vitest';
import { freshFolder, type WhenDone } from './deps.ts';
import { redisBinary } from './packages.ts';
import { freePort, listening } from './services.ts';

/** It is started by the test, as often as it likes on the same port, and is gone when the test ends. */
export async function ownRedis(whenDone: WhenDone = onTestFinished) {
  const port = await freePort();
  const folder = freshFolder(whenDone);
  let child: ChildProcess | undefined;

  async function start() {
    const settings = ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
    child = spawn(redisBinary() ?? '', settings, { cwd: folder, stdio: 'ignore' });
    await listening(port);
  }
  async function kill() {
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }
  whenDone(kill);
  return {
    url: `redis://127.0.0.1:${port}`,
    start,
    kill,
    /** Keeps its connections and answers nothing. */
    pause: () => child?.kill('SIGSTOP'),
    resume: () => child?.kill('SIGCONT'),
  };
}

/** A connection that goes when the test ends. */
export function connectTo(url: string): Redis {
  const redis = new Redis(url);
  onTestFinished(() => redis.disconnect());
  return redis;
}
