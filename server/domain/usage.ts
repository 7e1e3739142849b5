/** Verifications and last use, counted in memory and flushed as additive updates: verifying writes to no row. */
import { and, eq, isNull, lt, or, placeholder, sql } from 'drizzle-orm';
import { statement } from '../../db/statement.ts';
import type { Rows, Store } from '../../db/store.ts';
import type { Principal } from '../deps.ts';

export type UsedKind =
  | 'api_key'
  | 'm2m_token'
  | 'oauth_token'
  | 'oauth_application'
  | 'machine'
  | 'secret_key';

export const HOUR_MS = 3_600_000;
/** Credentials written in one transaction, in about a millisecond: verifications wait for no longer than that. */
const FLUSH_BATCH = 20;
/** Credentials and hours kept at once, some 30 MB: while a flush keeps failing, further ones go uncounted. */
const COUNTS_MAX = 100_000;

/** What is counted: a credential, an application by its access tokens, or all API keys of a subject together. */
type CountedKind = UsedKind | 'subject';

interface Used {
  valid: number;
  refused: number;
  lastUsedAt: number;
}

export interface Count extends Used {
  kind: CountedKind;
  id: string;
  hour: number;
}

const REFUSED: Used = { valid: 0, refused: 1, lastUsedAt: 0 };

export interface UsageCounter {
  /** Notes one use of a credential at `now` and, where it is told, of its subject's. */
  count(kind: UsedKind, id: string, valid: boolean, now: number, subject?: string): void;
  /**
   * Writes what was counted since the last flush; what could not be written is kept for the next. Between its transactions
   * it waits for `pause`, so that others have the writer and the event loop to themselves.
   */
  flush(store: Store, pause?: () => Promise<void>): Promise<void>;
}

export function createUsageCounter(countsMax = COUNTS_MAX): UsageCounter {
  let counts = new Map<string, Count>();

  /** The entry of that key, made where there is none yet; undefined where there is no room for it. */
  function entryOf(kind: CountedKind, id: string, hour: number): Count | undefined {
    // A subject may be called like a credential.
    const key = `${kind === 'subject' ? 'of ' : ''}${hour} ${id}`;
    const known = counts.get(key);
    if (known || counts.size >= countsMax) return known;
    const entry = { kind, id, hour, valid: 0, refused: 0, lastUsedAt: 0 };
    counts.set(key, entry);
    return entry;
  }

  /** In place: an object for each use would be allocated among the long lived (docs/decisions/0016). */
  function add(kind: CountedKind, id: string, hour: number, used: Used) {
    const entry = entryOf(kind, id, hour);
    if (!entry) return;
    entry.valid += used.valid;
    entry.refused += used.refused;
    entry.lastUsedAt = Math.max(entry.lastUsedAt, used.lastUsedAt);
  }

  return {
    count(kind, id, valid, now, subject) {
      const hour = Math.floor(now / HOUR_MS);
      const used = valid ? { valid: 1, refused: 0, lastUsedAt: now } : REFUSED;
      add(kind, id, hour, used);
      if (subject !== undefined) add('subject', subject, hour, used);
    },
    async flush(store, pause) {
      const entries = [...counts.values()];
      counts = new Map();
      for (let i = 0; i < entries.length; i += FLUSH_BATCH) {
        const batch = entries.slice(i, i + FLUSH_BATCH);
        try {
          await store.tx((tx) => writeCounts(tx, batch), 'minting');
        } catch (error) {
          for (const { kind, id, hour, ...used } of entries.slice(i)) add(kind, id, hour, used);
          throw error;
        }
        await pause?.();
      }
    },
  };
}

/** Adds counts, each of another credential, subject or hour, to what is there. */
export async function writeCounts(tx: Rows, batch: readonly Count[]): Promise<void> {
  // In one order everywhere, so that two servers flushing at once cannot deadlock.
  for (const { kind, id, hour, valid, refused, lastUsedAt } of [...batch].sort(inOrder)) {
    const counted = { id, hour, valid, refused };
    if (kind === 'subject') await addSubjectCounts(tx, counted);
    // Of an access token that lives for an hour only its last use is worth a row: its application is counted.
    else if (kind !== 'oauth_token') await addCounts(tx, counted);
    if (kind !== 'subject' && lastUsedAt > 0) await touch[kind](tx, { id, at: lastUsedAt });
  }
}

/** Credentials before subjects, each by id and hour. */
function inOrder(a: Count, b: Count): number {
  const tables = Number(a.kind === 'subject') - Number(b.kind === 'subject');
  return tables || (a.id < b.id ? -1 : a.id > b.id ? 1 : a.hour - b.hour);
}

const addCounts = statement((db, { usage: u }) =>
  db
    .insert(u)
    .values({
      credential_id: placeholder('id'),
      hour: placeholder('hour'),
      valid_count: placeholder('valid'),
      refused_count: placeholder('refused'),
    })
    .onConflictDoUpdate({
      target: [u.credential_id, u.hour],
      set: {
        valid_count: sql`${u.valid_count} + excluded.valid_count`,
        refused_count: sql`${u.refused_count} + excluded.refused_count`,
      },
    })
    .prepare('usage_add'),
);

const addSubjectCounts = statement((db, { subjectUsage: u }) =>
  db
    .insert(u)
    .values({
      subject: placeholder('id'),
      hour: placeholder('hour'),
      valid_count: placeholder('valid'),
      refused_count: placeholder('refused'),
    })
    .onConflictDoUpdate({
      target: [u.subject, u.hour],
      set: {
        valid_count: sql`${u.valid_count} + excluded.valid_count`,
        refused_count: sql`${u.refused_count} + excluded.refused_count`,
      },
    })
    .prepare('subject_usage_add'),
);

type Touchable = 'apiKeys' | 'm2mTokens' | 'oauthTokens' | 'oauthApplications' | 'machines' | 'secretKeys';

/** Moves last use forward, never back, and touches no other column: it cannot write over a revocation. */
const touchOf = (name: Touchable) =>
  statement((db, tables) => {
    const table = tables[name];
    return db
      .update(table)
      .set({ last_used_at: sql`${placeholder('at')}` })
      .where(
        and(
          eq(table.id, placeholder('id')),
          or(isNull(table.last_used_at), lt(table.last_used_at, sql`${placeholder('at')}`)),
        ),
      )
      .prepare(`touch_${name}`);
  });

const touch: Record<UsedKind, ReturnType<typeof touchOf>> = {
  api_key: touchOf('apiKeys'),
  m2m_token: touchOf('m2mTokens'),
  oauth_token: touchOf('oauthTokens'),
  oauth_application: touchOf('oauthApplications'),
  machine: touchOf('machines'),
  secret_key: touchOf('secretKeys'),
};

/** Counts a call by who makes it: keys and machines are used, people are not. */
export function countCaller(usage: UsageCounter, { kind, id }: Principal, now: number): void {
  if (kind === 'secret_key' || kind === 'machine') usage.count(kind, id, true, now);
}
