/** Verify: is this credential of ours valid right now, whom does it stand for, and what may it do? */
import { isIP } from 'node:net';
import { z } from 'zod';
import { type CredentialKind, looksLikeJwt, PREFIXES, parseValue } from '../crypto/format.ts';
import { jwtKind } from '../crypto/jwt.ts';
import type { Deps, Principal } from '../deps.ts';
import { isWithin } from './addresses.ts';
import { type Found, type Read, readJwt, readKey, readToken } from './credential-rows.ts';
import { spendCredits } from './credits.ts';
import { credential, machineId, resourceUrl, scopes } from './fields.ts';
import { readOauthJwt, readOauthToken } from './oauth-token-rows.ts';
import { isAmongResources } from './resources.ts';
import {
  BOOTSTRAP_KEY,
  couldBeCaller,
  findCaller,
  hasExpired,
  newestHashOf,
  type Presented,
} from './secrets.ts';
import { countCaller } from './usage.ts';

const KINDS = ['m2m_token', 'api_key', 'oauth_token'] as const satisfies CredentialKind[];

const COST_MAX = 1_000_000;
const DPOP_PROOF_LENGTH_MAX = 8192;

export const verifyInput = z.strictObject({
  /** The value as it was presented, without `Bearer`. */
  credential,
  /** The kinds that will do; without it, all. */
  kinds: z.array(z.enum(KINDS)).min(1).max(KINDS.length).optional(),
  /** Scopes the credential must have, every one. */
  scopes: scopes.optional(),
  /** The machine an M2M token was presented to. A machine that asks is itself the audience. */
  audience: machineId.optional(),
  /** The resource an OAuth token was presented to (RFC 8707). One that is for some resources needs it. */
  resource: resourceUrl.optional(),
  /** The address of the end client, as the caller states it. */
  ip: z
    .string()
    .max(45)
    .refine((address) => isIP(address) !== 0 && !address.includes('%'), 'wanted an IPv4 or IPv6 address')
    .optional(),
  /** Credits that what is asked for costs; 0 spends none. Without it, 1. Only credentials with credits have any to spend. */
  cost: z.number().int().min(0).max(COST_MAX).optional(),
  /** The proof of possession that came along (RFC 9449). No kind of credential asks for one yet. */
  dpop: z
    .strictObject({
      proof: z.string().min(1).max(DPOP_PROOF_LENGTH_MAX),
      method: z.string().regex(/^[A-Z]{1,32}$/, 'wanted an HTTP method in capitals'),
      url: z.string().min(1).max(2048),
    })
    .optional(),
});

export type VerifyInput = z.output<typeof verifyInput>;

/** For those who ask of OAuth access tokens alone. */
export const verifyOauthTokenInput = verifyInput.omit({ kinds: true });

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

/** A valid credential: docs/verify.md has what the fields of each kind mean. Instants are ms since 1970-01-01 UTC. */
export type ValidCredential = ValidM2mToken | ValidApiKey | ValidOauthToken;

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

export interface ValidApiKey {
  valid: true;
  kind: 'api_key';
  id: string;
  subject: string;
  name: string;
  scopes: string[];
  claims: Record<string, unknown> | null;
  expiresAt: number | null;
  rateLimit?: { count: number; windowSeconds: number; remaining: number };
  creditsRemaining?: number;
  boundToAddresses?: true;
}

export interface ValidOauthToken {
  valid: true;
  kind: 'oauth_token';
  id: string;
  /** The user, or the application itself by its client id. */
  subject: string;
  clientId: string;
  applicationId: string;
  applicationName: string;
  /** What a user allowed; absent where the application acts for itself. */
  grantId?: string;
  organizationId?: string;
  scopes: string[];
  /** The resources it is for; absent for none in particular. */
  audience?: string[];
  claims: null;
  expiresAt: number;
}

/** A refusal names the credential only where that is known and the caller may know it. */
export interface RefusedCredential {
  valid: false;
  reason: VerifyReason;
  id?: string;
  subject?: string;
  /** With `rate_limited`: how long until it may be asked for again. */
  retryAfterMs?: number;
}

export type Verification = ValidCredential | RefusedCredential;

/** Judges who is asking; throws unless that is somebody who may. */
export type Authorize = (principal: Principal | null) => Principal;

/**
 * Verifies one credential for the caller who presents `presented`. One statement reads caller and credential together,
 * and the caller is judged before anything is said of the credential. A value that is refused by its format is never
 * looked up; every other costs the same work whether it is known or not. Writes to no row but that of its credits.
 *
 * @param forWhom `anybody` has an OAuth token be for whichever resource, and an M2M token for whichever machine where the
 * caller is none: Clerk's rule, on Clerk's paths.
 */
export async function verify(
  deps: Deps,
  presented: Presented,
  input: VerifyInput,
  authorize: Authorize,
  forWhom: 'its audience' | 'anybody' = 'its audience',
): Promise<Verification> {
  let candidate = recognise(input.credential);
  if (candidate === null) candidate = await recogniseShaped(deps, input.credential);
  if ('kind' in candidate && input.kinds && !input.kinds.includes(candidate.kind)) candidate = WRONG_KIND;
  const { principal, found } = await read(deps, presented, input, candidate);
  const caller = authorize(principal);
  const now = deps.now();
  let outcome = judge(
    caller,
    input,
    candidate,
    found && forWhom === 'anybody' ? forAnybody(caller, found) : found,
    now,
  );
  if (outcome.valid && found && (found.limits.length > 0 || found.credits.length > 0))
    outcome = await charge(deps, found, input);
  count(deps, caller, found, outcome, now);
  return outcome;
}

/**
 * Verifies up to a hundred credentials and answers in their order. The caller is judged before any of them is looked at,
 * so that nobody unknown has a hundred signatures checked, and again with each.
 */
export async function verifyBatch(
  deps: Deps,
  presented: Presented,
  { items }: z.output<typeof verifyBatchInput>,
  authorize: Authorize,
): Promise<Verification[]> {
  authorize(await callerOf(deps, presented));
  return Promise.all(items.map((input) => verify(deps, presented, input, authorize)));
}

const forAnybody = (caller: Principal, found: Found): Found => ({
  ...found,
  reaches: caller.kind === 'machine' ? found.reaches : null,
  resources: null,
});

/** What can be said of a value without any I/O: how to look it up, or why not to. */
type Candidate = { kind: CredentialKind; form: 'opaque' | 'jwt' } | { refused: 'malformed' | 'wrong_kind' };

const MALFORMED: Candidate = { refused: 'malformed' };
const WRONG_KIND: Candidate = { refused: 'wrong_kind' };
const API_KEY: Candidate = { kind: 'api_key', form: 'opaque' };

const BY_PREFIX: ReadonlyMap<string, Candidate> = new Map<string, Candidate>([
  [PREFIXES.m2mToken, { kind: 'm2m_token', form: 'opaque' }],
  [PREFIXES.apiKey, API_KEY],
  [PREFIXES.accessToken, { kind: 'oauth_token', form: 'opaque' }],
  // Values of ours that are credentials of something else than `verify` answers for.
  [PREFIXES.secretKey, WRONG_KIND],
  [PREFIXES.machineSecretKey, WRONG_KIND],
  [PREFIXES.refreshToken, WRONG_KIND],
  [PREFIXES.authorizationCode, WRONG_KIND],
  [PREFIXES.applicationSecret, WRONG_KIND],
  [PREFIXES.initialAccessToken, WRONG_KIND],
  [PREFIXES.userSession, WRONG_KIND],
  [PREFIXES.userInvitation, WRONG_KIND],
  [PREFIXES.resumption, WRONG_KIND],
  [PREFIXES.panelToken, WRONG_KIND],
]);

/** Null where nothing of ours looks so: it may have a shape that somebody registered. */
function recognise(value: string): Candidate | null {
  const prefix = parseValue(value)?.prefix;
  const known = prefix === undefined ? undefined : BY_PREFIX.get(prefix);
  if (known) return known;
  if (looksLikeJwt(value)) return jwtShape(value);
  return BOOTSTRAP_KEY.test(value) ? WRONG_KIND : null;
}

function jwtShape(jwt: string): Candidate {
  const kind = jwtKind(jwt);
  return kind ? { kind, form: 'jwt' } : MALFORMED;
}

async function recogniseShaped(deps: Deps, value: string): Promise<Candidate> {
  const shaped = await deps.shapes.find(value);
  if (!shaped) return MALFORMED;
  return shaped.ownerKind === 'api_key' ? API_KEY : WRONG_KIND;
}

const NOBODY: Read = { principal: null, found: null };

async function read(
  deps: Deps,
  presented: Presented,
  input: VerifyInput,
  candidate: Candidate,
): Promise<Read> {
  const hash = await callerHashOf(deps, presented);
  if (hash === null) return NOBODY;
  if ('refused' in candidate) return { principal: await callerOf(deps, presented), found: null };
  const caller = { hash, address: presented.address };
  const { credential, audience } = input;
  const isJwt = candidate.form === 'jwt';
  switch (candidate.kind) {
    case 'api_key':
      return readKey(deps, caller, credential);
    case 'oauth_token':
      return isJwt ? readOauthJwt(deps, caller, credential) : readOauthToken(deps, caller, credential);
    case 'm2m_token':
      return isJwt
        ? readJwt(deps, caller, credential, audience)
        : readToken(deps, caller, credential, audience);
  }
}

const callerOf = async (deps: Deps, { value, signedIn, address }: Presented): Promise<Principal | null> =>
  value === null ? (signedIn ?? null) : findCaller(deps, value, address);

/** By which the caller is read together with the credential; null for nobody. */
async function callerHashOf(deps: Deps, { value, signedIn }: Presented): Promise<Buffer | null> {
  if (value !== null) return (await couldBeCaller(deps, value)) ? deps.keyring.hash(value) : null;
  return signedIn?.kind === 'secret_key' ? newestHashOf(deps, { kind: 'secret_key', id: signedIn.id }) : null;
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
  return refusal(found, reason);
}

const refusal = ({ valid }: Found, reason: VerifyReason): RefusedCredential => ({
  valid: false,
  reason,
  id: valid.id,
  subject: valid.subject,
});

function audienceReason(
  caller: Principal,
  { audience, resource }: VerifyInput,
  { reaches, resources }: Found,
): VerifyReason | null {
  if (resources !== null) return resourceReason(resources, resource);
  if (reaches === null) return null;
  if (caller.kind !== 'machine' && audience === undefined) return 'audience_required';
  const asksForAnother = caller.kind === 'machine' && audience !== undefined && audience !== caller.id;
  return reaches && !asksForAnother ? null : 'wrong_audience';
}

/** What is for some resources is for no other (RFC 8707, section 2); what is for none in particular is for all. */
function resourceReason(resources: readonly string[], resource: string | undefined): VerifyReason | null {
  if (resource === undefined) return 'audience_required';
  return isAmongResources(resource, resources) ? null : 'wrong_audience';
}

function stateReason(
  { valid, revoked, enabled, allowedCidrs }: Found,
  input: VerifyInput,
  now: number,
): VerifyReason | null {
  if (revoked) return 'revoked';
  if (!enabled) return 'disabled';
  if (hasExpired(valid.expiresAt, now)) return 'expired';
  if (allowedCidrs && !(input.ip !== undefined && isWithin(input.ip, allowedCidrs))) return 'ip_not_allowed';
  const lacksScope = input.scopes?.some((scope) => !valid.scopes.includes(scope));
  return lacksScope ? 'insufficient_scope' : null;
}

/**
 * Takes one from every limit and the cost from every credit of what nothing else speaks against, and notes in the answer
 * what is left. (Not in a copy: V8 would allocate that among the long lived, docs/decisions/0016.)
 */
async function charge(deps: Deps, found: Found, { cost = 1 }: VerifyInput): Promise<Verification> {
  const answer = found.valid as ValidApiKey;
  for (const { key, count, windowSeconds } of found.limits) {
    const { allowed, remaining, retryAfterMs } = await deps.limits.consume(key, { count, windowSeconds }, 1);
    if (!allowed) return { ...refusal(found, 'rate_limited'), retryAfterMs };
    if (remaining < (answer.rateLimit?.remaining ?? Number.POSITIVE_INFINITY))
      answer.rateLimit = { count, windowSeconds, remaining };
  }
  if (found.credits.length === 0) return answer;
  const spent = await spendCredits(deps, found.credits, cost);
  if (!spent.spent) return refusal(found, 'out_of_credits');
  const remaining = spent.remaining.filter((left) => left !== null);
  if (remaining.length > 0) answer.creditsRemaining = Math.min(...remaining);
  return answer;
}

function count(deps: Deps, caller: Principal, found: Found | null, outcome: Verification, now: number): void {
  const told = outcome.valid ? 'valid' : outcome.reason;
  deps.observer.verification(told);
  deps.recentVerifications.count(told, now);
  if (found) {
    const { valid } = found;
    const { kind, id, subject } = valid;
    deps.usage.count(kind, id, outcome.valid, now, kind === 'api_key' ? subject : undefined);
    if (kind === 'oauth_token')
      deps.usage.count('oauth_application', valid.applicationId, outcome.valid, now);
  }
  countCaller(deps.usage, caller, now);
}
