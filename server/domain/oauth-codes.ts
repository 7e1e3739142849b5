/** Authorization codes: given to the browser, redeemed once by the application (RFC 6749, section 4.1; RFC 7636). */
import { createHash } from 'node:crypto';
import { and, eq, isNull, placeholder, sql } from 'drizzle-orm';
import { insertStatement, statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { PREFIXES, parseValue } from '../crypto/format.ts';
import { newValue } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Deps } from '../deps.ts';
import type { AuthenticatedApplication } from './application-authentication.ts';
import {
  type GrantStanding,
  type IssuedUnderGrant,
  issueUnderGrant,
  stands,
  writeTokensOf,
} from './grant-tokens.ts';
import { OauthError } from './oauth-errors.ts';
import type { GrantRow } from './oauth-grants.ts';
import { hasExpired } from './secrets.ts';

type CodeRow = Rows['tables']['oauthCodes']['$inferSelect'];

/** What a code is bound to. */
export interface NewCode {
  grant: GrantRow;
  redirectUri: string;
  /** Whether the request named the redirect URI: then so must the redemption. */
  redirectUriGiven: boolean;
  /** S256; null without PKCE. */
  codeChallenge: string | null;
  ttlSeconds: number;
}

/** Makes a code, and answers it this once. */
export async function insertCode(tx: Rows, deps: Deps, code: NewCode): Promise<string> {
  const now = deps.now();
  const { value } = newValue(PREFIXES.authorizationCode);
  await insertRow(tx, {
    id: sortableId('oac_', now),
    hash: deps.keyring.hash(value),
    pepper_version: deps.keyring.pepperVersion,
    grant_id: code.grant.id,
    application_id: code.grant.application_id,
    redirect_uri: code.redirectUri,
    redirect_uri_given: code.redirectUriGiven,
    code_challenge: code.codeChallenge,
    created_at: now,
    expires_at: now + code.ttlSeconds * 1000,
    redeemed_at: null,
  });
  return value;
}

const insertRow = insertStatement('oauth_code_insert', 'oauthCodes');

/** What a code is presented with. */
export interface Redemption {
  code: string;
  redirectUri: string | undefined;
  codeVerifier: string | undefined;
  /** Resources of the grant that the token is to be for; empty for all of them. */
  resources: string[];
}

/**
 * Consumes a code and writes what follows in one transaction with its event. Of several that come with one code, one wins; a
 * second use revokes the grant with what the first was issued (RFC 9700, section 4.5). Throws `invalid_grant`, which does not
 * say why, and `invalid_target`.
 */
export async function redeemCode(
  deps: Deps,
  authenticated: AuthenticatedApplication,
  requestId: string,
  redemption: Redemption,
): Promise<IssuedUnderGrant> {
  const { application } = authenticated;
  if (!application.grant_types.includes('authorization_code'))
    throw new OauthError(
      'unauthorized_client',
      "The application may not use the grant type 'authorization_code'",
    );
  if (parseValue(redemption.code)?.prefix !== PREFIXES.authorizationCode) throw invalidGrant();
  const issued = await issueUnderGrant<FoundCode>(deps, authenticated, requestId, {
    async find(rows) {
      const found = await readCode(rows, deps, redemption.code);
      return found && isFor(deps, found, authenticated, redemption) ? found : null;
    },
    isUsed: ({ code }) => code.redeemed_at !== null,
    use: (tx, { code }) => consume(tx, deps, code.id),
    reuse: 'code_reused',
    async write(tx, found, given) {
      const { id, subject, application_id: applicationId, scopes, nonce } = found.grant;
      const { resources } = redemption;
      const wanted = { ...given, granted: scopes, asked: null, resources, nonce };
      const written = await writeTokensOf(tx, deps, authenticated, found, wanted);
      return {
        written,
        event: { type: 'oauth_grant.created', objectId: id, subject, data: { applicationId, scopes } },
      };
    },
  });
  if (!issued) throw invalidGrant();
  return issued;
}

interface FoundCode extends GrantStanding {
  code: CodeRow;
}

async function readCode(rows: Rows, deps: Deps, value: string): Promise<FoundCode | null> {
  const [found] = await readByHash(rows, { hash: deps.keyring.hash(value) });
  return found ?? null;
}

const readByHash = statement((db, { oauthCodes: c, oauthGrants: g, users: u, subjects: j }) =>
  db
    .select({ code: c, grant: g, user: u, subjectEnabled: j.enabled })
    .from(c)
    .innerJoin(g, eq(g.id, c.grant_id))
    .leftJoin(u, eq(u.id, g.subject))
    .leftJoin(j, eq(j.id, g.subject))
    .where(eq(c.hash, placeholder('hash')))
    .prepare('oauth_code'),
);

/** Each guard refuses. One that was redeemed before passes here: that it is used again is for the consuming to see. */
function isFor(
  deps: Deps,
  { code, ...standing }: FoundCode,
  { application }: AuthenticatedApplication,
  { redirectUri, codeVerifier }: Redemption,
): boolean {
  if (code.application_id !== application.id || !stands(deps, standing, application)) return false;
  if (code.redeemed_at === null && hasExpired(code.expires_at, deps.now())) return false;
  if (redirectUri === undefined ? code.redirect_uri_given : redirectUri !== code.redirect_uri) return false;
  // RFC 9700, section 4.8.2: a verifier without a challenge is a downgrade.
  if (code.code_challenge === null) return codeVerifier === undefined;
  return codeVerifier !== undefined && challengeOf(codeVerifier) === code.code_challenge;
}

/** RFC 7636, section 4.1. */
const VERIFIER = /^[A-Za-z0-9._~-]{43,128}$/;

/** S256 (RFC 7636, section 4.2); null for what is no verifier. */
function challengeOf(verifier: string): string | null {
  return VERIFIER.test(verifier) ? createHash('sha256').update(verifier).digest('base64url') : null;
}

/** Whether it was ours to consume. */
async function consume(tx: Rows, deps: Deps, id: string): Promise<boolean> {
  return (await markRedeemed(tx, { id, now: deps.now() })).length > 0;
}

const markRedeemed = statement((db, { oauthCodes: c }) =>
  db
    .update(c)
    .set({ redeemed_at: sql`${placeholder('now')}` })
    .where(and(eq(c.id, placeholder('id')), isNull(c.redeemed_at)))
    .returning({ id: c.id })
    .prepare('oauth_code_redeem'),
);

/** Whatever is wrong: who presents another's code learns nothing. */
const invalidGrant = () =>
  new OauthError(
    'invalid_grant',
    'Wanted a code that was not used and has not expired, with its redirect URI and code verifier, of this application',
  );
