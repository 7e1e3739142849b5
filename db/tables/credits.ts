import type { Kit } from '../kit.ts';

/** What an API key, or all keys of a subject together, may still spend. A row of its own, so that verifying writes to no credential's. */
export const creditsTable = (k: Kit) =>
  k.table(
    'credits',
    {
      owner_kind: k.str('owner_kind').$type<'api_key' | 'subject'>().notNull(),
      owner_id: k.str('owner_id').notNull(),
      remaining: k.int('remaining').notNull(),
      /** What `remaining` is brought back up to at each interval; both null where it is not. */
      refill_amount: k.int('refill_amount'),
      refill_interval_seconds: k.int('refill_interval_seconds'),
      /** The beginning of the interval that `remaining` was last brought up for. */
      refilled_at: k.ts('refilled_at').notNull(),
    },
    (t) => [k.primaryKey({ columns: [t.owner_kind, t.owner_id] })],
  );
