/** The command line: commands made from the router, carried out by a running server. */
import tab from '@bomb.sh/tab/commander';
import { type Command, createCli, FailedToExitError } from 'trpc-cli';
import { z } from 'zod';
import { type Countersign, CountersignError, createCountersign } from '../client/index.ts';
import { type ApplyReport, applyMachines, type Change } from './apply.ts';
import { CREDENTIAL_FIELDS, command, commandRouter, holdsCredential, inputSchema } from './commands.ts';
import { PREFIXES } from './crypto/format.ts';
import { exportEvents } from './export-events.ts';
import { type ImportClerkReport, importClerk } from './import-clerk.ts';
import {
  type ImportKeysTerminal,
  type ImportKeysTotals,
  importKeys,
  type RefusedLine,
} from './import-keys.ts';
import { listen } from './listen.ts';
import { printable, toTable } from './table.ts';

/** The process as a command sees it. */
export interface Terminal {
  env: Readonly<Record<string, string | undefined>>;
  stdin: AsyncIterable<Buffer | string> & { isTTY?: boolean };
  stdout: Output;
  stderr: Output;
  version: string;
}

interface Output {
  write(text: string): unknown;
  isTTY?: boolean;
}

const EXIT = { ok: 0, refused: 1, usage: 2 } as const;

const URL_DEFAULT = 'http://127.0.0.1:4400';
const STDIN_BYTES_MAX = 64 * 1024;

/** The command was not given as it has to be. */
class UsageError extends Error {}

interface GlobalOptions {
  output?: string;
  secretKeyStdin?: boolean;
}

/** Runs one command and answers the exit code: 0 done, 1 refused or failed, 2 wrong usage. */
export async function runCommand(argv: string[], terminal: Terminal): Promise<number> {
  const { stdout, stderr } = terminal;
  if (argv.some(holdsCredential)) {
    stderr.write(
      'Cannot take a credential as an argument: other users of this machine see arguments, and the shell keeps them. Pass it on standard input\n',
    );
    return EXIT.usage;
  }
  const session = createSession(terminal, () => root.opts<GlobalOptions>());
  const cli = createCli({
    router: commandRouter(session.call, {
      apply: applyCommand(session),
      'import-keys': importKeysCommand(session, terminal),
      'import.clerk': importClerkCommand(session, terminal),
      'events.export': exportEventsCommand(session, terminal),
      listen: listenCommand(session),
    }),
    name: 'countersign',
    version: terminal.version,
    description: 'Administers a running Countersign server, machine authentication',
    jsonInput: 'auto',
  });
  const run = {
    argv,
    prompts: false,
    logger: {
      // Help and version come as text, answers as they are.
      info: (told: unknown) => stdout.write(typeof told === 'string' ? told : session.show(told)),
      error: (told: unknown) => stderr.write(`${String(told).trimEnd()}\n`),
    },
    formatError: describeError,
    process: { exit: () => undefined as never },
  };
  const root = cli.buildProgram(run) as Command;
  addGlobalOptions(root);
  // What shells ask by, too: `countersign complete -- machines cr`.
  tab(root, { completionCommandName: 'completion' });
  for (const group of root.commands) {
    exitByThrowing(group as Command, terminal);
    for (const each of group.commands) beginListsAnew(each as Command);
  }
  const ended = await cli.run(run, root).then(
    () => undefined,
    (error: unknown) => error,
  );
  return exitCodeOf(ended, session.negative());
}

function addGlobalOptions(root: Command) {
  root
    .option('--output <format>', "'json' or 'table'; by default a table on a terminal and JSON elsewhere")
    .option('--secret-key-stdin', 'take the key from the first line of standard input')
    .addHelpText(
      'after',
      `
Environment:
  COUNTERSIGN_URL                 the server, by default ${URL_DEFAULT}
  COUNTERSIGN_SECRET_KEY          an administrator's key, or
  COUNTERSIGN_MACHINE_SECRET_KEY  a machine's own

Credentials are read from standard input or the environment, never from arguments.

Examples:
  countersign machines create billing
  countersign verify < key.txt
  countersign apply machines.json --write-env ./secrets
  countersign import-keys keys.ndjson --shape-prefix acme_ --report refused.ndjson
  countersign import clerk --dry-run
  source <(countersign completion bash)`,
    );
}

/** What is made of no procedure would end the process by itself. */
function exitByThrowing(group: Command, { stdout, stderr }: Terminal) {
  group.configureOutput({
    writeOut: (text) => void stdout.write(text),
    writeErr: (text) => void stderr.write(text),
  });
  group.exitOverride((cause) => {
    throw new FailedToExitError('', { exitCode: cause.exitCode, cause });
  });
}

/** What is given of a list stands in the place of its default, as of every other option, and is not added to it. */
function beginListsAnew({ options }: Command) {
  for (const option of options) {
    const { parseArg, defaultValue } = option;
    if (!parseArg || !Array.isArray(defaultValue)) continue;
    option.parseArg = <T>(value: string, before: T) =>
      parseArg<T | undefined>(value, before === defaultValue ? undefined : before) as T;
  }
}

function exitCodeOf(ended: unknown, negative: boolean): number {
  if (!(ended instanceof FailedToExitError)) throw ended;
  if (ended.exitCode === 0) return negative ? EXIT.refused : EXIT.ok;
  return ended.cause instanceof UsageError || isRefusedUsage(ended.cause) ? EXIT.usage : EXIT.refused;
}

/** Commander's own errors: an unknown option, a missing argument. */
const isRefusedUsage = (cause: unknown) =>
  cause instanceof Error && 'code' in cause && String(cause.code).startsWith('commander.');

/** Connects when the first call is made, and knows how answers are to be shown. */
function createSession(terminal: Terminal, options: () => GlobalOptions) {
  const { env, stderr } = terminal;
  const input = createLines(terminal);
  const url = env['COUNTERSIGN_URL'] || URL_DEFAULT;
  let negative = false;

  async function connect(): Promise<Countersign> {
    assertFormat(options().output);
    const secretKey = options().secretKeyStdin
      ? await input.take('the secret key')
      : env['COUNTERSIGN_SECRET_KEY'] || undefined;
    const machineSecretKey = options().secretKeyStdin
      ? undefined
      : env['COUNTERSIGN_MACHINE_SECRET_KEY'] || undefined;
    if (!secretKey && !machineSecretKey) {
      throw new UsageError(
        'Wanted a key in COUNTERSIGN_SECRET_KEY or COUNTERSIGN_MACHINE_SECRET_KEY, or --secret-key-stdin, found none',
      );
    }
    try {
      return createCountersign({
        url,
        ...(secretKey?.startsWith(PREFIXES.machineSecretKey)
          ? { machineSecretKey: secretKey }
          : { secretKey }),
        ...(machineSecretKey !== undefined && { machineSecretKey }),
      });
    } catch (error) {
      throw new UsageError(error instanceof Error ? error.message : String(error));
    }
  }

  async function call(path: string, given: Record<string, unknown>): Promise<unknown> {
    const countersign = await connect();
    const field = CREDENTIAL_FIELDS[path];
    const complete = field === undefined ? given : { ...given, [field]: await input.take('the credential') };
    if (path === 'credentials.verify') {
      const answer = await countersign.verify(complete as unknown as Parameters<Countersign['verify']>[0]);
      negative = !answer.valid;
      return answer;
    }
    const [noun = '', verb = ''] = path.split('.');
    const nouns = countersign as unknown as Record<
      string,
      Record<string, (input: unknown) => Promise<unknown>>
    >;
    return nouns[noun]?.[verb]?.(complete);
  }

  return {
    url,
    connect,
    call,
    /** The next line of standard input. */
    take: input.take,
    note: (text: string) => void stderr.write(`${text}\n`),
    show: (answer: unknown) => {
      const format = options().output ?? (terminal.stdout.isTTY ? 'table' : 'json');
      return `${format === 'json' ? JSON.stringify(answer, null, 2) : toTable(answer)}\n`;
    },
    /** Whether the key is on standard input, of which then nothing else can be read. */
    takesStdin: () => options().secretKeyStdin === true,
    /** Has a command that was carried out answer no. */
    deny() {
      negative = true;
    },
    /** Whether the answer was a no, which is none of a failure and yet no success. */
    negative: () => negative,
  };
}

function assertFormat(output: string | undefined) {
  if (output === undefined || output === 'json' || output === 'table') return;
  throw new UsageError(`'--output' must be 'json' or 'table', got '${output}'`);
}

/** Standard input by lines, read once. */
function createLines({ stdin, stderr }: Terminal) {
  let lines: Promise<string[]> | undefined;
  return {
    async take(what: string): Promise<string> {
      if (stdin.isTTY) stderr.write(`Reading ${what} from standard input; end with Ctrl-D\n`);
      lines ??= readAll(stdin).then((text) => text.split(/\r?\n/).map((line) => line.trim()));
      const line = (await lines).shift();
      if (!line) throw new UsageError(`Wanted ${what} on standard input, found nothing`);
      return line;
    },
  };
}

async function readAll(stdin: Terminal['stdin']): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stdin) {
    chunks.push(Buffer.from(chunk));
    bytes += chunk.length;
    if (bytes > STDIN_BYTES_MAX)
      throw new UsageError(`Wanted at most ${STDIN_BYTES_MAX} bytes on standard input`);
  }
  return Buffer.concat(chunks).toString();
}

function describeError(error: unknown): string {
  if (error instanceof CountersignError) {
    const request = error.requestId === undefined ? '' : ` (request ${error.requestId})`;
    return `${error.code}: ${error.message}${request}`;
  }
  return error instanceof Error ? error.message : String(error);
}

const applyInput = z.strictObject({
  file: z.string().describe('JSON: { "machines": [{ "name", "calls": [{ "machine", "scopes" }] }] }').meta({
    positional: true,
  }),
  writeEnv: z.string().optional().describe('the folder for <name>.env, one for each machine created'),
  dryRun: z.boolean().optional().describe('say what would change, and change nothing'),
  prune: z.boolean().optional().describe('take away what these machines may call beyond the file'),
});

function applyCommand(session: ReturnType<typeof createSession>) {
  return command(
    {
      description:
        'Bring machines, and whom they may call, to what a file says; a second time changes nothing',
      examples: [
        'countersign apply machines.json --write-env ./secrets',
        'countersign apply machines.json --dry-run',
      ],
    },
    inputSchema(applyInput),
    async (input) => {
      const countersign = await session.connect();
      const report = await applyMachines(countersign, applyInput.parse(input), session.url, (change) =>
        session.note(`Done: ${sentence(change)}`),
      );
      for (const text of notes(report)) session.note(text);
      return report;
    },
  );
}

function notes({ dryRun, changes, withoutEnvFile, unlisted }: ApplyReport): string[] {
  return [
    ...(dryRun ? changes.map((change) => `Would do: ${sentence(change)}`) : []),
    ...(changes.length === 0 ? ['Nothing to change'] : []),
    ...withoutEnvFile.map(
      (name) =>
        `The machine '${name}' is there and has no file: its secret cannot be shown again; delete the machine and apply again for a new one`,
    ),
    ...unlisted.map(
      ({ machine, to }) =>
        `'${machine}' may call '${to}', which the file does not list; --prune takes it away`,
    ),
  ];
}

function sentence({ action, machine, to, fields = [], scopes = [] }: Change): string {
  switch (action) {
    case 'create':
      return `create the machine '${machine}'`;
    case 'update':
      return `change ${fields.join(', ')} of the machine '${machine}'`;
    case 'allow':
    case 'change_scopes':
      return `let '${machine}' call '${to}' with ${scopes.length > 0 ? `the scopes ${scopes.join(' ')}` : 'no scopes'}`;
    case 'disallow':
      return `no longer let '${machine}' call '${to}'`;
  }
}

const importKeysInput = z.strictObject({
  file: z
    .string()
    .describe("NDJSON or CSV of 'value' or 'hash', 'subject', 'name' and more; - for standard input")
    .meta({ positional: true }),
  format: z.enum(['ndjson', 'csv']).optional().describe("by default 'csv' for a file called so"),
  shapePrefix: z.array(z.string()).optional().describe('how values of another format than ours begin'),
  shapeLength: z.number().int().optional().describe('how many characters they have'),
  report: z.string().optional().describe('a file for what was refused, as NDJSON'),
  dryRun: z.boolean().optional().describe('judge every line by itself, and send nothing'),
});

function importKeysCommand(session: ReturnType<typeof createSession>, terminal: Terminal) {
  return command(
    {
      description:
        'Import API keys from a file of any length; values are hashed here. Cut off and called again, it goes on where it was',
      examples: [
        'countersign import-keys keys.ndjson --shape-prefix acme_live_ --report refused.ndjson',
        'countersign import-keys keys.csv --dry-run',
      ],
    },
    inputSchema(importKeysInput),
    async (given) => {
      const options = importKeysInput.parse(given);
      if (options.file === '-' && session.takesStdin())
        throw new UsageError('Wanted one of --secret-key-stdin and the keys on standard input, found both');
      const line = createProgressLine(terminal);
      const totals = await importKeys(session.connect, session.url, options, {
        stdin: terminal.stdin,
        ...line,
      }).finally(line.end);
      if (totals.refused > 0) session.deny();
      return totals;
    },
  );
}

const importClerkInput = z.strictObject({
  apiUrl: z.string().default('https://api.clerk.com').describe("Clerk's Backend API"),
  clerkSecretKeyStdin: z
    .boolean()
    .optional()
    .describe('take the secret key of Clerk from standard input, after ours if that is there too'),
  dryRun: z.boolean().optional().describe('read and count, fetch no secret and send nothing'),
});

function importClerkCommand(session: ReturnType<typeof createSession>, terminal: Terminal) {
  return command(
    {
      description:
        'Import machines and API keys, with the secrets they have, from Clerk; reads CLERK_SECRET_KEY. Called again, it goes on',
      examples: ['countersign import clerk --dry-run', 'countersign import clerk'],
    },
    inputSchema(importClerkInput),
    async (given) => {
      const { clerkSecretKeyStdin, dryRun, apiUrl } = importClerkInput.parse(given);
      // Lines of standard input come in this order.
      const countersign = dryRun ? null : await session.connect();
      const clerkSecretKey = clerkSecretKeyStdin
        ? await session.take('the secret key of Clerk')
        : terminal.env['CLERK_SECRET_KEY'];
      if (!clerkSecretKey)
        throw new UsageError('Wanted CLERK_SECRET_KEY, or --clerk-secret-key-stdin, found neither');
      const line = createClerkProgress(terminal);
      const report = await importClerk(countersign, { apiUrl, clerkSecretKey }, line).finally(line.end);
      if (report.machines.refused + report.machineScopes.refused + report.apiKeys.refused > 0) session.deny();
      return report;
    },
  );
}

/** Off a terminal a line is written for as many subjects as this. */
const SUBJECTS_TOLD = 100;

const BAR_LENGTH = 20;

/** How far an import from Clerk is: one line that is written over on a terminal, lines elsewhere. */
function createClerkProgress({ stderr }: Terminal) {
  let told = 0;
  const erase = () => eraseLine(stderr);
  return {
    note(text: string) {
      erase();
      stderr.write(`${printable(text)}\n`);
    },
    progress({ machines, apiKeys, subjects, subjectsTotal }: ImportClerkReport) {
      const text = `${machines.imported + machines.existing} machines, ${subjects} subjects, ${apiKeys.imported + apiKeys.existing} API keys`;
      if (stderr.isTTY) {
        erase();
        stderr.write(`${bar(subjects, subjectsTotal)}${text}`);
      } else if (subjects >= told + SUBJECTS_TOLD) {
        told = subjects;
        stderr.write(`${text}\n`);
      }
    },
    end: erase,
  };
}

/** Nothing before it is known how many there are. */
function bar(done: number, total: number): string {
  if (total === 0) return '';
  const filled = Math.min(BAR_LENGTH, Math.floor((BAR_LENGTH * done) / total));
  return `[${'#'.repeat(filled)}${'-'.repeat(BAR_LENGTH - filled)}] `;
}

const exportEventsInput = z.strictObject({
  after: z.number().int().min(0).optional().describe('the sequence of the last event that is known already'),
  follow: z.boolean().optional().describe('wait for more, until Ctrl-C'),
});

function exportEventsCommand(session: ReturnType<typeof createSession>, { stdout }: Terminal) {
  return command(
    {
      description:
        'Write events as JSON lines to standard output; it goes on from any sequence, with --after',
      examples: [
        'countersign events export > events.ndjson',
        'countersign events export --follow --after 1200',
      ],
    },
    inputSchema(exportEventsInput),
    async (given) => {
      const { after = 0, follow = false } = exportEventsInput.parse(given);
      const write = (lines: string) => stdout.write(lines);
      const terminal = { write, note: session.note };
      const last = await untilInterrupted((interrupted) =>
        exportEvents(session.connect, { after, follow }, terminal, interrupted),
      );
      if (follow) session.note(`Go on with --after ${last}`);
    },
  );
}

const listenInput = z.strictObject({
  forwardTo: z.string().describe('where to post them, such as http://localhost:3000/hook'),
});

function listenCommand(session: ReturnType<typeof createSession>) {
  return command(
    {
      description: 'For development: post events to a URL as webhooks, from now until Ctrl-C',
      examples: ['countersign listen --forward-to http://localhost:3000/hook'],
    },
    inputSchema(listenInput),
    async (given) => {
      const { forwardTo } = listenInput.parse(given);
      if (!URL.canParse(forwardTo) || !/^https?:$/.test(new URL(forwardTo).protocol))
        throw new UsageError(`'--forward-to' must be an http or https URL, got '${printable(forwardTo)}'`);
      return untilInterrupted(async (signal) =>
        listen(await session.connect(), { forwardTo, signal, note: session.note }),
      );
    },
  );
}

const INTERRUPTIONS = ['SIGINT', 'SIGTERM'] as const;

/** Does work that Ctrl-C, or whoever ends the process, asks to come to its end. */
async function untilInterrupted<T>(work: (interrupted: AbortSignal) => Promise<T>): Promise<T> {
  const interruption = new AbortController();
  const interrupt = () => interruption.abort();
  for (const signal of INTERRUPTIONS) process.once(signal, interrupt);
  try {
    return await work(interruption.signal);
  } finally {
    for (const signal of INTERRUPTIONS) process.off(signal, interrupt);
  }
}

/** Refusals that are shown; all of them are in the report. */
const REFUSALS_SHOWN_MAX = 20;

/** On a terminal, so that what is written next stands alone. */
function eraseLine(stderr: Output) {
  if (stderr.isTTY) stderr.write('\r\u001b[K');
}

/** One line that is written over on a terminal, and what is noted above it. */
function createProgressLine({ stderr }: Terminal): Omit<ImportKeysTerminal, 'stdin'> & { end(): void } {
  let shown = 0;
  const erase = () => eraseLine(stderr);
  const note = (text: string) => {
    erase();
    stderr.write(`${text}\n`);
  };
  return {
    note,
    refused({ line, code, message }: RefusedLine) {
      shown++;
      if (shown <= REFUSALS_SHOWN_MAX) note(`Line ${line}: ${code}: ${printable(message)}`);
      else if (shown === REFUSALS_SHOWN_MAX + 1) note('More was refused: --report has it all');
    },
    progress(totals: ImportKeysTotals, percent: number | null) {
      if (!stderr.isTTY) return;
      erase();
      stderr.write(
        `${percent === null ? '' : `${percent} %, `}${totals.records} keys, ${totals.refused} refused`,
      );
    },
    end: erase,
  };
}
