import { sql } from 'drizzle-orm';
import type { Kit } from '../kit.ts';

/** A management credential with a role. Its values are rows of `secrets`. */
export const secretKeysTable = (k: Kit) =>
  k.table(
    'secret_keys',
    {
      id: k.str('id').primaryKey(),
      name: k.str('name').notNull(),
      role: k.str('role').$type<'admin' | 'issuer' | 'interaction' | 'read' | 'verify'>().notNull(),
      /** The key `COUNTERSIGN_BOOTSTRAP_KEY` or first start made: its file goes when another lasts. */
      bootstrap: k.bool('bootstrap').notNull(),
      expires_at: k.ts('expires_at'),
      revoked_at: k.ts('revoked_at'),
      /** CIDR blocks it may be used from; null where any will do. */
      allowed_cidrs: k.json<string[]>('allowed_cidrs'),
      /** How old its secret may grow before it is due for rotation; null where it may grow as old as it likes. */
      rotation_period_seconds: k.int('rotation_period_seconds'),
      /** Whether a secret that is overdue expires; otherwise it is only complained of. */
      rotation_expires: k.bool('rotation_expires').notNull().default(false),
      last_used_at: k.ts('last_used_at'),
      created_at: k.ts('created_at').notNull(),
      /**
       * HMAC over id, role, expiry, revocation and CIDR blocks: a writer to the database cannot promote a key. An earlier
       * state of the row is as genuine as the present one: putting it back is not noticed.
       */
      mac: k.bytes('mac').notNull(),
    },
    (t) => [
      k.index('secret_keys_created_at').on(t.created_at, t.id),
      k.index('secret_keys_expires_at').on(t.expires_at).where(sql`expires_at IS NOT NULL`),
    ],
  );
