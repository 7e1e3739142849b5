/** Which application asks for a token: proven by its secret, or, where it is public, by nothing but its name. */
import { and, eq, placeholder } from 'drizzle-orm';
import { flatStatement } from '../../db/statement.ts';
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

type FoundRow = TokenApplication & {
  secretId: string | null;
  secretExpiresAt: number | null;
  secretRevokedAt: number | null;
};

const readApplication = flatStatement<{ clientId: string; hash: Buffer }, FoundRow>(
  'oauth_application_authentication',
  (db, { oauthApplications: a, secrets: s }) => {
    const fields = {
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
      secretId: s.id,
      secretExpiresAt: s.expires_at,
      secretRevokedAt: s.revoked_at,
    };
    const query = db
      .select(fields)
      .from(a)
      .leftJoin(
        s,
        and(eq(s.hash, placeholder('hash')), eq(s.owner_kind, 'oauth_application'), eq(s.owner_id, a.id)),
      )
      .where(eq(a.client_id, placeholder('clientId')));
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
  const isOurs = secret !== null && parseValue(secret)?.prefix === PREFIXES.applicationSecret;
  if (!couldBeClientId(clientId)) return null;
  const [row] = await readApplication(deps.store.read, {
    clientId,
    hash: deps.keyring.hash(isOurs ? secret : NO_SECRET),
  });
  if (!row?.enabled || row.public !== (secret === null)) return null;
  const { secretId, secretExpiresAt, secretRevokedAt, ...application } = row;
  if (row.public) return { application, secretId: null };
  if (secretId === null || secretRevokedAt !== null || hasExpired(secretExpiresAt, deps.now())) return null;
  return { application, secretId };
}
