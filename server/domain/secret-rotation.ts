/** Secret rotation: whoever has a rotation policy is told when its secret is due; one that is overdue expires if the policy says so. */
import { and, asc, eq, isNotNull, lte, sql } from 'drizzle-orm';
import { lockStatement } from '../../db/lock.ts';
import type { Rows } from '../../db/store.ts';
import type { SecretOwnerKind } from '../../db/tables/secrets.ts';
import type { Caller, Deps } from '../deps.ts';
import { change, type NewEvent } from './events.ts';
import type { JobCursor, JobStep } from './jobs.ts';
import { AHEAD_DAYS, AHEAD_MS_MAX, DAY_MS, eachByItself, type Notice, noteOnce, unsaid } from './notices.ts';
import { expireSecrets } from './rotation.ts';
import { atDeadlineOf } from './rotation-policies.ts';
import { isLastAdmin, lockSecretKeys } from './secret-keys.ts';
import { hasExpired, secretKeyMac, secretMac } from './secrets.ts';

const ROTATION: Caller = {
  principal: { kind: 'system', id: 'secret-rotation' },
  requestId: 'secret-rotation',
};

/** How long after a deadline, or the last time, it is said again. */
const AGAIN_MS = 7 * DAY_MS;

/** Secrets looked at in one step, in a good millisecond; of most everything was said before. */
const BATCH = 30;

/**
 * One step of a pass over all secrets that are due within 7 days or overdue, along their deadlines. One that nothing can
 * be done about keeps no other from it.
 */
export async function enforceRotationPolicies(deps: Deps, cursor: JobCursor | null): Promise<JobStep> {
  const rows = await nextSecrets(deps, cursor as Position | null);
  const due = rows.flatMap((row) => dueOf(deps, row) ?? []);
  const announcing = due.filter(({ action }) => action === 'announce');
  const others = due.filter(({ action }) => action !== 'announce');
  const todo = [...others, ...(await unsaid(deps.store.read, announcing))];
  const { count, errors } = await eachByItself(todo, (each) => settle(deps, each));
  const last = rows.at(-1);
  const done = last === undefined || rows.length < BATCH;
  return { done, cursor: done ? null : { at: last.rotateBy, id: last.id }, count, errors };
}

/** Client secrets of OAuth applications have no policy, and are never due. */
type RotatingKind = Exclude<SecretOwnerKind, 'oauth_application'>;

type Position = { at: number; id: string };

function nextSecrets({ store, now }: Pick<Deps, 'store' | 'now'>, after: Position | null) {
  const { secrets: s } = store.read.tables;
  return secretsWithOwners(store.read)
    .where(
      and(
        sql`(${s.rotate_by}, ${s.id}) > (${after?.at ?? 0}, ${after?.id ?? ''})`,
        lte(s.rotate_by, now() + AHEAD_MS_MAX),
        // The index has this condition, and SQLite only sees that it is met where it is written out.
        isNotNull(s.rotate_by),
      ),
    )
    .orderBy(asc(s.rotate_by), asc(s.id))
    .limit(BATCH);
}

/** Secrets, each beside the one owner it has. */
function secretsWithOwners({ db, tables }: Rows) {
  const { secrets: s, machines: m, apiKeys: a, subjects: u, secretKeys: k } = tables;
  return db
    .select({
      id: s.id,
      owner_kind: s.owner_kind,
      owner_id: s.owner_id,
      hash: s.hash,
      mac: s.mac,
      expires_at: s.expires_at,
      revoked_at: s.revoked_at,
      createdAt: s.created_at,
      rotateBy: s.rotate_by,
      machine: { name: m.name, enabled: m.enabled, rotation_expires: m.rotation_expires },
      apiKey: {
        name: a.name,
        subject: a.subject,
        enabled: a.enabled,
        expires_at: a.expires_at,
        revoked_at: a.revoked_at,
        rotation_expires: a.rotation_expires,
      },
      subjectEnabled: u.enabled,
      secretKey: {
        id: k.id,
        name: k.name,
        role: k.role,
        expires_at: k.expires_at,
        revoked_at: k.revoked_at,
        allowed_cidrs: k.allowed_cidrs,
        mac: k.mac,
        rotation_expires: k.rotation_expires,
      },
    })
    .from(s)
    .leftJoin(m, and(eq(s.owner_kind, 'machine'), eq(m.id, s.owner_id)))
    .leftJoin(a, and(eq(s.owner_kind, 'api_key'), eq(a.id, s.owner_id)))
    .leftJoin(u, eq(u.id, a.subject))
    .leftJoin(k, and(eq(s.owner_kind, 'secret_key'), eq(k.id, s.owner_id)));
}

type SecretWithOwner = Awaited<ReturnType<typeof secretsWithOwners>>[number];

interface Owner {
  rotation_expires: boolean;
  /** Whether it was revoked or has expired: then there is nothing to rotate. */
  hasEnded: boolean;
  enabled: boolean;
  event: { objectId: string; subject?: string };
  /** What the event of an expiry says of it. */
  names: { name: string; role?: string };
}

/** Null for a secret key that a writer to the database made up or changed: that is nobody's. */
function ownerOf(deps: Deps, row: SecretWithOwner): Owner | null {
  const { machine, apiKey, secretKey, owner_id: objectId } = row;
  const hasEnded = (owner: { revoked_at: number | null; expires_at: number | null }) =>
    owner.revoked_at !== null || hasExpired(owner.expires_at, deps.now());
  if (machine) {
    const { name, enabled, rotation_expires } = machine;
    return { rotation_expires, hasEnded: false, enabled, event: { objectId }, names: { name } };
  }
  if (apiKey) {
    const { name, subject, rotation_expires } = apiKey;
    const enabled = apiKey.enabled && row.subjectEnabled !== false;
    const event = { objectId, subject };
    return { rotation_expires, hasEnded: hasEnded(apiKey), enabled, event, names: { name } };
  }
  if (!secretKey?.mac.equals(secretKeyMac(deps, secretKey)) || !row.mac?.equals(secretMac(deps, row)))
    return null;
  const { name, role, rotation_expires } = secretKey;
  return {
    rotation_expires,
    hasEnded: hasEnded(secretKey),
    enabled: true,
    event: { objectId },
    names: { name, role },
  };
}

/** What is to be done about a secret now. */
interface Due extends Notice {
  /** `forget` that it has a deadline, `announce` it unless somebody did, or have the secret `expire`. */
  action: 'forget' | 'announce' | 'expire';
  row: SecretWithOwner & { owner_kind: RotatingKind; rotateBy: number };
  owner: Owner;
}

/** Of one that is disabled nothing is accepted: it is looked at again once it is enabled. A doubtful time ends nothing. */
function dueOf(deps: Deps, { rotateBy, ...rest }: SecretWithOwner): Due | null {
  const { owner_kind } = rest;
  const owner = ownerOf(deps, { rotateBy, ...rest });
  if (rotateBy === null || !owner || owner_kind === 'oauth_application') return null;
  const row = { ...rest, owner_kind, rotateBy };
  const now = deps.now();
  const due = { kind: 'secret', ownerId: row.id, notice: noticeOf(row, now) ?? '', row, owner } as const;
  // An older version beside this one leaves the deadline of what it replaces.
  const isReplaced = row.revoked_at !== null || row.expires_at !== null;
  if (owner.hasEnded || isReplaced) return deps.isTimeDoubtful() ? null : { ...due, action: 'forget' };
  if (!owner.enabled) return null;
  if (rotateBy <= now && owner.rotation_expires && !deps.isTimeDoubtful())
    return { ...due, action: 'expire' };
  return due.notice === '' ? null : { ...due, action: 'announce' };
}

/** The nearest that applies: who was asleep for a week is not told of a week. A secret that never had that long is not. */
function noticeOf({ createdAt, rotateBy }: Due['row'], now: number): string | null {
  if (rotateBy <= now) return `overdue ${Math.floor((now - rotateBy) / AGAIN_MS)} ${rotateBy}`;
  const days = AHEAD_DAYS.find((ahead) => rotateBy <= now + ahead * DAY_MS);
  return days === undefined || createdAt >= rotateBy - days * DAY_MS ? null : `due ${days}d ${rotateBy}`;
}

/**
 * Does what is due, unless it was rotated, or its owner changed, since it was read: then the next pass judges it. The last
 * admin key never expires so; it is complained of.
 */
function settle(
  deps: Deps,
  { action, row: { id, owner_kind: kind, owner_id: ownerId } }: Due,
): Promise<boolean> {
  const nothing = { result: false, event: null };
  return change(
    deps,
    ROTATION,
    async (tx) => {
      if (kind === 'secret_key' && action === 'expire') await lockSecretKeys(tx);
      await LOCKS[kind](tx, ownerId);
      const { secrets: s } = tx.tables;
      const [found] = await secretsWithOwners(tx).where(eq(s.id, id));
      const due = found && dueOf(deps, found);
      if (due?.action !== action) return nothing;
      if (action === 'forget') {
        await tx.db.update(s).set({ rotate_by: null }).where(eq(s.id, id));
        return nothing;
      }
      const mayExpire = kind !== 'secret_key' || !(await isLastAdmin(tx, deps, ownerId));
      if (action === 'expire' && mayExpire) {
        await expireSecrets(tx, deps, { kind, id: ownerId });
        return { result: true, event: expired(kind, due) };
      }
      if (!(await noteOnce(tx, deps, due))) return nothing;
      return { result: true, event: announcement(kind, due, deps.now()) };
    },
    action === 'expire' ? 'revocation' : 'minting',
  );
}

/** Whoever rotates its secret, changes its policy or ends it, waits; so does another process that comes to the same. */
const LOCKS = {
  machine: lockStatement('rotating_machine_lock', 'machines'),
  api_key: lockStatement('rotating_api_key_lock', 'apiKeys'),
  secret_key: lockStatement('rotating_secret_key_lock', 'secretKeys'),
};

const expired = (kind: RotatingKind, { row: { rotateBy }, owner }: Due): NewEvent => ({
  type: `${kind}.secret_expired`,
  ...owner.event,
  data: { ...owner.names, rotateBy },
});

const announcement = (kind: RotatingKind, { row: { rotateBy }, owner }: Due, now: number): NewEvent => ({
  type: `${kind}.rotation_due`,
  ...owner.event,
  data: {
    rotateBy,
    daysLeft: Math.max(0, Math.ceil((rotateBy - now) / DAY_MS)),
    isOverdue: rotateBy <= now,
    atDeadline: atDeadlineOf(owner),
  },
});
