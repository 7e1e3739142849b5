/** Secret keys: the management credentials of people and programs that administer this server. */
import { and, eq, isNull } from 'drizzle-orm';
import { z } from 'zod';
import { lockInstallation, lockStatement } from '../../db/lock.ts';
import type { Rows } from '../../db/store.ts';
import { PREFIXES } from '../crypto/format.ts';
import { startOf } from '../crypto/hashing.ts';
import { hexId } from '../crypto/ids.ts';
import type { Caller, Deps, Role } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { EventType } from './event-types.ts';
import { change } from './events.ts';
import { cidrs, expiryInput, expiryOf, name, secretKeyId } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { endSessionsOf } from './operator-sessions.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';
import { endPanelTokensOf } from './panel-tokens.ts';
import {
  cancelOverlap,
  completeOverlap,
  compromised,
  OWN_OVERLAP_SECONDS,
  overlapSeconds,
  type Rotated,
  rotateSecret,
  rotationOf,
  scheduleRotation,
} from './rotation.ts';
import {
  type RotationPolicy,
  rotateBysOf,
  rotationPolicy,
  rotationPolicyColumns,
  rotationPolicyOf,
} from './rotation-policies.ts';
import { hasExpired, issueSecret, revokeSecrets, secretKeyMac, secretMac, startsOf } from './secrets.ts';

export interface SecretKey {
  id: string;
  name: string;
  role: Role;
  /** The first characters of its value, for people to recognise it by. */
  start: string;
  state: 'live' | 'expired' | 'revoked';
  /** CIDR blocks it may be used from; null for anywhere. */
  allowedCidrs: string[] | null;
  /** How old its value may grow; null for as old as it likes. */
  rotation: RotationPolicy | null;
  /** When its newest value is due for rotation; null where none is, and where the key expires before. */
  rotateBy: number | null;
  expiresAt: number | null;
  revokedAt: number | null;
  lastUsedAt: number | null;
  createdAt: number;
}

type SecretKeyRow = Rows['tables']['secretKeys']['$inferSelect'];

/** contract.md, secret keys. */
const ROLES = ['admin', 'issuer', 'interaction', 'read', 'verify'] as const satisfies readonly Role[];

export const createSecretKeyInput = z.strictObject({
  name: name.meta({ positional: true }),
  role: z.enum(ROLES),
  /** Where it may be used from; null for anywhere. */
  allowedCidrs: cidrs.nullish(),
  /** How old its value may grow; null for as old as it likes. */
  rotation: rotationPolicy.nullish(),
  ...expiryInput,
  ...idempotencyInput,
});

/** Creates a secret key; its value is answered this once. */
export async function createSecretKey(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createSecretKeyInput>,
): Promise<SecretKey & { secret?: string }> {
  return create(deps, caller, { procedure: 'secretKeys.create', input }, async (tx) => {
    const now = deps.now();
    const row = newRow(deps, input, now);
    await tx.db.insert(tx.tables.secretKeys).values(row);
    const secret = await issueSecret(tx, deps, {
      owner: { kind: 'secret_key', id: row.id },
      prefix: PREFIXES.secretKey,
      terms: row,
    });
    const rotateBys = await rotateBysOf(tx, 'secret_key', [row]);
    return {
      result: { ...toSecretKey(row, startOf(secret, PREFIXES.secretKey), now, rotateBys), secret },
      event: { type: 'secret_key.created', ...eventOf(row) },
    };
  });
}

function newRow(deps: Deps, input: z.output<typeof createSecretKeyInput>, now: number): SecretKeyRow {
  const judged = {
    id: hexId('sk_', now),
    role: input.role,
    expires_at: expiryOf('secret key', now, input),
    revoked_at: null,
    allowed_cidrs: input.allowedCidrs ?? null,
  };
  return {
    ...judged,
    name: input.name,
    bootstrap: false,
    ...rotationPolicyColumns(input.rotation ?? null),
    last_used_at: null,
    created_at: now,
    mac: secretKeyMac(deps, judged),
  };
}

export const listSecretKeysInput = z.strictObject(pageInput);

/** Secret keys, the newest first. */
export async function listSecretKeys(
  deps: Deps,
  input: z.output<typeof listSecretKeysInput>,
): Promise<Page<SecretKey>> {
  const { db, tables } = deps.store.read;
  const { secretKeys } = tables;
  const rows = await db
    .select()
    .from(secretKeys)
    .where(afterCursor(input.cursor, secretKeys.created_at, secretKeys.id, true))
    .orderBy(...orderOf(secretKeys.created_at, secretKeys.id, true))
    .limit(input.limit + 1)
    .offset(input.offset);
  const starts = await startsOf(
    deps.store.read,
    'secret_key',
    rows.map((row) => row.id),
  );
  const rotateBys = await rotateBysOf(deps.store.read, 'secret_key', rows);
  const now = deps.now();
  return toPage(
    rows,
    input.limit,
    (row) => [row.created_at, row.id],
    (row) => toSecretKey(row, starts.get(row.id) ?? '', now, rotateBys),
  );
}

export const updateSecretKeyInput = z.strictObject({
  id: secretKeyId.meta({ positional: true }),
  name: name.optional(),
  rotation: rotationPolicy.nullish(),
});

const UPDATABLE = ['name', 'rotation'] as const satisfies (keyof SecretKey)[];

/** Changes what it is told to; what already is so leaves no event. Throws `not_found`, `already_revoked`. */
export async function updateSecretKey(
  deps: Deps,
  caller: Caller,
  { id, ...changes }: z.output<typeof updateSecretKeyInput>,
): Promise<SecretKey> {
  return change(deps, caller, async (tx) => {
    const before = await lockUnrevoked(tx, id);
    const row: SecretKeyRow = {
      ...before,
      name: changes.name ?? before.name,
      ...(changes.rotation !== undefined && rotationPolicyColumns(changes.rotation)),
    };
    const [was, is] = [toSecretKey(before, '', 0), toSecretKey(row, '', 0)];
    const changed = UPDATABLE.filter((field) => JSON.stringify(was[field]) !== JSON.stringify(is[field]));
    if (changed.length === 0) return { result: await shown(tx, deps, before), event: null };
    const { name, rotation_period_seconds, rotation_expires } = row;
    const { secretKeys } = tx.tables;
    await tx.db
      .update(secretKeys)
      .set({ name, rotation_period_seconds, rotation_expires })
      .where(eq(secretKeys.id, id));
    if (changed.includes('rotation')) await scheduleRotation(tx, deps, { kind: 'secret_key', id }, row);
    const { data, ...event } = eventOf(row);
    return {
      result: await shown(tx, deps, row),
      event: { type: 'secret_key.updated', ...event, data: { ...data, changed } },
    };
  });
}

export const secretKeyIdInput = z.strictObject({ id: secretKeyId.meta({ positional: true }) });

/**
 * Revokes for good, the caller's own key too; a revoked one is answered as it stands, without a second event. Throws
 * `last_admin_key` for the last live admin key.
 */
export async function revokeSecretKey(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof secretKeyIdInput>,
): Promise<SecretKey> {
  return change(
    deps,
    caller,
    async (tx) => {
      const now = deps.now();
      await lockSecretKeys(tx);
      const { secretKeys } = tx.tables;
      const [before] = await tx.db.select().from(secretKeys).where(eq(secretKeys.id, id));
      if (!before) throw secretKeyNotFound(id);
      const start = (await startsOf(tx, 'secret_key', [id])).get(id) ?? '';
      if (before.revoked_at !== null) return { result: toSecretKey(before, start, now), event: null };
      await assertAnotherAdmin(tx, deps, before);
      const row = { ...before, revoked_at: now };
      const mac = secretKeyMac(deps, row);
      await tx.db.update(secretKeys).set({ revoked_at: now, mac }).where(eq(secretKeys.id, id));
      await revokeSecrets(tx, deps, { kind: 'secret_key', id });
      await endSessionsOf(tx, id);
      await endPanelTokensOf(tx, id);
      return {
        result: toSecretKey(row, start, now),
        event: { type: 'secret_key.revoked', ...eventOf(row) },
      };
    },
    'revocation',
  );
}

export const rotateSecretKeyInput = z.strictObject({
  id: secretKeyId.meta({ positional: true }),
  /** Without it, an hour: an admin whose answer was lost can still cancel with the value it has. */
  overlapSeconds: overlapSeconds.optional(),
  compromised,
});

/** Gives a secret key a new value; all else stays. Throws `not_found`, `already_revoked`, `rotation_in_progress`. */
export async function rotateSecretKey(
  deps: Deps,
  caller: Caller,
  { id, ...given }: z.output<typeof rotateSecretKeyInput>,
): Promise<SecretKey & Rotated> {
  const options = rotationOf(given, OWN_OVERLAP_SECONDS);
  return change(
    deps,
    caller,
    async (tx) => {
      const row = await lockUnrevoked(tx, id);
      const owner = { kind: 'secret_key' as const, id };
      const rotated = await rotateSecret(
        tx,
        deps,
        { owner, prefix: PREFIXES.secretKey, terms: row },
        options,
      );
      const { compromised } = options;
      // Whoever had the value may have signed in with it.
      if (compromised) {
        await endSessionsOf(tx, id);
        await endPanelTokensOf(tx, id);
      }
      const { previousExpiresAt } = rotated;
      const { data, ...event } = eventOf(row);
      return {
        result: { ...(await shown(tx, deps, row)), ...rotated },
        event: {
          type: 'secret_key.secret_rotated',
          ...event,
          data: { ...data, compromised, previousExpiresAt },
        },
      };
    },
    'revocation',
  );
}

/** Revokes the new value of an overlap; the old one stays. */
export async function cancelSecretKeyRotation(deps: Deps, caller: Caller, id: string): Promise<SecretKey> {
  return endOverlap(deps, caller, id, cancelOverlap, 'secret_key.secret_rotation_cancelled');
}

/** Ends the old value of an overlap now. */
export async function completeSecretKeyRotation(deps: Deps, caller: Caller, id: string): Promise<SecretKey> {
  return endOverlap(deps, caller, id, completeOverlap, 'secret_key.secret_rotation_completed');
}

function endOverlap(
  deps: Deps,
  caller: Caller,
  id: string,
  end: typeof cancelOverlap,
  type: EventType,
): Promise<SecretKey> {
  return change(
    deps,
    caller,
    async (tx) => {
      const row = await lockUnrevoked(tx, id);
      await end(tx, deps, { kind: 'secret_key', id }, row);
      return { result: await shown(tx, deps, row), event: { type, ...eventOf(row) } };
    },
    'revocation',
  );
}

/** Reads a key whose secrets this transaction is about to change; others that want to, wait. */
async function lockUnrevoked(tx: Rows, id: string): Promise<SecretKeyRow> {
  const row = await readLocked(tx, id);
  if (!row) throw secretKeyNotFound(id);
  if (row.revoked_at === null) return row;
  throw new CountersignError(
    'already_revoked',
    `Cannot change secret key '${id}': it was revoked at ${row.revoked_at}`,
  );
}

const readLocked = lockStatement('secret_key_lock', 'secretKeys');

async function shown(tx: Rows, deps: Deps, row: SecretKeyRow): Promise<SecretKey> {
  const starts = await startsOf(tx, 'secret_key', [row.id]);
  const rotateBys = await rotateBysOf(tx, 'secret_key', [row]);
  return toSecretKey(row, starts.get(row.id) ?? '', deps.now(), rotateBys);
}

const secretKeyNotFound = (id: string) =>
  new CountersignError('not_found', `No secret key has the id '${id}'`);

/**
 * Whether a key is the last admin's is a question about all of them, so those who ask in order to end one take turns:
 * on the installation's one row. To be locked before any key.
 */
export async function lockSecretKeys(tx: Rows): Promise<void> {
  await lockInstallation(tx, 1);
}

async function assertAnotherAdmin(tx: Rows, deps: Deps, key: SecretKeyRow) {
  if (!(await isLastAdmin(tx, deps, key.id))) return;
  throw new CountersignError(
    'last_admin_key',
    `Cannot revoke secret key '${key.id}': wanted another admin key that does not expire, found none`,
  );
}

/** Whether nobody could be counted on to administer this server without this key. */
export async function isLastAdmin(tx: Rows, deps: Deps, id: string): Promise<boolean> {
  const admins = await lastingAdmins(tx, deps);
  return admins.length === 1 && admins[0]?.id === id;
}

/**
 * The admin keys that can be counted on: live, with a value that is accepted, and never to expire, for when the others
 * have, nobody could make one. Rows that a writer to the database promoted are nobody's, and do not count.
 */
async function lastingAdmins({ db, tables }: Rows, deps: Deps): Promise<SecretKeyRow[]> {
  const { secretKeys: k, secrets: s } = tables;
  const rows = await db
    .select({ key: k, secret: s })
    .from(k)
    .innerJoin(s, and(eq(s.owner_kind, 'secret_key'), eq(s.owner_id, k.id)))
    .where(
      and(
        eq(k.role, 'admin'),
        ...[k.revoked_at, k.expires_at, s.revoked_at, s.expires_at].map((ended) => isNull(ended)),
      ),
    );
  return rows
    .filter(
      ({ key, secret }) =>
        key.mac.equals(secretKeyMac(deps, key)) && secret.mac?.equals(secretMac(deps, secret)),
    )
    .map(({ key }) => key);
}

/**
 * Whether the file with the first secret key is still needed: as long as no other admin key lasts. One that expires does not
 * replace it (docs/decisions/0010).
 */
export async function shouldKeepFirstSecretKeyFile(deps: Deps): Promise<boolean> {
  const admins = await lastingAdmins(deps.store.read, deps);
  return admins.every((admin) => admin.bootstrap) && admins.length > 0;
}

const eventOf = (row: SecretKeyRow) => ({ objectId: row.id, data: { name: row.name, role: row.role } });

function stateOf(row: SecretKeyRow, now: number): SecretKey['state'] {
  if (row.revoked_at !== null) return 'revoked';
  return hasExpired(row.expires_at, now) ? 'expired' : 'live';
}

function toSecretKey(
  row: SecretKeyRow,
  start: string,
  now: number,
  rotateBys?: ReadonlyMap<string, number>,
): SecretKey {
  return {
    id: row.id,
    name: row.name,
    role: row.role,
    start,
    state: stateOf(row, now),
    allowedCidrs: row.allowed_cidrs,
    rotation: rotationPolicyOf(row),
    rotateBy: rotateBys?.get(row.id) ?? null,
    expiresAt: row.expires_at,
    revokedAt: row.revoked_at,
    lastUsedAt: row.last_used_at,
    createdAt: row.created_at,
  };
}
