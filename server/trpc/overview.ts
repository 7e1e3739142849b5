import { getOverview } from '../domain/overview.ts';
import { procedure, router } from './base.ts';

export const overviewRouter = router({
  get: procedure
    .meta({ description: 'Show what is verified, what there is, what expires this week, and what is behind' })
    .query(({ ctx }) => getOverview(ctx.deps)),
});
