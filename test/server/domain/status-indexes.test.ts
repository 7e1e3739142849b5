import { decodeJwt } from 'jose';
import { expect, it, onTestFinished } from 'vitest';
import { openStore, type Store } from '../../../db/store.ts';
import { openInstallation } from '../../../server/domain/installation.ts';
import { createM2mToken, createM2mTokenInput } from '../../../server/domain/m2m-tokens.ts';
import { createSigner } from '../../../server/domain/signing-keys.ts';
import {
  BLOCK_HELD_MS_MAX,
  BLOCKS_OF_LIST,
  createStatusIndexes,
  type StatusIndex,
} from '../../../server/domain/status-indexes.ts';
import { describeOnEachDialect, freshDatabase, MASTER_KEY, openTestDeps } from '../../support/deps.ts';
import { newMachine } from '../../support/machines.ts';

const BLOCK = 1_024;

const nameOf = ({ listId, index }: StatusIndex) => `${listId} ${index}`;
const listsOf = ({ read: { db, tables } }: Pick<Store, 'read'>) => db.select().from(tables.statusLists);
const setBlocksTaken = (store: Store, blocks_taken: number) =>
  store.tx(({ db, tables }) => db.update(tables.statusLists).set({ blocks_taken }));

describeOnEachDialect('status indexes', (dialect) => {
  /** As several processes have one database. */
  async function openStores(howMany: number): Promise<Store[]> {
    const location = await freshDatabase(dialect);
    const stores = await Promise.all(
      Array.from({ length: howMany }, () => openStore({ location, poolSize: 3 })),
    );
    onTestFinished(async () => {
      for (const store of stores) await store.close();
    });
    const [store] = stores as [Store];
    await store.migrate();
    await openInstallation(store, { masterKey: MASTER_KEY, signingAlg: 'ES256', now: Date.now });
    return stores;
  }

  it('hands out none twice, over several processes and all of a list, and makes the next list once', async () => {
    const stores = await openStores(4);
    const [store] = stores as [Store];
    const hands = stores.map((own) => ({ own: createStatusIndexes(), store: own, now: Date.now }));
    const seen = new Set<string>();
    async function takeAll(howMany: number) {
      await Promise.all(
        hands.map(async ({ own, ...deps }) => {
          for (let i = 0; i < howMany; i++) seen.add(nameOf(await own.take(deps)));
        }),
      );
    }
    await takeAll(3 * BLOCK);
    expect(seen.size).toBe(4 * 3 * BLOCK);
    expect(await listsOf(store)).toHaveLength(1);
    await setBlocksTaken(store, BLOCKS_OF_LIST - 2);
    await takeAll(3 * BLOCK);
    expect(seen.size).toBe(4 * 6 * BLOCK);
    const lists = await listsOf(store);
    expect(lists).toHaveLength(2);
    expect(lists.filter((list) => list.blocks_taken === BLOCKS_OF_LIST)).toHaveLength(1);
  });

  it('createM2mToken() gives each JWT of several processes an index of its own, and opaque tokens none', async () => {
    const deps = await openTestDeps(dialect);
    const a = await newMachine(deps, 'a');
    const processes = Array.from({ length: 3 }, () => ({
      ...deps,
      signer: createSigner(deps.store, deps.keyring),
      statusIndexes: createStatusIndexes(),
    }));
    const mint = (i: number, format: 'jwt' | 'opaque') =>
      createM2mToken(processes[i % 3] ?? deps, a.caller, createM2mTokenInput.parse({ format }));
    const minted = await Promise.all(Array.from({ length: 90 }, (_, i) => mint(i, 'jwt')));
    const named = minted.map(({ token }) => decodeJwt(token ?? '')['status']);
    expect(new Set(named.map((status) => JSON.stringify(status))).size).toBe(90);
    await mint(0, 'opaque');
    const { m2mTokens } = deps.store.read.tables;
    const rows = await deps.store.read.db.select().from(m2mTokens);
    for (const { format, status_list_id, status_index } of rows) {
      if (format === 'opaque') expect([status_list_id, status_index]).toEqual([null, null]);
      else
        expect(named).toContainEqual({
          status_list: { idx: status_index, uri: `${deps.publicUrl}/v1/status-lists/${status_list_id}` },
        });
    }
    const [list] = await listsOf(deps.store);
    expect(list?.blocks_taken).toBe(3);
  });

  it('fetches the next block ahead, so that none waits for it', async () => {
    const deps = await openTestDeps(dialect);
    const first = await deps.statusIndexes.take(deps);
    for (let i = 1; i < BLOCK; i++) {
      const taken = deps.statusIndexes.take(deps);
      expect(taken).not.toBeInstanceOf(Promise);
      // As minting does with each.
      if (i % 100 === 0) await deps.store.tx(() => Promise.resolve());
    }
    const next = deps.statusIndexes.take(deps);
    expect(next).toMatchObject({ listId: first.listId });
    expect(await listsOf(deps.store)).toMatchObject([{ blocks_taken: 2 }]);
  });

  it('hands out no index of a block that it has had for over a day', async () => {
    const deps = await openTestDeps(dialect);
    await deps.statusIndexes.take(deps);
    deps.clock.now += BLOCK_HELD_MS_MAX;
    await deps.statusIndexes.take(deps);
    expect(await listsOf(deps.store)).toMatchObject([{ blocks_taken: 1 }]);
    deps.clock.now += 1;
    await deps.statusIndexes.take(deps);
    expect(await listsOf(deps.store)).toMatchObject([{ blocks_taken: 2, updated_at: deps.clock.now }]);
  });

  it('fails while no block can be taken, and goes on once one can', async () => {
    const deps = await openTestDeps(dialect);
    const indexes = createStatusIndexes();
    const broken = { ...deps, store: { ...deps.store, tx: () => Promise.reject(new Error('Lost')) } };
    await expect(indexes.take(broken)).rejects.toThrow('Lost');
    expect(await indexes.take(deps)).toMatchObject({ index: expect.any(Number) });
    for (let i = 1; i < BLOCK; i++) indexes.take(broken);
    await expect(indexes.take(broken)).rejects.toThrow('Lost');
    expect(await indexes.take(deps)).toMatchObject({ index: expect.any(Number) });
  });
});
