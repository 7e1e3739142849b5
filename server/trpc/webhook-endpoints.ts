import {
  createWebhookEndpoint,
  createWebhookEndpointInput,
  deleteWebhookEndpoint,
  getWebhookEndpoint,
  listWebhookEndpoints,
  listWebhookEndpointsInput,
  rotateWebhookSecret,
  rotateWebhookSecretInput,
  setWebhookEndpointEnabled,
  testWebhookEndpoint,
  updateWebhookEndpoint,
  updateWebhookEndpointInput,
  webhookEndpointIdInput,
} from '../domain/webhook-endpoints.ts';
import { procedure, router } from './base.ts';

export const webhookEndpointsRouter = router({
  create: procedure
    .meta({ description: 'Create a webhook endpoint; its signing secret is answered this once' })
    .input(createWebhookEndpointInput)
    .mutation(({ ctx, input }) => createWebhookEndpoint(ctx.deps, ctx.caller, input)),
  get: procedure
    .meta({ description: 'Get a webhook endpoint, and how it fares' })
    .input(webhookEndpointIdInput)
    .query(({ ctx, input }) => getWebhookEndpoint(ctx.deps, input)),
  list: procedure
    .meta({ description: 'List webhook endpoints' })
    .input(listWebhookEndpointsInput)
    .query(({ ctx, input }) => listWebhookEndpoints(ctx.deps, input)),
  update: procedure
    .meta({ description: 'Change the URL of a webhook endpoint, or what is sent to it', idempotent: true })
    .input(updateWebhookEndpointInput)
    .mutation(({ ctx, input }) => updateWebhookEndpoint(ctx.deps, ctx.caller, input)),
  enable: procedure
    .meta({ description: 'Enable a webhook endpoint: what is still owed to it is sent', idempotent: true })
    .input(webhookEndpointIdInput)
    .mutation(({ ctx, input }) => setWebhookEndpointEnabled(ctx.deps, ctx.caller, input, true)),
  disable: procedure
    .meta({
      description: 'Disable a webhook endpoint: nothing is sent and nothing new is owed to it',
      idempotent: true,
    })
    .input(webhookEndpointIdInput)
    .mutation(({ ctx, input }) => setWebhookEndpointEnabled(ctx.deps, ctx.caller, input, false)),
  rotateSecret: procedure
    .meta({
      description: 'Give a webhook endpoint a new signing secret; the old one signs beside it for a while',
    })
    .input(rotateWebhookSecretInput)
    .mutation(({ ctx, input }) => rotateWebhookSecret(ctx.deps, ctx.caller, input)),
  test: procedure
    .meta({ description: 'Send a test to a webhook endpoint, and to no other' })
    .input(webhookEndpointIdInput)
    .mutation(({ ctx, input }) => testWebhookEndpoint(ctx.deps, ctx.caller, input)),
  delete: procedure
    .meta({ description: 'Delete a webhook endpoint: nothing more is sent to it' })
    .input(webhookEndpointIdInput)
    .mutation(({ ctx, input }) => deleteWebhookEndpoint(ctx.deps, ctx.caller, input)),
});
