import {
  createM2mToken,
  createM2mTokenInput,
  getM2mToken,
  listM2mTokens,
  listM2mTokensInput,
  m2mTokenIdInput,
  revokeAllM2mTokens,
  revokeAllM2mTokensInput,
  revokeM2mToken,
  revokeM2mTokenByValue,
  revokeM2mTokenByValueInput,
  revokeM2mTokenInput,
} from '../domain/m2m-tokens.ts';
import { procedure, router } from './base.ts';

export const m2mTokensRouter = router({
  create: procedure
    .meta({ description: 'Mint an M2M token of the calling machine; its value is answered this once' })
    .input(createM2mTokenInput)
    .mutation(({ ctx, input }) => createM2mToken(ctx.deps, ctx.caller, input)),
  get: procedure
    .meta({ description: 'Show an M2M token' })
    .input(m2mTokenIdInput)
    .query(({ ctx, input }) => getM2mToken(ctx.deps, ctx.caller, input)),
  list: procedure
    .meta({ description: 'List the M2M tokens of a machine, the newest first' })
    .input(listM2mTokensInput)
    .query(({ ctx, input }) => listM2mTokens(ctx.deps, ctx.caller, input)),
  revoke: procedure
    .meta({ description: 'Revoke an M2M token for good', idempotent: true })
    .input(revokeM2mTokenInput)
    .mutation(({ ctx, input }) => revokeM2mToken(ctx.deps, ctx.caller, input)),
  revokeByValue: procedure
    .meta({
      description: 'Revoke the M2M token with this value; the answer is the same whatever was found',
      idempotent: true,
    })
    .input(revokeM2mTokenByValueInput)
    .mutation(({ ctx, input }) => revokeM2mTokenByValue(ctx.deps, ctx.caller, ctx.address, input)),
  revokeAll: procedure
    // Not to be repeated: a second time would take what was minted since the first.
    .meta({ description: 'Revoke every M2M token a machine was issued until now' })
    .input(revokeAllM2mTokensInput)
    .mutation(({ ctx, input }) => revokeAllM2mTokens(ctx.deps, ctx.caller, input)),
});
