import { hash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { asc, getTableName } from 'drizzle-orm';
import { describe, expect, it, vi } from 'vitest';
import { openStore, type Store } from '../../db/store.ts';
import { parseMasterKey } from '../../server/config.ts';
import { hmac } from '../../server/crypto/hashing.ts';
import { createKeyring } from '../../server/crypto/keyring.ts';
import { openKeys } from '../../server/domain/installation.ts';
import { type Dialect, describeOnEachDialect, emptyDatabase, freshFolder } from '../support/deps.ts';
import { expectChained } from '../support/event-log.ts';
import { expectAllWorks, furnish, type Household, hashedValues } from '../support/household.ts';
import { type Launched, launchServer, startServer } from '../support/server.ts';
import { freePort } from '../support/services.ts';
import { type StallPoint, stallAt, stallingAtRename } from '../support/stalls.ts';
import { readTableFiles } from '../support/table-files.ts';

// A dozen processes one after the other, in one test.
vi.setConfig({ testTimeout: 300_000 });

const GIVEN_KEY = Buffer.alloc(32, 0xa7);
const NEW_KEY = Buffer.alloc(32, 0xb8);

/** An installation, and the environment of every process that works on it. */
interface House {
  dataDir: string;
  location: string;
  env: NodeJS.ProcessEnv;
}

/** With the master key given; tokens of one server are another's, so they have one URL. */
async function house(dialect: Dialect, env: NodeJS.ProcessEnv = given(GIVEN_KEY)): Promise<House> {
  const dataDir = join(freshFolder(), 'data');
  const database = dialect === 'postgres' ? { DATABASE_URL: await emptyDatabase(dialect) } : {};
  return {
    dataDir,
    location: database.DATABASE_URL ?? join(dataDir, 'countersign.db'),
    env: {
      COUNTERSIGN_BOOTSTRAP_KEY: `sk_${'chosen_by_an_operator_'.repeat(2)}`,
      PORT: `${await freePort()}`,
      ...database,
      ...env,
    },
  };
}

const given = (masterKey: Buffer) => ({ COUNTERSIGN_MASTER_KEY: masterKey.toString('base64') });
const givenNew = (masterKey: Buffer) => ({ COUNTERSIGN_NEW_MASTER_KEY: masterKey.toString('base64') });

const start = ({ dataDir, env }: House, other: NodeJS.ProcessEnv = {}) =>
  startServer(dataDir, { ...env, ...other });

/** Starts one of the commands, and waits for nothing. */
const launch = ({ dataDir, env }: House, args: string[], other: NodeJS.ProcessEnv = {}) =>
  launchServer({ COUNTERSIGN_DATA_DIR: dataDir, ...env, ...other }, { main: 'rotate-keys', args });

/** Runs one of the commands to its end. */
async function run(at: House, args: string[], other: NodeJS.ProcessEnv = {}) {
  const launched = await launch(at, args, other);
  const code = await launched.exit;
  return { code, stderr: launched.stderr(), output: launched.stdout() + launched.stderr() };
}

const retirePepper = ['pepper', '--wait-seconds', '0'];

/** Runs one of the commands until it stands still at a point, and kills it there. */
async function killAt(at: House, args: string[], point: StallPoint, other: NodeJS.ProcessEnv = {}) {
  const stall = await stallAt(at.location, point);
  const launched = await launch(at, args, other);
  await Promise.race([stall.reached(), failAtEnd(launched)]);
  await kill(launched);
  await stall.clear();
}

async function failAtEnd(launched: Launched): Promise<never> {
  const code = await launched.exit;
  throw new Error(`It ended with ${code} and never stood still: ${launched.stdout()}${launched.stderr()}`);
}

async function kill(launched: Launched) {
  launched.process.kill('SIGKILL');
  expect(await launched.exit).toBe('SIGKILL');
}

/** What a server says that refuses to start. */
async function refusal({ dataDir, env }: House, other: NodeJS.ProcessEnv = {}): Promise<string> {
  const launched = await launchServer({ COUNTERSIGN_DATA_DIR: dataDir, ...env, ...other });
  expect(await launched.exit).toBe(1);
  return launched.stdout() + launched.stderr();
}

/** A furnished installation of which no process runs. */
async function furnished(at: House): Promise<Household> {
  const server = await start(at);
  const household = await furnish(server);
  await expectAllWorks(server, household);
  expect(await server.stop()).toBe(0);
  return household;
}

async function withStore<T>({ location }: House, work: (store: Store) => Promise<T>): Promise<T> {
  const store = await openStore({ location });
  try {
    return await work(store);
  } finally {
    await store.close();
  }
}

/** Every row of every table, bytes as hex. */
const dump = (at: House) =>
  withStore(at, async ({ read: { db, tables } }) => {
    const entries: unknown[] = [];
    for (const table of Object.values(tables))
      entries.push([getTableName(table), await db.select().from(table)]);
    return JSON.stringify(entries, (_, value) =>
      value?.type === 'Buffer' ? Buffer.from(value.data).toString('hex') : value,
    );
  });

/** The log is whole, and these are its events of the installation. */
const expectLog = (at: House, masterKey: Buffer, types: string[]) =>
  withStore(at, async (store) => {
    const { keys } = await openKeys(store.read, masterKey);
    await expectChained({ store, keyring: createKeyring(keys) });
    const { db, tables } = store.read;
    const events = await db.select().from(tables.events).orderBy(asc(tables.events.seq));
    const found = events.filter(({ type }) => type.startsWith('installation.'));
    expect(found.map(({ type }) => type)).toEqual(['installation.created', ...types]);
    for (const { actor_kind, request_id } of found.slice(1))
      expect([actor_kind, request_id]).toEqual(['system', expect.stringMatching(/rotation|retirement/)]);
  });

function expectNotShown(output: string, ...keys: Buffer[]) {
  for (const key of keys)
    for (const encoding of ['hex', 'base64', 'base64url'] as const)
      expect(output).not.toContain(key.toString(encoding).replace(/=+$/, ''));
}

const READY = /is rotated|new master key already/;

describeOnEachDialect('rotate-keys master-key, where the operator gave the key', (dialect) => {
  it('gives what starts afterwards the new key; what runs goes on, and everything works', async () => {
    const at = await house(dialect);
    const running = await start(at);
    const household = await furnish(running);
    const { code, output } = await run(at, ['master-key'], givenNew(NEW_KEY));
    expect([code, output]).toEqual([0, expect.stringMatching(READY)]);
    expectNotShown(output, GIVEN_KEY, NEW_KEY);
    await expectAllWorks(running, household);
    await running.stop();

    expect(await refusal(at)).toMatch(/not the one this database was set up with/);
    const path = join(freshFolder(), 'key');
    writeFileSync(path, NEW_KEY.toString('hex'));
    const byFile = { COUNTERSIGN_MASTER_KEY: '', COUNTERSIGN_MASTER_KEY_FILE: path };
    await expectAllWorks(await start(at, byFile), household);
    await expectLog(at, NEW_KEY, ['installation.master_key_rotated']);
  });

  it('killed half-way it has changed nothing; run again it is done, and once more does nothing', async () => {
    const at = await house(dialect);
    const household = await furnished(at);
    const before = await dump(at);
    const path = join(freshFolder(), 'new');
    writeFileSync(path, NEW_KEY.toString('base64'));
    const byFile = { COUNTERSIGN_NEW_MASTER_KEY_FILE: path };
    for (const point of [
      { table: 'wrapped_keys', on: 'UPDATE', when: "NEW.purpose = 'row_mac'" },
      { table: 'events', on: 'INSERT', when: "NEW.type = 'installation.master_key_rotated'" },
    ] as const) {
      await killAt(at, ['master-key'], point, byFile);
      expect(await dump(at)).toBe(before);
    }
    expect(await run(at, ['master-key'], byFile)).toMatchObject({ code: 0 });
    const after = await dump(at);
    expect(await run(at, ['master-key'], byFile)).toMatchObject({
      code: 0,
      output: expect.stringContaining('has the new master key already; nothing was changed'),
    });
    expect(await dump(at)).toBe(after);
    await expectAllWorks(await start(at, given(NEW_KEY)), household);
    await expectLog(at, NEW_KEY, ['installation.master_key_rotated']);
  });

  it('refuses another old key: rows stay as they were, and no value is shown', async () => {
    const at = await house(dialect);
    await (await start(at)).stop();
    const before = await dump(at);
    const other = Buffer.alloc(32, 0xc9);
    const { code, output } = await run(at, ['master-key'], { ...given(other), ...givenNew(NEW_KEY) });
    expect([code, output]).toEqual([1, expect.stringMatching(/not the one this database was set up with/)]);
    expectNotShown(output, GIVEN_KEY, NEW_KEY, other);
    expect(await dump(at)).toBe(before);
  });
});

describe('rotate-keys master-key, where the data directory keeps the key', () => {
  const keyPath = ({ dataDir }: House) => join(dataDir, 'master-key');
  const newPath = (at: House) => `${keyPath(at)}.new`;
  const keyIn = (path: string) => parseMasterKey(readFileSync(path, 'utf8').trim()) ?? Buffer.alloc(0);
  const keptHouse = () => house('sqlite', {});

  it('replaces the file by one of its owner alone, and everything works', async () => {
    const at = await keptHouse();
    const running = await start(at);
    const household = await furnish(running);
    const old = keyIn(keyPath(at));
    const { code, output } = await run(at, ['master-key']);
    expect([code, output]).toEqual([0, expect.stringContaining(`'${keyPath(at)}' has the new one`)]);
    expect(keyIn(keyPath(at))).not.toEqual(old);
    expectNotShown(output, old, keyIn(keyPath(at)));
    expect(statSync(keyPath(at)).mode & 0o777).toBe(0o600);
    await expectAllWorks(running, household);
    await running.stop();
    for (const file of readdirSync(at.dataDir))
      expectNotShown(readFileSync(join(at.dataDir, file), 'latin1'), old);
    expect(readdirSync(at.dataDir).filter((file) => /key/.test(file))).toEqual(['master-key']);

    const holdsNew = keyIn(keyPath(at));
    await expectAllWorks(await start(at), household);
    await expectLog(at, holdsNew, ['installation.master_key_rotated']);
  });

  it('killed before it committed: a start, or the command again, goes on with the old key', async () => {
    const at = await keptHouse();
    const household = await furnished(at);
    const old = keyIn(keyPath(at));
    const before = await dump(at);
    const atEvent = {
      table: 'events',
      on: 'INSERT',
      when: "NEW.type = 'installation.master_key_rotated'",
    } as const;
    await killAtRename(at, newPath(at));
    expect(readdirSync(at.dataDir)).toContain('master-key.new.unfinished');
    await killAt(at, ['master-key'], atEvent);
    expect(keyIn(keyPath(at))).toEqual(old);
    expect(keyIn(newPath(at))).toHaveLength(32);
    expect(statSync(newPath(at)).mode & 0o777).toBe(0o600);
    expect(await dump(at)).toBe(before);

    const server = await start(at);
    expect(keyIn(keyPath(at))).toEqual(old);
    expect(readdirSync(at.dataDir).filter((file) => file.startsWith('master-key'))).toEqual(['master-key']);
    await expectAllWorks(server, household);
    await server.stop();

    await killAt(at, ['master-key'], atEvent);
    expect(await run(at, ['master-key'])).toMatchObject({ code: 0, output: expect.stringMatching(READY) });
    expect(keyIn(keyPath(at))).not.toEqual(old);
    expect(existsSync(newPath(at))).toBe(false);
    await expectAllWorks(await start(at), household);
    await expectLog(at, keyIn(keyPath(at)), ['installation.master_key_rotated']);
  });

  /** Runs the command until it is about to put a file in its place, and kills it there. */
  async function killAtRename(at: House, path: string) {
    const launched = await launch(at, ['master-key'], stallingAtRename(path));
    await launched.printed('stderr', /stalled/);
    await kill(launched);
  }

  it.each([
    ['a start', async (at: House) => void (await (await start(at)).stop())],
    [
      'the command, which then rotates no second time,',
      async (at: House) => expect(await run(at, ['master-key'])).toMatchObject({ code: 0 }),
    ],
  ])('killed after it committed, with both files there: %s finishes it', async (_, finish) => {
    const at = await keptHouse();
    const household = await furnished(at);
    const old = keyIn(keyPath(at));
    await killAtRename(at, keyPath(at));
    const holdsNew = keyIn(newPath(at));
    expect(keyIn(keyPath(at))).toEqual(old);
    await finish(at);
    expect(keyIn(keyPath(at))).toEqual(holdsNew);
    expect(existsSync(newPath(at))).toBe(false);
    await expectAllWorks(await start(at), household);
    await expectLog(at, holdsNew, ['installation.master_key_rotated']);
  });

  it('refuses a new key that is given, and a missing one, and changes nothing', async () => {
    const at = await keptHouse();
    await (await start(at)).stop();
    const before = await dump(at);
    const { code, output } = await run(at, ['master-key'], givenNew(NEW_KEY));
    expect([code, output]).toEqual([
      1,
      expect.stringMatching(/NEW_MASTER_KEY: wanted nothing, because '.*' keeps/),
    ]);
    expectNotShown(output, NEW_KEY);
    rmSync(keyPath(at));
    expect(await run(at, ['master-key'])).toMatchObject({
      code: 1,
      output: expect.stringMatching(/^Cannot rotate keys: The master key is missing/),
    });
    expect(await dump(at)).toBe(before);
    expect(readdirSync(at.dataDir).filter((file) => file.startsWith('master-key'))).toEqual([]);
  });
});

describe('rotate-keys', () => {
  it('refuses what is not a command', async () => {
    const at = await house('sqlite');
    for (const [args, found] of [
      [[], 'none'],
      [['master-key', '--force'], "'master-key --force'"],
      [['pepper', '--wait-seconds', '3601'], "'pepper --wait-seconds 3601'"],
    ] as [string[], string][]) {
      const { code, output } = await run(at, args);
      expect([code, output]).toEqual([
        1,
        expect.stringContaining(`or 'pepper' and perhaps '--wait-seconds'`),
      ]);
      expect(output).toContain(`found ${found}`);
    }
  });

  it('refuses a new master key that is missing, malformed or the old one, and shows no value', async () => {
    const at = await house('sqlite');
    await (await start(at)).stop();
    const before = await dump(at);
    for (const [env, said] of [
      [{}, /COUNTERSIGN_NEW_MASTER_KEY: wanted 32 bytes .*, found nothing/],
      [
        { COUNTERSIGN_NEW_MASTER_KEY: 'hunter2' },
        /COUNTERSIGN_NEW_MASTER_KEY: .* found text of 7 characters/,
      ],
      [givenNew(GIVEN_KEY), /COUNTERSIGN_NEW_MASTER_KEY: wanted another key, found the one in use/],
    ] as const) {
      const { code, output } = await run(at, ['master-key'], env);
      expect([code, output]).toEqual([1, expect.stringMatching(said)]);
      expect(output).not.toMatch(/hunter2|\n {4}at /);
      expectNotShown(output, GIVEN_KEY);
    }
    expect(await dump(at)).toBe(before);
  });

  it('makes no database where there is none', async () => {
    const at = await house('sqlite');
    for (const args of [['master-key'], retirePepper]) {
      expect(await run(at, args)).toMatchObject({
        code: 1,
        output: expect.stringContaining('There is no database that was set up'),
      });
    }
    expect(existsSync(at.dataDir)).toBe(false);
  });
});

const ROWS = 1_200;

/** So many rows that their hashes come in several batches; they belong to nobody. */
const fill = (at: House) =>
  withStore(at, (store) =>
    store.tx(async ({ db, tables: { secrets, m2mTokens } }) => {
      const [token] = await db.select().from(m2mTokens).limit(1);
      const [secret] = await db.select().from(secrets).limit(1);
      if (!token || !secret) throw new Error('There is no row to be copied');
      const numbers = Array.from({ length: ROWS }, (_, i) => `${i}`.padStart(4, '0'));
      const hash = (number: string) => hmac(GIVEN_KEY, number);
      for (let i = 0; i < ROWS; i += 100) {
        const some = numbers.slice(i, i + 100);
        const owner = { owner_kind: 'api_key' as const, owner_id: 'ak_none', mac: null };
        await db
          .insert(secrets)
          .values(some.map((n) => ({ ...secret, ...owner, id: `sec_~${n}`, hash: hash(n) })));
        const opaque = { format: 'opaque' as const, pepper_version: 1 };
        await db
          .insert(m2mTokens)
          .values(some.map((n) => ({ ...token, ...opaque, id: `mt_~${n}`, hash: hash(`t${n}`) })));
      }
    }),
  );

/** How many hashes of each table are stored under each version of the pepper. */
const versions = (at: House) =>
  withStore(at, async ({ read: { db, tables } }) => {
    const counts: Record<string, Record<number, number>> = { secrets: {}, m2m_tokens: {} };
    for (const table of [tables.secrets, tables.m2mTokens]) {
      const rows = await db.select({ hash: table.hash, version: table.pepper_version }).from(table);
      const of = counts[getTableName(table)] ?? {};
      for (const { hash, version } of rows)
        if (hash !== null && version !== null) of[version] = (of[version] ?? 0) + 1;
    }
    return counts;
  });

/** The id of the row with which the second batch of a table is half done. */
const middleOfSecondBatch = (at: House, table: 'secrets' | 'm2mTokens') =>
  withStore(at, async ({ read: { db, tables } }) => {
    const { id } = tables[table];
    const [row] = await db.select({ id }).from(tables[table]).orderBy(asc(id)).limit(1).offset(750);
    return row?.id ?? '';
  });

const sha256 = (value: string) => hash('sha256', value, 'buffer');

/** What somebody would compute who has the first pepper and guesses a value. */
const guesses = (at: House, values: readonly string[]) =>
  withStore(at, async (store) => {
    const { keys } = await openKeys(store.read, GIVEN_KEY);
    const [leaked] = keys.pepper;
    if (!leaked) throw new Error('There is no pepper');
    return values.map((value) => hmac(leaked, sha256(value)));
  });

describeOnEachDialect('rotate-keys pepper', (dialect) => {
  it('killed half-way at any point, and run again, wraps every hash once: all values work, of before and after', async () => {
    const at = await house(dialect);
    const household = await furnished(at);
    await fill(at);
    const { secrets, m2m_tokens } = await versions(at);
    const [ofSecrets = 0, ofTokens = 0] = [secrets?.[1], m2m_tokens?.[1]];
    const known = await guesses(at, hashedValues(household));
    const before = await dump(at);
    for (const guess of known) expect(before).toContain(guess.toString('hex'));

    await killAt(at, retirePepper, { table: 'wrapped_keys', on: 'INSERT', when: "NEW.purpose = 'pepper'" });
    expect(await dump(at)).toBe(before);

    const waiting = await launch(at, ['pepper']);
    await waiting.printed('stderr', /Waiting 15 s for what still runs to end itself/);
    await kill(waiting);
    expect(await versions(at)).toEqual({ secrets: { 1: ofSecrets }, m2m_tokens: { 1: ofTokens } });
    expect(await refusal(at)).toMatch(/retirement of the pepper is under way.*npm run retire:pepper/);

    const inSecrets = `NEW.id = '${await middleOfSecondBatch(at, 'secrets')}'`;
    await killAt(at, retirePepper, { table: 'secrets', on: 'UPDATE', when: inSecrets });
    expect(await versions(at)).toEqual({
      secrets: { 1: ofSecrets - 500, 2: 500 },
      m2m_tokens: { 1: ofTokens },
    });
    expect(await refusal(at)).toContain('npm run retire:pepper');

    const inTokens = `NEW.id = '${await middleOfSecondBatch(at, 'm2mTokens')}'`;
    await killAt(at, retirePepper, { table: 'm2m_tokens', on: 'UPDATE', when: inTokens });
    expect((await versions(at))['secrets']).toEqual({ 2: ofSecrets });
    expect(Object.keys((await versions(at))['m2m_tokens'] ?? {})).toEqual(['1', '2']);

    const atEvent = "NEW.type = 'installation.pepper_retired'";
    await killAt(at, retirePepper, { table: 'events', on: 'INSERT', when: atEvent });
    expect(await versions(at)).toEqual({ secrets: { 2: ofSecrets }, m2m_tokens: { 2: ofTokens } });
    expect(await refusal(at)).toContain('npm run retire:pepper');

    const { code, output, stderr } = await run(at, retirePepper);
    expect([code, output]).toEqual([0, expect.stringContaining('Pepper 1 is retired')]);
    const total = ofSecrets + ofTokens;
    expect(stderr).toMatch(new RegExp(`^Wrapped \\d+ of ${total} hashes \\(\\d+ %\\)$`, 'm'));
    expect(stderr).toContain(`Wrapped ${total} of ${total} hashes (100 %)`);

    const after = await dump(at);
    for (const guess of known) expect(after).not.toContain(guess.toString('hex'));
    await expectAllWorks(await start(at), household);
    await expectLog(at, GIVEN_KEY, ['installation.pepper_retired']);
  });

  it('retires one pepper after another, and the master key between them', async () => {
    const at = await house(dialect);
    const household = await furnished(at);
    expect(await run(at, retirePepper)).toMatchObject({ code: 0 });
    expect(await run(at, ['master-key'], givenNew(NEW_KEY))).toMatchObject({ code: 0 });
    const between = await start(at, given(NEW_KEY));
    await expectAllWorks(between, household);
    await between.stop();
    const { code, output } = await run(at, retirePepper, given(NEW_KEY));
    expect([code, output]).toEqual([0, expect.stringContaining('Pepper 2 is retired')]);
    expect(Object.keys((await versions(at))['secrets'] ?? {})).toEqual(['3']);
    await expectAllWorks(await start(at, given(NEW_KEY)), household);
    await expectLog(at, NEW_KEY, [
      'installation.pepper_retired',
      'installation.master_key_rotated',
      'installation.pepper_retired',
    ]);
  });

  it('leaves no old hash in the files of the tables, where rows no longer show it', async () => {
    const at = await house(dialect);
    const household = await furnished(at);
    const known = await guesses(at, hashedValues(household));
    const before = await readTableFiles(at.location, ['secrets', 'm2m_tokens']);
    for (const guess of known) expect(before.includes(guess)).toBe(true);
    expect(await run(at, retirePepper)).toMatchObject({ code: 0 });
    const after = await readTableFiles(at.location, ['secrets', 'm2m_tokens']);
    for (const guess of known) expect(after.includes(guess)).toBe(false);
  });

  it('has a server that still runs end itself, with a fatal line that says why', async () => {
    const at = await house(dialect);
    const server = await start(at);
    const command = await launch(at, ['pepper']);
    expect(await server.exit).toBe(1);
    expect(server.log().at(-1)).toMatchObject({
      level: 'fatal',
      msg: expect.stringContaining('The pepper is being retired: the process ends'),
    });
    expect(command.process.exitCode).toBeNull();
    await kill(command);
    expect(await run(at, retirePepper)).toMatchObject({ code: 0 });
    expect((await (await start(at)).call('secretKeys.list', {})).status).toBe(200);
  });

  it('refuses another master key, and leaves every row as it was', async () => {
    const at = await house(dialect);
    await (await start(at)).stop();
    const before = await dump(at);
    const { code, output } = await run(at, retirePepper, given(NEW_KEY));
    expect([code, output]).toEqual([1, expect.stringMatching(/not the one this database was set up with/)]);
    expectNotShown(output, NEW_KEY);
    expect(await dump(at)).toBe(before);
  });
});
