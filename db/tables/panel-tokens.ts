import type { Kit } from '../kit.ts';

/** An end user's access to their own API keys, for some minutes, in the page of an application that knows them. */
export const panelTokensTable = (k: Kit) =>
  k.table(
    'panel_tokens',
    {
      id: k.str('id').primaryKey(),
      hash: k.bytes('hash').notNull(),
      /** What it was minted with, and dies with. */
      secret_key_id: k.str('secret_key_id').notNull(),
      subject: k.str('subject').notNull(),
      /** Who sits in front of the page; null for the subject itself. */
      created_by: k.str('created_by'),
      actions: k.json<string[]>('actions').notNull(),
      /** The scopes a key may be given; null for those its policy allows. */
      scope_ceiling: k.json<string[]>('scope_ceiling'),
      policy_id: k.str('policy_id'),
      created_at: k.ts('created_at').notNull(),
      expires_at: k.ts('expires_at').notNull(),
      /** HMAC over all but the time of its creation: a writer to the database cannot widen it. */
      mac: k.bytes('mac').notNull(),
    },
    (t) => [
      k.uniqueIndex('panel_tokens_hash').on(t.hash),
      k.index('panel_tokens_secret_key_id').on(t.secret_key_id),
      k.index('panel_tokens_expires_at').on(t.expires_at, t.id),
    ],
  );

/** Whose session tokens are accepted in the place of panel tokens, and what they are read as. */
export const panelIssuersTable = (k: Kit) =>
  k.table(
    'panel_issuers',
    {
      id: k.str('id').primaryKey(),
      /** `iss`, exactly. */
      issuer: k.str('issuer').notNull(),
      jwks_url: k.str('jwks_url').notNull(),
      audience: k.str('audience'),
      authorized_parties: k.json<string[]>('authorized_parties'),
      organization_claim: k.str('organization_claim'),
      role_claim: k.str('role_claim'),
      manage_roles: k.json<string[]>('manage_roles').notNull(),
      scope_ceiling: k.json<string[]>('scope_ceiling'),
      policy_id: k.str('policy_id'),
      created_at: k.ts('created_at').notNull(),
      /** HMAC over all the others: a writer to the database cannot have another's tokens trusted. */
      mac: k.bytes('mac').notNull(),
    },
    (t) => [k.uniqueIndex('panel_issuers_issuer').on(t.issuer)],
  );
