/** M2M tokens: minted by a machine for the machines it may call, opaque or JWT, each with a row from minting on. */
import { and, asc, eq, gt, gte, inArray, isNull, lt, lte, or, placeholder, type SQL, sql } from 'drizzle-orm';
import { z } from 'zod';
import { flatStatement, statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { looksLikeJwt, PREFIXES, parseValue } from '../crypto/format.ts';
import { newValue } from '../crypto/hashing.ts';
import { hexId } from '../crypto/ids.ts';
import { type PrivateSigningKey, signM2mJwt, verifyM2mJwt } from '../crypto/jwt.ts';
import type { Caller, Deps, Principal } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { assertMayRevokeByValue } from './address-limits.ts';
import { change } from './events.ts';
import {
  claims,
  credential,
  description,
  m2mTokenId,
  machineId,
  SCOPES_MAX,
  scopes,
  TTL_SECONDS_MAX,
  ttlSeconds,
} from './fields.ts';
import { answeredBefore, idempotencyInput, keepAnswer, replay } from './idempotency.ts';
import { poolKey } from './m2m-token-pool.ts';
import { machineNotFound, revokeTokensIssued } from './machines.ts';
import { afterCursor, COUNT_MAX, orderOf, type Page, pageInput, searchPage } from './pages.ts';
import { type Address, hasExpired } from './secrets.ts';
import {
  expiresAfter,
  JWT_PAYLOAD_BYTES_MAX,
  maySign,
  type Signing,
  signingColumns,
  statusClaim,
  withSigning,
} from './token-signing.ts';

export interface M2mToken {
  id: string;
  /** The machine that minted it: whoever presents the token is that machine. */
  machineId: string;
  format: 'opaque' | 'jwt';
  /** The machines it is for. */
  audience: string[];
  scopes: string[];
  claims: Record<string, unknown> | null;
  state: 'live' | 'revoked' | 'expired';
  createdAt: number;
  expiresAt: number;
  revokedAt: number | null;
  revocationReason: string | null;
  lastUsedAt: number | null;
}

type TokenRow = Rows['tables']['m2mTokens']['$inferSelect'];
type Minter = Extract<Principal, { kind: 'machine' }>;

/** As many as a machine may have machine scopes. */
const AUDIENCE_MAX = 150;

export const createM2mTokenInput = z.strictObject({
  format: z.enum(['opaque', 'jwt']).default('opaque'),
  /** Without it, the machine's `defaultTokenTtlSeconds`. */
  ttlSeconds: ttlSeconds.optional(),
  claims: claims.nullish(),
  /** Without it, every machine the caller may call. */
  audience: z
    .array(machineId)
    .min(1)
    .max(AUDIENCE_MAX)
    .refine((list) => new Set(list).size === list.length, 'wanted each machine once')
    .optional(),
  /** Without it, all that the machine scopes to the audience allow. */
  scopes: scopes.optional(),
  /** Answers a token minted before for the very same request, if it has at least this much life left. */
  minRemainingTtlSeconds: z.number().int().min(0).max(TTL_SECONDS_MAX).optional(),
  /** With it a token is minted even where one of before would do. */
  ...idempotencyInput,
});

type CreateInput = z.output<typeof createM2mTokenInput>;

/**
 * Mints a token of the calling machine and answers its value this once. The machine, its secret and its machine scopes
 * are read in the transaction that writes the row; a JWT is signed only after the row is durable. Throws
 * `unauthenticated` when the machine or its secret went meanwhile, `scope_not_allowed` for an audience or scope that
 * no machine scope allows, `invalid_input` for a lifetime above the machine's maximum, `limit_reached` when it has as
 * many unexpired tokens as it may have, `rate_limited` when it asks for more in a minute than it may. A token that is
 * answered again counts for neither.
 */
export async function createM2mToken(
  deps: Deps,
  caller: Caller,
  input: CreateInput,
): Promise<M2mToken & { token?: string }> {
  const minter = minterOf(caller);
  const before = await answeredBefore<M2mToken>(deps, minter, creationOf(input));
  if (before) return before;
  const pooled = await pooledToken(deps, minter, input);
  if (pooled) return pooled;

  const value = input.format === 'opaque' ? newValue(PREFIXES.m2mToken).value : null;
  const minted = await mintCounted(deps, minter, input, value);
  if ('replayed' in minted) return minted.replayed;
  const { row, plan, jwt } = minted;

  if (value !== null && input.minRemainingTtlSeconds !== undefined) {
    deps.pool.set(poolKeyOf(minter, input, plan), { id: row.id, value, expiresAt: row.expires_at });
  }
  const token = jwt ? await signM2mJwt(jwt.signingKey, jwt.claims) : (value ?? '');
  // Not a copy with the token in it: V8 would allocate that among the long lived (docs/decisions/0016).
  return Object.assign(asMinted(row, deps.now()), { token });
}

const creationOf = (input: CreateInput) => ({ procedure: 'm2mTokens.create', input }) as const;

const asMinted = (row: TokenRow, now: number) =>
  toM2mToken(row, { generation: row.generation, tokensRevokedAt: null }, now);

interface Minted {
  row: TokenRow;
  plan: Plan;
  /** What is to be signed, as JSON, and by which key; null for an opaque token. */
  jwt: { claims: string; signingKey: PrivateSigningKey } | null;
}

/** Mints if the machine may have one more token now, and counts it. What was refused afterwards counts as asked for. */
async function mintCounted(
  deps: Deps,
  minter: Minter,
  input: CreateInput,
  value: string | null,
): Promise<Minted | { replayed: M2mToken }> {
  const release = await admit(deps, minter);
  try {
    const minted = await mint(deps, minter, input, value);
    if ('row' in minted) deps.mintCounts.count(minter.id, minted.row.expires_at, deps.now());
    return minted;
  } finally {
    release();
  }
}

/** Answers how to let go of the place that the machine has until its token is counted. */
async function admit(deps: Deps, { id }: Minter): Promise<() => void> {
  const admission = await deps.mintCounts.admit(deps.store, id, deps.now());
  // A machine that was deleted meanwhile: planning says so.
  if (!admission) return () => {};
  if (!admission.admitted) {
    const { live, liveMax } = admission;
    throw new CountersignError(
      'limit_reached',
      `Cannot create token: the machine may have ${liveMax} unexpired tokens at a time, and has ${live}`,
    );
  }
  const { release, mintsPerMinuteMax: count } = admission;
  const { allowed, retryAfterMs } = await deps.limits.consume(`mint:${id}`, { count, windowSeconds: 60 }, 1);
  if (allowed) return release;
  release();
  throw new CountersignError(
    'rate_limited',
    `Cannot create token: the machine may mint ${count} in a minute, the next in ${retryAfterMs} ms`,
    { retryAfterMs },
  );
}

async function mint(
  deps: Deps,
  minter: Minter,
  input: CreateInput,
  value: string | null,
): Promise<Minted | { replayed: M2mToken }> {
  const creation = creationOf(input);
  return withSigning<Minted | { replayed: M2mToken }>(deps, input.format, (signing) =>
    deps.store.tx(async (tx) => {
      if (!(await maySign(tx, signing))) return null;
      const replayed = await replay<M2mToken>(tx, deps, minter, creation);
      if (replayed) return { replayed };
      const plan = await planToken(tx, deps, minter, input);
      const row = newRow(deps, minter, input, plan, { value, signing });
      const jwt = signing && { claims: jwtPayload(deps, row), signingKey: signing.key };
      await insertToken(tx, { ...row, claims: row.claims && JSON.stringify(row.claims) });
      await keepAnswer(tx, minter, creation, asMinted(row, deps.now()));
      return { row, plan, jwt };
    }, 'minting'),
  );
}

function minterOf({ principal }: Caller): Minter {
  if (principal.kind === 'machine') return principal;
  throw new CountersignError('forbidden', 'Only a machine may mint M2M tokens, with its own secret');
}

interface MinterRow {
  enabled: boolean;
  generation: number;
  defaultTtlSeconds: number;
  maxTtlSeconds: number;
  secretRevokedAt: number | null;
  secretExpiresAt: number | null;
  /** Null where it may call nobody. */
  toMachineId: string | null;
  edgeScopes: string[] | null;
}

/** One row for each machine it may call. */
const readMinter = flatStatement<{ machineId: string; secretId: string }, MinterRow>(
  'm2m_token_minter',
  (db, { machines: m, secrets: s, machineScopes: e }) => {
    const fields = {
      enabled: m.enabled,
      generation: m.token_generation,
      defaultTtlSeconds: m.default_token_ttl_seconds,
      maxTtlSeconds: m.max_token_ttl_seconds,
      secretRevokedAt: s.revoked_at,
      secretExpiresAt: s.expires_at,
      toMachineId: e.to_machine_id,
      edgeScopes: e.scopes,
    };
    const query = db
      .select(fields)
      .from(m)
      .innerJoin(s, and(eq(s.id, placeholder('secretId')), eq(s.owner_kind, 'machine'), eq(s.owner_id, m.id)))
      .leftJoin(e, eq(e.from_machine_id, m.id))
      .where(eq(m.id, placeholder('machineId')))
      .orderBy(asc(e.to_machine_id));
    return { fields, query };
  },
);

const insertToken = flatStatement<Record<string, unknown>, object>(
  'm2m_token_insert',
  (db, { m2mTokens: t }) => ({
    fields: {},
    query: db.insert(t).values({
      id: placeholder('id'),
      machine_id: placeholder('machine_id'),
      format: placeholder('format'),
      hash: placeholder('hash'),
      pepper_version: placeholder('pepper_version'),
      secret_id: placeholder('secret_id'),
      signing_kid: placeholder('signing_kid'),
      generation: placeholder('generation'),
      audience: placeholder('audience'),
      scopes: placeholder('scopes'),
      // Past the column's encoder, which would write a null as the JSON `null`.
      claims: sql`${placeholder('claims')}`,
      created_at: placeholder('created_at'),
      expires_at: placeholder('expires_at'),
      status_list_id: placeholder('status_list_id'),
      status_index: placeholder('status_index'),
    }),
  }),
);

/** What a request comes to with the machine as it is now. */
interface Plan {
  generation: number;
  ttlSeconds: number;
  audience: string[];
  scopes: string[];
}

async function planToken(rows: Rows, deps: Deps, minter: Minter, input: CreateInput): Promise<Plan> {
  const found = await readMinter(rows, { machineId: minter.id, secretId: minter.secretId });
  const [machine] = found;
  const live =
    machine?.enabled && machine.secretRevokedAt === null && !hasExpired(machine.secretExpiresAt, deps.now());
  if (!live) {
    throw new CountersignError(
      'unauthenticated',
      'The machine was disabled or deleted, or its secret revoked, while it asked for a token',
    );
  }
  const edges = new Map<string, string[]>();
  for (const { toMachineId, edgeScopes } of found)
    if (toMachineId !== null) edges.set(toMachineId, edgeScopes ?? []);
  const audience = planAudience(edges, input.audience);
  return {
    generation: machine.generation,
    ttlSeconds: planTtl(machine, input),
    audience,
    scopes: planScopes(edges, audience, input.scopes),
  };
}

function planTtl(
  { defaultTtlSeconds, maxTtlSeconds }: { defaultTtlSeconds: number; maxTtlSeconds: number },
  input: CreateInput,
): number {
  const ttl = input.ttlSeconds ?? defaultTtlSeconds;
  if (ttl > maxTtlSeconds)
    throw refuseToken(
      'invalid_input',
      `'ttlSeconds' must be at most ${maxTtlSeconds}, the machine's maximum, got ${ttl}`,
      'ttlSeconds',
    );
  const remaining = input.minRemainingTtlSeconds;
  if (remaining !== undefined && remaining >= ttl)
    throw refuseToken(
      'invalid_input',
      `'minRemainingTtlSeconds' must be below the token's lifetime of ${ttl}, got ${remaining}`,
      'minRemainingTtlSeconds',
    );
  return ttl;
}

function planAudience(edges: ReadonlyMap<string, string[]>, asked: string[] | undefined): string[] {
  const foreign = asked?.find((id) => !edges.has(id));
  if (foreign !== undefined)
    throw refuseToken(
      'scope_not_allowed',
      `no machine scope lets this machine call '${foreign}'`,
      'audience',
    );
  return asked ?? [...edges.keys()];
}

function planScopes(
  edges: ReadonlyMap<string, string[]>,
  audience: string[],
  asked: string[] | undefined,
): string[] {
  const allowed = new Set(audience.flatMap((id) => edges.get(id) ?? []).filter(isCustomScope));
  const refused = asked?.find((scope) => !allowed.has(scope));
  if (refused !== undefined)
    throw refuseToken(
      'scope_not_allowed',
      `no machine scope to its audience allows the scope '${refused}'`,
      'scopes',
    );
  if (!asked && allowed.size > SCOPES_MAX)
    throw refuseToken(
      'invalid_input',
      `wanted 'scopes' to name at most ${SCOPES_MAX} of the ${allowed.size} that the machine scopes allow`,
      'scopes',
    );
  return asked ?? [...allowed];
}

/** On Clerk's wire a scope that looks like a machine's id is an audience: no custom scope may pass for one. */
const isCustomScope = (scope: string) => !scope.startsWith('mch_');

function refuseToken(
  code: 'invalid_input' | 'scope_not_allowed',
  wanted: string,
  field: keyof CreateInput,
): CountersignError {
  return new CountersignError(code, `Cannot create token: ${wanted}`, { field });
}

function newRow(
  deps: Deps,
  minter: Minter,
  input: CreateInput,
  plan: Plan,
  { value, signing }: { value: string | null; signing: Signing | null },
): TokenRow {
  const now = deps.now();
  return {
    id: hexId('mt_', now),
    machine_id: minter.id,
    format: input.format,
    hash: value === null ? null : deps.keyring.hash(value),
    pepper_version: value === null ? null : deps.keyring.pepperVersion,
    secret_id: minter.secretId,
    ...signingColumns(signing),
    generation: plan.generation,
    audience: plan.audience,
    scopes: plan.scopes,
    claims: input.claims ?? null,
    created_at: now,
    expires_at: expiresAfter(input.format, now, plan.ttlSeconds),
    revoked_at: null,
    revocation_reason: null,
    last_used_at: null,
  };
}

/** contract.md, M2M JWT claims. What is ours comes last, so that nothing custom could take its place. */
function jwtPayload(deps: Deps, row: TokenRow): string {
  const issuedAt = Math.floor(row.created_at / 1000);
  const payload = JSON.stringify({
    ...row.claims,
    iss: deps.publicUrl,
    sub: row.machine_id,
    jti: row.id,
    iat: issuedAt,
    nbf: issuedAt,
    exp: row.expires_at / 1000,
    aud: row.audience,
    scopes: row.audience.join(' '),
    ...(row.scopes.length > 0 && { scope: row.scopes.join(' ') }),
    ...statusClaim(deps, row),
  });
  assertFitsJwt(Buffer.byteLength(payload));
  return payload;
}

function assertFitsJwt(bytes: number): void {
  if (bytes <= JWT_PAYLOAD_BYTES_MAX) return;
  throw refuseToken(
    'invalid_input',
    `as a JWT it would carry ${bytes} bytes, at most ${JWT_PAYLOAD_BYTES_MAX} fit in a header; narrow 'audience', 'scopes' or 'claims', or ask for the format 'opaque'`,
    'format',
  );
}

/** A token of the pool that answers the request as well as a new one would, or null. */
async function pooledToken(
  deps: Deps,
  minter: Minter,
  input: CreateInput,
): Promise<(M2mToken & { token: string }) | null> {
  if (input.minRemainingTtlSeconds === undefined) return null;
  if (input.format === 'jwt')
    throw refuseToken(
      'invalid_input',
      "'minRemainingTtlSeconds' is for the format 'opaque' only",
      'minRemainingTtlSeconds',
    );
  if (input.idempotencyKey !== undefined) return null;
  const plan = await planToken(deps.store.read, deps, minter, input);
  const key = poolKeyOf(minter, input, plan);
  const pooled = deps.pool.get(key);
  if (!pooled || pooled.expiresAt < deps.now() + input.minRemainingTtlSeconds * 1000) return null;
  const [found] = await readToken(deps.store.read, { id: pooled.id });
  const token = found && toM2mToken(found.token, found.machine, deps.now());
  if (token?.state === 'live') return { ...token, token: pooled.value };
  deps.pool.delete(key);
  return null;
}

function poolKeyOf(minter: Minter, input: CreateInput, { audience, scopes, ttlSeconds }: Plan): string {
  const { id, secretId } = minter;
  return poolKey({ machineId: id, secretId, audience, scopes, claims: input.claims ?? null, ttlSeconds });
}

/** A token and the machine it belongs to: a token whose machine was deleted is not there. */
const readToken = statement((db, { m2mTokens: t, machines: m }) =>
  db
    .select({ token: t, machine: generationColumns(m) })
    .from(t)
    .innerJoin(m, eq(m.id, t.machine_id))
    .where(eq(t.id, placeholder('id')))
    .prepare('m2m_token_read'),
);

const generationColumns = (m: Rows['tables']['machines']) => ({
  generation: m.token_generation,
  tokensRevokedAt: m.tokens_revoked_at,
});

interface Generation {
  generation: number;
  tokensRevokedAt: number | null;
}

export const m2mTokenIdInput = z.strictObject({ id: m2mTokenId.meta({ positional: true }) });

/** One token, without its value. A machine sees its own; another's looks like a missing one. */
export async function getM2mToken(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof m2mTokenIdInput>,
): Promise<M2mToken> {
  const [found] = await readToken(deps.store.read, { id });
  if (!found || !mayTouch(caller, found.token)) throw tokenNotFound(id);
  return toM2mToken(found.token, found.machine, deps.now());
}

/** A token that was just verified, as its row has it; null if it went meanwhile. */
export async function describeM2mToken(deps: Deps, id: string): Promise<M2mToken | null> {
  const [found] = await readToken(deps.store.read, { id });
  return found ? toM2mToken(found.token, found.machine, deps.now()) : null;
}

const mayTouch = ({ principal }: Caller, token: Pick<TokenRow, 'machine_id'>) =>
  principal.kind !== 'machine' || principal.id === token.machine_id;

const tokenNotFound = (id: string) =>
  new CountersignError('not_found', `No M2M token has the id '${id}'`, { field: 'id' });

export const listM2mTokensInput = z.strictObject({
  /** A machine may leave it out: it lists its own. */
  machineId: machineId.meta({ positional: true }).optional(),
  state: z.enum(['live', 'revoked', 'expired']).optional(),
  ...pageInput,
});

/** Which tokens are listed beside live ones: instead of a single state, as Clerk's wire has it. */
export interface Included {
  revoked: boolean;
  expired: boolean;
}

/** The tokens of one machine, the newest first. No index answers a state: see `searchPage`. */
export async function listM2mTokens(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof listM2mTokensInput>,
  included?: Included,
): Promise<Page<M2mToken>> {
  const rows = deps.store.read;
  const { m2mTokens: t } = rows.tables;
  const owner = machineAsked(caller, input.machineId);
  const now = deps.now();
  const machine = await readGeneration(rows, owner);
  const filter = included
    ? isIncluded(t, included, machine, now)
    : input.state && inState(t, input.state, machine, now);
  const page = await searchPage(input, {
    isFiltered: filter !== undefined,
    rows(candidatesMax) {
      const candidates = candidatesOf(rows, owner, input.cursor).limit(candidatesMax).as('candidates');
      return rows.db
        .select()
        .from(t)
        .where(and(inArray(t.id, rows.db.select({ id: candidates.id }).from(candidates)), filter))
        .orderBy(...orderOf(t.created_at, t.id, true))
        .limit(input.limit + 1)
        .offset(input.offset);
    },
    candidate: (place) => candidatesOf(rows, owner, input.cursor).limit(1).offset(place),
    key: cursorKey,
  });
  return { ...page, data: page.data.map((row) => toM2mToken(row, machine, now)) };
}

const cursorKey = (row: Pick<TokenRow, 'created_at' | 'id'>): [number, string] => [row.created_at, row.id];

function candidatesOf({ db, tables: { m2mTokens: t } }: Rows, owner: string, cursor: string | undefined) {
  return db
    .select({ id: t.id, created_at: t.created_at })
    .from(t)
    .where(and(eq(t.machine_id, owner), afterCursor(cursor, t.created_at, t.id, true)))
    .orderBy(...orderOf(t.created_at, t.id, true));
}

/** How many tokens such a list has, at most `COUNT_MAX`. */
export async function countM2mTokens(
  deps: Deps,
  caller: Caller,
  { machineId: asked }: Pick<z.output<typeof listM2mTokensInput>, 'machineId'>,
  included: Included,
): Promise<number> {
  const rows = deps.store.read;
  const { m2mTokens: t } = rows.tables;
  const owner = machineAsked(caller, asked);
  const filter = isIncluded(t, included, await readGeneration(rows, owner), deps.now());
  const candidates = candidatesOf(rows, owner, undefined).limit(COUNT_MAX).as('candidates');
  const [row] = await rows.db
    .select({ count: sql`count(*)`.mapWith(Number) })
    .from(t)
    .where(and(inArray(t.id, rows.db.select({ id: candidates.id }).from(candidates)), filter));
  return row?.count ?? 0;
}

async function readGeneration({ db, tables: { machines: m } }: Rows, id: string): Promise<Generation> {
  const [machine] = await db.select(generationColumns(m)).from(m).where(eq(m.id, id));
  if (!machine) throw machineNotFound(id);
  return machine;
}

function isIncluded(
  t: Rows['tables']['m2mTokens'],
  { revoked, expired }: Included,
  { generation }: Generation,
  now: number,
): SQL | undefined {
  return and(
    revoked ? undefined : and(isNull(t.revoked_at), gte(t.generation, generation)),
    expired ? undefined : gt(t.expires_at, now),
  );
}

/** The states of `toM2mToken`, in SQL. */
function inState(
  t: Rows['tables']['m2mTokens'],
  state: M2mToken['state'],
  { generation }: Generation,
  now: number,
): SQL | undefined {
  if (state === 'revoked') return or(sql`${t.revoked_at} is not null`, lt(t.generation, generation));
  const inTime = state === 'live' ? gt(t.expires_at, now) : lte(t.expires_at, now);
  return and(isNull(t.revoked_at), gte(t.generation, generation), inTime);
}

function machineAsked({ principal }: Caller, asked: string | undefined): string {
  const id = asked ?? (principal.kind === 'machine' ? principal.id : undefined);
  if (id === undefined)
    throw new CountersignError('invalid_input', "Wanted 'machineId': only a machine may leave it out", {
      field: 'machineId',
    });
  if (principal.kind === 'machine' && principal.id !== id) throw machineNotFound(id);
  return id;
}

export const revokeM2mTokenInput = z.strictObject({
  id: m2mTokenId.meta({ positional: true }),
  reason: description.nullish(),
});

/** Revokes one token for good. One that was revoked before is answered as it stands, without a second event. */
export async function revokeM2mToken(
  deps: Deps,
  caller: Caller,
  { id, reason }: z.output<typeof revokeM2mTokenInput>,
): Promise<M2mToken> {
  const token = await revokeIfThere(deps, caller, id, reason ?? null);
  if (!token) throw tokenNotFound(id);
  return token;
}

export const revokeM2mTokenByValueInput = z.strictObject({
  value: credential,
  reason: description.nullish(),
});

/**
 * Revokes the token with this value, opaque or JWT, and answers the same whatever it found: whoever has a value learns
 * nothing of it here. A machine revokes only its own. Throws `invalid_input` for a caller's own credential.
 */
export async function revokeM2mTokenByValue(
  deps: Deps,
  caller: Caller,
  address: Address,
  { value, reason }: z.output<typeof revokeM2mTokenByValueInput>,
): Promise<{ accepted: true }> {
  await assertMayRevokeByValue(deps, address);
  if (value.startsWith(PREFIXES.secretKey) || value.startsWith(PREFIXES.machineSecretKey)) {
    throw new CountersignError(
      'invalid_input',
      "Cannot revoke: 'value' must be an M2M token, got a secret key or machine secret key",
      { field: 'value' },
    );
  }
  const id = await idOfValue(deps, value);
  if (id !== null) await revokeIfThere(deps, caller, id, reason ?? null);
  return { accepted: true };
}

const readIdByHash = statement((db, { m2mTokens: t }) =>
  db
    .select({ id: t.id })
    .from(t)
    .where(eq(t.hash, placeholder('hash')))
    .prepare('m2m_token_id_by_hash'),
);

async function idOfValue(deps: Deps, value: string): Promise<string | null> {
  if (looksLikeJwt(value)) {
    return (await verifyM2mJwt(value, deps.publicUrl, deps.signer.find))?.jti ?? null;
  }
  if (parseValue(value)?.prefix !== PREFIXES.m2mToken) return null;
  const [found] = await readIdByHash(deps.store.read, { hash: deps.keyring.hash(value) });
  return found?.id ?? null;
}

function revokeIfThere(
  deps: Deps,
  caller: Caller,
  id: string,
  reason: string | null,
): Promise<M2mToken | null> {
  return change(
    deps,
    caller,
    async (tx) => {
      const before = await tokenAsItStands(tx, deps, caller, id);
      if (before?.state !== 'live' && before?.state !== 'expired') return { result: before, event: null };
      const { m2mTokens: t } = tx.tables;
      const revoked = await tx.db
        .update(t)
        .set({ revoked_at: deps.now(), revocation_reason: reason })
        .where(and(eq(t.id, id), isNull(t.revoked_at)))
        .returning({ id: t.id });
      const result = await tokenAsItStands(tx, deps, caller, id);
      if (revoked.length === 0) return { result, event: null };
      const { machineId, format, expiresAt } = before;
      return {
        result,
        event: {
          type: 'm2m_token.revoked',
          objectId: id,
          subject: machineId,
          data: { machineId, format, expiresAt, reason },
        },
      };
    },
    'revocation',
  );
}

async function tokenAsItStands(tx: Rows, deps: Deps, caller: Caller, id: string): Promise<M2mToken | null> {
  const [found] = await readToken(tx, { id });
  return found && mayTouch(caller, found.token) ? toM2mToken(found.token, found.machine, deps.now()) : null;
}

export const revokeAllM2mTokensInput = z.strictObject({
  /** A machine may leave it out: it revokes its own. */
  machineId: machineId.meta({ positional: true }).optional(),
});

/** Revokes every token a machine was issued until now, JWTs too: one write and one event, however many there are. */
export async function revokeAllM2mTokens(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof revokeAllM2mTokensInput>,
): Promise<{ machineId: string; revokedAt: number }> {
  const owner = machineAsked(caller, input.machineId);
  return change(
    deps,
    caller,
    async (tx) => {
      const revokedAt = await revokeTokensIssued(tx, deps, owner);
      if (revokedAt === null) throw machineNotFound(owner);
      return {
        result: { machineId: owner, revokedAt },
        event: {
          type: 'machine.tokens_revoked',
          objectId: owner,
          subject: owner,
          data: { selector: { machineId: owner } },
        },
      };
    },
    'revocation',
  );
}

function toM2mToken(row: TokenRow, machine: Generation, now: number): M2mToken {
  const revokedWithAll = row.generation < machine.generation ? machine.tokensRevokedAt : null;
  const revokedAt = row.revoked_at ?? revokedWithAll;
  return {
    id: row.id,
    machineId: row.machine_id,
    format: row.format,
    audience: row.audience,
    scopes: row.scopes,
    claims: row.claims,
    state: revokedAt !== null ? 'revoked' : hasExpired(row.expires_at, now) ? 'expired' : 'live',
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    revokedAt,
    revocationReason: row.revocation_reason,
    lastUsedAt: row.last_used_at,
  };
}
