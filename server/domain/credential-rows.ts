/** What one statement reads for a verification: the caller and the credential, side by side, as they are now. */
import { and, eq, isNull, or, placeholder, sql } from 'drizzle-orm';
import { alias } from '../../db/kit.ts';
import { flatStatement } from '../../db/statement.ts';
import { verifyM2mJwt } from '../crypto/jwt.ts';
import type { Deps, Principal } from '../deps.ts';
import type { Limit } from '../limits.ts';
import type { ValidApiKey, ValidCredential } from './credentials.ts';
import type { CreditsOwner } from './credits.ts';
import { type Address, type CallerRow, callerColumns, judgeCaller } from './secrets.ts';

/** A credential that was read, reduced to what it is judged by. */
export interface Found {
  /** The answer if nothing speaks against it. */
  valid: ValidCredential;
  /** Whether it is addressed to the machine it is judged for, and its machine may call that now; null for other kinds. */
  reaches: boolean | null;
  /** The resources it is for (RFC 8707); null for none in particular, and for other kinds. */
  resources: readonly string[] | null;
  revoked: boolean;
  enabled: boolean;
  /** CIDR blocks the end client must be in; null for anywhere. */
  allowedCidrs: string[] | null;
  /** Each limit it counts against, with the key it is counted under: its own first. */
  limits: readonly (Limit & { key: string })[];
  /** Whose credits it spends. */
  credits: readonly CreditsOwner[];
}

export interface Read {
  principal: Principal | null;
  found: Found | null;
}

/** What was presented as the caller's credential, hashed, and from where. */
export interface CallerLookup {
  hash: Buffer;
  address: Address;
}

const NOBODY: Read = { principal: null, found: null };
const NONE: readonly never[] = [];

/** Reads an opaque M2M token by its value. `audience` is the machine it is judged for, where the caller is none. */
export async function readToken(
  deps: Deps,
  caller: CallerLookup,
  credential: string,
  audience: string | undefined,
): Promise<Read> {
  const [row] = await readTokenByHash(deps.store.read, {
    callerHash: caller.hash,
    audience: audience ?? null,
    hash: deps.keyring.hash(credential),
  });
  return row ? { principal: judgeCaller(deps, row, caller.address), found: tokenFound(row) } : NOBODY;
}

/** Reads a JWT by its `jti`. One that we did not sign names no row; it is read for all the same. */
export async function readJwt(
  deps: Deps,
  caller: CallerLookup,
  credential: string,
  audience: string | undefined,
): Promise<Read> {
  const signed = await verifyM2mJwt(credential, deps.publicUrl, deps.signer.find);
  const [row] = await readTokenById(deps.store.read, {
    callerHash: caller.hash,
    audience: audience ?? null,
    id: signed?.jti ?? '',
    machineId: signed?.sub ?? '',
    kid: signed?.kid ?? '',
  });
  return row ? { principal: judgeCaller(deps, row, caller.address), found: tokenFound(row) } : NOBODY;
}

/** Reads an API key by its value, with what its subject's keys share. */
export async function readKey(deps: Deps, caller: CallerLookup, credential: string): Promise<Read> {
  const [row] = await readKeyByHash(deps.store.read, {
    callerHash: caller.hash,
    hash: deps.keyring.hash(credential),
  });
  return row ? { principal: judgeCaller(deps, row, caller.address), found: keyFound(row) } : NOBODY;
}

/** By which key a JWT is signed. */
interface SignedBy {
  tokenExpiresAt: number;
  signingKeyState: string | null;
  signingKeyRetiredAt: number | null;
}

interface TokenRow extends CallerRow, SignedBy {
  tokenId: string | null;
  tokenMachineId: string;
  tokenAudience: string[];
  tokenScopes: string[];
  tokenClaims: Record<string, unknown> | null;
  tokenRevokedAt: number | null;
  tokenGeneration: number;
  senderGeneration: number | null;
  senderEnabled: boolean;
  edgeToMachineId: string | null;
  edgeScopes: string[] | null;
}

/** The sender and its machine scope are read as they are now. */
function tokenStatement(by: 'hash' | 'id') {
  return flatStatement<Record<string, unknown>, TokenRow>(`verify_m2m_token_by_${by}`, (db, tables) => {
    const { secrets: s, secretKeys: k, machines: m, m2mTokens: t, machineScopes: e, signingKeys: g } = tables;
    const sender = alias(m, 'sender');
    const isToken =
      by === 'hash'
        ? eq(t.hash, placeholder('hash'))
        : and(eq(t.id, placeholder('id')), eq(t.machine_id, placeholder('machineId')), eq(t.format, 'jwt'));
    const fields = {
      ...callerColumns(tables),
      tokenId: t.id,
      tokenMachineId: t.machine_id,
      tokenAudience: t.audience,
      tokenScopes: t.scopes,
      tokenClaims: t.claims,
      tokenExpiresAt: t.expires_at,
      tokenRevokedAt: t.revoked_at,
      tokenGeneration: t.generation,
      senderGeneration: sender.token_generation,
      senderEnabled: sender.enabled,
      edgeToMachineId: e.to_machine_id,
      edgeScopes: e.scopes,
      signingKeyState: g.state,
      signingKeyRetiredAt: g.retired_at,
    };
    const query = db
      .select(fields)
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
      .where(eq(s.hash, placeholder('callerHash')));
    return { fields, query };
  });
}

const readTokenByHash = tokenStatement('hash');
const readTokenById = tokenStatement('id');

interface KeyRow extends CallerRow {
  presentedRevokedAt: number | null;
  presentedExpiresAt: number | null;
  apiKeyId: string | null;
  apiKeySubject: string;
  apiKeyName: string;
  apiKeyScopes: string[];
  apiKeyClaims: Record<string, unknown> | null;
  apiKeyEnabled: boolean;
  apiKeyRevokedAt: number | null;
  apiKeyExpiresAt: number | null;
  apiKeyCidrs: string[] | null;
  apiKeyRateLimit: number | null;
  apiKeyRateLimitWindowSeconds: number | null;
  apiKeyHasCredits: boolean;
  subjectEnabled: boolean | null;
  subjectRateLimit: number | null;
  subjectRateLimitWindowSeconds: number | null;
  subjectHasCredits: boolean | null;
}

/** A machine that may not verify keys has none looked up. */
const readKeyByHash = flatStatement<Record<string, unknown>, KeyRow>(
  'verify_api_key_by_hash',
  (db, tables) => {
    const { secrets: s, secretKeys: k, machines: m, apiKeys: a, subjects: u } = tables;
    const presented = alias(s, 'presented');
    const fields = {
      ...callerColumns(tables),
      presentedRevokedAt: presented.revoked_at,
      presentedExpiresAt: presented.expires_at,
      apiKeyId: a.id,
      apiKeySubject: a.subject,
      apiKeyName: a.name,
      apiKeyScopes: a.scopes,
      apiKeyClaims: a.claims,
      apiKeyEnabled: a.enabled,
      apiKeyRevokedAt: a.revoked_at,
      apiKeyExpiresAt: a.expires_at,
      apiKeyCidrs: a.allowed_cidrs,
      apiKeyRateLimit: a.rate_limit,
      apiKeyRateLimitWindowSeconds: a.rate_limit_window_seconds,
      apiKeyHasCredits: a.has_credits,
      subjectEnabled: u.enabled,
      subjectRateLimit: u.rate_limit,
      subjectRateLimitWindowSeconds: u.rate_limit_window_seconds,
      subjectHasCredits: u.has_credits,
    };
    const query = db
      .select(fields)
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
      .leftJoin(u, eq(u.id, a.subject))
      .where(eq(s.hash, placeholder('callerHash')));
    return { fields, query };
  },
);

/** A token whose machine was deleted is nobody's. */
function tokenFound(row: TokenRow): Found | null {
  if (row.tokenId === null || row.senderGeneration === null) return null;
  return {
    valid: {
      valid: true,
      kind: 'm2m_token',
      id: row.tokenId,
      subject: row.tokenMachineId,
      machineId: row.tokenMachineId,
      audience: row.tokenAudience,
      scopes: row.tokenScopes.filter((scope) => row.edgeScopes?.includes(scope)),
      claims: row.tokenClaims,
      expiresAt: row.tokenExpiresAt,
    },
    reaches: row.edgeToMachineId !== null && row.tokenAudience.includes(row.edgeToMachineId),
    resources: null,
    revoked: row.tokenRevokedAt !== null || row.tokenGeneration < row.senderGeneration || diedWithKey(row),
    enabled: row.senderEnabled,
    allowedCidrs: null,
    limits: NONE,
    credits: NONE,
  };
}

/** What was still live when its key was retired, went with it: an emergency, for otherwise a key is not retired before. */
export const diedWithKey = ({ tokenExpiresAt, signingKeyState, signingKeyRetiredAt }: SignedBy): boolean =>
  signingKeyState === 'retired' && tokenExpiresAt > (signingKeyRetiredAt ?? 0);

function keyFound(row: KeyRow): Found | null {
  const { apiKeyId: id } = row;
  if (id === null) return null;
  const valid: ValidApiKey = {
    valid: true,
    kind: 'api_key',
    id,
    subject: row.apiKeySubject,
    name: row.apiKeyName,
    scopes: row.apiKeyScopes,
    claims: row.apiKeyClaims,
    expiresAt: earlier(row.apiKeyExpiresAt, row.presentedExpiresAt),
  };
  if (row.apiKeyCidrs !== null) valid.boundToAddresses = true;
  return {
    valid,
    reaches: null,
    resources: null,
    revoked: row.apiKeyRevokedAt !== null || row.presentedRevokedAt !== null,
    enabled: row.apiKeyEnabled && row.subjectEnabled !== false,
    allowedCidrs: row.apiKeyCidrs,
    limits: limitsOf(row, id),
    credits: creditsOf(row, id),
  };
}

/** A key is over when the first of the two is: the key, or the secret by which it was presented. */
function earlier(one: number | null, other: number | null): number | null {
  if (one === null) return other;
  return other === null ? one : Math.min(one, other);
}

/** The key's own first: what that refuses is not taken from the other keys of its subject. */
function limitsOf(row: KeyRow, id: string): Found['limits'] {
  const limits: (Limit & { key: string })[] = [];
  const { apiKeyRateLimit, apiKeyRateLimitWindowSeconds, subjectRateLimit, subjectRateLimitWindowSeconds } =
    row;
  if (apiKeyRateLimit !== null)
    limits.push({ key: id, count: apiKeyRateLimit, windowSeconds: apiKeyRateLimitWindowSeconds ?? 1 });
  if (subjectRateLimit !== null)
    limits.push({
      key: `subject:${row.apiKeySubject}`,
      count: subjectRateLimit,
      windowSeconds: subjectRateLimitWindowSeconds ?? 1,
    });
  return limits.length > 0 ? limits : NONE;
}

function creditsOf(row: KeyRow, id: string): readonly CreditsOwner[] {
  if (!row.apiKeyHasCredits && !row.subjectHasCredits) return NONE;
  const owners: CreditsOwner[] = [];
  if (row.apiKeyHasCredits) owners.push({ kind: 'api_key', id });
  if (row.subjectHasCredits) owners.push({ kind: 'subject', id: row.apiKeySubject });
  return owners;
}
