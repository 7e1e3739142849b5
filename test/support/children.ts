/** Real child processes that run a TypeScript file of the suite, speak by lines, and do not outlive their test. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { onTestFinished } from 'vitest';
import type { WhenDone } from './deps.ts';

export interface Child {
  /** Every whole line printed so far. */
  lines: readonly string[];
  /** Resolves with the first line, printed already or not yet, for which `wanted` holds. */
  line(wanted: (line: string) => boolean): Promise<string>;
  tell(line: string): void;
  /** Ends it as `kill -9` does; resolves when it is gone and all it printed has been read. */
  kill(): Promise<void>;
}

/** Starts `script`, a module beside the tests, with these arguments. */
export const startChild = (script: URL, ...args: string[]): Child => launchChild(script, args);

/** The same, for those who end it themselves. */
export function launchChild(
  script: URL,
  args: readonly string[],
  whenDone: WhenDone = onTestFinished,
): Child {
  const child = spawn(process.execPath, ['--import', 'tsx', script.pathname, ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  whenDone(() => void child.kill('SIGKILL'));
  return withLines(child);
}

/** What a process prints and is told, whoever started it. */
export function withLines(child: ChildProcessByStdio<Writable, Readable, null>): Child {
  const lines: string[] = [];
  const reader = createInterface({ input: child.stdout });
  reader.on('line', (line) => lines.push(line));
  let hasEnded = false;
  const ended = Promise.all([once(child, 'exit'), once(reader, 'close')]).then(() => {
    hasEnded = true;
  });
  return {
    lines,
    async line(wanted) {
      for (;;) {
        const found = lines.find(wanted);
        if (found !== undefined) return found;
        if (hasEnded) throw new Error(`The child ended and printed only: ${lines.join(' / ')}`);
        await Promise.race([once(reader, 'line'), ended]);
      }
    },
    tell: (line) => child.stdin.write(`${line}\n`),
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
