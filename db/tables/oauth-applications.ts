import { sql } from 'drizzle-orm';
import type { Kit } from '../kit.ts';

/** Where an application comes from: an administrator, a registration of its own (RFC 7591), or a document at its URL. */
export type OauthApplicationSource = 'administrator' | 'registration' | 'metadata_document';

/** A program that is given access tokens. Its client secrets are rows of `secrets`. */
export const oauthApplicationsTable = (k: Kit) =>
  k.table(
    'oauth_applications',
    {
      id: k.str('id').primaryKey(),
      /** What the wire calls it: the id, or the URL of its metadata document. */
      client_id: k.str('client_id').notNull(),
      source: k.str('source').$type<OauthApplicationSource>().notNull(),
      name: k.str('name').notNull(),
      description: k.str('description'),
      /** Its home page. */
      client_uri: k.str('client_uri'),
      enabled: k.bool('enabled').notNull(),
      /** Keeps no secret: proves itself by PKCE alone. */
      public: k.bool('public').notNull(),
      redirect_uris: k.json<string[]>('redirect_uris').notNull(),
      grant_types: k.json<string[]>('grant_types').notNull(),
      /** The scopes it may be given. */
      scopes: k.json<string[]>('scopes').notNull(),
      /** What it is given where it names none; null for the instance's. */
      default_scopes: k.json<string[]>('default_scopes'),
      /** The resources its tokens may be for (RFC 8707); null for any. */
      audiences: k.json<string[]>('audiences'),
      consent_required: k.bool('consent_required').notNull(),
      pkce_required: k.bool('pkce_required').notNull(),
      access_token_format: k.str('access_token_format').$type<'opaque' | 'jwt'>().notNull(),
      access_token_ttl_seconds: k.int('access_token_ttl_seconds').notNull(),
      /** A refresh token lives so long after its last use, and with its successors so long in all. */
      refresh_token_idle_seconds: k.int('refresh_token_idle_seconds').notNull(),
      refresh_token_max_seconds: k.int('refresh_token_max_seconds'),
      code_ttl_seconds: k.int('code_ttl_seconds').notNull(),
      /** Tokens and grants of a smaller number are revoked: revoking all of an application is one write, however many. */
      token_generation: k.int('token_generation').notNull(),
      tokens_revoked_at: k.ts('tokens_revoked_at'),
      /** When it was given the logo it has; null without one. */
      logo_updated_at: k.ts('logo_updated_at'),
      /** From when on a metadata document is to be asked for again. */
      document_stale_at: k.ts('document_stale_at'),
      /** When a registration that nobody has used goes; null once it was used, and for all others. */
      unused_until: k.ts('unused_until'),
      last_used_at: k.ts('last_used_at'),
      created_at: k.ts('created_at').notNull(),
      updated_at: k.ts('updated_at').notNull(),
    },
    (t) => [
      k.uniqueIndex('oauth_applications_client_id').on(t.client_id),
      k.index('oauth_applications_name').on(t.name, t.id),
      k.index('oauth_applications_created_at').on(t.created_at, t.id),
      k
        .index('oauth_applications_unused_until')
        .on(t.unused_until, t.id)
        .where(sql`unused_until IS NOT NULL`),
    ],
  );

/** What an application shows of itself where it asks for consent. */
export const oauthLogosTable = (k: Kit) =>
  k.table('oauth_logos', {
    application_id: k.str('application_id').primaryKey(),
    /** Its media type, as its first bytes say. */
    type: k.str('type').notNull(),
    bytes: k.bytes('bytes').notNull(),
    updated_at: k.ts('updated_at').notNull(),
  });

/** What an application must present to register itself, where not everybody may (RFC 7591, section 3). */
export const initialAccessTokensTable = (k: Kit) =>
  k.table(
    'initial_access_tokens',
    {
      id: k.str('id').primaryKey(),
      name: k.str('name').notNull(),
      hash: k.bytes('hash').notNull(),
      uses_left: k.int('uses_left').notNull(),
      created_at: k.ts('created_at').notNull(),
      expires_at: k.ts('expires_at').notNull(),
      /** HMAC over id, hash and expiry: a writer to the database cannot make one. */
      mac: k.bytes('mac').notNull(),
    },
    (t) => [
      k.uniqueIndex('initial_access_tokens_hash').on(t.hash),
      k.index('initial_access_tokens_expires_at').on(t.expires_at, t.id),
    ],
  );
