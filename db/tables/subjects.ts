import type { Kit } from '../kit.ts';

/** What all API keys of one subject share. A subject without a row is enabled and has no limits. */
export const subjectsTable = (k: Kit) =>
  k.table(
    'subjects',
    {
      id: k.str('id').primaryKey(),
      enabled: k.bool('enabled').notNull(),
      rate_limit: k.int('rate_limit'),
      rate_limit_window_seconds: k.int('rate_limit_window_seconds'),
      /** Whether a row of `credits` is to be asked. */
      has_credits: k.bool('has_credits').notNull(),
      created_at: k.ts('created_at').notNull(),
      updated_at: k.ts('updated_at').notNull(),
    },
    (t) => [k.index('subjects_created_at').on(t.created_at, t.id)],
  );

/** Verifications of a subject's API keys in one UTC hour, added up from the memory of each server. */
export const subjectUsageTable = (k: Kit) =>
  k.table(
    'subject_usage',
    {
      subject: k.str('subject').notNull(),
      /** Whole hours since 1970-01-01 UTC. */
      hour: k.int('hour').notNull(),
      valid_count: k.int('valid_count').notNull(),
      refused_count: k.int('refused_count').notNull(),
    },
    (t) => [k.primaryKey({ columns: [t.subject, t.hour] })],
  );
