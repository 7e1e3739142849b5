/** Grants: that a user let an application act for them, once. Its code, refresh tokens and access tokens hang on it. */
import { and, eq, isNull, sql } from 'drizzle-orm';
import { z } from 'zod';
import { insertStatement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { change, type NewEvent } from './events.ts';
import { description, oauthApplicationId, oauthGrantId, subject } from './fields.ts';
import { applicationNotFound } from './oauth-applications.ts';
import { keepUsed } from './oauth-registrations.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';

export interface OauthGrant {
  id: string;
  applicationId: string;
  /** Null where the application is gone: then so is the grant. */
  applicationName: string | null;
  subject: string;
  organizationId: string | null;
  scopes: string[];
  /** The resources its tokens may be for; empty for none in particular. */
  resources: string[];
  redirectUri: string;
  state: 'live' | 'revoked' | 'expired';
  createdAt: number;
  expiresAt: number | null;
  lastUsedAt: number | null;
  revokedAt: number | null;
  revocationReason: string | null;
}

export type GrantRow = Rows['tables']['oauthGrants']['$inferSelect'];

/** What the way a user signed in by says of them (OpenID Connect Core 1.0, section 5.1). */
export interface UserClaims {
  name?: string;
  given_name?: string;
  family_name?: string;
  preferred_username?: string;
  picture?: string;
  email?: string;
  email_verified?: boolean;
}

/** What a user allows. */
export interface NewGrant {
  application: {
    id: string;
    token_generation: number;
    refresh_token_max_seconds: number | null;
    unused_until: number | null;
  };
  subject: string;
  organizationId: string | null;
  scopes: string[];
  resources: string[];
  redirectUri: string;
  claims: UserClaims;
  authTime: number;
  nonce: string | null;
}

export async function insertGrant(tx: Rows, deps: Pick<Deps, 'now'>, grant: NewGrant): Promise<GrantRow> {
  const now = deps.now();
  const { application } = grant;
  const longest = application.refresh_token_max_seconds;
  const row: GrantRow = {
    id: sortableId('gnt_', now),
    application_id: application.id,
    subject: grant.subject,
    organization_id: grant.organizationId,
    scopes: grant.scopes,
    resources: grant.resources,
    redirect_uri: grant.redirectUri,
    claims: { ...grant.claims },
    auth_time: grant.authTime,
    nonce: grant.nonce,
    generation: application.token_generation,
    created_at: now,
    expires_at: longest === null ? null : now + longest * 1000,
    last_used_at: null,
    revoked_at: null,
    revocation_reason: null,
  };
  await insertRow(tx, row);
  // Once it is null it stays so, whatever happened since the application was read.
  if (application.unused_until !== null) await keepUsed(tx, application.id);
  return row;
}

const insertRow = insertStatement('oauth_grant_insert', 'oauthGrants');

export const oauthGrantIdInput = z.strictObject({ id: oauthGrantId.meta({ positional: true }) });

export async function getOauthGrant(
  deps: Deps,
  { id }: z.output<typeof oauthGrantIdInput>,
): Promise<OauthGrant> {
  const { read } = deps.store;
  const { oauthGrants: g } = read.tables;
  const [found] = await selectGrants(read).where(eq(g.id, id));
  if (!found) throw grantNotFound(id);
  return toOauthGrant(found.grant, found.application, deps.now());
}

export const listOauthGrantsInput = z.strictObject({
  subject: subject.optional(),
  applicationId: oauthApplicationId.optional(),
  ...pageInput,
});

/** The newest first: of a user, of an application, of both, or all. */
export async function listOauthGrants(
  deps: Deps,
  input: z.output<typeof listOauthGrantsInput>,
): Promise<Page<OauthGrant>> {
  const { read } = deps.store;
  const { oauthGrants: g } = read.tables;
  const rows = await selectGrants(read)
    .where(
      and(
        input.subject === undefined ? undefined : eq(g.subject, input.subject),
        input.applicationId === undefined ? undefined : eq(g.application_id, input.applicationId),
        afterCursor(input.cursor, g.created_at, g.id, true),
      ),
    )
    .orderBy(...orderOf(g.created_at, g.id, true))
    .limit(input.limit + 1)
    .offset(input.offset);
  return toPage(
    rows,
    input.limit,
    ({ grant }) => [grant.created_at, grant.id],
    ({ grant, application }) => toOauthGrant(grant, application, deps.now()),
  );
}

/** Grants, each beside what its state hangs on. */
function selectGrants({ db, tables }: Rows) {
  const { oauthGrants: g, oauthApplications: a } = tables;
  return db
    .select({
      grant: g,
      application: { name: a.name, generation: a.token_generation, revokedAt: a.tokens_revoked_at },
    })
    .from(g)
    .leftJoin(a, eq(a.id, g.application_id));
}

export const revokeOauthGrantInput = z.strictObject({
  id: oauthGrantId.meta({ positional: true }),
  reason: description.nullish(),
});

/** Revokes a grant with every token under it; one that was revoked before is answered as it stands, without a second event. */
export async function revokeOauthGrant(
  deps: Deps,
  caller: Caller,
  { id, reason }: z.output<typeof revokeOauthGrantInput>,
): Promise<{ id: string; revokedAt: number }> {
  return change(
    deps,
    caller,
    async (tx) => {
      const event = await revokeGrant(tx, deps, id, reason ?? null);
      const { oauthGrants: g } = tx.tables;
      const [row] = await tx.db.select({ at: g.revoked_at }).from(g).where(eq(g.id, id));
      if (!row) throw grantNotFound(id);
      return { result: { id, revokedAt: row.at ?? deps.now() }, event };
    },
    'revocation',
  );
}

/** Revokes it within a transaction, and answers its event; null where it was revoked before, or is not there. */
export async function revokeGrant(
  tx: Rows,
  deps: Pick<Deps, 'now'>,
  id: string,
  reason: string | null,
): Promise<NewEvent | null> {
  const { oauthGrants: g } = tx.tables;
  const [revoked] = await tx.db
    .update(g)
    .set({ revoked_at: deps.now(), revocation_reason: reason })
    .where(and(eq(g.id, id), isNull(g.revoked_at)))
    .returning();
  if (!revoked) return null;
  return {
    type: 'oauth_grant.revoked',
    objectId: id,
    subject: revoked.subject,
    data: { applicationId: revoked.application_id, reason, selector: { grantId: id } },
  };
}

export const withdrawOauthConsentInput = z.strictObject({ subject, applicationId: oauthApplicationId });

/**
 * Takes back all that a user allowed an application: its grants with every token under them, and that it need not ask
 * again. One write and one event, however many there are.
 */
export async function withdrawOauthConsent(
  deps: Deps,
  caller: Caller,
  { subject: user, applicationId }: z.output<typeof withdrawOauthConsentInput>,
): Promise<{ subject: string; applicationId: string; revokedAt: number }> {
  return change(
    deps,
    caller,
    async (tx) => {
      const { oauthApplications: a } = tx.tables;
      const [application] = await tx.db.select({ id: a.id }).from(a).where(eq(a.id, applicationId));
      if (!application) throw applicationNotFound(applicationId);
      const revokedAt = deps.now();
      const of = { subject: user, applicationId };
      const { revoked, forgotten } = await takeBack(tx, of, 'consent_withdrawn', revokedAt);
      const result = { ...of, revokedAt };
      if (revoked === 0 && forgotten === 0) return { result, event: null };
      return {
        result,
        event: {
          type: 'oauth_consent.withdrawn',
          objectId: applicationId,
          subject: user,
          data: { applicationId, selector: of },
        },
      };
    },
    'revocation',
  );
}

export const revokeAllOauthGrantsInput = z.strictObject({ subject: subject.meta({ positional: true }) });

/**
 * Takes back all that a user allowed any application, as when they leave: every grant with its tokens, and that none need
 * ask again. One write and one event, however many there are. The user may allow applications something anew.
 */
export async function revokeAllOauthGrants(
  deps: Deps,
  caller: Caller,
  { subject: user }: z.output<typeof revokeAllOauthGrantsInput>,
): Promise<{ subject: string; revoked: number }> {
  return change(
    deps,
    caller,
    async (tx) => {
      const selector = { subject: user };
      const { revoked, forgotten } = await takeBack(tx, selector, 'user_grants_revoked', deps.now());
      const result = { subject: user, revoked };
      if (revoked === 0 && forgotten === 0) return { result, event: null };
      return {
        result,
        event: {
          type: 'subject.oauth_grants_revoked',
          objectId: user,
          subject: user,
          data: { selector, count: revoked },
        },
      };
    },
    'revocation',
  );
}

/** Within a transaction: all that a user allowed an application, or any. Answers how many grants, and consents, that were. */
export async function takeBack(
  { db, tables }: Rows,
  of: { subject: string; applicationId?: string },
  reason: string,
  now: number,
): Promise<{ revoked: number; forgotten: number }> {
  const { oauthGrants: g, oauthConsents: c } = tables;
  const isOf = (table: typeof g | typeof c) =>
    and(
      eq(table.subject, of.subject),
      of.applicationId === undefined ? undefined : eq(table.application_id, of.applicationId),
    );
  const revoked = await db
    .update(g)
    .set({ revoked_at: now, revocation_reason: reason })
    .where(and(isOf(g), isNull(g.revoked_at)))
    .returning({ id: g.id });
  const forgotten = await db.delete(c).where(isOf(c)).returning({ id: c.id });
  return { revoked: revoked.length, forgotten: forgotten.length };
}

const grantNotFound = (id: string) => new CountersignError('not_found', `No grant has the id '${id}'`);

/** Notes that it was used, at most once a minute. */
export async function noteGrantUsed(tx: Rows, deps: Pick<Deps, 'now'>, id: string): Promise<void> {
  const { oauthGrants: g } = tx.tables;
  const now = deps.now();
  await tx.db
    .update(g)
    .set({ last_used_at: now })
    .where(and(eq(g.id, id), sql`coalesce(${g.last_used_at}, 0) < ${now - 60_000}`));
}

function toOauthGrant(
  row: GrantRow,
  application: { name: string; generation: number; revokedAt: number | null } | null,
  now: number,
): OauthGrant {
  const withAll = application && row.generation < application.generation ? application.revokedAt : null;
  const revokedAt = row.revoked_at ?? withAll;
  const isOver = row.expires_at !== null && row.expires_at <= now;
  return {
    id: row.id,
    applicationId: row.application_id,
    applicationName: application?.name ?? null,
    subject: row.subject,
    organizationId: row.organization_id,
    scopes: row.scopes,
    resources: row.resources,
    redirectUri: row.redirect_uri,
    state: revokedAt !== null || !application ? 'revoked' : isOver ? 'expired' : 'live',
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    lastUsedAt: row.last_used_at,
    revokedAt,
    revocationReason: row.revocation_reason,
  };
}
