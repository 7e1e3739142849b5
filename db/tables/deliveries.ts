import { sql } from 'drizzle-orm';
import type { Kit } from '../kit.ts';

/** One event owed to one webhook endpoint. Retry state lives here, never in a queue. */
export const deliveriesTable = (k: Kit) =>
  k.table(
    'deliveries',
    {
      id: k.str('id').primaryKey(),
      event_seq: k.int('event_seq').notNull(),
      endpoint_id: k.str('endpoint_id').notNull(),
      state: k.str('state').$type<'pending' | 'delivered' | 'dead'>().notNull(),
      /** Revocations go ahead of everything else: 0 for them, 1 for the rest. */
      priority: k.int('priority').notNull(),
      /** Attempts claimed so far, also those of which nothing was heard again: it tells a late outcome from ours. */
      attempt: k.int('attempt').notNull(),
      /** Attempts that failed: these, and not what was lost on our side, use up the schedule. */
      failures: k.int('failures').notNull().default(0),
      /** When the next attempt is due; while one is under way, when it counts as lost. */
      next_at: k.ts('next_at').notNull(),
      /** When the attempt under way was claimed; null while none is. One that was lost leaves it until it is claimed again. */
      claimed_at: k.ts('claimed_at'),
      created_at: k.ts('created_at').notNull(),
      first_attempt_at: k.ts('first_attempt_at'),
      delivered_at: k.ts('delivered_at'),
      last_status: k.int('last_status'),
      last_error: k.str('last_error'),
    },
    (t) => [
      k.uniqueIndex('deliveries_event_endpoint').on(t.event_seq, t.endpoint_id),
      // By endpoint first, so that what one is owed is not walked past to find what another is.
      k.index('deliveries_owed').on(t.endpoint_id, t.priority, t.next_at).where(sql`state = 'pending'`),
      k.index('deliveries_claimed').on(t.endpoint_id, t.next_at).where(sql`claimed_at is not null`),
      k.index('deliveries_created_at').on(t.created_at),
      k.index('deliveries_endpoint').on(t.endpoint_id, t.event_seq),
    ],
  );

/** One attempt at a delivery, as it went. Pruned by age. */
export const deliveryAttemptsTable = (k: Kit) =>
  k.table(
    'delivery_attempts',
    {
      delivery_id: k.str('delivery_id').notNull(),
      /** As `deliveries.attempt` was while it was made. */
      attempt: k.int('attempt').notNull(),
      began_at: k.ts('began_at').notNull(),
      ended_at: k.ts('ended_at').notNull(),
      status: k.int('status'),
      error: k.str('error'),
      /** The first 4 KB of what the receiver answered. */
      response: k.str('response'),
    },
    (t) => [
      k.primaryKey({ columns: [t.delivery_id, t.attempt] }),
      k.index('delivery_attempts_ended_at').on(t.ended_at),
    ],
  );
