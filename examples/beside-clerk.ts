/**
 * An API for machines and people: API keys and M2M tokens are judged by Countersign, sessions by Clerk. Run it with
 * `npm run example:beside-clerk`, with COUNTERSIGN_URL and a key, CLERK_SECRET_KEY and CLERK_PUBLISHABLE_KEY.
 */
import { pathToFileURL } from 'node:url';
import { clerkMiddleware, getAuth } from '@clerk/express';
import express, { type RequestHandler } from 'express';
import { type CredentialVerifier, clientVerifier, protect } from '../client/express.ts';
import { createCountersign } from '../client/index.ts';

/** Opaque values alone: a JWT may be a session of Clerk's. */
const isMachineCredential = (value: string) => /^(ak|mt|oat)_/.test(value);

/** @param person judges sessions; it never sees a credential that is ours. */
export function createApi(
  verifier: CredentialVerifier,
  person: RequestHandler = clerkMiddleware(),
): express.Express {
  const machine = protect({ verifier, header: 'x-api-key', isOurs: isMachineCredential, optional: true });
  const app = express();
  app.use(machine);
  app.use((request, response, next) => (machine.authOf(request) ? next() : person(request, response, next)));
  app.get('/whoami', (request, response) => {
    const caller = machine.authOf(request);
    if (caller) return void response.json({ kind: caller.kind, subject: caller.subject });
    const { userId } = getAuth(request);
    if (userId) return void response.json({ kind: 'session', subject: userId });
    response
      .status(401)
      .json({ code: 'unauthenticated', message: 'Wanted a credential or a session, found none' });
  });
  return app;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  createApi(clientVerifier(createCountersign())).listen(3000);
}
