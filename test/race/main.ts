/**
 * `npm run race-test -- --keys 10000 --processes 3 --database sqlite|postgres --transport embedded|bullmq [--naive]`:
 * servers on one database, credentials that are verified at all of them while they are revoked at any, servers and Redis
 * killed in between. Exits 1 when one was valid after its end. `--naive` shows that it can.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { startServices } from '../support/services.ts';
import { startFleet, TRANSPORTS } from './fleet.ts';
import { type RaceResult, race } from './race.ts';

const DATABASES = ['sqlite', 'postgres'] as const;
const NAIVE_MS = 2_000;
const SHOWN_MAX = 20;

const { values } = parseArgs({
  options: {
    keys: { type: 'string', default: '10000' },
    processes: { type: 'string', default: '3' },
    database: { type: 'string', default: 'sqlite' },
    transport: { type: 'string', default: 'embedded' },
    kills: { type: 'string', default: '10' },
    naive: { type: 'boolean', default: false },
  },
});

const cleanUps: (() => void | Promise<void>)[] = [];
const whenDone = (cleanUp: () => void | Promise<void>) => void cleanUps.push(cleanUp);

async function cleanUp() {
  for (const each of cleanUps.splice(0).reverse()) await each();
}

for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void cleanUp().finally(() => process.exit(1)));

try {
  process.exitCode = (await run()) ? 0 : 1;
} finally {
  await cleanUp();
}

async function run(): Promise<boolean> {
  const [keys, processes, kills] = [wholeNumber('keys'), wholeNumber('processes'), wholeNumber('kills')];
  const transport = oneOf('transport', TRANSPORTS);
  const database = oneOf('database', DATABASES);
  const folder = mkdtempSync(join(tmpdir(), 'countersign-race-'));
  whenDone(() => rmSync(folder, { recursive: true, force: true }));
  const databaseUrl = database === 'postgres' ? await postgresUrl() : null;
  const fleet = await startFleet({ folder, databaseUrl, processes, transport, whenDone });
  say(`${processes} servers on ${database}, ${transport}${values.naive ? ', naive' : ''}`);
  const redisKills = transport === 'bullmq' ? kills : 0;
  const started = performance.now();
  const result = await race(fleet, {
    keys,
    serverKills: kills,
    redisKills,
    ...(values.naive && { rememberMs: NAIVE_MS }),
    say,
  });
  const seconds = Math.round((performance.now() - started) / 1000);
  report(result, `${kills} kills of a server, ${redisKills} of Redis, ${seconds} s`);
  return result.zombies.length + result.lost.length === 0;
}

function report({ keys, tokens, verifications, webhooks, ended, zombies, lost }: RaceResult, rest: string) {
  for (const zombie of zombies.slice(0, SHOWN_MAX)) say(`Zombie: ${zombie}`);
  for (const each of lost.slice(0, SHOWN_MAX)) say(`Lost: ${each}`);
  say(
    `Ended by ${Object.entries(ended)
      .map(([way, count]) => `${way} ${count}`)
      .join(', ')}`,
  );
  say(`M2M tokens ${tokens}, webhooks ${webhooks}, lost ${lost.length}, ${rest}`);
  say(`keys ${keys}, verifications ${verifications}, zombies ${zombies.length}`);
}

/** A cluster of our own, and in it a database with nothing in it. */
async function postgresUrl(): Promise<string> {
  const { postgres, stop } = await startServices(['postgres']);
  whenDone(stop);
  if (postgres.url === null) throw new Error(postgres.missing);
  return `${postgres.url}/postgres`;
}

function wholeNumber(name: 'keys' | 'processes' | 'kills'): number {
  const text = values[name];
  if (/^\d{1,7}$/.test(text)) return Number(text);
  throw new Error(`--${name}: wanted a whole number, found '${text}'`);
}

function oneOf<const T extends readonly string[]>(name: 'database' | 'transport', all: T): T[number] {
  const found = all.find((each) => each === values[name]);
  if (found !== undefined) return found;
  throw new Error(`--${name}: wanted one of ${all.join(', ')}, found '${values[name]}'`);
}

function say(line: string) {
  process.stdout.write(`${line}\n`);
}
