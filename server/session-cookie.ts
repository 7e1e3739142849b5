/** The cookie that a console's session is in. */

/** `__Host-` keeps it from other hosts and paths, and wants TLS (RFC 6265bis, section 4.1.3.2); without TLS there is loopback only. */
const nameFor = (publicUrl: string) =>
  publicUrl.startsWith('https:') ? '__Host-countersign' : 'countersign_console';

const attributesFor = (publicUrl: string) =>
  `Path=/; HttpOnly; SameSite=Strict${publicUrl.startsWith('https:') ? '; Secure' : ''}`;

export const sessionCookie = (publicUrl: string, value: string) =>
  `${nameFor(publicUrl)}=${value}; ${attributesFor(publicUrl)}`;

export const endedCookie = (publicUrl: string) =>
  `${nameFor(publicUrl)}=; Max-Age=0; ${attributesFor(publicUrl)}`;

/** The value in a `Cookie` header. */
export function sessionIn(publicUrl: string, cookies: string | undefined): string | undefined {
  const begin = `${nameFor(publicUrl)}=`;
  const found = (cookies ?? '').split(/; */).find((cookie) => cookie.startsWith(begin));
  return found?.slice(begin.length) || undefined;
}
