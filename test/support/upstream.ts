/** Another issuer in the test's process, at which users of Countersign sign in. */
import { Provider } from 'oidc-provider';
import { listen } from './procedures.ts';
import type { Page, UserAgent } from './user-agent.ts';

/** What the issuer knows Countersign as. */
export const UPSTREAM_CLIENT = { id: 'countersign', secret: 'a secret of the upstream' };

/** Another issuer, as it is: one that nobody here wrote. Its users are whoever types a name. */
export async function newIssuer(countersign: string) {
  const names = new Map<string, string>();
  const server = await listen((request, response) => void provider.callback()(request, response));
  const provider = new Provider(server.url, {
    clients: [
      {
        client_id: UPSTREAM_CLIENT.id,
        client_secret: UPSTREAM_CLIENT.secret,
        redirect_uris: [`${countersign}/oauth/upstream/callback`],
      },
    ],
    claims: { openid: ['sub'], profile: ['name'], email: ['email', 'email_verified'] },
    conformIdTokenClaims: false,
    cookies: { keys: ['one'] },
    findAccount: (_context, id) => ({
      accountId: id,
      claims: () => ({
        sub: id,
        name: names.get(id) ?? `The ${id}`,
        email: `${id}@upstream.example`,
        email_verified: true,
      }),
    }),
  });
  return { url: server.url, names };
}

/** Signs in at the issuer; answers the URL with which it sends the browser back. */
export async function signInThere(
  agent: UserAgent,
  start: Page,
  countersign: string,
  name: string,
): Promise<string> {
  let at = '';
  let page = start;
  for (let step = 0; step < 10; step++) {
    if (page.location?.startsWith(`${countersign}/oauth/upstream/callback`)) return page.location;
    if (page.location !== null) {
      at = new URL(page.location, at === '' ? undefined : at).href;
      page = await agent.get(at);
      continue;
    }
    const form = { ...page, text: page.text.replaceAll('action="/', `action="${new URL(at).origin}/`) };
    const isSignIn = page.text.includes('name="login"');
    const fields = isSignIn ? { prompt: 'login', login: name, password: 'any' } : { prompt: 'consent' };
    page = await agent.submit(form, fields);
  }
  throw new Error(`The issuer sent nobody back: ${page.status} ${page.text}`);
}
