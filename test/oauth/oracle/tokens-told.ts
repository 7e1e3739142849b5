/** Introspections and revocations, each of one value by one client, and what is answered and comes of it. */
import { basic } from '../../support/authorization-server.ts';
import { type Applications, type Asked, ask, codeFrom, type Handed, type Side, tokensFrom } from './pair.ts';
import { changed, comparable, type TokenVariation } from './token.ts';

/** What there is to be presented: made anew for each request. */
export const PRESENTED: Readonly<
  Record<string, (side: Side, applications: Applications) => Promise<{ token: string; handed: Handed }>>
> = {
  'access token': async (side, applications) => {
    const handed = await tokensFrom(side, applications, applications.web);
    return { token: handed.accessToken, handed };
  },
  'refresh token': async (side, applications) => {
    const handed = await tokensFrom(side, applications, applications.web);
    return { token: handed.refreshToken, handed };
  },
  "another client's access token": async (side, applications) => {
    const handed = await tokensFrom(side, applications, applications.other);
    return { token: handed.accessToken, handed };
  },
  "another client's refresh token": async (side, applications) => {
    const handed = await tokensFrom(side, applications, applications.other);
    return { token: handed.refreshToken, handed };
  },
  'access token that was revoked': async (side, applications) => {
    const handed = await tokensFrom(side, applications, applications.web);
    await ask(side, 'revoke', {
      method: 'POST',
      params: { token: handed.accessToken },
      headers: basic(applications.web),
    });
    return { token: handed.accessToken, handed };
  },
  'refresh token that was used': async (side, applications) => {
    const handed = await tokensFrom(side, applications, applications.web);
    await ask(side, 'token', {
      method: 'POST',
      params: { grant_type: 'refresh_token', refresh_token: handed.refreshToken },
      headers: basic(applications.web),
    });
    return { token: handed.refreshToken, handed };
  },
  'access token with another letter': async (side, applications) => {
    const handed = await tokensFrom(side, applications, applications.web);
    return { token: changed(handed.accessToken), handed };
  },
  code: async (side, applications) => ({
    token: await codeFrom(side, applications, applications.web),
    handed: await tokensFrom(side, applications, applications.web),
  }),
  'ID token': async (side, applications) => {
    const handed = await tokensFrom(side, applications, applications.web);
    return { token: handed.idToken, handed };
  },
  nothing: async (side, applications) => ({
    token: '',
    handed: await tokensFrom(side, applications, applications.web),
  }),
  'no token at all': async (side, applications) => ({
    token: 'no token at all',
    handed: await tokensFrom(side, applications, applications.web),
  }),
  '5,000 letters': async (side, applications) => ({
    token: 'a'.repeat(5_000),
    handed: await tokensFrom(side, applications, applications.web),
  }),
};

export const HINTS = [undefined, 'access_token', 'refresh_token', 'unknown'] as const;

export interface Presentation {
  presented: string;
  hint: (typeof HINTS)[number];
  variations: readonly TokenVariation[];
}

export interface Introspected {
  status: number;
  error: string | null;
  claims: Record<string, unknown> | null;
}

export async function introspect(
  side: Side,
  applications: Applications,
  presentation: Presentation,
): Promise<Introspected> {
  const { asked } = await request(side, applications, presentation);
  const { status, body } = await ask(side, 'introspect', asked);
  return { status, error: body.error ?? null, claims: status === 200 ? comparable(body, side) : null };
}

export interface Revoked {
  status: number;
  error: string | null;
  /** What is alive afterwards. */
  alive: { accessToken: boolean | null; refreshToken: boolean | null };
}

export async function revoke(
  side: Side,
  applications: Applications,
  presentation: Presentation,
): Promise<Revoked> {
  const { asked, handed } = await request(side, applications, presentation);
  const { status, body } = await ask(side, 'revoke', asked);
  const alive = async (token: string) => {
    // oidc-provider tells of no JWT whether it is.
    if (token.startsWith('eyJ')) return null;
    const { web, other } = applications;
    const client = presentation.presented.startsWith('another') ? other : web;
    const answer = await ask(side, 'introspect', {
      method: 'POST',
      params: { token },
      headers: basic(client),
    });
    return answer.body.active === true;
  };
  return {
    status,
    error: body.error ?? null,
    alive: { accessToken: await alive(handed.accessToken), refreshToken: await alive(handed.refreshToken) },
  };
}

async function request(
  side: Side,
  applications: Applications,
  { presented, hint, variations }: Presentation,
): Promise<{ asked: Asked; handed: Handed }> {
  const make = PRESENTED[presented];
  if (!make) throw new Error(`Nothing is called '${presented}'`);
  const { token, handed } = await make(side, applications);
  const asked: Asked = {
    method: 'POST',
    params: { token, ...(hint !== undefined && { token_type_hint: hint }) },
    headers: basic(applications.web),
  };
  for (const variation of variations) await variation(asked, applications, side);
  return { asked, handed };
}
