import type { Kit } from '../kit.ts';

/** A scheduled job: who is at it, when it is due next, and how it went. */
export const jobsTable = (k: Kit) =>
  k.table('jobs', {
    name: k.str('name').primaryKey(),
    /** The process that runs it, until its lease ends; null for none. */
    holder: k.str('holder'),
    lease_expires_at: k.ts('lease_expires_at'),
    next_at: k.ts('next_at').notNull(),
    /** Where it goes on, where one run does not finish its work. */
    cursor: k.json<Record<string, unknown>>('cursor'),
    /** Runs that failed since the last that did not. */
    failures: k.int('failures').notNull(),
    last_started_at: k.ts('last_started_at'),
    last_succeeded_at: k.ts('last_succeeded_at'),
    last_failed_at: k.ts('last_failed_at'),
    last_error: k.str('last_error'),
  });

/** What was announced of a credential, so that it is announced once. */
export const expiryNoticesTable = (k: Kit) =>
  k.table(
    'expiry_notices',
    {
      owner_kind: k.str('owner_kind').$type<'api_key' | 'secret_key' | 'machine' | 'secret'>().notNull(),
      owner_id: k.str('owner_id').notNull(),
      /** Which announcement, with the instant it is about: another expiry is announced anew. */
      notice: k.str('notice').notNull(),
      created_at: k.ts('created_at').notNull(),
    },
    (t) => [
      k.primaryKey({ columns: [t.owner_kind, t.owner_id, t.notice] }),
      k.index('expiry_notices_created_at').on(t.created_at),
    ],
  );
