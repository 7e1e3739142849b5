/** What a database is set up with once: its epoch, the wrapped keys, the log's head, the first keys. */
import { eq } from 'drizzle-orm';
import { schemaVersion } from '../../db/migrations.ts';
import { isMissingTable, type Rows, type Store } from '../../db/store.ts';
import { PREFIXES } from '../crypto/format.ts';
import { newValue } from '../crypto/hashing.ts';
import { hexId, sortableId } from '../crypto/ids.ts';
import { generateSigningKey, type SigningAlg } from '../crypto/jwt.ts';
import {
  createKeyring,
  KEY_PURPOSES,
  type KeyPurpose,
  type Keyring,
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

/** Opens the installation, setting it up if there is none. Call it within `store.exclusively`, after migrating. */
export async function openInstallation(store: Store, options: InstallationOptions): Promise<Installation> {
  const { db, tables } = store.read;
  const [row] = await db.select().from(tables.installation);
  if (!row) return setUp(store, options);
  if (row.oldest_binary > schemaVersion()) {
    throw new InstallationError(
      `This database bears binaries of schema version ${row.oldest_binary} and newer; this one is ${schemaVersion()}. Start a newer version`,
    );
  }
  assertFits(options.masterKey, row);
  return {
    keyring: await readKeyring(store.read, options.masterKey),
    epoch: row.epoch,
    firstSecretKey: null,
  };
}

/**
 * Whether the database was set up before, so that a missing master key means a lost one and not a first start. Asked
 * before migrating, so a database without tables is one that was not.
 */
export async function isInstalled(store: Store): Promise<boolean> {
  const { db, tables } = store.read;
  try {
    return (await db.select({ id: tables.installation.id }).from(tables.installation)).length > 0;
  } catch (error) {
    if (isMissingTable(error)) return false;
    throw error;
  }
}

/** Throws unless the database was set up with this master key. Asked before migrating: a refused process changes nothing. */
export async function assertMasterKey(store: Store, masterKey: Buffer): Promise<void> {
  const { db, tables } = store.read;
  const { epoch, master_key_check } = tables.installation;
  const [row] = await db.select({ epoch, master_key_check }).from(tables.installation);
  if (row) assertFits(masterKey, row);
}

function assertFits(masterKey: Buffer, row: { epoch: string; master_key_check: Buffer }) {
  if (masterKeyCheck(masterKey, row.epoch).equals(row.master_key_check)) return;
  throw new InstallationError(
    'The master key is not the one this database was set up with. Nothing was changed. Give the right one in COUNTERSIGN_MASTER_KEY, COUNTERSIGN_MASTER_KEY_FILE or the data directory',
  );
}

async function setUp(store: Store, options: InstallationOptions): Promise<Installation> {
  const now = options.now();
  const epoch = newKey().toString('hex').slice(0, 16);
  const keys = Object.fromEntries(KEY_PURPOSES.map((purpose) => [purpose, newKey()])) as Record<
    KeyPurpose,
    Buffer
  >;
  const keyring = createKeyring(keys, 1);
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
      const wrapped = wrapKey(options.masterKey, purpose, 1, keys[purpose]);
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
  const row = { id: hexId('sk_', now), role: 'admin' as const, expires_at: null, revoked_at: null };
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

async function readKeyring({ db, tables }: Rows, masterKey: Buffer): Promise<Keyring> {
  const keys = {} as Record<KeyPurpose, Buffer>;
  for (const purpose of KEY_PURPOSES) {
    const [row] = await db.select().from(tables.wrappedKeys).where(eq(tables.wrappedKeys.purpose, purpose));
    if (!row) throw new InstallationError(`The database lacks its ${purpose} key: restore it from a backup`);
    keys[purpose] = unwrapKey(masterKey, purpose, row.version, row.wrapped);
  }
  return createKeyring(keys, 1);
}
