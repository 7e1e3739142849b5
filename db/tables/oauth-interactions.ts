import type { Kit } from '../kit.ts';

/** An authorization request that waits for its user to sign in, or to consent. It belongs to the browser that began it. */
export const oauthInteractionsTable = (k: Kit) =>
  k.table(
    'oauth_interactions',
    {
      id: k.str('id').primaryKey(),
      /** Null where no application asked, and somebody signs in to see what they allowed. */
      application_id: k.str('application_id'),
      /** Hash of what the browser's cookie holds. */
      browser_hash: k.bytes('browser_hash').notNull(),
      /** The parameters of the request, as they came and were found sound. */
      parameters: k.json<Record<string, string | string[]>>('parameters').notNull(),
      /** What its user is to do next. */
      step: k.str('step').$type<'sign_in' | 'consent'>().notNull(),
      /** Of an upstream sign-in: state, nonce and PKCE verifier, sealed. */
      upstream: k.bytes('upstream'),
      /** Of a hand-off that was completed: who it is, until they are back. */
      outcome: k.json<Record<string, unknown>>('outcome'),
      /** Hash of the one-time value by which the browser comes back; null before, and after. */
      resume_hash: k.bytes('resume_hash'),
      resume_expires_at: k.ts('resume_expires_at'),
      /** The network that began it, for the cap of each. */
      network: k.str('network').notNull(),
      created_at: k.ts('created_at').notNull(),
      expires_at: k.ts('expires_at').notNull(),
    },
    (t) => [
      k.uniqueIndex('oauth_interactions_resume').on(t.resume_hash),
      k.index('oauth_interactions_network').on(t.network),
      k.index('oauth_interactions_expires_at').on(t.expires_at, t.id),
    ],
  );
