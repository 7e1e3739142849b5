import { hash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { and, eq, sql } from 'drizzle-orm';
import { expect, it, vi } from 'vitest';
import { migrationsFolder } from '../../../db/migrations.ts';
import type { Store } from '../../../db/store.ts';
import { hmac, newValue } from '../../../server/crypto/hashing.ts';
import { createApiKey, createApiKeyInput } from '../../../server/domain/api-keys.ts';
import { InstallationError, openInstallation, openKeys } from '../../../server/domain/installation.ts';
import { createM2mToken, createM2mTokenInput } from '../../../server/domain/m2m-tokens.ts';
import {
  beginPepperRetirement,
  finishPepperRetirement,
  hasOurPeppers,
  PEPPERS_SINCE,
  type RehashProgress,
  rehashAll,
} from '../../../server/domain/peppers.ts';
import { createSecretKey, createSecretKeyInput } from '../../../server/domain/secret-keys.ts';
import { findCaller, findOwner, revokeSecrets, secretMac } from '../../../server/domain/secrets.ts';
import {
  anywhere,
  callerWith,
  describeOnEachDialect,
  MASTER_KEY,
  openTestDeps,
  type TestDeps,
} from '../../support/deps.ts';
import { expectChained } from '../../support/event-log.ts';
import { allow, newMachine } from '../../support/machines.ts';

/** As if migrations had been added since. */
vi.mock('../../../db/migrations.ts', async (original) => ({
  ...(await original<typeof import('../../../db/migrations.ts')>()),
  schemaVersion: () => 100,
}));

const sha256 = (value: string) => hash('sha256', value, 'buffer');

const admin = callerWith('admin');

/** A value that nobody issued. */
const WRITERS_OWN = `sk_${'chosen_by_a_writer_'.repeat(3)}`;

const begin = ({ store, now }: Pick<TestDeps, 'store' | 'now'>) =>
  beginPepperRetirement(store, { masterKey: MASTER_KEY, now });

/** Retires the pepper; answers what a process that starts afterwards works with. */
async function retire(deps: TestDeps, onProgress: (progress: RehashProgress) => void = () => {}) {
  const retirement = await begin(deps);
  await rehashAll(deps.store, retirement, onProgress);
  await finishPepperRetirement(deps.store, retirement, deps.now);
  return reopened(deps);
}

async function reopened(deps: TestDeps): Promise<TestDeps> {
  const options = { masterKey: MASTER_KEY, signingAlg: 'ES256' as const, now: deps.now };
  const { keyring } = await openInstallation(deps.store, options);
  return { ...deps, keyring };
}

const apiKey = async (deps: TestDeps, name: string) =>
  (await createApiKey(deps, admin, createApiKeyInput.parse({ name, subject: 'user_1' }))).secret ?? '';

async function storedHash({ store }: { store: Store }, start: string): Promise<Buffer | undefined> {
  const { db, tables } = store.read;
  const [row] = await db.select().from(tables.secrets).where(eq(tables.secrets.start, start));
  return row?.hash;
}

describeOnEachDialect('retiring a pepper', (dialect) => {
  it('wraps what was stored in another HMAC, through which new values go too', async () => {
    const deps = await openTestDeps(dialect);
    const old = await apiKey(deps, 'old');
    const stored = (await storedHash(deps, old.slice(0, 9))) ?? Buffer.alloc(0);
    const after = await retire(deps);
    const { keys } = await openKeys(deps.store.read, MASTER_KEY);
    const [first = Buffer.alloc(0), second = Buffer.alloc(0), ...rest] = keys.pepper;
    expect([stored, rest]).toEqual([hmac(first, sha256(old)), []]);
    expect(await storedHash(deps, old.slice(0, 9))).toEqual(hmac(second, stored));
    expect(second).not.toEqual(first);

    const made = await apiKey(after, 'new');
    expect(await storedHash(deps, made.slice(0, 9))).toEqual(hmac(second, hmac(first, sha256(made))));
    for (const value of [old, made]) expect(await findOwner(after, value)).toMatchObject({ kind: 'api_key' });
    expect(await findOwner(deps, old)).toBeNull();
    expect(await findCaller(after, deps.adminKey, anywhere)).toMatchObject({ role: 'admin' });
  });

  it('appends one event, and raises the oldest binary to the first that knows of several peppers', async () => {
    const deps = await openTestDeps(dialect);
    const retirement = await begin(deps);
    const { db, tables } = deps.store.read;
    const oldest = async () => (await db.select().from(tables.installation))[0]?.oldest_binary;
    expect(await oldest()).toBe(PEPPERS_SINCE);
    await rehashAll(deps.store, retirement, () => {});
    expect(await expectChained(deps)).toBe(1);
    await finishPepperRetirement(deps.store, retirement, deps.now);
    await finishPepperRetirement(deps.store, retirement, deps.now);
    expect(await expectChained(deps)).toBe(2);
    const events = await db.select().from(tables.events).where(eq(tables.events.seq, 2));
    expect(events).toMatchObject([
      {
        type: 'installation.pepper_retired',
        actor_kind: 'system',
        request_id: 'pepper-retirement',
        data: { retiredVersion: 1, version: 2 },
      },
    ]);
  });

  it('leaves the oldest binary where it is beyond that already', async () => {
    const deps = await openTestDeps(dialect);
    const { db, tables } = deps.store.read;
    const oldest_binary = PEPPERS_SINCE + 1;
    await deps.store.tx(({ db, tables }) => db.update(tables.installation).set({ oldest_binary }));
    await retire(deps);
    expect(await db.select().from(tables.installation)).toMatchObject([{ oldest_binary }]);
  });

  it('lets no process start until it is finished, and shows those that run that they are superseded', async () => {
    const deps = await openTestDeps(dialect);
    expect(await hasOurPeppers(deps)).toBe(true);
    const retirement = await begin(deps);
    expect(await hasOurPeppers(deps)).toBe(false);
    const refusal = await reopened(deps).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(InstallationError);
    expect(String(refusal)).toContain('npm run retire:pepper');
    // Taken up again it is the same: another pepper would have to be waited for anew.
    expect((await begin(deps)).keyring.hash('value')).toEqual(retirement.keyring.hash('value'));
    await rehashAll(deps.store, retirement, () => {});
    await expect(reopened(deps)).rejects.toThrow(InstallationError);
    await finishPepperRetirement(deps.store, retirement, deps.now);
    expect(await hasOurPeppers(await reopened(deps))).toBe(true);
    expect(await hasOurPeppers(deps)).toBe(false);
  });

  it('tells how far it has come, of all hashes there are', async () => {
    const deps = await openTestDeps(dialect);
    const { id, caller } = await newMachine(deps, 'billing');
    await allow(deps, id, id);
    for (const format of ['opaque', 'jwt'])
      await createM2mToken(deps, caller, createM2mTokenInput.parse({ format }));
    const told: RehashProgress[] = [];
    await retire(deps, (progress) => told.push(progress));
    // The admin key's, the machine's and the opaque token's; a JWT has none.
    expect(told.every(({ total }) => total === 3)).toBe(true);
    expect(told.at(-1)?.done).toBe(3);
    expect(told.map(({ done }) => done)).toEqual(told.map(({ done }) => done).sort());
  });

  it('wraps also what a lingering process writes behind the batches', async () => {
    const deps = await openTestDeps(dialect);
    const late = newValue('ak_').value;
    const writes: Promise<unknown>[] = [];
    const after = await retire(deps, () => {
      if (writes.length === 0) writes.push(insertSecret(deps, 'sec_!', late));
    });
    await Promise.all(writes);
    expect(await findOwner(after, late)).toMatchObject({ id: 'ak_late' });
  });

  /** As a process with the old pepper would write it. */
  const insertSecret = ({ store, keyring }: TestDeps, id: string, value: string) =>
    store.tx(({ db, tables: { secrets } }) =>
      db.insert(secrets).values({
        id,
        owner_kind: 'api_key',
        owner_id: 'ak_late',
        hash: keyring.hash(value),
        pepper_version: 1,
        start: value.slice(0, 9),
        created_at: 1,
      }),
    );

  it('makes no secret key genuine that a writer to the database forged', async () => {
    const deps = await openTestDeps(dialect);
    const create = (name: string) =>
      createSecretKey(deps, admin, createSecretKeyInput.parse({ name, role: 'read' }));
    const [genuine, forged, stripped] = [await create('a'), await create('b'), await create('c')];
    await deps.store.tx(async ({ db, tables: { secrets: s } }) => {
      const of = (id: string) => and(eq(s.owner_kind, 'secret_key'), eq(s.owner_id, id));
      const hash = deps.keyring.hash(WRITERS_OWN);
      await db.update(s).set({ hash }).where(of(forged.id));
      await db.update(s).set({ mac: null }).where(of(stripped.id));
    });
    const after = await retire(deps);
    expect(await findCaller(after, genuine.secret ?? '', anywhere)).toMatchObject({ id: genuine.id });
    expect(await findOwner(after, WRITERS_OWN)).toMatchObject({ id: forged.id });
    expect(await findCaller(after, WRITERS_OWN, anywhere)).toBeNull();
    expect(await findCaller(after, stripped.secret ?? '', anywhere)).toBeNull();
  });

  it('done by two at once wraps each hash once, and appends one event', async () => {
    const deps = await openTestDeps(dialect);
    const values = Array.from({ length: 1_100 }, () => newValue('ak_').value);
    for (const [i, value] of values.entries()) await insertSecret(deps, `sec_${i}`, value);
    const retirement = await begin(deps);
    await Promise.all(
      [1, 2].map(async () => {
        await rehashAll(deps.store, retirement, () => {});
        await finishPepperRetirement(deps.store, retirement, deps.now);
      }),
    );
    const { db, tables } = deps.store.read;
    const rows = await db.select().from(tables.secrets);
    const hashes = new Set(rows.map(({ hash }) => hash.toString('hex')));
    for (const value of [...values, deps.adminKey])
      expect(hashes).toContain(retirement.keyring.hash(value).toString('hex'));
    expect(await expectChained(deps)).toBe(2);
  });

  it('takes back nothing that a lingering process does to a secret meanwhile', async () => {
    const deps = await openTestDeps(dialect);
    const { id } = await createSecretKey(
      deps,
      admin,
      createSecretKeyInput.parse({ name: 'a', role: 'read' }),
    );
    await insertSecret(deps, 'sec_!', newValue('ak_').value);
    const retirement = await begin(deps);
    let isUnderWay = () => {};
    const underWay = new Promise<void>((resolve) => {
      isUnderWay = resolve;
    });
    const revoking = deps.store.tx(async (tx) => {
      const { secrets } = tx.tables;
      // The first row that will be wrapped: on PostgreSQL who is about to wrap it waits.
      await tx.db.update(secrets).set({ start: 'ak_' }).where(eq(secrets.id, 'sec_!'));
      isUnderWay();
      if (dialect === 'postgres') await tx.db.execute(sql`select pg_sleep(1)`);
      await revokeSecrets(tx, deps, { kind: 'secret_key', id });
    });
    await underWay;
    await rehashAll(deps.store, retirement, () => {});
    await revoking;
    const { db, tables } = deps.store.read;
    const [row] = await db.select().from(tables.secrets).where(eq(tables.secrets.owner_id, id));
    expect(row).toMatchObject({ pepper_version: 2, revoked_at: deps.clock.now });
    expect(row?.mac).toEqual(row && secretMac(deps, row));
  });
});

it('PEPPERS_SINCE is the version of the migration that made room for a pepper being prepared', () => {
  for (const dialect of ['sqlite', 'postgres'] as const) {
    const folder = migrationsFolder(dialect);
    const migrations = readdirSync(folder).filter((file) => file.endsWith('.sql'));
    const adds = /ALTER TABLE [`"]wrapped_keys[`"] ADD (COLUMN )?[`"]state[`"]/;
    const index = migrations.sort().findIndex((file) => adds.test(readFileSync(`${folder}/${file}`, 'utf8')));
    expect(PEPPERS_SINCE).toBe(index + 1);
  }
});
