/** Signing in at another issuer, by OpenID Connect: authorization code with PKCE, state and nonce, once for each interaction. */
import { and, eq } from 'drizzle-orm';
import * as oidc from 'openid-client';
import type { Rows } from '../../db/store.ts';
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { change } from './events.ts';
import { OauthError } from './oauth-errors.ts';
import { type Interaction, readInteraction } from './oauth-interactions.ts';
import type { NewlySignedIn } from './user-sessions.ts';
import {
  changedIn,
  claimsOf,
  email,
  insertUser,
  isUserSubject,
  lockSignable,
  newUserId,
  saveUser,
  type UserRow,
} from './users.ts';

export type Upstream = Extract<Deps['signIn'], { kind: 'oidc' }>;

/** Of a request that its user is away for: it is opened here alone. */
interface Secrets {
  state: string;
  nonce: string;
  codeVerifier: string;
}

const CALLBACK_PATH = '/oauth/upstream/callback';
const TIMEOUT_SECONDS = 8;
/** What an issuer says of itself changes rarely: its keys are asked for again where one is not known. */
const CONFIGURATION_MS = 3_600_000;
const SCOPES = 'openid profile email';

interface Known {
  configuration: oidc.Configuration;
  readAt: number;
}

/** By the settings of a process, of which there is one. */
const known = new WeakMap<Upstream, Known>();

/** Throws `unavailable` where the issuer does not answer as one. */
async function configurationOf({ now }: Pick<Deps, 'now'>, upstream: Upstream): Promise<oidc.Configuration> {
  const before = known.get(upstream);
  if (before && now() - before.readAt < CONFIGURATION_MS) return before.configuration;
  const { issuer, clientId, clientSecret } = upstream;
  const configuration = await oidc
    .discovery(
      new URL(issuer),
      clientId,
      clientSecret ?? undefined,
      clientSecret === null ? oidc.None() : undefined,
      {
        timeout: TIMEOUT_SECONDS,
        execute: [
          // By signature too, although the token comes from the issuer itself.
          oidc.enableNonRepudiationChecks,
          // A setting of http is taken for loopback alone (server/config.ts).
          ...(issuer.startsWith('http:') ? [oidc.allowInsecureRequests] : []),
        ],
      },
    )
    .catch((error: unknown) => {
      throw new CountersignError('unavailable', 'Users sign in elsewhere, and that cannot be reached', {
        cause: error,
      });
    });
  known.set(upstream, { configuration, readAt: now() });
  return configuration;
}

/** The URL at which the user signs in. One that was begun before for the same interaction is none any more. */
export async function startUpstream(
  deps: Deps,
  upstream: Upstream,
  { id, parameters }: Interaction,
): Promise<string> {
  const configuration = await configurationOf(deps, upstream);
  const secrets: Secrets = {
    // It names its interaction, so that several may be under way in one browser.
    state: `${id}.${oidc.randomState()}`,
    nonce: oidc.randomNonce(),
    codeVerifier: oidc.randomPKCECodeVerifier(),
  };
  const sealed = deps.keyring.seal(placeOf(id), JSON.stringify(secrets));
  await deps.store.tx(
    ({ db, tables: { oauthInteractions: i } }) => db.update(i).set({ upstream: sealed }).where(eq(i.id, id)),
    'minting',
  );
  const { prompt, max_age: maxAge, login_hint: loginHint } = parameters;
  const prompts = String(prompt ?? '').split(' ');
  // Only with `max_age` must an issuer say when the user signed in (OpenID Connect Core 1.0, section 2).
  const freshness = prompts.includes('login') ? '0' : maxAge;
  const asked: Record<string, string> = {
    redirect_uri: `${deps.publicUrl}${CALLBACK_PATH}`,
    scope: SCOPES,
    state: secrets.state,
    nonce: secrets.nonce,
    code_challenge: await oidc.calculatePKCECodeChallenge(secrets.codeVerifier),
    code_challenge_method: 'S256',
    ...(typeof freshness === 'string' && { max_age: freshness }),
    ...(typeof loginHint === 'string' && { login_hint: loginHint }),
  };
  const ofSignIn = prompts.filter((each) => each === 'login' || each === 'select_account');
  if (ofSignIn.length > 0) asked['prompt'] = ofSignIn.join(' ');
  return oidc.buildAuthorizationUrl(configuration, asked).href;
}

const placeOf = (id: string) => `oauth_interactions.upstream.${id}`;

/** The interaction that an issuer's answer is for. */
export const interactionOfState = (state: string | null): string | undefined => state?.split('.', 1)[0];

/** The user at the issuer let nobody in, or it could not. */
export class UpstreamRefusal extends Error {
  override readonly name = 'UpstreamRefusal';
}

/**
 * Who the issuer says it is, by its answer to the interaction of this browser; the answer is used up with that. Throws
 * `UpstreamRefusal` where the issuer says no, `invalid_request` for an answer that is not to our request, and `unavailable`.
 */
export async function finishUpstream(
  deps: Deps,
  upstream: Upstream,
  interaction: Interaction,
  answer: URLSearchParams,
  requestId: string,
): Promise<NewlySignedIn> {
  const secrets = await takeSecrets(deps, interaction.id, answer.get('state'));
  const url = new URL(`${deps.publicUrl}${CALLBACK_PATH}?${answer}`);
  const { maxAge, since } = freshnessOf(interaction);
  const claims = await redeem(deps, upstream, url, secrets, maxAge);
  const authTime = claims.auth_time === undefined ? undefined : claims.auth_time * 1000;
  // Whoever has the browser can take what asks for it out of the URL: the issuer has to say that it was done.
  if (since !== null && (authTime === undefined || authTime < since))
    throw new UpstreamRefusal('The user was to sign in again, and did not');
  const user = await knowUser(deps, upstream.issuer, claims, requestId);
  return {
    subject: user.id,
    source: user.source,
    claims: { ...profileOf(claims), ...claimsOf(user) },
    organizations: [],
    userMac: user.mac,
    ...(authTime !== undefined && { authTime }),
  };
}

/** Clocks differ, and an issuer counts in whole seconds. */
const CLOCKS_MS = 60_000;

function freshnessOf({ parameters, createdAt }: Interaction): {
  maxAge: number | undefined;
  since: number | null;
} {
  const { prompt, max_age: maxAge } = parameters;
  const isAgain = String(prompt ?? '')
    .split(' ')
    .includes('login');
  return {
    maxAge: typeof maxAge === 'string' ? Number(maxAge) : undefined,
    since: isAgain ? createdAt - CLOCKS_MS : null,
  };
}

/** Gone with that: an answer is good once, and only with the state that was sent. */
async function takeSecrets(deps: Deps, id: string, state: string | null): Promise<Secrets> {
  const sealed = (await readInteraction(deps, id))?.upstream;
  if (!sealed) throw notOurs();
  const secrets = JSON.parse(deps.keyring.unseal(placeOf(id), sealed).toString()) as Secrets;
  if (secrets.state !== state) throw notOurs();
  const taken = await deps.store.tx(
    ({ db, tables: { oauthInteractions: i } }) =>
      db
        .update(i)
        .set({ upstream: null })
        .where(and(eq(i.id, id), eq(i.upstream, sealed)))
        .returning({ id: i.id }),
    'minting',
  );
  if (taken.length === 0) throw notOurs();
  return secrets;
}

const notOurs = () =>
  new OauthError('invalid_request', 'This sign-in was finished before, or was begun in another browser');

async function redeem(
  deps: Deps,
  upstream: Upstream,
  url: URL,
  { state, nonce, codeVerifier }: Secrets,
  maxAge: number | undefined,
): Promise<oidc.IDToken> {
  const configuration = await configurationOf(deps, upstream);
  try {
    const tokens = await oidc.authorizationCodeGrant(configuration, url, {
      expectedState: state,
      expectedNonce: nonce,
      pkceCodeVerifier: codeVerifier,
      idTokenExpected: true,
      ...(maxAge !== undefined && { maxAge }),
    });
    const claims = tokens.claims();
    if (claims) return claims;
    throw new Error('An ID token was expected');
  } catch (error) {
    if (error instanceof oidc.AuthorizationResponseError)
      throw new UpstreamRefusal('Nobody was signed in', { cause: error });
    if (isUnsound(error)) throw new OauthError('invalid_request', 'The answer is not one to what was asked');
    throw new CountersignError('unavailable', 'Users sign in elsewhere, and that gave no answer', {
      cause: error,
    });
  }
}

/** By openid-client's codes: whoever has a browser can send such an answer, and nothing failed. */
const UNSOUND: ReadonlySet<unknown> = new Set([
  'OAUTH_INVALID_RESPONSE',
  'OAUTH_JWT_CLAIM_COMPARISON_FAILED',
  'OAUTH_JWT_TIMESTAMP_CHECK_FAILED',
  'OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED',
]);

const isUnsound = (error: unknown): boolean =>
  (error instanceof oidc.ClientError && UNSOUND.has(error.code)) ||
  (error instanceof oidc.ResponseBodyError && error.error === 'invalid_grant');

/** The user by what the issuer calls them, and never by their address (threats.md, sign-in); new ones get a row. */
async function knowUser(
  deps: Deps,
  issuer: string,
  claims: oidc.IDToken,
  requestId: string,
): Promise<UserRow> {
  const said = saidOf(claims);
  if (!isUserSubject(claims.sub) || claims.sub.length > SUBJECT_LENGTH_MAX)
    throw new UpstreamRefusal('The issuer calls the user what no user may be called');
  const source = { source: issuer, source_subject: claims.sub };
  const id = (await readBySource(deps.store.read, source))?.id ?? newUserId(deps);
  const caller: Caller = { principal: { kind: 'user', id }, requestId };
  return change(deps, caller, async (tx) => {
    const added = await insertUser(tx, deps, { id, ...source, ...said, password_hash: null });
    if (added) {
      const event = { type: 'user.created' as const, objectId: id, subject: id, data: { source: issuer } };
      return { result: added, event };
    }
    return updateKnown(tx, deps, source, said);
  });
}

const SUBJECT_LENGTH_MAX = 255;

type Source = Pick<UserRow, 'source' | 'source_subject'>;
type Said = Pick<UserRow, 'name' | 'email' | 'email_verified'>;

async function readBySource(
  { db, tables }: Rows,
  { source, source_subject }: Source,
): Promise<UserRow | null> {
  const { users: u } = tables;
  const [row] = await db
    .select()
    .from(u)
    .where(and(eq(u.source, source), eq(u.source_subject, source_subject)));
  return row ?? null;
}

/** As the issuer has it now. */
async function updateKnown(tx: Rows, deps: Deps, source: Source, said: Said) {
  const found = await readBySource(tx, source);
  if (!found) throw new Error('A user is there and is not');
  const before = await lockSignable(tx, deps, found.id);
  if (!before) throw new UpstreamRefusal('This user may not sign in');
  const changed = changedIn(before, { ...before, ...said });
  if (changed.length === 0) return { result: before, event: null };
  const { id } = before;
  return {
    result: await saveUser(tx, deps, before, { ...before, ...said }),
    event: { type: 'user.updated' as const, objectId: id, subject: id, data: { changed } },
  };
}

const NAME_LENGTH_MAX = 255;

const textOf = (value: unknown): string | null =>
  typeof value === 'string' && value !== '' && !/[\p{Cc}\p{Cs}]/u.test(value)
    ? value.slice(0, NAME_LENGTH_MAX)
    : null;

function saidOf(claims: oidc.IDToken): Said {
  const address = email.safeParse(claims['email']).data ?? null;
  return {
    name: textOf(claims['name']),
    email: address,
    email_verified: address !== null && claims['email_verified'] === true,
  };
}

/** What else applications may be told. */
function profileOf(claims: oidc.IDToken) {
  const names = ['given_name', 'family_name', 'preferred_username'] as const;
  return Object.fromEntries(
    names.flatMap((name) => {
      const text = textOf(claims[name]);
      return text === null ? [] : [[name, text]];
    }),
  );
}
