/** Webhook endpoints: where events are sent. */
import { z } from 'zod';
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
import { at, deletedOutput, named, pageOf } from './fields.ts';
import { type Route, route } from './route.ts';

const endpointOutput = named(
  'WebhookEndpoint',
  z.object({
    id: z.string(),
    url: z.string(),
    description: z.string().nullable(),
    eventTypes: z.array(z.string()),
    subjects: z.array(z.string()).nullable(),
    enabled: z.boolean(),
    disabledReason: z.enum(['operator', 'gone', 'failing']).nullable(),
    previousSecretExpiresAt: at.nullable(),
    publicKey: z.string().nullable(),
    failingSince: at.nullable(),
    lastSuccessAt: at.nullable(),
    throttledUntil: at.nullable(),
    createdAt: at,
    updatedAt: at,
  }),
);

const endpointWithSecretOutput = named(
  'WebhookEndpointWithSecret',
  // Absent where an idempotency key had the answer of before repeated.
  z.object({ ...endpointOutput.shape, secret: z.string().optional() }),
);

export const webhookEndpointRoutes: readonly Route[] = [
  route('POST /v1/webhook_endpoints', 'webhookEndpoints.create', {
    input: createWebhookEndpointInput,
    output: endpointWithSecretOutput,
    run: ({ deps, caller }, input) => createWebhookEndpoint(deps, caller, input),
  }),
  route('GET /v1/webhook_endpoints', 'webhookEndpoints.list', {
    input: listWebhookEndpointsInput,
    output: pageOf(endpointOutput),
    run: ({ deps }, input) => listWebhookEndpoints(deps, input),
  }),
  route('GET /v1/webhook_endpoints/{id}', 'webhookEndpoints.get', {
    input: webhookEndpointIdInput,
    output: endpointOutput,
    run: ({ deps }, input) => getWebhookEndpoint(deps, input),
  }),
  route('PATCH /v1/webhook_endpoints/{id}', 'webhookEndpoints.update', {
    input: updateWebhookEndpointInput,
    output: endpointOutput,
    run: ({ deps, caller }, input) => updateWebhookEndpoint(deps, caller, input),
  }),
  route('DELETE /v1/webhook_endpoints/{id}', 'webhookEndpoints.delete', {
    input: webhookEndpointIdInput,
    output: deletedOutput,
    run: ({ deps, caller }, input) => deleteWebhookEndpoint(deps, caller, input),
  }),
  route('POST /v1/webhook_endpoints/{id}/enable', 'webhookEndpoints.enable', {
    input: webhookEndpointIdInput,
    output: endpointOutput,
    run: ({ deps, caller }, input) => setWebhookEndpointEnabled(deps, caller, input, true),
  }),
  route('POST /v1/webhook_endpoints/{id}/disable', 'webhookEndpoints.disable', {
    input: webhookEndpointIdInput,
    output: endpointOutput,
    run: ({ deps, caller }, input) => setWebhookEndpointEnabled(deps, caller, input, false),
  }),
  route('POST /v1/webhook_endpoints/{id}/rotate_secret', 'webhookEndpoints.rotateSecret', {
    input: rotateWebhookSecretInput,
    output: endpointWithSecretOutput,
    run: ({ deps, caller }, input) => rotateWebhookSecret(deps, caller, input),
  }),
  route('POST /v1/webhook_endpoints/{id}/test', 'webhookEndpoints.test', {
    input: webhookEndpointIdInput,
    output: endpointOutput,
    run: ({ deps, caller }, input) => testWebhookEndpoint(deps, caller, input),
  }),
];
