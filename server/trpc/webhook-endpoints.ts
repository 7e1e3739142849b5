import {
  createWebhookEndpoint,
  createWebhookEndpointInput,
  deleteWebhookEndpoint,
  listWebhookEndpoints,
  listWebhookEndpointsInput,
  webhookEndpointIdInput,
} from '../domain/webhook-endpoints.ts';
import { procedure, router } from './base.ts';

export const webhookEndpointsRouter = router({
  create: procedure
    .meta({ description: 'Create a webhook endpoint; its signing secret is answered this once' })
    .input(createWebhookEndpointInput)
    .mutation(({ ctx, input }) => createWebhookEndpoint(ctx.deps, ctx.caller, input)),
  list: procedure
    .meta({ description: 'List webhook endpoints' })
    .input(listWebhookEndpointsInput)
    .query(({ ctx, input }) => listWebhookEndpoints(ctx.deps, input)),
  delete: procedure
    .meta({ description: 'Delete a webhook endpoint: nothing more is sent to it' })
    .input(webhookEndpointIdInput)
    .mutation(({ ctx, input }) => deleteWebhookEndpoint(ctx.deps, ctx.caller, input)),
});
