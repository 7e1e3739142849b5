import {
  deliveryIdInput,
  getDelivery,
  listDeliveries,
  listDeliveriesInput,
  replayDeliveries,
  replayDeliveriesInput,
  resendDelivery,
} from '../domain/deliveries.ts';
import { procedure, router } from './base.ts';

export const deliveriesRouter = router({
  list: procedure
    .meta({ description: 'List deliveries of events to webhook endpoints, by endpoint and state' })
    .input(listDeliveriesInput)
    .query(({ ctx, input }) => listDeliveries(ctx.deps, input)),
  get: procedure
    .meta({ description: 'Get a delivery, and the attempts at it with what was answered' })
    .input(deliveryIdInput)
    .query(({ ctx, input }) => getDelivery(ctx.deps, input)),
  resend: procedure
    .meta({ description: 'Send a delivery once more, whatever became of it' })
    .input(deliveryIdInput)
    .mutation(({ ctx, input }) => resendDelivery(ctx.deps, ctx.caller, input)),
  replay: procedure
    .meta({ description: 'Send once more what was given up, or all, of an endpoint or a time' })
    .input(replayDeliveriesInput)
    .mutation(({ ctx, input }) => replayDeliveries(ctx.deps, ctx.caller, input)),
});
