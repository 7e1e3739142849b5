/** Scopes of OAuth, in the style of the rest. */
import { z } from 'zod';
import {
  createOauthScope,
  createOauthScopeInput,
  deleteOauthScope,
  listOauthScopes,
  listOauthScopesInput,
  type OauthScope,
  oauthScopeNameInput,
  updateOauthScope,
  updateOauthScopeInput,
} from '../domain/oauth-scopes.ts';
import { at, named, pageOf } from './fields.ts';
import { type Route, route } from './route.ts';

const scopeOutput = named(
  'OAuthScope',
  z.object({
    object: z.literal('oauth_scope'),
    name: z.string(),
    description: z.string(),
    advertised: z.boolean(),
    resource: z.string().nullable(),
    builtIn: z.boolean(),
    createdAt: at.nullable(),
    updatedAt: at.nullable(),
  }),
);

export const oauthScopeRoutes: readonly Route[] = [
  route('POST /v1/oauth_scopes', 'oauthScopes.create', {
    input: createOauthScopeInput,
    output: scopeOutput,
    run: async ({ deps, caller }, input) => present(await createOauthScope(deps, caller, input)),
  }),
  route('GET /v1/oauth_scopes', 'oauthScopes.list', {
    input: listOauthScopesInput,
    output: pageOf(scopeOutput),
    async run({ deps }, input) {
      const { data, nextCursor } = await listOauthScopes(deps, input);
      return { data: data.map(present), nextCursor };
    },
  }),
  route('PATCH /v1/oauth_scopes/{name}', 'oauthScopes.update', {
    input: updateOauthScopeInput,
    output: scopeOutput,
    run: async ({ deps, caller }, input) => present(await updateOauthScope(deps, caller, input)),
  }),
  route('DELETE /v1/oauth_scopes/{name}', 'oauthScopes.delete', {
    input: oauthScopeNameInput,
    output: z.object({ name: z.string(), deleted: z.literal(true) }),
    run: ({ deps, caller }, input) => deleteOauthScope(deps, caller, input),
  }),
];

const present = (scope: OauthScope) => ({ object: 'oauth_scope' as const, ...scope });
