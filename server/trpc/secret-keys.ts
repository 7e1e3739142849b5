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
import { procedure, router } from './base.ts';

export const secretKeysRouter = router({
  create: procedure
    .meta({ description: 'Create a secret key with a role; its value is answered this once' })
    .input(createSecretKeyInput)
    .mutation(({ ctx, input }) => createSecretKey(ctx.deps, ctx.caller, input)),
  list: procedure
    .meta({ description: 'List secret keys' })
    .input(listSecretKeysInput)
    .query(({ ctx, input }) => listSecretKeys(ctx.deps, input)),
  update: procedure
    .meta({ description: 'Rename a secret key, or change its rotation policy', idempotent: true })
    .input(updateSecretKeyInput)
    .mutation(({ ctx, input }) => updateSecretKey(ctx.deps, ctx.caller, input)),
  rotate: procedure
    .meta({ description: 'Give a secret key a new value; the one before is accepted for the overlap' })
    .input(rotateSecretKeyInput)
    .mutation(({ ctx, input }) => rotateSecretKey(ctx.deps, ctx.caller, input)),
  cancelRotation: procedure
    .meta({ description: 'Revoke the new value of a secret key while the old one is still accepted' })
    .input(secretKeyIdInput)
    .mutation(({ ctx, input }) => cancelSecretKeyRotation(ctx.deps, ctx.caller, input.id)),
  completeRotation: procedure
    .meta({ description: 'End the old value of a secret key before its overlap does' })
    .input(secretKeyIdInput)
    .mutation(({ ctx, input }) => completeSecretKeyRotation(ctx.deps, ctx.caller, input.id)),
  revoke: procedure
    .meta({ description: 'Revoke a secret key for good; never the last live admin key', idempotent: true })
    .input(secretKeyIdInput)
    .mutation(({ ctx, input }) => revokeSecretKey(ctx.deps, ctx.caller, input)),
});
