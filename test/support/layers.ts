/**
 * Who may import what (ARCHITECTURE.md), as tables, and the reading of source code that holds them against it. A folder,
 * shared file or package that is in no table may not be used: adding one is a decision, and its row says so.
 */
import { posix } from 'node:path';
import { type Node, type Program, parseSync } from 'oxc-parser';

interface Layer {
  /** What it may import: whole folders, or single files. Its own folder it may always. */
  imports: readonly string[];
  /** What it may import types of, and only types. */
  types?: readonly string[];
}

const TRANSPORT: Layer = {
  imports: ['server/domain', 'server/authenticate', 'server/errors', 'server/translate'],
  types: ['server/deps'],
};

/** Folders, and the files that several of them share. The longest that fits a file is its layer. */
export const LAYERS: Record<string, Layer> = {
  db: { imports: [] },
  'server/crypto': { imports: [] },
  'server/domain': {
    imports: ['db', 'server/crypto', 'server/deps', 'server/errors', 'server/limits', 'server/outbound'],
  },
  'server/trpc': TRANSPORT,
  // The document says who may call what.
  'server/rest': { ...TRANSPORT, imports: [...TRANSPORT.imports, 'server/access'] },
  workers: {
    imports: [
      'db',
      'server/domain',
      'server/crypto',
      'server/config',
      'server/deps',
      'server/errors',
      'server/outbound',
      'server/logger',
      'server/metrics',
      'server/metrics-listener',
      'server/open',
      'server/lifecycle',
      // One maker of connections for rate limits and jobs: what a REDIS_URL means is known once.
      'server/redis',
    ],
  },
  client: {
    imports: [
      'server/crypto/format',
      'server/errors',
      'server/domain/addresses',
      'server/domain/event-types',
      'server/domain/resources',
    ],
    types: ['server/trpc/router'],
  },

  // What the role of who is signed in may not call is not offered.
  'client/console': {
    imports: ['client', 'server/access', 'server/domain/event-types', 'server/errors'],
    types: ['server/trpc/router'],
  },

  'server/access': { imports: [], types: ['server/deps'] },
  'server/api-reference': { imports: [] },
  'server/app': {
    imports: [
      'server/trpc-calls',
      'server/rest',
      'server/hot',
      'server/api-reference',
      'server/page',
      'server/queue-board',
      'server/readiness',
      'server/access',
      'server/authenticate',
      'server/client-address',
      'server/console',
      'server/errors',
      'server/translate',
    ],
    types: ['server/config', 'server/deps', 'server/feed', 'server/logger', 'server/metrics', 'server/trpc'],
  },
  'server/apply': {
    imports: ['server/domain', 'server/errors', 'server/translate'],
    types: ['client'],
  },
  'server/audit-verify': {
    imports: [
      'server/config',
      'server/crypto',
      'server/domain',
      'server/installed-store',
      'server/key-files',
      'server/lifecycle',
      'server/logger',
    ],
    types: ['db'],
  },
  'server/authenticate': {
    imports: ['server/access', 'server/domain', 'server/errors'],
    types: ['server/deps'],
  },
  'server/backup': {
    imports: [
      'db',
      'server/config',
      'server/copy-progress',
      'server/domain',
      'server/installed-store',
      'server/key-files',
      'server/lifecycle',
    ],
  },
  'server/checks': {
    imports: ['db', 'server/config', 'server/domain', 'server/key-files', 'server/redis'],
  },
  'server/doctor': {
    imports: ['db', 'server/checks', 'server/config', 'server/logger', 'server/table'],
  },
  'server/migrate-to-postgres': {
    imports: [
      'db',
      'server/config',
      'server/copy-progress',
      'server/domain',
      'server/installed-store',
      'server/lifecycle',
      'server/logger',
    ],
  },
  'server/restore': {
    imports: [
      'db',
      'server/config',
      'server/copy-progress',
      'server/domain',
      'server/key-files',
      'server/lifecycle',
      'server/logger',
      'server/metrics',
      'server/open',
    ],
  },
  'server/cli': {
    imports: [
      'client',
      'server/apply',
      'server/commands',
      'server/crypto/format',
      'server/export-events',
      'server/import-clerk',
      'server/import-keys',
      'server/listen',
      'server/table',
    ],
  },
  'server/client-address': { imports: [] },
  'server/clerk-api': { imports: ['client/options', 'server/errors'] },
  'server/commands': { imports: ['server/trpc', 'server/crypto/format'] },
  'server/config': { imports: [] },
  'server/console': {
    imports: ['server/domain', 'server/errors', 'server/session-cookie'],
    types: ['server/authenticate'],
  },
  'server/session-cookie': { imports: [] },
  'server/deps': {
    imports: [],
    types: ['db', 'server/config', 'server/crypto', 'server/domain', 'server/limits', 'server/outbound'],
  },
  'server/errors': { imports: [] },
  'server/export-events': { imports: ['server/errors'], types: ['client'] },
  'server/feed': {
    imports: ['server/authenticate', 'server/domain', 'server/errors', 'server/logger'],
    types: ['server/deps'],
  },
  // A file for each endpoint that an RFC fixes, and for each page.
  'server/oauth': { ...TRANSPORT, imports: [...TRANSPORT.imports, 'server/crypto'] },
  'server/hot': {
    imports: [
      'server/authenticate',
      'server/domain',
      'server/errors',
      'server/oauth',
      'server/rest',
      'server/translate',
    ],
    types: ['server/deps', 'server/feed'],
  },
  'server/import-clerk': {
    imports: ['server/clerk-api', 'server/crypto/format', 'server/errors', 'server/import-keys'],
    types: ['client'],
  },
  'server/import-keys': {
    imports: ['server/crypto/format', 'server/domain', 'server/errors', 'server/key-records'],
    types: ['client'],
  },
  'server/job': {
    imports: [
      'server/config',
      'server/domain',
      'server/lifecycle',
      'server/logger',
      'server/metrics',
      'server/open',
      'workers',
    ],
  },
  'server/copy-progress': { imports: [], types: ['server/domain'] },
  'server/installed-store': { imports: ['db', 'server/domain'] },
  'server/key-files': {
    imports: ['db', 'server/config', 'server/crypto', 'server/domain'],
    types: ['server/logger'],
  },
  'server/key-records': { imports: ['server/errors'] },
  'server/limits': { imports: ['server/redis'], types: ['server/config', 'server/logger', 'server/redis'] },
  'server/lifecycle': { imports: ['db', 'server/config', 'server/domain', 'server/logger'] },
  'server/listen': { imports: ['server/crypto', 'server/domain', 'server/errors'], types: ['client'] },
  'server/logger': { imports: ['server/crypto/format'] },
  'server/main': { imports: ['server', 'workers'] },
  'server/metrics': { imports: [] },
  'server/metrics-listener': { imports: [], types: ['server/config', 'server/metrics'] },
  'server/open': {
    imports: [
      'db',
      'server/domain',
      'server/crypto',
      'server/config',
      'server/key-files',
      'server/lifecycle',
      'server/limits',
      'server/logger',
      'server/outbound',
    ],
    types: ['server/deps', 'server/metrics'],
  },
  'server/outbound': { imports: ['server/outbound-addresses'] },
  'server/outbound-addresses': { imports: ['server/domain/addresses'] },
  'server/page': { imports: ['server/oauth/html'] },
  'server/queue-board': { imports: ['server/authenticate', 'server/errors'] },
  'server/readiness': { imports: [], types: ['server/deps', 'server/logger'] },
  'server/redis': { imports: [], types: ['server/config'] },
  'server/rotate-keys': {
    imports: [
      'server/config',
      'server/domain',
      'server/installed-store',
      'server/key-files',
      'server/lifecycle',
      'server/logger',
    ],
    types: ['db'],
  },
  'server/table': { imports: [] },
  'server/trpc-calls': {
    imports: ['server/trpc', 'server/errors', 'server/translate'],
    types: ['server/authenticate', 'server/logger'],
  },
  'server/translate': { imports: ['db', 'server/errors', 'server/domain/invalid-input'] },

  'client/react': { imports: ['client', 'server/errors'], types: ['server/trpc/router'] },
  examples: { imports: ['client'] },
  scripts: { imports: ['server/domain/event-types', 'server/errors', 'server/domain/credentials'] },
};

/** Free of dependencies, so that clients can share them: not even their own folder. */
export const SHARED_WITH_CLIENTS = [
  'server/crypto/format',
  'server/errors',
  'server/domain/event-types',
  'server/domain/resources',
];

/** Who may import a package; `name/*` speaks of its subpaths alone. */
const PACKAGES: Record<string, Layer> = {
  'better-sqlite3': { imports: ['db'] },
  pg: { imports: ['db'] },
  // Its query operators are for all who ask the database; its drivers and table builders are not.
  'drizzle-orm': { imports: ['db', 'server/domain'] },
  'drizzle-orm/*': { imports: ['db'] },
  jose: { imports: ['server/crypto/jwt'] },
  bullmq: { imports: ['workers'] },
  '@bull-board/api': { imports: ['workers/queue-board'] },
  '@bull-board/express': { imports: ['workers/queue-board'] },
  ioredis: { imports: ['server/redis'] },
  express: {
    imports: [
      'server/app',
      'server/console',
      'examples/beside-clerk',
      'examples/host-app/application',
      'examples/mcp-server/application',
    ],
    types: ['server/queue-board', 'server/trpc-calls'],
  },
  react: { imports: ['client/console', 'client/react', 'examples/host-app/page'] },
  'react-dom/*': { imports: ['client/console', 'examples/host-app/page'] },
  ...Object.fromEntries(
    [
      'react-router',
      '@mantine/core',
      '@mantine/core/*',
      '@mantine/form',
      '@mantine/hooks',
      '@mantine/notifications',
      '@mantine/notifications/*',
      '@tanstack/react-query',
      'papaparse',
      '@xyflow/react',
      '@xyflow/react/*',
    ].map((name) => [name, { imports: ['client/console'] }]),
  ),
  helmet: { imports: ['server/app'] },
  '@trpc/server': {
    imports: ['server/trpc', 'server/app', 'server/translate', 'server/trpc-calls'],
    types: ['client'],
  },
  '@trpc/client': { imports: ['client'] },
  '@bomb.sh/tab': { imports: ['server/cli'] },
  'trpc-cli': { imports: ['server/cli', 'server/commands'] },
  zod: {
    imports: [
      'server/domain',
      'server/trpc',
      'server/rest',
      'server/apply',
      'server/cli',
      'server/commands',
      'server/translate',
      // The tools of an MCP server say what they take in its terms.
      'examples/mcp-server',
    ],
    types: ['server/hot'],
  },
  'openid-client': { imports: ['server/domain/upstream-sign-in'] },
  '@modelcontextprotocol/sdk/*': { imports: ['examples/mcp-server'] },
  'lru-cache': { imports: ['server/domain', 'client/verifier'] },
  pino: { imports: ['server/logger'] },
  'rate-limiter-flexible': { imports: ['server/limits'] },
  'prom-client': { imports: ['server/metrics'] },
  undici: { imports: ['server/outbound'] },
  '@clerk/express': { imports: ['examples/beside-clerk'] },
  standardwebhooks: { imports: ['examples'] },
};

/** Who reads which variables of the environment; `handed over` reads none, and passes it as a whole to server/config. */
export const ENVIRONMENT: Record<string, 'all' | 'handed over' | readonly string[]> = {
  'server/audit-verify': 'handed over',
  'server/backup': 'handed over',
  'server/doctor': 'handed over',
  'server/migrate-to-postgres': 'handed over',
  'server/restore': 'handed over',
  'server/config': 'all',
  'server/job': 'handed over',
  'server/main': 'handed over',
  'server/rotate-keys': 'handed over',
  'workers/main': 'handed over',
  client: ['COUNTERSIGN_URL', 'COUNTERSIGN_SECRET_KEY', 'COUNTERSIGN_MACHINE_SECRET_KEY'],
  examples: 'all',
};

/** Who reads a clock, and what for. Everybody else is given the time by `deps.now()`. */
export const CLOCKS: Record<string, string> = {
  'server/open': "makes the mains' deps, with their clock: the time of day is read here alone",
  'server/rotate-keys': 'a main',
  'server/audit-verify': 'a main',
  'server/backup': 'a main',
  'server/checks/server': 'when heartbeats arrive',
  'server/doctor': 'a main',
  'server/copy-progress': 'how long nothing was told',
  'server/restore': 'a main',
  'server/app': 'how long a request has taken',
  'server/domain/signing-keys': 'the age of a set of keys in memory; a test gives another clock',
  'server/domain/delivery-claims': 'the age of what was seen to be due; a test gives another clock',
  'server/domain/key-shapes': 'the age of a set of shapes in memory; a test gives another clock',
  'db/checkpoints': 'how often commits come, and since when none did',
  'db/sqlite': 'how long a lock has been waited for',
  'db/write-queue': 'how long a lock has been waited for, and a batch has lasted',
  'server/clerk-api': 'how long a source has asked to be left alone',
  'server/listen': 'when a webhook is sent, by the clock of whoever listens',
  client: 'how long an answer has been waited for, and how old a webhook is',
  examples: 'programs of their own',
};

/** May import and read everything: tests, measurements, the settings of tools, and what launches the built command. */
const UNBOUND = /^(test|bench|server\/bin)\/|^[^/]+$|\.config\.[jt]s$/;

export type Rule = 'unlisted' | 'layer' | 'types only' | 'shared' | 'package' | 'environment' | 'clock';

export interface Violation {
  file: string;
  line: number;
  rule: Rule;
  message: string;
}

/** What is wrong with one file, by its path from the root and its text. */
export function violationsOf(file: string, source: string): Violation[] {
  if (UNBOUND.test(file)) return [];
  const path = withoutExtension(file);
  const layer = layerOf(path);
  if (layer === null) {
    const message = `No row of LAYERS is for '${path}'`;
    return [{ file, line: 1, rule: 'unlisted', message }];
  }
  const found: Violation[] = [];
  const { program, errors } = parseSync(file, source);
  if (errors[0]) throw new Error(`Cannot parse ${file}: ${errors[0].message}`);
  for (const use of usesIn(program)) {
    const verdict = judge(path, layer, use);
    if (verdict) found.push({ file, line: lineAt(source, use.start), ...verdict });
  }
  return found;
}

/**
 * What the tables permit single files and they make no use of, by all files' paths and texts. What folders may is the
 * architecture, whether a file in them does or not.
 */
export function unusedPermissions(sources: ReadonlyMap<string, string>): string[] {
  const isFile = (place: string) => sources.has(`${place}.ts`);
  const readings = [...sources].filter(([file]) => !UNBOUND.test(file)).map(reading);
  const imports = readings.flatMap(({ path, uses }) =>
    uses.flatMap((use) => (use.kind === 'import' && use.specifier !== null ? [{ ...use, path }] : [])),
  );
  const ours: InUse = (row, place, wanted) =>
    imports.some(({ path, specifier, typeOnly }) => {
      const target = targetOf(path, specifier ?? '');
      return path === row && target !== null && isWithin(target, place) && typeOnly === wanted.typeOnly;
    });
  const theirs: InUse = (row, place, wanted) =>
    imports.some(
      ({ path, specifier, typeOnly }) =>
        packageRow(specifier ?? '') === row && isWithin(path, place) && typeOnly === wanted.typeOnly,
    );
  const isRead = (place: string) =>
    readings.some(({ path, uses }) => isWithin(path, place) && uses.some(({ kind }) => kind === 'clock'));
  const isImported = (name: string) => imports.some(({ specifier }) => packageRow(specifier ?? '') === name);
  const unused = [
    ...unusedIn(LAYERS, ours).filter(({ row }) => isFile(row)),
    ...unusedIn(PACKAGES, theirs).filter(({ place }) => isFile(place)),
  ];
  return [
    ...unused.map(({ row, place }) => `${row}: ${place}`),
    ...Object.keys(PACKAGES).filter((name) => !isImported(name)),
    ...Object.keys(CLOCKS).filter((place) => !isRead(place)),
  ];
}

type InUse = (row: string, place: string, wanted: { typeOnly: boolean }) => boolean;

function unusedIn(table: Record<string, Layer>, inUse: InUse): { row: string; place: string }[] {
  return Object.entries(table).flatMap(([row, { imports, types = [] }]) =>
    [
      ...imports.filter((place) => !inUse(row, place, { typeOnly: false })),
      ...types.filter((place) => !inUse(row, place, { typeOnly: true })),
    ].map((place) => ({ row, place })),
  );
}

function reading([file, source]: [string, string]): { path: string; uses: Use[] } {
  return { path: withoutExtension(file), uses: usesIn(parseSync(file, source).program) };
}

type Verdict = { rule: Rule; message: string } | null;

type Use =
  | { start: number; kind: 'import'; specifier: string | null; typeOnly: boolean }
  | { start: number; kind: 'environment'; variable: string | null }
  | { start: number; kind: 'clock' };

function judge(path: string, layer: string, use: Use): Verdict {
  switch (use.kind) {
    case 'environment':
      return judgeEnvironment(path, use.variable);
    case 'clock':
      return isWithinAny(path, Object.keys(CLOCKS))
        ? null
        : { rule: 'clock', message: 'No row of CLOCKS is for this: take deps.now()' };
    case 'import':
      return use.specifier === null
        ? { rule: 'layer', message: 'Imports what only running it tells' }
        : judgeImport(path, layer, use.specifier, use.typeOnly);
  }
}

function judgeEnvironment(path: string, variable: string | null): Verdict {
  const readers = Object.entries(ENVIRONMENT).filter(([reader]) => isWithin(path, reader));
  const may = readers.some(([, names]) => {
    if (names === 'handed over') return variable === null;
    return names === 'all' || (variable !== null && names.includes(variable));
  });
  return may
    ? null
    : { rule: 'environment', message: `Only server/config reads ${variable ?? 'the environment'}` };
}

function judgeImport(path: string, layer: string, specifier: string, typeOnly: boolean): Verdict {
  const target = targetOf(path, specifier);
  if (target === null) return judgePackage(path, specifier, typeOnly);
  if (SHARED_WITH_CLIENTS.includes(path))
    return { rule: 'shared', message: `Shared with clients, may import nothing: '${target}'` };
  if (layer !== path && isWithin(target, layer)) return null;
  const { imports, types = [] } = LAYERS[layer] as Layer;
  if (isWithinAny(target, imports)) return null;
  if (!isWithinAny(target, types)) return { rule: 'layer', message: `'${layer}' may not import '${target}'` };
  return typeOnly ? null : { rule: 'types only', message: `'${layer}' may import only types of '${target}'` };
}

/** What of ours a specifier means; null for a package. */
const targetOf = (path: string, specifier: string) =>
  specifier.startsWith('.')
    ? withoutExtension(posix.join(posix.dirname(path), specifier)).replace(/^dist\//, '')
    : null;

/** They yield the environment or a clock under another name. */
const UNSEEN_GLOBALS = new Set(['node:process', 'node:perf_hooks']);

function judgePackage(path: string, specifier: string, typeOnly: boolean): Verdict {
  if (specifier.startsWith('node:')) {
    return UNSEEN_GLOBALS.has(specifier)
      ? { rule: 'package', message: `Use the global instead of '${specifier}'` }
      : null;
  }
  if (SHARED_WITH_CLIENTS.includes(path))
    return { rule: 'shared', message: `Shared with clients, may import nothing: '${specifier}'` };
  const row = PACKAGES[packageRow(specifier)];
  if (!row) return { rule: 'unlisted', message: `No row of PACKAGES is for '${specifier}'` };
  if (isWithinAny(path, row.imports)) return null;
  if (!isWithinAny(path, row.types ?? []))
    return { rule: 'package', message: `'${path}' may not import '${specifier}'` };
  return typeOnly
    ? null
    : { rule: 'types only', message: `'${path}' may import only types of '${specifier}'` };
}

/** The name of the row that is for a package: its own, or that of its subpaths. */
function packageRow(specifier: string): string {
  const name = specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');
  const ofSubpaths = `${name}/*`;
  return specifier !== name && PACKAGES[ofSubpaths] ? ofSubpaths : name;
}

function layerOf(path: string): string | null {
  const fitting = Object.keys(LAYERS).filter((layer) => isWithin(path, layer));
  return fitting.sort((a, b) => b.length - a.length)[0] ?? null;
}

const withoutExtension = (path: string) => path.replace(/(\.d)?\.[cm]?[jt]sx?$/, '');

const isWithin = (path: string, place: string) => path === place || path.startsWith(`${place}/`);

const isWithinAny = (path: string, places: readonly string[]) =>
  places.some((place) => isWithin(path, place));

const lineAt = (source: string, offset: number) => source.slice(0, offset).split('\n').length;

/** Every import, whatever its form, and every look at the environment or a clock. */
function usesIn(program: Program): Use[] {
  const uses: Use[] = [];
  walk(program, null, (node, parent) => {
    const use = isEnvironment(node) ? environmentUse(node, parent) : readUse(node);
    if (use) uses.push({ ...use, start: node.start });
  });
  return uses;
}

type Found = { [Kind in Use['kind']]: Omit<Extract<Use, { kind: Kind }>, 'start'> }[Use['kind']];

function readUse(node: Node): Found | null {
  switch (node.type) {
    case 'ImportDeclaration':
      return imported(node.source, node.importKind === 'type');
    case 'ExportAllDeclaration':
      return imported(node.source, node.exportKind === 'type');
    case 'ExportNamedDeclaration':
      return node.source && imported(node.source, node.exportKind === 'type');
    case 'TSImportType':
      return imported(node.source, true);
    case 'TSExternalModuleReference':
      return imported(node.expression, false);
    case 'ImportExpression':
      return imported(node.source, false);
    case 'CallExpression':
      return isRequire(node.callee) ? imported(node.arguments[0] ?? null, false) : null;
    case 'NewExpression':
      return isNamed(node.callee, 'Date') && node.arguments.length === 0 ? { kind: 'clock' } : null;
    case 'MemberExpression':
      return memberUse(node);
    case 'VariableDeclarator':
      return node.id.type === 'ObjectPattern' && node.init ? destructured(node.id, node.init) : null;
    default:
      return null;
  }
}

const imported = (source: Node | null, typeOnly: boolean): Found => ({
  kind: 'import',
  specifier: source === null ? null : textOf(source, true),
  typeOnly,
});

const isRequire = (callee: Node): boolean =>
  isNamed(callee, 'require') ||
  (callee.type === 'MemberExpression' &&
    propertyOf(callee) === 'resolve' &&
    isNamed(callee.object, 'require'));

function memberUse(node: Extract<Node, { type: 'MemberExpression' }>): Found | null {
  const property = propertyOf(node);
  const { object } = node;
  if (property === 'now' && (isNamed(object, 'Date') || isNamed(object, 'performance')))
    return { kind: 'clock' };
  return null;
}

/** The whole of it counts as no variable in particular. */
const environmentUse = (node: Node, parent: Node | null): Found => ({
  kind: 'environment',
  variable: parent?.type === 'MemberExpression' && parent.object === node ? propertyOf(parent) : null,
});

function destructured(pattern: Extract<Node, { type: 'ObjectPattern' }>, init: Node): Found | null {
  const names = pattern.properties.map((property) =>
    property.type === 'Property' && !property.computed ? textOf(property.key) : null,
  );
  if (isNamed(init, 'process') && names.includes('env')) return { kind: 'environment', variable: null };
  const ofClock = isNamed(init, 'Date') || isNamed(init, 'performance');
  return ofClock && names.includes('now') ? { kind: 'clock' } : null;
}

const isEnvironment = (node: Node): boolean =>
  node.type === 'MemberExpression' && propertyOf(node) === 'env' && isNamed(node.object, 'process');

/** `name`, or `globalThis.name`. */
const isNamed = (node: Node, name: string): boolean =>
  (node.type === 'Identifier' && node.name === name) ||
  (node.type === 'MemberExpression' && propertyOf(node) === name && isNamed(node.object, 'globalThis'));

const propertyOf = (node: Extract<Node, { type: 'MemberExpression' }>): string | null =>
  node.computed || node.property.type !== 'Identifier' ? textOf(node.property, true) : node.property.name;

/** The text a literal stands for or, unless literals alone count, an identifier's name. */
function textOf(node: Node, literalOnly = false): string | null {
  if (node.type === 'Literal') return typeof node.value === 'string' ? node.value : null;
  if (node.type === 'TemplateLiteral' && node.expressions.length === 0)
    return node.quasis[0]?.value.cooked ?? null;
  if (node.type === 'TSLiteralType') return textOf(node.literal, literalOnly);
  return !literalOnly && node.type === 'Identifier' ? node.name : null;
}

function walk(node: Node, parent: Node | null, visit: (node: Node, parent: Node | null) => void): void {
  visit(node, parent);
  for (const child of Object.values(node)) {
    for (const each of Array.isArray(child) ? child : [child]) if (isNode(each)) walk(each, node, visit);
  }
}

const isNode = (value: unknown): value is Node =>
  typeof value === 'object' && value !== null && typeof (value as { type?: unknown }).type === 'string';
