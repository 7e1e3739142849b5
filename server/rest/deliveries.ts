/** Deliveries of events to webhook endpoints. */
import { z } from 'zod';
import {
  deliveryIdInput,
  getDelivery,
  listDeliveries,
  listDeliveriesInput,
  replayDeliveries,
  replayDeliveriesInput,
  resendDelivery,
} from '../domain/deliveries.ts';
import { at, count, named, pageOf } from './fields.ts';
import { type Route, route } from './route.ts';

const deliveryOutput = named(
  'Delivery',
  z.object({
    id: z.string(),
    endpointId: z.string(),
    eventSeq: count,
    state: z.enum(['pending', 'delivered', 'dead']),
    attempt: count,
    nextAt: at.nullable(),
    createdAt: at,
    firstAttemptAt: at.nullable(),
    deliveredAt: at.nullable(),
    lastStatus: count.nullable(),
    lastError: z.string().nullable(),
  }),
);

const deliveryWithAttemptsOutput = named(
  'DeliveryWithAttempts',
  z.object({
    ...deliveryOutput.shape,
    attempts: z.array(
      z.object({
        attempt: count,
        beganAt: at,
        endedAt: at,
        status: count.nullable(),
        error: z.string().nullable(),
        response: z.string().nullable(),
      }),
    ),
  }),
);

export const deliveryRoutes: readonly Route[] = [
  route('GET /v1/deliveries', 'deliveries.list', {
    input: listDeliveriesInput,
    output: pageOf(deliveryOutput),
    run: ({ deps }, input) => listDeliveries(deps, input),
  }),
  route('POST /v1/deliveries/replay', 'deliveries.replay', {
    input: replayDeliveriesInput,
    output: z.object({ count, isComplete: z.boolean(), nextCursor: z.string().nullable() }),
    run: ({ deps, caller }, input) => replayDeliveries(deps, caller, input),
  }),
  route('GET /v1/deliveries/{id}', 'deliveries.get', {
    input: deliveryIdInput,
    output: deliveryWithAttemptsOutput,
    run: ({ deps }, input) => getDelivery(deps, input),
  }),
  route('POST /v1/deliveries/{id}/resend', 'deliveries.resend', {
    input: deliveryIdInput,
    output: deliveryOutput,
    run: ({ deps, caller }, input) => resendDelivery(deps, caller, input),
  }),
];
