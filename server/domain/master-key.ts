/** The master key: it wraps the other keys and nothing else, so that rotating it touches a handful of rows. */
import { and, eq } from 'drizzle-orm';
import type { Store } from '../../db/store.ts';
import { createKeyring, masterKeyCheck, unwrapKey, wrapKey } from '../crypto/keyring.ts';
import type { Caller } from '../deps.ts';
import { appendEvent } from './events.ts';
import { openKeys } from './installation.ts';

const ROTATION: Caller = {
  principal: { kind: 'system', id: 'master-key-rotation' },
  requestId: 'master-key-rotation',
};

export interface MasterKeyRotation {
  masterKey: Buffer;
  newMasterKey: Buffer;
  now: () => number;
}

/**
 * Wraps every key anew, in one transaction with the check value and the event. What runs goes on: its keys are
 * unwrapped. Call it within `store.exclusively`, after migrating. Throws `InstallationError` when the master key does
 * not fit.
 */
export async function rotateMasterKey(store: Store, rotation: MasterKeyRotation): Promise<void> {
  const { masterKey, newMasterKey, now } = rotation;
  await store.tx(async (tx) => {
    const { db, tables } = tx;
    const { wrappedKeys: w, installation } = tables;
    const { epoch, keys } = await openKeys(tx, masterKey);
    for (const { purpose, version, wrapped } of await db.select().from(w)) {
      const key = unwrapKey(masterKey, purpose, version, wrapped);
      await db
        .update(w)
        .set({ wrapped: wrapKey(newMasterKey, purpose, version, key) })
        .where(and(eq(w.purpose, purpose), eq(w.version, version)));
    }
    await db.update(installation).set({ master_key_check: masterKeyCheck(newMasterKey, epoch) });
    await appendEvent(tx, { keyring: createKeyring(keys), now }, ROTATION, {
      type: 'installation.master_key_rotated',
      objectId: epoch,
    });
  });
}
