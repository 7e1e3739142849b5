/** How often API keys, and all of a subject's together, were verified. */
import { z } from 'zod';
import {
  usageOfApiKeys,
  usageOfApiKeysInput,
  usageOfSubjects,
  usageOfSubjectsInput,
} from '../domain/usage-reports.ts';
import { at, count, named } from './fields.ts';
import { type Route, route } from './route.ts';

const usageReportOutput = named(
  'UsageReport',
  z.object({
    from: at,
    to: at,
    data: z.array(
      z.object({ id: z.string(), usage: z.array(z.object({ at, valid: count, refused: count })) }),
    ),
  }),
);

export const usageRoutes: readonly Route[] = [
  route('GET /v1/usage/api_keys', 'usage.ofApiKeys', {
    input: usageOfApiKeysInput,
    output: usageReportOutput,
    run: ({ deps }, input) => usageOfApiKeys(deps, input),
  }),
  route('GET /v1/usage/subjects', 'usage.ofSubjects', {
    input: usageOfSubjectsInput,
    output: usageReportOutput,
    run: ({ deps }, input) => usageOfSubjects(deps, input),
  }),
];
