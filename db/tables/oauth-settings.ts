import type { Kit } from '../kit.ts';

/** What holds for all applications: one row. Null leaves it to COUNTERSIGN_OAUTH_CLIENTS. */
export const oauthSettingsTable = (k: Kit) =>
  k.table('oauth_settings', {
    /** Always 1. */
    id: k.int('id').primaryKey(),
    registration: k.str('registration').$type<'off' | 'initial_access_token' | 'open'>(),
    metadata_documents: k.str('metadata_documents').$type<'off' | 'block' | 'first_seen' | 'allow'>(),
    /** What applications are given that name no scope and have no default of their own. */
    default_scopes: k.json<string[]>('default_scopes'),
    /** The format of access tokens of applications that are created without one. */
    access_token_format: k.str('access_token_format').$type<'opaque' | 'jwt'>(),
    updated_at: k.ts('updated_at').notNull(),
  });
