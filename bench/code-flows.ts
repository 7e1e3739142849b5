/** The whole code flow, as a browser and an application walk through it: authorize, be sent back with a code, redeem it. */
import { type Connection, openConnections } from './load.ts';
import type { Measured } from './processes.ts';
import { type PostRequest, toBuffer, toPage } from './requests.ts';
import { CONNECTIONS, type Contender } from './rounds.ts';

/** Browsers that are signed in and have consented, each as a user of its own. */
export const BROWSERS = 100;

export interface CodeFlow {
  /** Path and query of the authorization request. */
  authorizePath: string;
  /** What each browser holds. */
  cookies: string[];
  /** The token request, but for its `code`. */
  token: PostRequest;
}

/** As many at once as there are connections elsewhere; throws at the first that ends without an access token. */
export function byCodeFlows(measured: Measured, { authorizePath, cookies, token }: CodeFlow): Contender {
  const authorizations = cookies.map((cookie) => toPage(authorizePath, cookie));
  let next = 0;

  async function walk(connection: Connection): Promise<void> {
    const authorize = authorizations[next++ % authorizations.length] as Buffer;
    const code = codeIn(await connection.exchange(authorize, 3));
    const redeem = toBuffer({ ...token, body: `${token.body}&code=${code}` });
    const answer = await connection.exchange(redeem);
    if (!answer.includes('"access_token"')) throw new Error(`Wanted an access token, found '${answer}'`);
  }

  return {
    measured,
    async run(durationMs) {
      const open = await openConnections(measured.port, CONNECTIONS);
      const started = performance.now();
      let flows = 0;
      await Promise.all(
        open.map(async (connection) => {
          while (performance.now() < started + durationMs) {
            await walk(connection);
            flows++;
          }
        }),
      );
      const elapsedMs = performance.now() - started;
      for (const connection of open) connection.close();
      return (flows * 1000) / elapsedMs;
    },
  };
}

/** The code in the redirect of an answer, encoded as a form has it. */
export function codeIn(answer: Buffer): string {
  const code = /\r\nlocation: \S*[?&]code=([^&\s]+)/i.exec(answer.toString('latin1'))?.[1];
  if (code === undefined) throw new Error(`Wanted a redirect with a code, found '${answer}'`);
  return code;
}
