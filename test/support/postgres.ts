/** A PostgreSQL of a test's own, that may be stopped and started. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';
import { freshFolder, type WhenDone } from './deps.ts';
import { connectWhenReady, listening, newCluster } from './services.ts';

/** It is started by the test, as often as it likes on the same port, and is gone when the test ends. */
export async function ownPostgres(whenDone: WhenDone = onTestFinished) {
  const { url, port, command, folder, user } = await newCluster(freshFolder(whenDone));
  let child: ChildProcess | undefined;

  /** At once, as when its machine goes down: SIGQUIT is PostgreSQL's immediate shutdown. */
  async function stop() {
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGQUIT');
    await exited;
  }
  whenDone(stop);
  return {
    /** Of the database that is there from the beginning. */
    url: `${url}/postgres`,
    async start() {
      const [program = '', ...flags] = command;
      child = spawn(program, flags, { ...user, cwd: folder, stdio: 'ignore' });
      await listening(port);
      await (await connectWhenReady(`${url}/postgres`)).end();
    },
    stop,
  };
}
