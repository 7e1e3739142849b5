/** Expiry: API keys and secret keys are announced before they expire and when they have, each once for each instant. */
import { and, asc, eq, isNotNull, lte, type SQL, sql } from 'drizzle-orm';
import { forShare } from '../../db/kit.ts';
import type { Rows } from '../../db/store.ts';
import type { Caller, Deps } from '../deps.ts';
import type { EventType } from './event-types.ts';
import { change } from './events.ts';
import type { JobCursor, JobStep } from './jobs.ts';
import {
  AHEAD_DAYS,
  AHEAD_MS_MAX,
  DAY_MS,
  eachByItself,
  forgetNotices,
  type Notice,
  noteOnce,
  unsaid,
} from './notices.ts';
import { secretKeyMac } from './secrets.ts';

const SWEEP: Caller = { principal: { kind: 'system', id: 'expiry-sweep' }, requestId: 'expiry-sweep' };

const HOUR_MS = 3_600_000;

/** Keys looked at in one step; most were announced before. */
const BATCH = 50;

/** What expired before the first pass ever is announced if it was within the last day. */
const FIRST_LOOK_BACK_MS = DAY_MS;
/** A pass begins that long before the last one did: an expiry may be committed later than it was set to. */
const LOOK_BACK_MS = HOUR_MS;

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
  if (position.stage === 'notices') return endPass(deps, position);
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
interface Announcement extends Notice {
  kind: Kind;
  key: Expiring;
  type: EventType;
  data: { expiresAt: number; daysLeft?: number };
}

async function announceAll(deps: Deps, kind: Kind, keys: Expiring[]) {
  const due = keys.flatMap((key) => dueAnnouncement(kind, key, deps.now()) ?? []);
  return eachByItself(await unsaid(deps.store.read, due), (announcement) => announce(deps, announcement));
}

/** The nearest that applies: who was asleep for a week is not told of a week. A key that was never that far away is not. */
function dueAnnouncement(kind: Kind, key: Expiring, now: number): Announcement | null {
  const { id: ownerId, createdAt, expiresAt, isLive } = key;
  if (!isLive) return null;
  const due = { kind, ownerId, key };
  if (expiresAt <= now)
    return { ...due, notice: `expired ${expiresAt}`, type: `${kind}.expired`, data: { expiresAt } };
  const days = AHEAD_DAYS.find((ahead) => expiresAt <= now + ahead * DAY_MS);
  if (days === undefined || createdAt > expiresAt - days * DAY_MS) return null;
  const daysLeft = Math.ceil((expiresAt - now) / DAY_MS);
  return {
    ...due,
    notice: `expiring ${days}d ${expiresAt}`,
    type: `${kind}.expiring`,
    data: { expiresAt, daysLeft },
  };
}

/** Event and notice go together; of several who announce the same, the first one's row makes it known. */
function announce(deps: Deps, announcement: Announcement): Promise<boolean> {
  const { kind, key, type, data } = announcement;
  return change(
    deps,
    SWEEP,
    async (tx) => {
      if (!(await stillExpires(tx, kind, key)) || !(await noteOnce(tx, deps, announcement)))
        return { result: false, event: null };
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
async function endPass(deps: Deps, position: Position): Promise<JobStep> {
  const { since, beganAt, failed } = position;
  const from = failed ? since : Math.max(since, beganAt - LOOK_BACK_MS);
  if (!deps.isTimeDoubtful() && (await forgetNotices(deps, from)))
    return { done: false, cursor: { ...position }, count: 0 };
  return { done: true, cursor: { since: from }, count: 0 };
}
