import { importApiKeys, importApiKeysInput } from '../domain/api-key-imports.ts';
import {
  apiKeyIdInput,
  cancelApiKeyRotation,
  completeApiKeyRotation,
  createApiKey,
  createApiKeyInput,
  deleteApiKey,
  getApiKey,
  listApiKeys,
  listApiKeysInput,
  revokeAllApiKeys,
  revokeAllApiKeysInput,
  revokeApiKey,
  revokeApiKeyByValue,
  revokeApiKeyByValueInput,
  revokeApiKeyInput,
  rotateApiKey,
  rotateApiKeyInput,
  setApiKeyCredits,
  setApiKeyCreditsInput,
  setApiKeyEnabled,
  updateApiKey,
  updateApiKeyInput,
} from '../domain/api-keys.ts';
import { procedure, router } from './base.ts';

export const apiKeysRouter = router({
  create: procedure
    .meta({ description: 'Create an API key for a subject; its value is answered this once' })
    .input(createApiKeyInput)
    .mutation(({ ctx, input }) => createApiKey(ctx.deps, ctx.caller, input)),
  import: procedure
    .meta({
      description: 'Import up to 1,000 API keys by the SHA-256 of their values; answered one by one',
      idempotent: true,
    })
    .input(importApiKeysInput)
    .mutation(({ ctx, input }) => importApiKeys(ctx.deps, ctx.caller, input)),
  get: procedure
    .meta({ description: 'Show an API key' })
    .input(apiKeyIdInput)
    .query(({ ctx, input }) => getApiKey(ctx.deps, input)),
  list: procedure
    .meta({ description: 'List API keys: all, or by subject, name, start or state' })
    .input(listApiKeysInput)
    .query(({ ctx, input }) => listApiKeys(ctx.deps, input)),
  update: procedure
    .meta({
      description:
        'Rename an API key, or change its description, scopes, claims, expiry, rate limit or CIDR blocks',
      idempotent: true,
    })
    .input(updateApiKeyInput)
    .mutation(({ ctx, input }) => updateApiKey(ctx.deps, ctx.caller, input)),
  setCredits: procedure
    .meta({
      description: 'Set what an API key may spend; null takes its credits away, and with them the limit',
    })
    .input(setApiKeyCreditsInput)
    .mutation(({ ctx, input }) => setApiKeyCredits(ctx.deps, ctx.caller, input)),
  enable: procedure
    .meta({ description: 'Enable a disabled API key', idempotent: true })
    .input(apiKeyIdInput)
    .mutation(({ ctx, input }) => setApiKeyEnabled(ctx.deps, ctx.caller, input.id, true)),
  disable: procedure
    .meta({ description: 'Disable an API key: it is refused until it is enabled', idempotent: true })
    .input(apiKeyIdInput)
    .mutation(({ ctx, input }) => setApiKeyEnabled(ctx.deps, ctx.caller, input.id, false)),
  rotate: procedure
    .meta({ description: 'Give an API key a new value; the one before is accepted for the overlap' })
    .input(rotateApiKeyInput)
    .mutation(({ ctx, input }) => rotateApiKey(ctx.deps, ctx.caller, input)),
  cancelRotation: procedure
    .meta({ description: 'Revoke the new value of an API key while the old one is still accepted' })
    .input(apiKeyIdInput)
    .mutation(({ ctx, input }) => cancelApiKeyRotation(ctx.deps, ctx.caller, input.id)),
  completeRotation: procedure
    .meta({ description: 'End the old value of an API key before its overlap does' })
    .input(apiKeyIdInput)
    .mutation(({ ctx, input }) => completeApiKeyRotation(ctx.deps, ctx.caller, input.id)),
  revoke: procedure
    .meta({ description: 'Revoke an API key for good', idempotent: true })
    .input(revokeApiKeyInput)
    .mutation(({ ctx, input }) => revokeApiKey(ctx.deps, ctx.caller, input)),
  revokeByValue: procedure
    .meta({
      description: 'Revoke the API key with this value; the answer is the same whether there is one',
      idempotent: true,
    })
    .input(revokeApiKeyByValueInput)
    .mutation(({ ctx, input }) => revokeApiKeyByValue(ctx.deps, ctx.caller, ctx.address, input)),
  revokeAll: procedure
    .meta({ description: 'Revoke every API key of a subject, or every one that somebody made for it' })
    .input(revokeAllApiKeysInput)
    .mutation(({ ctx, input }) => revokeAllApiKeys(ctx.deps, ctx.caller, input)),
  delete: procedure
    .meta({ description: 'Delete an API key' })
    .input(apiKeyIdInput)
    .mutation(({ ctx, input }) => deleteApiKey(ctx.deps, ctx.caller, input.id)),
});
