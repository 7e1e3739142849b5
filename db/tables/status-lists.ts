import type { Kit } from '../kit.ts';

/** A Token Status List: 2¹⁷ bits, one for each JWT that was given an index of it. Bits are not stored: rows tell them. */
export const statusListsTable = (k: Kit) =>
  k.table(
    'status_lists',
    {
      id: k.str('id').primaryKey(),
      /** What the order is drawn from in which indexes are handed out, so that an index tells nothing of when. */
      seed: k.bytes('seed').notNull(),
      /** Blocks of indexes that were given to processes. A block is given once, whether all of it is used or not. */
      blocks_taken: k.int('blocks_taken').notNull(),
      created_at: k.ts('created_at').notNull(),
      /** When the last block was taken. */
      updated_at: k.ts('updated_at').notNull(),
    },
    (t) => [k.index('status_lists_blocks_taken').on(t.blocks_taken, t.id)],
  );
