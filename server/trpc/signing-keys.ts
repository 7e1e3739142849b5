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
import { procedure, router } from './base.ts';

export const signingKeysRouter = router({
  create: procedure
    .meta({ description: 'Create an upcoming signing key; it is published at once and signs when activated' })
    .input(createSigningKeyInput)
    .mutation(({ ctx, input }) => createSigningKey(ctx.deps, ctx.caller, input)),
  list: procedure
    .meta({ description: 'List signing keys, the newest first' })
    .query(({ ctx }) => listSigningKeys(ctx.deps)),
  activate: procedure
    .meta({
      description: 'Have an upcoming key sign from now on; the one that did goes on verifying',
      idempotent: true,
    })
    .input(activateSigningKeyInput)
    .mutation(({ ctx, input }) => activateSigningKey(ctx.deps, ctx.caller, input)),
  retire: procedure
    .meta({ description: 'Retire a key once the last token it signed has expired', idempotent: true })
    .input(retireSigningKeyInput)
    .mutation(({ ctx, input }) => retireSigningKey(ctx.deps, ctx.caller, input)),
  emergencyRetire: procedure
    .meta({
      description: 'Retire a leaked key at once: no token it signed verifies any more, and another key signs',
      idempotent: true,
    })
    .input(emergencyRetireSigningKeyInput)
    .mutation(({ ctx, input }) => emergencyRetireSigningKey(ctx.deps, ctx.caller, input)),
});
