/** How often API keys were verified, each or all of a subject together, by hour or by day of UTC. */
import { setImmediate as turn } from 'node:timers/promises';
import { and, asc, type Column, gte, inArray, lt, type SQL, sql } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import type { Deps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { apiKeyId, instant, subject } from './fields.ts';
import { HOUR_MS } from './usage.ts';

const IDS_MAX = 100;
const DAYS_DEFAULT = 30;
/** Hours of all ids together: as many rows may have to be read. It admits the default of 100 ids. */
const HOURS_MAX = 80_000;
/** Ids in one statement: between two of them others have their turn of the event loop. */
const IDS_PER_READ = 10;

const period = {
  /** Brought back to where its hour or day begins; without it, 30 days before `to`. */
  from: instant.optional(),
  /** Brought forward to where its hour or day ends; without it, now. */
  to: instant.optional(),
  granularity: z.enum(['hour', 'day']).default('day'),
};

type Period = Omit<z.output<typeof usageOfApiKeysInput>, 'ids'>;

const listOf = (id: z.ZodString) =>
  z
    .array(id)
    .min(1)
    .max(IDS_MAX)
    .refine((list) => new Set(list).size === list.length, 'wanted each once')
    .meta({ positional: true });

export const usageOfApiKeysInput = z.strictObject({ ids: listOf(apiKeyId), ...period });
export const usageOfSubjectsInput = z.strictObject({ subjects: listOf(subject), ...period });

/** Verifications in an hour or day; one without any has no entry. */
export interface UsageEntry {
  /** When it began. */
  at: number;
  valid: number;
  refused: number;
}

export interface UsageReport {
  /** What was asked for, in whole hours or days. */
  from: number;
  to: number;
  /** In the order in which they were asked for; what nobody has is without entries. */
  data: { id: string; usage: UsageEntry[] }[];
}

/** The usage of API keys. Servers write what they counted every few seconds. */
export function usageOfApiKeys(
  deps: Deps,
  { ids, ...given }: z.output<typeof usageOfApiKeysInput>,
): Promise<UsageReport> {
  const { usage } = deps.store.read.tables;
  return reportOf(deps, ids, given, { table: usage, id: usage.credential_id });
}

/** The usage of all API keys of each subject together. */
export function usageOfSubjects(
  deps: Deps,
  { subjects, ...given }: z.output<typeof usageOfSubjectsInput>,
): Promise<UsageReport> {
  const { subjectUsage } = deps.store.read.tables;
  return reportOf(deps, subjects, given, { table: subjectUsage, id: subjectUsage.subject });
}

interface Counted {
  table: Rows['tables']['usage'] | Rows['tables']['subjectUsage'];
  /** What its rows are of. */
  id: Column;
}

async function reportOf(deps: Deps, ids: string[], given: Period, counted: Counted): Promise<UsageReport> {
  const { from, to } = wholeHours(given, deps.now());
  assertBounded(ids.length, to - from);
  const entries = new Map<string, UsageEntry[]>(ids.map((id) => [id, []]));
  for (let i = 0; i < ids.length; i += IDS_PER_READ) {
    const rows = await read(deps, counted, ids.slice(i, i + IDS_PER_READ), { from, to }, given.granularity);
    for (const { id, hour, valid, refused } of rows)
      entries.get(id)?.push({ at: hour * HOUR_MS, valid, refused });
    await turn();
  }
  return {
    from: from * HOUR_MS,
    to: to * HOUR_MS,
    data: [...entries].map(([id, usage]) => ({ id, usage })),
  };
}

/** The period in hours since 1970: where its first hour or day begins, and where its last ends. */
function wholeHours({ from, to, granularity }: Period, now: number): { from: number; to: number } {
  const hours = granularity === 'day' ? 24 : 1;
  const end = to ?? now;
  const begin = from ?? Math.max(0, end - DAYS_DEFAULT * 24 * HOUR_MS);
  if (begin >= end) {
    throw new CountersignError(
      'invalid_input',
      `Cannot report usage: 'from' must be before ${end}, got ${begin}`,
      { field: 'from' },
    );
  }
  return {
    from: Math.floor(begin / HOUR_MS / hours) * hours,
    to: Math.ceil(end / HOUR_MS / hours) * hours,
  };
}

function assertBounded(ids: number, hours: number) {
  if (ids * hours <= HOURS_MAX) return;
  throw new CountersignError(
    'invalid_input',
    `Cannot report usage: all of the list together must be at most ${HOURS_MAX} hours, got ${ids} times ${hours}`,
    { field: 'from' },
  );
}

interface UsageRow {
  id: string;
  hour: number;
  valid: number;
  refused: number;
}

function read(
  { store }: Deps,
  { table, id }: Counted,
  ids: string[],
  { from, to }: { from: number; to: number },
  granularity: Period['granularity'],
): Promise<UsageRow[]> {
  const u = table as Rows['tables']['usage'];
  // Written out: to PostgreSQL two parameters are never one expression, and so could not be grouped by.
  const hour = granularity === 'day' ? sql`${u.hour} - ${u.hour} % 24` : sql`${u.hour}`;
  return store.read.db
    .select({
      id: sql<string>`${id}`,
      hour: hour.mapWith(Number),
      valid: sum(u.valid_count),
      refused: sum(u.refused_count),
    })
    .from(u)
    .where(and(inArray(id, ids), gte(u.hour, from), lt(u.hour, to)))
    .groupBy(sql`${id}`, hour)
    .orderBy(asc(id), asc(hour));
}

const sum = (column: Column): SQL<number> => sql`sum(${column})`.mapWith(Number);
