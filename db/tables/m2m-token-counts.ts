import type { Kit } from '../kit.ts';

/** Tokens minted by a machine, by the UTC hour they expire in: those of hours to come are its unexpired ones. */
export const m2mTokenCountsTable = (k: Kit) =>
  k.table(
    'm2m_token_counts',
    {
      machine_id: k.str('machine_id').notNull(),
      /** Whole hours since 1970-01-01 UTC. */
      expires_hour: k.int('expires_hour').notNull(),
      count: k.int('count').notNull(),
    },
    (t) => [k.primaryKey({ columns: [t.machine_id, t.expires_hour] })],
  );
