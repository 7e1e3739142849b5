import type { Kit } from '../kit.ts';

/** One row: the last sequence and hash. Updating it is the last thing a transaction does, so sequence is commit order. */
export const eventHeadTable = (k: Kit) =>
  k.table('event_head', {
    id: k.int('id').primaryKey(),
    seq: k.int('seq').notNull(),
    hash: k.bytes('hash').notNull(),
    /** The instant of the last event; no later event is dated before it, whatever a node's clock says. */
    at: k.ts('at').notNull(),
  });

/** The log: one row for every administrative change, each chained to the one before by a keyed hash. */
export const eventsTable = (k: Kit) =>
  k.table(
    'events',
    {
      seq: k.int('seq').primaryKey(),
      id: k.str('id').notNull(),
      at: k.ts('at').notNull(),
      type: k.str('type').notNull(),
      actor_kind: k.str('actor_kind').notNull(),
      actor_id: k.str('actor_id').notNull(),
      /** The id of the thing changed; for a cascade, what its selector names. */
      object_id: k.str('object_id').notNull(),
      /** On whose behalf the changed credential acts, where it has one. */
      subject: k.str('subject'),
      request_id: k.str('request_id').notNull(),
      data: k.json<Record<string, unknown>>('data').notNull(),
      hash: k.bytes('hash').notNull(),
    },
    (t) => [
      k.uniqueIndex('events_id').on(t.id),
      k.index('events_type').on(t.type, t.seq),
      k.index('events_actor').on(t.actor_id, t.seq),
      k.index('events_object').on(t.object_id, t.seq),
      k.index('events_subject').on(t.subject, t.seq),
      k.index('events_at').on(t.at, t.seq),
    ],
  );

/** One row: the last event that was pruned, and its hash, from which the chain of those that are left begins. */
export const eventAnchorTable = (k: Kit) =>
  k.table('event_anchor', {
    id: k.int('id').primaryKey(),
    seq: k.int('seq').notNull(),
    hash: k.bytes('hash').notNull(),
    at: k.ts('at').notNull(),
  });

/** What the log was at an instant, signed: who holds one elsewhere finds out when the log is cut or rewritten. */
export const eventCheckpointsTable = (k: Kit) =>
  k.table('event_checkpoints', {
    seq: k.int('seq').primaryKey(),
    hash: k.bytes('hash').notNull(),
    at: k.ts('at').notNull(),
    /** A compact JWS by the signing key of then. */
    jws: k.str('jws').notNull(),
  });
