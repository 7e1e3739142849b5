/** Scheduled jobs: when each is due and how it went. */
import { z } from 'zod';
import { listJobs, runJob, runJobInput } from '../domain/jobs.ts';
import { at, count, named, nothing } from './fields.ts';
import { type Route, route } from './route.ts';

const jobOutput = named(
  'Job',
  z.object({
    name: z.string(),
    description: z.string(),
    periodMs: count,
    running: z.boolean(),
    nextAt: at,
    failures: count,
    lastStartedAt: at.nullable(),
    lastSucceededAt: at.nullable(),
    lastFailedAt: at.nullable(),
    lastError: z.string().nullable(),
  }),
);

export const jobRoutes: readonly Route[] = [
  route('GET /v1/jobs', 'jobs.list', {
    input: nothing,
    output: z.object({ data: z.array(jobOutput) }),
    run: async ({ deps }) => ({ data: await listJobs(deps) }),
  }),
  route('POST /v1/jobs/{name}/run', 'jobs.run', {
    input: runJobInput,
    output: jobOutput,
    run: ({ deps, caller }, input) => runJob(deps, caller, input),
  }),
];
