/** Panel issuers: applications whose own session tokens let their users in, in the place of panel tokens. */
import { asc, eq } from 'drizzle-orm';
import { z } from 'zod';
import { lockName } from '../../db/lock.ts';
import type { Rows } from '../../db/store.ts';
import { looksLikeJwt } from '../crypto/format.ts';
import { rowMac } from '../crypto/hashing.ts';
import { sortableId } from '../crypto/ids.ts';
import { issuerOf, keyIdOf, verifyForeignJwt } from '../crypto/jwt.ts';
import type { Caller, Deps, EndUser } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { change } from './events.ts';
import { keyPolicyId, subject } from './fields.ts';
import { create, idempotencyInput } from './idempotency.ts';
import { policyForNewKey } from './key-policies.ts';
import { isEndUserSubject, PANEL_ACTIONS, scopeCeiling } from './panel-tokens.ts';

export interface PanelIssuer {
  id: string;
  /** `iss` of its tokens, exactly. */
  issuer: string;
  jwksUrl: string;
  /** What `aud` must hold; null for anything. */
  audience: string | null;
  /** What `azp` must be one of; null for anything. */
  authorizedParties: string[] | null;
  /** The claim that holds the active organization: where it is there, keys are the organization's. */
  organizationClaim: string | null;
  /** The claim that holds the role in it. */
  roleClaim: string | null;
  /** Roles that manage the organization's keys; others read them. */
  manageRoles: string[];
  scopeCeiling: string[] | null;
  policyId: string | null;
  createdAt: number;
}

type PanelIssuerRow = Rows['tables']['panelIssuers']['$inferSelect'];

const PANEL_ISSUERS_MAX = 20;

/** A session that lives longer is none (threats.md, OAuth: federation). */
const LIFETIME_SECONDS_MAX = 3600;

const url = z.url({ protocol: /^https?$/ }).max(2048);
/** A claim, or one within another: `org_id`, `o.id`. Its own name goes first, for those that have a `.` in it. */
const claim = z
  .string()
  .max(128)
  .regex(/^[A-Za-z0-9_:/-]+(\.[A-Za-z0-9_:/-]+)*$/, "wanted the name of a claim, with '.' before one within");
const text = z.string().min(1).max(255);
const panelIssuerId = z
  .string()
  .regex(/^pis_[0-9A-Za-z]{27}$/, 'wanted an id: pis_ and 27 letters or digits');

export const createPanelIssuerInput = z.strictObject({
  issuer: url.meta({ positional: true }),
  /** Without it, `/.well-known/jwks.json` at the issuer. */
  jwksUrl: url.optional(),
  audience: text.nullish(),
  authorizedParties: z.array(text).min(1).max(50).nullish(),
  organizationClaim: claim.nullish(),
  roleClaim: claim.nullish(),
  manageRoles: z.array(text).max(50).default([]),
  scopeCeiling,
  policyId: keyPolicyId.optional(),
  ...idempotencyInput,
});

/**
 * Trusts an issuer's session tokens. It must say whom they are for: the same keys sign what third parties are given.
 * Throws `name_taken` where the issuer is trusted already, `invalid_input`, `not_found` for the policy, `limit_reached`.
 */
export async function createPanelIssuer(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof createPanelIssuerInput>,
): Promise<PanelIssuer> {
  assertSound(deps, input);
  const now = deps.now();
  const judged = {
    id: sortableId('pis_', now),
    issuer: input.issuer,
    jwks_url: jwksUrlOf(input),
    audience: input.audience ?? null,
    authorized_parties: input.authorizedParties ?? null,
    organization_claim: input.organizationClaim ?? null,
    role_claim: input.roleClaim ?? null,
    manage_roles: input.manageRoles,
    scope_ceiling: input.scopeCeiling,
    policy_id: input.policyId ?? null,
    created_at: now,
  };
  return create(deps, caller, { procedure: 'panelIssuers.create', input }, async (tx) => {
    await lockName(deps.store, tx, 'panel_issuers');
    if (input.policyId !== undefined) await policyForNewKey(deps, tx, input.policyId);
    const { panelIssuers } = tx.tables;
    const known = await tx.db.select({ issuer: panelIssuers.issuer }).from(panelIssuers);
    if (known.some(({ issuer }) => issuer === input.issuer)) throw issuerTaken(input.issuer);
    if (known.length >= PANEL_ISSUERS_MAX) throw tooMany();
    const row = { ...judged, mac: macOf(deps, judged) };
    await tx.db.insert(panelIssuers).values(row);
    return {
      result: toPanelIssuer(row),
      event: { type: 'panel_issuer.created', objectId: row.id, data: { issuer: row.issuer } },
    };
  });
}

function assertSound(deps: Deps, input: z.output<typeof createPanelIssuerInput>) {
  if (!input.audience && !input.authorizedParties)
    throw invalid('audience', "wanted 'audience' or 'authorizedParties', found neither");
  if (input.manageRoles.length > 0 && !input.roleClaim)
    throw invalid('roleClaim', "wanted it with 'manageRoles', found none");
  const refused = deps.outbound.refusal(jwksUrlOf(input), 'document');
  if (refused !== null) throw invalid('jwksUrl', refused);
}

const jwksUrlOf = ({ issuer, jwksUrl }: { issuer: string; jwksUrl?: string | undefined }) =>
  jwksUrl ?? `${issuer.replace(/\/$/, '')}/.well-known/jwks.json`;

/** Panel issuers, the oldest first; there are few. */
export async function listPanelIssuers(deps: Deps): Promise<PanelIssuer[]> {
  const { db, tables } = deps.store.read;
  const rows = await db.select().from(tables.panelIssuers).orderBy(asc(tables.panelIssuers.id));
  return rows.map(toPanelIssuer);
}

export const panelIssuerIdInput = z.strictObject({ id: panelIssuerId.meta({ positional: true }) });

/** Its tokens let nobody in any more. */
export async function deletePanelIssuer(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof panelIssuerIdInput>,
): Promise<{ id: string; deleted: true }> {
  return change(deps, caller, async (tx) => {
    const { panelIssuers } = tx.tables;
    const [row] = await tx.db.delete(panelIssuers).where(eq(panelIssuers.id, id)).returning();
    if (!row) throw new CountersignError('not_found', `No panel issuer has the id '${id}'`);
    return {
      result: { id, deleted: true as const },
      event: { type: 'panel_issuer.deleted', objectId: id, data: { issuer: row.issuer } },
    };
  });
}

/** The end user whom a session token lets in; null where nobody trusted issued it, or it does not say enough. */
export async function findSessionUser(deps: Deps, value: string): Promise<EndUser | null> {
  if (!looksLikeJwt(value)) return null;
  const issuer = await findIssuer(deps, issuerOf(value));
  if (!issuer) return null;
  const jwks = await deps.foreignKeys.find(issuer.jwks_url, keyIdOf(value));
  const verified = await verifyForeignJwt(value, issuer.issuer, jwks, deps.now());
  if (!verified || !isSession(verified, issuer)) return null;
  return userIn(verified.claims, issuer);
}

async function findIssuer(deps: Deps, issuer: string | null): Promise<PanelIssuerRow | null> {
  if (issuer === null || issuer.includes('\0')) return null;
  const { db, tables } = deps.store.read;
  const [row] = await db.select().from(tables.panelIssuers).where(eq(tables.panelIssuers.issuer, issuer));
  return row?.mac.equals(macOf(deps, row)) ? row : null;
}

/** An access token of a third party bears the same signature: it has a `typ` of its own, or says whose client it is. */
function isSession(
  { typ, claims }: { typ: string | undefined; claims: Record<string, unknown> },
  { audience, authorized_parties: parties }: PanelIssuerRow,
): boolean {
  if (typ !== undefined && typ.toUpperCase() !== 'JWT') return false;
  if (claims['client_id'] !== undefined || claims['act'] !== undefined || claims['cnf'] !== undefined)
    return false;
  if (Number(claims['exp']) - Number(claims['iat']) > LIFETIME_SECONDS_MAX) return false;
  if (audience !== null && ![claims['aud']].flat().includes(audience)) return false;
  return parties === null || (typeof claims['azp'] === 'string' && parties.includes(claims['azp']));
}

function userIn(claims: Record<string, unknown>, issuer: PanelIssuerRow): EndUser | null {
  const user = subject.safeParse(claims['sub']).data;
  if (user === undefined || !isEndUserSubject(user) || user.startsWith('org_')) return null;
  const terms = {
    kind: 'end_user' as const,
    id: user,
    scopeCeiling: issuer.scope_ceiling,
    policyId: issuer.policy_id,
  };
  const organization = claimAt(claims, issuer.organization_claim);
  if (organization === undefined || organization === null)
    return { ...terms, subject: user, actions: PANEL_ACTIONS };
  const whose = subject.safeParse(organization).data;
  // A name that somebody chose for an organization is no user's id.
  if (whose === undefined || !isEndUserSubject(whose) || whose.startsWith('user_')) return null;
  const role = claimAt(claims, issuer.role_claim);
  const manages = typeof role === 'string' && issuer.manage_roles.includes(role);
  // What they themselves allowed an application is theirs, whatever their role.
  const actions = manages ? PANEL_ACTIONS : (['read', 'read_grants', 'revoke_grants'] as const);
  return { ...terms, subject: whose, actions };
}

function claimAt(claims: Record<string, unknown>, path: string | null): unknown {
  if (path === null) return undefined;
  if (Object.hasOwn(claims, path)) return claims[path];
  let value: unknown = claims;
  for (const name of path.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return value;
}

const invalid = (field: string, why: string) =>
  new CountersignError('invalid_input', `Cannot create panel issuer: '${field}': ${why}`, { field });

const issuerTaken = (issuer: string) =>
  new CountersignError('name_taken', `The issuer '${issuer}' is trusted already`, { field: 'issuer' });

const tooMany = () =>
  new CountersignError(
    'limit_reached',
    `Cannot create panel issuer: there may be at most ${PANEL_ISSUERS_MAX}`,
  );

const macOf = (deps: Pick<Deps, 'keyring'>, row: Omit<PanelIssuerRow, 'mac'>) =>
  rowMac(deps.keyring.rowMac, [
    'panel_issuers',
    row.id,
    row.issuer,
    row.jwks_url,
    row.audience,
    JSON.stringify(row.authorized_parties),
    row.organization_claim,
    row.role_claim,
    JSON.stringify(row.manage_roles),
    JSON.stringify(row.scope_ceiling),
    row.policy_id,
    row.created_at,
  ]);

const toPanelIssuer = (row: PanelIssuerRow): PanelIssuer => ({
  id: row.id,
  issuer: row.issuer,
  jwksUrl: row.jwks_url,
  audience: row.audience,
  authorizedParties: row.authorized_parties,
  organizationClaim: row.organization_claim,
  roleClaim: row.role_claim,
  manageRoles: row.manage_roles,
  scopeCeiling: row.scope_ceiling,
  policyId: row.policy_id,
  createdAt: row.created_at,
});
