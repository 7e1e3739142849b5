/** Secret keys: what callers of the management API call with. */
import { z } from 'zod';
import {
  cancelSecretKeyRotation,
  completeSecretKeyRotation,
  createSecretKey,
  createSecretKeyInput,
  listSecretKeys,
  listSecretKeysInput,
  revokeSecretKey,
  rotateSecretKey,
  rotateSecretKeyInput,
  secretKeyIdInput,
  updateSecretKey,
  updateSecretKeyInput,
} from '../domain/secret-keys.ts';
import { at, named, pageOf, role, rotationOutput } from './fields.ts';
import { type Route, route } from './route.ts';

const secretKeyOutput = named(
  'SecretKey',
  z.object({
    id: z.string(),
    name: z.string(),
    role: role,
    start: z.string(),
    state: z.enum(['live', 'expired', 'revoked']),
    allowedCidrs: z.array(z.string()).nullable(),
    rotation: rotationOutput,
    rotateBy: at.nullable(),
    expiresAt: at.nullable(),
    revokedAt: at.nullable(),
    lastUsedAt: at.nullable(),
    createdAt: at,
  }),
);

const createdKeyOutput = named(
  'CreatedSecretKey',
  // Absent where an idempotency key had the answer of before repeated.
  z.object({ ...secretKeyOutput.shape, secret: z.string().optional() }),
);

const rotatedKeyOutput = named(
  'RotatedSecretKey',
  z.object({ ...createdKeyOutput.shape, previousExpiresAt: at.nullable() }),
);

export const secretKeyRoutes: readonly Route[] = [
  route('POST /v1/secret_keys', 'secretKeys.create', {
    input: createSecretKeyInput,
    output: createdKeyOutput,
    run: ({ deps, caller }, input) => createSecretKey(deps, caller, input),
  }),
  route('GET /v1/secret_keys', 'secretKeys.list', {
    input: listSecretKeysInput,
    output: pageOf(secretKeyOutput),
    run: ({ deps }, input) => listSecretKeys(deps, input),
  }),
  route('PATCH /v1/secret_keys/{id}', 'secretKeys.update', {
    input: updateSecretKeyInput,
    output: secretKeyOutput,
    run: ({ deps, caller }, input) => updateSecretKey(deps, caller, input),
  }),
  route('POST /v1/secret_keys/{id}/rotate', 'secretKeys.rotate', {
    input: rotateSecretKeyInput,
    output: rotatedKeyOutput,
    run: ({ deps, caller }, input) => rotateSecretKey(deps, caller, input),
  }),
  route('POST /v1/secret_keys/{id}/cancel_rotation', 'secretKeys.cancelRotation', {
    input: secretKeyIdInput,
    output: secretKeyOutput,
    run: ({ deps, caller }, { id }) => cancelSecretKeyRotation(deps, caller, id),
  }),
  route('POST /v1/secret_keys/{id}/complete_rotation', 'secretKeys.completeRotation', {
    input: secretKeyIdInput,
    output: secretKeyOutput,
    run: ({ deps, caller }, { id }) => completeSecretKeyRotation(deps, caller, id),
  }),
  route('POST /v1/secret_keys/{id}/revoke', 'secretKeys.revoke', {
    input: secretKeyIdInput,
    output: secretKeyOutput,
    run: ({ deps, caller }, input) => revokeSecretKey(deps, caller, input),
  }),
];
