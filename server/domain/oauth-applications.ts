/** OAuth applications: programs that are given access tokens, by users or for themselves. */
import { and, eq, getTableColumns, or, placeholder, type SQL, sql } from 'drizzle-orm';
import { z } from 'zod';
import { lockStatement } from '../../db/lock.ts';
import { flatStatement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { PREFIXES } from '../crypto/format.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { EventType } from './event-types.ts';
import { change } from './events.ts';
import { description, homePageUrl, name, oauthApplicationId, resourceUrl, scopes } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { assertScopesKnown, BUILT_IN_SCOPES } from './oauth-scopes.ts';
import { readOauthSettings } from './oauth-settings.ts';
import { afterCursor, COUNT_MAX, isOrIsNamed, orderOf, type Page, pageInput, toPage } from './pages.ts';
import { redirectUris } from './redirect-uris.ts';
import {
  cancelOverlap,
  completeOverlap,
  compromised,
  overlapSeconds,
  type Rotated,
  rotateSecret,
  rotationOf,
} from './rotation.ts';
import type { RotationTerms } from './rotation-policies.ts';
import { deleteSecrets, issueSecret, revokeSecrets } from './secrets.ts';

/** By what an application may ask for tokens (RFC 7591, section 2). Whatever else there is to come has a row where tokens are issued. */
export const GRANT_TYPES = ['authorization_code', 'refresh_token', 'client_credentials'] as const;
export type GrantType = (typeof GRANT_TYPES)[number];

export interface OauthApplication {
  id: string;
  /** What the wire calls it: the id, or the URL of its metadata document. */
  clientId: string;
  source: 'administrator' | 'registration' | 'metadata_document';
  name: string;
  description: string | null;
  /** Its home page. */
  clientUri: string | null;
  enabled: boolean;
  /** Keeps no secret: proves itself by PKCE alone. */
  public: boolean;
  redirectUris: string[];
  grantTypes: GrantType[];
  /** The scopes it may be given; empty of one that came unasked: what is advertised, until an administrator says otherwise. */
  scopes: string[];
  /** What it is given where it names none; null for those of the instance. */
  defaultScopes: string[] | null;
  /** The resources its tokens may be for (RFC 8707); null for any. */
  audiences: string[] | null;
  consentRequired: boolean;
  pkceRequired: boolean;
  accessTokenFormat: 'opaque' | 'jwt';
  accessTokenTtlSeconds: number;
  /** How long a refresh token lives after its last use. */
  refreshTokenIdleSeconds: number;
  /** How long a refresh token and its successors live in all; null for as long as they are used. */
  refreshTokenMaxSeconds: number | null;
  codeTtlSeconds: number;
  /** When it was given the logo it has; null without one. */
  logoUpdatedAt: number | null;
  /** Until when it is there although nobody has used it: of a registration of its own. */
  unusedUntil: number | null;
  tokensRevokedAt: number | null;
  lastUsedAt: number | null;
  createdAt: number;
  updatedAt: number;
}

export type ApplicationRow = Rows['tables']['oauthApplications']['$inferSelect'];

/** With more the metadata of a grant, a JWT or a page of consent would grow out of hand. */
const AUDIENCES_MAX = 50;
const ACCESS_TOKEN_TTL_SECONDS = 3_600;
const ACCESS_TOKEN_TTL_SECONDS_MAX = 30 * 86_400;
const REFRESH_TOKEN_IDLE_SECONDS = 90 * 86_400;
const REFRESH_TOKEN_SECONDS_MAX = 10 * 365 * 86_400;
const CODE_TTL_SECONDS = 60;
/** RFC 6749, section 4.1.2. */
const CODE_TTL_SECONDS_MAX = 600;

const seconds = (most: number) => z.number().int().min(1).max(most);
const grantTypes = z
  .array(z.enum(GRANT_TYPES))
  .min(1)
  .max(GRANT_TYPES.length)
  .refine((list) => new Set(list).size === list.length, 'wanted each grant type once');
const audiences = z
  .array(resourceUrl)
  .min(1)
  .max(AUDIENCES_MAX)
  .refine((list) => new Set(list).size === list.length, 'wanted each resource once');

export const createOauthApplicationInput = z.strictObject({
  name: name.meta({ positional: true }),
  description: description.nullish(),
  clientUri: homePageUrl.nullish(),
  /** Keeps no secret, as a program that its users have in their hands. */
  public: z.boolean().default(false),
  redirectUris: redirectUris.default([]),
  grantTypes: grantTypes.default(['authorization_code', 'refresh_token']),
  scopes: scopes.default([...BUILT_IN_SCOPES]),
  /** What it is given where it names none; without it, the instance's. */
  defaultScopes: scopes.nullish(),
  /** The resources its tokens may be for; without it, any. */
  audiences: audiences.nullish(),
  consentRequired: z.boolean().default(true),
  /** Only a confidential application may do without. */
  pkceRequired: z.boolean().default(true),
  /** Without it, the instance's. */
  accessTokenFormat: z.enum(['opaque', 'jwt']).optional(),
  accessTokenTtlSeconds: seconds(ACCESS_TOKEN_TTL_SECONDS_MAX).default(ACCESS_TOKEN_TTL_SECONDS),
  refreshTokenIdleSeconds: seconds(REFRESH_TOKEN_SECONDS_MAX).default(REFRESH_TOKEN_IDLE_SECONDS),
  refreshTokenMaxSeconds: seconds(REFRESH_TOKEN_SECONDS_MAX).nullish(),
  codeTtlSeconds: seconds(CODE_TTL_SECONDS_MAX).default(CODE_TTL_SECONDS),
  ...idempotencyInput,
});

type CreateInput = z.output<typeof createOauthApplicationInput>;

/** Creates an application, a confidential one with its first secret, which is answered this once. Throws `invalid_input`. */
export async function createOauthApplication(
  deps: Deps,
  caller: Caller,
  input: CreateInput,
): Promise<OauthApplication & { secret?: string }> {
  const { accessTokenFormat = (await readOauthSettings(deps)).accessTokenFormat } = input;
  const row = newApplication(deps, 'administrator', { ...input, accessTokenFormat });
  assertSound(row);
  return create(deps, caller, { procedure: 'oauthApplications.create', input }, async (tx) => {
    await assertScopes(tx, row);
    await insertApplication(tx, row);
    const secret = row.public ? null : await issueApplicationSecret(tx, deps, row.id);
    return {
      result: { ...toOauthApplication(row), ...(secret !== null && { secret }) },
      event: { type: 'oauth_application.created', objectId: row.id, data: { name: row.name } },
    };
  });
}

/** The row of an application that does not exist yet, whoever it comes from; nothing of it is judged here. */
export function newApplication(
  deps: Pick<Deps, 'now'>,
  source: ApplicationRow['source'],
  input: Omit<CreateInput, 'idempotencyKey'>,
): ApplicationRow {
  const now = deps.now();
  const id = sortableId('oauthapp_', now);
  return {
    id,
    client_id: id,
    source,
    name: input.name,
    description: input.description ?? null,
    client_uri: input.clientUri ?? null,
    enabled: true,
    public: input.public,
    redirect_uris: input.redirectUris,
    grant_types: input.grantTypes,
    scopes: input.scopes,
    default_scopes: input.defaultScopes ?? null,
    audiences: input.audiences ?? null,
    consent_required: input.consentRequired,
    pkce_required: input.pkceRequired || input.public,
    access_token_format: input.accessTokenFormat ?? 'opaque',
    access_token_ttl_seconds: input.accessTokenTtlSeconds,
    refresh_token_idle_seconds: input.refreshTokenIdleSeconds,
    refresh_token_max_seconds: input.refreshTokenMaxSeconds ?? null,
    code_ttl_seconds: input.codeTtlSeconds,
    token_generation: 0,
    tokens_revoked_at: null,
    logo_updated_at: null,
    document_stale_at: null,
    unused_until: null,
    last_used_at: null,
    created_at: now,
    updated_at: now,
  };
}

/** Whether it may be given what is advertised whenever it asks: it came unasked, and no administrator said its scopes. */
export const takesAdvertised = ({ source, scopes: said }: Pick<ApplicationRow, 'source' | 'scopes'>) =>
  source !== 'administrator' && said.length === 0;

export async function insertApplication(tx: Rows, row: ApplicationRow): Promise<void> {
  await tx.db.insert(tx.tables.oauthApplications).values(row);
}

/** Makes a client secret for a confidential application, and answers it this once. */
export const issueApplicationSecret = (tx: Rows, deps: Pick<Deps, 'keyring' | 'now'>, id: string) =>
  issueSecret(tx, deps, { owner: ownerOf(id), prefix: PREFIXES.applicationSecret, terms: TERMS });

const ownerOf = (id: string) => ({ kind: 'oauth_application' as const, id });

/** A client secret is as old as it likes, and lives as long as its application. */
const TERMS: RotationTerms = { rotation_period_seconds: null, expires_at: null };

/** Throws `invalid_input` for what does not go together. */
function assertSound(row: ApplicationRow): void {
  const grants = new Set(row.grant_types);
  if (grants.has('authorization_code') && row.redirect_uris.length === 0)
    throw invalid('redirectUris', "wanted at least one with the grant type 'authorization_code', found none");
  if (grants.has('refresh_token') && !grants.has('authorization_code'))
    throw invalid('grantTypes', "wanted 'authorization_code' with 'refresh_token'");
  if (row.public && grants.has('client_credentials'))
    throw invalid(
      'grantTypes',
      "wanted a confidential application with 'client_credentials', found a public one",
    );
  if (!takesAdvertised(row) && row.default_scopes?.some((scope) => !row.scopes.includes(scope)))
    throw invalid('defaultScopes', "wanted some of 'scopes', found others");
}

const assertScopes = (tx: Rows, row: ApplicationRow) => assertScopesKnown(tx, row.scopes, 'scopes');

const invalid = (field: string, wanted: string) =>
  new CountersignError('invalid_input', `Cannot save application: ${wanted}`, { field });

export const oauthApplicationIdInput = z.strictObject({ id: oauthApplicationId.meta({ positional: true }) });

export async function getOauthApplication(
  { store: { read } }: Deps,
  { id }: z.output<typeof oauthApplicationIdInput>,
): Promise<OauthApplication> {
  const { oauthApplications: a } = read.tables;
  const [row] = await read.db.select().from(a).where(eq(a.id, id));
  if (!row) throw applicationNotFound(id);
  return toOauthApplication(row);
}

export const listOauthApplicationsInput = z.strictObject({
  /** An exact id or client id, or a part of a name in any case. */
  query: z.string().min(1).max(2048).optional(),
  orderBy: z.enum(['name', 'created_at']).default('created_at'),
  direction: z.enum(['ascending', 'descending']).default('descending'),
  ...pageInput,
});

export async function listOauthApplications(
  { store: { read } }: Deps,
  input: z.output<typeof listOauthApplicationsInput>,
): Promise<Page<OauthApplication>> {
  const { oauthApplications: a } = read.tables;
  const column = a[input.orderBy];
  const descending = input.direction === 'descending';
  const rows = await read.db
    .select()
    .from(a)
    .where(and(matches(read, input.query), afterCursor(input.cursor, column, a.id, descending)))
    .orderBy(...orderOf(column, a.id, descending))
    .limit(input.limit + 1)
    .offset(input.offset);
  return toPage(rows, input.limit, (row) => [row[input.orderBy], row.id], toOauthApplication);
}

/** How many applications a list has, at most `COUNT_MAX`. */
export async function countOauthApplications(
  { store: { read } }: Deps,
  { query }: Pick<z.output<typeof listOauthApplicationsInput>, 'query'>,
): Promise<number> {
  const { oauthApplications: a } = read.tables;
  const counted = read.db
    .select({ id: a.id })
    .from(a)
    .where(matches(read, query))
    .limit(COUNT_MAX)
    .as('counted');
  const [row] = await read.db.select({ count: sql`count(*)`.mapWith(Number) }).from(counted);
  return row?.count ?? 0;
}

function matches(rows: Rows, query: string | undefined): SQL | undefined {
  const { oauthApplications: a } = rows.tables;
  return query === undefined ? undefined : or(eq(a.client_id, query), isOrIsNamed(rows, a, query));
}

export const updateOauthApplicationInput = z.strictObject({
  id: oauthApplicationId.meta({ positional: true }),
  name: name.optional(),
  description: description.nullish(),
  clientUri: homePageUrl.nullish(),
  public: z.boolean().optional(),
  redirectUris: redirectUris.optional(),
  grantTypes: grantTypes.optional(),
  scopes: scopes.optional(),
  defaultScopes: scopes.nullish(),
  audiences: audiences.nullish(),
  consentRequired: z.boolean().optional(),
  pkceRequired: z.boolean().optional(),
  accessTokenFormat: z.enum(['opaque', 'jwt']).optional(),
  accessTokenTtlSeconds: seconds(ACCESS_TOKEN_TTL_SECONDS_MAX).optional(),
  refreshTokenIdleSeconds: seconds(REFRESH_TOKEN_SECONDS_MAX).optional(),
  refreshTokenMaxSeconds: seconds(REFRESH_TOKEN_SECONDS_MAX).nullish(),
  codeTtlSeconds: seconds(CODE_TTL_SECONDS_MAX).optional(),
});

const COLUMNS = {
  name: 'name',
  description: 'description',
  clientUri: 'client_uri',
  public: 'public',
  redirectUris: 'redirect_uris',
  grantTypes: 'grant_types',
  scopes: 'scopes',
  defaultScopes: 'default_scopes',
  audiences: 'audiences',
  consentRequired: 'consent_required',
  pkceRequired: 'pkce_required',
  accessTokenFormat: 'access_token_format',
  accessTokenTtlSeconds: 'access_token_ttl_seconds',
  refreshTokenIdleSeconds: 'refresh_token_idle_seconds',
  refreshTokenMaxSeconds: 'refresh_token_max_seconds',
  codeTtlSeconds: 'code_ttl_seconds',
} as const satisfies Partial<Record<keyof OauthApplication, keyof ApplicationRow>>;

type Updatable = keyof typeof COLUMNS;

/**
 * Changes what it is told to; what already is so leaves no event. Tokens that were issued keep what they have. One that
 * becomes public loses its secrets. Throws `not_found`, and `invalid_input` for what does not go together.
 */
export async function updateOauthApplication(
  deps: Deps,
  caller: Caller,
  { id, ...changes }: z.output<typeof updateOauthApplicationInput>,
): Promise<OauthApplication> {
  return change(deps, caller, async (tx) => {
    const before = await lockApplication(tx, id);
    const row = judged(before, changes, deps.now());
    const changed = (Object.keys(COLUMNS) as Updatable[]).filter(
      (field) => JSON.stringify(before[COLUMNS[field]]) !== JSON.stringify(row[COLUMNS[field]]),
    );
    if (changed.length === 0) return { result: toOauthApplication(before), event: null };
    assertSound(row);
    if (changed.includes('scopes')) await assertScopes(tx, row);
    const { oauthApplications: a } = tx.tables;
    await tx.db.update(a).set(row).where(eq(a.id, id));
    if (row.public && !before.public) await revokeSecrets(tx, deps, ownerOf(id));
    return {
      result: toOauthApplication(row),
      event: { type: 'oauth_application.updated' as const, objectId: id, data: { name: row.name, changed } },
    };
  });
}

/** Consent is never waived for those nobody registered (threats.md, OAuth), nor PKCE for those without a secret. */
function judged(
  before: ApplicationRow,
  changes: Partial<Record<Updatable, unknown>>,
  updated_at: number,
): ApplicationRow {
  const row = { ...before, updated_at };
  for (const [field, column] of Object.entries(COLUMNS))
    if (changes[field as Updatable] !== undefined)
      Object.assign(row, { [column]: changes[field as Updatable] });
  if (row.public) row.pkce_required = true;
  if (row.source === 'administrator') return row;
  if (!row.consent_required)
    throw invalid('consentRequired', 'wanted it of an application that registered itself');
  if (row.grant_types.includes('client_credentials'))
    throw invalid('grantTypes', "wanted no 'client_credentials' of an application that registered itself");
  return row;
}

/** Enables or disables; one that already is as wanted is answered as it stands, without an event. */
export async function setOauthApplicationEnabled(
  deps: Deps,
  caller: Caller,
  id: string,
  enabled: boolean,
): Promise<OauthApplication> {
  return change(
    deps,
    caller,
    async (tx) => {
      const before = await lockApplication(tx, id);
      if (before.enabled === enabled) return { result: toOauthApplication(before), event: null };
      const row = { ...before, enabled, updated_at: deps.now() };
      const { oauthApplications: a } = tx.tables;
      await tx.db.update(a).set(row).where(eq(a.id, id));
      return {
        result: toOauthApplication(row),
        event: {
          type: enabled ? ('oauth_application.enabled' as const) : ('oauth_application.disabled' as const),
          objectId: id,
          data: { name: row.name },
        },
      };
    },
    enabled ? 'normal' : 'revocation',
  );
}

export const rotateOauthApplicationSecretInput = z.strictObject({
  id: oauthApplicationId.meta({ positional: true }),
  /** Without it, none: as Clerk has it. */
  overlapSeconds: overlapSeconds.optional(),
  compromised,
});

/**
 * Gives a confidential application a new secret. Compromised, every token and grant it was given is revoked too, in the
 * same write however many there are. Throws `not_found`, `rotation_in_progress`, `wrong_state` for a public one.
 */
export async function rotateOauthApplicationSecret(
  deps: Deps,
  caller: Caller,
  { id, ...given }: z.output<typeof rotateOauthApplicationSecretInput>,
): Promise<OauthApplication & Rotated> {
  const options = rotationOf(given, 0);
  return change(
    deps,
    caller,
    async (tx) => {
      const row = await lockApplication(tx, id);
      if (row.public) throw wrongState('Cannot rotate: a public application has no secret');
      const secret = { owner: ownerOf(id), prefix: PREFIXES.applicationSecret, terms: TERMS };
      const rotated = await rotateSecret(tx, deps, secret, options);
      const now = options.compromised ? await raiseGeneration(tx, deps, id) : row;
      return {
        result: { ...toOauthApplication(now), ...rotated },
        event: {
          type: 'oauth_application.secret_rotated' as const,
          objectId: id,
          data: {
            name: row.name,
            compromised: options.compromised,
            previousExpiresAt: rotated.previousExpiresAt,
            ...(options.compromised && { selector: { applicationId: id }, denyUntil: null }),
          },
        },
      };
    },
    'revocation',
  );
}

/** Revokes the new secret of an overlap; the old one stays. Tokens got with either live on. */
export const cancelOauthApplicationRotation = (deps: Deps, caller: Caller, id: string) =>
  endOverlap(deps, caller, id, cancelOverlap, 'oauth_application.secret_rotation_cancelled');

/** Ends the old secret of an overlap now. */
export const completeOauthApplicationRotation = (deps: Deps, caller: Caller, id: string) =>
  endOverlap(deps, caller, id, completeOverlap, 'oauth_application.secret_rotation_completed');

function endOverlap(
  deps: Deps,
  caller: Caller,
  id: string,
  end: typeof cancelOverlap,
  type: EventType,
): Promise<OauthApplication> {
  return change(
    deps,
    caller,
    async (tx) => {
      const row = await lockApplication(tx, id);
      await end(tx, deps, ownerOf(id), TERMS);
      return { result: toOauthApplication(row), event: { type, objectId: id, data: { name: row.name } } };
    },
    'revocation',
  );
}

/** Revokes every token and grant an application was given until now, JWTs too: one write and one event, however many there are. */
export async function revokeOauthApplicationTokens(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof oauthApplicationIdInput>,
): Promise<OauthApplication> {
  return change(
    deps,
    caller,
    async (tx) => {
      const row = await raiseGeneration(tx, deps, id);
      return {
        result: toOauthApplication(row),
        event: {
          type: 'oauth_application.tokens_revoked' as const,
          objectId: id,
          data: { name: row.name, selector: { applicationId: id } },
        },
      };
    },
    'revocation',
  );
}

async function raiseGeneration(tx: Rows, deps: Pick<Deps, 'now'>, id: string): Promise<ApplicationRow> {
  const { oauthApplications: a } = tx.tables;
  const [row] = await tx.db
    .update(a)
    .set({ token_generation: sql`${a.token_generation} + 1`, tokens_revoked_at: deps.now() })
    .where(eq(a.id, id))
    .returning();
  if (!row) throw applicationNotFound(id);
  return row;
}

/** Deletes the application with its secrets and logo. Its grants, codes and tokens fail by join from then on. */
export async function deleteOauthApplication(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof oauthApplicationIdInput>,
): Promise<{ id: string; deleted: true }> {
  return change(
    deps,
    caller,
    async (tx) => {
      const { name } = await lockApplication(tx, id);
      const { oauthApplications: a, oauthLogos: l } = tx.tables;
      await deleteSecrets(tx, ownerOf(id));
      await tx.db.delete(l).where(eq(l.application_id, id));
      await tx.db.delete(a).where(eq(a.id, id));
      return {
        result: { id, deleted: true as const },
        event: { type: 'oauth_application.deleted', objectId: id, data: { name } },
      };
    },
    'revocation',
  );
}

/** Whether a text could be a client id: what else there is, no database need look up, and PostgreSQL takes no NUL. */
export const couldBeClientId = (text: string): boolean => /^[\x21-\x7e]{1,2048}$/.test(text);

export const readApplicationByClientId = flatStatement<{ clientId: string }, ApplicationRow>(
  'oauth_application_by_client_id',
  (db, { oauthApplications: a }) => {
    const fields = getTableColumns(a);
    const query = db
      .select(fields)
      .from(a)
      .where(eq(a.client_id, placeholder('clientId')));
    return { fields, query };
  },
);

/** Reads an application that this transaction is about to change or to hang something on; others that want to, wait. */
export async function lockApplication(tx: Rows, id: string): Promise<ApplicationRow> {
  const row = await readLocked(tx, id);
  if (!row) throw applicationNotFound(id);
  return row;
}

const readLocked = lockStatement('oauth_application_lock', 'oauthApplications');

export const applicationNotFound = (id: string) =>
  new CountersignError('not_found', `No OAuth application has the id '${id}'`);

const wrongState = (message: string) => new CountersignError('wrong_state', message);

export const toOauthApplication = (row: ApplicationRow): OauthApplication => ({
  id: row.id,
  clientId: row.client_id,
  source: row.source,
  name: row.name,
  description: row.description,
  clientUri: row.client_uri,
  enabled: row.enabled,
  public: row.public,
  redirectUris: row.redirect_uris,
  grantTypes: row.grant_types as GrantType[],
  scopes: row.scopes,
  defaultScopes: row.default_scopes,
  audiences: row.audiences,
  consentRequired: row.consent_required,
  pkceRequired: row.pkce_required,
  accessTokenFormat: row.access_token_format,
  accessTokenTtlSeconds: row.access_token_ttl_seconds,
  refreshTokenIdleSeconds: row.refresh_token_idle_seconds,
  refreshTokenMaxSeconds: row.refresh_token_max_seconds,
  codeTtlSeconds: row.code_ttl_seconds,
  logoUpdatedAt: row.logo_updated_at,
  unusedUntil: row.unused_until,
  tokensRevokedAt: row.tokens_revoked_at,
  lastUsedAt: row.last_used_at,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
});
