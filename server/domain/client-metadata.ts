/**
 * What an application says of itself that nobody vouches for, by registering or in a document at its URL (RFC 7591,
 * section 2): what of it is taken. Fields that nobody here knows are none of it.
 */
import { z } from 'zod';
import type { Deps } from '../deps.ts';
import { homePageUrl, name, SCOPES_MAX, scope } from './fields.ts';
import { describeInvalid } from './invalid-input.ts';
import { OauthError } from './oauth-errors.ts';
import { scopesOffered } from './oauth-settings.ts';
import { REDIRECT_URIS_MAX, redirectHostOf, redirectUriRefusal } from './redirect-uris.ts';

export interface ClientMetadata {
  /** Null where it has none. */
  name: string | null;
  clientUri: string | null;
  /** As they came: whether each may be is not judged yet. */
  redirectUris: string[];
  grantTypes: ('authorization_code' | 'refresh_token')[];
  /** Null where it says nothing of it. */
  authenticationMethod: string | null;
  /** Those it names; null where it names none. */
  scopes: string[] | null;
}

const URI_LENGTH_MAX = 2048;
const SCOPE_LENGTH_MAX = 4096;

/** Such as turn the direction of what follows, or cannot be seen: one name would look like another. */
const DECEPTIVE = /[\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/;

const clientName = z
  .string()
  .trim()
  .pipe(name.refine((text) => !DECEPTIVE.test(text), 'wanted no characters that cannot be seen'));

const words = z.array(z.string().max(255)).max(50);

const clientMetadata = z.object({
  redirect_uris: z
    .array(z.string().max(URI_LENGTH_MAX))
    .max(REDIRECT_URIS_MAX)
    .refine((list) => new Set(list).size === list.length, 'wanted each URI once')
    .nullish(),
  client_name: clientName.nullish(),
  // Shown and nothing else: one that cannot be is left out.
  client_uri: homePageUrl.nullish().catch(null),
  grant_types: words.nullish(),
  response_types: words.nullish(),
  token_endpoint_auth_method: z.string().max(64).nullish(),
  scope: z.string().max(SCOPE_LENGTH_MAX).nullish(),
});

/** Throws `invalid_client_metadata`, and `invalid_redirect_uri` where it is those. */
export function readClientMetadata(json: unknown): ClientMetadata {
  const parsed = clientMetadata.safeParse(json);
  if (!parsed.success) throw refusalOf(parsed.error, json);
  const { redirect_uris, grant_types, response_types, scope: scopes } = parsed.data;
  if (response_types && !response_types.includes('code'))
    throw invalid("Wanted 'response_types' to have 'code'");
  return {
    name: parsed.data.client_name ?? null,
    clientUri: parsed.data.client_uri ?? null,
    redirectUris: redirect_uris ?? [],
    grantTypes: grantTypesOf(grant_types ?? GRANT_TYPES),
    authenticationMethod: parsed.data.token_endpoint_auth_method ?? null,
    scopes: scopes ? [...new Set(scopes.split(' '))].filter((each) => scope.safeParse(each).success) : null,
  };
}

/** threats.md, OAuth: nobody who comes unasked gets tokens without a user. */
const GRANT_TYPES = ['authorization_code', 'refresh_token'] as const;

function grantTypesOf(asked: readonly string[]): ClientMetadata['grantTypes'] {
  if (!asked.includes('authorization_code'))
    throw invalid("Wanted 'grant_types' to have 'authorization_code': others take an administrator");
  return GRANT_TYPES.filter((type) => asked.includes(type));
}

function refusalOf(error: z.ZodError, json: unknown): OauthError {
  const { message, field } = describeInvalid(error, json);
  return field?.startsWith('redirect_uris')
    ? new OauthError('invalid_redirect_uri', message)
    : invalid(message);
}

export const invalid = (message: string) => new OauthError('invalid_client_metadata', message);

/** Throws `invalid_redirect_uri` where there is none, or one that may not be (threats.md, OAuth). */
export function assertRedirectUris(uris: readonly string[]): void {
  if (uris.length === 0)
    throw new OauthError('invalid_redirect_uri', "Wanted at least one in 'redirect_uris', found none");
  for (const [place, uri] of uris.entries()) {
    const refusal = redirectUriRefusal(uri);
    if (refusal !== null)
      throw new OauthError('invalid_redirect_uri', `Cannot accept 'redirect_uris[${place}]': ${refusal}`);
  }
}

/** What it is called that gives itself no name: by where it has its users sent. */
export const nameOf = ({
  name: given,
  redirectUris: [first],
}: Pick<ClientMetadata, 'name' | 'redirectUris'>) =>
  given ?? (first === undefined ? 'unnamed' : redirectHostOf(first).slice(0, 255));

/**
 * What it is given where it asks for nothing: what it named first, of what strangers are offered. None is noted of what it may
 * be given: that is what is offered whenever it asks, as its user allows, for clients find out bit by bit.
 */
export async function scopesOfStranger(
  deps: Pick<Deps, 'store' | 'oauthClients'>,
  named: readonly string[] | null,
): Promise<{ scopes: string[]; defaultScopes: string[] | null }> {
  const offered = named === null ? [] : await scopesOffered(deps);
  const known = (named ?? []).filter((each) => offered.includes(each)).slice(0, SCOPES_MAX);
  return { scopes: [], defaultScopes: known.length > 0 ? known : null };
}
