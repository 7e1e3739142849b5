import { listDeliveries, listDeliveriesInput } from '../domain/deliveries.ts';
import { procedure, router } from './base.ts';

export const deliveriesRouter = router({
  list: procedure
    .meta({ description: 'List deliveries of events to webhook endpoints, by endpoint and state' })
    .input(listDeliveriesInput)
    .query(({ ctx, input }) => listDeliveries(ctx.deps, input)),
});
