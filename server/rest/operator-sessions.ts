/** Signing in to the console: links that do, and who is signed in. */
import { z } from 'zod';
import {
  createSignInLink,
  endOperatorSession,
  listOperatorSessions,
  listOperatorSessionsInput,
  operatorSessionIdInput,
} from '../domain/operator-sessions.ts';
import { at, deletedOutput, named, nothing, pageOf, role } from './fields.ts';
import { type Route, route } from './route.ts';

const operatorSessionOutput = named(
  'OperatorSession',
  z.object({
    id: z.string(),
    secretKeyId: z.string(),
    name: z.string(),
    role,
    createdAt: at,
    lastSeenAt: at,
    expiresAt: at,
  }),
);

export const operatorSessionRoutes: readonly Route[] = [
  route('POST /v1/sign_in_links', 'signInLinks.issue', {
    input: nothing,
    output: named('SignInLink', z.object({ url: z.string(), expiresAt: at })),
    run: ({ deps, caller }) => createSignInLink(deps, caller.principal),
  }),
  route('GET /v1/operator_sessions', 'operatorSessions.list', {
    input: listOperatorSessionsInput,
    output: pageOf(operatorSessionOutput),
    run: ({ deps }, input) => listOperatorSessions(deps, input),
  }),
  route('DELETE /v1/operator_sessions/{id}', 'operatorSessions.end', {
    input: operatorSessionIdInput,
    output: deletedOutput,
    run: ({ deps, caller }, input) => endOperatorSession(deps, caller, input),
  }),
];
