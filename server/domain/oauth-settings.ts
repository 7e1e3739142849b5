/** What holds for all OAuth applications: who may come unasked, and what they are given that is not said of each. */
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import type { Caller, Deps } from '../deps.ts';
import { change } from './events.ts';
import { scopes } from './fields.ts';
import { advertisedScopes, assertScopesKnown, BUILT_IN_SCOPES } from './oauth-scopes.ts';

export interface OauthSettings {
  /** Who may register an application (RFC 7591): nobody, who has an initial access token, or everybody. */
  registration: 'off' | 'initial_access_token' | 'open';
  /**
   * Of clients whose id is the URL of a document: none; those that were seen before; new ones too, and then only what
   * leads where it did when it was first seen; all, whatever becomes of their documents.
   */
  metadataDocuments: 'off' | 'block' | 'first_seen' | 'allow';
  /** What applications are given that name no scope and have no default of their own. */
  defaultScopes: string[];
  /** The format of access tokens of applications that nobody gave another. */
  accessTokenFormat: 'opaque' | 'jwt';
  /** Null where nothing was ever set, and COUNTERSIGN_OAUTH_CLIENTS says it all. */
  updatedAt: number | null;
}

type SettingsRow = Rows['tables']['oauthSettings']['$inferSelect'];

/** What COUNTERSIGN_OAUTH_CLIENTS says, where no setting does. */
const BY_WORD = {
  preregistered: { registration: 'off', metadataDocuments: 'off' },
  mcp: { registration: 'open', metadataDocuments: 'first_seen' },
} as const satisfies Record<Deps['oauthClients'], Partial<OauthSettings>>;

export const readOauthSettings = (deps: Pick<Deps, 'store' | 'oauthClients'>): Promise<OauthSettings> =>
  readSettings(deps, deps.store.read);

async function readSettings(deps: Pick<Deps, 'oauthClients'>, rows: Rows): Promise<OauthSettings> {
  const [row] = await rows.db.select().from(rows.tables.oauthSettings);
  return toOauthSettings(deps, row);
}

/** What whoever comes unasked may be given now: the default of the instance, and what is advertised. */
export async function scopesOffered(deps: Pick<Deps, 'store' | 'oauthClients'>): Promise<string[]> {
  const { defaultScopes } = await readOauthSettings(deps);
  return [...new Set([...defaultScopes, ...(await advertisedScopes(deps))])];
}

/** Null leaves a setting to what it is without one. */
export const updateOauthSettingsInput = z.strictObject({
  registration: z.enum(['off', 'initial_access_token', 'open']).nullish(),
  metadataDocuments: z.enum(['off', 'block', 'first_seen', 'allow']).nullish(),
  defaultScopes: scopes.nullish(),
  accessTokenFormat: z.enum(['opaque', 'jwt']).nullish(),
});

const COLUMNS = {
  registration: 'registration',
  metadataDocuments: 'metadata_documents',
  defaultScopes: 'default_scopes',
  accessTokenFormat: 'access_token_format',
} as const satisfies Partial<Record<keyof OauthSettings, keyof SettingsRow>>;

const FIELDS = Object.keys(COLUMNS) as (keyof typeof COLUMNS)[];

/**
 * Changes what it is told to, for applications that come from then on, and `defaultScopes` also for those that came
 * unasked; what already is so leaves no event. Throws `invalid_input` for scopes that nobody defined.
 */
export async function updateOauthSettings(
  deps: Deps,
  caller: Caller,
  changes: z.output<typeof updateOauthSettingsInput>,
): Promise<OauthSettings> {
  return change(deps, caller, async (tx) => {
    const before = await lockSettings(deps, tx);
    const row = { ...before, updated_at: deps.now() };
    for (const field of FIELDS)
      if (changes[field] !== undefined) Object.assign(row, { [COLUMNS[field]]: changes[field] });
    const changed = FIELDS.filter(
      (field) => JSON.stringify(row[COLUMNS[field]]) !== JSON.stringify(before[COLUMNS[field]]),
    );
    if (changed.length === 0) return { result: await readSettings(deps, tx), event: null };
    if (changed.includes('defaultScopes'))
      await assertScopesKnown(tx, row.default_scopes ?? [], 'defaultScopes');
    await tx.db.update(tx.tables.oauthSettings).set(row);
    const result = toOauthSettings(deps, row);
    const { registration, metadataDocuments } = result;
    return {
      result,
      event: {
        type: 'oauth_settings.updated' as const,
        objectId: 'oauth_settings',
        data: { changed, registration, metadataDocuments },
      },
    };
  });
}

/** The one row, made where there was none: whoever else changes it, waits. */
async function lockSettings(
  { now }: Pick<Deps, 'now'>,
  { db, tables: { oauthSettings: s } }: Rows,
): Promise<SettingsRow> {
  const [row] = await db
    .insert(s)
    .values({ id: 1, updated_at: now() })
    .onConflictDoUpdate({ target: s.id, set: { id: 1 } })
    .returning();
  if (!row) throw new Error('The settings of OAuth have no row');
  return row;
}

const toOauthSettings = (
  { oauthClients }: Pick<Deps, 'oauthClients'>,
  row: SettingsRow | undefined,
): OauthSettings => ({
  registration: row?.registration ?? BY_WORD[oauthClients].registration,
  metadataDocuments: row?.metadata_documents ?? BY_WORD[oauthClients].metadataDocuments,
  defaultScopes: row?.default_scopes ?? [...BUILT_IN_SCOPES],
  accessTokenFormat: row?.access_token_format ?? 'opaque',
  updatedAt: row?.updated_at ?? null,
});
