/** The cookies of end users' browsers: which browser an interaction belongs to, and who is signed in. */
import type { Deps } from '../deps.ts';
import type { OauthRequest } from './endpoint.ts';

type CookieName = 'browser' | 'session';

/** `__Host-` keeps it from other hosts and paths, and wants TLS (RFC 6265bis, section 4.1.3.2); without TLS there is loopback only. */
const nameOf = ({ publicUrl }: Pick<Deps, 'publicUrl'>, name: CookieName) =>
  publicUrl.startsWith('https:') ? `__Host-countersign-${name}` : `countersign_${name}`;

/** Lax: an application's redirect to us, and an upstream's back to us, come from another site. */
const attributesOf = ({ publicUrl }: Pick<Deps, 'publicUrl'>) =>
  `Path=/; HttpOnly; SameSite=Lax${publicUrl.startsWith('https:') ? '; Secure' : ''}`;

export const cookie = (deps: Pick<Deps, 'publicUrl'>, name: CookieName, value: string) =>
  `${nameOf(deps, name)}=${value}; ${attributesOf(deps)}`;

export const endedCookie = (deps: Pick<Deps, 'publicUrl'>, name: CookieName) =>
  `${nameOf(deps, name)}=; Max-Age=0; ${attributesOf(deps)}`;

/** Longer than any value of ours. */
const VALUE_LENGTH_MAX = 128;

export function cookieIn({ deps, headers }: OauthRequest, name: CookieName): string | undefined {
  const begin = `${nameOf(deps, name)}=`;
  const found = (headers.cookie ?? '').split(/; */).find((each) => each.startsWith(begin));
  const value = found?.slice(begin.length);
  return value && value.length <= VALUE_LENGTH_MAX ? value : undefined;
}
