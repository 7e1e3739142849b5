import { sql } from 'drizzle-orm';
import type { Kit } from '../kit.ts';

/** That a user let an application act for them, once: what its code, refresh tokens and access tokens hang on. */
export const oauthGrantsTable = (k: Kit) =>
  k.table(
    'oauth_grants',
    {
      id: k.str('id').primaryKey(),
      application_id: k.str('application_id').notNull(),
      /** The user. */
      subject: k.str('subject').notNull(),
      organization_id: k.str('organization_id'),
      scopes: k.json<string[]>('scopes').notNull(),
      /** The resources its tokens may be for; empty for none in particular. */
      resources: k.json<string[]>('resources').notNull(),
      redirect_uri: k.str('redirect_uri').notNull(),
      /** What the user is called and such, as the way they signed in by said: for ID tokens and userinfo. */
      claims: k.json<Record<string, unknown>>('claims').notNull(),
      /** When the user signed in. */
      auth_time: k.ts('auth_time').notNull(),
      nonce: k.str('nonce'),
      /** The application's `token_generation` then. */
      generation: k.int('generation').notNull(),
      created_at: k.ts('created_at').notNull(),
      /** When its last refresh token is over whatever is done; null for never. */
      expires_at: k.ts('expires_at'),
      last_used_at: k.ts('last_used_at'),
      revoked_at: k.ts('revoked_at'),
      revocation_reason: k.str('revocation_reason'),
    },
    (t) => [
      k.index('oauth_grants_subject').on(t.subject, t.created_at, t.id),
      k.index('oauth_grants_application').on(t.application_id, t.created_at, t.id),
      k.index('oauth_grants_created_at').on(t.created_at, t.id),
    ],
  );

/** That a user need not be asked again: by application, redirect URI, organization and resources, with the scopes they saw. */
export const oauthConsentsTable = (k: Kit) =>
  k.table(
    'oauth_consents',
    {
      id: k.str('id').primaryKey(),
      application_id: k.str('application_id').notNull(),
      subject: k.str('subject').notNull(),
      /** SHA-256 over redirect URI, organization and resources: what else must be the same. */
      terms_hash: k.bytes('terms_hash').notNull(),
      scopes: k.json<string[]>('scopes').notNull(),
      created_at: k.ts('created_at').notNull(),
      updated_at: k.ts('updated_at').notNull(),
    },
    (t) => [
      k.uniqueIndex('oauth_consents_terms').on(t.subject, t.application_id, t.terms_hash),
      k.index('oauth_consents_application').on(t.application_id),
    ],
  );

/** An authorization code, until some time after it was redeemed: a second use must be known for one. */
export const oauthCodesTable = (k: Kit) =>
  k.table(
    'oauth_codes',
    {
      id: k.str('id').primaryKey(),
      hash: k.bytes('hash').notNull(),
      pepper_version: k.int('pepper_version').notNull(),
      grant_id: k.str('grant_id').notNull(),
      application_id: k.str('application_id').notNull(),
      redirect_uri: k.str('redirect_uri').notNull(),
      /** Whether the request named it: then so must the redemption (RFC 6749, section 4.1.3). */
      redirect_uri_given: k.bool('redirect_uri_given').notNull(),
      /** S256; null where a confidential application used none. */
      code_challenge: k.str('code_challenge'),
      created_at: k.ts('created_at').notNull(),
      expires_at: k.ts('expires_at').notNull(),
      redeemed_at: k.ts('redeemed_at'),
    },
    (t) => [
      k.uniqueIndex('oauth_codes_hash').on(t.hash),
      k.index('oauth_codes_grant').on(t.grant_id),
      k.index('oauth_codes_expires_at').on(t.expires_at, t.id),
    ],
  );

/** A refresh token. Rotation marks one as used and adds its successor: a use after that is known for reuse. */
export const oauthRefreshTokensTable = (k: Kit) =>
  k.table(
    'oauth_refresh_tokens',
    {
      id: k.str('id').primaryKey(),
      hash: k.bytes('hash').notNull(),
      pepper_version: k.int('pepper_version').notNull(),
      grant_id: k.str('grant_id').notNull(),
      application_id: k.str('application_id').notNull(),
      scopes: k.json<string[]>('scopes').notNull(),
      created_at: k.ts('created_at').notNull(),
      expires_at: k.ts('expires_at').notNull(),
      used_at: k.ts('used_at'),
    },
    (t) => [
      k.uniqueIndex('oauth_refresh_tokens_hash').on(t.hash),
      k.index('oauth_refresh_tokens_grant').on(t.grant_id),
      k.index('oauth_refresh_tokens_expires_at').on(t.expires_at, t.id),
    ],
  );

/** An access token from issuing on, opaque or JWT. A token has one value for life, so its hash is on the row. */
export const oauthTokensTable = (k: Kit) =>
  k.table(
    'oauth_tokens',
    {
      /** Also the `jti` of a JWT. */
      id: k.str('id').primaryKey(),
      application_id: k.str('application_id').notNull(),
      /** Null where the application acts for itself (RFC 6749, section 4.4). */
      grant_id: k.str('grant_id'),
      /** The user, or the application itself. */
      subject: k.str('subject').notNull(),
      organization_id: k.str('organization_id'),
      format: k.str('format').$type<'opaque' | 'jwt'>().notNull(),
      /** Null for a JWT, whose signature is checked and whose row is found by `id`. */
      hash: k.bytes('hash'),
      pepper_version: k.int('pepper_version'),
      /** The client secret it was asked for with; null for a public application. */
      secret_id: k.str('secret_id'),
      signing_kid: k.str('signing_kid'),
      /** The application's `token_generation` at issuing. */
      generation: k.int('generation').notNull(),
      /** Resources (RFC 8707); empty for none in particular. */
      audience: k.json<string[]>('audience').notNull(),
      scopes: k.json<string[]>('scopes').notNull(),
      created_at: k.ts('created_at').notNull(),
      expires_at: k.ts('expires_at').notNull(),
      revoked_at: k.ts('revoked_at'),
      revocation_reason: k.str('revocation_reason'),
      last_used_at: k.ts('last_used_at'),
      /** The bit of a status list that tells of a JWT; null for an opaque token. */
      status_list_id: k.str('status_list_id'),
      status_index: k.int('status_index'),
    },
    (t) => [
      k.uniqueIndex('oauth_tokens_hash').on(t.hash),
      k.index('oauth_tokens_application').on(t.application_id, t.created_at, t.id),
      k.index('oauth_tokens_grant').on(t.grant_id).where(sql`grant_id IS NOT NULL`),
      k.index('oauth_tokens_expires_at').on(t.expires_at, t.id),
      k
        .index('oauth_tokens_signing_kid_expires_at')
        .on(t.signing_kid, t.expires_at)
        .where(sql`format = 'jwt'`),
      k
        .uniqueIndex('oauth_tokens_status')
        .on(t.status_list_id, t.status_index)
        .where(sql`status_list_id IS NOT NULL`),
    ],
  );
