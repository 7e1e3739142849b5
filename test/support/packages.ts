/** The Debian packages that the suite's real parts come from: whether they are there, and getting them if they are not. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

export type Part = 'postgres' | 'redis' | 'chromium' | 'nginx' | 'python' | 'authlib';

const PACKAGES: Record<Part, string> = {
  postgres: 'postgresql',
  redis: 'redis-server',
  chromium: 'chromium',
  nginx: 'nginx-light libnginx-mod-http-js',
  python: 'python3-jwt python3-cryptography python3-requests',
  authlib: 'python3-authlib python3-requests',
};

/** What decides whether a package may be installed. */
export interface Host {
  uid: number | undefined;
  debian: boolean;
  /** The value of `COUNTERSIGN_TEST_INSTALL`. */
  install: string | undefined;
}

/** The machine as the suite meets it; a test of the suite gives another. */
export interface Packages {
  host: Host;
  isInstalled(part: Part): boolean;
  /** Runs apt-get; answers its last word when it failed. */
  aptGet(args: readonly string[]): string | null;
  say(text: string): void;
}

/** Why nothing may be installed on this host, or null when it may. */
function whyNotInstall({ uid, debian, install }: Host): string | null {
  if (install === '0') return 'COUNTERSIGN_TEST_INSTALL=0 forbids installing it';
  if (uid !== 0) return 'only root may install it';
  if (!debian) return 'only on Debian is it installed for you';
  return null;
}

/** Installs what is absent of them where that is allowed, and says so. Answers what stays absent, and why. */
export function ensureInstalled(
  packages: Packages,
  parts = Object.keys(PACKAGES) as readonly Part[],
): Partial<Record<Part, string>> {
  const absent = parts.filter((part) => !packages.isInstalled(part));
  if (absent.length === 0) return {};
  const refusal = whyNotInstall(packages.host);
  const failure = refusal === null ? install(packages, absent) : null;
  const reason = refusal ?? failure ?? 'apt-get installed it somewhere it is not looked for';
  return Object.fromEntries(
    absent
      .filter((part) => !packages.isInstalled(part))
      .map((part) => [part, `${PACKAGES[part]} is missing: ${reason}`]),
  );
}

function install(packages: Packages, parts: readonly Part[]): string | null {
  const names = parts.flatMap((part) => PACKAGES[part].split(' '));
  packages.say(
    `Installing what the tests need: ${names.join(', ')} (COUNTERSIGN_TEST_INSTALL=0 forbids this)`,
  );
  // Old lists may do: only what apt-get install says counts.
  packages.aptGet(['update']);
  const failure = packages.aptGet(['install', '-y', '--no-install-recommends', ...names]);
  if (failure !== null) packages.say(`apt-get install failed: ${failure}`);
  return failure === null ? null : 'apt-get could not install it';
}

const BINARIES: Record<Part, () => string | null> = {
  postgres: () => postgresBinaries(),
  redis: () => binary('redis-server'),
  chromium: () => binary('chromium'),
  nginx: () => (existsSync(NGINX_SCRIPTS) ? binary('nginx', `/usr/sbin:${process.env['PATH']}`) : null),
  python: () => pythonWith(['jwt', 'cryptography', 'requests']),
  authlib: () => pythonWith(['authlib', 'requests']),
};

/** Where Debian keeps the module of nginx that runs scripts. */
const NGINX_SCRIPTS = '/usr/lib/nginx/modules/ngx_http_js_module.so';

/** Debian's own Python, whichever else comes first on the PATH, where it has these modules; else null. */
const pythonWith = (modules: readonly string[]): string | null =>
  modules.every((name) => existsSync(`/usr/lib/python3/dist-packages/${name}`)) ? '/usr/bin/python3' : null;

/** The path of the program of a part, or null. */
export const programOf = (part: Part): string | null => BINARIES[part]();

export const thisMachine: Packages = {
  host: {
    uid: process.getuid?.(),
    debian: existsSync('/etc/debian_version'),
    install: process.env['COUNTERSIGN_TEST_INSTALL'],
  },
  isInstalled: (part) => BINARIES[part]() !== null,
  aptGet(args) {
    // Runlevel 1 keeps the packages from starting services of their own.
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
    const { status, stderr, error } = spawnSync('apt-get', ['-q', ...args], { env, encoding: 'utf8' });
    if (status === 0) return null;
    return error?.message ?? stderr.trim().split('\n').at(-1) ?? 'no reason given';
  },
  say: (text) => process.stdout.write(`${text}\n`),
};

/** The folder with the newest `initdb` and `postgres`, or null. Debian keeps them off the PATH. */
export function postgresBinaries(base = '/usr/lib/postgresql', path = process.env['PATH']): string | null {
  const versions = existsSync(base) ? readdirSync(base).map(Number).filter(Number.isInteger) : [];
  const folders = versions.sort((a, b) => b - a).map((version) => join(base, `${version}`, 'bin'));
  return (
    [...folders, ...onPath(path)].find((folder) =>
      ['initdb', 'postgres'].every((binary) => existsSync(join(folder, binary))),
    ) ?? null
  );
}

/** The path of a program, or null. */
export function binary(name: string, path = process.env['PATH']): string | null {
  const folder = onPath(path).find((candidate) => existsSync(join(candidate, name)));
  return folder === undefined ? null : join(folder, name);
}

const onPath = (path: string | undefined) => (path ?? '').split(':').filter((folder) => folder !== '');
