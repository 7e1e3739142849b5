import { getTableName } from 'drizzle-orm';
import { expect, it, onTestFinished } from 'vitest';
import { schemaVersion } from '../../../db/migrations.ts';
import { openStore, type Store } from '../../../db/store.ts';
import { newValue } from '../../../server/crypto/hashing.ts';
import {
  assertMayOpen,
  InstallationError,
  type InstallationOptions,
  isInstalled,
  openInstallation,
} from '../../../server/domain/installation.ts';
import { findCaller } from '../../../server/domain/secrets.ts';
import { createSigner } from '../../../server/domain/signing-keys.ts';
import {
  anywhere,
  describeOnEachDialect,
  emptyDatabase,
  MASTER_KEY,
  openTestDeps,
  openTestStore,
} from '../../support/deps.ts';
import { expectChained } from '../../support/event-log.ts';

const OTHER_MASTER_KEY = Buffer.alloc(32, 8);
const NOW = Date.UTC(2026, 0, 6);

const open = (store: Store, options: Partial<InstallationOptions> = {}) =>
  openInstallation(store, { masterKey: MASTER_KEY, signingAlg: 'ES256', now: () => NOW, ...options });

/** Every row of every table, as text. */
async function dump({ read: { db, tables } }: Store): Promise<string> {
  const entries = [];
  for (const table of Object.values(tables))
    entries.push([getTableName(table), await db.select().from(table)]);
  return JSON.stringify(entries);
}

/** A store on a database that other stores may be on too. */
async function storeOn(location: string): Promise<Store> {
  const store = await openStore({ location, poolSize: 3 });
  onTestFinished(() => store.close());
  return store;
}

describeOnEachDialect('openInstallation()', (dialect) => {
  it('sets a database up once: a second opening answers the same keys and changes nothing', async () => {
    const store = await openTestStore(dialect);
    expect(await isInstalled(store)).toBe(false);
    const first = await open(store);
    expect(await isInstalled(store)).toBe(true);
    const before = await dump(store);
    const second = await open(store);
    expect(second.epoch).toBe(first.epoch);
    expect(second.firstSecretKey).toBeNull();
    expect(second.keyring.hash('a value')).toEqual(first.keyring.hash('a value'));
    expect(second.keyring.log).toEqual(first.keyring.log);
    expect(second.keyring.rowMac).toEqual(first.keyring.rowMac);
    expect(second.keyring.unseal('here', first.keyring.seal('here', 'sealed')).toString()).toBe('sealed');
    expect(await dump(store)).toBe(before);
  });

  it('makes a first admin key and a signing key that sign and authenticate', async () => {
    const deps = await openTestDeps(dialect);
    expect(await findCaller(deps, deps.adminKey, anywhere)).toMatchObject({
      kind: 'secret_key',
      role: 'admin',
    });
    expect(await createSigner(deps.store, deps.keyring).active()).toMatchObject({ alg: 'ES256' });
    expect(await expectChained(deps)).toBe(1);
  });

  it('installs the key an operator chose, once, and answers no value', async () => {
    const deps = await openTestDeps(dialect);
    const store = await openTestStore(dialect);
    const chosen = `sk_${'chosen_by_an_operator_'.repeat(2)}`;
    const { keyring, firstSecretKey } = await open(store, { bootstrapKey: chosen });
    expect(firstSecretKey).toBeNull();
    const installed = { ...deps, store, keyring };
    expect(await findCaller(installed, chosen, anywhere)).toMatchObject({ role: 'admin' });
    const later = newValue('sk_').value;
    const before = await dump(store);
    await open(store, { bootstrapKey: later });
    expect(await findCaller(installed, later, anywhere)).toBeNull();
    expect(await findCaller(installed, chosen, anywhere)).toMatchObject({ role: 'admin' });
    expect(await dump(store)).toBe(before);
  });

  it('refuses another master key, says so without it, and touches no row', async () => {
    const store = await openTestStore(dialect);
    await open(store);
    const before = await dump(store);
    for (const masterKey of [OTHER_MASTER_KEY, Buffer.alloc(0)]) {
      await expect(open(store, { masterKey })).rejects.toThrow(InstallationError);
      await expect(assertMayOpen(store, masterKey)).rejects.toThrow(InstallationError);
    }
    const refusal = await open(store, { masterKey: OTHER_MASTER_KEY }).catch((error: unknown) => error);
    for (const encoding of ['hex', 'base64', 'base64url', 'latin1'] as const)
      expect(String(refusal)).not.toContain(OTHER_MASTER_KEY.toString(encoding));
    expect(await dump(store)).toBe(before);
    await assertMayOpen(store, MASTER_KEY);
  });

  it('refuses a database that asks for newer binaries, and touches no row', async () => {
    const store = await openTestStore(dialect);
    await open(store);
    const newer = schemaVersion() + 1;
    await store.tx(async ({ db, tables }) => {
      await db.update(tables.installation).set({ oldest_binary: newer });
    });
    const before = await dump(store);
    await expect(open(store)).rejects.toThrow(
      expect.objectContaining({ name: 'InstallationError', message: expect.stringContaining(`${newer}`) }),
    );
    expect(await dump(store)).toBe(before);
  });

  it('stores no key that opens anything without the master key', async () => {
    const store = await openTestStore(dialect);
    const { keyring, firstSecretKey } = await open(store);
    const { db, tables } = store.read;
    const wrapped = await db.select().from(tables.wrappedKeys);
    expect(wrapped.map(({ purpose }) => purpose).sort()).toEqual(['log', 'pepper', 'row_mac', 'sealing']);
    for (const { wrapped: bytes } of wrapped)
      for (const key of [keyring.log, keyring.rowMac, MASTER_KEY]) expect(bytes.includes(key)).toBe(false);
    expect(await dump(store)).not.toContain(firstSecretKey?.slice(0, 12) ?? 'no first key');
    expect(await dump(store)).not.toMatch(/"d":/);
  });

  it('makes exactly one first key, whichever of several processes starts first on an empty database', async () => {
    const location = await emptyDatabase(dialect);
    const stores = [await storeOn(location), await storeOn(location), await storeOn(location)];
    const installations = await Promise.all(
      stores.map((store) =>
        store.exclusively(async () => {
          await store.migrate();
          return open(store);
        }),
      ),
    );
    const values = installations.flatMap(({ firstSecretKey }) => firstSecretKey ?? []);
    expect(values).toHaveLength(1);
    expect(new Set(installations.map(({ epoch }) => epoch)).size).toBe(1);
    const hashes = installations.map(({ keyring }) => keyring.hash('a value').toString('hex'));
    expect(new Set(hashes).size).toBe(1);
    for (const store of stores) {
      const { db, tables } = store.read;
      expect(await db.select().from(tables.secretKeys)).toHaveLength(1);
      expect(await db.select().from(tables.signingKeys)).toHaveLength(1);
      expect(await db.select().from(tables.events)).toHaveLength(1);
    }
  });
});
