import { sql } from 'drizzle-orm';
import type { Kit } from '../kit.ts';

/** A key pair that signs JWTs. The private half is sealed, bound to this table, column and `kid`. */
export const signingKeysTable = (k: Kit) =>
  k.table(
    'signing_keys',
    {
      kid: k.str('kid').primaryKey(),
      alg: k.str('alg').$type<'RS256' | 'ES256' | 'EdDSA'>().notNull(),
      state: k.str('state').$type<'upcoming' | 'active' | 'retiring' | 'retired'>().notNull(),
      public_jwk: k.json<Record<string, string>>('public_jwk').notNull(),
      sealed_private_jwk: k.bytes('sealed_private_jwk').notNull(),
      created_at: k.ts('created_at').notNull(),
      activated_at: k.ts('activated_at'),
      retired_at: k.ts('retired_at'),
      mac: k.bytes('mac').notNull(),
    },
    (t) => [
      k.index('signing_keys_state').on(t.state),
      k.uniqueIndex('signing_keys_one_active').on(t.state).where(sql`state = 'active'`),
    ],
  );
