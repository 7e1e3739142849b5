/** How far behind the work is, as rows say: what operators watch. */
import { and, eq, inArray, isNotNull, lte, sql } from 'drizzle-orm';
import type { ReadingDeps } from '../deps.ts';
import { isPending, maySendTo, PRIORITIES } from './delivery-claims.ts';
import { listJobs } from './jobs.ts';

/** Counting more would take longer than anybody should wait for it. */
const COUNTED_MAX = 10_000;

/** Deliveries still owed, secrets that are overdue for rotation, and jobs. */
export async function readStanding(deps: ReadingDeps) {
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

/**
 * Due is what could be sent now: not what is owed to an endpoint that is disabled or asked for patience. The oldest is
 * that of an enabled endpoint, since what waits for a disabled one waits for somebody to enable it.
 */
async function readPending({ store }: Pick<ReadingDeps, 'store'>, now: number) {
  const { db, tables } = store.read;
  const { deliveries: d, webhookEndpoints: w } = tables;
  const owed = db.select({ id: d.id }).from(d).where(isPending).limit(COUNTED_MAX).as('owed');
  // By every column of the index, so that nothing is walked past that waits for later, or for another endpoint.
  const sendable = db.select({ id: w.id }).from(w).where(maySendTo(w, now));
  const due = db
    .select({ id: d.id })
    .from(d)
    .where(
      and(isPending, inArray(d.endpoint_id, sendable), inArray(d.priority, PRIORITIES), lte(d.next_at, now)),
    )
    .limit(COUNTED_MAX)
    .as('due');
  const enabled = db.select({ id: w.id }).from(w).where(eq(w.enabled, true));
  const old = db
    .select({ createdAt: d.created_at })
    .from(d)
    .where(and(isPending, inArray(d.endpoint_id, enabled)))
    .limit(COUNTED_MAX)
    .as('old');
  const [row] = await db
    .select({
      count: sql`count(*)`.mapWith(Number),
      due: sql`(select count(*) from ${due})`.mapWith(Number),
      oldest: sql`(select coalesce(min(${old.createdAt}), ${now}) from ${old})`.mapWith(Number),
    })
    .from(owed);
  const { count = 0, due: dueCount = 0, oldest = now } = row ?? {};
  return {
    pending: { due: dueCount, waiting: Math.max(0, count - dueCount) },
    oldestPendingMs: Math.max(0, now - oldest),
  };
}

async function countOverdueSecrets({ store }: Pick<ReadingDeps, 'store'>, now: number): Promise<number> {
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
