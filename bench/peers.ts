/**
 * The peers: installed when they are wanted, at the versions that are named here, into a folder for temporary files. They
 * are no dependency of ours. Their programs are ours, in `bench/peers`.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BROWSERS } from './code-flows.ts';
import { CREDENTIALS } from './floors/floor.ts';
import type { OauthRequests } from './oauth.ts';
import { type Measured, startPeerProgram } from './processes.ts';
import type { PostRequest } from './requests.ts';

const PACKAGES = {
  '@better-auth/api-key': '1.7.5',
  '@better-auth/oauth-provider': '1.7.5',
  'better-auth': '1.7.5',
  express: '5.3.0',
  'oidc-provider': '9.13.3',
} as const;

export const PEERS = {
  'better-auth': `Better Auth ${PACKAGES['better-auth']}, SQLite`,
  'better-auth-oauth': `Better Auth ${PACKAGES['better-auth']}, SQLite`,
  'oidc-provider': `oidc-provider ${PACKAGES['oidc-provider']}, opaque, in memory`,
  'oidc-provider-sqlite': `oidc-provider ${PACKAGES['oidc-provider']} in Express ${PACKAGES.express}, SQLite`,
} as const;

export interface PeerProgram extends Measured {
  /** What it is asked, in turn. */
  requests: PostRequest[];
}

interface Programs {
  'better-auth': PeerProgram;
  'better-auth-oauth': Measured & OauthRequests;
  'oidc-provider': PeerProgram;
  'oidc-provider-sqlite': Measured & OauthRequests;
}

const DRIVER = createRequire(import.meta.url).resolve('better-sqlite3');

/** What each is started with, before the folder of its own. */
const ARGS: Readonly<Record<keyof Programs, readonly string[]>> = {
  'better-auth': [DRIVER, `${CREDENTIALS}`],
  'better-auth-oauth': [DRIVER, `${CREDENTIALS}`, `${BROWSERS}`],
  'oidc-provider': [],
  'oidc-provider-sqlite': [DRIVER, `${CREDENTIALS}`, `${BROWSERS}`],
};

export interface Peer<P> {
  /** Null where it is not to be had. */
  program: P | null;
  /** Why it is not to be had. */
  missing: string;
}

/** Why the peers are not to be had, or null: asked once in a run, for a registry that does not answer costs minutes. */
let refusal: string | null | undefined;

/** Starts a peer, and installs all of them if they are not there yet. */
export async function startPeer<N extends keyof Programs>(name: N): Promise<Peer<Programs[N]>> {
  const folder = join(tmpdir(), `countersign-bench-peers-${versionsHash()}`);
  if (refusal === undefined) refusal = install(folder);
  if (refusal !== null) return { program: null, missing: refusal };
  const path = join(folder, `${name}.mjs`);
  copyFileSync(fileURLToPath(new URL(`./peers/${name}.mjs`, import.meta.url)), path);
  return { program: await startPeerProgram<Programs[N]>(path, ARGS[name]), missing: '' };
}

const versionsHash = () => createHash('sha256').update(JSON.stringify(PACKAGES)).digest('hex').slice(0, 12);

/** Written by npm as the last of an installation. */
const INSTALLED = 'node_modules/.package-lock.json';
const INSTALL_MS_MAX = 120_000;

/** Answers why it could not, or null. */
function install(folder: string): string | null {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (statSync(folder).uid !== process.getuid?.()) return `'${folder}' is somebody else's`;
  if (existsSync(join(folder, INSTALLED))) return null;
  process.stdout.write(`  installing ${Object.keys(PACKAGES).join(', ')} into ${folder}\n`);
  writeFileSync(
    join(folder, 'package.json'),
    JSON.stringify({ private: true, type: 'module', dependencies: PACKAGES }),
  );
  const flags = [
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--fetch-retries=1',
    '--fetch-retry-mintimeout=1000',
    '--fetch-timeout=15000',
  ];
  // The optional peers of Better Auth are every framework there is.
  const { status, error, stderr } = spawnSync('npm', ['install', '--legacy-peer-deps', ...flags], {
    cwd: folder,
    env: withoutNpm(process.env),
    timeout: INSTALL_MS_MAX,
    encoding: 'utf8',
  });
  if (status === 0) return null;
  const complaint = stderr?.match(/npm error .*/)?.[0] ?? error?.message ?? 'no reason given';
  return `could not be installed: ${complaint}`;
}

/** `npm run` tells the npm within it, too, where the project is. */
const withoutNpm = (env: NodeJS.ProcessEnv): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(env).filter(([name]) => !name.toLowerCase().startsWith('npm_')));
