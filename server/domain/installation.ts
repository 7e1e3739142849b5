/** What a database is set up with once: its epoch, the wrapped keys, the log's head, the first keys. */
import { asc, eq, lt } from 'drizzle-orm';
import { schemaVersion } from '../../db/migrations.ts';
import { isMissingTable, type Reader, type Rows, type Store } from '../../db/store.ts';
import { PREFIXES } from '../crypto/format.ts';
import { newValue } from '../crypto/hashing.ts';
import { derivedId, hexId, sortableId } from '../crypto/ids.ts';
import { generateSigningKey, type SigningAlg } from '../crypto/jwt.ts';
import {
  createKeyring,
  KEY_PURPOSES,
  type KeyPurpose,
  type Keyring,
  type Keys,
  masterKeyCheck,
  newKey,
  unwrapKey,
  wrapKey,
} from '../crypto/keyring.ts';
import type { Caller } from '../deps.ts';
import { appendEvent } from './events.ts';
import { installSecret, secretKeyMac } from './secrets.ts';
import { insertSigningKey } from './signing-keys.ts';

/** Why a process may not open a database. It ends the process; nothing was changed. */
export class InstallationError extends Error {
  override readonly name = 'InstallationError';
}

export interface InstallationOptions {
  masterKey: Buffer;
  signingAlg: SigningAlg;
  now: () => number;
  /** The first admin key's value, chosen by the operator. Without it one is made. */
  bootstrapKey?: string | undefined;
}

export interface Installation {
  keyring: Keyring;
  epoch: string;
  /** The value of the first secret key, if this call made one. */
  firstSecretKey: string | null;
}

/**
 * Opens the installation, setting it up if there is none. Call it within `store.exclusively`, after migrating. Throws
 * `InstallationError` when this binary or this master key may not open it, or while a pepper is being retired.
 */
export async function openInstallation(store: Store, options: InstallationOptions): Promise<Installation> {
  if (!(await isInstalled(store))) return setUp(store, options);
  const { epoch, keys, preparing } = await openKeys(store.read, options.masterKey);
  if (preparing !== null) {
    throw new InstallationError(
      'A retirement of the pepper is under way, and until it is finished credentials would not be found. Finish it with `npm run retire:pepper`',
    );
  }
  return { keyring: createKeyring(keys), epoch, firstSecretKey: null };
}

export interface OpenedKeys {
  epoch: string;
  keys: Keys;
  /** The version of the pepper that stored hashes are being wrapped with, or null. */
  preparing: number | null;
}

/** Every key of an installation. Throws `InstallationError` when this binary or this master key may not open it. */
export async function openKeys(rows: Rows, masterKey: Buffer): Promise<OpenedKeys> {
  const row = await readCheck(rows);
  if (!row) throw new InstallationError('This database was never set up');
  assertFits(masterKey, row);
  return { epoch: row.epoch, ...(await unwrapKeys(rows, masterKey)) };
}

/**
 * Whether the database was set up before, so that a missing master key means a lost one and not a first start. Asked
 * before migrating, so a database without tables is one that was not.
 */
export async function isInstalled(store: Pick<Reader, 'read'>): Promise<boolean> {
  const { db, tables } = store.read;
  try {
    return (await db.select({ id: tables.installation.id }).from(tables.installation)).length > 0;
  } catch (error) {
    if (isMissingTable(error)) return false;
    throw error;
  }
}

/**
 * Throws unless the database bears this binary and was set up with this master key. Asked before migrating: a refused
 * process changes nothing.
 */
export async function assertMayOpen(store: Pick<Reader, 'read'>, masterKey: Buffer): Promise<void> {
  const row = await readCheck(store.read);
  if (row) assertFits(masterKey, row);
}

/** Throws unless the database bears this binary. */
export async function assertBearsUs(store: Pick<Reader, 'read'>): Promise<void> {
  const row = await readCheck(store.read);
  if (row) assertBears(row);
}

/** Whether this is the master key of the database. */
export async function isMasterKey(store: Pick<Reader, 'read'>, masterKey: Buffer): Promise<boolean> {
  const row = await readCheck(store.read);
  return row !== undefined && fits(masterKey, row);
}

/** Columns that stay as they are for good: binaries of long ago ask for them, to learn that they are too old. */
interface OpeningCheck {
  epoch: string;
  master_key_check: Buffer;
  oldest_binary: number;
}

async function readCheck({ db, tables }: Rows): Promise<OpeningCheck | undefined> {
  const { epoch, master_key_check, oldest_binary } = tables.installation;
  const [row] = await db.select({ epoch, master_key_check, oldest_binary }).from(tables.installation);
  return row;
}

const fits = (masterKey: Buffer, { epoch, master_key_check }: OpeningCheck) =>
  masterKeyCheck(masterKey, epoch).equals(master_key_check);

/**
 * The latest instant that this installation is known to have been at, in ms: of its last event, or noted since. What
 * expired by then is expired for good, so no process begins before it.
 */
export async function latestInstant({ read: { db, tables } }: Pick<Reader, 'read'>): Promise<number> {
  const { installation: i, eventHead: h } = tables;
  const [row] = await db
    .select({ judgedAt: i.judged_at, eventAt: h.at })
    .from(i)
    .innerJoin(h, eq(h.id, i.id));
  return row ? Math.max(row.judgedAt, row.eventAt) : 0;
}

/** Notes that credentials were judged at `now`, in ms; what is there and later stays. It is noted again if it is lost. */
export async function noteInstant(store: Pick<Store, 'tx'>, now: number): Promise<void> {
  await store.tx(
    ({ db, tables: { installation: i } }) => db.update(i).set({ judged_at: now }).where(lt(i.judged_at, now)),
    'unhurried',
  );
}

/** As `oldest_binary`: no binary opens a database whose installation is elsewhere now, and those of before neither. */
const MOVED = 2 ** 31 - 1;

/** Has nobody open this database any more, for another holds the installation from now on. */
export async function markMoved({
  db,
  tables: { installation },
}: Pick<Rows, 'db' | 'tables'>): Promise<void> {
  await db.update(installation).set({ oldest_binary: MOVED });
}

function assertFits(masterKey: Buffer, row: OpeningCheck) {
  // Asked first: how a master key is checked may have changed since this binary was built.
  assertBears(row);
  if (fits(masterKey, row)) return;
  throw new InstallationError(
    'The master key is not the one this database was set up with. Nothing was changed. Give the right one in COUNTERSIGN_MASTER_KEY, COUNTERSIGN_MASTER_KEY_FILE or the data directory',
  );
}

function assertBears(row: OpeningCheck) {
  if (row.oldest_binary === MOVED) {
    throw new InstallationError(
      'What this database held was moved to PostgreSQL, and what was revoked since is known only there: give its URL in DATABASE_URL',
    );
  }
  if (row.oldest_binary > schemaVersion()) {
    throw new InstallationError(
      `This database bears binaries of schema version ${row.oldest_binary} and newer; this one is ${schemaVersion()}. Nothing was changed. Start a newer version`,
    );
  }
}

/** What Clerk's wire calls the instance: the same for as long as the installation lives, whatever was restored. */
export const instanceId = ({ keyring }: { keyring: Pick<Keyring, 'log'> }): string =>
  derivedId('ins_', keyring.log);

async function setUp(store: Store, options: InstallationOptions): Promise<Installation> {
  const now = options.now();
  const epoch = newKey().toString('hex').slice(0, 16);
  const made = Object.fromEntries(KEY_PURPOSES.map((purpose) => [purpose, newKey()])) as Record<
    KeyPurpose,
    Buffer
  >;
  const keyring = createKeyring({ ...made, pepper: [made.pepper] });
  const pair = await generateSigningKey(options.signingAlg);
  const kid = sortableId('key_', now);
  const secretKeyValue = options.bootstrapKey ?? newValue(PREFIXES.secretKey).value;

  await store.tx(async (tx) => {
    const { db, tables } = tx;
    await db.insert(tables.installation).values({
      id: 1,
      epoch,
      master_key_check: masterKeyCheck(options.masterKey, epoch),
      oldest_binary: 1,
      created_at: now,
    });
    for (const purpose of KEY_PURPOSES) {
      const wrapped = wrapKey(options.masterKey, purpose, 1, made[purpose]);
      await db.insert(tables.wrappedKeys).values({ purpose, version: 1, wrapped, created_at: now });
    }
    await db.insert(tables.eventHead).values({ id: 1, seq: 0, hash: Buffer.alloc(32), at: now });
    await db.insert(tables.webhookCursor).values({ id: 1, event_seq: 0 });
    await insertSigningKey(tx, keyring, pair, { kid, alg: options.signingAlg, state: 'active', now });
    const secretKeyId = await createFirstSecretKey(tx, keyring, secretKeyValue, now);
    await appendEvent(tx, { keyring, now: options.now }, SETUP, {
      type: 'installation.created',
      objectId: epoch,
      data: { signingKeyId: kid, secretKeyId },
    });
  });
  return { keyring, epoch, firstSecretKey: options.bootstrapKey === undefined ? secretKeyValue : null };
}

const SETUP: Caller = { principal: { kind: 'system', id: 'setup' }, requestId: 'setup' };

async function createFirstSecretKey(tx: Rows, keyring: Keyring, value: string, now: number): Promise<string> {
  const row = {
    id: hexId('sk_', now),
    role: 'admin' as const,
    expires_at: null,
    revoked_at: null,
    allowed_cidrs: null,
  };
  await tx.db.insert(tx.tables.secretKeys).values({
    ...row,
    name: 'first admin key',
    bootstrap: true,
    last_used_at: null,
    created_at: now,
    mac: secretKeyMac({ keyring }, row),
  });
  await installSecret(
    tx,
    { keyring, now: () => now },
    { kind: 'secret_key', id: row.id },
    value,
    PREFIXES.secretKey,
  );
  return row.id;
}

async function unwrapKeys({ db, tables: { wrappedKeys } }: Rows, masterKey: Buffer) {
  const rows = await db.select().from(wrappedKeys).orderBy(asc(wrappedKeys.version));
  /** All versions there ever were. Of the peppers none may be missing: each is in every hash that was stored after it. */
  const versionsOf = (purpose: KeyPurpose) => {
    const found = rows.filter((row) => row.purpose === purpose);
    if (found.length === 0 || found.some(({ version }, index) => version !== index + 1))
      throw new InstallationError(`The database lacks its ${purpose} key: restore it from a backup`);
    return found.map(({ version, wrapped }) => unwrapKey(masterKey, purpose, version, wrapped)) as [
      Buffer,
      ...Buffer[],
    ];
  };
  const [[sealing], [log], [row_mac]] = [versionsOf('sealing'), versionsOf('log'), versionsOf('row_mac')];
  return {
    keys: { pepper: versionsOf('pepper'), sealing, log, row_mac },
    preparing: rows.find(({ state }) => state === 'preparing')?.version ?? null,
  };
}
