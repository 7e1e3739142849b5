import type { Kit } from '../kit.ts';

/** Somebody signed in to the console with a secret key: who they are is that key's to say, as it is at the moment. */
export const operatorSessionsTable = (k: Kit) =>
  k.table(
    'operator_sessions',
    {
      id: k.str('id').primaryKey(),
      hash: k.bytes('hash').notNull(),
      secret_key_id: k.str('secret_key_id').notNull(),
      created_at: k.ts('created_at').notNull(),
      /** Written at most once a minute. */
      last_seen_at: k.ts('last_seen_at').notNull(),
      expires_at: k.ts('expires_at').notNull(),
      /** HMAC over id, hash, key and expiry: a writer to the database cannot make a session another key's. */
      mac: k.bytes('mac').notNull(),
    },
    (t) => [
      k.uniqueIndex('operator_sessions_hash').on(t.hash),
      k.index('operator_sessions_secret_key_id').on(t.secret_key_id, t.created_at, t.id),
      k.index('operator_sessions_expires_at_id').on(t.expires_at, t.id),
    ],
  );

/** A link that signs in once; it is deleted as it does. */
export const signInLinksTable = (k: Kit) =>
  k.table(
    'sign_in_links',
    {
      id: k.str('id').primaryKey(),
      hash: k.bytes('hash').notNull(),
      secret_key_id: k.str('secret_key_id').notNull(),
      created_at: k.ts('created_at').notNull(),
      expires_at: k.ts('expires_at').notNull(),
      /** As that of a session. */
      mac: k.bytes('mac').notNull(),
    },
    (t) => [
      k.uniqueIndex('sign_in_links_hash').on(t.hash),
      k.index('sign_in_links_secret_key_id').on(t.secret_key_id),
      k.index('sign_in_links_expires_at').on(t.expires_at),
    ],
  );
