/** Status lists: signed bits that tell everybody alike which JWTs are refused (draft-ietf-oauth-status-list). */
import { hash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { and, asc, eq, gt, gte, inArray, isNotNull, isNull, lt, or, placeholder } from 'drizzle-orm';
import { LRUCache } from 'lru-cache';
import { statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { signStatusList } from '../crypto/jwt.ts';
import { encodeStatusBits, newStatusBits, STATUS_LIST_LENGTH, setStatusBit } from '../crypto/status-list.ts';
import type { Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { EventType } from './event-types.ts';
import { type Event, readEvents } from './events.ts';
import { statusListId } from './fields.ts';
import { PAGE_SIZE_MAX } from './pages.ts';
import { BLOCKS_OF_LIST } from './status-indexes.ts';

/** A Status List Token in JWT format (section 5.1), and the entity tag of just these bytes. */
export interface StatusListToken {
  jwt: string;
  etag: string;
}

/** The status lists that one process keeps in memory. */
export interface StatusLists {
  /**
   * The list as it was at most a second ago; throws `not_found`. It is looked at when it is asked for, and at most once a
   * second, for all who ask together. Throws `unavailable` where too many lists wait to be read.
   */
  find(deps: ListDeps, id: string): Promise<StatusListToken>;
}

type ListDeps = Pick<Deps, 'store' | 'signer' | 'now' | 'publicUrl'>;

export const STATUS_LISTS_PATH = '/v1/status-lists';

/** What a token calls its list, and the list itself. */
export const statusListUri = (publicUrl: string, id: string) => `${publicUrl}${STATUS_LISTS_PATH}/${id}`;

/** How long others may keep what was fetched: `ttl` for those who verify, the header for what is in between. */
const TTL_SECONDS = 60;
export const STATUS_LIST_MAX_AGE_SECONDS = 5;
/** After so long nobody may rely on it any more: news of revocations can be withheld for no longer. */
const LIFETIME_SECONDS = 3_600;
/** One in which nothing changed is signed anew when it is as old, so that every answer is good for 45 minutes. */
const SIGNED_MS_MAX = 15 * 60_000;

const FRESH_MS = 1_000;
/** Some 60 KB each. */
const KEPT_MAX = 256;
/** A list is read whole again after so long: what expired since has no bit any more. */
const SCANNED_MS_MAX = 3_600_000;
/** Longer than any minting takes: its token may be of before what was done to all of its machine, and its row come after. */
const SETTLED_MS = 10_000;
/** As many as are appended in that time at the very most. */
const SETTLED_EVENTS = 20_000;
/** More than these are not followed one by one: the list is read whole. */
const EVENTS_MAX = 500;
/** Lists that may wait for another to be read. */
const WAITING_MAX = 100;
/** Rows looked at in one step: half a millisecond of the event loop, twice that where they are not in memory. */
const STEP_ROWS = 500;
/** Before each step but the first. One list is read at a time, so readers of lists get a third of the event loop at most. */
const STEP_PAUSE_MS = 2;

interface Bits {
  bits: Buffer;
  /** The last event that is in them. */
  seq: number;
  /** From when on they are read whole again, whatever happened. */
  scanAt: number;
}

interface Kept extends Bits {
  /** When it was looked at last. */
  checkedAt: number;
  lst: string;
  kid: string;
  signedAt: number;
  token: StatusListToken;
}

export function createStatusLists(): StatusLists {
  const kept = new LRUCache<string, Kept>({ max: KEPT_MAX });
  const looking = new Map<string, { begunAt: number; outcome: Promise<Kept | null> }>();
  const inTurn = createTurns();

  function look(deps: ListDeps, id: string) {
    const begunAt = deps.now();
    const outcome = refresh(deps, id, kept.get(id), begunAt)
      .then((next) => {
        if (next) kept.set(id, next);
        else kept.delete(id);
        return next;
      })
      .finally(() => looking.delete(id));
    const begun = { begunAt, outcome };
    looking.set(id, begun);
    return begun;
  }

  async function refresh(
    deps: ListDeps,
    id: string,
    known: Kept | undefined,
    begunAt: number,
  ): Promise<Kept | null> {
    const followed = known && begunAt < known.scanAt && (await follow(deps, id, known));
    if (followed) return publish(deps, id, { known, bits: followed, begunAt });
    const blocksTaken = await blocksOf(deps.store.read, id);
    if (blocksTaken === null) return null;
    const bits = await inTurn(() => scan(deps, id, blocksTaken));
    return publish(deps, id, { known, bits, begunAt });
  }

  return {
    async find(deps, id) {
      if (!statusListId.safeParse(id).success) throw listNotFound();
      const askedAt = deps.now();
      const isFresh = (at: number) => askedAt - at < FRESH_MS;
      for (;;) {
        const known = kept.get(id);
        if (known && isFresh(known.checkedAt)) return known.token;
        // One that was begun too long ago may have passed by what happened since: another follows it.
        const { begunAt, outcome } = looking.get(id) ?? look(deps, id);
        const found = await outcome;
        if (!found) throw listNotFound();
        if (isFresh(begunAt)) return found.token;
      }
    },
  };
}

const listNotFound = () => new CountersignError('not_found', 'No status list has this id');

/** Does one thing after the other. */
function createTurns() {
  let last: Promise<unknown> = Promise.resolve();
  let waiting = 0;
  return <T>(work: () => Promise<T>): Promise<T> => {
    if (waiting >= WAITING_MAX) {
      const message = `Wanted at most ${WAITING_MAX} status lists to wait to be read`;
      throw new CountersignError('unavailable', message, { retryAfterMs: FRESH_MS });
    }
    waiting++;
    const turn = last.then(work).finally(() => waiting--);
    last = turn.catch(() => {});
    return turn;
  };
}

/** Events after which bits of many tokens at once may be others. */
const OF_MANY: readonly EventType[] = [
  'machine.enabled',
  'machine.disabled',
  'machine.deleted',
  'machine.tokens_revoked',
  'machine.secret_rotated',
  'signing_key.emergency_retired',
  'subject.enabled',
  'subject.disabled',
  'user.enabled',
  'user.disabled',
  'user.deleted',
  'oauth_application.enabled',
  'oauth_application.disabled',
  'oauth_application.deleted',
  'oauth_application.tokens_revoked',
  'oauth_application.secret_rotated',
  'oauth_consent.withdrawn',
  'subject.oauth_grants_revoked',
  'oauth_grant.revoked',
];

const isOfMany = ({ type, data }: Event) =>
  OF_MANY.includes(type) && (!type.endsWith('.secret_rotated') || data['compromised'] === true);

/** The bits with what happened since; null where it cannot be told one by one. */
async function follow({ store, signer }: ListDeps, id: string, known: Bits): Promise<Bits | null> {
  const events = await readEvents(store.read, known.seq, EVENTS_MAX);
  // Before the list is signed again, though another process replaced the key.
  if (events.some(({ type }) => type.startsWith('signing_key.'))) signer.forget();
  if (events.length === EVENTS_MAX || events.some(isOfMany)) return null;
  const seq = events.at(-1)?.seq ?? known.seq;
  const { m2mTokens, oauthTokens } = store.read.tables;
  const indexes = [
    ...(await indexesOf(store.read, m2mTokens, id, idsOf(events, 'm2m_token.revoked'))),
    ...(await indexesOf(store.read, oauthTokens, id, idsOf(events, 'oauth_token.revoked'))),
  ];
  if (indexes.length === 0) return { ...known, seq };
  const bits = Buffer.from(known.bits);
  for (const index of indexes) setStatusBit(bits, index);
  return { ...known, bits, seq };
}

const idsOf = (events: readonly Event[], wanted: EventType) =>
  events.flatMap(({ type, objectId }) => (type === wanted ? [objectId] : []));

async function indexesOf({ db }: Rows, table: TokenTable, id: string, tokenIds: string[]): Promise<number[]> {
  if (tokenIds.length === 0) return [];
  const t = table as Rows['tables']['m2mTokens'];
  const found = await db
    .select({ index: t.status_index })
    .from(t)
    .where(and(inArray(t.id, tokenIds), eq(t.status_list_id, id)));
  return found.map(({ index }) => index as number);
}

/** Tokens of both kinds have their bits in the same lists. */
type TokenTable = Rows['tables']['m2mTokens' | 'oauthTokens'];

/** How many blocks were taken of a list; null where there is none. */
async function blocksOf({ db, tables: { statusLists: l } }: Rows, id: string): Promise<number | null> {
  const [list] = await db.select({ blocksTaken: l.blocks_taken }).from(l).where(eq(l.id, id));
  return list?.blocksTaken ?? null;
}

/**
 * Reads every bit, in steps between which others get their turn. What happens meanwhile is followed afterwards. Indexes are
 * handed out all over the list, so the fewer there are, the wider is a step of so many rows.
 */
async function scan({ store, now }: ListDeps, id: string, blocksTaken: number): Promise<Bits> {
  const scannedAt = now();
  const { eventHead } = store.read.tables;
  const [head] = await store.read.db.select({ seq: eventHead.seq }).from(eventHead);
  if (!head) throw new Error('The log has no head: the database was never set up');
  const isSettled = !(await happenedToMany(store.read, head.seq, scannedAt - SETTLED_MS));
  const bits = newStatusBits();
  const width = Math.ceil((STEP_ROWS * BLOCKS_OF_LIST) / blocksTaken);
  for (let from = 0; from < STATUS_LIST_LENGTH; from += width) {
    if (from > 0) await sleep(STEP_PAUSE_MS);
    const step = { id, from, to: from + width, now: scannedAt };
    for (const { index } of await readRefused(store.read, step)) setStatusBit(bits, index as number);
    for (const { index } of await readRefusedOauth(store.read, step)) setStatusBit(bits, index as number);
  }
  return { bits, seq: head.seq, scanAt: scannedAt + (isSettled ? SCANNED_MS_MAX : SETTLED_MS) };
}

/** Whether there is such an event since an instant, among the last ones up to `seq`: the index by type leads there. */
async function happenedToMany(
  { db, tables: { events: e } }: Rows,
  seq: number,
  since: number,
): Promise<boolean> {
  const found = await db
    .select({ seq: e.seq })
    .from(e)
    .where(and(inArray(e.type, [...OF_MANY]), gt(e.seq, seq - SETTLED_EVENTS), gt(e.at, since)))
    .limit(1);
  return found.length > 0;
}

/** Verification's `unknown`, `revoked` and `disabled` of a JWT that has not expired, as far as they are its own (credential-rows.ts). */
const readRefused = statement((db, { m2mTokens: t, machines: m, signingKeys: g }) =>
  db
    .select({ index: t.status_index })
    .from(t)
    .leftJoin(m, eq(m.id, t.machine_id))
    .leftJoin(g, eq(g.kid, t.signing_kid))
    .where(
      and(
        eq(t.status_list_id, placeholder('id')),
        gte(t.status_index, placeholder('from')),
        lt(t.status_index, placeholder('to')),
        gt(t.expires_at, placeholder('now')),
        or(
          isNotNull(t.revoked_at),
          isNull(m.id),
          eq(m.enabled, false),
          lt(t.generation, m.token_generation),
          and(eq(g.state, 'retired'), gt(t.expires_at, g.retired_at)),
        ),
      ),
    )
    .prepare('status_list_refused'),
);

/** The same of an access token (oauth-token-rows.ts). */
const readRefusedOauth = statement((db, tables) => {
  const {
    oauthTokens: t,
    oauthApplications: a,
    oauthGrants: g,
    users: u,
    subjects: s,
    signingKeys: k,
  } = tables;
  return db
    .select({ index: t.status_index })
    .from(t)
    .leftJoin(a, eq(a.id, t.application_id))
    .leftJoin(g, eq(g.id, t.grant_id))
    .leftJoin(u, eq(u.id, t.subject))
    .leftJoin(s, eq(s.id, t.subject))
    .leftJoin(k, eq(k.kid, t.signing_kid))
    .where(
      and(
        eq(t.status_list_id, placeholder('id')),
        gte(t.status_index, placeholder('from')),
        lt(t.status_index, placeholder('to')),
        gt(t.expires_at, placeholder('now')),
        or(
          isNotNull(t.revoked_at),
          isNull(a.id),
          eq(a.enabled, false),
          lt(t.generation, a.token_generation),
          and(isNotNull(t.grant_id), or(isNull(g.id), isNotNull(g.revoked_at))),
          eq(u.enabled, false),
          eq(s.enabled, false),
          and(eq(k.state, 'retired'), gt(t.expires_at, k.retired_at)),
        ),
      ),
    )
    .prepare('status_list_refused_oauth');
});

/** What is known, with a token for it: that of before, where it says the same and is good for long enough. */
async function publish(
  deps: ListDeps,
  id: string,
  { known, bits, begunAt }: { known: Kept | undefined; bits: Bits; begunAt: number },
): Promise<Kept> {
  const same = known?.bits.equals(bits.bits) ? known : undefined;
  const key = await deps.signer.active();
  if (same?.kid === key.kid && begunAt - same.signedAt < SIGNED_MS_MAX)
    return { ...same, ...bits, checkedAt: begunAt };
  const lst = same?.lst ?? (await encodeStatusBits(bits.bits));
  const issuedAt = Math.floor(begunAt / 1000);
  const payload = {
    sub: statusListUri(deps.publicUrl, id),
    iat: issuedAt,
    exp: issuedAt + LIFETIME_SECONDS,
    ttl: TTL_SECONDS,
    status_list: { bits: 1, lst, aggregation_uri: deps.publicUrl + STATUS_LISTS_PATH },
  };
  const jwt = await signStatusList(key, JSON.stringify(payload));
  const etag = `"${hash('sha256', jwt, 'base64url')}"`;
  return { ...bits, checkedAt: begunAt, lst, kid: key.kid, signedAt: begunAt, token: { jwt, etag } };
}

/** URIs of lists in order of their ids, those after one; `next` is where to go on, null at the end (section 9). */
export async function listStatusLists(
  { store, publicUrl }: Pick<Deps, 'store' | 'publicUrl'>,
  after: string | null,
): Promise<{ uris: string[]; next: string | null }> {
  if (after !== null && !statusListId.safeParse(after).success)
    throw new CountersignError(
      'invalid_input',
      "Cannot list: 'after' must be what the page before says under 'next'",
      { field: 'after' },
    );
  const { statusLists: l } = store.read.tables;
  const found = await store.read.db
    .select({ id: l.id })
    .from(l)
    .where(after === null ? undefined : gt(l.id, after))
    .orderBy(asc(l.id))
    .limit(PAGE_SIZE_MAX + 1);
  const page = found.slice(0, PAGE_SIZE_MAX).map(({ id }) => id);
  const isLast = found.length <= PAGE_SIZE_MAX;
  return {
    uris: page.map((id) => statusListUri(publicUrl, id)),
    next: isLast ? null : `${publicUrl}${STATUS_LISTS_PATH}?after=${page.at(-1)}`,
  };
}
