/** Expiry: API keys and secret keys are announced before they expire and when they have, each once for each instant. */
import { and, asc, eq, inArray, isNotNull, lt, lte, type SQL, sql } from 'drizzle-orm';
import { forShare } from '../../db/kit.ts';
import { type Rows, storeFailure } from '../../db/store.ts';
import type { Caller, Deps } from '../deps.ts';
import type { EventType } from './event-types.ts';
import { change } from './events.ts';
import type { JobCursor, JobStep } from './jobs.ts';
import { secretKeyMac } from './secrets.ts';

const SWEEP: Caller = { principal: { kind: 'system', id: 'expiry-sweep' }, requestId: 'expiry-sweep' };

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** How long before it expires a key is announced, the shortest first. */
const AHEAD_DAYS = [1, 7];
const AHEAD_MS_MAX = 7 * DAY_MS;

/** Keys looked at in one step; most were announced before. */
const BATCH = 50;
const NOTICES_BATCH = 100;

/** What expired before the first pass ever is announced if it was within the last day. */
const FIRST_LOOK_BACK_MS = DAY_MS;
/** A pass begins that long before the last one did: an expiry may be committed later than it was set to. */
const LOOK_BACK_MS = HOUR_MS;
/** Notices are kept for longer than any pass asks for them. */
const NOTICES_KEPT_MS = 30 * DAY_MS;

type Kind = 'api_key' | 'secret_key';

/** How far a pass is: over what expires after `since`, first API keys and then secret keys, along their expiry. */
interface Position {
  since: number;
  beganAt: number;
  stage: Kind | 'notices';
  at: number;
  id: string;
  failed: boolean;
}

/**
 * One step of a pass over all that expires within 7 days or has since the last pass. A key that cannot be announced keeps
 * no other from it, and the next pass begins where this one did.
 */
export async function announceExpiries(deps: Deps, cursor: JobCursor | null): Promise<JobStep> {
  const position = positionOf(deps, cursor);
  if (position.stage === 'notices') return forgetNotices(deps, position);
  const rows = await (position.stage === 'api_key' ? nextApiKeys : nextSecretKeys)(deps, position);
  const { count, errors } = await announceAll(deps, position.stage, rows);
  const failed = position.failed || errors.length > 0;
  const last = rows.at(-1);
  const next: Position =
    last && rows.length === BATCH
      ? { ...position, failed, at: last.expiresAt, id: last.id }
      : { ...position, failed, at: position.since, id: '', stage: AFTER[position.stage] };
  return { done: false, cursor: { ...next }, count, errors };
}

const AFTER = { api_key: 'secret_key', secret_key: 'notices' } as const;

function positionOf({ now }: Pick<Deps, 'now'>, cursor: JobCursor | null): Position {
  if (cursor && 'stage' in cursor) return cursor as unknown as Position;
  const since = typeof cursor?.['since'] === 'number' ? cursor['since'] : now() - FIRST_LOOK_BACK_MS;
  return { since, beganAt: now(), stage: 'api_key', at: since, id: '', failed: false };
}

/** A key that expires. */
interface Expiring {
  id: string;
  subject: string | null;
  createdAt: number;
  expiresAt: number;
  /** Whether it is of interest to anybody when it expires. */
  isLive: boolean;
}

async function nextApiKeys(deps: Deps, position: Position): Promise<Expiring[]> {
  const { db, tables } = deps.store.read;
  const { apiKeys: k } = tables;
  const rows = await db
    .select({
      id: k.id,
      subject: k.subject,
      createdAt: k.created_at,
      expiresAt: k.expires_at,
      revokedAt: k.revoked_at,
    })
    .from(k)
    .where(comesNext(k, position, deps.now()))
    .orderBy(asc(k.expires_at), asc(k.id))
    .limit(BATCH);
  return rows.map((row) => ({
    ...row,
    expiresAt: row.expiresAt ?? 0,
    isLive: row.revokedAt === null,
  }));
}

/** What expires after a position, as far ahead as anything is announced. */
function comesNext(
  { id, expires_at }: Pick<Rows['tables']['apiKeys' | 'secretKeys'], 'id' | 'expires_at'>,
  position: Position,
  now: number,
): SQL | undefined {
  return and(
    sql`(${expires_at}, ${id}) > (${position.at}, ${position.id})`,
    lte(expires_at, now + AHEAD_MS_MAX),
    // The index has this condition, and SQLite only sees that it is met where it is written out.
    isNotNull(expires_at),
  );
}

/** A key that a writer to the database made up or changed is announced to nobody. */
async function nextSecretKeys(deps: Deps, position: Position): Promise<Expiring[]> {
  const { db, tables } = deps.store.read;
  const { secretKeys: k } = tables;
  const rows = await db
    .select()
    .from(k)
    .where(comesNext(k, position, deps.now()))
    .orderBy(asc(k.expires_at), asc(k.id))
    .limit(BATCH);
  return rows.map((row) => ({
    id: row.id,
    subject: null,
    createdAt: row.created_at,
    expiresAt: row.expires_at ?? 0,
    isLive: row.revoked_at === null && row.mac.equals(secretKeyMac(deps, row)),
  }));
}

/** What is to be said of a key now. */
interface Announcement {
  key: Expiring;
  /** What it is kept by, with the instant that it is about. */
  notice: string;
  type: EventType;
  data: { expiresAt: number; daysLeft?: number };
}

async function announceAll(deps: Deps, kind: Kind, keys: Expiring[]) {
  const due = keys.flatMap((key) => dueAnnouncement(kind, key, deps.now()) ?? []);
  const known = await knownNotices(deps.store.read, kind, due);
  const errors: unknown[] = [];
  let count = 0;
  for (const announcement of due) {
    if (known.has(noticeKey(announcement.key.id, announcement.notice))) continue;
    try {
      if (await announce(deps, kind, announcement)) count++;
    } catch (error) {
      // Of a database that is down no other key would fare better.
      if (storeFailure(error)) throw error;
      errors.push(error);
    }
  }
  return { count, errors };
}

/** The nearest that applies: who was asleep for a week is not told of a week. A key that was never that far away is not. */
function dueAnnouncement(kind: Kind, key: Expiring, now: number): Announcement | null {
  const { createdAt, expiresAt, isLive } = key;
  if (!isLive) return null;
  if (expiresAt <= now)
    return { key, notice: `expired ${expiresAt}`, type: `${kind}.expired`, data: { expiresAt } };
  const days = AHEAD_DAYS.find((ahead) => expiresAt <= now + ahead * DAY_MS);
  if (days === undefined || createdAt > expiresAt - days * DAY_MS) return null;
  const daysLeft = Math.ceil((expiresAt - now) / DAY_MS);
  return {
    key,
    notice: `expiring ${days}d ${expiresAt}`,
    type: `${kind}.expiring`,
    data: { expiresAt, daysLeft },
  };
}

const noticeKey = (ownerId: string, notice: string) => `${ownerId} ${notice}`;

async function knownNotices({ db, tables }: Rows, kind: Kind, due: Announcement[]): Promise<Set<string>> {
  if (due.length === 0) return new Set();
  const { expiryNotices: n } = tables;
  const ids = due.map(({ key }) => key.id);
  const rows = await db
    .select({ id: n.owner_id, notice: n.notice })
    .from(n)
    .where(and(eq(n.owner_kind, kind), inArray(n.owner_id, ids)));
  return new Set(rows.map(({ id, notice }) => noticeKey(id, notice)));
}

/** Event and notice go together; of several who announce the same, the first one's row makes it known. */
function announce(deps: Deps, kind: Kind, { key, notice, type, data }: Announcement): Promise<boolean> {
  return change(
    deps,
    SWEEP,
    async (tx) => {
      if (!(await stillExpires(tx, kind, key))) return { result: false, event: null };
      const noted = await tx.db
        .insert(tx.tables.expiryNotices)
        .values({ owner_kind: kind, owner_id: key.id, notice, created_at: deps.now() })
        .onConflictDoNothing()
        .returning({ id: tx.tables.expiryNotices.owner_id });
      if (noted.length === 0) return { result: false, event: null };
      const subject = key.subject === null ? {} : { subject: key.subject };
      return { result: true, event: { type, objectId: key.id, ...subject, data } };
    },
    'minting',
  );
}

/** Not if it was revoked, deleted or given another expiry since it was read. */
async function stillExpires({ db, tables }: Rows, kind: Kind, key: Expiring): Promise<boolean> {
  const table = kind === 'api_key' ? tables.apiKeys : tables.secretKeys;
  const [row] = await forShare(
    db
      .select({ expiresAt: table.expires_at, revokedAt: table.revoked_at })
      .from(table)
      .where(eq(table.id, key.id)),
  );
  return row?.expiresAt === key.expiresAt && row.revokedAt === null;
}

/** The end of a pass: notices that no later pass asks for are deleted, unless the time is doubtful. */
async function forgetNotices(deps: Deps, { since, beganAt, failed }: Position): Promise<JobStep> {
  const from = failed ? since : Math.max(since, beganAt - LOOK_BACK_MS);
  const cursor = { since: from };
  if (deps.isTimeDoubtful()) return { done: true, cursor, count: 0 };
  const { expiryNotices: n } = deps.store.read.tables;
  const old = await deps.store.read.db
    .select({ kind: n.owner_kind, id: n.owner_id, notice: n.notice })
    .from(n)
    .where(lt(n.created_at, from - NOTICES_KEPT_MS))
    .orderBy(asc(n.created_at))
    .limit(NOTICES_BATCH);
  if (old.length > 0)
    await deps.store.tx(async (tx) => {
      for (const { kind, id, notice } of old)
        await tx.db.delete(n).where(and(eq(n.owner_kind, kind), eq(n.owner_id, id), eq(n.notice, notice)));
    }, 'minting');
  return { done: true, cursor, count: 0 };
}
