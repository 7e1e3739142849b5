import {
  cancelOauthApplicationRotation,
  completeOauthApplicationRotation,
  createOauthApplication,
  createOauthApplicationInput,
  deleteOauthApplication,
  getOauthApplication,
  listOauthApplications,
  listOauthApplicationsInput,
  oauthApplicationIdInput,
  revokeOauthApplicationTokens,
  rotateOauthApplicationSecret,
  rotateOauthApplicationSecretInput,
  setOauthApplicationEnabled,
  updateOauthApplication,
  updateOauthApplicationInput,
} from '../domain/oauth-applications.ts';
import { procedure, router } from './base.ts';

export const oauthApplicationsRouter = router({
  create: procedure
    .meta({ description: 'Create an OAuth application, a confidential one with its first secret' })
    .input(createOauthApplicationInput)
    .mutation(({ ctx, input }) => createOauthApplication(ctx.deps, ctx.caller, input)),
  get: procedure
    .meta({ description: 'Show an OAuth application' })
    .input(oauthApplicationIdInput)
    .query(({ ctx, input }) => getOauthApplication(ctx.deps, input)),
  list: procedure
    .meta({ description: 'List OAuth applications' })
    .input(listOauthApplicationsInput)
    .query(({ ctx, input }) => listOauthApplications(ctx.deps, input)),
  update: procedure
    .meta({
      description:
        'Change what an OAuth application is called, where it is sent back to, or what it may be given',
      idempotent: true,
    })
    .input(updateOauthApplicationInput)
    .mutation(({ ctx, input }) => updateOauthApplication(ctx.deps, ctx.caller, input)),
  enable: procedure
    .meta({ description: 'Enable a disabled OAuth application', idempotent: true })
    .input(oauthApplicationIdInput)
    .mutation(({ ctx, input }) => setOauthApplicationEnabled(ctx.deps, ctx.caller, input.id, true)),
  disable: procedure
    .meta({
      description:
        'Disable an OAuth application: it is given no tokens, and those it has are refused until it is enabled',
      idempotent: true,
    })
    .input(oauthApplicationIdInput)
    .mutation(({ ctx, input }) => setOauthApplicationEnabled(ctx.deps, ctx.caller, input.id, false)),
  rotateSecret: procedure
    .meta({
      description: 'Give an OAuth application a new secret; the one before is accepted for the overlap',
    })
    .input(rotateOauthApplicationSecretInput)
    .mutation(({ ctx, input }) => rotateOauthApplicationSecret(ctx.deps, ctx.caller, input)),
  cancelRotation: procedure
    .meta({
      description: 'Revoke the new secret of an OAuth application while the old one is still accepted',
    })
    .input(oauthApplicationIdInput)
    .mutation(({ ctx, input }) => cancelOauthApplicationRotation(ctx.deps, ctx.caller, input.id)),
  completeRotation: procedure
    .meta({ description: 'End the old secret of an OAuth application before its overlap does' })
    .input(oauthApplicationIdInput)
    .mutation(({ ctx, input }) => completeOauthApplicationRotation(ctx.deps, ctx.caller, input.id)),
  revokeTokens: procedure
    .meta({ description: 'Revoke every grant and token that an OAuth application was given' })
    .input(oauthApplicationIdInput)
    .mutation(({ ctx, input }) => revokeOauthApplicationTokens(ctx.deps, ctx.caller, input)),
  delete: procedure
    .meta({ description: 'Delete an OAuth application with its secrets, grants and tokens' })
    .input(oauthApplicationIdInput)
    .mutation(({ ctx, input }) => deleteOauthApplication(ctx.deps, ctx.caller, input)),
});
