import type { Kit } from '../kit.ts';

/** An end user, known by a source and what that calls them, never by an address of mail (threats.md, sign-in). */
export const usersTable = (k: Kit) =>
  k.table(
    'users',
    {
      id: k.str('id').primaryKey(),
      /** `local`, or the issuer of an upstream. Users of a hand-off are the host application's, and no rows. */
      source: k.str('source').notNull(),
      /** What the source calls them: for local accounts the name they sign in with, in lower case. */
      source_subject: k.str('source_subject').notNull(),
      name: k.str('name'),
      email: k.str('email'),
      email_verified: k.bool('email_verified').notNull(),
      /** scrypt with its parameters and salt, sealed; null where somebody else checks passwords. */
      password_hash: k.bytes('password_hash'),
      enabled: k.bool('enabled').notNull(),
      last_signed_in_at: k.ts('last_signed_in_at'),
      created_at: k.ts('created_at').notNull(),
      updated_at: k.ts('updated_at').notNull(),
      /** HMAC over all but its last three instants: a writer to the database cannot make a user another's. */
      mac: k.bytes('mac').notNull(),
    },
    (t) => [
      k.uniqueIndex('users_source').on(t.source, t.source_subject),
      k.index('users_created_at').on(t.created_at, t.id),
    ],
  );

/** A link by which somebody becomes a local user, or sets a new password; gone with its use. */
export const userInvitationsTable = (k: Kit) =>
  k.table(
    'user_invitations',
    {
      id: k.str('id').primaryKey(),
      hash: k.bytes('hash').notNull(),
      /** The user whose password it sets; null where it makes one. */
      user_id: k.str('user_id'),
      email: k.str('email'),
      name: k.str('name'),
      created_at: k.ts('created_at').notNull(),
      expires_at: k.ts('expires_at').notNull(),
      /** HMAC over all but when it was made. */
      mac: k.bytes('mac').notNull(),
    },
    (t) => [
      k.uniqueIndex('user_invitations_hash').on(t.hash),
      k.index('user_invitations_expires_at').on(t.expires_at, t.id),
    ],
  );

/** An end user who is signed in, in one browser. */
export const userSessionsTable = (k: Kit) =>
  k.table(
    'user_sessions',
    {
      id: k.str('id').primaryKey(),
      hash: k.bytes('hash').notNull(),
      /** Who: `user_…`, or what the host application of a hand-off calls them. */
      subject: k.str('subject').notNull(),
      /** The way they signed in by: `local`, `handoff`, or an upstream's issuer. */
      source: k.str('source').notNull(),
      /** What ID tokens and userinfo say of them, and the organizations they may choose from. */
      claims: k.json<Record<string, unknown>>('claims').notNull(),
      organizations: k.json<{ id: string; name: string }[]>('organizations').notNull(),
      auth_time: k.ts('auth_time').notNull(),
      created_at: k.ts('created_at').notNull(),
      /** Written at most once a minute. */
      last_seen_at: k.ts('last_seen_at').notNull(),
      expires_at: k.ts('expires_at').notNull(),
      /** HMAC over all but the time it was last seen: a writer to the database cannot make a session another's. */
      mac: k.bytes('mac').notNull(),
    },
    (t) => [
      k.uniqueIndex('user_sessions_hash').on(t.hash),
      k.index('user_sessions_subject').on(t.subject, t.created_at, t.id),
      k.index('user_sessions_expires_at').on(t.expires_at, t.id),
    ],
  );

/** Sign-ins that failed, by what was tried: rows, for they must not be lost with Redis. */
export const signInFailuresTable = (k: Kit) =>
  k.table(
    'sign_in_failures',
    {
      /** Hash of the account's name, or of the network. */
      id: k.str('id').primaryKey(),
      count: k.int('count').notNull(),
      /** When it is forgotten. */
      expires_at: k.ts('expires_at').notNull(),
    },
    (t) => [k.index('sign_in_failures_expires_at').on(t.expires_at, t.id)],
  );
