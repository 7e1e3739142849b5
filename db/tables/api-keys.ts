import { sql } from 'drizzle-orm';
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
      /** The policy it was created under, if any. */
      policy_id: k.str('policy_id'),
      /** What its values begin with: rotation keeps it. */
      prefix: k.str('prefix').notNull().default('ak_'),
      /** Verifications in any window of `rate_limit_window_seconds`; both null where there is no limit. */
      rate_limit: k.int('rate_limit'),
      rate_limit_window_seconds: k.int('rate_limit_window_seconds'),
      /** Whether a row of `credits` is to be asked. */
      has_credits: k.bool('has_credits').notNull().default(false),
      /** CIDR blocks the end client's address must be in; null where any will do. */
      allowed_cidrs: k.json<string[]>('allowed_cidrs'),
      /** How old its secret may grow before it is due for rotation; null where it may grow as old as it likes. */
      rotation_period_seconds: k.int('rotation_period_seconds'),
      /** Whether a secret that is overdue expires; otherwise it is only complained of. */
      rotation_expires: k.bool('rotation_expires').notNull().default(false),
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
      k.index('api_keys_expires_at').on(t.expires_at, t.id).where(sql`expires_at IS NOT NULL`),
      k.index('api_keys_policy_revoked_at').on(t.policy_id, t.revoked_at).where(sql`revoked_at IS NOT NULL`),
      k.index('api_keys_policy_expires_at').on(t.policy_id, t.expires_at).where(sql`expires_at IS NOT NULL`),
    ],
  );
