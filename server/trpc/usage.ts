import { reportUsage, reportUsageInput } from '../domain/reported-usage.ts';
import {
  usageOfApiKeys,
  usageOfApiKeysInput,
  usageOfSubjects,
  usageOfSubjectsInput,
} from '../domain/usage-reports.ts';
import { procedure, router } from './base.ts';

export const usageRouter = router({
  ofApiKeys: procedure
    .meta({ description: 'Show how often API keys were verified, by hour or by day of UTC' })
    .input(usageOfApiKeysInput)
    .query(({ ctx, input }) => usageOfApiKeys(ctx.deps, input)),
  ofSubjects: procedure
    .meta({
      description: 'Show how often all API keys of each subject were verified, by hour or by day of UTC',
    })
    .input(usageOfSubjectsInput)
    .query(({ ctx, input }) => usageOfSubjects(ctx.deps, input)),
  report: procedure
    .meta({
      description: 'Add what a verifier answered from memory; repeated under one batchId, it counts once',
      idempotent: true,
    })
    .input(reportUsageInput)
    .mutation(({ ctx, input }) => reportUsage(ctx.deps, ctx.caller, input)),
});
