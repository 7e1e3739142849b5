/** Usage that verifiers report: what they answered from memory, and no server counted. */
import { inArray } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import type { Caller, Deps, Principal } from '../deps.ts';
import { apiKeyId, instant, m2mTokenId, oauthTokenId } from './fields.ts';
import { keepAnswer, replay } from './idempotency.ts';
import { type Count, HOUR_MS, writeCounts } from './usage.ts';

/** Written in one transaction, in a few milliseconds. */
const COUNTS_MAX = 100;
const COUNT_MAX = 1_000_000_000;
/** What is reported later than that is not believed. */
const HOURS_BACK_MAX = 48;

const count = z.number().int().min(0).max(COUNT_MAX);

const used = {
  /** Hours since 1970-01-01 UTC; within the last 48, and not ahead. */
  hour: z.number().int().min(0),
  valid: count,
  refused: count,
  /** When it was last answered to be valid. */
  lastUsedAt: instant.optional(),
};

const usageCount = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('api_key'), id: apiKeyId, ...used }),
  z.strictObject({ kind: z.literal('m2m_token'), id: m2mTokenId, ...used }),
  z.strictObject({ kind: z.literal('oauth_token'), id: oauthTokenId, ...used }),
]);

type UsageCount = z.output<typeof usageCount>;

export const reportUsageInput = z.strictObject({
  /** The caller's name for this report: sent again within 24 hours, it counts once. */
  batchId: z.string().regex(/^[A-Za-z0-9_-]{1,255}$/, "wanted 1 to 255 letters, digits, '_' and '-'"),
  counts: z
    .array(usageCount)
    .min(1)
    .max(COUNTS_MAX)
    .refine(
      (list) => new Set(list.map(({ id, hour }) => `${id} ${hour}`)).size === list.length,
      'wanted each hour of each credential once',
    ),
});

/** How many counts were added, and how many were not: of what is not there, not the caller's to verify, or not of these hours. */
export interface ReportedUsage {
  counted: number;
  ignored: number;
}

/** Adds what a verifier counted. Throws `idempotency_conflict` for another report of the same name. */
export async function reportUsage(
  deps: Deps,
  { principal }: Caller,
  { batchId, counts }: z.output<typeof reportUsageInput>,
): Promise<ReportedUsage> {
  const creation = { procedure: 'usage.report', input: { idempotencyKey: batchId, counts } } as const;
  return deps.store.tx(async (tx) => {
    const before = await replay<ReportedUsage>(tx, deps, principal, creation);
    if (before) return before;
    const now = deps.now();
    const believed = counts.filter(({ hour }) => isRecent(hour, now));
    const written = await countsOf(tx, principal, believed, now);
    await writeCounts(tx, [...written, ...inCommon(written)]);
    const reported = { counted: written.length, ignored: counts.length - written.length };
    await keepAnswer(tx, principal, creation, reported);
    return reported;
  }, 'minting');
}

function isRecent(hour: number, now: number): boolean {
  const current = Math.floor(now / HOUR_MS);
  // Clocks differ: the next hour may have begun elsewhere.
  return hour >= current - HOURS_BACK_MAX && hour <= current + 1;
}

/** With what it is counted under too: the subject of a key, the application of an access token. */
type WithCommon = Count & { common: Pick<Count, 'kind' | 'id'> | null };

/** Those of credentials that are there and that the caller may verify. */
async function countsOf(
  tx: Rows,
  principal: Principal,
  counts: readonly UsageCount[],
  now: number,
): Promise<WithCommon[]> {
  const known = new Map([
    ...(await keysOf(tx, principal, idsOf(counts, 'api_key'))),
    ...(await m2mTokensOf(tx, principal, idsOf(counts, 'm2m_token'))),
    ...(await oauthTokensOf(tx, principal, idsOf(counts, 'oauth_token'))),
  ]);
  return counts.flatMap(({ kind, id, hour, valid, refused, lastUsedAt = 0 }) => {
    const common = known.get(id);
    if (common === undefined) return [];
    return [{ kind, id, hour, valid, refused, lastUsedAt: Math.min(lastUsedAt, now), common }];
  });
}

type Known = Map<string, WithCommon['common']>;

const mayVerifyOthers = (principal: Principal) => principal.kind !== 'machine' || principal.mayVerify;

const idsOf = (counts: readonly UsageCount[], wanted: UsageCount['kind']) =>
  counts.flatMap(({ kind, id }) => (kind === wanted ? [id] : []));

async function keysOf(
  { db, tables: { apiKeys: k } }: Rows,
  principal: Principal,
  ids: string[],
): Promise<Known> {
  if (ids.length === 0 || !mayVerifyOthers(principal)) return new Map();
  const rows = await db.select({ id: k.id, subject: k.subject }).from(k).where(inArray(k.id, ids));
  return new Map(rows.map(({ id, subject }) => [id, { kind: 'subject', id: subject }]));
}

async function oauthTokensOf(
  { db, tables: { oauthTokens: t } }: Rows,
  principal: Principal,
  ids: string[],
): Promise<Known> {
  if (ids.length === 0 || !mayVerifyOthers(principal)) return new Map();
  const rows = await db
    .select({ id: t.id, applicationId: t.application_id })
    .from(t)
    .where(inArray(t.id, ids));
  return new Map(rows.map(({ id, applicationId }) => [id, { kind: 'oauth_application', id: applicationId }]));
}

async function m2mTokensOf(
  { db, tables: { m2mTokens: t } }: Rows,
  principal: Principal,
  ids: string[],
): Promise<Known> {
  if (ids.length === 0) return new Map();
  const rows = await db.select({ id: t.id, audience: t.audience }).from(t).where(inArray(t.id, ids));
  const isTheirs = ({ audience }: { audience: string[] }) =>
    principal.kind !== 'machine' || audience.includes(principal.id);
  return new Map(rows.filter(isTheirs).map(({ id }) => [id, null]));
}

/** All that have something in common are counted together too, by hour. */
function inCommon(counts: readonly WithCommon[]): Count[] {
  const sums = new Map<string, Count>();
  for (const { common, hour, valid, refused, lastUsedAt } of counts) {
    if (common === null) continue;
    const key = `${common.kind} ${hour} ${common.id}`;
    const sum = sums.get(key) ?? { ...common, hour, valid: 0, refused: 0, lastUsedAt: 0 };
    sums.set(key, {
      ...sum,
      valid: sum.valid + valid,
      refused: sum.refused + refused,
      lastUsedAt: Math.max(sum.lastUsedAt, lastUsedAt),
    });
  }
  return [...sums.values()];
}
