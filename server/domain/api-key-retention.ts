/** Retention: API keys that ended stay listed for as long as their policy says, and are deleted then. */
import { and, asc, eq, gt, inArray, isNotNull, isNull, lte, or, sql } from 'drizzle-orm';
import type { Rows } from '../../db/store.ts';
import type { Caller, Deps } from '../deps.ts';
import { removeCredits } from './credit-grants.ts';
import { change } from './events.ts';
import { RETENTION_SECONDS } from './key-policies.ts';

const RETENTION: Caller = { principal: { kind: 'system', id: 'retention' }, requestId: 'retention' };

/**
 * Deletes up to `limit` keys that were revoked or expired longer ago than their policy keeps them listed, with all that
 * hangs on them, as one event; answers how many. A key that is both ended with the first of the two.
 */
export async function purgeEndedApiKeys(deps: Deps, limit: number): Promise<number> {
  const now = deps.now();
  const due = await dueKeys(deps.store.read, now, limit);
  if (due.length === 0) return 0;
  await trimUsage(
    deps,
    due.flatMap(({ ids }) => ids),
  );
  return change(
    deps,
    RETENTION,
    async (tx) => {
      const ids: string[] = [];
      for (const group of due) ids.push(...(await deleteStillDue(tx, group, now)));
      if (ids.length === 0) return { result: 0, event: null };
      await deleteBelongings(tx, ids);
      const data = { count: ids.length, selector: { apiKeyIds: ids } };
      return { result: ids.length, event: { type: 'api_key.purged', objectId: 'api_keys', data } };
    },
    'minting',
  );
}

/** Keys of one policy, or of none, that are to be deleted. */
interface Due {
  policyId: string | null;
  ids: string[];
}

type EndColumn = 'revoked_at' | 'expires_at';

/** What ended first among the keys of each policy: two indexes hold them so. */
async function dueKeys(rows: Rows, now: number, limit: number): Promise<Due[]> {
  const due: Due[] = [];
  const found = new Set<string>();
  for (const column of ['revoked_at', 'expires_at'] as const) {
    for (const policyId of [null, ...(await policiesWithEnds(rows, column))]) {
      const cutoff = now - (await retentionMs(rows, policyId));
      const ended = await endedUntil(rows, { policyId, column, cutoff, limit: limit - found.size });
      const ids = ended.filter((id) => !found.has(id));
      if (ids.length > 0) due.push({ policyId, ids });
      for (const id of ids) found.add(id);
      if (found.size >= limit) return due;
    }
  }
  return due;
}

/** Also those that were deleted since: each is one step along the index, however many keys it has. */
async function policiesWithEnds({ db, tables: { apiKeys } }: Rows, column: EndColumn): Promise<string[]> {
  const ids: string[] = [];
  for (;;) {
    const [next] = await db
      .select({ policyId: apiKeys.policy_id })
      .from(apiKeys)
      .where(and(gt(apiKeys.policy_id, ids.at(-1) ?? ''), isNotNull(apiKeys[column])))
      .orderBy(asc(apiKeys.policy_id))
      .limit(1);
    if (!next?.policyId) return ids;
    ids.push(next.policyId);
  }
}

async function endedUntil(
  { db, tables: { apiKeys } }: Rows,
  {
    policyId,
    column,
    cutoff,
    limit,
  }: { policyId: string | null; column: EndColumn; cutoff: number; limit: number },
): Promise<string[]> {
  const rows = await db
    .select({ id: apiKeys.id })
    .from(apiKeys)
    .where(
      and(
        policyId === null ? isNull(apiKeys.policy_id) : eq(apiKeys.policy_id, policyId),
        lte(apiKeys[column], cutoff),
        // The index has this condition, and SQLite only sees that it is met where it is written out.
        isNotNull(apiKeys[column]),
      ),
    )
    .orderBy(asc(apiKeys[column]))
    .limit(limit);
  return rows.map(({ id }) => id);
}

async function retentionMs({ db, tables: { keyPolicies } }: Rows, policyId: string | null): Promise<number> {
  if (policyId === null) return RETENTION_SECONDS * 1000;
  const [policy] = await db
    .select({ seconds: keyPolicies.retention_seconds })
    .from(keyPolicies)
    .where(eq(keyPolicies.id, policyId));
  return (policy?.seconds ?? RETENTION_SECONDS) * 1000;
}

/** Of keys that were due when they were read, those that still are: others may have been given a later expiry since. */
async function deleteStillDue(tx: Rows, { policyId, ids }: Due, now: number): Promise<string[]> {
  const { apiKeys } = tx.tables;
  const cutoff = now - (await retentionMs(tx, policyId));
  const deleted = await tx.db
    .delete(apiKeys)
    .where(
      and(inArray(apiKeys.id, ids), or(lte(apiKeys.revoked_at, cutoff), lte(apiKeys.expires_at, cutoff))),
    )
    .returning({ id: apiKeys.id });
  return deleted.map(({ id }) => id);
}

/** Rows of usage deleted in one transaction: those of a key that was used for years would hold the writer. */
const USAGE_BATCH = 1_000;

/** Where there is much usage it goes first, and bit by bit; the rest goes with the keys. */
async function trimUsage(deps: Deps, ids: readonly string[]): Promise<void> {
  while ((await usageOf(deps.store.read, ids).limit(1).offset(USAGE_BATCH)).length > 0)
    await deps.store.tx((tx) => deleteSomeUsage(tx, ids), 'sweeping');
}

async function deleteSomeUsage(tx: Rows, ids: readonly string[]): Promise<void> {
  const { usage } = tx.tables;
  const some = usageOf(tx, ids).limit(USAGE_BATCH);
  await tx.db.delete(usage).where(sql`(${usage.credential_id}, ${usage.hour}) in ${some}`);
}

const usageOf = ({ db, tables: { usage } }: Rows, ids: readonly string[]) =>
  db
    .select({ id: usage.credential_id, hour: usage.hour })
    .from(usage)
    .where(inArray(usage.credential_id, [...ids]))
    .orderBy(asc(usage.credential_id), asc(usage.hour));

/** Deletes what hangs on API keys that are being deleted: secrets, credits and usage. */
export async function deleteBelongings(tx: Rows, ids: readonly string[]): Promise<void> {
  const { secrets, usage } = tx.tables;
  await tx.db
    .delete(secrets)
    .where(and(eq(secrets.owner_kind, 'api_key'), inArray(secrets.owner_id, [...ids])));
  await removeCredits(tx, 'api_key', ids);
  await tx.db.delete(usage).where(inArray(usage.credential_id, [...ids]));
}
