/** What a request for tokens comes to: the scopes and resources it asks for, held against what there is to be given. */
import type { Deps } from '../deps.ts';
import type { TokenApplication } from './application-authentication.ts';
import { resourceUrl } from './fields.ts';
import { takesAdvertised } from './oauth-applications.ts';
import { OauthError } from './oauth-errors.ts';
import { BUILT_IN_SCOPES, describeScopes, type OauthScope } from './oauth-scopes.ts';
import { readOauthSettings, scopesOffered } from './oauth-settings.ts';
import { isAmongResources } from './resources.ts';

const RESOURCES_MAX = 10;

/**
 * The resources asked for (RFC 8707, section 2). Throws `invalid_target` for what is no absolute http or https URL without a
 * fragment, and for what the application's tokens may not be for.
 */
export function resourcesAsked(
  { audiences }: Pick<TokenApplication, 'audiences'>,
  asked: readonly string[],
): string[] {
  const resources = [...new Set(asked)];
  if (resources.length > RESOURCES_MAX)
    throw new OauthError(
      'invalid_target',
      `Wanted at most ${RESOURCES_MAX} resources, found ${resources.length}`,
    );
  if (!resources.every((resource) => resourceUrl.safeParse(resource).success))
    throw new OauthError(
      'invalid_target',
      "Wanted each 'resource' to be an http or https URL without a fragment",
    );
  if (audiences !== null && resources.some((resource) => !isAmongResources(resource, audiences)))
    throw new OauthError('invalid_target', "The application's tokens may not be for that 'resource'");
  return resources;
}

const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*$/;
const SCOPE_LENGTH_MAX = 4_096;

/** The scopes a parameter names, each once, or null where it is left out. Throws `invalid_scope` for what is no list of scopes. */
export function scopesNamed(parameter: string | undefined): string[] | null {
  if (parameter === undefined) return null;
  if (parameter.length > SCOPE_LENGTH_MAX || !SCOPE.test(parameter))
    throw new OauthError(
      'invalid_scope',
      "Wanted 'scope' to be scopes of printable ASCII separated by single spaces",
    );
  return [...new Set(parameter.split(' '))];
}

/** What an application may be given at this moment. */
export const scopesAllowed = async (
  deps: Deps,
  application: Pick<TokenApplication, 'source' | 'scopes'>,
): Promise<readonly string[]> => (takesAdvertised(application) ? scopesOffered(deps) : application.scopes);

const OFFLINE_ACCESS = 'offline_access';

/**
 * What a user is asked for. Without a `scope` the application's default, else the instance's: never a refusal
 * (MCP clients name none). Scopes that nobody defined are dropped, and those of a resource that
 * was not asked for; throws `invalid_scope` for those the application may not be given.
 */
export async function scopesOfAuthorization(
  deps: Deps,
  application: Pick<TokenApplication, 'source' | 'grant_types' | 'scopes' | 'default_scopes'>,
  asked: readonly string[] | null,
  resources: readonly string[],
): Promise<string[]> {
  const allowed = await scopesAllowed(deps, application);
  const wanted = asked ?? application.default_scopes ?? (await readOauthSettings(deps)).defaultScopes;
  const known = await describeScopes(deps.store.read, wanted);
  const refused = known.find(({ name }) => !allowed.includes(name));
  if (refused && asked) throw notAllowed(refused.name);
  const names = known
    .filter((scope) => allowed.includes(scope.name) && belongsTo(scope, resources))
    .map(({ name }) => name);
  return stays(application) && allowed.includes(OFFLINE_ACCESS)
    ? [...new Set([...names, OFFLINE_ACCESS])]
    : names;
}

/**
 * Agents register for refresh tokens, and then ask for what the MCP server names, in which `offline_access` has no place (MCP,
 * authorization 2026-07-28): it counts as asked for, so that their users are told of it, and not sent back every hour.
 */
const stays = ({ source, grant_types }: Pick<TokenApplication, 'source' | 'grant_types'>) =>
  source !== 'administrator' && grant_types.includes('refresh_token');

/** What an application gets for itself: none of the scopes that speak of a user. Throws `invalid_scope`. */
export async function scopesOfApplication(
  deps: Deps,
  application: Pick<TokenApplication, 'scopes' | 'default_scopes'>,
  asked: readonly string[] | null,
  resources: readonly string[],
): Promise<string[]> {
  const allowed = application.scopes.filter((scope) => !BUILT_IN_SCOPES.includes(scope));
  const refused = asked?.find((scope) => !allowed.includes(scope));
  if (refused !== undefined) throw notAllowed(refused);
  if (allowed.length === 0) return [];
  const wanted = asked ?? application.default_scopes?.filter((scope) => allowed.includes(scope)) ?? allowed;
  const known = await describeScopes(deps.store.read, wanted);
  return known.filter((scope) => belongsTo(scope, resources)).map(({ name }) => name);
}

/** Whether a scope means something at one of these resources: of what it is bound to, or bound to none (RFC 8707). */
export const belongsTo = ({ resource }: OauthScope, resources: readonly string[]) =>
  resource === null || resources.length === 0 || isAmongResources(resource, resources);

const notAllowed = (scope: string) =>
  new OauthError('invalid_scope', `The application may not be given the scope '${scope}'`);
