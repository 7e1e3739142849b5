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
import { procedure, router } from './base.ts';

export const keyPoliciesRouter = router({
  create: procedure
    .meta({ description: 'Create a key policy: what API keys created under it may be, and are given' })
    .input(createKeyPolicyInput)
    .mutation(({ ctx, input }) => createKeyPolicy(ctx.deps, ctx.caller, input)),
  get: procedure
    .meta({ description: 'Show a key policy' })
    .input(keyPolicyIdInput)
    .query(({ ctx, input }) => getKeyPolicy(ctx.deps, input)),
  list: procedure
    .meta({ description: 'List key policies' })
    .input(listKeyPoliciesInput)
    .query(({ ctx, input }) => listKeyPolicies(ctx.deps, input)),
  update: procedure
    .meta({
      description: 'Change a key policy: for keys created from then on, and for how long ended ones are kept',
      idempotent: true,
    })
    .input(updateKeyPolicyInput)
    .mutation(({ ctx, input }) => updateKeyPolicy(ctx.deps, ctx.caller, input)),
  delete: procedure
    .meta({ description: 'Delete a key policy; its keys keep what they have' })
    .input(keyPolicyIdInput)
    .mutation(({ ctx, input }) => deleteKeyPolicy(ctx.deps, ctx.caller, input)),
});
