/** Refresh tokens: each is used once and followed by another; a second use revokes the grant (RFC 9700, section 4.14.2). */
import { and, eq, isNull, placeholder } from 'drizzle-orm';
import { statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { PREFIXES, parseValue } from '../crypto/format.ts';
import type { Caller, Deps } from '../deps.ts';
import type { AuthenticatedApplication, TokenApplication } from './application-authentication.ts';
import { change } from './events.ts';
import {
  type GrantStanding,
  type IssuedUnderGrant,
  issueUnderGrant,
  stands,
  writeTokensOf,
} from './grant-tokens.ts';
import { OauthError } from './oauth-errors.ts';
import { type GrantRow, noteGrantUsed, revokeGrant } from './oauth-grants.ts';
import { takeOne } from './rate-limits.ts';
import { hasExpired } from './secrets.ts';

type RefreshTokenRow = Rows['tables']['oauthRefreshTokens']['$inferSelect'];

interface Refresh {
  refreshToken: string;
  /** Null for all that it was granted. */
  scopes: string[] | null;
  /** Resources of the grant that the token is to be for; empty for all of them. */
  resources: string[];
}

/**
 * Marks a refresh token as used and writes what follows, in one transaction. Of several that come with one token, one wins.
 * Scopes that were not granted are left out without a word, for clients repeat what they first asked for. Throws
 * `invalid_grant`, which does not say why, `invalid_scope` where nothing is left, `invalid_target`, and `rate_limited`, which
 * leaves the refresh token as it was.
 */
export async function refreshTokens(
  deps: Deps,
  authenticated: AuthenticatedApplication,
  requestId: string,
  { refreshToken, scopes: asked, resources }: Refresh,
): Promise<IssuedUnderGrant> {
  const { application } = authenticated;
  if (!application.grant_types.includes('refresh_token'))
    throw new OauthError('unauthorized_client', "The application may not use the grant type 'refresh_token'");
  if (parseValue(refreshToken)?.prefix !== PREFIXES.refreshToken) throw invalidGrant();
  const issued = await issueUnderGrant<FoundRefreshToken>(deps, authenticated, requestId, {
    async find(rows) {
      const found = await readRefreshToken(rows, deps, refreshToken);
      return found && isFor(deps, found, authenticated) ? found : null;
    },
    isUsed: ({ token }) => token.used_at !== null,
    admit: ({ grant }) => assertNotTooOften(deps, application, grant.id),
    use: (tx, { token }) => use(tx, deps, token.id),
    reuse: 'refresh_token_reused',
    async write(tx, found, given) {
      const wanted = { ...given, granted: found.token.scopes, asked, resources, nonce: null };
      const written = await writeTokensOf(tx, deps, authenticated, found, wanted);
      await noteGrantUsed(tx, deps, found.grant.id);
      return { written, event: null };
    },
  });
  if (!issued) throw invalidGrant();
  return issued;
}

/** How often a grant may be refreshed in a minute. */
const REFRESHES_MAX = 10;

/** Never less than twice as often as the access tokens of the application expire. */
async function assertNotTooOften(
  deps: Deps,
  { access_token_ttl_seconds: ttlSeconds }: TokenApplication,
  grantId: string,
): Promise<void> {
  const limit = { count: Math.max(REFRESHES_MAX, Math.ceil(120 / ttlSeconds)), windowSeconds: 60 };
  const refusal = `Cannot refresh: wanted at most ${limit.count} in a minute under one grant`;
  await takeOne(deps, `oauth_refresh:${grantId}`, limit, refusal);
}

interface FoundRefreshToken extends GrantStanding {
  token: RefreshTokenRow;
}

async function readRefreshToken(rows: Rows, deps: Deps, value: string): Promise<FoundRefreshToken | null> {
  const [found] = await readByHash(rows, { hash: deps.keyring.hash(value) });
  return found ?? null;
}

const readByHash = statement((db, { oauthRefreshTokens: r, oauthGrants: g, users: u, subjects: j }) =>
  db
    .select({ token: r, grant: g, user: u, subjectEnabled: j.enabled })
    .from(r)
    .innerJoin(g, eq(g.id, r.grant_id))
    .leftJoin(u, eq(u.id, g.subject))
    .leftJoin(j, eq(j.id, g.subject))
    .where(eq(r.hash, placeholder('hash')))
    .prepare('oauth_refresh_token'),
);

/** Each guard refuses. One that was used before passes here: that it is used again is for the using to see. */
function isFor(
  deps: Deps,
  { token, ...standing }: FoundRefreshToken,
  { application }: Pick<AuthenticatedApplication, 'application'>,
): boolean {
  const now = deps.now();
  if (token.application_id !== application.id || !stands(deps, standing, application)) return false;
  const isOver = hasExpired(token.expires_at, now) || hasExpired(standing.grant.expires_at, now);
  return token.used_at !== null || !isOver;
}

/** Whether it was ours to use. */
async function use({ db, tables }: Rows, deps: Deps, id: string): Promise<boolean> {
  const { oauthRefreshTokens: r } = tables;
  const used = await db
    .update(r)
    .set({ used_at: deps.now() })
    .where(and(eq(r.id, id), isNull(r.used_at)))
    .returning({ id: r.id });
  return used.length > 0;
}

/** Revokes the grant of a refresh token of this application, and answers whether it is one; what is none is left alone (RFC 7009, section 2.2). */
export async function revokeByRefreshToken(
  deps: Deps,
  caller: Caller,
  applicationId: string,
  value: string,
): Promise<boolean> {
  const found = await readRefreshToken(deps.store.read, deps, value);
  if (found?.token.application_id !== applicationId) return false;
  const { id, revoked_at: revokedAt } = found.grant;
  if (revokedAt !== null) return true;
  await change<void>(
    deps,
    caller,
    async (tx) => ({ result: undefined, event: await revokeGrant(tx, deps, id, 'revoked_by_client') }),
    'revocation',
  );
  return true;
}

/** A refresh token of an application as introspection shows it; null for one that is over, or another's. */
export async function findRefreshToken(
  deps: Deps,
  { application }: AuthenticatedApplication,
  value: string,
): Promise<{ token: RefreshTokenRow; grant: GrantRow } | null> {
  const found = await readRefreshToken(deps.store.read, deps, value);
  if (!found || found.token.used_at !== null) return null;
  return isFor(deps, found, { application }) ? found : null;
}

/** Whatever is wrong: who presents another's token learns nothing. */
const invalidGrant = () =>
  new OauthError(
    'invalid_grant',
    'Wanted a refresh token that was not used and has not expired or been revoked, of this application',
  );
