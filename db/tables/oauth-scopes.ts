import type { Kit } from '../kit.ts';

/** What an access token may do, in words that people are shown. The built-in scopes of OpenID Connect are no rows. */
export const oauthScopesTable = (k: Kit) =>
  k.table('oauth_scopes', {
    name: k.str('name').primaryKey(),
    description: k.str('description').notNull(),
    /** Whether the metadata of the server names it. */
    advertised: k.bool('advertised').notNull(),
    /** The resource it belongs to (RFC 8707); null for any. */
    resource: k.str('resource'),
    created_at: k.ts('created_at').notNull(),
    updated_at: k.ts('updated_at').notNull(),
  });
