/** Secrets: the hashes of values people hold, and who is calling when one is presented. */
import {
  and,
  asc,
  eq,
  gt,
  inArray,
  isNull,
  or,
  type Placeholder,
  placeholder,
  type SQL,
  sql,
} from 'drizzle-orm';
import { LRUCache } from 'lru-cache';
import { flatStatement } from '../../db/statement.ts';
import type { Db, Rows } from '../../db/store.ts';
import type { SecretOwnerKind } from '../../db/tables/secrets.ts';
import { PREFIXES, parseValue } from '../crypto/format.ts';
import { newValue, rowMac, startOf } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Keyring } from '../crypto/keyring.ts';
import type { Deps, Principal, Role } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { isWithin } from './addresses.ts';
import { type RotationTerms, rotateByOf } from './rotation-policies.ts';

export type SecretRow = Rows['tables']['secrets']['$inferSelect'];
type SecretKeyRow = Rows['tables']['secretKeys']['$inferSelect'];

type Hasher = Pick<Deps, 'keyring' | 'now'>;

export interface NewSecret {
  owner: { kind: SecretOwnerKind; id: string };
  prefix: string;
  terms: RotationTerms;
}

/** Makes a value, stores its hash as a secret of its owner, and answers the value: nothing can yield it again. */
export async function issueSecret(
  tx: Rows,
  deps: Hasher,
  { owner, prefix, terms }: NewSecret,
): Promise<string> {
  const { value, start } = newValue(prefix);
  await insertSecret(tx, deps, { owner, value, start, terms });
  return value;
}

/** Stores the hash of a value that was chosen elsewhere; its owner is new, and has no rotation policy. */
export async function installSecret(
  tx: Rows,
  deps: Hasher,
  owner: NewSecret['owner'],
  value: string,
  prefix: string,
) {
  const terms = { rotation_period_seconds: null, expires_at: null };
  await insertSecret(tx, deps, { owner, value, start: startOf(value, prefix), terms });
}

/** Stores the hash of a value that was made elsewhere and is not known here. Throws `already_exists` where it is somebody's. */
export async function installHash(
  tx: Rows,
  deps: Hasher,
  { owner, hash, start }: Pick<NewSecret, 'owner'> & { hash: Buffer; start: string },
) {
  const now = deps.now();
  const row = {
    id: sortableId('sec_', now),
    owner_kind: owner.kind,
    owner_id: owner.id,
    hash,
    pepper_version: deps.keyring.pepperVersion,
    start,
    mac: null,
    created_at: now,
    expires_at: null,
    revoked_at: null,
    rotate_by: null,
  };
  const inserted = await tx.db.insert(tx.tables.secrets).values(row).onConflictDoNothing().returning();
  if (inserted.length > 0) return;
  throw new CountersignError(
    'already_exists',
    "Cannot import: 'hash' must be of a value that is nobody else's",
    {
      field: 'hash',
    },
  );
}

async function insertSecret(
  tx: Rows,
  deps: Hasher,
  secret: Pick<NewSecret, 'owner' | 'terms'> & { value: string; start: string },
) {
  const now = deps.now();
  const row = {
    id: sortableId('sec_', now),
    owner_kind: secret.owner.kind,
    owner_id: secret.owner.id,
    hash: deps.keyring.hash(secret.value),
    pepper_version: deps.keyring.pepperVersion,
    start: secret.start,
    created_at: now,
    expires_at: null,
    revoked_at: null,
    rotate_by: rotateByOf(secret.terms, now),
  };
  const mac = row.owner_kind === 'secret_key' ? secretMac(deps, row) : null;
  await tx.db.insert(tx.tables.secrets).values({ ...row, mac });
}

/** Deletes every secret of an owner that is itself being deleted. */
export async function deleteSecrets(tx: Rows, owner: NewSecret['owner']) {
  const { secrets } = tx.tables;
  await tx.db.delete(secrets).where(and(eq(secrets.owner_kind, owner.kind), eq(secrets.owner_id, owner.id)));
}

/** Revokes every secret of an owner; their HMACs, where they have one, cover that. */
export async function revokeSecrets(tx: Rows, deps: Hasher, owner: NewSecret['owner']) {
  const { secrets } = tx.tables;
  const ofOwner = and(eq(secrets.owner_kind, owner.kind), eq(secrets.owner_id, owner.id));
  for (const row of await tx.db
    .select()
    .from(secrets)
    .where(and(ofOwner, isNull(secrets.revoked_at)))) {
    await saveSecret(tx, deps, { ...row, revoked_at: deps.now(), rotate_by: null });
  }
}

/** Writes until when a secret is accepted, with the HMAC over that, and when it is due for rotation. */
export async function saveSecret(tx: Rows, deps: Hasher, row: SecretRow) {
  const { secrets } = tx.tables;
  const { id, expires_at, revoked_at, rotate_by } = row;
  const mac = row.owner_kind === 'secret_key' ? secretMac(deps, row) : null;
  await tx.db.update(secrets).set({ expires_at, revoked_at, rotate_by, mac }).where(eq(secrets.id, id));
}

/** The secrets of an owner that are accepted now. One that a writer to the database changed is none of them. */
export async function liveSecrets(tx: Rows, deps: Hasher, owner: NewSecret['owner']): Promise<SecretRow[]> {
  const { secrets } = tx.tables;
  const now = deps.now();
  const rows = await tx.db
    .select()
    .from(secrets)
    .where(
      and(
        eq(secrets.owner_kind, owner.kind),
        eq(secrets.owner_id, owner.id),
        isNull(secrets.revoked_at),
        or(isNull(secrets.expires_at), gt(secrets.expires_at, now)),
      ),
    );
  return rows.filter((row) => row.owner_kind !== 'secret_key' || row.mac?.equals(secretMac(deps, row)));
}

/** The hash by which an owner is read as if its newest value were presented; null for one without any that is accepted. */
export async function newestHashOf(deps: Deps, owner: NewSecret['owner']): Promise<Buffer | null> {
  const live = await liveSecrets(deps.store.read, deps, owner);
  return (live.find((row) => row.expires_at === null) ?? live[0])?.hash ?? null;
}

/** Whose secret a value is, or null. Says nothing of whether it is still accepted. */
export async function findOwner(deps: Deps, value: string): Promise<NewSecret['owner'] | null> {
  const { db, tables } = deps.store.read;
  const [row] = await db
    .select({ kind: tables.secrets.owner_kind, id: tables.secrets.owner_id })
    .from(tables.secrets)
    .where(eq(tables.secrets.hash, deps.keyring.hash(value)));
  return row ?? null;
}

/** The first characters of each owner's newest value, by owner. One that was taken back is newest of nothing. */
export async function startsOf(
  rows: Rows,
  kind: SecretOwnerKind,
  ownerIds: readonly string[],
): Promise<Map<string, string>> {
  const [ownerId, ...others] = ownerIds;
  if (ownerId === undefined) return new Map();
  const { db, tables } = rows;
  const found =
    others.length === 0
      ? await readStarts(rows, { kind, ownerId })
      : await startsIn(db, tables, kind, inArray(tables.secrets.owner_id, [...ownerIds]));
  return new Map(found.map(({ ownerId, start }) => [ownerId, start]));
}

function startsIn(db: Db, { secrets }: Rows['tables'], kind: SecretOwnerKind | Placeholder, which: SQL) {
  return db
    .select({ ownerId: secrets.owner_id, start: secrets.start })
    .from(secrets)
    .where(and(eq(secrets.owner_kind, kind), which))
    .orderBy(
      sql`case when ${secrets.expires_at} is null then 1 else 0 end`,
      sql`case when ${secrets.revoked_at} is null then 1 else 0 end`,
      asc(secrets.revoked_at),
      asc(secrets.created_at),
      asc(secrets.id),
    );
}

const readStarts = flatStatement<
  { kind: SecretOwnerKind; ownerId: string },
  { ownerId: string; start: string }
>('secret_starts_of_owner', (db, tables) => {
  const { secrets } = tables;
  const fields = { ownerId: secrets.owner_id, start: secrets.start };
  const ofOwner = eq(secrets.owner_id, placeholder('ownerId'));
  return { fields, query: startsIn(db, tables, placeholder('kind'), ofOwner) };
});

type MacColumns = Pick<SecretRow, 'id' | 'owner_kind' | 'owner_id' | 'hash' | 'expires_at' | 'revoked_at'>;

export function secretMac(deps: Pick<Deps, 'keyring'>, row: MacColumns): Buffer {
  const { id, owner_kind, owner_id, hash, expires_at, revoked_at } = row;
  return rowMac(deps.keyring.rowMac, [
    'secrets',
    id,
    owner_kind,
    owner_id,
    hash.toString('hex'),
    expires_at,
    revoked_at,
  ]);
}

type SecretKeyMacColumns = Pick<SecretKeyRow, 'id' | 'role' | 'expires_at' | 'revoked_at' | 'allowed_cidrs'>;

export function secretKeyMac(deps: Pick<Deps, 'keyring'>, row: SecretKeyMacColumns): Buffer {
  const columns = ['secret_keys', row.id, row.role, row.expires_at, row.revoked_at];
  // Without blocks the HMAC is what it was before there were any: keys of then are still genuine.
  return rowMac(
    deps.keyring.rowMac,
    row.allowed_cidrs === null ? columns : [...columns, JSON.stringify(row.allowed_cidrs)],
  );
}

/** The columns by which a caller is judged: its secret, and the secret key or machine that owns it. */
export function callerColumns(tables: {
  secrets: Rows['tables']['secrets'];
  secretKeys: Rows['tables']['secretKeys'];
  machines: Rows['tables']['machines'];
}) {
  const { secrets: s, secretKeys: k, machines: m } = tables;
  return {
    secretId: s.id,
    ownerKind: s.owner_kind,
    ownerId: s.owner_id,
    secretHash: s.hash,
    secretMac: s.mac,
    secretExpiresAt: s.expires_at,
    secretRevokedAt: s.revoked_at,
    keyRole: k.role,
    keyExpiresAt: k.expires_at,
    keyRevokedAt: k.revoked_at,
    keyMac: k.mac,
    keyCidrs: k.allowed_cidrs,
    machineId: m.id,
    machineEnabled: m.enabled,
    machineMayVerify: m.may_verify,
    machineCidrs: m.allowed_cidrs,
  };
}

export interface CallerRow {
  secretId: string;
  ownerKind: SecretOwnerKind;
  ownerId: string;
  secretHash: Buffer;
  secretMac: Buffer | null;
  secretExpiresAt: number | null;
  secretRevokedAt: number | null;
  keyRole: Role | null;
  keyExpiresAt: number | null;
  keyRevokedAt: number | null;
  keyMac: Buffer | null;
  keyCidrs: string[] | null;
  machineId: string | null;
  machineEnabled: boolean | null;
  machineMayVerify: boolean | null;
  machineCidrs: string[] | null;
}

const readCaller = flatStatement<{ hash: Buffer }, CallerRow>('read_caller', (db, tables) => {
  const { secrets, secretKeys, machines } = tables;
  const fields = callerColumns(tables);
  const query = db
    .select(fields)
    .from(secrets)
    .leftJoin(secretKeys, and(eq(secrets.owner_kind, 'secret_key'), eq(secretKeys.id, secrets.owner_id)))
    .leftJoin(machines, and(eq(secrets.owner_kind, 'machine'), eq(machines.id, secrets.owner_id)))
    .where(eq(secrets.hash, placeholder('hash')));
  return { fields, query };
});

/** The address a request comes from; asked for only where somebody is bound to addresses. */
export type Address = () => string;

/** What is presented as a caller's credential, or null for nothing, and from where. */
export interface Presented {
  value: string | null;
  /** Who calls by a session and presents no value: the secret key that it was begun with. */
  signedIn?: Principal;
  address: Address;
}

/**
 * Who holds the value presented as a caller's credential, or null: unknown, revoked, expired, disabled and presented
 * from elsewhere look alike.
 */
export async function findCaller(deps: Deps, value: string, address: Address): Promise<Principal | null> {
  if (!(await couldBeCaller(deps, value))) return null;
  const [row] = await readCaller(deps.store.read, { hash: deps.keyring.hash(value) });
  return row ? judgeCaller(deps, row, address) : null;
}

/**
 * Whether a value has the shape of a caller's credential, so that reading is worth it. A key that an operator chose
 * (`COUNTERSIGN_BOOTSTRAP_KEY`) is exempt from the checksum, and so are machine secrets of a shape that was imported.
 */
export function couldBeCaller(deps: Pick<Deps, 'shapes'>, value: string): boolean | Promise<boolean> {
  const prefix = parseValue(value)?.prefix;
  if (prefix === PREFIXES.machineSecretKey || prefix === PREFIXES.secretKey) return true;
  if (BOOTSTRAP_KEY.test(value)) return true;
  return deps.shapes.find(value, 'machine').then((shaped) => shaped !== null);
}

/** contract.md, environment: `sk_` and at least 40 more characters. */
export const BOOTSTRAP_KEY = /^sk_[A-Za-z0-9_]{40,512}$/;

/** Starts from "nobody". A row whose HMAC does not fit was written by somebody else, and is nobody's. */
export function judgeCaller(deps: Deps, row: CallerRow, address: Address): Principal | null {
  const now = deps.now();
  if (row.secretRevokedAt !== null || hasExpired(row.secretExpiresAt, now)) return null;
  if (row.ownerKind === 'machine') {
    if (row.machineId === null || !row.machineEnabled) return null;
    if (row.machineCidrs && !isWithin(address(), row.machineCidrs)) return null;
    return {
      kind: 'machine',
      id: row.machineId,
      secretId: row.secretId,
      mayVerify: row.machineMayVerify === true,
    };
  }
  if (row.ownerKind !== 'secret_key' || row.keyRole === null) return null;
  if (row.keyRevokedAt !== null || hasExpired(row.keyExpiresAt, now)) return null;
  if (row.keyCidrs && !isWithin(address(), row.keyCidrs)) return null;
  return macsFit(deps, row, row.keyRole) ? { kind: 'secret_key', id: row.ownerId, role: row.keyRole } : null;
}

export const hasExpired = (expiresAt: number | null, now: number) => expiresAt !== null && expiresAt <= now;

/** As many callers as are likely to call one process in turn. */
const GENUINE_ROWS_MAX = 10_000;

/** Rows whose HMACs were found to fit, by secret: the same row need not be judged again. */
const genuineRows = new WeakMap<Keyring, LRUCache<string, CallerRow>>();

function macsFit({ keyring }: Deps, row: CallerRow, role: Role): boolean {
  const known = genuineRows.get(keyring) ?? new LRUCache<string, CallerRow>({ max: GENUINE_ROWS_MAX });
  genuineRows.set(keyring, known);
  const judged = known.get(row.secretId);
  if (judged && isSameKeyRow(judged, row)) return true;
  const secret = {
    id: row.secretId,
    owner_kind: row.ownerKind,
    owner_id: row.ownerId,
    hash: row.secretHash,
    expires_at: row.secretExpiresAt,
    revoked_at: row.secretRevokedAt,
  };
  const key = {
    id: row.ownerId,
    role,
    expires_at: row.keyExpiresAt,
    revoked_at: row.keyRevokedAt,
    allowed_cidrs: row.keyCidrs,
  };
  const fit =
    row.secretMac?.equals(secretMac({ keyring }, secret)) === true &&
    row.keyMac?.equals(secretKeyMac({ keyring }, key)) === true;
  if (fit) known.set(row.secretId, row);
  return fit;
}

/** Whether two rows agree in every column that goes into the HMACs of a secret key and its secret, and in the HMACs. */
function isSameKeyRow(one: CallerRow, other: CallerRow): boolean {
  return (
    one.secretId === other.secretId &&
    one.ownerKind === other.ownerKind &&
    one.ownerId === other.ownerId &&
    one.secretExpiresAt === other.secretExpiresAt &&
    one.secretRevokedAt === other.secretRevokedAt &&
    one.keyRole === other.keyRole &&
    one.keyExpiresAt === other.keyExpiresAt &&
    one.keyRevokedAt === other.keyRevokedAt &&
    JSON.stringify(one.keyCidrs) === JSON.stringify(other.keyCidrs) &&
    one.secretHash.equals(other.secretHash) &&
    isSameMac(one.secretMac, other.secretMac) &&
    isSameMac(one.keyMac, other.keyMac)
  );
}

const isSameMac = (one: Buffer | null, other: Buffer | null) =>
  one !== null && other !== null && one.equals(other);
