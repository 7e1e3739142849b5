/** How often API keys, and all of a subject's together, were verified. */
import { z } from 'zod';
import { reportUsage, reportUsageInput } from '../domain/reported-usage.ts';
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

const reportedUsageOutput = named('ReportedUsage', z.object({ counted: count, ignored: count }));

export const usageRoutes: readonly Route[] = [
  route('POST /v1/usage', 'usage.report', {
    naming: 'as is',
    input: reportUsageInput,
    output: reportedUsageOutput,
    run: ({ deps, caller }, input) => reportUsage(deps, caller, input),
  }),
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
