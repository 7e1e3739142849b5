/** Token requests that are sound but for one thing each, and what is answered. */
import { decodeJwt } from 'jose';
import { basic, REDIRECT_URI } from '../../support/authorization-server.ts';
import type { Answer } from '../../support/server.ts';
import {
  API,
  type Applications,
  type Asked,
  ask,
  codeFrom,
  LOOPBACK_URI,
  OTHER_API,
  redemption,
  type Side,
  tokensFrom,
} from './pair.ts';

/** Makes a request that is sound, with what this side hands out for it. */
export type Sound = (side: Side, applications: Applications) => Promise<Asked>;

/** Changes one thing of a request; asks the side for what else is needed. */
export type TokenVariation = (asked: Asked, applications: Applications, side: Side) => void | Promise<void>;

const posted = (params: Asked['params'], headers: Asked['headers']): Asked => ({
  method: 'POST',
  params,
  headers: { ...headers },
});

export const SOUND: Readonly<
  Record<'code' | 'code of a public one' | 'refresh' | 'client credentials', Sound>
> = {
  code: async (side, applications) => {
    const { web } = applications;
    return posted(redemption(await codeFrom(side, applications, web)), basic(web));
  },
  'code of a public one': async (side, applications) => {
    const { native } = applications;
    const code = await codeFrom(side, applications, native, { redirect_uri: LOOPBACK_URI });
    return posted({ ...redemption(code, LOOPBACK_URI), client_id: native.clientId }, {});
  },
  refresh: async (side, applications) => {
    const { web } = applications;
    const { refreshToken } = await tokensFrom(side, applications, web);
    return posted({ grant_type: 'refresh_token', refresh_token: refreshToken }, basic(web));
  },
  'client credentials': (_, { resource, service }) =>
    Promise.resolve(
      posted({ ...resource, grant_type: 'client_credentials', scope: 'notes:read' }, basic(service)),
    ),
};

const set =
  (name: string, value: string | string[]): TokenVariation =>
  ({ params }) => {
    params[name] = value;
  };

const without =
  (...names: string[]): TokenVariation =>
  ({ params }) => {
    for (const name of names) delete params[name];
  };

const twice =
  (name: string): TokenVariation =>
  ({ params }) => {
    params[name] = [params[name], params[name]].flat().map((value) => value ?? 'x');
  };

const authorization =
  (value: string): TokenVariation =>
  ({ headers }) => {
    headers['authorization'] = value;
  };

/** What can be wrong with who asks, whatever is asked for. */
export const CLIENT_VARIATIONS: Readonly<Record<string, TokenVariation>> = {
  'nothing wrong': () => {},
  'no client': ({ headers, params }) => {
    delete headers['authorization'];
    delete params['client_id'];
  },
  'a client that is not there': authorization(`Basic ${btoa(`oauthapp_${'0'.repeat(27)}:secret`)}`),
  'a wrong secret': (asked, { web }) => {
    Object.assign(asked.headers, basic({ ...web, secret: `oas_${'0'.repeat(49)}` }));
  },
  "another client's secret": (asked, { web, other }) => {
    Object.assign(asked.headers, basic({ ...web, secret: other.secret }));
  },
  'no secret of one that has one': ({ headers, params }, { web }) => {
    delete headers['authorization'];
    params['client_id'] = web.clientId;
  },
  'an empty secret': authorization(`Basic ${btoa('web:')}`),
  'a secret of one that has none': (asked, { native, web }) => {
    delete asked.params['client_id'];
    Object.assign(asked.headers, basic({ ...native, secret: web.secret }));
  },
  'the secret in the body': ({ headers, params }) => {
    const header = Buffer.from((headers['authorization'] ?? '').slice('Basic '.length), 'base64').toString();
    const [id = '', secret = ''] = header.split(':');
    delete headers['authorization'];
    Object.assign(params, { client_id: id, client_secret: secret });
  },
  'the secret in header and body': ({ params }, { web }) => {
    Object.assign(params, { client_id: web.clientId, client_secret: web.secret });
  },
  'another client id in the body': ({ params }, { other }) => {
    params['client_id'] = other.clientId;
  },
  'a header that is no base64': authorization('Basic !!!'),
  'a header without a colon': authorization(`Basic ${btoa('web')}`),
  'a header with a broken escape': authorization(`Basic ${btoa('we%zzb:secret')}`),
  'a scheme in small letters': ({ headers }) => {
    headers['authorization'] = (headers['authorization'] ?? '').replace('Basic', 'basic');
  },
  'an unknown scheme': authorization('Magic abc'),
  'an assertion': ({ headers, params }, { web }) => {
    delete headers['authorization'];
    Object.assign(params, {
      client_id: web.clientId,
      client_assertion: 'eyJhbGciOiJub25lIn0.eyJzdWIiOiJ3ZWIifQ.',
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    });
  },
  'a body of JSON': (asked) => {
    asked.headers['content-type'] = 'application/json';
    asked.body = JSON.stringify(asked.params);
  },
  'an empty body': (asked) => {
    asked.params = {};
  },
};

const TOKEN_VARIATIONS: Readonly<Record<string, TokenVariation>> = {
  ...CLIENT_VARIATIONS,
  'grant_type missing': without('grant_type'),
  'grant_type unknown': set('grant_type', 'magic'),
  'grant_type password': set('grant_type', 'password'),
  'grant_type implicit': set('grant_type', 'implicit'),
  'grant_type device code, which is to come': set(
    'grant_type',
    'urn:ietf:params:oauth:grant-type:device_code',
  ),
  'grant_type of every object': set('grant_type', 'constructor'),
  'grant_type twice': twice('grant_type'),
  'grant_type that the application may not use': ({ params, headers }, { service, web }) => {
    const isOfCode = params['grant_type'] !== 'client_credentials';
    delete params['client_id'];
    Object.assign(headers, basic(isOfCode ? service : web));
  },
  'a parameter nobody knows, twice': set('colour', ['red', 'blue']),
};

const CODE_VARIATIONS: Readonly<Record<string, TokenVariation>> = {
  'code missing': without('code'),
  'code empty': set('code', ''),
  'code that is none': set('code', 'abc'),
  'code with another letter': ({ params }) => {
    params['code'] = changed(String(params['code']));
  },
  'code twice': twice('code'),
  'code used before': async (asked, _, side) => {
    await ask(side, 'token', asked);
  },
  'code of another application': async ({ params }, applications, side) => {
    params['code'] = await codeFrom(side, applications, applications.other);
  },
  'code with a refresh token': async ({ params }, applications, side) => {
    params['code'] = (await tokensFrom(side, applications, applications.web)).refreshToken;
  },
  'redirect_uri missing': without('redirect_uri'),
  'redirect_uri other': set('redirect_uri', 'https://evil.example.com/callback'),
  'redirect_uri with a slash after it': set('redirect_uri', `${REDIRECT_URI}/`),
  'redirect_uri twice': twice('redirect_uri'),
  'code_verifier missing': without('code_verifier'),
  'code_verifier other': set('code_verifier', 'x'.repeat(43)),
  'code_verifier too short': set('code_verifier', 'short'),
  'code_verifier too long': set('code_verifier', 'x'.repeat(129)),
  'code_verifier twice': twice('code_verifier'),
  'resource that was not asked for': set('resource', API),
  'resource that is no URI': set('resource', 'somewhere'),
};

const REFRESH_VARIATIONS: Readonly<Record<string, TokenVariation>> = {
  'refresh_token missing': without('refresh_token'),
  'refresh_token that is none': set('refresh_token', 'abc'),
  'refresh_token with another letter': ({ params }) => {
    params['refresh_token'] = changed(String(params['refresh_token']));
  },
  'refresh_token twice': twice('refresh_token'),
  'refresh_token used before': async (asked, _, side) => {
    await ask(side, 'token', asked);
  },
  'refresh_token of another application': async ({ params }, applications, side) => {
    params['refresh_token'] = (await tokensFrom(side, applications, applications.other)).refreshToken;
  },
  'refresh_token with an access token': async ({ params }, applications, side) => {
    params['refresh_token'] = (await tokensFrom(side, applications, applications.web)).accessToken;
  },
  'refresh_token with a code': async ({ params }, applications, side) => {
    params['refresh_token'] = await codeFrom(side, applications, applications.web);
  },
  'scope with less': set('scope', 'openid'),
  'scope with all': set('scope', 'openid profile notes:read'),
  'scope with more': set('scope', 'openid notes:write'),
  'scope with more alone': set('scope', 'notes:write'),
  'scope with a quote': set('scope', 'openid "notes"'),
  'scope twice': (asked) => {
    asked.params['scope'] = ['openid', 'profile'];
  },
  'resource that was not asked for': set('resource', API),
};

const CREDENTIALS_VARIATIONS: Readonly<Record<string, TokenVariation>> = {
  'scope missing': without('scope'),
  'scope of two': set('scope', 'notes:read notes:write'),
  'scope the application may not be given': set('scope', 'notes:delete'),
  'scope nobody defined': set('scope', 'notes:fly'),
  'scope openid': set('scope', 'openid'),
  'scope with a quote': set('scope', '"notes"'),
  'scope twice': (asked) => {
    asked.params['scope'] = ['notes:read', 'notes:write'];
  },
  'resource known': set('resource', API),
  'two resources': set('resource', [API, OTHER_API]),
  'resource the application may not ask for': set('resource', 'https://third.example.com/'),
  'resource that is no URI': set('resource', 'somewhere'),
  'resource with a fragment': set('resource', `${API}#part`),
};

export const VARIATIONS: Readonly<Record<keyof typeof SOUND, Readonly<Record<string, TokenVariation>>>> = {
  code: { ...TOKEN_VARIATIONS, ...CODE_VARIATIONS },
  'code of a public one': Object.fromEntries(
    Object.entries({ ...TOKEN_VARIATIONS, ...CODE_VARIATIONS }).filter(
      // These take what the header has, which a public application does not send.
      ([name]) => !['the secret in the body', 'a scheme in small letters'].includes(name),
    ),
  ),
  refresh: { ...TOKEN_VARIATIONS, ...REFRESH_VARIATIONS },
  'client credentials': { ...TOKEN_VARIATIONS, ...CREDENTIALS_VARIATIONS },
};

export function changed(value: string): string {
  const at = value.length - 10;
  return value.slice(0, at) + (value[at] === 'a' ? 'b' : 'a') + value.slice(at + 1);
}

/** What is the same of two answers whoever gave them: values are told by what they are, times by how long they last. */
export interface Told {
  status: number;
  error: string | null;
  scope: string[] | null;
  names: string[];
  tokenType: string | null;
  expiresIn: number | null;
  idToken: Record<string, unknown> | null;
  accessToken: Record<string, unknown> | 'opaque' | null;
}

export async function askForTokens(
  side: Side,
  applications: Applications,
  kind: keyof typeof SOUND,
  variations: readonly TokenVariation[],
): Promise<Told> {
  const asked = await SOUND[kind](side, applications);
  for (const variation of variations) await variation(asked, applications, side);
  return told(await ask(side, 'token', asked), side);
}

function told({ status, body }: Answer, side: Side): Told {
  return {
    status,
    error: body.error ?? null,
    scope: status === 200 && typeof body.scope === 'string' ? body.scope.split(' ').sort() : null,
    names: status === 200 ? Object.keys(body).sort() : [],
    tokenType: body.token_type ?? null,
    expiresIn: body.expires_in ?? null,
    idToken: body.id_token ? claimsOf(body.id_token, side) : null,
    accessToken: !body.access_token
      ? null
      : body.access_token.startsWith('eyJ')
        ? claimsOf(body.access_token, side)
        : 'opaque',
  };
}

/** The claims of a JWT, without what is another's on each side. */
function claimsOf(jwt: string, side: Side): Record<string, unknown> {
  return comparable(decodeJwt(jwt), side);
}

export function comparable(claims: Record<string, unknown>, side: Side): Record<string, unknown> {
  const { iat, exp, scope } = claims;
  const compared: Record<string, unknown> = { ...claims };
  for (const name of ['jti', 'iat', 'nbf', 'auth_time', 'at_hash'])
    if (name in compared) compared[name] = typeof compared[name];
  if (typeof iat === 'number' && typeof exp === 'number') compared['exp'] = exp - iat;
  if (typeof scope === 'string') compared['scope'] = scope.split(' ').sort();
  if (compared['iss'] === side.url) compared['iss'] = 'itself';
  return compared;
}
