/** Tokens that an application, or a machine, gets for itself (RFC 6749, section 4.4). */
import type { Caller, Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import type { AuthenticatedApplication } from './application-authentication.ts';
import { machineId } from './fields.ts';
import { createM2mToken, createM2mTokenInput } from './m2m-tokens.ts';
import { OauthError } from './oauth-errors.ts';
import { resourcesAsked, scopesOfApplication } from './oauth-requests.ts';
import { writeOauthToken } from './oauth-tokens.ts';
import { takeOne } from './rate-limits.ts';
import { maySign, withSigning } from './token-signing.ts';

/** What a token is asked for with, as on the wire. */
export interface Asked {
  scopes: string[] | null;
  resources: string[];
}

/** What is answered (RFC 6749, section 5.1). */
export interface Issued {
  accessToken: string;
  expiresInSeconds: number;
  scopes: string[];
}

/** Throws `unauthorized_client`, `invalid_scope`, `invalid_target`, and `rate_limited` where it was given too many in a minute. */
export async function issueToApplication(
  deps: Deps,
  { application, secretId }: AuthenticatedApplication,
  { scopes: asked, resources: named }: Asked,
): Promise<Issued> {
  if (!application.grant_types.includes('client_credentials'))
    throw new OauthError(
      'unauthorized_client',
      "The application may not use the grant type 'client_credentials'",
    );
  const resources = resourcesAsked(application, named);
  const scopes = await scopesOfApplication(deps, application, asked, resources);
  await assertNotTooMany(deps, application.id);
  const token = { application, secretId, grant: null, scopes, resources };
  const written = await withSigning(deps, application.access_token_format, (signing) =>
    deps.store.tx(
      async (tx) => ((await maySign(tx, signing)) ? writeOauthToken(tx, deps, token, signing) : null),
      'minting',
    ),
  );
  return {
    accessToken: await written.value(),
    expiresInSeconds: application.access_token_ttl_seconds,
    scopes,
  };
}

/** Each is a row until it has expired: what one application may have of them is bounded. */
const assertNotTooMany = (deps: Deps, applicationId: string): Promise<void> =>
  takeOne(
    deps,
    `oauth_client_credentials:${applicationId}`,
    { count: deps.oauthTokensPerMinute, windowSeconds: 60 },
    `Cannot create token: the application may get ${deps.oauthTokensPerMinute} for itself in a minute`,
  );

/**
 * An M2M token, so that every OAuth library can be a machine. Its resources are machines, by id; its scopes those of machine
 * scopes. Throws `invalid_scope` and `invalid_target`.
 */
export async function issueToMachine(
  deps: Deps,
  caller: Caller,
  { scopes, resources }: Asked,
  format: 'opaque' | 'jwt',
): Promise<Issued> {
  if (!resources.every((resource) => machineId.safeParse(resource).success))
    throw new OauthError('invalid_target', "Wanted each 'resource' of a machine to be the id of a machine");
  const input = createM2mTokenInput.safeParse({
    format,
    ...(resources.length > 0 && { audience: [...new Set(resources)] }),
    ...(scopes && { scopes }),
  });
  if (!input.success) throw new OauthError('invalid_request', 'Wanted fewer resources or scopes');
  const minted = await createM2mToken(deps, caller, input.data).catch((error: unknown) => {
    throw inTermsOfOauth(error);
  });
  const { token = '', expiresAt, createdAt, scopes: granted } = minted;
  const expiresInSeconds = Math.floor((expiresAt - createdAt) / 1000);
  return { accessToken: token, expiresInSeconds, scopes: granted };
}

/** What no machine scope allows, by what was asked for. */
function inTermsOfOauth(error: unknown): unknown {
  if (!(error instanceof CountersignError)) return error;
  if (error.code === 'unauthenticated') return new OauthError('invalid_client', error.message);
  if (error.code !== 'scope_not_allowed') return error;
  return new OauthError(error.field === 'audience' ? 'invalid_target' : 'invalid_scope', error.message);
}
