import {
  createKeyPrefix,
  createKeyPrefixInput,
  deleteKeyPrefix,
  keyPrefixInput,
  listKeyPrefixes,
  listKeyPrefixesInput,
} from '../domain/key-shapes.ts';
import { procedure, router } from './base.ts';

export const keyPrefixesRouter = router({
  create: procedure
    .meta({ description: 'Register a prefix that the values of API keys may begin with' })
    .input(createKeyPrefixInput)
    .mutation(({ ctx, input }) => createKeyPrefix(ctx.deps, ctx.caller, input)),
  list: procedure
    .meta({ description: 'List registered key prefixes' })
    .input(listKeyPrefixesInput)
    .query(({ ctx, input }) => listKeyPrefixes(ctx.deps, input)),
  delete: procedure
    .meta({ description: 'Take back a key prefix that no policy and no key uses' })
    .input(keyPrefixInput)
    .mutation(({ ctx, input }) => deleteKeyPrefix(ctx.deps, ctx.caller, input)),
});
