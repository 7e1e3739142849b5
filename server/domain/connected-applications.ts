/** Connected applications: those that may act for a user, or could without asking them again. */
import { and, desc, eq, gt, gte, inArray, isNull, max, min, or } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import type { Deps } from '../deps.ts';
import { redirectHostsOf } from './oauth-registrations.ts';
import { describeScopes } from './oauth-scopes.ts';
import { afterCursor, type Page, pageInput, toPage } from './pages.ts';

/** An application that a user let act for them, with all that it was allowed. */
export interface ConnectedApplication {
  applicationId: string;
  /** What it calls itself. */
  name: string;
  clientUri: string | null;
  /** Where it takes users back to: what tells it from another that calls itself the same. */
  redirectHosts: string[];
  scopes: { name: string; description: string }[];
  /** The organizations it may act for; empty where it acts for the user alone. */
  organizationIds: string[];
  /** As far as that is still known. */
  firstAllowedAt: number;
  lastUsedAt: number | null;
}

/** What a page of applications was allowed is read up to so many different grants. */
const TERMS_MAX = 1_000;

const { limit, cursor } = pageInput;

export const listConnectedApplicationsInput = z.strictObject({ limit, cursor });

type ListInput = z.output<typeof listConnectedApplicationsInput>;

/**
 * The applications with a live grant of a user, or whose consent is remembered: those would get another grant without
 * asking. The newest application first.
 */
export async function listConnectedApplications(
  { store: { read }, now }: Pick<Deps, 'store' | 'now'>,
  subject: string,
  input: ListInput,
): Promise<Page<ConnectedApplication>> {
  const at = now();
  const found = await Promise.all([readGrants(read, subject, at, input), readConsents(read, subject, input)]);
  const page = toPage(
    merged(found.flat()),
    input.limit,
    ({ id }) => [id, id],
    (row) => row,
  );
  return { ...page, data: await describe(read, subject, at, page.data) };
}

/** When an application was allowed to act for a user, and when it last did. */
interface Allowed {
  id: string;
  firstAllowedAt: number;
  lastUsedAt: number | null;
}

async function readGrants(read: Rows, subject: string, now: number, input: ListInput): Promise<Allowed[]> {
  const { oauthGrants: g, oauthApplications: a } = read.tables;
  const rows = await read.db
    .select({ id: g.application_id, firstAllowedAt: min(g.created_at), lastUsedAt: max(g.last_used_at) })
    .from(g)
    .innerJoin(a, eq(a.id, g.application_id))
    .where(
      and(isLive(read, subject, now), afterCursor(input.cursor, g.application_id, g.application_id, true)),
    )
    .groupBy(g.application_id)
    .orderBy(desc(g.application_id))
    .limit(input.limit + 1);
  return rows.map(({ firstAllowedAt, ...row }) => ({ ...row, firstAllowedAt: firstAllowedAt ?? now }));
}

async function readConsents(read: Rows, subject: string, input: ListInput): Promise<Allowed[]> {
  const { oauthConsents: c, oauthApplications: a } = read.tables;
  const rows = await read.db
    .select({ id: c.application_id, firstAllowedAt: min(c.created_at) })
    .from(c)
    .innerJoin(a, eq(a.id, c.application_id))
    .where(and(eq(c.subject, subject), afterCursor(input.cursor, c.application_id, c.application_id, true)))
    .groupBy(c.application_id)
    .orderBy(desc(c.application_id))
    .limit(input.limit + 1);
  return rows.map(({ id, firstAllowedAt }) => ({
    id,
    firstAllowedAt: firstAllowedAt ?? 0,
    lastUsedAt: null,
  }));
}

/** Of a user, neither revoked, one by one or with all of its application, nor over. */
function isLive({ tables: { oauthGrants: g, oauthApplications: a } }: Rows, subject: string, now: number) {
  return and(
    eq(g.subject, subject),
    isNull(g.revoked_at),
    or(isNull(g.expires_at), gt(g.expires_at, now)),
    gte(g.generation, a.token_generation),
  );
}

/** One for each application, in the order of pages. */
function merged(rows: readonly Allowed[]): Allowed[] {
  const byId = new Map<string, Allowed>();
  for (const row of rows) {
    const known = byId.get(row.id);
    byId.set(row.id, {
      id: row.id,
      firstAllowedAt: Math.min(row.firstAllowedAt, known?.firstAllowedAt ?? row.firstAllowedAt),
      lastUsedAt: row.lastUsedAt ?? known?.lastUsedAt ?? null,
    });
  }
  return [...byId.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
}

async function describe(
  read: Rows,
  subject: string,
  now: number,
  page: readonly Allowed[],
): Promise<ConnectedApplication[]> {
  if (page.length === 0) return [];
  const { oauthApplications: a } = read.tables;
  const ids = page.map(({ id }) => id);
  const applications = await read.db.select().from(a).where(inArray(a.id, ids));
  const terms = await readTerms(read, subject, now, ids);
  const known = await describeScopes(read, [...new Set(terms.flatMap(({ scopes }) => scopes))]);
  return page.flatMap(({ id, firstAllowedAt, lastUsedAt }) => {
    const application = applications.find((each) => each.id === id);
    if (!application) return [];
    const own = terms.filter((each) => each.id === id);
    const scopes = new Set(own.flatMap((each) => each.scopes));
    return {
      applicationId: id,
      name: application.name,
      clientUri: application.client_uri,
      redirectHosts: redirectHostsOf(application.redirect_uris),
      scopes: known
        .filter(({ name }) => scopes.has(name))
        .map(({ name, description }) => ({ name, description })),
      organizationIds: [...new Set(own.flatMap(({ organizationId }) => organizationId ?? []))],
      firstAllowedAt,
      lastUsedAt,
    };
  });
}

interface Terms {
  id: string;
  scopes: string[];
  organizationId: string | null;
}

async function readTerms(read: Rows, subject: string, now: number, ids: string[]): Promise<Terms[]> {
  const { oauthGrants: g, oauthConsents: c, oauthApplications: a } = read.tables;
  const granted = await read.db
    .selectDistinct({ id: g.application_id, scopes: g.scopes, organizationId: g.organization_id })
    .from(g)
    .innerJoin(a, eq(a.id, g.application_id))
    .where(and(isLive(read, subject, now), inArray(g.application_id, ids)))
    .limit(TERMS_MAX);
  const remembered = await read.db
    .selectDistinct({ id: c.application_id, scopes: c.scopes })
    .from(c)
    .where(and(eq(c.subject, subject), inArray(c.application_id, ids)))
    .limit(TERMS_MAX);
  return [...granted, ...remembered.map((each) => ({ ...each, organizationId: null }))];
}
