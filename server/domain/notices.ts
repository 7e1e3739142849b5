/** Notices: what was said of the end of a credential, kept so that of many who look it is said once. */
import { and, asc, eq, inArray, lt } from 'drizzle-orm';
import { type Rows, storeFailure } from '../../db/store.ts';
import type { Deps } from '../deps.ts';

export const DAY_MS = 86_400_000;

/** How long before its end a credential is spoken of, the shortest first. */
export const AHEAD_DAYS = [1, 7];
export const AHEAD_MS_MAX = 7 * DAY_MS;

/** Notices are kept for longer than anybody asks for them. */
const KEPT_MS = 30 * DAY_MS;
const FORGET_BATCH = 25;

type NoticesTable = Rows['tables']['expiryNotices'];

/** One thing to be said, with the instant that it is about: of another instant it is said anew. */
export interface Notice {
  kind: NoticesTable['$inferSelect']['owner_kind'];
  ownerId: string;
  notice: string;
}

const nameOf = ({ ownerId, notice }: Omit<Notice, 'kind'>) => `${ownerId} ${notice}`;

/** Leaves out what was said before. All are of one kind. */
export async function unsaid<T extends Notice>({ db, tables }: Rows, due: readonly T[]): Promise<T[]> {
  const [first] = due;
  if (!first) return [];
  const { expiryNotices: n } = tables;
  const rows = await db
    .select({ ownerId: n.owner_id, notice: n.notice })
    .from(n)
    .where(
      and(
        eq(n.owner_kind, first.kind),
        inArray(
          n.owner_id,
          due.map(({ ownerId }) => ownerId),
        ),
      ),
    );
  const said = new Set(rows.map(nameOf));
  return due.filter((notice) => !said.has(nameOf(notice)));
}

/** Notes in the transaction that says it. False where another was first: then it must not be said. */
export async function noteOnce(
  { db, tables: { expiryNotices: n } }: Rows,
  { now }: Pick<Deps, 'now'>,
  { kind, ownerId, notice }: Notice,
): Promise<boolean> {
  const noted = await db
    .insert(n)
    .values({ owner_kind: kind, owner_id: ownerId, notice, created_at: now() })
    .onConflictDoNothing()
    .returning({ id: n.owner_id });
  return noted.length > 0;
}

/** Deletes a batch of notices that nobody who goes on from an instant asks for; answers whether there may be more. */
export async function forgetNotices({ store }: Pick<Deps, 'store'>, from: number): Promise<boolean> {
  const { expiryNotices: n } = store.read.tables;
  const old = await store.read.db
    .select({ kind: n.owner_kind, id: n.owner_id, notice: n.notice })
    .from(n)
    .where(lt(n.created_at, from - KEPT_MS))
    .orderBy(asc(n.created_at))
    .limit(FORGET_BATCH);
  if (old.length === 0) return false;
  await store.tx(async (tx) => {
    for (const { kind, id, notice } of old)
      await tx.db.delete(n).where(and(eq(n.owner_kind, kind), eq(n.owner_id, id), eq(n.notice, notice)));
  }, 'sweeping');
  return old.length === FORGET_BATCH;
}

/** Works on one after the other; one that fails keeps no other from it. `count` is of those of which something came. */
export async function eachByItself<T>(items: readonly T[], work: (item: T) => Promise<boolean>) {
  const errors: unknown[] = [];
  let count = 0;
  for (const item of items) {
    try {
      if (await work(item)) count++;
    } catch (error) {
      // Of a database that is down no other would fare better.
      if (storeFailure(error)) throw error;
      errors.push(error);
    }
  }
  return { count, errors };
}
