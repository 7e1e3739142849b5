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
      /** Only events of these subjects; null for those of any and of none. */
      subjects: k.json<string[]>('subjects'),
      enabled: k.bool('enabled').notNull(),
      /** Why it is not: by an operator, because it answered 410, or because it only failed for days. */
      disabled_reason: k.str('disabled_reason').$type<'operator' | 'gone' | 'failing'>(),
      sealed_secret: k.bytes('sealed_secret').notNull(),
      /** Signs beside the new one until the overlap ends; sealed likewise. */
      sealed_previous_secret: k.bytes('sealed_previous_secret'),
      previous_secret_expires_at: k.ts('previous_secret_expires_at'),
      /** The ed25519 key of `v1a` signatures, sealed, and its public half as receivers are given it; null without. */
      sealed_signing_key: k.bytes('sealed_signing_key'),
      public_key: k.str('public_key'),
      /** The first failure since the last success. */
      failing_since: k.ts('failing_since'),
      last_success_at: k.ts('last_success_at'),
      /** Nothing is sent before this: the receiver asked for patience. */
      throttled_until: k.ts('throttled_until'),
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
