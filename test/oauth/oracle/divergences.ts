/**
 * Where we answer otherwise than oidc-provider, on purpose: a row each, which docs/divergences.md gives with its reason. What
 * no row explains fails the test, and so does a row that explains nothing.
 */

/** One field that is not the same in two outcomes. */
export interface Difference {
  endpoint: 'authorize' | 'token' | 'introspect' | 'revoke';
  /** What was asked for: a kind of request, or of value. */
  kind: string;
  /** What was wrong with it. */
  wrong: readonly string[];
  /** Its path, such as `idToken.auth_time`. */
  field: string;
  ours: unknown;
  oracle: unknown;
}

export interface Divergence {
  /** What the row of docs/divergences.md begins with. */
  what: string;
  explains(difference: Difference): boolean;
}

const isWrong = (pattern: RegExp) => (difference: Difference) =>
  difference.wrong.some((name) => pattern.test(name));

const fields =
  (pattern: RegExp) =>
  ({ field }: Difference) =>
    pattern.test(field);

const errors = (ours: string | null, oracle: string | null) => (difference: Difference) =>
  difference.field === 'error' && difference.ours === ours && difference.oracle === oracle;

const all =
  (...conditions: ((difference: Difference) => boolean)[]) =>
  (difference: Difference) =>
    conditions.every((condition) => condition(difference));

const at =
  (...endpoints: Difference['endpoint'][]) =>
  ({ endpoint }: Difference) =>
    endpoints.includes(endpoint);

const of =
  (pattern: RegExp) =>
  ({ kind }: Difference) =>
    pattern.test(kind);

const any =
  (...conditions: ((difference: Difference) => boolean)[]) =>
  (difference: Difference) =>
    conditions.some((condition) => condition(difference));

const statuses = (ours: string, oracle: string) => (difference: Difference) =>
  difference.field === 'status' && difference.ours === ours && difference.oracle === oracle;

/** A refusal with the status that its error has at every endpoint (RFC 6749, section 5.2). */
const isAsItsErrorHas = (refusal: unknown) =>
  /^(401 invalid_client|400 (?!invalid_client))/.test(`${refusal}`);

export const DIVERGENCES: readonly Divergence[] = [
  {
    what: 'which of several faults is told first',
    explains: ({ wrong, field, ours, oracle }) =>
      wrong.length > 1 &&
      ((field === 'error' && ours !== null && oracle !== null) ||
        (field === 'status' && isAsItsErrorHas(ours) && isAsItsErrorHas(oracle))),
  },
  {
    what: 'a redirect URI that is not registered',
    explains: all(at('authorize'), errors('invalid_request', 'invalid_redirect_uri')),
  },
  {
    what: '`redirect_uri` twice',
    explains: all(
      at('authorize'),
      isWrong(/^redirect_uri (twice|and one of somebody else)$/),
      fields(/^to$/),
    ),
  },
  {
    what: 'a response type other than `code`',
    explains: all(
      at('authorize'),
      isWrong(/^response_type/),
      (difference) =>
        errors('unsupported_response_type', 'invalid_request')(difference) || fields(/^by$/)(difference),
    ),
  },
  {
    what: 'a response mode other than `query` and `form_post`',
    explains: all(at('authorize'), isWrong(/^response_mode (fragment|unknown)$/), fields(/^(to|error)$/)),
  },
  {
    what: 'the scope that is refused',
    explains: all(at('authorize'), fields(/^with\.scope$/)),
  },
  {
    what: '`state` of a request that repeats it',
    explains: all(at('authorize'), isWrong(/^state twice$/), fields(/^(with\.)?state$/)),
  },
  {
    what: '`id_token_hint`',
    explains: all(at('authorize'), isWrong(/^id_token_hint/), fields(/^(to|error)$/)),
  },
  {
    what: '`max_age` and `acr_values` without the scope `openid`',
    explains: all(
      at('authorize'),
      isWrong(/^(max_age|acr_values)/),
      isWrong(/without (the scope )?openid/),
      fields(/^(to|error)$/),
    ),
  },
  {
    what: 'no client, or none that can be read',
    explains: all(
      at('token', 'introspect', 'revoke'),
      any(errors('invalid_client', 'invalid_request'), statuses('401 invalid_client', '400 invalid_request')),
    ),
  },
  {
    what: 'a header of another scheme beside a client in the body',
    explains: all(isWrong(/^an unknown scheme$/), errors(null, 'invalid_request')),
  },
  {
    what: 'a grant type that the application may not use',
    explains: all(at('token'), errors('unauthorized_client', 'invalid_request')),
  },
  {
    what: 'a parameter twice that the request does not use',
    explains: all(isWrong(/^a parameter nobody knows, twice$/), fields(/^(to|error)$/)),
  },
  {
    what: '`redirect_uri` left out of a token request',
    explains: all(at('token'), isWrong(/^redirect_uri missing$/), errors('invalid_grant', null)),
  },
  {
    what: 'a code verifier that cannot be one',
    explains: all(
      at('token'),
      isWrong(/^code_verifier too (short|long)$/),
      errors('invalid_grant', 'invalid_request'),
    ),
  },
  {
    what: 'when a refresh token is over',
    explains: all(at('token'), fields(/^names\.refresh_token_expires_in$/)),
  },
  {
    what: '`auth_time` and `at_hash` of an ID token',
    explains: all(at('token'), fields(/^idToken\.(auth_time|at_hash)$/)),
  },
  {
    what: '`nonce` of a refreshed ID token',
    explains: all(of(/^refresh$/), fields(/^idToken\.nonce$/)),
  },
  {
    what: 'refreshing with scopes beyond the grant',
    explains: all(of(/^refresh$/), isWrong(/^scope with more$/), errors(null, 'invalid_scope')),
  },
  {
    what: 'client credentials without `scope`',
    explains: all(
      of(/^client credentials$/),
      isWrong(/^scope missing$/),
      fields(/^((names|accessToken)\.)?scope/),
    ),
  },
  {
    what: 'client credentials with `openid`, or with a scope that nobody defined',
    explains: all(
      of(/^client credentials$/),
      isWrong(/^scope (openid|nobody defined)$/),
      errors('invalid_scope', null),
    ),
  },
  {
    what: '`nbf`, `grant_id` and `status` of a JWT',
    explains: all(at('token'), fields(/^accessToken\.(nbf|grant_id|status\..*)$/)),
  },
  {
    what: 'several resources in one token',
    explains: all(of(/^client credentials$/), isWrong(/^two resources$/), errors(null, 'invalid_target')),
  },
  {
    what: '`jti` and `nbf` of an opaque token at introspection',
    explains: all(at('introspect'), fields(/^claims\.(jti|nbf)$/)),
  },
  {
    what: 'an access token that is revoked',
    explains: all(at('revoke'), fields(/^alive\.refreshToken$/)),
  },
  {
    what: 'a JWT at introspection and revocation',
    explains: all(at('introspect', 'revoke'), errors(null, 'unsupported_token_type')),
  },
];

/**
 * The fields in which two outcomes differ, a path each. Of a refusal and an answer, or where they end elsewhere, all of it
 * would, so nothing else is looked at. Of two refusals with other errors the status is told with its error.
 */
export function differencesOf(ours: object, oracle: object): Pick<Difference, 'field' | 'ours' | 'oracle'>[] {
  const [one, other] = [flattened(ours), flattened(oracle)];
  const differing = [...new Set([...one.keys(), ...other.keys()])]
    .map((field) => ({ field, ours: one.get(field) ?? null, oracle: other.get(field) ?? null }))
    .filter((each) => each.ours !== each.oracle);
  const outcome = differing.filter(({ field }) => OUTCOME.includes(field));
  const isTo = outcome.some(({ field }) => field === 'to');
  if (outcome.length > 0 && !isTo && one.has('error') && other.has('error'))
    return differing.map((each) =>
      each.field === 'status'
        ? {
            ...each,
            ours: `${each.ours} ${one.get('error')}`,
            oracle: `${each.oracle} ${other.get('error')}`,
          }
        : each,
    );
  if (outcome.length > 0) return outcome;
  const status = differing.filter(({ field }) => field === 'status');
  return status.length > 0 ? status : differing;
}

/** The fields that say how a request ended, whatever else is answered. */
export const OUTCOME: readonly string[] = ['to', 'error'];

function flattened(value: object, path = ''): Map<string, string | number | boolean | null> {
  const found = new Map<string, string | number | boolean | null>();
  for (const [name, each] of Object.entries(value)) {
    const field = path === '' ? name : `${path}.${name}`;
    if (Array.isArray(each)) for (const member of each) found.set(`${field}.${String(member)}`, true);
    else if (typeof each === 'object' && each !== null)
      for (const [inner, leaf] of flattened(each, field)) found.set(inner, leaf);
    else if (each !== null && each !== undefined) found.set(field, each as string);
  }
  return found;
}
