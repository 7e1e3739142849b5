/** Registrations: applications that come unasked and register themselves (RFC 7591). */
import { and, asc, count, eq, inArray, isNotNull, lte, placeholder } from 'drizzle-orm';
import { lockName } from '../../db/lock.ts';
import { statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import type { Caller, Deps } from '../deps.ts';
import type { Limit } from '../limits.ts';
import { networkOf } from './addresses.ts';
import {
  assertRedirectUris,
  type ClientMetadata,
  invalid,
  nameOf,
  readClientMetadata,
  scopesOfStranger,
} from './client-metadata.ts';
import { change } from './events.ts';
import { isInitialAccessToken, useInitialAccessToken } from './initial-access-tokens.ts';
import {
  type ApplicationRow,
  createOauthApplicationInput,
  insertApplication,
  issueApplicationSecret,
  newApplication,
} from './oauth-applications.ts';
import { OauthError } from './oauth-errors.ts';
import { type OauthSettings, readOauthSettings } from './oauth-settings.ts';
import { takeOne } from './rate-limits.ts';
import { redirectHostOf } from './redirect-uris.ts';
import type { Address } from './secrets.ts';

/** What an application is answered that registered itself. */
export interface Registration {
  application: ApplicationRow;
  /** Null of a public one. */
  secret: string | null;
  authenticationMethod: AuthenticationMethod;
  /** Those it is given where it names none. */
  scopes: string[];
}

/** How it may prove itself; whichever of the secret's it registers, it may use the other. */
const AUTHENTICATION_METHODS = ['none', 'client_secret_basic', 'client_secret_post'] as const;
type AuthenticationMethod = (typeof AUTHENTICATION_METHODS)[number];

const PER_MINUTE: Limit = { count: 20, windowSeconds: 60 };
/** As long as one lives that nobody uses: what one network may have of them. */
const PER_DAY: Limit = { count: 200, windowSeconds: 86_400 };

/** How long an application that came unasked waits for its first user. */
export const UNUSED_MS = 24 * 3_600_000;
/** Those that wait, all together (threats.md, operation: rows that nobody was authenticated for). */
const UNUSED_MAX = 10_000;

interface RegistrationRequest {
  /** The body: unknown fields of it are ignored, as RFC 7591 has it. */
  metadata: unknown;
  /** The value of an initial access token, where one is presented. */
  token: string | null;
  address: Address;
  requestId: string;
}

/**
 * Registers an application, the same as before as another one: clients that lose what they were told, or run twice, come
 * again. Throws `access_denied` where nobody may, `invalid_token`, `invalid_client_metadata`, `invalid_redirect_uri`,
 * `temporarily_unavailable`, and `rate_limited`.
 */
export async function registerApplication(deps: Deps, request: RegistrationRequest): Promise<Registration> {
  const settings = await readOauthSettings(deps);
  await assertMayRegister(deps, settings, request);
  const metadata = readClientMetadata(request.metadata);
  assertRedirectUris(metadata.redirectUris);
  const isVouchedFor = request.token !== null;
  const authenticationMethod = methodOf(deps, metadata, isVouchedFor);
  const row = await rowOf(deps, settings, metadata, authenticationMethod === 'none');
  const secret = await insertRegistration(deps, row, request);
  return {
    application: row,
    secret,
    authenticationMethod,
    scopes: row.default_scopes ?? settings.defaultScopes,
  };
}

async function assertMayRegister(
  deps: Deps,
  { registration }: OauthSettings,
  { token, address }: RegistrationRequest,
): Promise<void> {
  if (registration === 'off')
    throw new OauthError('access_denied', 'Applications are registered by an administrator here');
  if (token !== null && (await isInitialAccessToken(deps, token))) return;
  await assertNotTooOften(deps, address);
  if (token !== null) throw wantedToken();
  if (registration === 'initial_access_token') throw wantedToken();
}

const wantedToken = () =>
  new OauthError(
    'invalid_token',
    "Wanted 'Authorization: Bearer' with an initial access token that was not used up and has not expired",
  );

async function assertNotTooOften(deps: Deps, address: Address): Promise<void> {
  const network = networkOf(address());
  for (const limit of [PER_MINUTE, PER_DAY])
    await takeOne(
      deps,
      `oauth_registration:${limit.windowSeconds}:${network}`,
      limit,
      `Cannot register: wanted at most ${limit.count} in ${limit.windowSeconds} s from one network`,
    );
}

/** RFC 7591, section 2: without a word, by secret. What agents register has no place to keep one, whatever they say. */
function methodOf(
  { oauthClients }: Deps,
  { authenticationMethod: asked }: ClientMetadata,
  isVouchedFor: boolean,
): AuthenticationMethod {
  const method = AUTHENTICATION_METHODS.find((each) => each === (asked ?? 'client_secret_basic'));
  if (!method)
    throw invalid(`Wanted 'token_endpoint_auth_method' to be one of ${AUTHENTICATION_METHODS.join(', ')}`);
  return oauthClients === 'mcp' && !isVouchedFor ? 'none' : method;
}

async function rowOf(
  deps: Deps,
  settings: OauthSettings,
  metadata: ClientMetadata,
  isPublic: boolean,
): Promise<ApplicationRow> {
  const input = createOauthApplicationInput.parse({
    name: nameOf(metadata),
    clientUri: metadata.clientUri,
    public: isPublic,
    redirectUris: metadata.redirectUris,
    grantTypes: metadata.grantTypes,
    accessTokenFormat: settings.accessTokenFormat,
    ...(await scopesOfStranger(deps, metadata.scopes)),
  });
  return { ...newApplication(deps, 'registration', input), unused_until: deps.now() + UNUSED_MS };
}

/** Answers its secret; null of a public one. */
async function insertRegistration(
  deps: Deps,
  row: ApplicationRow,
  { token, requestId }: RegistrationRequest,
): Promise<string | null> {
  const caller: Caller = { principal: { kind: 'oauth_application', id: row.id }, requestId };
  return change(deps, caller, async (tx) => {
    const tokenId = token === null ? null : await useInitialAccessToken(tx, deps, token);
    if (token !== null && tokenId === null) throw wantedToken();
    if (token === null) await assertRoomForUnused(deps, tx);
    await insertApplication(tx, row);
    const secret = row.public ? null : await issueApplicationSecret(tx, deps, row.id);
    return {
      result: secret,
      event: {
        type: 'oauth_application.registered',
        objectId: row.id,
        data: {
          name: row.name,
          redirectHosts: redirectHostsOf(row.redirect_uris),
          initialAccessTokenId: tokenId,
        },
      },
    };
  });
}

export const redirectHostsOf = (uris: readonly string[]) => [...new Set(uris.map(redirectHostOf))];

/** Of all that came unasked and wait for their first user. Throws `temporarily_unavailable`. */
export async function assertRoomForUnused(deps: Pick<Deps, 'store'>, tx: Rows): Promise<void> {
  const { oauthApplications: a } = tx.tables;
  await lockName(deps.store, tx, 'oauth_registrations');
  const [row] = await tx.db.select({ count: count() }).from(a).where(isNotNull(a.unused_until));
  if ((row?.count ?? 0) < UNUSED_MAX) return;
  throw new OauthError(
    'temporarily_unavailable',
    `Wanted at most ${UNUSED_MAX} applications that nobody has used yet; those go a day after they came`,
  );
}

/** Within the transaction in which a user allows an application something: it stays from then on. */
export async function keepUsed(tx: Rows, id: string): Promise<void> {
  await keep(tx, { id });
}

const keep = statement((db, { oauthApplications: a }) =>
  db
    .update(a)
    .set({ unused_until: null })
    .where(and(eq(a.id, placeholder('id')), isNotNull(a.unused_until)))
    .prepare('oauth_application_keep'),
);

const PURGE: Caller = {
  principal: { kind: 'system', id: 'registration-purge' },
  requestId: 'registration-purge',
};

/** Deletes up to `limit` applications that came unasked and that nobody used in time, as one event; answers how many. */
export async function purgeUnusedApplications(deps: Deps, limit: number): Promise<number> {
  const due = await unusedBy(deps, limit);
  if (due.length === 0) return 0;
  return change(
    deps,
    PURGE,
    async (tx) => {
      const { oauthApplications: a, oauthLogos: l, secrets: s } = tx.tables;
      // Once more: some may have been used since.
      const deleted = await tx.db
        .delete(a)
        .where(and(inArray(a.id, due), lte(a.unused_until, deps.now())))
        .returning({ id: a.id });
      const ids = deleted.map(({ id }) => id);
      if (ids.length === 0) return { result: 0, event: null };
      await tx.db.delete(s).where(and(eq(s.owner_kind, 'oauth_application'), inArray(s.owner_id, ids)));
      await tx.db.delete(l).where(inArray(l.application_id, ids));
      const data = { count: ids.length, selector: { applicationIds: ids } };
      return {
        result: ids.length,
        event: { type: 'oauth_application.purged', objectId: 'oauth_applications', data },
      };
    },
    'minting',
  );
}

async function unusedBy({ store: { read }, now }: Deps, limit: number): Promise<string[]> {
  const { oauthApplications: a } = read.tables;
  const rows = await read.db
    .select({ id: a.id })
    .from(a)
    // The index has the second condition, and SQLite only sees that it is met where it is written out.
    .where(and(lte(a.unused_until, now()), isNotNull(a.unused_until)))
    .orderBy(asc(a.unused_until), asc(a.id))
    .limit(limit);
  return rows.map(({ id }) => id);
}
