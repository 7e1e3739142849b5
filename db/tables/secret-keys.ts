import type { Kit } from '../kit.ts';

/** A management credential with a role. Its values are rows of `secrets`. */
export const secretKeysTable = (k: Kit) =>
  k.table(
    'secret_keys',
    {
      id: k.str('id').primaryKey(),
      name: k.str('name').notNull(),
      role: k.str('role').$type<'admin' | 'issuer' | 'interaction' | 'read' | 'verify'>().notNull(),
      /** The key `COUNTERSIGN_BOOTSTRAP_KEY` or first start made: its file is removed when another admin key exists. */
      bootstrap: k.bool('bootstrap').notNull(),
      expires_at: k.ts('expires_at'),
      revoked_at: k.ts('revoked_at'),
      last_used_at: k.ts('last_used_at'),
      created_at: k.ts('created_at').notNull(),
      /** HMAC over id, role, expiry and revocation: a writer to the database cannot promote or revive a key. */
      mac: k.bytes('mac').notNull(),
    },
    (t) => [k.index('secret_keys_created_at').on(t.created_at, t.id)],
  );
