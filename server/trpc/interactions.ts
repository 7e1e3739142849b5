import {
  completeInteraction,
  completeInteractionInput,
  denyInteraction,
  denyInteractionInput,
  getInteraction,
  interactionIdInput,
} from '../domain/interaction-outcomes.ts';
import { procedure, router } from './base.ts';

export const interactionsRouter = router({
  get: procedure
    .meta({ description: 'Read what a user who was handed to your application is asked for' })
    .input(interactionIdInput)
    .query(({ ctx, input }) => getInteraction(ctx.deps, input)),
  complete: procedure
    .meta({ description: 'Say who the user is, and get the URL to send their browser to', idempotent: true })
    .input(completeInteractionInput)
    .mutation(({ ctx, input }) => completeInteraction(ctx.deps, input)),
  deny: procedure
    .meta({
      description: 'Say that nobody was let in, and get the URL to send their browser to',
      idempotent: true,
    })
    .input(denyInteractionInput)
    .mutation(({ ctx, input }) => denyInteraction(ctx.deps, input)),
});
