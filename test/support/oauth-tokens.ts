import { eq } from 'drizzle-orm';
import type { Deps } from '../../server/deps.ts';
import {
  type ApplicationRow,
  createOauthApplication,
  createOauthApplicationInput,
} from '../../server/domain/oauth-applications.ts';
import { type GrantRow, insertGrant } from '../../server/domain/oauth-grants.ts';
import { createOauthScope, createOauthScopeInput } from '../../server/domain/oauth-scopes.ts';
import { writeOauthToken } from '../../server/domain/oauth-tokens.ts';
import { withSigning } from '../../server/domain/token-signing.ts';
import { callerWith } from './deps.ts';

const admin = callerWith('admin');

/** A confidential application that may be given `notes:read` and `notes:write`, with its secret. */
export async function newApplication(
  deps: Deps,
  input: Record<string, unknown> = {},
): Promise<{ row: ApplicationRow; secret: string }> {
  await defineScopes(deps, ['notes:read', 'notes:write']);
  const { id, secret = '' } = await createOauthApplication(
    deps,
    admin,
    createOauthApplicationInput.parse({
      name: 'Notes',
      redirectUris: ['https://notes.example.com/callback'],
      grantTypes: ['authorization_code', 'refresh_token', 'client_credentials'],
      scopes: ['openid', 'offline_access', 'notes:read', 'notes:write'],
      ...input,
    }),
  );
  return { row: await applicationRow(deps, id), secret };
}

async function defineScopes(deps: Deps, names: readonly string[]) {
  const { oauthScopes: s } = deps.store.read.tables;
  for (const name of names) {
    const known = await deps.store.read.db.select().from(s).where(eq(s.name, name));
    if (known.length > 0) continue;
    await createOauthScope(deps, admin, createOauthScopeInput.parse({ name, description: `May ${name}` }));
  }
}

export async function applicationRow({ store: { read } }: Deps, id: string): Promise<ApplicationRow> {
  const { oauthApplications: a } = read.tables;
  const [row] = await read.db.select().from(a).where(eq(a.id, id));
  if (!row) throw new Error(`No application has the id ${id}`);
  return row;
}

interface GrantOptions {
  subject?: string;
  organizationId?: string | null;
  scopes?: string[];
  resources?: string[];
}

/** That `user_1` let the application act for them. */
export const newGrant = (
  deps: Deps,
  application: ApplicationRow,
  { subject = 'user_1', organizationId = null, scopes = ['notes:read'], resources = [] }: GrantOptions = {},
): Promise<GrantRow> =>
  deps.store.tx((tx) =>
    insertGrant(tx, deps, {
      application,
      subject,
      organizationId,
      scopes,
      resources,
      redirectUri: 'https://notes.example.com/callback',
      claims: {},
      authTime: deps.now(),
      nonce: null,
    }),
  );

interface TokenOptions {
  format?: 'opaque' | 'jwt';
  /** Without it the application acts for itself. */
  grant?: GrantRow | null;
  scopes?: string[];
  resources?: string[];
}

/** An access token of an application, as the endpoints issue it, with its value. */
export async function newAccessToken(
  deps: Deps,
  application: ApplicationRow,
  { format = 'opaque', grant = null, scopes = ['notes:read'], resources = [] }: TokenOptions = {},
): Promise<{ id: string; value: string; expiresAt: number }> {
  const written = await withSigning(deps, format, (signing) =>
    deps.store.tx((tx) =>
      writeOauthToken(tx, deps, { application, secretId: null, grant, scopes, resources }, signing),
    ),
  );
  return { id: written.row.id, value: await written.value(), expiresAt: written.row.expires_at };
}
