/** Subjects: what all API keys of one user, organization or other share. Of most there is no row, and none is needed. */
import { eq } from 'drizzle-orm';
import { z } from 'zod';
import { lockName } from '../../db/lock.ts';
import type { DurableLane, Rows } from '../../db/store.ts';
import type { Caller, Deps } from '../deps.ts';
import type { Limit } from '../limits.ts';
import {
  creditsAt,
  creditsOf,
  grantCredits,
  removeCredits,
  sameCredits,
  setCreditsFields,
  withWholeRefill,
} from './credit-grants.ts';
import type { WithRemainingCredits } from './credits.ts';
import { change, type NewEvent } from './events.ts';
import { subject } from './fields.ts';
import { afterCursor, orderOf, type Page, pageInput, toPage } from './pages.ts';
import { rateLimit, rateLimitColumns, rateLimitOf } from './rate-limits.ts';

export interface Subject {
  id: string;
  /** Whether its keys, and OAuth tokens that act for it, verify at all. */
  enabled: boolean;
  /** Of all its keys together. */
  rateLimit: Limit | null;
  /** When something was first set for it; null, as `updatedAt`, where nothing ever was. */
  createdAt: number | null;
  updatedAt: number | null;
}

type SubjectRow = Rows['tables']['subjects']['$inferSelect'];

const owned = { id: subject.meta({ positional: true }) };

export const subjectIdInput = z.strictObject(owned);

/** A subject, known or not: who was never heard of is enabled and has no limits. */
export async function getSubject(
  deps: Deps,
  { id }: z.output<typeof subjectIdInput>,
): Promise<Subject & WithRemainingCredits> {
  return subjectAt(deps.store.read, id, deps.now());
}

export const listSubjectsInput = z.strictObject(pageInput);

/** Subjects for which something was ever set, the newest first. */
export async function listSubjects(
  deps: Deps,
  input: z.output<typeof listSubjectsInput>,
): Promise<Page<Subject>> {
  const { db, tables } = deps.store.read;
  const { subjects } = tables;
  const rows = await db
    .select()
    .from(subjects)
    .where(afterCursor(input.cursor, subjects.created_at, subjects.id, true))
    .orderBy(...orderOf(subjects.created_at, subjects.id, true))
    .limit(input.limit + 1)
    .offset(input.offset);
  return toPage(rows, input.limit, (row) => [row.created_at, row.id], toSubject);
}

export const setSubjectInput = z.strictObject({
  ...owned,
  /** Of all its keys together, beside what each has of its own; null for none. */
  rateLimit: rateLimit.nullable(),
});

/** Sets what a subject's keys share. What already is so leaves no event. */
export async function setSubject(
  deps: Deps,
  caller: Caller,
  input: z.output<typeof setSubjectInput>,
): Promise<Subject & WithRemainingCredits> {
  return changeSubject(
    deps,
    caller,
    input.id,
    async (_tx, before) => {
      if (JSON.stringify(rateLimitOf(before)) === JSON.stringify(input.rateLimit)) return null;
      return {
        columns: rateLimitColumns(input.rateLimit),
        event: { type: 'subject.updated', data: { changed: ['rateLimit'] } },
      };
    },
    'revocation',
  );
}

/** Enables or disables all keys of a subject, those to come too. A subject that already is as wanted leaves no event. */
export async function setSubjectEnabled(
  deps: Deps,
  caller: Caller,
  { id }: z.output<typeof subjectIdInput>,
  enabled: boolean,
): Promise<Subject & WithRemainingCredits> {
  return changeSubject(
    deps,
    caller,
    id,
    async (_tx, before) => {
      if (before.enabled === enabled) return null;
      return {
        columns: { enabled },
        event: enabled
          ? { type: 'subject.enabled' }
          : { type: 'subject.disabled', data: { selector: { subject: id } } },
      };
    },
    enabled ? 'normal' : 'revocation',
  );
}

export const setSubjectCreditsInput = withWholeRefill(z.strictObject({ ...owned, ...setCreditsFields }));

/** Sets what all keys of a subject may spend together, whatever it was before. What already is so leaves no event. */
export async function setSubjectCredits(
  deps: Deps,
  caller: Caller,
  { id, ...given }: z.output<typeof setSubjectCreditsInput>,
): Promise<Subject & WithRemainingCredits> {
  const now = deps.now();
  const wanted = creditsOf(given);
  return changeSubject(
    deps,
    caller,
    id,
    async (tx) => {
      const owner = { kind: 'subject' as const, id };
      if (sameCredits(wanted, await creditsAt(tx, owner, now))) return null;
      if (wanted) await grantCredits(tx, owner, wanted, now);
      else await removeCredits(tx, 'subject', [id]);
      return {
        columns: { has_credits: wanted !== null },
        event: { type: 'subject.credits_changed', data: { credits: wanted } },
      };
    },
    wanted ? 'revocation' : 'normal',
  );
}

/** A change of a subject's row: its columns and the event, without what all events of subjects have. Null for none. */
type SubjectChange = { columns: Partial<SubjectRow>; event: Pick<NewEvent, 'type' | 'data'> } | null;

/**
 * Changes a subject, whether or not there is a row of it yet: those who change the same one take turns. Answers it as it
 * is then; of one that nothing was ever set for, and still is not, no row remains.
 */
function changeSubject(
  deps: Deps,
  caller: Caller,
  id: string,
  work: (tx: Rows, before: SubjectRow) => Promise<SubjectChange>,
  lane: DurableLane,
): Promise<Subject & WithRemainingCredits> {
  const now = deps.now();
  return change(
    deps,
    caller,
    async (tx) => {
      await lockName(deps.store, tx, `subject ${id}`);
      const before = (await rowOf(tx, id)) ?? blank(id, now);
      const changed = await work(tx, before);
      if (!changed) return { result: await subjectAt(tx, id, now), event: null };
      const row = { ...before, ...changed.columns, updated_at: now };
      const { subjects } = tx.tables;
      await tx.db.insert(subjects).values(row).onConflictDoUpdate({ target: subjects.id, set: row });
      return {
        result: await shown(tx, row, now),
        event: { ...changed.event, objectId: id, subject: id },
      };
    },
    lane,
  );
}

async function rowOf({ db, tables: { subjects } }: Rows, id: string): Promise<SubjectRow | null> {
  const [row] = await db.select().from(subjects).where(eq(subjects.id, id));
  return row ?? null;
}

async function subjectAt(rows: Rows, id: string, now: number): Promise<Subject & WithRemainingCredits> {
  const row = await rowOf(rows, id);
  if (row) return shown(rows, row, now);
  return { ...toSubject(blank(id, now)), createdAt: null, updatedAt: null, remainingCredits: null };
}

const blank = (id: string, now: number): SubjectRow => ({
  id,
  enabled: true,
  ...rateLimitColumns(null),
  has_credits: false,
  created_at: now,
  updated_at: now,
});

async function shown(rows: Rows, row: SubjectRow, now: number): Promise<Subject & WithRemainingCredits> {
  const credits = row.has_credits ? await creditsAt(rows, { kind: 'subject', id: row.id }, now) : null;
  return { ...toSubject(row), remainingCredits: credits?.remaining ?? null };
}

const toSubject = (row: SubjectRow): Subject => ({
  id: row.id,
  enabled: row.enabled,
  rateLimit: rateLimitOf(row),
  createdAt: row.created_at,
  updatedAt: row.updated_at,
});
