import type { Kit } from '../kit.ts';

/** One row: what this database is and who may open it. */
export const installationTable = (k: Kit) =>
  k.table('installation', {
    id: k.int('id').primaryKey(),
    /** New with every restore; the feed's event ids carry it. */
    epoch: k.str('epoch').notNull(),
    /** HMAC under the master key: a process with another master key refuses to start. */
    master_key_check: k.bytes('master_key_check').notNull(),
    /** The oldest schema version whose binaries this database still bears. */
    oldest_binary: k.int('oldest_binary').notNull(),
    /** An instant that credentials were judged at: no process begins before it, whatever its clock says. */
    judged_at: k.ts('judged_at').notNull().default(0),
    created_at: k.ts('created_at').notNull(),
  });

/** Random keys wrapped by the master key: the pepper, the sealing key, the key of the log. */
export const wrappedKeysTable = (k: Kit) =>
  k.table(
    'wrapped_keys',
    {
      purpose: k.str('purpose').$type<'pepper' | 'sealing' | 'log' | 'row_mac'>().notNull(),
      version: k.int('version').notNull(),
      wrapped: k.bytes('wrapped').notNull(),
      /** `preparing` while stored hashes are being wrapped with a new pepper: no server starts meanwhile. */
      state: k.str('state').$type<'active' | 'preparing'>().notNull().default('active'),
      created_at: k.ts('created_at').notNull(),
    },
    (t) => [k.primaryKey({ columns: [t.purpose, t.version] })],
  );
