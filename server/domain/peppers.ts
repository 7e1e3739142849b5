/**
 * The pepper, and how one that leaked is retired: with the values kept nowhere, every stored hash is wrapped with
 * another pepper, and new values are hashed through the whole chain. It is done while no server runs.
 */
import { and, asc, eq, gt, isNotNull, lt, placeholder, sql } from 'drizzle-orm';
import { forShare } from '../../db/kit.ts';
import { statement } from '../../db/statement.ts';
import type { Rows, Store } from '../../db/store.ts';
import { createKeyring, type Keyring, newKey, wrapKey } from '../crypto/keyring.ts';
import type { Caller, Deps } from '../deps.ts';
import { appendEvent } from './events.ts';
import { openKeys } from './installation.ts';
import { type SecretRow, secretMac } from './secrets.ts';

/** A retirement that was begun and is not finished. */
export interface PepperRetirement {
  epoch: string;
  /** With the new pepper as its newest. */
  keyring: Keyring;
}

/** The schema version whose binaries know of several peppers; older ones would find no credential, and refuse. */
export const PEPPERS_SINCE = 4;

const RETIREMENT: Caller = {
  principal: { kind: 'system', id: 'pepper-retirement' },
  requestId: 'pepper-retirement',
};

/**
 * Makes another pepper, from which moment no server starts, or takes up a retirement that was cut off. Call it within
 * `store.exclusively`, after migrating: then who is starting either knows of it or is seen to run.
 */
export async function beginPepperRetirement(
  store: Store,
  { masterKey, now }: { masterKey: Buffer; now: () => number },
): Promise<PepperRetirement> {
  const { keys, preparing } = await openKeys(store.read, masterKey);
  if (preparing === null) await insertPepper(store, masterKey, keys.pepper.length + 1, now());
  const begun = await openKeys(store.read, masterKey);
  return { epoch: begun.epoch, keyring: createKeyring(begun.keys) };
}

async function insertPepper(store: Store, masterKey: Buffer, version: number, now: number) {
  const wrapped = wrapKey(masterKey, 'pepper', version, newKey());
  await store.tx(async ({ db, tables: { wrappedKeys, installation } }) => {
    await db
      .insert(wrappedKeys)
      .values({ purpose: 'pepper', version, wrapped, state: 'preparing', created_at: now });
    await db
      .update(installation)
      .set({ oldest_binary: PEPPERS_SINCE })
      .where(lt(installation.oldest_binary, PEPPERS_SINCE));
  });
}

/** How many of all hashes have the new pepper, as far as they were looked at. */
export interface RehashProgress {
  done: number;
  total: number;
}

/**
 * Wraps every hash that lacks a pepper, batch by batch, each in a transaction of its own; the rows say how far it has
 * come. Goes over them again until there is nothing left to do.
 */
export async function rehashAll(
  store: Store,
  { keyring }: PepperRetirement,
  onProgress: (progress: RehashProgress) => void,
): Promise<void> {
  const total = await countHashes(store.read);
  let done = 0;
  const onBatch = ({ seen }: Batch) => {
    done = Math.min(total, done + seen);
    onProgress({ done, total });
  };
  const ofTokens = VALUE_TABLES.map(rehashTokensOf);
  for (const rehashBatch of [rehashSecrets, ...ofTokens]) {
    const run = (after: string) => store.tx((tx) => rehashBatch(tx, keyring, after));
    let left = await rehashTable(run, onBatch);
    // A process that lingered may have written behind the last batch.
    while (left > 0) left = await rehashTable(run, () => {});
  }
}

/** Tables whose rows have one value for life, and so its hash. */
const VALUE_TABLES = ['m2mTokens', 'oauthTokens', 'oauthCodes', 'oauthRefreshTokens'] as const;
type ValueTable = (typeof VALUE_TABLES)[number];

/** Where hashes are that were wrapped: what they were before is to leave the disk. */
export const HASH_TABLES = ['secrets', ...VALUE_TABLES] as const;

/** What those tables have in common. */
const valuesIn = (tables: Rows['tables'], name: ValueTable) => tables[name] as Rows['tables']['m2mTokens'];

async function countHashes({ db, tables }: Rows): Promise<number> {
  const count = sql<number>`count(*)`.mapWith(Number);
  const [ofSecrets] = await db.select({ count }).from(tables.secrets);
  let total = ofSecrets?.count ?? 0;
  for (const name of VALUE_TABLES) {
    const t = valuesIn(tables, name);
    const [ofTokens] = await db.select({ count }).from(t).where(isNotNull(t.hash));
    total += ofTokens?.count ?? 0;
  }
  return total;
}

/** The next rows of a table after an id: where the next batch goes on, how many they were, how many lacked a pepper. */
interface Batch {
  last: string | null;
  seen: number;
  rehashed: number;
}

const BATCH_ROWS = 500;

/** One pass over a table; answers how many rows lacked a pepper. */
async function rehashTable(
  run: (after: string) => Promise<Batch>,
  onBatch: (batch: Batch) => void,
): Promise<number> {
  let rehashed = 0;
  for (let after: string | null = ''; after !== null; ) {
    const batch: Batch = await run(after);
    rehashed += batch.rehashed;
    after = batch.last;
    onBatch(batch);
  }
  return rehashed;
}

const setSecretHash = statement((db, { secrets: s }) =>
  db
    .update(s)
    .set({
      hash: sql`${placeholder('hash')}`,
      pepper_version: sql`${placeholder('version')}`,
      mac: sql`${placeholder('mac')}`,
    })
    .where(eq(s.id, placeholder('id')))
    .prepare('pepper_rehash_secret'),
);

async function rehashSecrets(tx: Rows, keyring: Keyring, after: string): Promise<Batch> {
  const { secrets: s } = tx.tables;
  const rows = await forShare(
    tx.db.select().from(s).where(gt(s.id, after)).orderBy(asc(s.id)).limit(BATCH_ROWS),
  );
  const outdated = rows.filter((row) => row.pepper_version < keyring.pepperVersion);
  for (const row of outdated) {
    const hash = keyring.rehash(row.hash, row.pepper_version);
    const mac = macAfter(keyring, row, hash);
    await setSecretHash(tx, { id: row.id, hash, version: keyring.pepperVersion, mac });
  }
  return { last: rows.at(-1)?.id ?? null, seen: rows.length, rehashed: outdated.length };
}

/** A row that somebody else wrote to does not become genuine by being wrapped. */
function macAfter(keyring: Keyring, row: SecretRow, hash: Buffer): Buffer | null {
  const isGenuine = row.mac?.equals(secretMac({ keyring }, row)) === true;
  return isGenuine ? secretMac({ keyring }, { ...row, hash }) : row.mac;
}

const setHashIn = (name: ValueTable) =>
  statement((db, tables) => {
    const t = valuesIn(tables, name);
    return db
      .update(t)
      .set({ hash: sql`${placeholder('hash')}`, pepper_version: sql`${placeholder('version')}` })
      .where(eq(t.id, placeholder('id')))
      .prepare(`pepper_rehash_${name}`);
  });

/** A JWT has no hash. */
function rehashTokensOf(name: ValueTable): typeof rehashSecrets {
  const setHash = setHashIn(name);
  return async (tx, keyring, after) => {
    const t = valuesIn(tx.tables, name);
    const rows = await forShare(
      tx.db
        .select({ id: t.id, hash: t.hash, version: t.pepper_version })
        .from(t)
        .where(gt(t.id, after))
        .orderBy(asc(t.id))
        .limit(BATCH_ROWS),
    );
    let [seen, rehashed] = [0, 0];
    for (const { id, hash, version } of rows) {
      if (hash === null || version === null) continue;
      seen++;
      if (version >= keyring.pepperVersion) continue;
      rehashed++;
      await setHash(tx, { id, hash: keyring.rehash(hash, version), version: keyring.pepperVersion });
    }
    return { last: rows.at(-1)?.id ?? null, seen, rehashed };
  };
}

/** Lets servers start again. Of several who finish the same retirement, one appends the event. */
export async function finishPepperRetirement(
  store: Store,
  { epoch, keyring }: PepperRetirement,
  now: () => number,
): Promise<void> {
  await store.tx(async (tx) => {
    const { wrappedKeys: w } = tx.tables;
    const version = keyring.pepperVersion;
    const [activated] = await tx.db
      .update(w)
      .set({ state: 'active' })
      .where(and(eq(w.purpose, 'pepper'), eq(w.version, version), eq(w.state, 'preparing')))
      .returning({ version: w.version });
    if (!activated) return;
    await appendEvent(tx, { keyring, now }, RETIREMENT, {
      type: 'installation.pepper_retired',
      objectId: epoch,
      data: { retiredVersion: version - 1, version },
    });
  });
}

/** Whether the database has just the peppers a process works with: with others, it finds and writes what nobody else does. */
export async function hasOurPeppers({ store, keyring }: Pick<Deps, 'store' | 'keyring'>): Promise<boolean> {
  const { db, tables } = store.read;
  const { wrappedKeys: w } = tables;
  const peppers = await db.select({ version: w.version }).from(w).where(eq(w.purpose, 'pepper'));
  return (
    peppers.length === keyring.pepperVersion &&
    peppers.every(({ version }) => version <= keyring.pepperVersion)
  );
}
