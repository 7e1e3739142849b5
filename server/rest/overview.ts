/** What an operator looks at first. */
import { z } from 'zod';
import { getOverview } from '../domain/overview.ts';
import { at, count, named, nothing } from './fields.ts';
import { type Route, route } from './route.ts';

const counted = <State extends string>(states: readonly State[]) =>
  z.object({
    states: z.object(
      Object.fromEntries(states.map((state) => [state, count])) as Record<State, typeof count>,
    ),
    isCapped: z.boolean(),
  });

const overviewOutput = named(
  'Overview',
  z.object({
    verifications: z.array(z.object({ at, outcomes: z.record(z.string(), count) })),
    credentials: z.object({
      apiKeys: counted(['revoked', 'disabled', 'expired', 'live']),
      machines: counted(['enabled', 'disabled']),
      secretKeys: counted(['live', 'expired', 'revoked']),
      unexpiredM2mTokens: count,
    }),
    expiring: z.array(
      z.object({
        kind: z.enum(['api_key', 'secret_key']),
        id: z.string(),
        name: z.string(),
        subject: z.string().nullable(),
        expiresAt: at,
      }),
    ),
    signing: z.object({ kid: z.string(), activatedAt: at, rotatesAt: at }).nullable(),
    failingEndpoints: z.array(
      z.object({ id: z.string(), url: z.string(), enabled: z.boolean(), failingSince: at.nullable() }),
    ),
    pending: z.object({ due: count, waiting: count }),
    oldestPendingMs: count,
    overdueSecrets: count,
    troubledJobs: z.array(z.object({ name: z.string(), failures: count, overdueMs: count })),
  }),
);

export const overviewRoutes: readonly Route[] = [
  route('GET /v1/overview', 'overview.get', {
    input: nothing,
    output: overviewOutput,
    run: ({ deps }) => getOverview(deps),
  }),
];
