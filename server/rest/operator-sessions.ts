/** Links that sign in to the console. */
import { z } from 'zod';
import { createSignInLink } from '../domain/operator-sessions.ts';
import { at, named, nothing } from './fields.ts';
import { type Route, route } from './route.ts';

export const signInLinkRoutes: readonly Route[] = [
  route('POST /v1/sign_in_links', 'signInLinks.issue', {
    input: nothing,
    output: named('SignInLink', z.object({ url: z.string(), expiresAt: at })),
    run: ({ deps, caller }) => createSignInLink(deps, caller.principal),
  }),
];
