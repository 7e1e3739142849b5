/** Initial access tokens: what applications register themselves with. */
import { z } from 'zod';
import {
  createInitialAccessToken,
  createInitialAccessTokenInput,
  initialAccessTokenIdInput,
  listInitialAccessTokens,
  listInitialAccessTokensInput,
  revokeInitialAccessToken,
} from '../domain/initial-access-tokens.ts';
import { at, count, deletedOutput, named, pageOf } from './fields.ts';
import { type Route, route } from './route.ts';

const tokenOutput = named(
  'InitialAccessToken',
  z.object({ id: z.string(), name: z.string(), usesLeft: count, createdAt: at, expiresAt: at }),
);

export const initialAccessTokenRoutes: readonly Route[] = [
  route('POST /v1/initial_access_tokens', 'initialAccessTokens.create', {
    input: createInitialAccessTokenInput,
    // Absent where an idempotency key had the answer of before repeated.
    output: named(
      'CreatedInitialAccessToken',
      z.object({ ...tokenOutput.shape, token: z.string().optional() }),
    ),
    run: ({ deps, caller }, input) => createInitialAccessToken(deps, caller, input),
  }),
  route('GET /v1/initial_access_tokens', 'initialAccessTokens.list', {
    input: listInitialAccessTokensInput,
    output: pageOf(tokenOutput),
    run: ({ deps }, input) => listInitialAccessTokens(deps, input),
  }),
  route('DELETE /v1/initial_access_tokens/{id}', 'initialAccessTokens.revoke', {
    input: initialAccessTokenIdInput,
    output: deletedOutput,
    run: ({ deps, caller }, input) => revokeInitialAccessToken(deps, caller, input),
  }),
];
