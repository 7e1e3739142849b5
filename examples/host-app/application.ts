/**
 * An application with its own users, passwords and sessions, that has the API-keys panel and the connected applications on
 * its page, and accepts its users' keys and OAuth access tokens on its API. A server that hands its users off to it
 * (COUNTERSIGN_SIGN_IN=handoff) has it ask them for their consent. Nothing of its login is Countersign's.
 */
import { randomBytes, scryptSync, timingSafeEqual } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import express, { type Express, type Request } from 'express';
import {
  apiKeysHandler,
  type ConsentUser,
  clientVerifier,
  oauthConsentHandler,
  type PanelGrant,
  protect,
} from '../../client/express.ts';
import { CountersignError, createCountersign } from '../../client/index.ts';

export interface HostAppOptions {
  /** Of the Countersign server. */
  url: string;
  /** A secret key with the role `interaction`: it mints panel tokens, completes consents, signs users out, and can do nothing else. */
  interactionKey: string;
  /** A secret key with the role `verify`. */
  verifyKey: string;
}

interface User {
  name: string;
  salt: Buffer;
  password: Buffer;
  /** In the one organization that there is. */
  role: 'admin' | 'member';
}

const ORGANIZATION = 'org_acme';

/** Where the server sends users to, with `interaction` in the address: its COUNTERSIGN_HANDOFF_URL. */
export const CONSENT_PATH = '/consent';

/** What users may let their keys do on this application's API. */
const SCOPES = ['invoices:read', 'invoices:write'];

const PAGE = fileURLToPath(new URL('../../dist/examples/host-app/', import.meta.url));

export function createHostApp({ url, interactionKey, verifyKey }: HostAppOptions): Express {
  const users = new Map(
    [newUser('alice', 'admin'), newUser('bob', 'member')].map((user) => [user.name, user]),
  );
  const sessions = new Map<string, User>();
  const verifier = clientVerifier(createCountersign({ url, secretKey: verifyKey }));
  const readsInvoices = protect({
    verifier,
    kinds: ['api_key', 'oauth_token'],
    scopes: ['invoices:read'],
  });

  const { userSessions } = createCountersign({ url, secretKey: interactionKey });

  const app = express();
  app.use((_request, response, next) => {
    // The panel needs no more than this: no inline script or style, nobody else's server, and no frame of somebody
    // else's around a button that says “Allow”.
    response.setHeader(
      'Content-Security-Policy',
      "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    );
    next();
  });

  app.post('/login', express.json(), (request, response) => {
    const { name, password } = request.body as { name?: unknown; password?: unknown };
    const user = users.get(String(name));
    if (!user || !isPassword(user, String(password))) return void response.status(401).json({});
    const session = randomBytes(32).toString('base64url');
    sessions.set(session, user);
    response.setHeader('Set-Cookie', `session=${session}; HttpOnly; SameSite=Lax; Path=/`);
    response.json(shown(user));
  });
  app.post('/logout', async (request, response) => {
    const session = sessionIn(request);
    const user = sessions.get(session);
    sessions.delete(session);
    // Nobody is remembered there, and yet what was shown to this user for some minutes is not for the next one at the browser.
    if (user) await userSessions.endAll({ subject: `user_${user.name}` }).catch(unlessHandedOff);
    response.status(204).end();
  });
  app.get('/me', (request, response) => {
    const user = sessions.get(sessionIn(request));
    response.status(user ? 200 : 401).json(user ? shown(user) : {});
  });

  /** A user's own keys, in which they do as they like; and the organization's, which its admins manage and others see. */
  const grantOf = (request: Request): PanelGrant | null => {
    const user = sessions.get(sessionIn(request));
    if (!user) return null;
    const createdBy = `user_${user.name}`;
    const all = ['read', 'create', 'update', 'rotate', 'revoke'] as const;
    if (!request.baseUrl.endsWith('/organization'))
      return {
        subject: createdBy,
        actions: [...all, 'read_grants', 'revoke_grants'],
        scopeCeiling: SCOPES,
      };
    const actions = user.role === 'admin' ? [...all] : (['read'] as const);
    return { subject: ORGANIZATION, createdBy, actions: [...actions], scopeCeiling: SCOPES };
  };
  app.use(
    ['/api-keys/user', '/api-keys/organization'],
    apiKeysHandler({ url, secretKey: interactionKey, resolveSubject: grantOf }),
  );

  /** Who is asked whether they let an OAuth application act for them. */
  const userOf = (request: Request): ConsentUser | null => {
    const user = sessions.get(sessionIn(request));
    if (!user) return null;
    return {
      subject: `user_${user.name}`,
      claims: { name: user.name },
      organizations: [{ id: ORGANIZATION, name: 'Acme' }],
    };
  };
  app.use('/oauth-consent', oauthConsentHandler({ url, secretKey: interactionKey, resolveUser: userOf }));
  app.get(CONSENT_PATH, (_request, response) => response.sendFile(`${PAGE}index.html`));

  app.get('/api/invoices', readsInvoices, (request, response) => {
    response.json({ subject: readsInvoices.authOf(request).subject, invoices: [] });
  });

  app.use(express.static(PAGE));
  return app;
}

/** A server whose users sign in another way has none of ours. */
function unlessHandedOff(error: unknown): void {
  if (!(error instanceof CountersignError) || error.code !== 'not_found') throw error;
}

function newUser(name: string, role: User['role']): User {
  const salt = randomBytes(16);
  return { name, role, salt, password: hashOf(`${name}'s password`, salt) };
}

const hashOf = (password: string, salt: Buffer) => scryptSync(password, salt, 32);

const isPassword = ({ salt, password }: User, given: string) =>
  timingSafeEqual(hashOf(given, salt), password);

const sessionIn = ({ headers }: Request) => /(?:^|; )session=([^;]+)/.exec(headers.cookie ?? '')?.[1] ?? '';

const shown = ({ name, role }: User) => ({ name, role });
