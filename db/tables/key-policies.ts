import { sql } from 'drizzle-orm';
import type { Kit } from '../kit.ts';

/** What the API keys created under it may be, and what they are given where nothing else is asked for. */
export const keyPoliciesTable = (k: Kit) =>
  k.table(
    'key_policies',
    {
      id: k.str('id').primaryKey(),
      name: k.str('name').notNull(),
      description: k.str('description'),
      /** Applies to keys created without naming a policy; at most one does. */
      is_default: k.bool('is_default').notNull(),
      /** What values begin with; null for `ak_`. */
      prefix: k.str('prefix'),
      /** The scopes a key may have; null for any. */
      allowed_scopes: k.json<string[]>('allowed_scopes'),
      default_ttl_seconds: k.int('default_ttl_seconds'),
      max_ttl_seconds: k.int('max_ttl_seconds'),
      /** Live keys a subject may have under it; null for any number. */
      live_keys_max: k.int('live_keys_max'),
      rate_limit: k.int('rate_limit'),
      rate_limit_window_seconds: k.int('rate_limit_window_seconds'),
      credits: k.int('credits'),
      refill_amount: k.int('refill_amount'),
      refill_interval_seconds: k.int('refill_interval_seconds'),
      /** How long revoked and expired keys stay listed. */
      retention_seconds: k.int('retention_seconds').notNull(),
      created_at: k.ts('created_at').notNull(),
      updated_at: k.ts('updated_at').notNull(),
    },
    (t) => [
      k.uniqueIndex('key_policies_name').on(t.name),
      k.uniqueIndex('key_policies_one_default').on(t.is_default).where(sql`is_default`),
      k.index('key_policies_created_at').on(t.created_at, t.id),
    ],
  );
