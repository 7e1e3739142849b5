import { eq } from 'drizzle-orm';
import { expect, it } from 'vitest';
import { assertMayOpen, openInstallation, openKeys } from '../../../server/domain/installation.ts';
import { rotateMasterKey } from '../../../server/domain/master-key.ts';
import { beginPepperRetirement } from '../../../server/domain/peppers.ts';
import { describeOnEachDialect, MASTER_KEY, openTestDeps, type TestDeps } from '../../support/deps.ts';
import { expectChained } from '../../support/event-log.ts';

const NEW_KEY = Buffer.alloc(32, 8);

const rotate = ({ store, now }: TestDeps, masterKey = MASTER_KEY, newMasterKey = NEW_KEY) =>
  rotateMasterKey(store, { masterKey, newMasterKey, now });

const wrappedKeys = async ({ store }: TestDeps) => {
  const { db, tables } = store.read;
  return db.select().from(tables.wrappedKeys);
};

describeOnEachDialect('rotateMasterKey()', (dialect) => {
  it('has every key opened by the new master key, as it was, and by the old one no longer', async () => {
    const deps = await openTestDeps(dialect);
    // A pepper that is being prepared is a key like the others.
    await beginPepperRetirement(deps.store, { masterKey: MASTER_KEY, now: deps.now });
    const before = await openKeys(deps.store.read, MASTER_KEY);
    const rows = await wrappedKeys(deps);
    await rotate(deps);
    expect(await openKeys(deps.store.read, NEW_KEY)).toEqual(before);
    await expect(openKeys(deps.store.read, MASTER_KEY)).rejects.toThrow(/not the one this database/);
    const after = await wrappedKeys(deps);
    expect(after).toHaveLength(rows.length);
    for (const row of after) expect(rows.map(({ wrapped }) => wrapped)).not.toContainEqual(row.wrapped);
  });

  it('appends one event, chained to the one before by the same key', async () => {
    const deps = await openTestDeps(dialect);
    await rotate(deps);
    expect(await expectChained(deps)).toBe(2);
    const { db, tables } = deps.store.read;
    const type = 'installation.master_key_rotated';
    const events = await db.select().from(tables.events).where(eq(tables.events.type, type));
    const [installation] = await db.select().from(tables.installation);
    expect(events).toMatchObject([
      { actor_kind: 'system', object_id: installation?.epoch, request_id: 'master-key-rotation', data: {} },
    ]);
  });

  it('can be done again, and back to a key of before', async () => {
    const deps = await openTestDeps(dialect);
    await rotate(deps);
    await rotate(deps, NEW_KEY, MASTER_KEY);
    const options = { masterKey: MASTER_KEY, signingAlg: 'ES256' as const, now: deps.now };
    const { keyring } = await openInstallation(deps.store, options);
    expect(keyring.hash('value')).toEqual(deps.keyring.hash('value'));
    expect(await expectChained(deps)).toBe(3);
  });

  it('changes nothing with another old key, or where a wrapped key was changed by somebody else', async () => {
    const deps = await openTestDeps(dialect);
    const before = await wrappedKeys(deps);
    await expect(rotate(deps, NEW_KEY)).rejects.toThrow(/not the one this database/);
    expect(await wrappedKeys(deps)).toEqual(before);
    await deps.store.tx(async ({ db, tables: { wrappedKeys: w } }) => {
      const [pepper] = await db.select().from(w).where(eq(w.purpose, 'pepper'));
      await db.update(w).set({ wrapped: pepper?.wrapped }).where(eq(w.purpose, 'row_mac'));
    });
    const changed = await wrappedKeys(deps);
    await expect(rotate(deps)).rejects.toThrow();
    expect(await wrappedKeys(deps)).toEqual(changed);
    await assertMayOpen(deps.store, MASTER_KEY);
    expect(await expectChained(deps)).toBe(1);
  });
});
