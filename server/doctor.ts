/**
 * `npm run doctor -- [url] [--json]`: finds what is misconfigured on this host, and with a URL at a server that runs, and
 * says how to mend it. It changes nothing, and may run beside servers.
 */
import { existsSync, readFileSync } from 'node:fs';
import { isPostgres, openStore } from '../db/store.ts';
import { type AboutDatabase, DATABASE_CHECKS } from './checks/database.ts';
import { type Check, type Finding, lookAt, messageOf, ok, problem, skipAll } from './checks/finding.ts';
import { HOST_CHECKS } from './checks/host.ts';
import { REDIS_CHECKS } from './checks/redis.ts';
import { SERVER_CHECKS } from './checks/server.ts';
import {
  type Config,
  ConfigError,
  describeProblem,
  loadConfig,
  parseMasterKey,
  secretKeyOf,
} from './config.ts';
import { keyFile } from './key-files.ts';
import { maskCredentials } from './logger.ts';
import { printable } from './table.ts';

interface Given {
  url: string | undefined;
  json: boolean;
}

const SETTINGS: Check<unknown> = { name: 'settings', look: () => ok('as wanted') };

const EXIT = { sound: 0, problems: 1, usage: 2 } as const;

await main();

async function main() {
  const given = readArguments(process.argv.slice(2));
  if (given === null) {
    process.stderr.write("Wanted perhaps the URL of a server, and perhaps '--json'\n");
    process.exitCode = EXIT.usage;
    return;
  }
  const findings = await examine(given);
  const shown = given.json ? `${JSON.stringify(findings, null, 2)}\n` : toText(findings);
  process.stdout.write(maskCredentials(shown));
  const hasProblems = findings.some(({ state }) => state === 'problem');
  process.exitCode = hasProblems ? EXIT.problems : EXIT.sound;
}

function readArguments(args: readonly string[]): Given | null {
  const [url, ...others] = args.filter((argument) => argument !== '--json');
  if (others.length > 0 || (url !== undefined && !/^https?:\/\/[^/]+\/?$/.test(url))) return null;
  return { url: url?.replace(/\/$/, ''), json: args.includes('--json') };
}

async function examine({ url }: Given): Promise<Finding[]> {
  const secretKey = secretKeyOf(process.env);
  const findings = await examineHost();
  if (url === undefined) return findings;
  return [...findings, ...(await lookAt(SERVER_CHECKS, { url, secretKey, now: Date.now }))];
}

async function examineHost(): Promise<Finding[]> {
  try {
    const config = loadConfig(process.env);
    return [
      ...(await lookAt([SETTINGS], null)),
      ...(await lookAt(HOST_CHECKS, config)),
      ...(await examineDatabase(config)),
      ...(await lookAt(REDIS_CHECKS, config)),
    ];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const mend = 'Set them as the README says, or leave them out';
    return [
      { check: SETTINGS.name, ...problem(error.problems.map(describeProblem).join('; '), mend) },
      ...skipAll([...HOST_CHECKS, ...DATABASE_CHECKS, ...REDIS_CHECKS], 'The settings come first'),
    ];
  }
}

async function examineDatabase(config: Config): Promise<Finding[]> {
  const { databaseLocation } = config;
  if (!isPostgres(databaseLocation) && !existsSync(databaseLocation))
    return skipAll(DATABASE_CHECKS, 'There is no database yet: the first start makes it');
  const about: Omit<AboutDatabase, 'store'> = { config, masterKey: masterKeyOf(config), now: Date.now };
  try {
    const store = await openStore({ location: databaseLocation, poolSize: 1 });
    return await lookAt(DATABASE_CHECKS, { ...about, store }).finally(() => store.close());
  } catch (error) {
    const [first, ...others] = DATABASE_CHECKS;
    const mend = 'See that it runs and is reachable, and that DATABASE_URL or COUNTERSIGN_DATA_DIR name it';
    return [
      { check: first?.name ?? '', ...problem(`Cannot be opened: ${messageOf(error)}`, mend) },
      ...skipAll(others, 'The database cannot be opened'),
    ];
  }
}

function masterKeyOf({ masterKey, dataDir }: Config): Buffer | null {
  const path = keyFile(dataDir, 'master-key');
  if (masterKey) return masterKey;
  return existsSync(path) ? (parseMasterKey(readFileSync(path, 'utf8').trim()) ?? null) : null;
}

function toText(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const lines = findings.flatMap(({ check, state, found, mend }) => [
    `${state.padEnd('problem'.length)}  ${check.padEnd(width)}  ${printable(found)}`,
    ...(mend === null ? [] : [`${' '.repeat('problem'.length + width + 4)}→ ${mend}`]),
  ]);
  const count = (state: Finding['state']) => findings.filter((finding) => finding.state === state).length;
  return `${lines.join('\n')}\n${count('problem')} problems, ${count('warning')} warnings, ${count('ok')} as they should be, ${count('skipped')} not looked at\n`;
}
