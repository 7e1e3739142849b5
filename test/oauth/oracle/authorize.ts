/** Authorization requests that are sound but for one thing each, and what becomes of them. */
import { challengeOf, formOf, REDIRECT_URI, SIGN_IN_PAGE } from '../../support/authorization-server.ts';
import type { Page } from '../../support/plain-browser.ts';
import { API, type Applications, authorizeParams, OTHER_API, pathOf, type Side, VERIFIER } from './pair.ts';

export type Params = Record<string, string | string[]>;

/** Changes one thing of a request. */
export type Variation = (params: Params, applications: Applications) => void;

const set =
  (name: string, value: string | string[]): Variation =>
  (params) => {
    params[name] = value;
  };

const without =
  (...names: string[]): Variation =>
  (params) => {
    for (const name of names) delete params[name];
  };

const twice =
  (name: string): Variation =>
  (params) => {
    params[name] = [params[name], params[name]].flat().map((value) => value ?? 'x');
  };

/** Of a confidential application with PKCE, for each of these one thing. */
export const AUTHORIZE_VARIATIONS: Readonly<Record<string, Variation>> = {
  'nothing wrong': () => {},

  'client_id missing': without('client_id'),
  'client_id empty': set('client_id', ''),
  'client_id unknown': set('client_id', `oauthapp_${'0'.repeat(27)}`),
  'client_id twice': twice('client_id'),
  'client_id with a space after it': (params, { web }) => {
    params['client_id'] = `${web.clientId} `;
  },
  'client_id of an application without redirect URIs': (params, { service }) => {
    params['client_id'] = service.clientId;
  },

  'redirect_uri missing, one registered': without('redirect_uri'),
  'redirect_uri empty, one registered': set('redirect_uri', ''),
  'redirect_uri of somebody else': set('redirect_uri', 'https://evil.example.com/callback'),
  'redirect_uri with a longer path': set('redirect_uri', `${REDIRECT_URI}/more`),
  'redirect_uri with a slash after it': set('redirect_uri', `${REDIRECT_URI}/`),
  'redirect_uri with a query': set('redirect_uri', `${REDIRECT_URI}?a=b`),
  'redirect_uri with a fragment': set('redirect_uri', `${REDIRECT_URI}#a`),
  'redirect_uri with a user': set('redirect_uri', 'https://user@app.example.com/callback'),
  'redirect_uri with another port': set('redirect_uri', 'https://app.example.com:8443/callback'),
  'redirect_uri with the port it has anyway': set('redirect_uri', 'https://app.example.com:443/callback'),
  'redirect_uri in capitals': set('redirect_uri', 'https://APP.EXAMPLE.COM/callback'),
  'redirect_uri by http': set('redirect_uri', 'http://app.example.com/callback'),
  'redirect_uri that goes up': set('redirect_uri', 'https://app.example.com/x/../callback'),
  'redirect_uri twice': twice('redirect_uri'),
  'redirect_uri and one of somebody else': set('redirect_uri', [
    REDIRECT_URI,
    'https://evil.example.com/callback',
  ]),

  'response_type missing': without('response_type'),
  'response_type token': set('response_type', 'token'),
  'response_type id_token': set('response_type', 'id_token'),
  'response_type code id_token': set('response_type', 'code id_token'),
  'response_type none': set('response_type', 'none'),
  'response_type unknown': set('response_type', 'magic'),
  'response_type twice': twice('response_type'),

  'response_mode query': set('response_mode', 'query'),
  'response_mode form_post': set('response_mode', 'form_post'),
  'response_mode fragment': set('response_mode', 'fragment'),
  'response_mode unknown': set('response_mode', 'pigeon'),
  'response_mode twice': (params) => {
    params['response_mode'] = ['query', 'query'];
  },

  'scope without offline_access': set('scope', 'openid profile'),
  'scope without openid, and no nonce': (params) => {
    params['scope'] = 'notes:read';
    delete params['nonce'];
  },
  'scope with one nobody defined': set('scope', 'openid notes:fly'),
  'scope with one the application may not be given': set('scope', 'openid notes:delete'),
  'scope with a quote': set('scope', 'openid "notes"'),
  'scope with a letter beyond ASCII': set('scope', 'openid nötes'),
  'scope with a scope twice': set('scope', 'openid openid'),
  'scope twice': twice('scope'),

  'state missing': without('state'),
  'state empty': set('state', ''),
  'state with markup': set('state', '"><script>alert(1)</script>'),
  'state of 1,000 characters': set('state', 'x'.repeat(1_000)),
  'state twice': twice('state'),

  'nonce missing': without('nonce'),
  'nonce twice': twice('nonce'),

  'code_challenge missing': without('code_challenge', 'code_challenge_method'),
  'code_challenge missing, with its method': without('code_challenge'),
  'code_challenge too short': set('code_challenge', 'short'),
  'code_challenge of no base64url': set('code_challenge', `${challengeOf(VERIFIER).slice(0, -1)}!`),
  'code_challenge twice': twice('code_challenge'),
  'code_challenge_method missing': without('code_challenge_method'),
  'code_challenge_method plain': set('code_challenge_method', 'plain'),
  'code_challenge_method in small letters': set('code_challenge_method', 's256'),
  'code_challenge_method unknown': set('code_challenge_method', 'S512'),

  'no code_challenge, of an application that may do without': (params, { lax }) => {
    params['client_id'] = lax.clientId;
    delete params['code_challenge'];
    delete params['code_challenge_method'];
  },
  'code_challenge plain, of an application that may do without': (params, { lax }) => {
    params['client_id'] = lax.clientId;
    params['code_challenge_method'] = 'plain';
  },

  'prompt missing': without('prompt'),
  'prompt none': set('prompt', 'none'),
  'prompt login': set('prompt', 'login'),
  'prompt none login': set('prompt', 'none login'),
  'prompt unknown': set('prompt', 'dance'),
  'prompt twice': twice('prompt'),

  'resource known': set('resource', API),
  'two resources': set('resource', [API, OTHER_API]),
  'resource the application may not ask for': set('resource', 'https://third.example.com/'),
  'resource that is no URI': set('resource', 'somewhere'),
  'resource with a fragment': set('resource', `${API}#part`),

  request: set('request', 'eyJhbGciOiJub25lIn0.e30.'),
  request_uri: set('request_uri', 'https://app.example.com/request.jwt'),
  registration: set('registration', '{}'),

  'max_age of an hour': set('max_age', '3600'),
  'max_age without the scope openid': (params) => {
    params['max_age'] = '3600';
    params['scope'] = 'notes:read';
    delete params['nonce'];
  },
  'max_age negative': set('max_age', '-1'),
  'max_age that is no number': set('max_age', 'soon'),
  'max_age twice': (params) => {
    params['max_age'] = ['3600', '3600'];
  },
  'id_token_hint that is no ID token': set('id_token_hint', 'hint'),
  login_hint: set('login_hint', 'ada@example.com'),
  ui_locales: set('ui_locales', 'en fr'),
  acr_values: set('acr_values', 'urn:high'),
  display: set('display', 'popup'),
  'a parameter nobody knows, twice': set('colour', ['red', 'blue']),
};

/** How a request ended. */
export type Ended =
  | {
      to: 'application';
      by: 'query' | 'fragment' | 'form';
      at: string;
      error: string | null;
      with: string[];
      state: string | null;
    }
  | { to: 'page'; status: number; error: string | null }
  | { to: 'sign-in' };

/** Sends a request from a browser, and allows whatever is asked. */
export async function authorize(
  side: Side,
  params: Params,
  { signedIn, method }: { signedIn: boolean; method: 'GET' | 'POST' },
): Promise<Ended> {
  const agent = signedIn ? side.signedIn : side.signedOut;
  const url = pathOf(side, 'authorize');
  let page =
    method === 'GET'
      ? await agent.open(`${url}?${formOf(params)}`)
      : await agent.submit(formPage(url, params));
  for (let pages = 0; isAsking(page) && pages < 3; pages++) page = await agent.submit(page, {}, /allow/i);
  // What is posted to an application is in a form that posts itself.
  if (page.left === null && page.forms.some(({ action }) => isElsewhere(action, side.url)))
    page = await agent.submit(page);
  return ended(page);
}

const isElsewhere = (action: string, site: string) => new URL(action, site).origin !== new URL(site).origin;

const isAsking = ({ left, forms }: Page) =>
  left === null &&
  forms.some(({ buttons }) => buttons.some(({ text, value }) => /allow/i.test(text + value)));

const formPage = (url: string, params: Params): Page => ({
  url,
  status: 200,
  headers: new Headers(),
  text: '',
  left: null,
  forms: [{ action: url, method: 'post', fields: [...formOf(params)], buttons: [], inputs: [] }],
});

function ended({ left, status, text, forms }: Page): Ended {
  if (left?.url.href.startsWith(SIGN_IN_PAGE)) return { to: 'sign-in' };
  if (left) {
    const { url, form } = left;
    const by = form ? 'form' : url.hash === '' ? 'query' : 'fragment';
    const answer = form ?? (by === 'query' ? url.searchParams : new URLSearchParams(url.hash.slice(1)));
    return {
      to: 'application',
      by,
      at: url.origin + url.pathname,
      error: answer.get('error'),
      with: [...answer.keys()].filter((name) => name !== 'error_description').sort(),
      state: answer.get('state'),
    };
  }
  if (forms.some(({ inputs }) => inputs.some(({ type }) => type === 'password'))) return { to: 'sign-in' };
  return { to: 'page', status, error: errorOf(text) };
}

/** Of a page of ours, or of what the oracle answers as JSON. */
function errorOf(text: string): string | null {
  const ours = /Error <code>(\w+)<\/code>/.exec(text)?.[1];
  return ours ?? /"error":"(\w+)"/.exec(text)?.[1] ?? null;
}

export const authorizeBase = (applications: Applications): Params =>
  authorizeParams(applications, applications.web);
