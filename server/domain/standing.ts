/** How far behind the work is, as rows say: what operators watch. */
import { and, asc, isNotNull, lte, sql } from 'drizzle-orm';
import type { Deps } from '../deps.ts';
import { listJobs } from './jobs.ts';

/** Counting more would take longer than anybody should wait for it. */
const COUNTED_MAX = 10_000;

/** Deliveries still owed, secrets that are overdue for rotation, and jobs. */
export async function readStanding(deps: Pick<Deps, 'store' | 'now'>) {
  const now = deps.now();
  const jobs = await listJobs(deps);
  return {
    ...(await readPending(deps, now)),
    overdueSecrets: await countOverdueSecrets(deps, now),
    jobs: jobs.map(({ name, failures, lastSucceededAt, nextAt, running }) => ({
      name,
      failures,
      lastSucceededAt,
      overdueMs: running ? 0 : Math.max(0, now - nextAt),
    })),
  };
}

async function readPending({ store }: Pick<Deps, 'store'>, now: number) {
  const { deliveries: d } = store.read.tables;
  // The index has this condition, and serves only a query that repeats it to the letter.
  const pending = store.read.db
    .select({ createdAt: d.created_at, nextAt: d.next_at })
    .from(d)
    .where(sql`state = 'pending'`)
    .orderBy(asc(d.priority), asc(d.next_at))
    .limit(COUNTED_MAX)
    .as('pending');
  const [row] = await store.read.db
    .select({
      count: sql`count(*)`.mapWith(Number),
      due: sql`coalesce(sum(case when ${pending.nextAt} <= ${now} then 1 else 0 end), 0)`.mapWith(Number),
      oldest: sql`coalesce(min(${pending.createdAt}), ${now})`.mapWith(Number),
    })
    .from(pending);
  const { count = 0, due = 0, oldest = now } = row ?? {};
  return { pending: { due, waiting: count - due }, oldestPendingMs: Math.max(0, now - oldest) };
}

async function countOverdueSecrets({ store }: Pick<Deps, 'store'>, now: number): Promise<number> {
  const { secrets: s } = store.read.tables;
  const overdue = store.read.db
    .select({ id: s.id })
    .from(s)
    // As the index has it.
    .where(and(isNotNull(s.rotate_by), lte(s.rotate_by, now)))
    .limit(COUNTED_MAX)
    .as('overdue');
  const [row] = await store.read.db.select({ count: sql`count(*)`.mapWith(Number) }).from(overdue);
  return row?.count ?? 0;
}
