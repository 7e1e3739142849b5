/** What callers are told so that what they remember of verifications is never wrong for long: frames made from rows. */
import {
  and,
  asc,
  type Column,
  desc,
  eq,
  gt,
  inArray,
  isNotNull,
  isNull,
  lt,
  lte,
  or,
  sql,
} from 'drizzle-orm';
import type { Rows } from '../../db/store.ts';
import type { Deps, Principal } from '../deps.ts';
import type { EventType } from './event-types.ts';
import { type Event, toEvent } from './events.ts';
import { RETENTION_SECONDS } from './key-policies.ts';

export type FeedKind =
  | 'm2m_token'
  | 'machine'
  | 'machine_scope'
  | 'api_key'
  | 'oauth_token'
  | 'oauth_grant'
  | 'oauth_application'
  | 'subject'
  | 'secret_key';

/** What something hangs on: everything issued until shortly after `at` that has all of this. */
export type Selector =
  | { machineId: string }
  | { fromMachineId: string; toMachineId: string }
  | { subject: string }
  | { apiKeyIds: string[] }
  | { applicationId: string }
  | { subject: string; applicationId: string }
  /** With what a JWT says besides, in which no grant is named. */
  | { grantId: string; subject: string; applicationId: string }
  | { signingKeyId: string };

/** Something that may not be answered from memory any more: forget it, and ask. Without id and selector, all of the kind. */
export interface Invalidation {
  /** When that came about, in milliseconds since 1970-01-01 UTC. */
  at: number;
  kind: FeedKind;
  id?: string;
  selector?: Selector;
  reason: 'created' | 'changed' | 'rotated' | 'expired' | 'enabled' | 'disabled' | 'revoked' | 'deleted';
  /** From when on it has expired anyway, so that it need not be remembered. */
  until?: number;
}

export interface SigningKeyState {
  kid: string;
  state: 'upcoming' | 'active' | 'retiring' | 'retired';
}

/**
 * Whom a frame concerns besides secret keys, which are told everything: machines by id, `everyone`, those that verify API
 * keys, or no machine.
 */
export type Concern = readonly string[] | 'everyone' | 'key_verifiers' | 'nobody_else';

export type Frame = { to: Concern } & (
  | { event: 'invalidate'; data: Invalidation & { seq: number } }
  | { event: 'signing_key'; data: SigningKeyState }
);

export interface SnapshotItem {
  to: Concern;
  data: Invalidation;
}

/** All that may not be answered from memory, as it was when the log was `seq` long, or later. */
export interface Snapshot {
  seq: number;
  items: SnapshotItem[];
  signingKeys: SigningKeyState[];
  /** Whether there are API keys of another shape than ours: without any, what has no checksum of ours is none. */
  hasImportedKeys: boolean;
}

/** How a row of the table names what an event is about. */
type Names = (event: Event) => Pick<Invalidation, 'id' | 'selector' | 'until'>;

const itself: Names = ({ objectId }) => ({ id: objectId });
const withItsTokens: Names = ({ objectId }) => ({ id: objectId, selector: { machineId: objectId } });
const rotatedMachine: Names = (event) =>
  event.data['compromised'] === true ? withItsTokens(event) : itself(event);
const edge: Names = ({ data }) => ({
  selector: { fromMachineId: String(data['fromMachineId']), toMachineId: String(data['toMachineId']) },
});
const token: Names = ({ objectId, data }) => ({ id: objectId, until: Number(data['expiresAt']) });
const keysOfSubject: Names = ({ objectId }) => ({ id: objectId, selector: { subject: objectId } });
const purgedKeys: Names = ({ data }) => ({ selector: data['selector'] as Selector });
const withItsOauthTokens: Names = ({ objectId }) => ({ id: objectId, selector: { applicationId: objectId } });
const rotatedApplication: Names = (event) =>
  event.data['compromised'] === true ? withItsOauthTokens(event) : itself(event);
const grant: Names = ({ objectId, subject, data }) => ({
  id: objectId,
  selector: { grantId: objectId, subject: subject ?? '', applicationId: String(data['applicationId']) },
});
const consent: Names = ({ data }) => ({ selector: data['selector'] as Selector });
const signedTokens: Names = ({ objectId }) => ({ selector: { signingKeyId: objectId } });
const all: Names = () => ({});

/** One row for every type of event after which an answer that is remembered, valid or not, could be wrong. */
export const INVALIDATIONS = {
  'machine.updated': ['machine', 'changed', itself],
  'machine.enabled': ['machine', 'enabled', withItsTokens],
  'machine.disabled': ['machine', 'disabled', withItsTokens],
  'machine.deleted': ['machine', 'deleted', withItsTokens],
  'machine.tokens_revoked': [
    'm2m_token',
    'revoked',
    ({ objectId }) => ({ selector: { machineId: objectId } }),
  ],
  'machine.secret_rotated': ['machine', 'rotated', rotatedMachine],
  'machine.secret_rotation_cancelled': ['machine', 'rotated', itself],
  'machine.secret_rotation_completed': ['machine', 'rotated', itself],
  'machine.secret_expired': ['machine', 'expired', itself],
  'machine_scope.created': ['machine_scope', 'created', edge],
  'machine_scope.updated': ['machine_scope', 'changed', edge],
  'machine_scope.deleted': ['machine_scope', 'deleted', edge],
  'm2m_token.revoked': ['m2m_token', 'revoked', token],
  'api_key.updated': ['api_key', 'changed', itself],
  'api_key.credits_changed': ['api_key', 'changed', itself],
  'api_key.enabled': ['api_key', 'enabled', itself],
  'api_key.disabled': ['api_key', 'disabled', itself],
  'api_key.revoked': ['api_key', 'revoked', itself],
  'api_key.deleted': ['api_key', 'deleted', itself],
  'api_key.purged': ['api_key', 'deleted', purgedKeys],
  'api_key.secret_rotated': ['api_key', 'rotated', itself],
  'api_key.secret_rotation_cancelled': ['api_key', 'rotated', itself],
  'api_key.secret_rotation_completed': ['api_key', 'rotated', itself],
  'api_key.secret_expired': ['api_key', 'expired', itself],
  // Values that were answered `malformed` or `unknown` until then may be some now.
  'key_prefix.created': ['api_key', 'created', all],
  'api_keys.imported': ['api_key', 'created', all],
  'subject.updated': ['subject', 'changed', keysOfSubject],
  'subject.enabled': ['subject', 'enabled', keysOfSubject],
  'subject.disabled': ['subject', 'disabled', keysOfSubject],
  'subject.credits_changed': ['subject', 'changed', keysOfSubject],
  'subject.api_keys_revoked': ['api_key', 'revoked', ({ objectId }) => ({ selector: { subject: objectId } })],
  'subject.oauth_grants_revoked': [
    'oauth_grant',
    'revoked',
    ({ objectId }) => ({ selector: { subject: objectId } }),
  ],
  'secret_key.revoked': ['secret_key', 'revoked', itself],
  'secret_key.secret_rotated': ['secret_key', 'rotated', itself],
  'secret_key.secret_rotation_cancelled': ['secret_key', 'rotated', itself],
  'secret_key.secret_rotation_completed': ['secret_key', 'rotated', itself],
  'secret_key.secret_expired': ['secret_key', 'expired', itself],
  // What it is called is in every answer.
  'oauth_application.updated': ['oauth_application', 'changed', itself],
  'oauth_application.enabled': ['oauth_application', 'enabled', withItsOauthTokens],
  'oauth_application.disabled': ['oauth_application', 'disabled', withItsOauthTokens],
  'oauth_application.deleted': ['oauth_application', 'deleted', withItsOauthTokens],
  'oauth_application.tokens_revoked': ['oauth_application', 'revoked', withItsOauthTokens],
  'oauth_application.secret_rotated': ['oauth_application', 'rotated', rotatedApplication],
  'oauth_application.secret_rotation_cancelled': ['oauth_application', 'rotated', itself],
  'oauth_application.secret_rotation_completed': ['oauth_application', 'rotated', itself],
  'oauth_consent.withdrawn': ['oauth_grant', 'revoked', consent],
  'oauth_grant.revoked': ['oauth_grant', 'revoked', grant],
  'oauth_token.revoked': ['oauth_token', 'revoked', token],
  'user.enabled': ['subject', 'enabled', keysOfSubject],
  'user.disabled': ['subject', 'disabled', keysOfSubject],
  'user.deleted': ['subject', 'deleted', keysOfSubject],
  'signing_key.emergency_retired': ['m2m_token', 'revoked', signedTokens],
} as const satisfies Partial<Record<EventType, readonly [FeedKind, Invalidation['reason'], Names]>>;

/** Which signing keys are in another state after an event. */
const SIGNING_KEYS: Partial<Record<EventType, (event: Event) => [kid: unknown, SigningKeyState['state']][]>> =
  {
    'signing_key.created': ({ objectId }) => [[objectId, 'upcoming']],
    'signing_key.activated': ({ objectId, data }) => [
      [data['previousKid'], 'retiring'],
      [objectId, 'active'],
    ],
    'signing_key.retired': ({ objectId }) => [[objectId, 'retired']],
    'signing_key.emergency_retired': ({ objectId, data }) => [
      [data['successorKid'], 'active'],
      [objectId, 'retired'],
    ],
  };

/** What an event tells, before it is known whom it concerns. */
function toldBy(event: Event) {
  const row = (
    INVALIDATIONS as Partial<Record<EventType, readonly [FeedKind, Invalidation['reason'], Names]>>
  )[event.type];
  const signingKeys: SigningKeyState[] = (SIGNING_KEYS[event.type]?.(event) ?? []).flatMap(([kid, state]) =>
    typeof kid === 'string' ? [{ kid, state }] : [],
  );
  if (!row) return { invalidation: null, signingKeys };
  const [kind, reason, names] = row;
  return { invalidation: { seq: event.seq, at: event.at, kind, ...names(event), reason }, signingKeys };
}

/**
 * The frames of each event, in order. What the events leave out of whom they concern, the audiences of tokens and who may
 * call whom, is read only if machines are told: without them, frames are for secret keys alone.
 */
export async function framesOf(
  rows: Rows,
  events: readonly Event[],
  forMachines: boolean,
): Promise<{ event: Event; frames: Frame[] }[]> {
  const reach = forMachines ? await readReach(rows, events) : NO_REACH;
  return events.map((event) => {
    const { invalidation, signingKeys } = toldBy(event);
    const frames: Frame[] = signingKeys.map((data) => ({ to: 'everyone', event: 'signing_key', data }));
    if (invalidation)
      frames.push({ to: concernOf(event, invalidation, reach), event: 'invalidate', data: invalidation });
    return { event, frames };
  });
}

export function concerns(principal: Principal, to: Concern): boolean {
  if (principal.kind !== 'machine' || to === 'everyone') return true;
  if (to === 'key_verifiers') return principal.mayVerify;
  return to !== 'nobody_else' && to.includes(principal.id);
}

/**
 * Whether from this event on other things concern it than before. What it was not told until then it may remember wrongly,
 * and it has to begin anew.
 */
export const changesConcerns = (principal: Principal, { type, objectId, data }: Event): boolean =>
  principal.kind === 'machine' &&
  type === 'machine.updated' &&
  objectId === principal.id &&
  (data['changed'] as string[]).includes('mayVerify');

/** The machines that tokens are addressed to: of a token by its id, of all tokens of a machine by the machine's. */
type Reach = ReadonlyMap<string, readonly string[]>;

const NO_REACH: Reach = new Map();

function concernOf({ objectId }: Event, { kind, selector }: Omit<Invalidation, 'at'>, reach: Reach): Concern {
  switch (kind) {
    case 'secret_key':
      return 'nobody_else';
    case 'api_key':
    case 'oauth_token':
    case 'oauth_grant':
    case 'oauth_application':
    case 'subject':
      return 'key_verifiers';
    case 'machine_scope':
      return selector && 'toMachineId' in selector ? [selector.toMachineId] : [];
    case 'machine':
      return selector ? [objectId, ...(reach.get(objectId) ?? [])] : [objectId];
    case 'm2m_token':
      return selector && 'signingKeyId' in selector ? 'everyone' : (reach.get(objectId) ?? []);
  }
}

const IN_MAX = 500;

async function readReach(rows: Rows, events: readonly Event[]): Promise<Reach> {
  const idsOf = (...types: EventType[]) => [
    ...new Set(events.flatMap(({ type, objectId }) => (types.includes(type) ? [objectId] : []))),
  ];
  const senders = idsOf(
    'machine.enabled',
    'machine.disabled',
    'machine.tokens_revoked',
    'machine.secret_rotated',
  );
  return new Map([
    ...(await audiencesOf(rows, idsOf('m2m_token.revoked'))),
    ...(await calleesOf(rows, senders)),
    ...formerCallees(events),
  ]);
}

async function audiencesOf({ db, tables: { m2mTokens: t } }: Rows, ids: string[]) {
  if (ids.length === 0) return [];
  const found = await db.select({ id: t.id, audience: t.audience }).from(t).where(inArray(t.id, ids));
  return found.map(({ id, audience }) => [id, audience] as const);
}

/** Whom machines may call now. Whoever they may no longer call was told of that. */
async function calleesOf({ db, tables: { machineScopes: e } }: Rows, ids: string[]) {
  const callees = new Map<string, string[]>(ids.map((id) => [id, []]));
  if (ids.length === 0) return callees;
  const edges = await db
    .select({ from: e.from_machine_id, to: e.to_machine_id })
    .from(e)
    .where(inArray(e.from_machine_id, ids));
  for (const { from, to } of edges) callees.get(from)?.push(to);
  return callees;
}

/** Whom machines that were deleted could call until then: their machine scopes went with them. */
const formerCallees = (events: readonly Event[]) =>
  events.flatMap(({ type, objectId, data }) =>
    type === 'machine.deleted' ? [[objectId, data['toMachineIds'] as string[]] as const] : [],
  );

/** How far somebody has followed the feed of a database. */
export interface Cursor {
  epoch: string;
  seq: number;
}

const CURSOR = /^([0-9a-f]{1,64})-(\d{1,15})$/;

export const formatCursor = ({ epoch, seq }: Cursor) => `${epoch}-${seq}`;

export function parseCursor(text: string): Cursor | null {
  const [, epoch = '', seq] = CURSOR.exec(text) ?? [];
  return seq === undefined ? null : { epoch, seq: Number(seq) };
}

/** Where the log of this database stands: its last event, and the last that was pruned. */
export interface Position extends Cursor {
  prunedSeq: number;
}

export async function readPosition({ db, tables }: Rows): Promise<Position> {
  const { installation, eventHead, eventAnchor } = tables;
  const [installed] = await db.select({ epoch: installation.epoch }).from(installation);
  const [anchor] = await db.select({ seq: eventAnchor.seq }).from(eventAnchor);
  const [head] = await db.select({ seq: eventHead.seq }).from(eventHead);
  if (!installed || !head) throw new Error('The log has no head: the database was never set up');
  return { epoch: installed.epoch, seq: head.seq, prunedSeq: anchor?.seq ?? 0 };
}

/** Whether all that came after the cursor can still be told. */
export const canResume = (cursor: Cursor, { epoch, seq, prunedSeq }: Position) =>
  cursor.epoch === epoch && cursor.seq <= seq && cursor.seq >= prunedSeq;

/** Rows looked at in one read: about a millisecond of the event loop. */
const WINDOW = 1_000;

const nextTurn = () => new Promise(setImmediate);

/**
 * Reads what is in force, in windows between which others get their turn. Nothing of it may be missing: what was undone
 * meanwhile is told after `seq` anyway.
 */
export async function readSnapshot(deps: Deps): Promise<Snapshot> {
  const rows = deps.store.read;
  const now = deps.now();
  const { seq } = await readPosition(rows);
  const keys = await signingKeys(rows);
  const deletedEdges = await deletedEdgeItems(rows);
  // Only now: whatever is pruned later was still read above.
  const prunedAt = await readPrunedAt(rows);
  const tokens = await tokenItems(rows, now, prunedAt);
  return {
    seq,
    signingKeys: keys.filter(({ state }) => state !== 'retired').map(({ kid, state }) => ({ kid, state })),
    hasImportedKeys: await hasImportedKeys(rows),
    items: [
      ...keys.flatMap(retiredKeyItem),
      ...(await machineItems(rows)),
      ...(await deletedMachineItems(rows)),
      ...(await changedEdgeItems(rows)),
      ...deletedEdges.values(),
      ...(await prunedEdgeItems(rows, tokens.ways, deletedEdges, prunedAt)),
      ...tokens.items,
      ...(await applicationItems(rows)),
      ...(await oauthTokenItems(rows, now)),
      ...(await apiKeyItems(rows, now)),
      ...(await subjectItems(rows)),
    ],
  };
}

async function hasImportedKeys({ db, tables: { importedShapes: s } }: Rows): Promise<boolean> {
  const rows = await db.select({ length: s.length }).from(s).where(eq(s.owner_kind, 'api_key')).limit(1);
  return rows.length > 0;
}

type SigningKeyRow = SigningKeyState & { retiredAt: number | null };

async function signingKeys({ db, tables: { signingKeys: k } }: Rows): Promise<SigningKeyRow[]> {
  return db
    .select({ kid: k.kid, state: k.state, retiredAt: k.retired_at })
    .from(k)
    .orderBy(asc(k.created_at));
}

/** Whether in an emergency or in order: no token that it signed is valid any more. */
function retiredKeyItem({ kid, state, retiredAt }: SigningKeyRow): SnapshotItem[] {
  if (state !== 'retired') return [];
  const data = {
    at: retiredAt ?? 0,
    kind: 'm2m_token',
    selector: { signingKeyId: kid },
    reason: 'revoked',
  } as const;
  return [{ to: 'everyone', data }];
}

/** Machines that are disabled, and those whose tokens were revoked all at once: a selector each, however many tokens. */
async function machineItems(rows: Rows): Promise<SnapshotItem[]> {
  const { db, tables } = rows;
  const { machines: m } = tables;
  const items: SnapshotItem[] = [];
  for (let after = ''; ; await nextTurn()) {
    const page = await db
      .select({ id: m.id, enabled: m.enabled, revokedAt: m.tokens_revoked_at, updatedAt: m.updated_at })
      .from(m)
      .where(gt(m.id, after))
      .orderBy(asc(m.id))
      .limit(IN_MAX);
    const named = page.filter(({ enabled, revokedAt }) => !enabled || revokedAt !== null);
    const callees = await calleesOf(
      rows,
      named.map(({ id }) => id),
    );
    for (const { id, enabled, revokedAt, updatedAt } of named) {
      const to = callees.get(id) ?? [];
      const selector = { machineId: id };
      if (revokedAt !== null)
        items.push({ to, data: { at: revokedAt, kind: 'm2m_token', selector, reason: 'revoked' } });
      if (!enabled)
        items.push({
          to: [id, ...to],
          data: { at: updatedAt, kind: 'machine', id, selector, reason: 'disabled' },
        });
    }
    if (page.length < IN_MAX) return items;
    after = page.at(-1)?.id ?? '';
  }
}

/**
 * Machines that are gone, as far as the log knows: with them went the ways to them, of which nothing else tells those who
 * verify on their behalf.
 */
async function deletedMachineItems(rows: Rows): Promise<SnapshotItem[]> {
  const items: SnapshotItem[] = [];
  for await (const page of loggedEvents(rows, 'machine.deleted', 0)) {
    for (const { objectId: id, at } of page) {
      const data = { at, kind: 'machine', id, selector: { machineId: id }, reason: 'deleted' } as const;
      items.push({ to: 'nobody_else', data });
    }
  }
  return items;
}

/** Ways between machines whose scopes are not what they were when tokens may have been minted for them. */
async function changedEdgeItems({ db, tables: { machineScopes: e } }: Rows): Promise<SnapshotItem[]> {
  const items: SnapshotItem[] = [];
  for (let [from, to] = ['', '']; ; await nextTurn()) {
    const page = await db
      .select({ from: e.from_machine_id, to: e.to_machine_id, at: e.updated_at, createdAt: e.created_at })
      .from(e)
      .where(sql`(${e.from_machine_id}, ${e.to_machine_id}) > (${from}, ${to})`)
      .orderBy(asc(e.from_machine_id), asc(e.to_machine_id))
      .limit(WINDOW);
    items.push(...page.filter(({ at, createdAt }) => at > createdAt).map((row) => edgeItem(row, 'changed')));
    const last = page.at(-1);
    if (!last || page.length < WINDOW) return items;
    [from, to] = [last.from, last.to];
  }
}

/** Ways there are no more, or again, as far as the log still knows: by `from:to`. */
async function deletedEdgeItems(rows: Rows): Promise<Map<string, SnapshotItem>> {
  const items = new Map<string, SnapshotItem>();
  for await (const page of loggedEvents(rows, 'machine_scope.deleted', 0)) {
    for (const { objectId, at } of page) {
      const [from = '', to = ''] = objectId.split(':');
      if (!items.has(objectId)) items.set(objectId, edgeItem({ from, to, at }, 'deleted'));
    }
  }
  return items;
}

/** A way for which a token was minted of whose time the log no longer tells. */
interface OldWay {
  from: string;
  to: string;
  /** When the first of them was minted. */
  mintedAt: number;
}

/** When the last event that was pruned happened; 0 where none was. */
async function readPrunedAt({ db, tables: { eventAnchor: a } }: Rows): Promise<number> {
  const [anchor] = await db.select({ at: a.at }).from(a);
  return anchor?.at ?? 0;
}

/** Ways there are no more, or again, of which the log no longer knows: tokens live longer than it is kept. */
async function prunedEdgeItems(
  { db, tables: { machineScopes: e } }: Rows,
  ways: ReadonlyMap<string, OldWay>,
  known: ReadonlyMap<string, SnapshotItem>,
  prunedAt: number,
): Promise<SnapshotItem[]> {
  const unknown = [...ways].flatMap(([id, way]) => (known.has(id) ? [] : [way]));
  const senders = [...new Set(unknown.map(({ from }) => from))];
  const createdAts = new Map<string, number>();
  for (let i = 0; i < senders.length; i += IN_MAX) {
    const edges = await db
      .select({ from: e.from_machine_id, to: e.to_machine_id, createdAt: e.created_at })
      .from(e)
      .where(inArray(e.from_machine_id, senders.slice(i, i + IN_MAX)));
    for (const { from, to, createdAt } of edges) createdAts.set(`${from}:${to}`, createdAt);
    await nextTurn();
  }
  return unknown.flatMap(({ from, to, mintedAt }) => {
    const createdAt = createdAts.get(`${from}:${to}`);
    if (createdAt !== undefined && createdAt <= mintedAt) return [];
    return [edgeItem({ from, to, at: createdAt ?? prunedAt }, 'deleted')];
  });
}

function edgeItem(
  { from, to, at }: { from: string; to: string; at: number },
  reason: 'changed' | 'deleted',
): SnapshotItem {
  const selector = { fromMachineId: from, toMachineId: to };
  return { to: [to], data: { at, kind: 'machine_scope', selector, reason } };
}

/** The events of one type, newest first, in pages. */
async function* loggedEvents(
  { db, tables: { events: e } }: Rows,
  type: EventType,
  since: number,
): AsyncGenerator<Event[]> {
  for (let before = Number.MAX_SAFE_INTEGER; ; await nextTurn()) {
    const page = await db
      .select()
      .from(e)
      .where(and(eq(e.type, type), lt(e.seq, before)))
      .orderBy(desc(e.seq))
      .limit(IN_MAX);
    const recent = page.filter(({ at }) => at >= since);
    if (recent.length > 0) yield recent.map(toEvent);
    if (recent.length < IN_MAX) return;
    before = recent.at(-1)?.seq ?? 0;
  }
}

/**
 * Revoked tokens that have not expired, by their expiry; and machines that are gone, by the tokens they left. With them,
 * by `from:to`, for whom tokens that are still good were minted until `prunedAt`.
 */
async function tokenItems(
  rows: Rows,
  now: number,
  prunedAt: number,
): Promise<{ items: SnapshotItem[]; ways: Map<string, OldWay> }> {
  const items: SnapshotItem[] = [];
  const ways = new Map<string, OldWay>();
  const orphaned = new Map<string, { until: number; to: Set<string> }>();
  for (let after: TokenKey | null = { expiresAt: now, id: '' }; after; await nextTurn()) {
    const last = await lastOfWindow(rows, 'm2mTokens', after);
    for (const token of await notableTokens(rows, after, last, prunedAt)) {
      const { id, machineId, audience, createdAt, expiresAt, revokedAt } = token;
      if (token.isOrphaned) {
        const orphans = orphaned.get(machineId) ?? { until: 0, to: new Set() };
        orphaned.set(machineId, orphans);
        orphans.until = Math.max(orphans.until, expiresAt);
        for (const machine of audience) orphans.to.add(machine);
      } else if (revokedAt !== null) {
        items.push({
          to: audience,
          data: { at: revokedAt, kind: 'm2m_token', id, reason: 'revoked', until: expiresAt },
        });
      } else {
        for (const to of audience) {
          const way = `${machineId}:${to}`;
          const mintedAt = Math.min(createdAt, ways.get(way)?.mintedAt ?? createdAt);
          ways.set(way, { from: machineId, to, mintedAt });
        }
      }
    }
    after = last;
  }
  for (const [id, { until, to }] of orphaned) {
    const selector = { machineId: id };
    items.push({ to: [...to], data: { at: now, kind: 'machine', id, selector, reason: 'deleted', until } });
  }
  return { items, ways };
}

interface TokenKey {
  expiresAt: number;
  id: string;
}

/** The last of the next `WINDOW` tokens by expiry, or null when there are not so many. */
async function lastOfWindow(
  { db, tables }: Rows,
  of: 'm2mTokens' | 'oauthTokens',
  after: TokenKey,
): Promise<TokenKey | null> {
  const t = tables[of] as Rows['tables']['m2mTokens'];
  const [last] = await db
    .select({ expiresAt: t.expires_at, id: t.id })
    .from(t)
    .where(sql`(${t.expires_at}, ${t.id}) > (${after.expiresAt}, ${after.id})`)
    .orderBy(asc(t.expires_at), asc(t.id))
    .limit(1)
    .offset(WINDOW - 1);
  return last ?? null;
}

/** Of the tokens of a window those that have ended, or are older than what the log tells of. */
async function notableTokens(
  { db, tables: { m2mTokens: t, machines: m } }: Rows,
  after: TokenKey,
  last: TokenKey | null,
  prunedAt: number,
) {
  const found = await db
    .select({
      id: t.id,
      machineId: t.machine_id,
      audience: t.audience,
      createdAt: t.created_at,
      expiresAt: t.expires_at,
      revokedAt: t.revoked_at,
      sender: m.id,
    })
    .from(t)
    .leftJoin(m, eq(m.id, t.machine_id))
    .where(
      and(isInWindow(t, after, last), or(isNotNull(t.revoked_at), isNull(m.id), lte(t.created_at, prunedAt))),
    );
  return found.map(({ sender, ...row }) => ({ ...row, isOrphaned: sender === null }));
}

function isInWindow(t: { expires_at: Column; id: Column }, after: TokenKey, last: TokenKey | null) {
  return and(
    sql`(${t.expires_at}, ${t.id}) > (${after.expiresAt}, ${after.id})`,
    last ? sql`(${t.expires_at}, ${t.id}) <= (${last.expiresAt}, ${last.id})` : undefined,
  );
}

/** Applications that are disabled, and those of which all tokens were revoked at once: a selector each. */
async function applicationItems({ db, tables: { oauthApplications: a } }: Rows): Promise<SnapshotItem[]> {
  const items: SnapshotItem[] = [];
  for (let after = ''; ; await nextTurn()) {
    const page = await db
      .select({ id: a.id, enabled: a.enabled, revokedAt: a.tokens_revoked_at, updatedAt: a.updated_at })
      .from(a)
      .where(gt(a.id, after))
      .orderBy(asc(a.id))
      .limit(IN_MAX);
    for (const { id, enabled, revokedAt, updatedAt } of page) {
      if (revokedAt !== null) items.push(applicationItem(id, revokedAt, 'revoked'));
      if (!enabled) items.push(applicationItem(id, updatedAt, 'disabled'));
    }
    if (page.length < IN_MAX) return items;
    after = page.at(-1)?.id ?? '';
  }
}

const applicationItem = (
  id: string,
  at: number,
  reason: 'revoked' | 'disabled' | 'deleted',
  until?: number,
): SnapshotItem => ({
  to: 'key_verifiers',
  data: {
    at,
    kind: 'oauth_application',
    id,
    selector: { applicationId: id },
    reason,
    ...(until !== undefined && { until }),
  },
});

/**
 * Of access tokens that have not expired, by their expiry: those that were revoked; the grants that were, the applications
 * that are gone and the users who are disabled, each once however many tokens they have left.
 */
async function oauthTokenItems(rows: Rows, now: number): Promise<SnapshotItem[]> {
  const tokens: SnapshotItem[] = [];
  const shared = new Map<string, SnapshotItem>();
  for (let after: TokenKey | null = { expiresAt: now, id: '' }; after; await nextTurn()) {
    const last = await lastOfWindow(rows, 'oauthTokens', after);
    for (const token of await endedOauthTokens(rows, after, last)) {
      if (token.revokedAt !== null) tokens.push(oauthTokenItem(token, token.revokedAt));
      else for (const item of sharedItemsOf(token, now)) shared.set(item.data.id ?? '', item);
    }
    after = last;
  }
  return [...tokens, ...shared.values()];
}

type EndedOauthToken = Awaited<ReturnType<typeof endedOauthTokens>>[number];

const oauthTokenItem = ({ id, expiresAt }: EndedOauthToken, at: number): SnapshotItem => ({
  to: 'key_verifiers',
  data: { at, kind: 'oauth_token', id, reason: 'revoked', until: expiresAt },
});

/** Read in the order of expiry, so that the last of several lives longest. */
function sharedItemsOf(token: EndedOauthToken, now: number): SnapshotItem[] {
  const { applicationId, grantId, subject, expiresAt: until } = token;
  const items: SnapshotItem[] = [];
  if (token.isOrphaned) items.push(applicationItem(applicationId, now, 'deleted', until));
  if (token.isUserDisabled)
    items.push({
      to: 'key_verifiers',
      data: { at: now, kind: 'subject', id: subject, selector: { subject }, reason: 'disabled' },
    });
  if (grantId !== null && token.isGrantOver)
    items.push({
      to: 'key_verifiers',
      data: {
        at: token.grantRevokedAt ?? now,
        kind: 'oauth_grant',
        id: grantId,
        selector: { grantId, subject, applicationId },
        reason: 'revoked',
        until,
      },
    });
  return items;
}

/** Of the tokens of a window those that are not valid any more (oauth-token-rows.ts), but for what is told of their application. */
async function endedOauthTokens({ db, tables }: Rows, after: TokenKey, last: TokenKey | null) {
  const { oauthTokens: t, oauthApplications: a, oauthGrants: g, users: u } = tables;
  const found = await db
    .select({
      id: t.id,
      applicationId: t.application_id,
      grantId: t.grant_id,
      subject: t.subject,
      expiresAt: t.expires_at,
      revokedAt: t.revoked_at,
      foundApplication: a.id,
      foundGrant: g.id,
      grantRevokedAt: g.revoked_at,
      userEnabled: u.enabled,
    })
    .from(t)
    .leftJoin(a, eq(a.id, t.application_id))
    .leftJoin(g, eq(g.id, t.grant_id))
    .leftJoin(u, eq(u.id, t.subject))
    .where(
      and(
        isInWindow(t, after, last),
        or(
          isNotNull(t.revoked_at),
          isNull(a.id),
          isNotNull(g.revoked_at),
          and(isNotNull(t.grant_id), isNull(g.id)),
          eq(u.enabled, false),
        ),
      ),
    );
  return found.map(({ foundApplication, foundGrant, userEnabled, ...token }) => ({
    ...token,
    isOrphaned: foundApplication === null,
    isGrantOver: token.grantRevokedAt !== null || foundGrant === null,
    isUserDisabled: userEnabled === false,
  }));
}

/**
 * Keys that were revoked or disabled and are still there, as the log has it: a subject whose keys were revoked all at
 * once is one selector. Older than they are kept there is none; and nobody remembers an answer about an opaque value
 * for that long.
 */
async function apiKeyItems(rows: Rows, now: number): Promise<SnapshotItem[]> {
  const since = now - RETENTION_SECONDS * 1000;
  const items = new Map<string, SnapshotItem>();
  for await (const page of loggedEvents(rows, 'subject.api_keys_revoked', since)) {
    for (const { objectId: subject, at } of page) {
      const data = { at, kind: 'api_key', selector: { subject }, reason: 'revoked' } as const;
      if (!items.has(subject)) items.set(subject, { to: 'key_verifiers', data });
    }
  }
  for (const type of ['api_key.revoked', 'api_key.disabled'] as const) {
    for await (const page of loggedEvents(rows, type, since)) {
      const ended = await endedKeys(rows, [...new Set(page.map(({ objectId }) => objectId))], now);
      for (const data of ended) items.set(data.id ?? '', { to: 'key_verifiers', data });
    }
  }
  return [...items.values()];
}

async function endedKeys(
  { db, tables: { apiKeys: a } }: Rows,
  ids: string[],
  now: number,
): Promise<Invalidation[]> {
  const found = await db
    .select({ id: a.id, expiresAt: a.expires_at, revokedAt: a.revoked_at, updatedAt: a.updated_at })
    .from(a)
    .where(
      and(
        inArray(a.id, ids),
        or(isNull(a.expires_at), gt(a.expires_at, now)),
        or(isNotNull(a.revoked_at), eq(a.enabled, false)),
      ),
    );
  return found.map(({ id, expiresAt, revokedAt, updatedAt }) => ({
    at: revokedAt ?? updatedAt,
    kind: 'api_key',
    id,
    reason: revokedAt === null ? 'disabled' : 'revoked',
    ...(expiresAt !== null && { until: expiresAt }),
  }));
}

async function subjectItems(rows: Rows): Promise<SnapshotItem[]> {
  const { db, tables } = rows;
  const { subjects: u } = tables;
  const items = new Map<string, SnapshotItem>();
  for await (const page of loggedEvents(rows, 'subject.disabled', 0)) {
    const ids = [...new Set(page.map(({ objectId }) => objectId))];
    const disabled = await db
      .select({ id: u.id, at: u.updated_at })
      .from(u)
      .where(and(inArray(u.id, ids), eq(u.enabled, false)));
    for (const { id, at } of disabled)
      items.set(id, {
        to: 'key_verifiers',
        data: { at, kind: 'subject', id, selector: { subject: id }, reason: 'disabled' },
      });
  }
  return [...items.values()];
}
