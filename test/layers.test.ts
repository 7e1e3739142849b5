import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import {
  CLOCKS,
  ENVIRONMENT,
  LAYERS,
  SHARED_WITH_CLIENTS,
  unusedPermissions,
  violationsOf,
} from './support/layers.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const NO_SOURCES = new Set(['node_modules', 'dist', 'data', 'coverage', 'docs']);

/** Permitted before it is written. */
const AHEAD = new Set([
  'server/limits: server/logger',
  'ioredis: server/limits',
  'rate-limiter-flexible: server/limits',
  'rate-limiter-flexible',
]);

/** Every source file of the project, by its path from the root. */
function sourceFiles(folder = ''): string[] {
  return readdirSync(join(ROOT, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory())
      return NO_SOURCES.has(entry.name) || entry.name.startsWith('.') ? [] : sourceFiles(path);
    return /\.[cm]?[jt]sx?$/.test(entry.name) ? [path] : [];
  });
}

describe('the project', () => {
  it('imports only in the directions its tables allow', () => {
    const files = sourceFiles();
    expect(files.length).toBeGreaterThan(50);
    const found = files.flatMap((file) => violationsOf(file, readFileSync(join(ROOT, file), 'utf8')));
    const report = found.map(({ file, line, rule, message }) => `${file}:${line} ${rule}: ${message}`);
    expect(report).toEqual([]);
  });

  it('makes use of everything that its tables permit a single file', () => {
    const sources = new Map(sourceFiles().map((file) => [file, readFileSync(join(ROOT, file), 'utf8')]));
    expect(unusedPermissions(sources).filter((permission) => !AHEAD.has(permission))).toEqual([]);
  });

  it('has something for every row of the tables', () => {
    const rows = [LAYERS, ENVIRONMENT, CLOCKS].flatMap(Object.keys).concat(SHARED_WITH_CLIENTS);
    expect(
      rows.filter((row) => !existsSync(join(ROOT, row)) && !existsSync(join(ROOT, `${row}.ts`))),
    ).toEqual([]);
  });
});

describe('violationsOf()', () => {
  const rulesIn = (file: string, source: string) =>
    violationsOf(file, source).map(({ line, rule }) => `${line} ${rule}`);

  it.each([
    ['a domain file that imports a transport', 'server/domain/x.ts', `import { a } from '../trpc/base.ts';`],
    ['a transport that imports another', 'server/rest/x.ts', `import { a } from '../trpc/base.ts';`],
    [
      'a transport that reaches for rows',
      'server/trpc/x.ts',
      `import type { Rows } from '../../db/store.ts';`,
    ],
    ['the database that imports the domain', 'db/x.ts', `import { a } from '../server/domain/events.ts';`],
    ['a client that runs server code', 'client/x.ts', `import { a } from '../server/domain/events.ts';`],
    ['a worker that imports a transport', 'workers/x.ts', `import { a } from '../server/app.ts';`],
    ['configuration that imports ours', 'server/config.ts', `import { a } from './logger.ts';`],
    ['export from', 'db/x.ts', `export { a } from '../server/errors.ts';`],
    ['export all', 'db/x.ts', `export * from '../server/errors.ts';`],
    ['import()', 'db/x.ts', `const a = await import('../server/errors.ts');`],
    ['import() of a template', 'db/x.ts', 'const a = await import(`../server/errors.ts`);'],
    ['import() of what only running tells', 'db/x.ts', `const a = await import(name);`],
    ['require', 'db/x.ts', `const a = require('../server/errors.ts');`],
    ['require.resolve', 'db/x.ts', `const a = require.resolve('../server/errors.ts');`],
    ['the type of an import', 'db/x.ts', `type A = import('../server/errors.ts').ErrorCode;`],
    ['an import for its effects', 'db/x.ts', `import '../server/errors.ts';`],
    ['the built form of ours', 'db/x.ts', `import '../dist/server/errors.js';`],
  ])('reports as a matter of layers %s', (_, file, source) => {
    expect(rulesIn(file, `\n${source}\n`)).toEqual(['2 layer']);
  });

  it('reports a value where only a type may be imported', () => {
    const router = '../server/trpc/router.ts';
    expect(rulesIn('client/x.ts', `import { appRouter } from '${router}';`)).toEqual(['1 types only']);
    // What is left of it at run time is an import for its effects.
    expect(rulesIn('client/x.ts', `import { type AppRouter } from '${router}';`)).toEqual(['1 types only']);
    expect(rulesIn('client/x.ts', `export { appRouter } from '${router}';`)).toEqual(['1 types only']);
    expect(rulesIn('client/x.ts', `import type { AppRouter } from '${router}';`)).toEqual([]);
    expect(rulesIn('client/x.ts', `export type { AppRouter } from '${router}';`)).toEqual([]);
    expect(rulesIn('client/x.ts', `type A = import('${router}').AppRouter;`)).toEqual([]);
  });

  it('reports a folder, a shared file and a package that no row is for', () => {
    expect(rulesIn('server/graphql/x.ts', '')).toEqual(['1 unlisted']);
    expect(rulesIn('server/helpers.ts', '')).toEqual(['1 unlisted']);
    expect(rulesIn('lib/x.ts', '')).toEqual(['1 unlisted']);
    expect(rulesIn('db/x.ts', `\nimport mysql from 'mysql2/promise';`)).toEqual(['2 unlisted']);
    expect(rulesIn('db/x.ts', `import fs from 'fs';`)).toEqual(['1 unlisted']);
  });

  it.each([
    ['a driver outside the database', 'server/domain/x.ts', `import pg from 'pg';`],
    ["drizzle's table builders outside it", 'server/domain/x.ts', `import { a } from 'drizzle-orm/pg-core';`],
    ['jose outside the one file', 'server/crypto/x.ts', `import { jwtVerify } from 'jose';`],
    ['BullMQ outside the workers', 'server/domain/x.ts', `import { Queue } from 'bullmq';`],
    ['Express outside the application', 'server/hot.ts', `import express from 'express';`],
    ['tRPC in the domain', 'server/domain/x.ts', `import type { TRPCError } from '@trpc/server';`],
    ['an adapter of tRPC in REST', 'server/rest/x.ts', `import { a } from '@trpc/server/adapters/express';`],
    ['the environment as a module', 'server/domain/x.ts', `import { env } from 'node:process';`],
    ['a clock as a module', 'server/domain/x.ts', `import { performance } from 'node:perf_hooks';`],
  ])('reports as a matter of packages %s', (_, file, source) => {
    expect(rulesIn(file, source)).toEqual(['1 package']);
  });

  it('lets the domain have the query operators, and the client the types of tRPC', () => {
    expect(rulesIn('server/domain/x.ts', `import { eq } from 'drizzle-orm';`)).toEqual([]);
    expect(rulesIn('client/x.ts', `import type { inferRouterInputs } from '@trpc/server';`)).toEqual([]);
    expect(rulesIn('client/x.ts', `import { initTRPC } from '@trpc/server';`)).toEqual(['1 types only']);
  });

  it('reports any import of what is shared with clients', () => {
    expect(rulesIn('server/errors.ts', `import type { Deps } from './deps.ts';`)).toEqual(['1 shared']);
    expect(rulesIn('server/crypto/format.ts', `import { hmac } from './hashing.ts';`)).toEqual(['1 shared']);
    expect(rulesIn('server/domain/event-types.ts', `import { z } from 'zod';`)).toEqual(['1 shared']);
  });

  it.each([
    `const url = process.env['DATABASE_URL'];`,
    `const url = process.env.DATABASE_URL;`,
    `const { DATABASE_URL } = process.env;`,
    `const { env } = process;`,
    `const copy = { ...process.env };`,
    `const url = process['env'][name];`,
    `const url = globalThis.process.env.DATABASE_URL;`,
  ])('reports the environment read outside server/config: %s', (source) => {
    expect(new Set(rulesIn('server/domain/x.ts', source))).toEqual(new Set(['1 environment']));
    expect(new Set(rulesIn('client/x.ts', source))).toEqual(new Set(['1 environment']));
    expect(rulesIn('server/config.ts', source)).toEqual([]);
  });

  it('lets a main hand the environment over, and read nothing of it', () => {
    expect(rulesIn('server/main.ts', 'const config = loadConfig(process.env);')).toEqual([]);
    expect(rulesIn('server/main.ts', 'const port = process.env.PORT;')).toEqual(['1 environment']);
  });

  it('lets the client read its three variables', () => {
    expect(rulesIn('client/x.ts', `const url = process.env['COUNTERSIGN_URL'];`)).toEqual([]);
  });

  it.each([
    'const now = Date.now();',
    'const clock = Date.now;',
    `const now = Date['now']();`,
    'const now = new Date();',
    'const now = globalThis.Date.now();',
    'const { now } = Date;',
    'const started = performance.now();',
  ])('reports a clock read by who has no row for it: %s', (source) => {
    expect(rulesIn('server/domain/x.ts', source)).toEqual(['1 clock']);
    expect(rulesIn('server/main.ts', source)).toEqual(['1 clock']);
    expect(rulesIn('server/open.ts', source)).toEqual([]);
  });

  it('takes no offence at a date made from an instant, or at what only looks like an import', () => {
    const source = `
      const date = new Date(deps.now());
      const text = "import { a } from '../trpc/base.ts'; process.env.X; Date.now()";
      // import { a } from '../trpc/base.ts';
      const env = settings.env.NAME;`;
    expect(rulesIn('server/domain/x.ts', source)).toEqual([]);
  });

  it('names the file, the line and what is wrong', () => {
    expect(violationsOf('db/x.ts', `\n\nimport '../server/errors.ts';`)).toEqual([
      { file: 'db/x.ts', line: 3, rule: 'layer', message: "'db' may not import 'server/errors'" },
    ]);
  });
});

describe('unusedPermissions()', () => {
  const unused = (sources: Record<string, string>) => unusedPermissions(new Map(Object.entries(sources)));

  it('reports what a file may import and does not, or of which it only takes types', () => {
    const row = 'server/translate: db';
    expect(unused({ 'server/translate.ts': '' })).toContain(row);
    expect(unused({ 'server/translate.ts': `import type { Rows } from '../db/store.ts';` })).toContain(row);
    expect(unused({ 'server/translate.ts': `import { a } from '../db/store.ts';` })).not.toContain(row);
  });

  it('reports a package that a file may import and does not, and one that nobody does', () => {
    expect(unused({ 'server/crypto/jwt.ts': '' })).toEqual(
      expect.arrayContaining(['jose: server/crypto/jwt', 'jose']),
    );
    expect(unused({ 'server/crypto/jwt.ts': `import { jwtVerify } from 'jose';` }).join()).not.toMatch(
      /jose/,
    );
    // In a test it says nothing of who may.
    expect(unused({ 'test/x.ts': `import pg from 'pg';` })).toContain('pg');
  });

  it('reports who may read a clock and does not, and says nothing of folders that may import', () => {
    expect(unused({ 'server/open.ts': '' })).toContain('server/open');
    expect(unused({ 'server/open.ts': 'const now = Date.now();' })).not.toContain('server/open');
    expect(unused({ 'workers/x.ts': '' }).join()).not.toContain('workers: ');
  });
});
