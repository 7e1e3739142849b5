import type { Kit } from '../kit.ts';

/** What a creation answered, without its secret, so that the same call again makes nothing new. */
export const idempotencyKeysTable = (k: Kit) =>
  k.table(
    'idempotency_keys',
    {
      principal_id: k.str('principal_id').notNull(),
      procedure: k.str('procedure').notNull(),
      key: k.str('key').notNull(),
      input_hash: k.bytes('input_hash').notNull(),
      answer: k.json<Record<string, unknown>>('answer').notNull(),
      created_at: k.ts('created_at').notNull(),
      expires_at: k.ts('expires_at').notNull(),
    },
    (t) => [
      k.primaryKey({ columns: [t.principal_id, t.procedure, t.key] }),
      k.index('idempotency_keys_expires_at').on(t.expires_at),
    ],
  );
