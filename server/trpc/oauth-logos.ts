import { deleteOauthLogo, oauthLogoInput, setOauthLogo, setOauthLogoInput } from '../domain/oauth-logos.ts';
import { procedure, router } from './base.ts';

export const oauthLogosRouter = router({
  set: procedure
    .meta({
      description: 'Give an OAuth application the logo that its users see where they consent',
      idempotent: true,
    })
    .input(setOauthLogoInput)
    .mutation(({ ctx, input }) => setOauthLogo(ctx.deps, ctx.caller, input)),
  delete: procedure
    .meta({ description: 'Take its logo from an OAuth application' })
    .input(oauthLogoInput)
    .mutation(({ ctx, input }) => deleteOauthLogo(ctx.deps, ctx.caller, input)),
});
