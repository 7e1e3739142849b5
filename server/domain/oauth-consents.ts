/** Consents: what a user has allowed an application, so that they are not asked again; and the grant and code that follow. */
import { createHash } from 'node:crypto';
import { and, desc, eq, gt, placeholder, sql } from 'drizzle-orm';
import { flatStatement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { Limit } from '../limits.ts';
import { documentHostOf } from './client-metadata-documents.ts';
import { change } from './events.ts';
import type { ApplicationRow } from './oauth-applications.ts';
import { insertCode, type NewCode } from './oauth-codes.ts';
import { OauthError } from './oauth-errors.ts';
import { insertGrant, type NewGrant } from './oauth-grants.ts';
import { endInteraction } from './oauth-interactions.ts';
import { takeOne } from './rate-limits.ts';
import { isOnDevice } from './redirect-uris.ts';
import { lockSignable } from './users.ts';

/** What an authorization request comes to, for one user. */
export interface Authorization
  extends Omit<NewGrant, 'application'>,
    Pick<NewCode, 'redirectUriGiven' | 'codeChallenge'> {
  application: ApplicationRow;
}

/** What must be the same for a consent to be the same (threats.md, OAuth). */
type Terms = Pick<Authorization, 'redirectUri' | 'organizationId' | 'resources'>;

const termsHash = ({ redirectUri, organizationId, resources }: Terms): Buffer =>
  createHash('sha256')
    .update(JSON.stringify([redirectUri, organizationId, [...resources].sort()]))
    .digest();

/**
 * Whether an application may be remembered: not one that registered itself, nor one on its users' own device, which any
 * other program could pretend to be (threats.md, OAuth).
 */
export const isVerified = ({ source }: Pick<ApplicationRow, 'source'>, redirectUri: string): boolean =>
  source === 'administrator' && !isOnDevice(redirectUri);

/** Its home page, where somebody else says so: an administrator, or the host of its document, which is proven to be its own. */
export function knownHomeOf(application: ApplicationRow): string | null {
  const { source, client_uri: uri } = application;
  if (uri === null || source === 'administrator') return uri;
  return new URL(uri).host === documentHostOf(application) ? uri : null;
}

/**
 * What may be answered without asking the user: the authorization with the organization it is then for, or null where they
 * must be asked. One that they did not choose it is for nobody's: an application that asks nothing acts for the user alone,
 * and of several that they allowed before they have to say which.
 */
export async function withoutAsking(
  deps: Deps,
  authorization: Authorization,
  organizations: readonly { id: string }[],
): Promise<Authorization | null> {
  const { application, subject, scopes, redirectUri } = authorization;
  if (!isVerified(application, redirectUri)) return null;
  if (!application.consent_required) return authorization;
  const consents = await readConsents(deps.store.read, { subject, applicationId: application.id });
  const allowed = [null, ...organizations.map(({ id }) => id)].filter((organizationId) => {
    const hash = termsHash({ ...authorization, organizationId });
    const consent = consents.find(({ terms_hash }) => terms_hash.equals(hash));
    return consent && scopes.every((scope) => consent.scopes.includes(scope));
  });
  const [organizationId, ...others] = allowed;
  return organizationId === undefined || others.length > 0 ? null : { ...authorization, organizationId };
}

const readConsents = flatStatement<
  { subject: string; applicationId: string },
  { terms_hash: Buffer; scopes: string[] }
>('oauth_consents', (db, { oauthConsents: c }) => {
  const fields = { terms_hash: c.terms_hash, scopes: c.scopes };
  const query = db
    .select(fields)
    .from(c)
    .where(and(eq(c.subject, placeholder('subject')), eq(c.application_id, placeholder('applicationId'))));
  return { fields, query };
});

/** What one user may be given of codes for one application in a minute, and in a day. */
const CODES_A_MINUTE: Limit = { count: 30, windowSeconds: 60 };
const CODES_A_DAY_MAX = 300;
const DAY_MS = 86_400_000;
const TOO_MANY_CODES = `Cannot authorize: wanted at most ${CODES_A_MINUTE.count} in a minute, and ${CODES_A_DAY_MAX} in a day, of one application by one user`;

/** Those of a day are counted by the grants that they made: a counter of its own would take memory for a day. */
async function assertNotTooOften(deps: Deps, { application, subject }: Authorization): Promise<void> {
  await takeOne(deps, `oauth_code:${application.id}:${subject}`, CODES_A_MINUTE, TOO_MANY_CODES);
  const since = deps.now() - DAY_MS;
  const [last] = await readLastOfADay(deps.store.read, { subject, applicationId: application.id, since });
  if (!last) return;
  throw new CountersignError('rate_limited', TOO_MANY_CODES, { retryAfterMs: last.created_at - since });
}

/** The grant that has as many after it as may be made in a day. */
const readLastOfADay = flatStatement<
  { subject: string; applicationId: string; since: number },
  { created_at: number }
>('oauth_grants_last_of_a_day', (db, { oauthGrants: g }) => {
  const fields = { created_at: g.created_at };
  const query = db
    .select(fields)
    .from(g)
    .where(
      and(
        eq(g.subject, placeholder('subject')),
        // Not by the index of the application, in which there are the grants of all its users.
        sql`${g.application_id} || '' = ${placeholder('applicationId')}`,
        gt(g.created_at, placeholder('since')),
      ),
    )
    .orderBy(desc(g.created_at))
    .limit(1)
    .offset(CODES_A_DAY_MAX - 1);
  return { fields, query };
});

/**
 * Answers a code under a new grant, and ends the interaction if there is one; nothing is asked, so nothing is told. Throws
 * `rate_limited` before anything is written.
 */
export async function authorizeSilently(
  deps: Deps,
  authorization: Authorization,
  interactionId: string | null,
): Promise<string> {
  await assertNotTooOften(deps, authorization);
  return deps.store.tx(async (tx) => {
    if (interactionId !== null && !(await endInteraction(tx, interactionId))) throw alreadyAnswered();
    return (await insertAuthorization(tx, deps, authorization)).code;
  }, 'minting');
}

/**
 * Notes what a user allowed, ends the interaction and answers a code, in one transaction with its event. Throws `rate_limited`
 * before anything is written.
 */
export async function giveConsent(
  deps: Deps,
  interactionId: string,
  authorization: Authorization,
  requestId: string,
): Promise<string> {
  const { application, subject, scopes, organizationId } = authorization;
  const caller: Caller = { principal: { kind: 'user', id: subject }, requestId };
  await assertNotTooOften(deps, authorization);
  return change(deps, caller, async (tx) => {
    if (!(await endInteraction(tx, interactionId))) throw alreadyAnswered();
    // Whoever deletes the user takes their row first, too.
    const { code, grantId } = await insertAuthorization(tx, deps, authorization);
    if (isVerified(application, authorization.redirectUri)) await remember(tx, deps, authorization);
    return {
      result: code,
      event: {
        type: 'oauth_consent.given',
        objectId: grantId,
        subject,
        data: { applicationId: application.id, scopes, ...(organizationId !== null && { organizationId }) },
      },
    };
  });
}

export const alreadyAnswered = () =>
  new OauthError('invalid_request', 'This was answered before, or took too long');

async function insertAuthorization(
  tx: Rows,
  deps: Deps,
  { redirectUriGiven, codeChallenge, ...authorization }: Authorization,
): Promise<{ code: string; grantId: string }> {
  await assertMayAllow(tx, deps, authorization);
  const grant = await insertGrant(tx, deps, authorization);
  const { redirectUri, application } = authorization;
  const code = await insertCode(tx, deps, {
    grant,
    redirectUri,
    redirectUriGiven,
    codeChallenge,
    ttlSeconds: application.code_ttl_seconds,
  });
  return { code, grantId: grant.id };
}

/** One who was deleted or disabled since their session was read allows nothing more; those of a hand-off have no row. */
async function assertMayAllow(tx: Rows, deps: Deps, { subject }: Pick<Authorization, 'subject'>) {
  if (deps.signIn.kind === 'handoff' || (await lockSignable(tx, deps, subject))) return;
  throw new OauthError('access_denied', 'This user may not sign in');
}

/** Scopes are added to those of before: each was consented to. */
async function remember(tx: Rows, deps: Deps, authorization: Authorization): Promise<void> {
  const { oauthConsents: c } = tx.tables;
  const { application, subject, scopes } = authorization;
  const now = deps.now();
  const hash = termsHash(authorization);
  const ofTerms = and(eq(c.subject, subject), eq(c.application_id, application.id), eq(c.terms_hash, hash));
  const row = {
    id: sortableId('ocn_', now),
    application_id: application.id,
    subject,
    terms_hash: hash,
    scopes,
    created_at: now,
    updated_at: now,
  };
  const inserted = await tx.db.insert(c).values(row).onConflictDoNothing().returning({ id: c.id });
  if (inserted.length > 0) return;
  const [before] = await tx.db.select({ scopes: c.scopes }).from(c).where(ofTerms);
  const all = [...new Set([...(before?.scopes ?? []), ...scopes])];
  await tx.db.update(c).set({ scopes: all, updated_at: now }).where(ofTerms);
}
