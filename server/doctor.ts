/**
 * `npm run doctor -- [url] [--json]`: finds what is misconfigured on this host, and with a URL at a server that runs, and
 * says how to mend it. It changes nothing, and may run beside servers.
 */
import { existsSync } from 'node:fs';
import { isPostgres, openReader } from '../db/store.ts';
import { DATABASE_CHECKS } from './checks/database.ts';
import { FILE_CHECKS, HOST_MARK } from './checks/files.ts';
import { type Check, type Finding, lookAt, messageOf, ok, problem, skipAll } from './checks/finding.ts';
import { HOST_CHECKS } from './checks/host.ts';
import { REDIS_CHECKS } from './checks/redis.ts';
import { SERVER_CHECKS } from './checks/server.ts';
import {
  type Config,
  ConfigError,
  describeProblem,
  loadConfig,
  parseOrigin,
  secretKeyOf,
  threadPoolSizeOf,
} from './config.ts';
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
  const [text, ...others] = args.filter((argument) => argument !== '--json');
  const url = text === undefined ? undefined : parseOrigin(text);
  if (others.length > 0 || (text !== undefined && url === undefined)) return null;
  return { url, json: args.includes('--json') };
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
    const files = await lookAt(FILE_CHECKS, config);
    const isElsewhere = files.some(({ check, state }) => check === HOST_MARK && state === 'problem');
    return [
      ...(await lookAt([SETTINGS], null)),
      ...(await lookAt(HOST_CHECKS, { ...config, threadPoolSize: threadPoolSizeOf(process.env) })),
      ...files,
      ...(isElsewhere
        ? skipAll(DATABASE_CHECKS, 'Another host is using the file')
        : await examineDatabase(config)),
      ...(await lookAt(REDIS_CHECKS, config)),
    ];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const mend = 'Set them as the README says, or leave them out';
    return [
      { check: SETTINGS.name, ...problem(error.problems.map(describeProblem).join('; '), mend) },
      ...skipAll(
        [...HOST_CHECKS, ...FILE_CHECKS, ...DATABASE_CHECKS, ...REDIS_CHECKS],
        'The settings come first',
      ),
    ];
  }
}

async function examineDatabase(config: Config): Promise<Finding[]> {
  const { databaseLocation } = config;
  if (!isPostgres(databaseLocation) && !existsSync(databaseLocation))
    return skipAll(DATABASE_CHECKS, 'There is no database yet: the first start makes it');
  try {
    const store = await openReader(databaseLocation);
    return await lookAt(DATABASE_CHECKS, { config, store, now: Date.now }).finally(() => store.close());
  } catch (error) {
    const [first, ...others] = DATABASE_CHECKS;
    const mend = 'See that it runs and is reachable, and that DATABASE_URL or COUNTERSIGN_DATA_DIR name it';
    return [
      { check: first?.name ?? '', ...problem(`Cannot be read: ${messageOf(error)}`, mend) },
      ...skipAll(others, 'The database cannot be read'),
    ];
  }
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
