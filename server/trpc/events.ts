import { listEvents, listEventsInput } from '../domain/events.ts';
import { procedure, router } from './base.ts';

export const eventsRouter = router({
  list: procedure
    .meta({ description: 'List events after a sequence, in commit order, or newest first' })
    .input(listEventsInput)
    .query(({ ctx, input }) => listEvents(ctx.deps, input)),
});
