import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { freshFolder } from './deps.ts';
import {
  binary,
  ensureInstalled,
  type Host,
  type Packages,
  type Part,
  postgresBinaries,
} from './packages.ts';

const EVERYTHING: Part[] = ['postgres', 'redis', 'chromium', 'nginx', 'python', 'authlib'];
const ROOT_ON_DEBIAN: Host = { uid: 0, debian: true, install: undefined };

/** A machine with some parts on it, whose apt-get installs `obtainable` or fails with a last word. */
function machine(host: Host, present: Part[], obtainable: Part[] | string = EVERYTHING) {
  const said: string[] = [];
  const ran: string[] = [];
  const packages: Packages = {
    host,
    isInstalled: (part) => present.includes(part),
    aptGet(args) {
      ran.push(args.join(' '));
      if (args[0] !== 'install') return null;
      if (typeof obtainable === 'string') return obtainable;
      present.push(...obtainable);
      return null;
    },
    say: (text) => said.push(text),
  };
  return { packages, said, ran };
}

describe('ensureInstalled()', () => {
  it('leaves a machine alone that has everything', () => {
    const { packages, said, ran } = machine(ROOT_ON_DEBIAN, [...EVERYTHING]);
    expect(ensureInstalled(packages)).toEqual({});
    expect([said, ran]).toEqual([[], []]);
  });

  it('says what it installs, and installs only what is absent', () => {
    const present = EVERYTHING.filter((part) => part !== 'redis');
    const { packages, said, ran } = machine(ROOT_ON_DEBIAN, present, ['redis']);
    expect(ensureInstalled(packages)).toEqual({});
    expect(said.join()).toContain('Installing what the tests need: redis-server');
    expect(ran).toEqual(['update', 'install -y --no-install-recommends redis-server']);
  });

  it('installs what a part needs beside its program', () => {
    const present = EVERYTHING.filter((part) => part !== 'nginx');
    const { packages, ran } = machine(ROOT_ON_DEBIAN, present, ['nginx']);
    expect(ensureInstalled(packages)).toEqual({});
    expect(ran.at(-1)).toBe('install -y --no-install-recommends nginx-light libnginx-mod-http-js');
  });

  it.each<[string, Host, string]>([
    ['COUNTERSIGN_TEST_INSTALL=0', { ...ROOT_ON_DEBIAN, install: '0' }, 'COUNTERSIGN_TEST_INSTALL=0 forbids'],
    ['another user than root', { ...ROOT_ON_DEBIAN, uid: 1000 }, 'only root may install it'],
    ['another system than Debian', { ...ROOT_ON_DEBIAN, debian: false }, 'only on Debian'],
    ['a system without users', { ...ROOT_ON_DEBIAN, uid: undefined }, 'only root may install it'],
  ])('runs no command under %s, and answers the reason for each part', (_, host, reason) => {
    const { packages, ran } = machine(host, []);
    const missing = ensureInstalled(packages);
    expect(missing.postgres).toMatch(/^postgresql is missing: /);
    expect(missing.postgres).toContain(reason);
    expect(missing.redis).toContain(reason);
    expect(ran).toEqual([]);
  });

  it('answers that apt-get failed, and says its last word', () => {
    const { packages, said } = machine(ROOT_ON_DEBIAN, [], 'E: Unable to locate package');
    expect(ensureInstalled(packages).redis).toBe('redis-server is missing: apt-get could not install it');
    expect(said.at(-1)).toBe('apt-get install failed: E: Unable to locate package');
  });
});

describe('where the parts are looked for', () => {
  function binaries(...paths: string[]): string {
    const root = freshFolder();
    for (const path of paths) {
      mkdirSync(join(root, path, '..'), { recursive: true });
      writeFileSync(join(root, path), '');
    }
    return root;
  }

  it('postgresBinaries() takes the newest version that is whole, by number', () => {
    const root = binaries(
      '9/bin/initdb',
      '9/bin/postgres',
      '15/bin/initdb',
      '15/bin/postgres',
      '16/bin/initdb',
    );
    expect(postgresBinaries(root, '')).toBe(join(root, '15/bin'));
  });

  it('postgresBinaries() looks on the PATH where Debian has none', () => {
    const root = binaries('bin/initdb', 'bin/postgres');
    expect(postgresBinaries(join(root, 'none'), `/nowhere:${root}/bin`)).toBe(join(root, 'bin'));
    expect(postgresBinaries(join(root, 'none'), '')).toBeNull();
  });

  it('binary() finds a program on the PATH or answers null', () => {
    const root = binaries('bin/redis-server');
    expect(binary('redis-server', `/nowhere:${root}/bin`)).toBe(join(root, 'bin/redis-server'));
    expect(binary('redis-server', '/nowhere')).toBeNull();
  });
});
