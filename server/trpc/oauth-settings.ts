import {
  readOauthSettings,
  updateOauthSettings,
  updateOauthSettingsInput,
} from '../domain/oauth-settings.ts';
import { procedure, router } from './base.ts';

export const oauthSettingsRouter = router({
  get: procedure
    .meta({ description: 'Show who may come unasked as an OAuth application, and what those are given' })
    .query(({ ctx }) => readOauthSettings(ctx.deps)),
  update: procedure
    .meta({
      description: 'Change who may come unasked as an OAuth application, and what those are given',
      idempotent: true,
    })
    .input(updateOauthSettingsInput)
    .mutation(({ ctx, input }) => updateOauthSettings(ctx.deps, ctx.caller, input)),
});
