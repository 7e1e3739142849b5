/** Which application asks for a token: proven by its secret, or, where it is public, by nothing but its name. */
import { and, eq, placeholder } from 'drizzle-orm';
import { flatStatement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { PREFIXES, parseValue } from '../crypto/format.ts';
import type { Deps } from '../deps.ts';
import { type ApplicationRow, couldBeClientId } from './oauth-applications.ts';
import { hasExpired } from './secrets.ts';

/** What issuing a token needs of an application. */
export type TokenApplication = Pick<
  ApplicationRow,
  | 'id'
  | 'client_id'
  | 'source'
  | 'enabled'
  | 'public'
  | 'grant_types'
  | 'scopes'
  | 'default_scopes'
  | 'audiences'
  | 'access_token_format'
  | 'access_token_ttl_seconds'
  | 'refresh_token_idle_seconds'
  | 'refresh_token_max_seconds'
  | 'token_generation'
  | 'unused_until'
>;

export interface AuthenticatedApplication {
  application: TokenApplication;
  /** The secret that proved it; null of a public one. */
  secretId: string | null;
}

interface FoundSecret {
  secretId: string;
  secretExpiresAt: number | null;
  secretRevokedAt: number | null;
}

const columnsOf = (a: Rows['tables']['oauthApplications']) => ({
  id: a.id,
  client_id: a.client_id,
  source: a.source,
  enabled: a.enabled,
  public: a.public,
  grant_types: a.grant_types,
  scopes: a.scopes,
  default_scopes: a.default_scopes,
  audiences: a.audiences,
  access_token_format: a.access_token_format,
  access_token_ttl_seconds: a.access_token_ttl_seconds,
  refresh_token_idle_seconds: a.refresh_token_idle_seconds,
  refresh_token_max_seconds: a.refresh_token_max_seconds,
  token_generation: a.token_generation,
  unused_until: a.unused_until,
});

/** By the secret: with a wrong one nothing is found of an application there is, nor of one there is not, and no time tells them apart. */
const readBySecret = flatStatement<{ clientId: string; hash: Buffer }, TokenApplication & FoundSecret>(
  'oauth_application_by_secret',
  (db, { oauthApplications: a, secrets: s }) => {
    const secret = { secretId: s.id, secretExpiresAt: s.expires_at, secretRevokedAt: s.revoked_at };
    const fields = { ...columnsOf(a), ...secret };
    const query = db
      .select(fields)
      .from(s)
      .innerJoin(a, eq(a.id, s.owner_id))
      .where(
        and(
          eq(s.hash, placeholder('hash')),
          eq(s.owner_kind, 'oauth_application'),
          eq(a.client_id, placeholder('clientId')),
        ),
      );
    return { fields, query };
  },
);

const readPublic = flatStatement<{ clientId: string }, TokenApplication>(
  'oauth_application_public',
  (db, { oauthApplications: a }) => {
    const fields = columnsOf(a);
    const query = db
      .select(fields)
      .from(a)
      .where(and(eq(a.client_id, placeholder('clientId')), eq(a.public, true)));
    return { fields, query };
  },
);

/** What nobody's secret is: looked up where none, or none of our shape, is presented, so that this costs the same. */
const NO_SECRET = `${PREFIXES.applicationSecret}none`;

/**
 * Starts from nobody: unknown, disabled, with a wrong, revoked or expired secret, with a secret although it is public, and
 * without one although it is not, look alike.
 */
export async function authenticateApplication(
  deps: Deps,
  clientId: string,
  secret: string | null,
): Promise<AuthenticatedApplication | null> {
  if (!couldBeClientId(clientId)) return null;
  const { read } = deps.store;
  if (secret === null) {
    const [application] = await readPublic(read, { clientId });
    return application?.enabled ? { application, secretId: null } : null;
  }
  const isOurs = parseValue(secret)?.prefix === PREFIXES.applicationSecret;
  const [row] = await readBySecret(read, {
    clientId,
    hash: deps.keyring.hash(isOurs ? secret : NO_SECRET),
  });
  if (!row?.enabled || row.public) return null;
  const { secretId, secretExpiresAt, secretRevokedAt, ...application } = row;
  if (secretRevokedAt !== null || hasExpired(secretExpiresAt, deps.now())) return null;
  return { application, secretId };
}
