/** Where an authorization response may go: what may be registered, and what matches that (RFC 9700, section 4.1; RFC 8252). */
import { z } from 'zod';

const REDIRECT_URI_LENGTH_MAX = 2048;
export const REDIRECT_URIS_MAX = 50;

/** RFC 8252, section 7.3, and `localhost`, which real clients use. */
const LOOPBACK_HOSTS = ['127.0.0.1', '[::1]', 'localhost'];

/** Only printable ASCII: what merely looks like another URI is not one (a host in another script is written in Punycode). */
const PRINTABLE = /^[\x21-\x7e]+$/;

/** RFC 8252, section 7.1: a scheme of somebody's own has a point, as a domain does. So none is `javascript:` or `data:`. */
const PRIVATE_USE_SCHEME = /^[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+:$/;

/** Why a URI may not be registered, as "wanted …", or null. */
export function redirectUriRefusal(uri: string): string | null {
  if (!PRINTABLE.test(uri) || !URL.canParse(uri)) return 'wanted a URI of printable ASCII';
  const url = new URL(uri);
  if (uri.includes('#')) return 'wanted no fragment';
  if (url.username !== '' || url.password !== '' || uri.includes('@'))
    return 'wanted no user name or password';
  // Two spellings of one URI are two URIs to whoever compares them as text.
  if (url.href !== uri && url.href !== `${uri}/`) return `wanted its canonical form ${url.href}`;
  if (url.protocol === 'https:' || isLoopback(url)) return null;
  if (url.protocol === 'http:') return 'wanted https, or http on a loopback address';
  return PRIVATE_USE_SCHEME.test(url.protocol)
    ? null
    : "wanted https, http on a loopback address, or a scheme with a '.' in it such as com.example.app:/callback";
}

const isLoopback = ({ protocol, hostname }: URL) => protocol === 'http:' && LOOPBACK_HOSTS.includes(hostname);

const redirectUri = z
  .string()
  .min(1)
  .max(REDIRECT_URI_LENGTH_MAX)
  .superRefine((uri, context) => {
    const refusal = redirectUriRefusal(uri);
    if (refusal !== null) context.addIssue(refusal);
  });

export const redirectUris = z
  .array(redirectUri)
  .max(REDIRECT_URIS_MAX)
  .refine((list) => new Set(list).size === list.length, 'wanted each URI once');

/** Whether a URI is one of those registered: the same text, but for the port of one on loopback, which is free (RFC 8252, section 7.3). */
export function isRegisteredRedirectUri(registered: readonly string[], uri: string): boolean {
  if (registered.includes(uri)) return true;
  const portless = withoutLoopbackPort(uri);
  return portless !== null && registered.some((each) => withoutLoopbackPort(each) === portless);
}

/** The port of http that is named is as free as any other, though the canonical form has none. */
const LOOPBACK_PORT_80 = /^(http:\/\/(?:127\.0\.0\.1|\[::1\]|localhost)):80(?=[/?]|$)/;

/** Null for what is on no loopback address, or no URI that could be registered. */
function withoutLoopbackPort(given: string): string | null {
  const uri = given.replace(LOOPBACK_PORT_80, '$1');
  if (redirectUriRefusal(uri) !== null) return null;
  const url = new URL(uri);
  if (!isLoopback(url)) return null;
  url.port = '';
  return url.href;
}

/** Whether it leads to a program on the user's own device by http, as RFC 8252, section 7.3, has it. */
export const isLoopbackRedirectUri = (uri: string): boolean => isLoopback(new URL(uri));

/** What people are shown of where they are sent: the host, or the scheme of an application on their own device. */
export function redirectHostOf(uri: string): string {
  const { protocol, host } = new URL(uri);
  return host === '' || !['http:', 'https:'].includes(protocol) ? protocol.slice(0, -1) : host;
}

/** Whether whoever is there is not proven by the URI: a program of this device, which any other could pretend to be. */
export const isOnDevice = (uri: string): boolean => new URL(uri).protocol !== 'https:';
