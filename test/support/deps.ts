/** Deps for tests of the domain: a real database of either dialect, a clock that is moved by hand. */
import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, describe, inject, onTestFinished } from 'vitest';
import { openStore, type Rows, type Store } from '../../db/store.ts';
import type { SigningAlg } from '../../server/crypto/jwt.ts';
import type { Caller, Deps, Role } from '../../server/deps.ts';
import { openInstallation } from '../../server/domain/installation.ts';
import { createKeyShapes } from '../../server/domain/key-shapes.ts';
import { createM2mTokenCounter } from '../../server/domain/m2m-token-counts.ts';
import { createMintedPool } from '../../server/domain/m2m-token-pool.ts';
import { createRecentVerifications } from '../../server/domain/recent-verifications.ts';
import { createSigner } from '../../server/domain/signing-keys.ts';
import { createStatusIndexes } from '../../server/domain/status-indexes.ts';
import { createStatusLists } from '../../server/domain/status-lists.ts';
import { createUsageCounter } from '../../server/domain/usage.ts';
import { createMemoryLimits } from '../../server/limits.ts';
import { TEMPLATE_DATABASE } from './services.ts';

export type Dialect = Store['dialect'];

/** Runs a suite on SQLite and on PostgreSQL; skips the latter, with the reason, where there is none. */
export function describeOnEachDialect(name: string, suite: (dialect: Dialect) => void) {
  describe(`${name} on SQLite`, () => suite('sqlite'));
  const { url, missing } = inject('postgres');
  if (url) describe(`${name} on PostgreSQL`, () => suite('postgres'));
  else describe.skip(`${name} on PostgreSQL [skipped: ${missing}]`, () => suite('postgres'));
}

/** Takes what is to be done once something has ended: a test (vitest's `onTestFinished`), a suite, a program. */
export type WhenDone = (cleanUp: () => void | Promise<void>) => void;

/** For what a whole suite shares: the last of it goes first when the suite ends. Call it where the suite is described. */
export function whenSuiteDone(): WhenDone {
  const cleanUps: (() => void | Promise<void>)[] = [];
  afterAll(async () => {
    for (const cleanUp of cleanUps.reverse()) await cleanUp();
  });
  return (cleanUp) => void cleanUps.push(cleanUp);
}

/** Where a fresh, migrated database is; it goes when the test ends. */
export async function freshDatabase(dialect: Dialect): Promise<string> {
  if (dialect === 'postgres') return freshPostgresDatabase(TEMPLATE_DATABASE);
  const file = freshSqliteFile(onTestFinished);
  copyFileSync(inject('sqliteTemplate'), file);
  return file;
}

/** Where a database without any table is; it goes when the test ends. */
export async function emptyDatabase(dialect: Dialect, whenDone: WhenDone = onTestFinished): Promise<string> {
  return dialect === 'sqlite' ? freshSqliteFile(whenDone) : freshPostgresDatabase('template1', whenDone);
}

function freshSqliteFile(whenDone: WhenDone): string {
  return join(freshFolder(whenDone), 'countersign.db');
}

/** A folder that goes when the test ends. */
export function freshFolder(whenDone: WhenDone = onTestFinished): string {
  const folder = mkdtempSync(join(tmpdir(), 'countersign-test-'));
  whenDone(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

async function freshPostgresDatabase(template: string, whenDone: WhenDone = onTestFinished): Promise<string> {
  const { url } = inject('postgres');
  const name = `test_${randomBytes(8).toString('hex')}`;
  await administer(`CREATE DATABASE ${name} TEMPLATE ${template}`);
  whenDone(() => administer(`DROP DATABASE ${name} WITH (FORCE)`));
  return `${url}/${name}`;
}

async function administer(statement: string) {
  const client = new pg.Client({ connectionString: `${inject('postgres').url}/postgres` });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

/** A migrated store that is closed when the test ends. */
export async function openTestStore(dialect: Dialect): Promise<Store> {
  const store = await openStore({ location: await freshDatabase(dialect), poolSize: 5 });
  onTestFinished(() => store.close());
  await store.migrate();
  return store;
}

export interface TestDeps extends Deps {
  /** The clock: set it to move time. */
  clock: { now: number };
  /** How often each job was woken. */
  woken: string[];
  /** The value of the first admin key. */
  adminKey: string;
}

export const MASTER_KEY = Buffer.alloc(32, 7);

/** A Tuesday. */
const START = Date.UTC(2026, 0, 6, 12);

interface TestDepsOptions {
  /** What the first key signs with. */
  signingAlg?: SigningAlg;
  /** Where the clock begins: for those who have others judge our times by theirs. */
  startsAt?: number;
}

/** An installed database and everything the domain touches. Outgoing requests are refused: tests that send replace it. */
export async function openTestDeps(
  dialect: Dialect,
  { signingAlg = 'ES256', startsAt = START }: TestDepsOptions = {},
): Promise<TestDeps> {
  const store = await openTestStore(dialect);
  const clock = { now: startsAt };
  const now = () => clock.now;
  const { keyring, firstSecretKey } = await openInstallation(store, {
    masterKey: MASTER_KEY,
    signingAlg,
    now,
  });
  const woken: string[] = [];
  return {
    store,
    keyring,
    signer: createSigner(store, keyring),
    now,
    wallClock: now,
    isTimeDoubtful: () => false,
    keyRotationMs: 30 * 24 * 3_600_000,
    publicUrl: 'http://127.0.0.1:4400',
    oauthClients: 'preregistered',
    oauthTokensPerMinute: 6_000,
    signIn: { kind: 'local' },
    usage: createUsageCounter(),
    pool: createMintedPool(),
    mintCounts: createM2mTokenCounter(),
    statusIndexes: createStatusIndexes(),
    statusLists: createStatusLists(),
    shapes: createKeyShapes(store),
    limits: createMemoryLimits({ now }),
    outbound: {
      refusal: () => null,
      post: () => Promise.reject(new Error('This test sends nothing')),
      get: () => Promise.reject(new Error('This test fetches nothing')),
      read: () => Promise.reject(new Error('This test fetches nothing')),
      close: () => Promise.resolve(),
    },
    clientDocuments: { fetch: () => Promise.reject(new Error('This test fetches nothing')) },
    foreignKeys: { find: () => Promise.reject(new Error('This test fetches nothing')) },
    recentVerifications: createRecentVerifications(),
    observer: { verification: () => {} },
    wake: (job) => woken.push(job),
    clock,
    woken,
    adminKey: firstSecretKey ?? '',
  };
}

/** The same, but that a transaction fails after which `isPoisoned` finds what it should not. */
export const failingAfter = (deps: TestDeps, isPoisoned: (tx: Rows) => Promise<boolean>): TestDeps => ({
  ...deps,
  store: {
    ...deps.store,
    tx: (work, lane) =>
      deps.store.tx(async (tx) => {
        const result = await work(tx);
        if (await isPoisoned(tx)) throw new Error('poisoned');
        return result;
      }, lane),
  },
});

/** A caller with a role, as the authenticator would have made it. */
export function callerWith(role: Role): Caller {
  return { principal: { kind: 'secret_key', id: `sk_${'0'.repeat(32)}`, role }, requestId: 'req_test' };
}

/** Where a test's requests come from. */
export const anywhere = () => '127.0.0.1';

/** A caller's credential as a transport hands it on. */
export const presented = (value: string | null) => ({ value, address: anywhere });
