import type { Kit } from '../kit.ts';

/** Verifications of a credential in one UTC hour, added up from the memory of each server. */
export const usageTable = (k: Kit) =>
  k.table(
    'usage',
    {
      credential_id: k.str('credential_id').notNull(),
      /** Whole hours since 1970-01-01 UTC. */
      hour: k.int('hour').notNull(),
      valid_count: k.int('valid_count').notNull(),
      refused_count: k.int('refused_count').notNull(),
    },
    (t) => [k.primaryKey({ columns: [t.credential_id, t.hour] })],
  );
