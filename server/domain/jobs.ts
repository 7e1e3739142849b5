/** Scheduled jobs: when each is due, who is at it, and how it went. What a job does is in a file of its own. */
import { and, asc, eq, gt, isNotNull, isNull, lte, or, type SQL, sql } from 'drizzle-orm';
import { z } from 'zod';
import { type Rows, storeFailure } from '../../db/store.ts';
import type { Caller, Deps, ReadingDeps } from '../deps.ts';
import { CountersignError } from '../errors.ts';
import { change } from './events.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

interface Schedule {
  /** From the end of a run that succeeded to the next. */
  periodMs: number;
  /** What is deleted too early is gone: such a job waits while the time of day is in doubt. */
  purges: boolean;
  description: string;
}

export const JOBS = {
  'key-rotation': {
    periodMs: HOUR_MS,
    purges: false,
    description: 'Publishes, activates and retires signing keys',
  },
  'expiry-sweep': {
    periodMs: MINUTE_MS,
    purges: false,
    description: 'Announces API keys and secret keys that expire soon, and those that did',
  },
  'secret-rotation': {
    periodMs: MINUTE_MS,
    purges: false,
    description: 'Says which secrets are due for rotation, and has those expire whose policy says so',
  },
  'audit-checkpoint': {
    periodMs: HOUR_MS,
    purges: false,
    description: 'Signs what the log is now, so that whoever cuts or rewrites it later is found out',
  },
  'api-key-purge': {
    periodMs: HOUR_MS,
    purges: true,
    description: 'Deletes API keys that ended as long ago as their policies keep them listed',
  },
  'm2m-token-sweep': {
    periodMs: 10 * MINUTE_MS,
    purges: true,
    description: 'Deletes M2M tokens that expired over a day ago',
  },
  'oauth-sweep': {
    periodMs: HOUR_MS,
    purges: true,
    description:
      'Deletes codes and tokens of OAuth that expired over a day ago, and grants with nothing left',
  },
  'idempotency-prune': {
    periodMs: MINUTE_MS,
    purges: true,
    description: 'Deletes idempotency keys whose 24 hours have passed',
  },
  'session-prune': {
    periodMs: 10 * MINUTE_MS,
    purges: true,
    description:
      'Deletes sessions, sign-in links, invitations, panel tokens and interactions that have expired',
  },
  'registration-purge': {
    periodMs: 10 * MINUTE_MS,
    purges: true,
    description: 'Deletes OAuth applications that came unasked and that nobody used within a day',
  },
  'delivery-prune': {
    periodMs: HOUR_MS,
    purges: true,
    description: 'Deletes deliveries that came to an end over 30 days ago, and attempts as old',
  },
  'event-prune': {
    periodMs: HOUR_MS,
    purges: true,
    description: 'Deletes events of over 400 days ago, and keeps the anchor of the chain',
  },
} as const satisfies Record<string, Schedule>;

export type JobName = keyof typeof JOBS;

export const JOB_NAMES = Object.keys(JOBS) as [JobName, ...JobName[]];

/** Where a job goes on. */
export type JobCursor = Record<string, unknown>;

/** One small batch of a job's work: as much as may be done before others are let in again. */
export interface JobStep {
  /** Whether nothing is left to do in this run. */
  done: boolean;
  cursor: JobCursor | null;
  /** Rows written, deleted or announced. */
  count: number;
  /** What failed of single rows, which did not keep the others from being done. */
  errors?: readonly unknown[];
}

/** How long a process that was heard of last counts as being at it. */
export const LEASE_MS = 30_000;
/** A lease further ahead than it could be was written by a clock that has been put back since: it holds nobody off. */
const LEASE_AHEAD_MS_MAX = 2 * LEASE_MS;
/** Likewise of when a job is next due; clocks of several hosts may differ by less. */
const CLOCKS_APART_MS_MAX = HOUR_MS;
/** Doubled with each failure in a row, up to the period. */
const RETRY_MS = 10_000;

export interface Lease {
  name: JobName;
  holder: string;
  cursor: JobCursor | null;
  failures: number;
}

/** Makes the rows of jobs that there were none of; the first run of each is a period away. */
export async function ensureJobs({ store, now }: Pick<Deps, 'store' | 'now'>): Promise<void> {
  const { jobs } = store.read.tables;
  const known = new Set((await store.read.db.select({ name: jobs.name }).from(jobs)).map(({ name }) => name));
  const missing = JOB_NAMES.filter((name) => !known.has(name));
  if (missing.length === 0) return;
  const rows = missing.map((name) => ({ name, failures: 0, next_at: now() + JOBS[name].periodMs }));
  await store.tx(({ db }) => db.insert(jobs).values(rows).onConflictDoNothing());
}

/** The jobs that are due and that nobody is at. */
export async function dueJobs({ store, now }: Pick<Deps, 'store' | 'now'>): Promise<JobName[]> {
  const { jobs } = store.read.tables;
  const rows = await store.read.db
    .select({ name: jobs.name, nextAt: jobs.next_at, leaseExpiresAt: jobs.lease_expires_at })
    .from(jobs);
  const at = now();
  return JOB_NAMES.filter((name) =>
    rows.some((row) => row.name === name && isDue(name, row.nextAt, at) && isFree(row.leaseExpiresAt, at)),
  );
}

const isDue = (name: JobName, nextAt: number, now: number) =>
  nextAt <= now || nextAt > now + JOBS[name].periodMs + CLOCKS_APART_MS_MAX;

const isFree = (leaseExpiresAt: number | null, now: number) =>
  leaseExpiresAt === null || leaseExpiresAt <= now || leaseExpiresAt > now + LEASE_AHEAD_MS_MAX;

/**
 * Takes a job that is due, or one that is not where `whenever` says so; null where somebody else is at it or was faster.
 * Of several who try at once exactly one is given it: it is one UPDATE.
 */
export async function takeLease(
  { store, now }: Pick<Deps, 'store' | 'now'>,
  name: JobName,
  holder: string,
  { whenever = false } = {},
): Promise<Lease | null> {
  const at = now();
  const [taken] = await store.tx(({ db, tables: { jobs: j } }) => {
    const due = or(lte(j.next_at, at), gt(j.next_at, at + JOBS[name].periodMs + CLOCKS_APART_MS_MAX));
    const free = or(
      isNull(j.lease_expires_at),
      lte(j.lease_expires_at, at),
      gt(j.lease_expires_at, at + LEASE_AHEAD_MS_MAX),
    );
    return db
      .update(j)
      .set({ holder, lease_expires_at: at + LEASE_MS, last_started_at: at })
      .where(and(eq(j.name, name), free, whenever ? undefined : due))
      .returning({ cursor: j.cursor, failures: j.failures });
  });
  return taken ? { name, holder, cursor: taken.cursor, failures: taken.failures } : null;
}

/** Goes on holding it, and notes how far it came. False where somebody else took it, the lease having run out. */
export function renewLease(deps: Pick<Deps, 'store' | 'now'>, lease: Lease, cursor: JobCursor | null) {
  return saveJob(deps, lease, { cursor, lease_expires_at: deps.now() + LEASE_MS });
}

/** Gives it back, the work of this run being done. */
export function finishJob(deps: Pick<Deps, 'store' | 'now'>, lease: Lease, cursor: JobCursor | null) {
  const now = deps.now();
  return saveJob(deps, lease, {
    ...GIVEN_BACK,
    cursor,
    // Unless it was asked for while it ran: then it is due again at once.
    next_at: sql`case when next_at > last_started_at and next_at <= ${now} then next_at else ${now + JOBS[lease.name].periodMs} end`,
    failures: 0,
    last_succeeded_at: now,
    last_error: null,
  });
}

/** Gives it back unfinished: whoever takes it next goes on from the cursor. */
export function yieldJob(deps: Pick<Deps, 'store' | 'now'>, lease: Lease, cursor: JobCursor | null) {
  return saveJob(deps, lease, { ...GIVEN_BACK, cursor, next_at: deps.now() });
}

/** Gives it back after a failure: it is tried again from the cursor, sooner at first than later. */
export function failJob(
  deps: Pick<Deps, 'store' | 'now'>,
  lease: Lease,
  { cursor, error }: { cursor: JobCursor | null; error: unknown },
) {
  const now = deps.now();
  const retryMs = Math.min(JOBS[lease.name].periodMs, RETRY_MS * 2 ** Math.min(lease.failures, 20));
  return saveJob(deps, lease, {
    ...GIVEN_BACK,
    cursor,
    next_at: now + retryMs,
    failures: lease.failures + 1,
    last_failed_at: now,
    last_error: describeFailure(error),
  });
}

const GIVEN_BACK = { holder: null, lease_expires_at: null };

async function saveJob(
  { store }: Pick<Deps, 'store'>,
  { name, holder }: Lease,
  change: Partial<Omit<Rows['tables']['jobs']['$inferInsert'], 'next_at'>> & { next_at?: number | SQL },
): Promise<boolean> {
  const saved = await store.tx(({ db, tables: { jobs: j } }) =>
    db
      .update(j)
      .set(change)
      .where(and(eq(j.name, name), eq(j.holder, holder)))
      .returning({ name: j.name }),
  );
  return saved.length > 0;
}

/** Of a closed set: what a driver or a row says may hold what nobody should read here. The log of the process has more. */
function describeFailure(error: unknown): string {
  if (error instanceof CountersignError) return error.code;
  return storeFailure(error) ?? 'internal';
}

export interface Job {
  name: JobName;
  description: string;
  periodMs: number;
  /** Whether a process is at it now. */
  running: boolean;
  nextAt: number;
  /** Runs that failed since the last that did not. */
  failures: number;
  lastStartedAt: number | null;
  lastSucceededAt: number | null;
  lastFailedAt: number | null;
  /** A code: of `docs/errors.md`, or one of the database's failures. */
  lastError: string | null;
}

/** Every scheduled job, and how it went; those that no process has seen yet are missing. */
export async function listJobs({ store, now }: ReadingDeps): Promise<Job[]> {
  const { jobs } = store.read.tables;
  const rows = await store.read.db.select().from(jobs).orderBy(asc(jobs.name));
  const at = now();
  // A newer version beside this one may have jobs that this one does not know.
  return rows.filter(({ name }) => Object.hasOwn(JOBS, name)).map((row) => toJob(row, at));
}

export const runJobInput = z.strictObject({ name: z.enum(JOB_NAMES).meta({ positional: true }) });

/**
 * Has a job run as soon as a process that runs jobs looks, instead of when it would be due; one that is being run is run
 * once more. One that is due already is answered as it stands.
 */
export async function runJob(
  deps: Deps,
  caller: Caller,
  { name }: z.output<typeof runJobInput>,
): Promise<Job> {
  await ensureJobs(deps);
  return change(deps, caller, async (tx) => {
    const { jobs: j } = tx.tables;
    const now = deps.now();
    const isRunningUnasked = and(isNotNull(j.holder), lte(j.next_at, j.last_started_at));
    const moved = await tx.db
      .update(j)
      .set({ next_at: now })
      .where(and(eq(j.name, name), or(gt(j.next_at, now), isRunningUnasked)))
      .returning();
    const [row] = moved.length > 0 ? moved : await tx.db.select().from(j).where(eq(j.name, name));
    if (!row) throw new Error(`The job '${name}' has no row`);
    return {
      result: toJob(row, now),
      event: moved.length > 0 ? { type: 'job.requested', objectId: name } : null,
    };
  });
}

function toJob(row: Rows['tables']['jobs']['$inferSelect'], now: number): Job {
  const name = row.name as JobName;
  return {
    name,
    description: JOBS[name].description,
    periodMs: JOBS[name].periodMs,
    running: !isFree(row.lease_expires_at, now),
    nextAt: row.next_at,
    failures: row.failures,
    lastStartedAt: row.last_started_at,
    lastSucceededAt: row.last_succeeded_at,
    lastFailedAt: row.last_failed_at,
    lastError: row.last_error,
  };
}
