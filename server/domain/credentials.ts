/** Verify: is this credential of ours valid right now, whom does it stand for, and what may it do? */
import { isIP } from 'node:net';
import { and, eq, isNull, or, placeholder, sql } from 'drizzle-orm';
import { z } from 'zod';
import { alias } from '../../db/kit.ts';
import { statement } from '../../db/statement.ts';
import { type CredentialKind, looksLikeJwt, PREFIXES, parseValue } from '../crypto/format.ts';
import { jwtKind, verifyM2mJwt } from '../crypto/jwt.ts';
import type { Deps, Principal } from '../deps.ts';
import { credential, machineId, scopes } from './fields.ts';
import {
  BOOTSTRAP_KEY,
  callerColumns,
  couldBeCaller,
  findCaller,
  hasExpired,
  judgeCaller,
} from './secrets.ts';

const KINDS = ['m2m_token', 'api_key', 'oauth_token'] as const satisfies CredentialKind[];

export const verifyInput = z.strictObject({
  /** The value as it was presented, without `Bearer`. */
  credential,
  /** The kinds that will do; without it, all. */
  kinds: z.array(z.enum(KINDS)).min(1).max(KINDS.length).optional(),
  /** Scopes the credential must have, every one. */
  scopes: scopes.optional(),
  /** The machine an M2M token was presented to. A machine that asks is itself the audience. */
  audience: machineId.optional(),
  /** The address of the end client, as the caller states it. */
  ip: z
    .string()
    .max(45)
    .refine((address) => isIP(address) !== 0 && !address.includes('%'), 'wanted an IPv4 or IPv6 address')
    .optional(),
});

export type VerifyInput = z.output<typeof verifyInput>;

const VERIFY_BATCH_MAX = 100;

export const verifyBatchInput = z.strictObject({
  items: z.array(verifyInput).min(1).max(VERIFY_BATCH_MAX),
});

/**
 * Why a credential is refused, in order of precedence: of several reasons the first is told. To a machine
 * `wrong_audience` reads `unknown`.
 */
export const VERIFY_REASONS = [
  'malformed',
  'wrong_kind',
  'unknown',
  'audience_required',
  'wrong_audience',
  'revoked',
  'disabled',
  'expired',
  'ip_not_allowed',
  'proof_required',
  'insufficient_scope',
  'rate_limited',
  'out_of_credits',
] as const;

export type VerifyReason = (typeof VERIFY_REASONS)[number];

/**
 * A valid credential, by kind:
 *
 * | field       | m2m_token                              | api_key                             |
 * | ----------- | -------------------------------------- | ----------------------------------- |
 * | `id`        | `mt_…`, the `jti` of a JWT             | `ak_…`                              |
 * | `subject`   | the machine that presents it           | the user, organization or other     |
 * | `machineId` | the same                               | –                                   |
 * | `name`      | –                                      | the key's name                      |
 * | `audience`  | every machine it is for                | –                                   |
 * | `scopes`    | the token's that the machine scope allows now | the key's                    |
 * | `claims`    | as minted, or null                     | as set, or null                     |
 * | `expiresAt` | ms since 1970-01-01 UTC                | the same, null if never             |
 */
export type ValidCredential = ValidM2mToken | ValidApiKey;

interface ValidM2mToken {
  valid: true;
  kind: 'm2m_token';
  id: string;
  subject: string;
  machineId: string;
  audience: string[];
  scopes: string[];
  claims: Record<string, unknown> | null;
  expiresAt: number;
}

interface ValidApiKey {
  valid: true;
  kind: 'api_key';
  id: string;
  subject: string;
  name: string;
  scopes: string[];
  claims: Record<string, unknown> | null;
  expiresAt: number | null;
}

/** A refusal names the credential only where that is known and the caller may know it. */
export interface RefusedCredential {
  valid: false;
  reason: VerifyReason;
  id?: string;
  subject?: string;
}

export type Verification = ValidCredential | RefusedCredential;

/** Judges who is asking; throws unless that is somebody who may. */
export type Authorize = (principal: Principal | null) => Principal;

/**
 * Verifies one credential for the caller who presents `callerValue`. One statement reads caller and credential
 * together, and the caller is judged before anything is said of the credential. A value that is refused by its format
 * is never looked up; every other costs the same work whether it is known or not. Writes to no row.
 */
export async function verify(
  deps: Deps,
  callerValue: string | null,
  input: VerifyInput,
  authorize: Authorize,
): Promise<Verification> {
  const candidate = recognise(input);
  const { principal, found } = await read(deps, callerValue, input, candidate);
  const caller = authorize(principal);
  const now = deps.now();
  const outcome = judge(caller, input, candidate, found, now);
  count(deps, caller, found, outcome, now);
  return outcome;
}

/** Verifies up to a hundred credentials and answers in their order. The caller is judged with each. */
export function verifyBatch(
  deps: Deps,
  callerValue: string | null,
  { items }: z.output<typeof verifyBatchInput>,
  authorize: Authorize,
): Promise<Verification[]> {
  return Promise.all(items.map((input) => verify(deps, callerValue, input, authorize)));
}

/** What can be said of a value without any I/O: how to look it up, or why not to. */
type Candidate = { kind: CredentialKind; form: 'opaque' | 'jwt' } | { refused: 'malformed' | 'wrong_kind' };

const KIND_BY_PREFIX: ReadonlyMap<string, CredentialKind> = new Map([
  [PREFIXES.m2mToken, 'm2m_token'],
  [PREFIXES.apiKey, 'api_key'],
  [PREFIXES.accessToken, 'oauth_token'],
]);
/** Values of ours that are credentials of something else than `verify` answers for. */
const NEVER_VERIFIABLE: ReadonlySet<string> = new Set([
  PREFIXES.secretKey,
  PREFIXES.machineSecretKey,
  PREFIXES.refreshToken,
  PREFIXES.panelToken,
]);

function recognise({ credential, kinds }: VerifyInput): Candidate {
  const shape = looksLikeJwt(credential) ? jwtShape(credential) : valueShape(credential);
  if ('refused' in shape || !kinds || kinds.includes(shape.kind)) return shape;
  return { refused: 'wrong_kind' };
}

function jwtShape(jwt: string): Candidate {
  const kind = jwtKind(jwt);
  return kind ? { kind, form: 'jwt' } : { refused: 'malformed' };
}

function valueShape(value: string): Candidate {
  const prefix = parseValue(value)?.prefix;
  if (prefix === undefined) return { refused: BOOTSTRAP_KEY.test(value) ? 'wrong_kind' : 'malformed' };
  const kind = KIND_BY_PREFIX.get(prefix);
  if (kind) return { kind, form: 'opaque' };
  return { refused: NEVER_VERIFIABLE.has(prefix) ? 'wrong_kind' : 'malformed' };
}

interface Read {
  principal: Principal | null;
  found: Found | null;
}

const NOBODY: Read = { principal: null, found: null };

async function read(
  deps: Deps,
  callerValue: string | null,
  input: VerifyInput,
  candidate: Candidate,
): Promise<Read> {
  if (callerValue === null || !couldBeCaller(callerValue)) return NOBODY;
  // No OAuth token has a row yet: of such a value there is nothing to read.
  if ('refused' in candidate || candidate.kind === 'oauth_token')
    return { principal: await findCaller(deps, callerValue), found: null };
  const callerHash = deps.keyring.hash(callerValue);
  if (candidate.kind === 'api_key') return readKey(deps, callerHash, input);
  return candidate.form === 'jwt' ? readJwt(deps, callerHash, input) : readToken(deps, callerHash, input);
}

async function readToken(deps: Deps, callerHash: Buffer, input: VerifyInput): Promise<Read> {
  const [row] = await readTokenByHash(deps.store.read, {
    callerHash,
    audience: input.audience ?? null,
    hash: deps.keyring.hash(input.credential),
  });
  return row ? { principal: judgeCaller(deps, row), found: tokenFound(row) } : NOBODY;
}

/** A JWT that we did not sign names no row; it is read for all the same. */
async function readJwt(deps: Deps, callerHash: Buffer, input: VerifyInput): Promise<Read> {
  const signed = await verifyM2mJwt(input.credential, deps.publicUrl, deps.signer.find);
  const [row] = await readTokenById(deps.store.read, {
    callerHash,
    audience: input.audience ?? null,
    id: signed?.jti ?? '',
    machineId: signed?.sub ?? '',
    kid: signed?.kid ?? '',
  });
  return row ? { principal: judgeCaller(deps, row), found: tokenFound(row) } : NOBODY;
}

async function readKey(deps: Deps, callerHash: Buffer, input: VerifyInput): Promise<Read> {
  const [row] = await readKeyByHash(deps.store.read, {
    callerHash,
    hash: deps.keyring.hash(input.credential),
  });
  return row ? { principal: judgeCaller(deps, row), found: keyFound(row) } : NOBODY;
}

/** The caller's row with a token's beside it. The sender and its machine scope are read as they are now. */
function tokenStatement(by: 'hash' | 'id') {
  return statement((db, tables) => {
    const { secrets: s, secretKeys: k, machines: m, m2mTokens: t, machineScopes: e, signingKeys: g } = tables;
    const sender = alias(m, 'sender');
    const isToken =
      by === 'hash'
        ? eq(t.hash, placeholder('hash'))
        : and(eq(t.id, placeholder('id')), eq(t.machine_id, placeholder('machineId')), eq(t.format, 'jwt'));
    return db
      .select({
        ...callerColumns(tables),
        token: {
          id: t.id,
          machineId: t.machine_id,
          audience: t.audience,
          scopes: t.scopes,
          claims: t.claims,
          expiresAt: t.expires_at,
          revokedAt: t.revoked_at,
          generation: t.generation,
        },
        sender: { generation: sender.token_generation, enabled: sender.enabled },
        edge: { toMachineId: e.to_machine_id, scopes: e.scopes },
        signingKey: { state: g.state, retiredAt: g.retired_at },
      })
      .from(s)
      .leftJoin(k, and(eq(s.owner_kind, 'secret_key'), eq(k.id, s.owner_id)))
      .leftJoin(m, and(eq(s.owner_kind, 'machine'), eq(m.id, s.owner_id)))
      .leftJoin(t, isToken)
      .leftJoin(sender, eq(sender.id, t.machine_id))
      .leftJoin(g, eq(g.kid, by === 'hash' ? t.signing_kid : placeholder('kid')))
      .leftJoin(
        e,
        and(
          eq(e.from_machine_id, t.machine_id),
          eq(e.to_machine_id, sql`coalesce(${m.id}, ${placeholder('audience')})`),
        ),
      )
      .where(eq(s.hash, placeholder('callerHash')))
      .prepare(`verify_m2m_token_by_${by}`);
  });
}

const readTokenByHash = tokenStatement('hash');
const readTokenById = tokenStatement('id');

/** As `tokenStatement`, for an API key. A machine that may not verify keys has none looked up. */
const readKeyByHash = statement((db, tables) => {
  const { secrets: s, secretKeys: k, machines: m, apiKeys: a } = tables;
  const presented = alias(s, 'presented');
  return db
    .select({
      ...callerColumns(tables),
      secret: { id: presented.id, revokedAt: presented.revoked_at, expiresAt: presented.expires_at },
      key: {
        id: a.id,
        subject: a.subject,
        name: a.name,
        scopes: a.scopes,
        claims: a.claims,
        enabled: a.enabled,
        revokedAt: a.revoked_at,
        expiresAt: a.expires_at,
      },
    })
    .from(s)
    .leftJoin(k, and(eq(s.owner_kind, 'secret_key'), eq(k.id, s.owner_id)))
    .leftJoin(m, and(eq(s.owner_kind, 'machine'), eq(m.id, s.owner_id)))
    .leftJoin(
      presented,
      and(
        eq(presented.hash, placeholder('hash')),
        eq(presented.owner_kind, 'api_key'),
        or(isNull(m.id), eq(m.may_verify, true)),
      ),
    )
    .leftJoin(a, eq(a.id, presented.owner_id))
    .where(eq(s.hash, placeholder('callerHash')))
    .prepare('verify_api_key_by_hash');
});

type TokenRow = Awaited<ReturnType<typeof readTokenByHash>>[number];
type KeyRow = Awaited<ReturnType<typeof readKeyByHash>>[number];

/** A credential that was read, reduced to what it is judged by. */
interface Found {
  /** The answer if nothing speaks against it. */
  valid: ValidCredential;
  /** Whether it is addressed to the machine it is judged for, and its machine may call that now; null for other kinds. */
  reaches: boolean | null;
  revoked: boolean;
  enabled: boolean;
}

/** A token whose machine was deleted is nobody's. */
function tokenFound({ token, sender, edge, signingKey }: TokenRow): Found | null {
  if (!token || !sender) return null;
  const { id, machineId, audience, claims, expiresAt } = token;
  const scopes = token.scopes.filter((scope) => edge?.scopes.includes(scope));
  return {
    valid: {
      valid: true,
      kind: 'm2m_token',
      id,
      subject: machineId,
      machineId,
      audience,
      scopes,
      claims,
      expiresAt,
    },
    reaches: edge !== null && audience.includes(edge.toMachineId),
    revoked:
      token.revokedAt !== null || token.generation < sender.generation || diedWithKey(token, signingKey),
    enabled: sender.enabled,
  };
}

/** What was still live when its key was retired, went with it: an emergency, for otherwise a key is not retired before. */
const diedWithKey = (token: { expiresAt: number }, key: TokenRow['signingKey']) =>
  key?.state === 'retired' && token.expiresAt > (key.retiredAt ?? 0);

/** A key is over when the first of the two is: the key, or the secret by which it was presented. */
function keyFound({ key, secret }: KeyRow): Found | null {
  if (!key || !secret) return null;
  const { id, subject, name, scopes, claims } = key;
  const ends = [key.expiresAt, secret.expiresAt].filter((instant) => instant !== null);
  const expiresAt = ends.length > 0 ? Math.min(...ends) : null;
  return {
    valid: { valid: true, kind: 'api_key', id, subject, name, scopes, claims, expiresAt },
    reaches: null,
    revoked: key.revokedAt !== null || secret.revokedAt !== null,
    enabled: key.enabled,
  };
}

/** Each guard refuses; only what passes them all is valid. */
function judge(
  caller: Principal,
  input: VerifyInput,
  candidate: Candidate,
  found: Found | null,
  now: number,
): Verification {
  if ('refused' in candidate) return { valid: false, reason: candidate.refused };
  if (candidate.kind !== 'm2m_token' && caller.kind === 'machine' && !caller.mayVerify)
    return { valid: false, reason: 'wrong_kind' };
  if (!found) return { valid: false, reason: 'unknown' };
  const reason = audienceReason(caller, input, found) ?? stateReason(found, input, now);
  if (reason === null) return found.valid;
  // A machine learns nothing of tokens that are not for it.
  if (reason === 'wrong_audience' && caller.kind === 'machine') return { valid: false, reason: 'unknown' };
  return { valid: false, reason, id: found.valid.id, subject: found.valid.subject };
}

function audienceReason(
  caller: Principal,
  { audience }: VerifyInput,
  { reaches }: Found,
): VerifyReason | null {
  if (reaches === null) return null;
  if (caller.kind !== 'machine' && audience === undefined) return 'audience_required';
  const asksForAnother = caller.kind === 'machine' && audience !== undefined && audience !== caller.id;
  return reaches && !asksForAnother ? null : 'wrong_audience';
}

function stateReason(
  { valid, revoked, enabled }: Found,
  input: VerifyInput,
  now: number,
): VerifyReason | null {
  if (revoked) return 'revoked';
  if (!enabled) return 'disabled';
  if (hasExpired(valid.expiresAt, now)) return 'expired';
  const lacksScope = input.scopes?.some((scope) => !valid.scopes.includes(scope));
  return lacksScope ? 'insufficient_scope' : null;
}

function count(deps: Deps, caller: Principal, found: Found | null, outcome: Verification, now: number): void {
  deps.observer.verification(outcome.valid ? 'valid' : outcome.reason);
  if (found) deps.usage.count(found.valid.kind, found.valid.id, outcome.valid, now);
  if (caller.kind !== 'system') deps.usage.count(caller.kind, caller.id, true, now);
}
