import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { eq } from 'drizzle-orm';
import pg from 'pg';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { z } from 'zod';
import { schemaVersion } from '../../db/migrations.ts';
import { isPostgres, openStore } from '../../db/store.ts';
import { type Config, loadConfig, parseMasterKey } from '../../server/config.ts';
import { InstallationError, noteInstant } from '../../server/domain/installation.ts';
import { rotateMasterKey } from '../../server/domain/master-key.ts';
import {
  completeSecretKeyRotation,
  createSecretKey,
  createSecretKeyInput,
  rotateSecretKey,
  rotateSecretKeyInput,
} from '../../server/domain/secret-keys.ts';
import { findCaller } from '../../server/domain/secrets.ts';
import { createLogger } from '../../server/logger.ts';
import { createMetrics } from '../../server/metrics.ts';
import { type Opened, openDeps } from '../../server/open.ts';
import {
  anywhere,
  callerWith,
  type Dialect,
  describeOnEachDialect,
  emptyDatabase,
  freshFolder,
  MASTER_KEY,
} from '../support/deps.ts';

const OTHER_KEY = Buffer.alloc(32, 8);

/** Settings for a database with nothing in it yet; PostgreSQL must be given its master key. */
async function settings(dialect: Dialect): Promise<Config> {
  const env: NodeJS.ProcessEnv = { COUNTERSIGN_DATA_DIR: join(freshFolder(), 'data') };
  if (dialect === 'postgres') {
    env['DATABASE_URL'] = await emptyDatabase(dialect);
    env['COUNTERSIGN_MASTER_KEY'] = MASTER_KEY.toString('hex');
  }
  return { ...loadConfig(env), signingAlg: 'ES256' };
}

/** Opens, and closes when the test ends unless it did so itself. */
async function open(config: Config): Promise<Opened> {
  const logger = createLogger('silent');
  const opened = await openDeps(config, { logger, metrics: createMetrics(), wake: () => {} });
  let closing: Promise<void> | undefined;
  const close = () => (closing ??= opened.close());
  onTestFinished(close);
  return { ...opened, close };
}

async function openAndClose(config: Config): Promise<Opened> {
  const opened = await open(config);
  await opened.close();
  return opened;
}

const firstKeyOf = (config: Config) => readFileSync(join(config.dataDir, 'first-secret-key'), 'utf8').trim();

/** Every row that says what a database is and who may open it, but for the time, which whoever closes it notes. */
async function dump(config: Config): Promise<string> {
  const store = await openStore({ location: config.databaseLocation });
  try {
    const { db, tables } = store.read;
    const { installation, wrappedKeys, secretKeys, secrets, signingKeys, eventHead, events } = tables;
    const all = [installation, wrappedKeys, secretKeys, secrets, signingKeys, eventHead, events];
    const rows = await Promise.all(all.map((table) => db.select().from(table)));
    return JSON.stringify(rows, (column, value) => (column === 'judged_at' ? undefined : value));
  } finally {
    await store.close();
  }
}

/** Makes every migration due again, so that migrating could not go unnoticed. */
async function forgetMigrations({ databaseLocation }: Config) {
  const statement = 'DROP TABLE __drizzle_migrations';
  if (!isPostgres(databaseLocation)) {
    new Database(databaseLocation).exec(statement).close();
    return;
  }
  const client = new pg.Client({ connectionString: databaseLocation });
  await client.connect();
  await client.query(statement);
  await client.end();
}

describeOnEachDialect('openDeps()', (dialect) => {
  it('sets up an empty database and leaves the first admin key in a file of its owner alone', async () => {
    const config = await settings(dialect);
    const opened = await open(config);
    expect(opened).toMatchObject({
      isFirstStart: true,
      firstSecretKeyPath: join(config.dataDir, 'first-secret-key'),
      firstSecretKey: firstKeyOf(config),
      masterKeyPath: dialect === 'sqlite' ? join(config.dataDir, 'master-key') : null,
    });
    expect(await findCaller(opened.deps, firstKeyOf(config), anywhere)).toMatchObject({ role: 'admin' });
    expect(statSync(config.dataDir).mode & 0o777).toBe(0o700);
    for (const file of readdirSync(config.dataDir).filter((name) => /-key$/.test(name)))
      expect(statSync(join(config.dataDir, file)).mode & 0o777).toBe(0o600);
  });

  it('opens it again with the same keys and makes no new one', async () => {
    const config = await settings(dialect);
    await openAndClose(config);
    const key = firstKeyOf(config);
    const before = await dump(config);
    const again = await open(config);
    expect(again).toMatchObject({ isFirstStart: false, firstSecretKey: null });
    expect(firstKeyOf(config)).toBe(key);
    expect(await findCaller(again.deps, key, anywhere)).toMatchObject({ role: 'admin' });
    await again.close();
    expect(await dump(config)).toBe(before);
  });

  it('installs the key that the operator chose, and writes no file', async () => {
    const bootstrapKey = `sk_${'chosen_'.repeat(8)}`;
    const opened = await open({ ...(await settings(dialect)), bootstrapKey });
    expect(opened).toMatchObject({ firstSecretKeyPath: null, firstSecretKey: null });
    expect(await findCaller(opened.deps, bootstrapKey, anywhere)).toMatchObject({ role: 'admin' });
  });

  it('does not install a chosen key where a secret key ever existed', async () => {
    const config = await settings(dialect);
    await openAndClose(config);
    const bootstrapKey = `sk_${'late_'.repeat(10)}`;
    const opened = await open({ ...config, bootstrapKey });
    expect(await findCaller(opened.deps, bootstrapKey, anywhere)).toBeNull();
  });

  it('refuses another master key before it migrates, and leaves every row as it was', async () => {
    const config = await settings(dialect);
    await openAndClose(config);
    await forgetMigrations(config);
    const before = await dump(config);
    const attempt = open({ ...config, masterKey: OTHER_KEY });
    await expect(attempt).rejects.toThrow(InstallationError);
    await expect(attempt).rejects.toThrow(/not the one this database was set up with/);
    expect(await dump(config)).toBe(before);
  });

  it('refuses a database that bears newer binaries only before it migrates, and leaves every row as it was', async () => {
    const config = await settings(dialect);
    const { deps, close } = await open(config);
    const newer = schemaVersion() + 1;
    await deps.store.tx(async ({ db, tables }) => {
      await db.update(tables.installation).set({ oldest_binary: newer });
    });
    await close();
    await forgetMigrations(config);
    const before = await dump(config);
    const attempt = open(config);
    await expect(attempt).rejects.toThrow(InstallationError);
    await expect(attempt).rejects.toThrow(
      new RegExp(`schema version ${newer} and newer.* Start a newer version$`),
    );
    expect(await dump(config)).toBe(before);
  });

  it('survives a setup that fails after the key was written: the next start uses it', async () => {
    const config = await settings(dialect);
    await expect(open({ ...config, signingAlg: 'none' as Config['signingAlg'] })).rejects.toThrow();
    const abandoned = firstKeyOf(config);
    const opened = await open(config);
    expect(opened.isFirstStart).toBe(true);
    expect(firstKeyOf(config)).toBe(abandoned);
    expect(await findCaller(opened.deps, firstKeyOf(config), anywhere)).toMatchObject({ role: 'admin' });
  });

  it("keeps the first key's file for a lesser key, and for an admin key that expires", async () => {
    const config = await settings(dialect);
    const { deps, close } = await open(config);
    const create = (input: z.input<typeof createSecretKeyInput>) =>
      createSecretKey(deps, callerWith('admin'), createSecretKeyInput.parse(input));
    await create({ name: 'reader', role: 'read' });
    await create({ name: 'guest', role: 'admin', ttlSeconds: 3600 });
    await close();
    const key = firstKeyOf(config);
    const again = await open(config);
    expect(again.firstSecretKeyPath).not.toBeNull();
    expect(await findCaller(again.deps, key, anywhere)).toMatchObject({ role: 'admin' });
  });

  it("removes the first key's file when it opens, where another admin key was made meanwhile", async () => {
    const config = await settings(dialect);
    const { deps, close } = await open(config);
    const key = firstKeyOf(config);
    const input = createSecretKeyInput.parse({ name: 'operator', role: 'admin' });
    await createSecretKey(deps, callerWith('admin'), input);
    await close();
    // As it was left when this process was not the one that was told.
    writeFileSync(join(config.dataDir, 'first-secret-key'), `${key}\n`);
    expect((await open(config)).firstSecretKeyPath).toBeNull();
    expect(existsSync(join(config.dataDir, 'first-secret-key'))).toBe(false);
  });

  it("removes the first key's file at the latest when it closes after another admin key was made", async () => {
    const config = await settings(dialect);
    const { deps, close } = await open(config);
    const input = createSecretKeyInput.parse({ name: 'operator', role: 'admin' });
    await createSecretKey(deps, callerWith('admin'), input);
    await close();
    expect(existsSync(join(config.dataDir, 'first-secret-key'))).toBe(false);
    expect((await open(config)).firstSecretKeyPath).toBeNull();
  });

  it("keeps the first key's file while a rotation still accepts the value in it, and no longer", async () => {
    const config = await settings(dialect);
    const first = await open(config);
    const { id = '' } = (await findCaller(first.deps, firstKeyOf(config), anywhere)) ?? {};
    const admin = callerWith('admin');
    await rotateSecretKey(first.deps, admin, rotateSecretKeyInput.parse({ id }));
    await first.close();
    const second = await open(config);
    expect(second.firstSecretKeyPath).not.toBeNull();
    await completeSecretKeyRotation(second.deps, admin, id);
    await second.close();
    expect(existsSync(join(config.dataDir, 'first-secret-key'))).toBe(false);
  });

  it('leaves the first-key file of another installation alone, and says it has none', async () => {
    const config = await settings(dialect);
    await openAndClose(config);
    const theirs = firstKeyOf(await otherInstallation(dialect));
    writeFileSync(join(config.dataDir, 'first-secret-key'), theirs);
    expect((await open(config)).firstSecretKeyPath).toBeNull();
    expect(firstKeyOf(config)).toBe(theirs);
  });

  it('never writes over the first key of another installation with the same data directory', async () => {
    const first = await settings(dialect);
    await openAndClose(first);
    const known = firstKeyOf(first);
    const other = await settings(dialect);
    mkdirSync(other.dataDir);
    const second = { ...other, dataDir: first.dataDir };
    const { deps, isFirstStart } = await open(second);
    expect(isFirstStart).toBe(true);
    expect(firstKeyOf(first)).toBe(known);
    expect(await findCaller(deps, known, anywhere)).toMatchObject({ role: 'admin' });
  });

  it('never tells a time before the last event', async () => {
    const config = await settings(dialect);
    const { deps, close } = await open(config);
    const future = deps.now() + 86_400_000;
    const { eventHead } = deps.store.read.tables;
    await deps.store.tx((tx) => tx.db.update(eventHead).set({ at: future }).where(eq(eventHead.id, 1)));
    await close();
    const now = (await open(config)).deps.now();
    expect(now).toBeGreaterThanOrEqual(future);
    expect(Number.isInteger(now)).toBe(true);
  });

  it('notes what time it is when it closes, and never an earlier one', async () => {
    const config = await settings(dialect);
    const { deps, close } = await open(config);
    const noted = async ({ store: { read } }: Opened['deps']) => {
      const [row] = await read.db.select().from(read.tables.installation);
      return row?.judged_at;
    };
    const future = deps.now() + 86_400_000;
    await noteInstant(deps.store, future);
    await close();
    const again = await open(config);
    expect(await noted(again.deps)).toBe(future);
    expect(again.deps.now()).toBeGreaterThanOrEqual(future);
    const now = again.deps.now();
    await again.close();
    expect(await noted((await open(config)).deps)).toBeGreaterThanOrEqual(now);
  });

  it('writes what was counted before it closes', async () => {
    const config = await settings(dialect);
    const { deps, close } = await open(config);
    deps.usage.count('api_key', 'ak_counted', true, deps.now());
    deps.mintCounts.count('mch_counted', deps.now() + 7_200_000, deps.now());
    await close();
    const again = await open(config);
    const { db, tables } = again.deps.store.read;
    expect(await db.select().from(tables.usage)).toMatchObject([
      { credential_id: 'ak_counted', valid_count: 1 },
    ]);
    expect(await db.select().from(tables.m2mTokenCounts)).toMatchObject([
      { machine_id: 'mch_counted', count: 1 },
    ]);
  });

  it('lets webhooks go to this machine only while the public URL is this machine', async () => {
    const config = await settings(dialect);
    const url = 'http://127.0.0.1:4009/hook';
    const local = await open(config);
    expect(local.deps.outbound.refusal(url)).toBeNull();
    await local.close();
    const { deps } = await open({ ...config, publicUrl: 'https://auth.example.com' });
    expect(deps.outbound.refusal(url)).not.toBeNull();
  });
});

async function otherInstallation(dialect: Dialect): Promise<Config> {
  const config = await settings(dialect);
  await openAndClose(config);
  return config;
}

describeOnEachDialect('openDeps() of several processes at once', (dialect) => {
  it('sets one empty database up once', async () => {
    const config = await settings(dialect);
    const opened = await Promise.all([open(config), open(config), open(config)]);
    expect(opened.filter(({ isFirstStart }) => isFirstStart)).toHaveLength(1);
    const { db, tables } = opened[0].deps.store.read;
    expect(await db.select().from(tables.secretKeys)).toHaveLength(1);
    expect(await db.select().from(tables.signingKeys)).toHaveLength(1);
    for (const { deps } of opened)
      expect(await findCaller(deps, firstKeyOf(config), anywhere)).toMatchObject({ role: 'admin' });
  });
});

describe('openDeps() with a master key that it keeps itself', () => {
  const pathOf = (config: Config) => join(config.dataDir, 'master-key');

  it('refuses when the key is gone, and creates nothing', async () => {
    const config = await otherInstallation('sqlite');
    rmSync(pathOf(config));
    const before = [await dump(config), readdirSync(config.dataDir)];
    await expect(open(config)).rejects.toThrow(/The master key is missing/);
    expect([await dump(config), readdirSync(config.dataDir)]).toEqual(before);
  });

  it('refuses a damaged key without showing it', async () => {
    const config = await otherInstallation('sqlite');
    writeFileSync(pathOf(config), 'hunter2');
    const before = await dump(config);
    const refusal = await open(config).catch((error: Error) => error.message);
    expect(refusal).toMatch(/is damaged: wanted 32 bytes .*, found text of 7 characters/);
    expect(refusal).not.toContain('hunter2');
    expect(await dump(config)).toBe(before);
  });

  it('takes the given key before the kept one', async () => {
    const config = await otherInstallation('sqlite');
    await expect(open({ ...config, masterKey: OTHER_KEY })).rejects.toThrow(InstallationError);
    const kept = parseMasterKey(readFileSync(pathOf(config), 'utf8').trim());
    rmSync(pathOf(config));
    expect(await open({ ...config, masterKey: kept })).toMatchObject({ isFirstStart: false });
  });

  const newPathOf = (config: Config) => `${pathOf(config)}.new`;

  /** An installation whose keys another master key wraps by now, and that key. */
  async function rotated(): Promise<{ config: Config; newMasterKey: string }> {
    const config = await otherInstallation('sqlite');
    const masterKey = parseMasterKey(keyIn(pathOf(config))) ?? OTHER_KEY;
    const store = await openStore({ location: config.databaseLocation });
    await rotateMasterKey(store, { masterKey, newMasterKey: OTHER_KEY, now: Date.now });
    await store.close();
    return { config, newMasterKey: OTHER_KEY.toString('base64') };
  }

  const keyIn = (path: string) => readFileSync(path, 'utf8').trim();

  it.each([
    ['is there', () => {}],
    ['is damaged', (path: string) => writeFileSync(path, 'damaged')],
    ['is gone', (path: string) => rmSync(path)],
  ])('puts the new key of a rotation in its place once it fits, where the old one %s', async (_, alter) => {
    const { config, newMasterKey } = await rotated();
    writeFileSync(newPathOf(config), newMasterKey);
    alter(pathOf(config));
    await openAndClose(config);
    expect(keyIn(pathOf(config))).toBe(newMasterKey);
    expect(existsSync(newPathOf(config))).toBe(false);
    await openAndClose(config);
  });

  it.each([
    ['a whole', OTHER_KEY.toString('base64')],
    ['half a', OTHER_KEY.toString('base64').slice(0, 20)],
  ])('removes %s new key of a rotation that came to nothing, once the old one fits', async (_, text) => {
    const config = await otherInstallation('sqlite');
    const kept = keyIn(pathOf(config));
    writeFileSync(newPathOf(config), text);
    writeFileSync(`${newPathOf(config)}.unfinished`, text);
    await openAndClose(config);
    expect(keyIn(pathOf(config))).toBe(kept);
    expect(readdirSync(config.dataDir).filter((file) => file.startsWith('master-key'))).toEqual([
      'master-key',
    ]);
  });

  it('leaves both keys of a rotation where neither fits, and where the old one is gone', async () => {
    const config = await otherInstallation('sqlite');
    const before = await dump(config);
    writeFileSync(newPathOf(config), OTHER_KEY.toString('hex'));
    writeFileSync(pathOf(config), MASTER_KEY.toString('hex'));
    await expect(open(config)).rejects.toThrow(/not the one this database was set up with/);
    expect(keyIn(pathOf(config))).toBe(MASTER_KEY.toString('hex'));
    rmSync(pathOf(config));
    await expect(open(config)).rejects.toThrow(/The master key is missing/);
    expect(keyIn(newPathOf(config))).toBe(OTHER_KEY.toString('hex'));
    expect(await dump(config)).toBe(before);
  });

  it('sets no database up beside the new key of a rotation, which may be the only one of another', async () => {
    const { config, newMasterKey } = await rotated();
    writeFileSync(newPathOf(config), newMasterKey);
    const kept = keyIn(pathOf(config));
    renameSync(config.databaseLocation, `${config.databaseLocation}.aside`);
    await expect(open(config)).rejects.toThrow(`'${newPathOf(config)}' is there`);
    expect([keyIn(pathOf(config)), keyIn(newPathOf(config))]).toEqual([kept, newMasterKey]);
  });
});
