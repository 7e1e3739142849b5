import type { Kit } from '../kit.ts';

/** One of your own services. Its secret keys are rows of `secrets`, its live scopes rows of `machine_scopes`. */
export const machinesTable = (k: Kit) =>
  k.table(
    'machines',
    {
      id: k.str('id').primaryKey(),
      name: k.str('name').notNull(),
      description: k.str('description'),
      enabled: k.bool('enabled').notNull(),
      default_token_ttl_seconds: k.int('default_token_ttl_seconds').notNull(),
      max_token_ttl_seconds: k.int('max_token_ttl_seconds').notNull(),
      may_verify: k.bool('may_verify').notNull(),
      /** Tokens minted under a smaller number are revoked: revoking all of a machine is one write, however many. */
      token_generation: k.int('token_generation').notNull(),
      tokens_revoked_at: k.ts('tokens_revoked_at'),
      /** CIDR blocks its secrets may be used from; null where any will do. */
      allowed_cidrs: k.json<string[]>('allowed_cidrs'),
      /** Unexpired tokens it may have at a time, and tokens it may mint in a minute. */
      live_tokens_max: k.int('live_tokens_max').notNull().default(1_000_000),
      mints_per_minute_max: k.int('mints_per_minute_max').notNull().default(60_000),
      /** How old its secret may grow before it is due for rotation; null where it may grow as old as it likes. */
      rotation_period_seconds: k.int('rotation_period_seconds'),
      /** Whether a secret that is overdue expires; otherwise it is only complained of. */
      rotation_expires: k.bool('rotation_expires').notNull().default(false),
      last_used_at: k.ts('last_used_at'),
      created_at: k.ts('created_at').notNull(),
      updated_at: k.ts('updated_at').notNull(),
    },
    (t) => [k.uniqueIndex('machines_name').on(t.name), k.index('machines_created_at').on(t.created_at, t.id)],
  );
