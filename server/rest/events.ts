/** The log, and the feed of what must not be remembered any more. */
import { z } from 'zod';
import { listEvents, listEventsInput } from '../domain/events.ts';
import { at, count, named, nothing } from './fields.ts';
import { hotRoute, type Route, route } from './route.ts';

const eventOutput = named(
  'Event',
  z.object({
    seq: count,
    id: z.string(),
    at,
    type: z.string(),
    actor: z.object({ kind: z.string(), id: z.string() }),
    objectId: z.string(),
    subject: z.string().nullable(),
    requestId: z.string(),
    // What webhooks carry, in the names that docs/events.md has.
    data: z.record(z.string(), z.unknown()),
  }),
);

export const eventRoutes: readonly Route[] = [
  route('GET /v1/events', 'events.list', {
    input: listEventsInput,
    output: z.object({
      data: z.array(eventOutput),
      nextAfter: count,
      nextBefore: count.nullable(),
    }),
    run: ({ deps }, input) => listEvents(deps, input),
  }),
  hotRoute('GET /v1/feed', 'feed.follow', {
    summary: 'Follow what must not be remembered any more: server-sent events, resumable by Last-Event-ID',
    type: 'text/event-stream',
    input: nothing,
    output: z.string(),
  }),
];
