/**
 * The version whose schema is the one before this one's, from git: built in a folder of its own, so that it can run
 * beside this one. It runs on the packages of this one.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, realpathSync, renameSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { schemaVersion } from '../../db/migrations.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const JOURNAL = 'db/migrations/sqlite/meta/_journal.json';
const SOURCES = ['db', 'server', 'workers', 'client', 'package.json', 'tsconfig.json', 'tsconfig.build.json'];
const BUNDLER = 'server/rolldown.config.js';

export type PreviousVersion = { commit: string; missing: '' } | { commit: null; missing: string };

/** The last commit before the newest migration came in, or why there is none to be had. */
export function findPreviousVersion(): PreviousVersion {
  const commits = git('log', '--format=%H', '--', JOURNAL)?.split('\n') ?? [];
  if (!commits[0]) return notToBeHad('there is no history of git here');
  const ofThisSchema = commits.filter((commit) => schemaVersionAt(commit) === schemaVersion());
  // A migration that was never committed came in after all that was.
  const first = ofThisSchema.at(-1);
  const commit = git('rev-parse', '--verify', '--quiet', first === undefined ? 'HEAD' : `${first}^`);
  return commit === null
    ? notToBeHad('the history of git does not reach back to it')
    : { commit, missing: '' };
}

const notToBeHad = (reason: string): PreviousVersion => ({
  commit: null,
  missing: `the version before this one is missing: ${reason}`,
});

function schemaVersionAt(commit: string): number {
  const journal = git('show', `${commit}:${JOURNAL}`);
  return journal === null ? 0 : (JSON.parse(journal) as { entries: unknown[] }).entries.length;
}

/** What git says, or null where it refuses or is not there. */
function git(...args: string[]): string | null {
  const { status, stdout } = spawnSync('git', args, { cwd: ROOT, encoding: 'utf8' });
  return status === 0 ? stdout.trim() : null;
}

/** The folder of a commit that is built: made at the first asking and kept, for it takes seconds and never changes. */
export function buildPreviousVersion(commit: string): string {
  const packages = realpathSync(join(ROOT, 'node_modules'));
  const key = createHash('sha256').update(`${commit} ${packages}`).digest('hex').slice(0, 16);
  const folder = join(tmpdir(), `countersign-previous-${key}`);
  if (!isOurs(folder)) {
    const unfinished = mkdtempSync(`${folder}-`);
    build(unfinished, commit, packages);
    moveTo(folder, unfinished);
  }
  return folder;
}

/** In a folder that is everybody's, somebody else could have put programs of theirs where ours are looked for. */
const isOurs = (folder: string) =>
  existsSync(folder) && statSync(folder).uid === (process.getuid?.() ?? statSync(folder).uid);

function build(folder: string, commit: string, packages: string) {
  const archive = execFileSync('git', ['archive', '--format=tar', commit, '--', ...SOURCES], {
    cwd: ROOT,
    maxBuffer: 64 * 1024 * 1024,
  });
  execFileSync('tar', ['-x', '-C', folder], { input: archive });
  symlinkSync(packages, join(folder, 'node_modules'));
  execFileSync(process.execPath, builderOf(folder, packages), {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

/** Versions before there were bundles were compiled file by file; they were checked when they were this version. */
function builderOf(folder: string, packages: string): string[] {
  if (existsSync(join(folder, BUNDLER))) return [join(packages, 'rolldown/bin/cli.mjs'), '--config', BUNDLER];
  const tsc = join(packages, 'typescript/bin/tsc');
  return [tsc, '-p', 'tsconfig.build.json', '--noCheck', '--declaration', 'false'];
}

/** Whoever else built it meanwhile came to the same. */
function moveTo(folder: string, unfinished: string) {
  try {
    renameSync(unfinished, folder);
  } catch (error) {
    if (!isOurs(folder)) throw error;
    rmSync(unfinished, { recursive: true });
  }
}
