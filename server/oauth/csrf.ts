/** That a form was ours and in the browser it was made for: an HMAC of what that browser's cookie holds, in a hidden field. */
import { timingSafeEqual } from 'node:crypto';
import { rowMac } from '../crypto/hashing.ts';
import type { Deps } from '../deps.ts';
import { OauthError } from '../domain/oauth-errors.ts';
import { cookieIn } from './cookies.ts';
import type { OauthRequest } from './endpoint.ts';
import { type Html, html } from './html.ts';

const FIELD = 'csrf';

const tokenOf = ({ keyring }: Pick<Deps, 'keyring'>, browser: string, bound: string) =>
  rowMac(keyring.rowMac, ['csrf', browser, bound]).toString('base64url');

/** The hidden field for a form that is shown to the browser with this value in its cookie, and is good for what it is bound to. */
export const csrfField = (deps: Pick<Deps, 'keyring'>, browser: string, bound = ''): Html =>
  html`<input type="hidden" name="${FIELD}" value="${tokenOf(deps, browser, bound)}">`;

/** Throws unless the form that is posted was shown to this browser, by this server, for what it is bound to, and no other site posted it. */
export function assertOurForm(request: OauthRequest, bound = ''): void {
  const { deps, form, headers } = request;
  const { origin } = headers;
  const browser = cookieIn(request, 'browser');
  const given = Buffer.from(form.get(FIELD) ?? '');
  const wanted = browser === undefined ? null : Buffer.from(tokenOf(deps, browser, bound));
  const isOurs = origin === undefined || origin === new URL(deps.publicUrl).origin;
  if (isOurs && wanted && given.length === wanted.length && timingSafeEqual(given, wanted)) return;
  throw new OauthError('access_denied', 'Wanted a form of this page, in the browser it was shown in');
}
