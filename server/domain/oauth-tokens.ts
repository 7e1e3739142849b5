/** OAuth access tokens: opaque or JWT, each with a row from issuing on. */
import {
  and,
  eq,
  gt,
  gte,
  inArray,
  isNotNull,
  isNull,
  lt,
  lte,
  or,
  placeholder,
  type SQL,
  sql,
} from 'drizzle-orm';
import { z } from 'zod';
import { flatStatement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { looksLikeJwt, PREFIXES, parseValue } from '../crypto/format.ts';
import { newValue } from '../crypto/hashing.ts';
import { hexId } from '../crypto/ids.ts';
import { signAccessJwt, verifyAccessJwt } from '../crypto/jwt.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { TokenApplication } from './application-authentication.ts';
import { change } from './events.ts';
import { description, oauthApplicationId, oauthGrantId, oauthTokenId } from './fields.ts';
import { OauthError } from './oauth-errors.ts';
import { isEnabled, isRevoked, type OauthStanding, standingColumns } from './oauth-token-rows.ts';
import { afterCursor, orderOf, type Page, pageInput, searchPage } from './pages.ts';
import { hasExpired } from './secrets.ts';
import {
  expiresAfter,
  JWT_PAYLOAD_BYTES_MAX,
  type Signing,
  signingColumns,
  statusClaim,
} from './token-signing.ts';

export type OauthTokenRow = Rows['tables']['oauthTokens']['$inferSelect'];

export interface OauthToken {
  id: string;
  applicationId: string;
  /** What a user allowed; null where the application acts for itself. */
  grantId: string | null;
  /** The user, or the application by its client id. */
  subject: string;
  organizationId: string | null;
  format: 'opaque' | 'jwt';
  /** Resources (RFC 8707); empty for none in particular. */
  audience: string[];
  scopes: string[];
  state: 'live' | 'revoked' | 'expired';
  createdAt: number;
  expiresAt: number;
  revokedAt: number | null;
  revocationReason: string | null;
  lastUsedAt: number | null;
}

/** What a token is to be. */
export interface NewOauthToken {
  application: TokenApplication;
  /** The secret it is asked for with; null of a public application. */
  secretId: string | null;
  /** What a user allowed; null where the application acts for itself. */
  grant: { id: string; subject: string; organization_id: string | null; generation: number } | null;
  scopes: string[];
  resources: string[];
}

/** A token whose row is written: signed, where it is to be, once that is durable. */
export interface WrittenOauthToken {
  row: OauthTokenRow;
  /** Answers the value: of an opaque token at once. */
  value(): Promise<string> | string;
}

const insertToken = flatStatement<Record<string, unknown>, object>(
  'oauth_token_insert',
  (db, { oauthTokens: t }) => ({
    fields: {},
    query: db.insert(t).values({
      id: placeholder('id'),
      application_id: placeholder('application_id'),
      grant_id: placeholder('grant_id'),
      subject: placeholder('subject'),
      organization_id: placeholder('organization_id'),
      format: placeholder('format'),
      hash: placeholder('hash'),
      pepper_version: placeholder('pepper_version'),
      secret_id: placeholder('secret_id'),
      signing_kid: placeholder('signing_kid'),
      generation: placeholder('generation'),
      audience: placeholder('audience'),
      scopes: placeholder('scopes'),
      created_at: placeholder('created_at'),
      expires_at: placeholder('expires_at'),
      status_list_id: placeholder('status_list_id'),
      status_index: placeholder('status_index'),
    }),
  }),
);

/** Writes the row of a token within a transaction that found it allowed. */
export async function writeOauthToken(
  tx: Rows,
  deps: Deps,
  token: NewOauthToken,
  signing: Signing | null,
): Promise<WrittenOauthToken> {
  const value = signing === null ? newValue(PREFIXES.accessToken).value : null;
  const row = newRow(deps, token, value, signing);
  const payload = signing && jwtPayload(deps, row, token.application.client_id);
  await insertToken(tx, row);
  return { row, value: () => (signing && payload ? signAccessJwt(signing.key, payload) : (value ?? '')) };
}

function newRow(
  deps: Deps,
  { application, secretId, grant, scopes, resources }: NewOauthToken,
  value: string | null,
  signing: Signing | null,
): OauthTokenRow {
  const now = deps.now();
  const format = signing === null ? 'opaque' : 'jwt';
  return {
    id: hexId('oat_', now),
    application_id: application.id,
    grant_id: grant?.id ?? null,
    subject: grant?.subject ?? application.client_id,
    organization_id: grant?.organization_id ?? null,
    format,
    hash: value === null ? null : deps.keyring.hash(value),
    pepper_version: value === null ? null : deps.keyring.pepperVersion,
    secret_id: secretId,
    ...signingColumns(signing),
    generation: grant?.generation ?? application.token_generation,
    audience: resources,
    scopes,
    created_at: now,
    expires_at: expiresAfter(format, now, application.access_token_ttl_seconds),
    revoked_at: null,
    revocation_reason: null,
    last_used_at: null,
  };
}

/** RFC 9068, section 2.2. Without a resource there is no audience: a token for everything is for nobody in particular. */
function jwtPayload(deps: Deps, row: OauthTokenRow, clientId: string): string {
  const issuedAt = Math.floor(row.created_at / 1000);
  const payload = JSON.stringify({
    iss: deps.publicUrl,
    sub: row.subject,
    client_id: clientId,
    jti: row.id,
    iat: issuedAt,
    nbf: issuedAt,
    exp: row.expires_at / 1000,
    scope: row.scopes.join(' '),
    ...audienceClaim(row.audience),
    ...(row.organization_id !== null && { org_id: row.organization_id }),
    // So that whoever judges it by what the feed tells answers as we do.
    ...(row.grant_id !== null && { grant_id: row.grant_id }),
    ...statusClaim(deps, row),
  });
  if (Buffer.byteLength(payload) <= JWT_PAYLOAD_BYTES_MAX) return payload;
  throw new OauthError(
    'invalid_request',
    'Wanted fewer scopes or resources: as a JWT the token would fit in no header',
  );
}

/** RFC 7519, section 4.1.3: one alone is no list. */
export const audienceClaim = (audience: readonly string[]) => {
  const [first, ...others] = audience;
  return first !== undefined && { aud: others.length === 0 ? first : audience };
};

export const oauthTokenIdInput = z.strictObject({ id: oauthTokenId.meta({ positional: true }) });

/** One access token, without its value. */
export async function getOauthToken(
  deps: Deps,
  { id }: z.output<typeof oauthTokenIdInput>,
): Promise<OauthToken> {
  const token = await describeOauthToken(deps, id);
  if (!token) throw tokenNotFound(id);
  return token;
}

/** The same, or null. */
export async function describeOauthToken(deps: Deps, id: string): Promise<OauthToken | null> {
  const { read } = deps.store;
  const [found] = await selectTokens(read).where(eq(read.tables.oauthTokens.id, id));
  return found ? asItStands(found, deps.now()) : null;
}

export const listOauthTokensInput = z.strictObject({
  applicationId: oauthApplicationId.optional(),
  grantId: oauthGrantId.optional(),
  state: z.enum(['live', 'revoked', 'expired']).optional(),
  ...pageInput,
});

type ListInput = z.output<typeof listOauthTokensInput>;

/** The tokens of one application or grant, the newest first. No index answers a state: see `searchPage`. */
export async function listOauthTokens(deps: Deps, input: ListInput): Promise<Page<OauthToken>> {
  const rows = deps.store.read;
  const { oauthTokens: t } = rows.tables;
  if (input.applicationId === undefined && input.grantId === undefined)
    throw new CountersignError('invalid_input', "Wanted 'applicationId' or 'grantId', found neither", {
      field: 'applicationId',
    });
  const now = deps.now();
  const filter = input.state && inState(rows, input.state, now);
  const page = await searchPage(input, {
    isFiltered: filter !== undefined,
    rows(candidatesMax) {
      const candidates = candidatesOf(rows, input).limit(candidatesMax).as('candidates');
      return selectTokens(rows)
        .where(and(inArray(t.id, rows.db.select({ id: candidates.id }).from(candidates)), filter))
        .orderBy(...orderOf(t.created_at, t.id, true))
        .limit(input.limit + 1)
        .offset(input.offset);
    },
    candidate: async (place) =>
      (await candidatesOf(rows, input).limit(1).offset(place)).map((token) => ({ token })),
    key: ({ token }): [number, string] => [token.created_at, token.id],
  });
  return { ...page, data: page.data.map((found) => asItStands(found, now)) };
}

function candidatesOf(
  { db, tables: { oauthTokens: t } }: Rows,
  { applicationId, grantId, cursor }: ListInput,
) {
  return db
    .select({ id: t.id, created_at: t.created_at })
    .from(t)
    .where(
      and(
        applicationId === undefined ? undefined : eq(t.application_id, applicationId),
        grantId === undefined ? undefined : eq(t.grant_id, grantId),
        afterCursor(cursor, t.created_at, t.id, true),
      ),
    )
    .orderBy(...orderOf(t.created_at, t.id, true));
}

/** Tokens with what else their state hangs on. One whose application was deleted is not there. */
function selectTokens({ db, tables }: Rows) {
  const { oauthTokens: t, oauthApplications: a, oauthGrants: g } = tables;
  return db
    .select({
      token: t,
      application: { generation: a.token_generation, tokensRevokedAt: a.tokens_revoked_at },
      grant: { id: g.id, revokedAt: g.revoked_at },
    })
    .from(t)
    .innerJoin(a, eq(a.id, t.application_id))
    .leftJoin(g, eq(g.id, t.grant_id))
    .$dynamic();
}

type TokenAsFound = Awaited<ReturnType<typeof selectTokens>>[number];

const asItStands = ({ token, application, grant }: TokenAsFound, now: number): OauthToken =>
  toOauthToken(token, { application, grantRevokedAt: grant?.revokedAt ?? null }, now);

/** The states of `toOauthToken`, in SQL. */
function inState({ tables }: Rows, state: OauthToken['state'], now: number): SQL | undefined {
  const { oauthTokens: t, oauthApplications: a, oauthGrants: g } = tables;
  if (state === 'revoked')
    return or(isNotNull(t.revoked_at), isNotNull(g.revoked_at), lt(t.generation, a.token_generation));
  const inTime = state === 'live' ? gt(t.expires_at, now) : lte(t.expires_at, now);
  return and(isNull(t.revoked_at), isNull(g.revoked_at), gte(t.generation, a.token_generation), inTime);
}

export const revokeOauthTokenInput = z.strictObject({
  id: oauthTokenId.meta({ positional: true }),
  reason: description.nullish(),
});

/** Revokes one access token for good; one that was revoked before is answered as it stands, without a second event. */
export async function revokeOauthToken(
  deps: Deps,
  caller: Caller,
  { id, reason = null }: z.output<typeof revokeOauthTokenInput>,
): Promise<{ id: string; revokedAt: number }> {
  return change(
    deps,
    caller,
    async (tx) => {
      const { oauthTokens: t } = tx.tables;
      const [revoked] = await tx.db
        .update(t)
        .set({ revoked_at: deps.now(), revocation_reason: reason })
        .where(and(eq(t.id, id), isNull(t.revoked_at)))
        .returning();
      if (!revoked) {
        const [before] = await tx.db.select({ at: t.revoked_at }).from(t).where(eq(t.id, id));
        if (!before) throw tokenNotFound(id);
        return { result: { id, revokedAt: before.at ?? deps.now() }, event: null };
      }
      const { application_id: applicationId, format, expires_at: expiresAt, subject } = revoked;
      return {
        result: { id, revokedAt: revoked.revoked_at ?? deps.now() },
        event: {
          type: 'oauth_token.revoked',
          objectId: id,
          subject,
          data: { applicationId, format, expiresAt, reason },
        },
      };
    },
    'revocation',
  );
}

const tokenNotFound = (id: string) =>
  new CountersignError('not_found', `No OAuth access token has the id '${id}'`, { field: 'id' });

/** What else a token's state hangs on. */
export interface TokenStanding {
  /** The application's `token_generation` and when that was raised; null where it is gone. */
  application: { generation: number; tokensRevokedAt: number | null } | null;
  grantRevokedAt: number | null;
}

function toOauthToken(row: OauthTokenRow, standing: TokenStanding, now: number): OauthToken {
  const { application, grantRevokedAt } = standing;
  const withAll = application && row.generation < application.generation ? application.tokensRevokedAt : null;
  const revokedAt = row.revoked_at ?? grantRevokedAt ?? withAll;
  return {
    id: row.id,
    applicationId: row.application_id,
    grantId: row.grant_id,
    subject: row.subject,
    organizationId: row.organization_id,
    format: row.format,
    audience: row.audience,
    scopes: row.scopes,
    state: revokedAt !== null ? 'revoked' : hasExpired(row.expires_at, now) ? 'expired' : 'live',
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    revokedAt,
    revocationReason: row.revocation_reason,
    lastUsedAt: row.last_used_at,
  };
}

/** By its value, for whoever presents it: opaque by its hash, a JWT by its id. */
const readOauthTokenBy = (by: 'hash' | 'id') =>
  flatStatement<Record<string, unknown>, FoundOauthToken>(`oauth_token_by_${by}`, (db, tables) => {
    const { oauthTokens: t, oauthApplications: a, oauthGrants: g, signingKeys: k } = tables;
    const { users: u, subjects: j } = tables;
    const fields = {
      ...standingColumns(tables),
      tokenId: t.id,
      applicationId: t.application_id,
      clientId: a.client_id,
      grantClaims: g.claims,
      subject: t.subject,
      organizationId: t.organization_id,
      audience: t.audience,
      scopes: t.scopes,
      createdAt: t.created_at,
    };
    const query = db
      .select(fields)
      .from(t)
      // A token whose application is gone is nobody's.
      .innerJoin(a, eq(a.id, t.application_id))
      .leftJoin(g, eq(g.id, t.grant_id))
      .leftJoin(u, eq(u.id, t.subject))
      .leftJoin(j, eq(j.id, t.subject))
      .leftJoin(k, eq(k.kid, t.signing_kid))
      .where(
        by === 'hash'
          ? eq(t.hash, placeholder('hash'))
          : and(eq(t.id, placeholder('id')), eq(t.format, sql`'jwt'`)),
      );
    return { fields, query };
  });

export interface FoundOauthToken extends OauthStanding {
  tokenId: string;
  applicationId: string;
  clientId: string;
  /** Null where the application acts for itself, or its grant is gone. */
  grantClaims: Record<string, unknown> | null;
  subject: string;
  organizationId: string | null;
  audience: string[];
  scopes: string[];
  createdAt: number;
}

const readByHash = readOauthTokenBy('hash');
const readById = readOauthTokenBy('id');

/** The live access token with this value, opaque or JWT; null for all else. */
export async function findLiveOauthToken(deps: Deps, value: string): Promise<FoundOauthToken | null> {
  const found = await findOauthToken(deps, value);
  const isLive =
    found && isEnabled(found) && !isRevoked(found) && !hasExpired(found.tokenExpiresAt, deps.now());
  return isLive ? found : null;
}

/** The access token with this value, whatever became of it. */
export async function findOauthToken(deps: Deps, value: string): Promise<FoundOauthToken | null> {
  if (parseValue(value)?.prefix === PREFIXES.accessToken) {
    const [row] = await readByHash(deps.store.read, { hash: deps.keyring.hash(value) });
    return row ?? null;
  }
  if (!looksLikeJwt(value)) return null;
  const signed = await verifyAccessJwt(value, deps.publicUrl, deps.signer.find);
  const [row] = signed ? await readById(deps.store.read, { id: signed.jti }) : [];
  return row && row.subject === signed?.sub ? row : null;
}
