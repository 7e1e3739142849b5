import type { Kit } from '../kit.ts';

/** A customer's key: acts for `subject` within `scopes`. Its values are rows of `secrets`. */
export const apiKeysTable = (k: Kit) =>
  k.table(
    'api_keys',
    {
      id: k.str('id').primaryKey(),
      subject: k.str('subject').notNull(),
      name: k.str('name').notNull(),
      /** The name while the key is live, null once it is not: unique among a subject's live keys. */
      live_name: k.str('live_name'),
      description: k.str('description'),
      scopes: k.json<string[]>('scopes').notNull(),
      claims: k.json<Record<string, unknown>>('claims'),
      created_by: k.str('created_by'),
      enabled: k.bool('enabled').notNull(),
      expires_at: k.ts('expires_at'),
      revoked_at: k.ts('revoked_at'),
      revocation_reason: k.str('revocation_reason'),
      revocation_note: k.str('revocation_note'),
      last_used_at: k.ts('last_used_at'),
      created_at: k.ts('created_at').notNull(),
      updated_at: k.ts('updated_at').notNull(),
    },
    (t) => [
      k.uniqueIndex('api_keys_subject_live_name').on(t.subject, t.live_name),
      k.index('api_keys_subject_created_at').on(t.subject, t.created_at, t.id),
      k.index('api_keys_name').on(t.name, t.created_at, t.id),
      k.index('api_keys_created_at').on(t.created_at, t.id),
    ],
  );
