import type { Kit } from '../kit.ts';

/** Prefixes of our own format beside `ak_`, each registered by an admin. No two begin alike. */
export const keyPrefixesTable = (k: Kit) =>
  k.table('key_prefixes', {
    prefix: k.str('prefix').primaryKey(),
    description: k.str('description'),
    created_at: k.ts('created_at').notNull(),
  });

/** What imported values look like: only those are looked up without a checksum. */
export const importedShapesTable = (k: Kit) =>
  k.table(
    'imported_shapes',
    {
      owner_kind: k.str('owner_kind').$type<'api_key' | 'machine'>().notNull(),
      /** How values begin; empty where any beginning will do. */
      prefix: k.str('prefix').notNull(),
      /** Characters of a value; 0 where any number will do. */
      length: k.int('length').notNull(),
      created_at: k.ts('created_at').notNull(),
    },
    (t) => [k.primaryKey({ columns: [t.owner_kind, t.prefix, t.length] })],
  );
