import type { Kit } from '../kit.ts';

/** Where events are sent. The signing secret is sealed, bound to this table, column and `id`. */
export const webhookEndpointsTable = (k: Kit) =>
  k.table(
    'webhook_endpoints',
    {
      id: k.str('id').primaryKey(),
      url: k.str('url').notNull(),
      description: k.str('description'),
      /** Exact types or `noun.*`; empty means all. */
      event_types: k.json<string[]>('event_types').notNull(),
      enabled: k.bool('enabled').notNull(),
      sealed_secret: k.bytes('sealed_secret').notNull(),
      /** The sequence of the event of its own creation: only events after it are sent here. */
      created_seq: k.int('created_seq').notNull(),
      created_at: k.ts('created_at').notNull(),
      updated_at: k.ts('updated_at').notNull(),
    },
    (t) => [k.index('webhook_endpoints_created_at').on(t.created_at, t.id)],
  );

/** One row: how far into the log deliveries have been written out. */
export const webhookCursorTable = (k: Kit) =>
  k.table('webhook_cursor', {
    id: k.int('id').primaryKey(),
    event_seq: k.int('event_seq').notNull(),
  });
