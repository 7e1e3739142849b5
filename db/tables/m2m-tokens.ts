import { sql } from 'drizzle-orm';
import type { Kit } from '../kit.ts';

/** An M2M token from minting on, opaque or JWT. A token has one value for life, so its hash is on the row. */
export const m2mTokensTable = (k: Kit) =>
  k.table(
    'm2m_tokens',
    {
      /** Also the `jti` of a JWT. */
      id: k.str('id').primaryKey(),
      machine_id: k.str('machine_id').notNull(),
      format: k.str('format').$type<'opaque' | 'jwt'>().notNull(),
      /** Null for a JWT, whose signature is checked and whose row is found by `id`. */
      hash: k.bytes('hash'),
      pepper_version: k.int('pepper_version'),
      /** The secret of the machine that minted it. */
      secret_id: k.str('secret_id').notNull(),
      /** Which key signs a JWT; null for an opaque token, and for a JWT of before this was noted. */
      signing_kid: k.str('signing_kid'),
      /** The machine's `token_generation` at minting. */
      generation: k.int('generation').notNull(),
      audience: k.json<string[]>('audience').notNull(),
      scopes: k.json<string[]>('scopes').notNull(),
      claims: k.json<Record<string, unknown>>('claims'),
      created_at: k.ts('created_at').notNull(),
      expires_at: k.ts('expires_at').notNull(),
      revoked_at: k.ts('revoked_at'),
      revocation_reason: k.str('revocation_reason'),
      last_used_at: k.ts('last_used_at'),
      /** The bit of a status list that tells of a JWT; null for an opaque token. */
      status_list_id: k.str('status_list_id'),
      status_index: k.int('status_index'),
    },
    (t) => [
      k.uniqueIndex('m2m_tokens_hash').on(t.hash),
      k.index('m2m_tokens_machine_created_at').on(t.machine_id, t.created_at, t.id),
      k.index('m2m_tokens_expires_at').on(t.expires_at, t.id),
      k.index('m2m_tokens_signing_kid_expires_at').on(t.signing_kid, t.expires_at).where(sql`format = 'jwt'`),
      k
        .uniqueIndex('m2m_tokens_status')
        .on(t.status_list_id, t.status_index)
        .where(sql`status_list_id IS NOT NULL`),
    ],
  );
