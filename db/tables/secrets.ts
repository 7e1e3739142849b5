import { sql } from 'drizzle-orm';
import type { Kit } from '../kit.ts';

export type SecretOwnerKind = 'machine' | 'api_key' | 'secret_key' | 'oauth_application';

/**
 * The hash of a value somebody holds. Rotation adds a row and never an owner, so id, name, quota and usage stay.
 * `hash` is HMAC-SHA-256(pepper of `pepper_version`, SHA-256(value)).
 */
export const secretsTable = (k: Kit) =>
  k.table(
    'secrets',
    {
      id: k.str('id').primaryKey(),
      owner_kind: k.str('owner_kind').$type<SecretOwnerKind>().notNull(),
      owner_id: k.str('owner_id').notNull(),
      hash: k.bytes('hash').notNull(),
      pepper_version: k.int('pepper_version').notNull(),
      /** The first characters of the value, shown so that people recognise it. */
      start: k.str('start').notNull(),
      /** HMAC over the row, for owners of kind `secret_key`: a writer to the database cannot re-point a hash. */
      mac: k.bytes('mac'),
      created_at: k.ts('created_at').notNull(),
      /** When the overlap ends in which it is the old one of two. Null for the newest, which lives as long as its owner. */
      expires_at: k.ts('expires_at'),
      revoked_at: k.ts('revoked_at'),
      /** When it is due for rotation by its owner's policy; null without one, and for a secret that was replaced. */
      rotate_by: k.ts('rotate_by'),
    },
    (t) => [
      k.uniqueIndex('secrets_hash').on(t.hash),
      k.index('secrets_owner').on(t.owner_kind, t.owner_id),
      k.index('secrets_start').on(t.start, t.owner_id),
      k.index('secrets_rotate_by').on(t.rotate_by, t.id).where(sql`rotate_by IS NOT NULL`),
    ],
  );
