/** Retention: what became of deliveries is kept for 30 days. What is still owed to an endpoint that exists is never deleted. */
import { and, asc, eq, gte, inArray, lte, ne, notExists, sql } from 'drizzle-orm';
import type { Store } from '../../db/store.ts';
import type { Deps } from '../deps.ts';
import { owedEndpoints } from './delivery-claims.ts';
import type { JobCursor, JobStep } from './jobs.ts';
import { removeOwed } from './webhook-endpoints.ts';

const KEPT_MS = 30 * 24 * 3_600_000;

/** Rows looked at in one step. */
const BATCH = 100;

/** How far a pass is: what is owed to nobody, then deliveries by their creation, then attempts. */
interface Position {
  stage: 'owed to nobody' | 'deliveries' | 'attempts';
  at: number;
  id: string;
}

const BEGINNING: Position = { stage: 'owed to nobody', at: 0, id: '' };

/**
 * One step: what is owed to endpoints that were deleted goes, then deliveries that ended over 30 days ago with their
 * attempts, and attempts as old of those still pending.
 */
export async function pruneDeliveries(deps: Deps, cursor: JobCursor | null): Promise<JobStep> {
  const position = (cursor as unknown as Position | null) ?? BEGINNING;
  const cutoff = deps.now() - KEPT_MS;
  if (position.stage === 'owed to nobody') return pruneOwedToNobody(deps);
  return position.stage === 'deliveries' ? pruneEnded(deps, position, cutoff) : pruneAttempts(deps, cutoff);
}

/**
 * A deletion that was cut short leaves such rows, and one that was overtaken by a process that had read the endpoint.
 * They would hold up the pruning of events.
 */
async function pruneOwedToNobody(deps: Deps): Promise<JobStep> {
  const { db, tables } = deps.store.read;
  const { deliveries: d, webhookEndpoints: w } = tables;
  const [deleted] = await db
    .select({ id: sql<string>`owed_to.id` })
    .from(sql`(${owedEndpoints(db, d)}) as owed_to`)
    .where(notExists(db.select({ id: w.id }).from(w).where(sql`${w.id} = owed_to.id`)))
    .limit(1);
  if (!deleted) return { done: false, cursor: { ...BEGINNING, stage: 'deliveries' }, count: 0 };
  return { done: false, cursor: { ...BEGINNING }, count: await removeOwed(deps, deleted.id) };
}

/** A cursor leads past those that are pending: they stay, and would be looked at again and again. */
async function pruneEnded({ store }: Deps, { at, id }: Position, cutoff: number): Promise<JobStep> {
  const { deliveries: d } = store.read.tables;
  const old = await store.read.db
    .select({ id: d.id, createdAt: d.created_at, state: d.state })
    .from(d)
    .where(
      and(gte(d.created_at, at), lte(d.created_at, cutoff), sql`(${d.created_at}, ${d.id}) > (${at}, ${id})`),
    )
    .orderBy(asc(d.created_at), asc(d.id))
    .limit(BATCH);
  const ended = old.filter(({ state }) => state !== 'pending').map((row) => row.id);
  const deleted = await deleteEnded(store, ended, cutoff);
  const last = old.at(-1);
  const next: Position =
    last && old.length === BATCH
      ? { stage: 'deliveries', at: last.createdAt, id: last.id }
      : { stage: 'attempts', at: 0, id: '' };
  return { done: false, cursor: { ...next }, count: deleted };
}

/** One that was sent again since is pending, or was tried lately: `next_at` is when its last attempt would have been lost. */
async function deleteEnded(store: Store, ids: string[], cutoff: number): Promise<number> {
  if (ids.length === 0) return 0;
  return store.tx(async ({ db, tables: { deliveries: d, deliveryAttempts: a } }) => {
    const gone = await db
      .delete(d)
      .where(and(inArray(d.id, ids), ne(d.state, 'pending'), lte(d.next_at, cutoff)))
      .returning({ id: d.id });
    const goneIds = gone.map(({ id }) => id);
    if (goneIds.length > 0) await db.delete(a).where(inArray(a.delivery_id, goneIds));
    return goneIds.length;
  }, 'sweeping');
}

async function pruneAttempts({ store }: Deps, cutoff: number): Promise<JobStep> {
  const { deliveryAttempts: a } = store.read.tables;
  const old = await store.read.db
    .select({ deliveryId: a.delivery_id, attempt: a.attempt })
    .from(a)
    .where(lte(a.ended_at, cutoff))
    .orderBy(asc(a.ended_at))
    .limit(BATCH);
  if (old.length > 0)
    await store.tx(async ({ db }) => {
      for (const { deliveryId, attempt } of old)
        await db.delete(a).where(and(eq(a.delivery_id, deliveryId), eq(a.attempt, attempt)));
    }, 'sweeping');
  const next: Position = { stage: 'attempts', at: 0, id: '' };
  return old.length < BATCH
    ? { done: true, cursor: null, count: old.length }
    : { done: false, cursor: { ...next }, count: old.length };
}
