/** Signing keys, and the JWKS that publishes them. */
import { z } from 'zod';
import {
  activateSigningKey,
  activateSigningKeyInput,
  createSigningKey,
  createSigningKeyInput,
  emergencyRetireSigningKey,
  emergencyRetireSigningKeyInput,
  listSigningKeys,
  retireSigningKey,
  retireSigningKeyInput,
} from '../domain/signing-keys.ts';
import { at, named, nothing } from './fields.ts';
import { hotRoute, type Route, route } from './route.ts';

const signingKeyOutput = named(
  'SigningKey',
  z.object({
    kid: z.string(),
    alg: z.enum(['RS256', 'ES256', 'EdDSA']),
    state: z.enum(['upcoming', 'active', 'retiring', 'retired']),
    createdAt: at,
    activatedAt: at.nullable(),
    retiredAt: at.nullable(),
  }),
);

const jwksOutput = named('JsonWebKeySet', z.object({ keys: z.array(z.record(z.string(), z.string())) }));

export const signingKeyRoutes: readonly Route[] = [
  hotRoute('GET /v1/jwks', null, {
    summary: 'The public halves of the signing keys (RFC 7517), also at /.well-known/jwks.json',
    input: nothing,
    output: jwksOutput,
  }),
  route('POST /v1/signing_keys', 'signingKeys.create', {
    input: createSigningKeyInput,
    output: signingKeyOutput,
    run: ({ deps, caller }, input) => createSigningKey(deps, caller, input),
  }),
  route('GET /v1/signing_keys', 'signingKeys.list', {
    input: nothing,
    output: z.object({ data: z.array(signingKeyOutput) }),
    run: async ({ deps }) => ({ data: await listSigningKeys(deps) }),
  }),
  route('POST /v1/signing_keys/{kid}/activate', 'signingKeys.activate', {
    input: activateSigningKeyInput,
    output: signingKeyOutput,
    run: ({ deps, caller }, input) => activateSigningKey(deps, caller, input),
  }),
  route('POST /v1/signing_keys/{kid}/retire', 'signingKeys.retire', {
    input: retireSigningKeyInput,
    output: signingKeyOutput,
    run: ({ deps, caller }, input) => retireSigningKey(deps, caller, input),
  }),
  route('POST /v1/signing_keys/{kid}/emergency_retire', 'signingKeys.emergencyRetire', {
    input: emergencyRetireSigningKeyInput,
    output: signingKeyOutput,
    run: ({ deps, caller }, input) => emergencyRetireSigningKey(deps, caller, input),
  }),
];
