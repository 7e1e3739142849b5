/** What test programs that are run by command have in common: they clean up however they end. */
import type { WhenDone } from './deps.ts';
import { startServices } from './services.ts';

/** Runs a program, then its cleaning up; exits 1 when it answers false, throws or is told to end. */
export async function runCommand(program: (whenDone: WhenDone) => Promise<boolean>): Promise<void> {
  const cleanUps: (() => void | Promise<void>)[] = [];
  async function cleanUp() {
    for (const each of cleanUps.splice(0).reverse()) await each();
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => void cleanUp().finally(() => process.exit(1)));
  try {
    process.exitCode = (await program((each) => void cleanUps.push(each))) ? 0 : 1;
  } finally {
    await cleanUp();
  }
}

/** A whole number that an option names. */
export function wholeNumber(name: string, text: string): number {
  if (/^\d{1,7}$/.test(text)) return Number(text);
  throw new Error(`--${name}: wanted a whole number, found '${text}'`);
}

export function oneOf<const T extends readonly string[]>(name: string, all: T, text: string): T[number] {
  const found = all.find((each) => each === text);
  if (found !== undefined) return found;
  throw new Error(`--${name}: wanted one of ${all.join(', ')}, found '${text}'`);
}

export function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** A cluster of our own, and in it a database with nothing in it. */
export async function postgresUrl(whenDone: WhenDone): Promise<string> {
  const { postgres, stop } = await startServices(['postgres']);
  whenDone(stop);
  if (postgres.url === null) throw new Error(postgres.missing);
  return `${postgres.url}/postgres`;
}
