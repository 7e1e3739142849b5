/** Signing keys: published as upcoming, then active, retiring while tokens they signed live, and retired. */
import { and, asc, desc, eq, isNull, placeholder, sql } from 'drizzle-orm';
import { z } from 'zod';
import { forShare } from '../../db/kit.ts';
import { lockInstallation } from '../../db/lock.ts';
import { flatStatement } from '../../db/statement.ts';
import type { DurableLane, Rows, Store } from '../../db/store.ts';
import { rowMac } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import {
  generateSigningKey,
  importKey,
  openSigningKey,
  type PrivateSigningKey,
  type PublicJwk,
  SIGNING_ALGS,
  type SigningAlg,
  type SigningKey,
} from '../crypto/jwt.ts';
import type { Keyring } from '../crypto/keyring.ts';
import type { Caller, Deps, ReadingDeps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { change, type NewEvent } from './events.ts';
import { description, signingKeyId } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { createKeptSet } from './kept-set.ts';
import { hasExpired } from './secrets.ts';

export interface SigningKeySummary {
  kid: string;
  alg: SigningAlg;
  state: 'upcoming' | 'active' | 'retiring' | 'retired';
  createdAt: number;
  activatedAt: number | null;
  retiredAt: number | null;
}

type SigningKeyRow = Rows['tables']['signingKeys']['$inferSelect'];

/** The signing keys in memory, read again when a `kid` is unknown or the set has grown old. */
export interface Signer {
  /** The key that signs now, as far as is known; a key known to sign no longer has the set read again. */
  active(supersededKid?: string): Promise<PrivateSigningKey>;
  /** The key with this id, or null. It may be a retired one: what such a key signed is for its row to judge. */
  find(kid: string): Promise<SigningKey | null>;
  /** RFC 7517, section 5. */
  jwks(): Promise<{ keys: PublicJwk[] }>;
  /** Has the set read before it is used again: a key in it changed. */
  forget(): void;
}

/** How old the set may be, and how often unknown `kid`s may cause it to be read. */
const REREAD_MS = 5_000;
const UNKNOWN_KID_REREAD_MS = 500;

interface KeySet {
  readAt: number;
  active: PrivateSigningKey;
  all: ReadonlyMap<string, SigningKey>;
  jwks: { keys: PublicJwk[] };
}

export function createSigner(store: Store, keyring: Keyring, clock = () => performance.now()): Signer {
  const kept = createKeptSet((readAt) => readKeySet(store.read, keyring, readAt), clock);
  let sought: { at: number; set: Promise<KeySet> } | undefined;

  const keySet = () => kept.get(REREAD_MS);

  /**
   * The set for a `kid` that is not in it, read anew however young it is: another process may have made the key a moment
   * ago. Whoever makes up `kid`s has it read no oftener for that.
   */
  function seek(): Promise<KeySet> {
    if (sought && clock() - sought.at < UNKNOWN_KID_REREAD_MS) return sought.set;
    const begun = { at: clock(), set: kept.read() };
    begun.set.catch(() => {
      if (sought === begun) sought = undefined;
    });
    sought = begun;
    return begun.set;
  }

  return {
    async active(supersededKid) {
      const { active } = await keySet();
      return active.kid === supersededKid ? (await kept.get(0)).active : active;
    },
    async find(kid) {
      const found = (await keySet()).all.get(kid);
      return found ?? (await seek()).all.get(kid) ?? null;
    },
    jwks: async () => (await keySet()).jwks,
    forget: kept.forget,
  };
}

async function readKeySet({ db, tables }: Rows, keyring: Keyring, readAt: number): Promise<KeySet> {
  const rows = await db.select().from(tables.signingKeys);
  const genuine = rows.filter((row) => isGenuine(keyring, row));
  const activeRow = genuine.find((row) => row.state === 'active');
  if (!activeRow) throw new Error('No signing key is active, or its row was written by somebody else');
  const privateJwk = JSON.parse(
    keyring.unseal(sealPlace(activeRow.kid), activeRow.sealed_private_jwk).toString(),
  );
  const all = new Map<string, SigningKey>();
  for (const { kid, alg, public_jwk } of genuine)
    all.set(kid, { kid, alg, key: await importKey(public_jwk, alg) });
  const published = genuine.filter((row) => row.state !== 'retired');
  return {
    readAt,
    active: openSigningKey(activeRow.kid, activeRow.alg, privateJwk),
    all,
    jwks: { keys: published.map(({ kid, alg, public_jwk }) => ({ ...public_jwk, kid, alg, use: 'sig' })) },
  };
}

const readState = flatStatement<{ kid: string }, { state: SigningKeyRow['state'] }>(
  'signing_key_state',
  (db, { signingKeys: k }) => {
    const fields = { state: k.state };
    const query = db
      .select(fields)
      .from(k)
      .where(eq(k.kid, placeholder('kid')));
    return { fields, query: forShare(query) };
  },
);

/** Whether a key is the one that signs. If so it remains it until the transaction ends. */
export async function isStillActive(tx: Rows, kid: string): Promise<boolean> {
  const [key] = await readState(tx, { kid });
  return key?.state === 'active';
}

/** Makes a key pair in a state; the private half leaves this function only sealed. */
export async function insertSigningKey(
  tx: Rows,
  keyring: Keyring,
  pair: Awaited<ReturnType<typeof generateSigningKey>>,
  { kid, alg, state, now }: { kid: string; alg: SigningAlg; state: 'upcoming' | 'active'; now: number },
): Promise<SigningKeyRow> {
  const row = {
    kid,
    alg,
    state,
    public_jwk: pair.publicJwk,
    created_at: now,
    activated_at: state === 'active' ? now : null,
    retired_at: null,
  };
  const sealed_private_jwk = keyring.seal(sealPlace(kid), JSON.stringify(pair.privateJwk));
  const sealed = { ...row, sealed_private_jwk, mac: signingKeyMac(keyring, row) };
  await tx.db.insert(tx.tables.signingKeys).values(sealed);
  return sealed;
}

const sealPlace = (kid: string) => `signing_keys.sealed_private_jwk.${kid}`;

function signingKeyMac(
  keyring: Keyring,
  row: Pick<SigningKeyRow, 'kid' | 'alg' | 'state' | 'public_jwk' | 'retired_at'>,
): Buffer {
  const columns = ['signing_keys', row.kid, row.alg, row.state, JSON.stringify(row.public_jwk)];
  // Tokens are judged by the instant: moved, it would bring those of a leaked key back to life.
  return rowMac(keyring.rowMac, row.retired_at === null ? columns : [...columns, row.retired_at]);
}

/** A row that somebody else wrote to is nobody's: it neither signs nor verifies, and no command touches it. */
const isGenuine = (keyring: Keyring, row: SigningKeyRow) => row.mac.equals(signingKeyMac(keyring, row));

/** Everybody who verifies by the JWKS reads all of it. */
const PUBLISHED_KEYS_MAX = 20;

/** How long others may keep the JWKS; `hot.ts` says so in its answer. */
export const JWKS_MAX_AGE_SECONDS = 60;

/** Clerk's SDK keeps a JWKS for five minutes, whatever the answer says. */
const CLERK_JWKS_AGE_MS = 300_000;

/** After this long everybody knows a new key: those who heard of it from a server that had not read it yet, last. */
const PUBLISHED_MS_MIN = REREAD_MS + JWKS_MAX_AGE_SECONDS * 1000 + CLERK_JWKS_AGE_MS;

export const createSigningKeyInput = z.strictObject({
  /** Without it, that of the key that signs now. */
  alg: z.enum(SIGNING_ALGS).optional(),
  ...idempotencyInput,
});

/** Makes an upcoming key: published from now on, so that everybody knows it when it is activated. */
export async function createSigningKey(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createSigningKeyInput>,
): Promise<SigningKeySummary> {
  const alg = input.alg ?? (await deps.signer.active()).alg;
  const pair = await generateSigningKey(alg);
  const created = await create(deps, caller, { procedure: 'signingKeys.create', input }, async (tx) => {
    assertRoom(await lockKeys(tx));
    const now = deps.now();
    const kid = sortableId('key_', now);
    const row = await insertSigningKey(tx, deps.keyring, pair, { kid, alg, state: 'upcoming', now });
    return {
      result: toSummary(row),
      event: { type: 'signing_key.created', objectId: kid, data: { alg } },
    };
  });
  deps.signer.forget();
  return created;
}

export const activateSigningKeyInput = z.strictObject({
  kid: signingKeyId.meta({ positional: true }),
  /** Even if there may be some who verify by a JWKS in which the key is not yet. */
  force: z.boolean().default(false),
});

/**
 * Has an upcoming key sign from now on; the one that did is retiring. An active key is answered as it stands. Throws
 * `too_early` while the key may be unknown to those who keep the JWKS, unless forced.
 */
export async function activateSigningKey(
  deps: Deps,
  caller: Caller,
  { kid, force }: z.output<typeof activateSigningKeyInput>,
): Promise<SigningKeySummary> {
  return changeKeys(deps, caller, async (tx, keys) => {
    const key = keyOf(deps, keys, kid);
    if (key.state === 'active') return { result: key, event: null };
    assertState('activate', key, ['upcoming']);
    const now = deps.now();
    if (!force) assertEverybodyKnows(key, now);
    return activate(tx, deps, keys, key);
  });
}

async function activate(
  tx: Rows,
  deps: Deps,
  keys: SigningKeyRow[],
  key: SigningKeyRow,
): Promise<{ result: SigningKeyRow; event: NewEvent }> {
  const previous = keys.find(({ state }) => state === 'active');
  if (previous) await moveKey(tx, deps.keyring, previous, { state: 'retiring' });
  const result = await moveKey(tx, deps.keyring, key, { state: 'active', activated_at: deps.now() });
  const data = { alg: key.alg, previousKid: previous?.kid ?? null };
  return { result, event: { type: 'signing_key.activated', objectId: key.kid, data } };
}

export const retireSigningKeyInput = z.strictObject({ kid: signingKeyId.meta({ positional: true }) });

/**
 * Takes a key that signs no longer, or not yet, out of the JWKS for good. A retired key is answered as it stands.
 * Throws `too_early` until the last token it signed has expired.
 */
export async function retireSigningKey(
  deps: Deps,
  caller: Caller,
  { kid }: z.output<typeof retireSigningKeyInput>,
): Promise<SigningKeySummary> {
  return changeKeys(deps, caller, async (tx, keys) => {
    const key = keyOf(deps, keys, kid);
    if (key.state === 'retired') return { result: key, event: null };
    assertState('retire', key, ['retiring', 'upcoming']);
    const now = deps.now();
    if (key.state === 'retiring') await assertNothingLives(tx, kid, now);
    const result = await moveKey(tx, deps.keyring, key, { state: 'retired', retired_at: now });
    return { result, event: { type: 'signing_key.retired', objectId: kid, data: { alg: key.alg } } };
  });
}

export const emergencyRetireSigningKeyInput = z.strictObject({
  kid: signingKeyId.meta({ positional: true }),
  reason: description.nullish(),
});

/**
 * Retires a key whatever its state, because others may have its private half: no token it signed verifies any more. If
 * it was the one that signs, the upcoming key published longest takes over, or else a new one of the same algorithm. A
 * retired key is answered as it stands.
 */
export async function emergencyRetireSigningKey(
  deps: Deps,
  caller: Caller,
  { kid, reason }: z.output<typeof emergencyRetireSigningKeyInput>,
): Promise<SigningKeySummary> {
  const found = keyOf(deps, await readKeys(deps.store.read), kid);
  // Made before it is known whether it is needed: a transaction waits for nothing but the database.
  const spare = await generateSigningKey(found.alg);
  return changeKeys(
    deps,
    caller,
    async (tx, keys) => {
      const key = keyOf(deps, keys, kid);
      if (key.state === 'retired') return { result: key, event: null };
      const now = deps.now();
      const result = await moveKey(tx, deps.keyring, key, { state: 'retired', retired_at: now });
      const successor =
        key.state === 'active' ? await succeed(tx, deps, keys, { spare, alg: key.alg }) : null;
      const data = {
        alg: key.alg,
        reason: reason ?? null,
        successorKid: successor?.kid ?? null,
        selector: { signingKeyId: kid },
      };
      return { result, event: { type: 'signing_key.emergency_retired', objectId: kid, data } };
    },
    'revocation',
  );
}

async function succeed(
  tx: Rows,
  deps: Deps,
  keys: SigningKeyRow[],
  { spare, alg }: { spare: Awaited<ReturnType<typeof generateSigningKey>>; alg: SigningAlg },
): Promise<SigningKeyRow> {
  const now = deps.now();
  const upcoming = keys.find((key) => key.state === 'upcoming' && isGenuine(deps.keyring, key));
  if (upcoming) return moveKey(tx, deps.keyring, upcoming, { state: 'active', activated_at: now });
  const kid = sortableId('key_', now);
  return insertSigningKey(tx, deps.keyring, spare, { kid, alg, state: 'active', now });
}

/** One change of the keys; what this process has of them in memory is read again. */
async function changeKeys(
  deps: Deps,
  caller: Caller,
  work: (tx: Rows, keys: SigningKeyRow[]) => Promise<{ result: SigningKeyRow; event: NewEvent | null }>,
  lane?: DurableLane,
): Promise<SigningKeySummary> {
  const key = await change(deps, caller, async (tx) => work(tx, await lockKeys(tx)), lane);
  deps.signer.forget();
  return toSummary(key);
}

/** Which of the keys signs is a question about all: those who change any take turns, on the installation's one row. */
async function lockKeys(tx: Rows): Promise<SigningKeyRow[]> {
  await lockInstallation(tx, 1);
  return readKeys(tx);
}

/** Every key, the oldest first. */
const readKeys = ({ db, tables: { signingKeys: k } }: Rows): Promise<SigningKeyRow[]> =>
  db.select().from(k).orderBy(asc(k.created_at), asc(k.kid));

function keyOf({ keyring }: Deps, keys: SigningKeyRow[], kid: string): SigningKeyRow {
  const found = keys.find((key) => key.kid === kid && isGenuine(keyring, key));
  if (found) return found;
  throw new CountersignError('not_found', `No signing key has the id '${kid}'`, { field: 'kid' });
}

/** A row that was not genuine does not become so by being moved. */
async function moveKey(
  { db, tables: { signingKeys: k } }: Rows,
  keyring: Keyring,
  key: SigningKeyRow,
  change: Pick<SigningKeyRow, 'state'> & Partial<Pick<SigningKeyRow, 'activated_at' | 'retired_at'>>,
): Promise<SigningKeyRow> {
  const moved = { ...key, ...change };
  const mac = isGenuine(keyring, key) ? signingKeyMac(keyring, moved) : key.mac;
  await db
    .update(k)
    .set({ ...change, mac })
    .where(eq(k.kid, key.kid));
  return { ...moved, mac };
}

function assertRoom(keys: SigningKeyRow[]) {
  const published = keys.filter(({ state }) => state !== 'retired').length;
  if (published < PUBLISHED_KEYS_MAX) return;
  throw new CountersignError(
    'limit_reached',
    `Cannot create signing key: at most ${PUBLISHED_KEYS_MAX} may be published, there are ${published}`,
  );
}

function assertState(verb: string, key: SigningKeyRow, wanted: SigningKeyRow['state'][]) {
  if (wanted.includes(key.state)) return;
  throw new CountersignError(
    'wrong_state',
    `Cannot ${verb} signing key '${key.kid}': it must be ${wanted.join(' or ')}, and is ${key.state}`,
  );
}

function assertEverybodyKnows(key: SigningKeyRow, now: number) {
  const knownAt = key.created_at + PUBLISHED_MS_MIN;
  if (knownAt <= now) return;
  throw new CountersignError(
    'too_early',
    `Cannot activate signing key '${key.kid}': those who keep the JWKS may not know it until ${iso(knownAt)}; 'force' activates it all the same`,
  );
}

/** Revoked tokens count too: those who verify by the JWKS alone would be right to complain of an unknown key. */
async function assertNothingLives(tx: Rows, kid: string, now: number) {
  const lastExpiresAt = await lastExpiryOf(tx, kid);
  if (lastExpiresAt === null || hasExpired(lastExpiresAt, now)) return;
  throw new CountersignError(
    'too_early',
    `Cannot retire signing key '${kid}': the last token it signed lives until ${iso(lastExpiresAt)}`,
  );
}

/** When the last JWT that a key signed is over, of whichever kind; null where there is none. */
async function lastExpiryOf(rows: Rows, kid: string): Promise<number | null> {
  const { m2mTokens, oauthTokens } = rows.tables;
  const lasts = [await lastExpiryIn(rows, m2mTokens, kid), await lastExpiryIn(rows, oauthTokens, kid)];
  const known = lasts.filter((last) => last !== null);
  return known.length > 0 ? Math.max(...known) : null;
}

/** One look into an index each; a JWT of which it was not noted which key signs it may be of any. */
async function lastExpiryIn(
  { db }: Rows,
  table: Rows['tables']['m2mTokens' | 'oauthTokens'],
  kid: string,
): Promise<number | null> {
  const t = table as Rows['tables']['m2mTokens'];
  let last: number | null = null;
  for (const signedBy of [eq(t.signing_kid, kid), isNull(t.signing_kid)]) {
    const [token] = await db
      .select({ expiresAt: t.expires_at })
      .from(t)
      // The index has this condition, and SQLite only sees that it is met where it is written out.
      .where(and(signedBy, sql`${t.format} = 'jwt'`))
      .orderBy(desc(t.expires_at))
      .limit(1);
    if (token && token.expiresAt > (last ?? 0)) last = token.expiresAt;
  }
  return last;
}

/** How long before it signs the next key is published: far longer than anybody keeps a JWKS. */
export const PUBLISHED_AHEAD_MS = 24 * 3_600_000;

const ROTATION: Caller = { principal: { kind: 'system', id: 'key-rotation' }, requestId: 'key-rotation' };

/**
 * Does whatever of these is due: publishes the next key a day before it is to sign, activates it when the present one has
 * signed for 30 days, and retires keys of which the last token has expired. Answers how many of these were done; called
 * again, or by several processes at once, each is done once. An upcoming key that an admin made is the next one.
 */
export async function rotateSigningKeys(deps: Deps): Promise<number> {
  let done = 0;
  if (isNextMissing(deps, await readKeys(deps.store.read)) && (await publishNext(deps))) done++;
  if (nextToActivate(deps, await readKeys(deps.store.read)) && (await activateNext(deps))) done++;
  for (const { kid, state } of await readKeys(deps.store.read))
    if (state === 'retiring' && (await retireSpent(deps, kid))) done++;
  return done;
}

const genuineOf = ({ keyring }: Deps, keys: SigningKeyRow[], state: SigningKeyRow['state']) =>
  keys.filter((key) => key.state === state && isGenuine(keyring, key));

/** When the key that signs has done so for long enough. */
function rotatesAt(deps: Deps, keys: SigningKeyRow[]): number {
  const [active] = genuineOf(deps, keys, 'active');
  return active ? (active.activated_at ?? active.created_at) + deps.keyRotationMs : Number.POSITIVE_INFINITY;
}

const isNextMissing = (deps: Deps, keys: SigningKeyRow[]) =>
  rotatesAt(deps, keys) - PUBLISHED_AHEAD_MS <= deps.now() && genuineOf(deps, keys, 'upcoming').length === 0;

/** The upcoming key published longest, once everybody knows it and it is its turn. */
function nextToActivate(deps: Deps, keys: SigningKeyRow[]): SigningKeyRow | undefined {
  const [next] = genuineOf(deps, keys, 'upcoming');
  const now = deps.now();
  if (!next || rotatesAt(deps, keys) > now) return undefined;
  return next.created_at + PUBLISHED_AHEAD_MS <= now ? next : undefined;
}

/** The pair is made before it is certain that it is needed: a transaction waits for nothing but the database. */
async function publishNext(deps: Deps): Promise<boolean> {
  const { alg } = await deps.signer.active();
  const pair = await generateSigningKey(alg);
  return rotateOnce(deps, async (tx, keys) => {
    if (!isNextMissing(deps, keys)) return null;
    assertRoom(keys);
    const now = deps.now();
    const kid = sortableId('key_', now);
    await insertSigningKey(tx, deps.keyring, pair, { kid, alg, state: 'upcoming', now });
    return { type: 'signing_key.created', objectId: kid, data: { alg } };
  });
}

function activateNext(deps: Deps): Promise<boolean> {
  return rotateOnce(deps, async (tx, keys) => {
    const next = nextToActivate(deps, keys);
    return next ? (await activate(tx, deps, keys, next)).event : null;
  });
}

function retireSpent(deps: Deps, kid: string): Promise<boolean> {
  return rotateOnce(deps, async (tx, keys) => {
    const key = genuineOf(deps, keys, 'retiring').find((each) => each.kid === kid);
    const now = deps.now();
    if (!key) return null;
    const lastExpiresAt = await lastExpiryOf(tx, kid);
    if (lastExpiresAt !== null && !hasExpired(lastExpiresAt, now)) return null;
    await moveKey(tx, deps.keyring, key, { state: 'retired', retired_at: now });
    return { type: 'signing_key.retired', objectId: kid, data: { alg: key.alg } };
  });
}

async function rotateOnce(
  deps: Deps,
  work: (tx: Rows, keys: SigningKeyRow[]) => Promise<NewEvent | null>,
): Promise<boolean> {
  const changed = await change(deps, ROTATION, async (tx) => {
    const event = await work(tx, await lockKeys(tx));
    return { result: event !== null, event };
  });
  if (changed) deps.signer.forget();
  return changed;
}

const iso = (instant: number) => new Date(instant).toISOString();

/** Every signing key there is, the newest first. */
export async function listSigningKeys(deps: Pick<ReadingDeps, 'store'>): Promise<SigningKeySummary[]> {
  const { db, tables } = deps.store.read;
  const rows = await db
    .select()
    .from(tables.signingKeys)
    .orderBy(desc(tables.signingKeys.created_at))
    .limit(500);
  return rows.map(toSummary);
}

function toSummary(row: SigningKeyRow): SigningKeySummary {
  return {
    kid: row.kid,
    alg: row.alg,
    state: row.state,
    createdAt: row.created_at,
    activatedAt: row.activated_at,
    retiredAt: row.retired_at,
  };
}
