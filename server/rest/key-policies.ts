/** Key policies: what API keys created under them may be, and are given. */
import { z } from 'zod';
import {
  createKeyPolicy,
  createKeyPolicyInput,
  deleteKeyPolicy,
  getKeyPolicy,
  keyPolicyIdInput,
  listKeyPolicies,
  listKeyPoliciesInput,
  updateKeyPolicy,
  updateKeyPolicyInput,
} from '../domain/key-policies.ts';
import { at, count, deletedOutput, limitOutput, named, pageOf } from './fields.ts';
import { type Route, route } from './route.ts';

const keyPolicyOutput = named(
  'KeyPolicy',
  z.object({
    id: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    isDefault: z.boolean(),
    prefix: z.string(),
    allowedScopes: z.array(z.string()).nullable(),
    defaultTtlSeconds: count.nullable(),
    maxTtlSeconds: count.nullable(),
    liveKeysMax: count.nullable(),
    rateLimit: limitOutput,
    credits: z
      .object({ amount: count, refillAmount: count.nullable(), refillIntervalSeconds: count.nullable() })
      .nullable(),
    retentionSeconds: count,
    createdAt: at,
    updatedAt: at,
  }),
);

export const keyPolicyRoutes: readonly Route[] = [
  route('POST /v1/key_policies', 'keyPolicies.create', {
    input: createKeyPolicyInput,
    output: keyPolicyOutput,
    run: ({ deps, caller }, input) => createKeyPolicy(deps, caller, input),
  }),
  route('GET /v1/key_policies', 'keyPolicies.list', {
    input: listKeyPoliciesInput,
    output: pageOf(keyPolicyOutput),
    run: ({ deps }, input) => listKeyPolicies(deps, input),
  }),
  route('GET /v1/key_policies/{id}', 'keyPolicies.get', {
    input: keyPolicyIdInput,
    output: keyPolicyOutput,
    run: ({ deps }, input) => getKeyPolicy(deps, input),
  }),
  route('PATCH /v1/key_policies/{id}', 'keyPolicies.update', {
    input: updateKeyPolicyInput,
    output: keyPolicyOutput,
    run: ({ deps, caller }, input) => updateKeyPolicy(deps, caller, input),
  }),
  route('DELETE /v1/key_policies/{id}', 'keyPolicies.delete', {
    input: keyPolicyIdInput,
    output: deletedOutput,
    run: ({ deps, caller }, input) => deleteKeyPolicy(deps, caller, input),
  }),
];
