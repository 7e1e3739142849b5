import { listJobs, runJob, runJobInput } from '../domain/jobs.ts';
import { procedure, router } from './base.ts';

export const jobsRouter = router({
  list: procedure
    .meta({ description: 'List scheduled jobs, when each is due and how it went' })
    .query(({ ctx }) => listJobs(ctx.deps)),
  run: procedure
    .meta({ description: 'Have a scheduled job run at once', idempotent: true })
    .input(runJobInput)
    .mutation(({ ctx, input }) => runJob(ctx.deps, ctx.caller, input)),
});
