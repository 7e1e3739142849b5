/** Users who are handed to the host application: what its backend asks, and says of them. */
import { z } from 'zod';
import {
  completeInteraction,
  completeInteractionInput,
  denyInteraction,
  denyInteractionInput,
  getInteraction,
  interactionIdInput,
} from '../domain/interaction-outcomes.ts';
import { at, named } from './fields.ts';
import { type Route, route } from './route.ts';

const interactionOutput = named(
  'Interaction',
  z.object({
    id: z.string(),
    step: z.enum(['sign_in', 'consent']),
    application: z
      .object({
        id: z.string(),
        name: z.string(),
        clientUri: z.string().nullable(),
        documentHost: z.string().nullable(),
        logoUrl: z.string().nullable(),
        isVerified: z.boolean(),
      })
      .nullable(),
    redirectHost: z.string().nullable(),
    scopes: z.array(z.object({ name: z.string(), description: z.string() })),
    resources: z.array(z.string()),
    loginHint: z.string().nullable(),
    prompts: z.array(z.string()),
    signedInSince: at.nullable(),
    createdAt: at,
    expiresAt: at,
  }),
);

const resumptionOutput = named('Resumption', z.object({ resumeUrl: z.string(), expiresAt: at }));

export const interactionRoutes: readonly Route[] = [
  route('GET /v1/interactions/{id}', 'interactions.get', {
    input: interactionIdInput,
    output: interactionOutput,
    run: ({ deps }, input) => getInteraction(deps, input),
  }),
  route('POST /v1/interactions/{id}/complete', 'interactions.complete', {
    input: completeInteractionInput,
    output: resumptionOutput,
    run: ({ deps }, input) => completeInteraction(deps, input),
  }),
  route('POST /v1/interactions/{id}/deny', 'interactions.deny', {
    input: denyInteractionInput,
    output: resumptionOutput,
    run: ({ deps }, input) => denyInteraction(deps, input),
  }),
];
