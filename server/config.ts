/** What operators may set, read once and judged as a whole. The only reader of the environment. */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { join, resolve } from 'node:path';

export interface Config {
  /** Address or name to listen on. */
  host: string;
  /** 0 takes any free port. */
  port: number;
  /** Where metrics are to be had without a key; undefined for nowhere. */
  metricsPort: number | undefined;
  /** Origin of every URL we emit, and `iss` of the JWTs we sign. */
  publicUrl: string;
  /** Absolute path of the folder for what is kept in files. */
  dataDir: string;
  /** Where the SQLite file is, or would be. */
  sqliteFile: string;
  /** `sqliteFile`, or `postgres://…`, which may hold a password. */
  databaseLocation: string;
  /** Tells this host from others, for a SQLite file is for one host alone. */
  hostId: string;
  /** May hold passwords. */
  redis: RedisServers | undefined;
  /** 32 bytes; undefined where none was given. */
  masterKey: Buffer | undefined;
  /** 32 bytes: what a rotation is to replace a master key that was given by. */
  newMasterKey: Buffer | undefined;
  bootstrapKey: string | undefined;
  signingAlg: (typeof SIGNING_ALGS)[number];
  /** How long a signing key signs before `key-rotation` has another do so. */
  keyRotationDays: number;
  /** CIDR blocks whose `X-Forwarded-For` is believed. */
  trustedProxies: readonly string[];
  corsOrigins: readonly string[];
  /** CIDR blocks that webhooks may be sent to although they are not public. */
  webhookAllowSubnets: readonly string[];
  console: boolean;
  /** Which OAuth applications are let in: those an administrator registered, or what agents need too. */
  oauthClients: (typeof OAUTH_CLIENTS)[number];
  /** How many tokens an OAuth application may get for itself in a minute. */
  oauthTokensPerMinute: number;
  signIn: SignInSettings;
  logLevel: (typeof LOG_LEVELS)[number];
}

/** Who says which user is in front of an authorization request. */
export type SignInSettings =
  /** This server, by its own accounts. */
  | { kind: 'local' }
  /** The host application, at a page of its own. */
  | { kind: 'handoff'; url: string }
  /** Another issuer, by OpenID Connect. */
  | { kind: 'oidc'; issuer: string; clientId: string; clientSecret: string | null };

/** Where Redis is: one server, Sentinels that know which one it is, or the nodes of a Cluster. */
export type RedisServers =
  | { kind: 'single'; url: string }
  | ({ kind: 'sentinel'; master: string; db: number; sentinelLogin: RedisLogin } & RedisNodes)
  | ({ kind: 'cluster' } & RedisNodes);

interface RedisNodes {
  /** Any of them will do: the others are learned from those that answer. */
  nodes: readonly { host: string; port: number }[];
  login: RedisLogin;
  tls: boolean;
}

interface RedisLogin {
  username?: string;
  password?: string;
}

/** One setting that is not as wanted. `found` never holds a secret. */
export interface ConfigProblem {
  name: string;
  wanted: string;
  found: string;
}

/** Everything that is wrong with the environment, at once. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly ConfigProblem[];
  constructor(problems: readonly ConfigProblem[]) {
    const lines = problems.map((problem) => `  ${describeProblem(problem)}`);
    super(`Cannot start: ${problems.length} of the settings are not as wanted\n${lines.join('\n')}`);
    this.problems = problems;
  }
}

export const describeProblem = ({ name, wanted, found }: ConfigProblem): string =>
  `${name}: wanted ${wanted}, found ${found}`;

const SIGNING_ALGS = ['RS256', 'ES256', 'EdDSA'] as const;
const OAUTH_CLIENTS = ['preregistered', 'mcp'] as const;
const SIGN_INS = ['local', 'handoff', 'oidc'] as const;
const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;

const PREFIX = 'COUNTERSIGN_';

/** Settings by name. Those that are or may hold a secret leave the environment once read. */
export const SETTINGS = {
  PORT: 'plain',
  DATABASE_URL: 'secret',
  DATABASE_URL_FILE: 'plain',
  REDIS_URL: 'secret',
  REDIS_URL_FILE: 'plain',
  COUNTERSIGN_HOST: 'plain',
  COUNTERSIGN_HOST_ID: 'plain',
  COUNTERSIGN_METRICS_PORT: 'plain',
  COUNTERSIGN_KEY_ROTATION_DAYS: 'plain',
  COUNTERSIGN_PUBLIC_URL: 'plain',
  COUNTERSIGN_DATA_DIR: 'plain',
  COUNTERSIGN_MASTER_KEY: 'secret',
  COUNTERSIGN_MASTER_KEY_FILE: 'plain',
  COUNTERSIGN_NEW_MASTER_KEY: 'secret',
  COUNTERSIGN_NEW_MASTER_KEY_FILE: 'plain',
  COUNTERSIGN_BOOTSTRAP_KEY: 'secret',
  COUNTERSIGN_BOOTSTRAP_KEY_FILE: 'plain',
  COUNTERSIGN_SIGNING_ALG: 'plain',
  COUNTERSIGN_TRUSTED_PROXIES: 'plain',
  COUNTERSIGN_CORS_ORIGINS: 'plain',
  COUNTERSIGN_ALLOW_INSECURE_HTTP: 'plain',
  COUNTERSIGN_WEBHOOK_ALLOW_SUBNETS: 'plain',
  COUNTERSIGN_CONSOLE: 'plain',
  COUNTERSIGN_OAUTH_CLIENTS: 'plain',
  COUNTERSIGN_OAUTH_TOKENS_PER_MINUTE: 'plain',
  COUNTERSIGN_SIGN_IN: 'plain',
  COUNTERSIGN_HANDOFF_URL: 'plain',
  COUNTERSIGN_OIDC_ISSUER: 'plain',
  COUNTERSIGN_OIDC_CLIENT_ID: 'plain',
  COUNTERSIGN_OIDC_CLIENT_SECRET: 'secret',
  COUNTERSIGN_OIDC_CLIENT_SECRET_FILE: 'plain',
  COUNTERSIGN_LOG_LEVEL: 'plain',
} as const satisfies Record<string, 'plain' | 'secret'>;

type SettingName = keyof typeof SETTINGS;
type SecretName = { [N in SettingName]: (typeof SETTINGS)[N] extends 'secret' ? N : never }[SettingName];

/** Names with our prefix that others read: the client and the command line, and the test suite. */
const NAMES_OF_OTHERS = new Set([
  'COUNTERSIGN_URL',
  'COUNTERSIGN_SECRET_KEY',
  'COUNTERSIGN_MACHINE_SECRET_KEY',
  'COUNTERSIGN_TEST_INSTALL',
]);

/** Kubernetes puts these into every container beside a Service called `countersign`. */
const OF_KUBERNETES =
  /^COUNTERSIGN_(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$/;
const PORT_OF_KUBERNETES = /^(tcp|udp|sctp):\/\//;

export const MASTER_KEY_WANTED = '32 bytes as base64, base64url or 64 hex digits';
const BOOTSTRAP_KEY_WANTED = "'sk_' and 40 to 512 letters, digits or underscores";
const BOOTSTRAP_KEY = /^sk_[A-Za-z0-9_]{40,512}$/;
const REDIS_WANTED =
  "a URL such as redis://host:6379, redis+sentinel://host:26379,host:26379/master-name or redis+cluster://host:6379,host:6379; 'rediss' for TLS";
const HOST_NAME = /^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/;

/** Reads the settings; throws one `ConfigError` that names every bad one. Empty counts as not set. */
export function loadConfig(env: NodeJS.ProcessEnv): Config {
  const settings = new SettingsReader(env);
  const port = settings.read('PORT', 4400, 'a whole number from 0 to 65535', parsePort);
  const host = settings.read('COUNTERSIGN_HOST', '127.0.0.1', 'an address or a host name', parseHost);
  const publicUrl = settings.read(
    'COUNTERSIGN_PUBLIC_URL',
    defaultPublicUrl(host, port),
    'an http or https origin such as https://auth.example.com, without path, query or credentials',
    parseOrigin,
  );
  const dataDir = settings.read('COUNTERSIGN_DATA_DIR', resolve('data'), 'a path', (text) => resolve(text));
  const sqliteFile = join(dataDir, 'countersign.db');
  const databaseUrl = settings.readSecret(
    'DATABASE_URL',
    "a URL that begins 'postgres://'; leave it out for SQLite",
    (text) => parseUrl(text, ['postgres:', 'postgresql:']),
  );
  const config: Config = {
    host,
    port,
    metricsPort: settings.read(
      'COUNTERSIGN_METRICS_PORT',
      undefined,
      'a whole number from 1 to 65535',
      (text) => parsePort(text) || undefined,
    ),
    publicUrl,
    dataDir,
    sqliteFile,
    databaseLocation: databaseUrl ?? sqliteFile,
    hostId: settings.read(
      'COUNTERSIGN_HOST_ID',
      thisHost(),
      'up to 64 letters, digits, points, hyphens or underscores',
      (text) => (/^[\w.-]{1,64}$/.test(text) ? text : undefined),
    ),
    redis: settings.readSecret('REDIS_URL', REDIS_WANTED, parseRedisUrl),
    masterKey: settings.readSecret('COUNTERSIGN_MASTER_KEY', MASTER_KEY_WANTED, parseMasterKey),
    newMasterKey: settings.readSecret('COUNTERSIGN_NEW_MASTER_KEY', MASTER_KEY_WANTED, parseMasterKey),
    bootstrapKey: settings.readSecret('COUNTERSIGN_BOOTSTRAP_KEY', BOOTSTRAP_KEY_WANTED, (text) =>
      BOOTSTRAP_KEY.test(text) ? text : undefined,
    ),
    signingAlg: settings.read('COUNTERSIGN_SIGNING_ALG', 'RS256', ...oneOf(SIGNING_ALGS)),
    keyRotationDays: settings.read(
      'COUNTERSIGN_KEY_ROTATION_DAYS',
      30,
      'a whole number from 2 to 3650',
      (text) => parseWhole(text, 2, 3_650),
    ),
    trustedProxies: settings.read('COUNTERSIGN_TRUSTED_PROXIES', [], ...listOf('CIDR blocks', isCidr)),
    corsOrigins: settings.read('COUNTERSIGN_CORS_ORIGINS', [], ...listOf('origins', isOrigin)),
    webhookAllowSubnets: settings.read(
      'COUNTERSIGN_WEBHOOK_ALLOW_SUBNETS',
      [],
      ...listOf('CIDR blocks', isCidr),
    ),
    console: settings.read('COUNTERSIGN_CONSOLE', 'on', ...oneOf(['on', 'off'])) === 'on',
    oauthClients: settings.read('COUNTERSIGN_OAUTH_CLIENTS', 'preregistered', ...oneOf(OAUTH_CLIENTS)),
    oauthTokensPerMinute: settings.read(
      'COUNTERSIGN_OAUTH_TOKENS_PER_MINUTE',
      6_000,
      'a whole number from 1 to 100000000',
      (text) => parseWhole(text, 1, 100_000_000),
    ),
    signIn: readSignIn(settings),
    logLevel: settings.read('COUNTERSIGN_LOG_LEVEL', 'info', ...oneOf(LOG_LEVELS)),
  };
  const allowInsecureHttp = settings.read(
    'COUNTERSIGN_ALLOW_INSECURE_HTTP',
    'false',
    ...oneOf(['true', 'false', '1', '0']),
  );
  if (databaseUrl !== undefined && config.masterKey === undefined) {
    settings.refuse(
      'COUNTERSIGN_MASTER_KEY',
      `${MASTER_KEY_WANTED}, because 'DATABASE_URL' names a PostgreSQL database`,
    );
  }
  if (!isLoopback(host) && !publicUrl.startsWith('https:') && !['true', '1'].includes(allowInsecureHttp)) {
    settings.refuse(
      'COUNTERSIGN_PUBLIC_URL',
      "an https URL, because 'COUNTERSIGN_HOST' is not loopback (COUNTERSIGN_ALLOW_INSECURE_HTTP=true waives it)",
      publicUrl,
    );
  }
  settings.finish();
  return config;
}

/** What the way of signing in needs is wanted with it; what belongs to another way is left alone. */
function readSignIn(settings: SettingsReader): SignInSettings {
  const kind = settings.read('COUNTERSIGN_SIGN_IN', 'local', ...oneOf(SIGN_INS));
  const url = settings.read('COUNTERSIGN_HANDOFF_URL', null, ...SIGN_IN_URL);
  const issuer = settings.read('COUNTERSIGN_OIDC_ISSUER', null, ...SIGN_IN_URL);
  const clientId = settings.read('COUNTERSIGN_OIDC_CLIENT_ID', null, 'a client id', (text) => text);
  const clientSecret =
    settings.readSecret('COUNTERSIGN_OIDC_CLIENT_SECRET', 'a client secret', (text) => text) ?? null;
  if (kind === 'handoff') {
    if (url === null) settings.refuse('COUNTERSIGN_HANDOFF_URL', `${SIGN_IN_URL[0]}, with the way 'handoff'`);
    else return { kind, url };
  }
  if (kind === 'oidc') {
    if (issuer === null) settings.refuse('COUNTERSIGN_OIDC_ISSUER', `${SIGN_IN_URL[0]}, with the way 'oidc'`);
    else if (clientId === null)
      settings.refuse('COUNTERSIGN_OIDC_CLIENT_ID', "a client id, with the way 'oidc'");
    else return { kind, issuer, clientId, clientSecret };
  }
  return { kind: 'local' };
}

/** Passwords and who somebody is pass by it: in the clear on this host alone. */
const SIGN_IN_URL: [wanted: string, parse: (text: string) => string | undefined] = [
  'an https URL, or an http one on loopback',
  (text) => {
    const url = parseUrl(text, ['http:', 'https:']);
    const isSafe = url !== undefined && (url.startsWith('https:') || isLoopback(new URL(url).hostname));
    return isSafe ? url : undefined;
  },
];

/** A key with which this process calls a server, as clients and the command line do. */
export const secretKeyOf = (env: NodeJS.ProcessEnv): string | undefined =>
  env['COUNTERSIGN_SECRET_KEY'] || undefined;

/** How many threads Node was told to keep for slow work; undefined where it was told nothing. As libuv reads it. */
export function threadPoolSizeOf(env: NodeJS.ProcessEnv): number | undefined {
  const text = env['UV_THREADPOOL_SIZE'];
  return text ? Math.max(1, Number.parseInt(text, 10) || 0) : undefined;
}

/** The same settings on the port that was taken, where `PORT` left the choice to the system. */
export function listeningOn(config: Config, port: number): Config {
  const isDefault = config.publicUrl === defaultPublicUrl(config.host, config.port);
  return { ...config, port, publicUrl: isDefault ? defaultPublicUrl(config.host, port) : config.publicUrl };
}

/** 32 bytes as base64, base64url or 64 hex digits; undefined when the text is none of these. */
export function parseMasterKey(text: string): Buffer | undefined {
  if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, 'hex');
  if (/^([A-Za-z0-9+/]{43}|[A-Za-z0-9_-]{43})=?$/.test(text)) return Buffer.from(text, 'base64');
  return undefined;
}

/**
 * `redis://…`, `redis+sentinel://user:password@host:port,…/master-name?db=0` or `redis+cluster://user:password@host:port,…`;
 * `rediss` for TLS. Login and `db` are the servers' own; Sentinels may have a `sentinel_user` and a `sentinel_password`.
 */
export function parseRedisUrl(text: string): RedisServers | undefined {
  const url = parseUrl(text, ['redis:', 'rediss:']);
  if (url !== undefined) return { kind: 'single', url };
  const [, scheme, kind, userinfo = '', hosts = '', path = '', query = ''] = REDIS_NODES.exec(text) ?? [];
  try {
    if (kind !== 'sentinel' && kind !== 'cluster') return undefined;
    const nodes = hosts.split(',').map((host) => parseNode(host, kind === 'sentinel' ? 26_379 : 6_379));
    if (!nodes.every((node) => node !== undefined)) return undefined;
    const [username, password] = userinfo.split(/:(.*)/, 2).map(decodeURIComponent);
    const servers = { nodes, login: loginOf(username, password), tls: scheme === 'rediss' };
    if (kind === 'cluster') return path === '' && query === '' ? { kind, ...servers } : undefined;
    const {
      db = '0',
      sentinel_user,
      sentinel_password,
      ...unknown
    } = Object.fromEntries(new URLSearchParams(query));
    if (path === '' || !/^\d{1,5}$/.test(db) || Object.keys(unknown).length > 0) return undefined;
    const sentinelLogin = loginOf(sentinel_user, sentinel_password);
    return { kind, ...servers, master: decodeURIComponent(path), db: Number(db), sentinelLogin };
  } catch {
    // Percent signs that stand for nothing.
    return undefined;
  }
}

const REDIS_NODES = /^(rediss?)\+(sentinel|cluster):\/\/(?:([^@/?]*)@)?([^@/?]+)(?:\/([^/?]*))?(?:\?(.*))?$/;

const loginOf = (username: string | undefined, password: string | undefined): RedisLogin => ({
  ...(username && { username }),
  ...(password && { password }),
});

function parseNode(text: string, defaultPort: number): { host: string; port: number } | undefined {
  const [, v6, name = '', digits] = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]]+))(?::(\d+))?$/.exec(text) ?? [];
  const host = v6 === undefined ? parseHost(name) : isIP(v6) === 6 ? v6 : undefined;
  const port = digits === undefined ? defaultPort : parsePort(digits);
  return host === undefined || !port ? undefined : { host, port };
}

/** Whether a host name or address, as written in a URL or not, can only be this machine. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '').toLowerCase();
  return bare === 'localhost' || bare === '::1' || (isIP(bare) === 4 && bare.startsWith('127.'));
}

/** Reads settings one by one and gathers what is wrong with them. */
class SettingsReader {
  readonly #values = new Map<SettingName, string>();
  readonly #problems: ConfigProblem[] = [];

  constructor(env: NodeJS.ProcessEnv) {
    for (const name of Object.keys(SETTINGS) as SettingName[]) {
      const value = env[name];
      if (value !== undefined && value !== '') this.#values.set(name, value);
      if (SETTINGS[name] === 'secret') delete env[name];
    }
    for (const name of Object.keys(env).filter((key) => isUnknown(key, env[key] ?? ''))) {
      this.#problems.push({
        name,
        wanted: `a known setting, such as ${nearestName(name)}`,
        found: 'one that is not',
      });
    }
  }

  /** `parse` answers undefined for what is not as wanted. */
  read<T, F = T>(
    name: SettingName,
    fallback: F,
    wanted: string,
    parse: (text: string) => T | undefined,
  ): T | F {
    const text = this.#values.get(name);
    if (text === undefined) return fallback;
    const value = parse(text.trim());
    if (value !== undefined) return value;
    this.refuse(name, wanted, text);
    return fallback;
  }

  /** A secret, given as it is or as the path of a file that holds it. */
  readSecret<T>(name: SecretName, wanted: string, parse: (text: string) => T | undefined): T | undefined {
    const fileName = `${name}_FILE` as const;
    const path = this.#values.get(fileName);
    if (path === undefined) return this.read(name, undefined, wanted, parse);
    if (this.#values.has(name)) {
      this.refuse(fileName, `only one of '${name}' and '${fileName}'`, 'both');
      return undefined;
    }
    return this.#readFile(fileName, path, wanted, parse);
  }

  #readFile<T>(name: SettingName, path: string, wanted: string, parse: (text: string) => T | undefined) {
    try {
      const text = readFileSync(path, 'utf8').trim();
      const value = parse(text);
      if (value === undefined) {
        this.#problems.push({ name, wanted: `a file that holds ${wanted}`, found: lengthOf(text) });
      }
      return value;
    } catch (error) {
      const code = (error as { code?: unknown }).code;
      this.refuse(name, 'the path of a file that can be read', `${path} (${code})`);
      return undefined;
    }
  }

  refuse(name: SettingName, wanted: string, text?: string) {
    // A second complaint about one setting only hides the first.
    if (this.#problems.some((problem) => problem.name === name)) return;
    this.#problems.push({ name, wanted, found: describeFound(name, text) });
  }

  finish() {
    if (this.#problems.length > 0) throw new ConfigError(this.#problems);
  }
}

function describeFound(name: SettingName, text: string | undefined): string {
  if (text === undefined) return 'nothing';
  if (SETTINGS[name] === 'secret') return lengthOf(text);
  const shown = text.replace(/:\/\/[^/]*@/, '://…@').slice(0, 100);
  return `'${shown}'`;
}

const lengthOf = (text: string) => `text of ${text.length} characters`;

function isUnknown(name: string, value: string): boolean {
  if (!name.startsWith(PREFIX) || Object.hasOwn(SETTINGS, name) || NAMES_OF_OTHERS.has(name)) return false;
  return !OF_KUBERNETES.test(name) && !(name === 'COUNTERSIGN_PORT' && PORT_OF_KUBERNETES.test(value));
}

function nearestName(name: string): string {
  const bare = name.slice(PREFIX.length);
  const distances = Object.keys(SETTINGS).map((known) => ({
    known,
    distance: Math.min(editDistance(name, known), editDistance(bare, known)),
  }));
  return distances.reduce((best, each) => (each.distance < best.distance ? each : best)).known;
}

/** Levenshtein's distance. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (const [line, letter] of [...from].entries()) {
    const next = [line + 1];
    for (const [column, other] of [...to].entries()) {
      const replaced = (row[column] ?? 0) + (letter === other ? 0 : 1);
      next.push(Math.min(replaced, (row[column + 1] ?? 0) + 1, (next[column] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}

/**
 * The running kernel, where it says which it is: containers on it share memory and locks, machines made from one image
 * do not.
 */
function thisHost(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return hostname();
  }
}

function defaultPublicUrl(host: string, port: number): string {
  const reachable = isLoopback(host) ? host : '127.0.0.1';
  return new URL(`http://${isIP(reachable) === 6 ? `[${reachable}]` : reachable}:${port}`).origin;
}

function parsePort(text: string): number | undefined {
  return /^\d{1,5}$/.test(text) && Number(text) <= 65_535 ? Number(text) : undefined;
}

const parseWhole = (text: string, least: number, most: number) =>
  /^\d{1,9}$/.test(text) && Number(text) >= least && Number(text) <= most ? Number(text) : undefined;

const parseHost = (text: string) => (isIP(text) !== 0 || HOST_NAME.test(text) ? text : undefined);

function parseUrl(text: string, protocols: readonly string[]): string | undefined {
  return URL.canParse(text) && protocols.includes(new URL(text).protocol) ? text : undefined;
}

/** An http or https origin, without path, query or credentials; a slash at its end is left out. */
export function parseOrigin(text: string): string | undefined {
  if (parseUrl(text, ['http:', 'https:']) === undefined) return undefined;
  const url = new URL(text);
  return url.href === `${url.origin}/` ? url.origin : undefined;
}

const isOrigin = (text: string) => parseOrigin(text) === text;

function isCidr(text: string): boolean {
  const [address = '', bits, ...rest] = text.split('/');
  const family = isIP(address);
  if (family === 0 || rest.length > 0) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128));
}

function oneOf<const T extends readonly string[]>(
  values: T,
): [wanted: string, parse: (text: string) => T[number] | undefined] {
  return [`one of ${values.join(', ')}`, (text) => values.find((value) => value === text)];
}

function listOf(
  what: string,
  isMember: (text: string) => boolean,
): [wanted: string, parse: (text: string) => string[] | undefined] {
  return [
    `${what} separated by commas`,
    (text) => {
      const members = text.split(',').map((member) => member.trim());
      return members.every(isMember) ? members : undefined;
    },
  ];
}
