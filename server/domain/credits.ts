/** Credits: what an API key, or all keys of a subject, may still spend on verifications. */
import { and, eq, placeholder, type SQL, sql } from 'drizzle-orm';
import { statement } from '../../db/statement.ts';
import type { Rows } from '../../db/store.ts';
import type { Deps } from '../deps.ts';

/** What a key, or all keys of a subject together, may still spend; null where nothing of their own limits it. */
export interface WithRemainingCredits {
  remainingCredits: number | null;
}

export interface CreditsOwner {
  kind: 'api_key' | 'subject';
  id: string;
}

/**
 * What remains to each owner, in their order, null where it has no credits to run out of; or what remains to the first
 * (by kind and id) whose credits do not suffice, where nothing was spent.
 */
export type Spent = { spent: true; remaining: (number | null)[] } | { spent: false; remaining: number };

/**
 * Takes `cost`, a whole number, from every owner or from none, each by one statement that brings up what is due first
 * and takes only what is there. An owner without credits has nothing taken. A cost of 0 writes nothing.
 */
export async function spendCredits(
  deps: Deps,
  owners: readonly CreditsOwner[],
  cost: number,
): Promise<Spent> {
  const now = deps.now();
  if (cost === 0) {
    const remaining = owners.map((owner) => remainingCredits(deps.store.read, owner, now));
    return { spent: true, remaining: await Promise.all(remaining) };
  }
  try {
    const remaining = await deps.store.tx((tx) => takeFromAll(tx, owners, cost, now), 'minting');
    return { spent: true, remaining: owners.map((owner) => remaining.get(owner) ?? null) };
  } catch (error) {
    if (error instanceof Insufficient) return { spent: false, remaining: error.remaining };
    throw error;
  }
}

/** What remains to an owner once what is due is brought up, or null where it has no credits to run out of. */
export async function remainingCredits(
  rows: Rows,
  { kind, id }: CreditsOwner,
  now: number,
): Promise<number | null> {
  const [found] = await readRemaining(rows, { kind, id, now });
  return found?.remaining ?? null;
}

/** Thrown to take back what was taken from others. */
class Insufficient extends Error {
  readonly remaining: number;
  constructor(remaining: number) {
    super('Not enough credits');
    this.remaining = remaining;
  }
}

async function takeFromAll(tx: Rows, owners: readonly CreditsOwner[], cost: number, now: number) {
  const remaining = new Map<CreditsOwner, number>();
  // In one order everywhere, so that two who spend the same at once cannot deadlock.
  for (const owner of [...owners].sort(byKindAndId)) {
    const { kind, id } = owner;
    const [taken] = await takeCredits(tx, { kind, id, cost, now });
    const left = taken?.remaining ?? (await remainingCredits(tx, owner, now));
    if (left === null) continue;
    if (!taken) throw new Insufficient(left);
    remaining.set(owner, left);
  }
  return remaining;
}

const byKindAndId = (a: CreditsOwner, b: CreditsOwner) =>
  `${a.kind} ${a.id}` < `${b.kind} ${b.id}` ? -1 : 1;

type Credits = Rows['tables']['credits'];

/** A parameter as a whole number: SQLite is sent numbers above 2³¹ as fractions, and would divide them as such. */
const whole = (name: string) => sql`cast(${placeholder(name)} as bigint)`;

/** The length of an interval in milliseconds; null where nothing is brought up. */
const intervalMs = (c: Credits) => sql`(${c.refill_interval_seconds} * 1000)`;

/** `remaining` with what is due: once an interval is over it is at least the refill, however many passed. */
const due = (c: Credits): SQL => sql`(case
  when ${whole('now')} - ${c.refilled_at} >= ${intervalMs(c)} and ${c.remaining} < ${c.refill_amount}
  then ${c.refill_amount} else ${c.remaining} end)`;

/** The beginning of the interval that `now` is in. */
const refilledAt = (c: Credits): SQL => sql`(case
  when ${whole('now')} - ${c.refilled_at} >= ${intervalMs(c)}
  then ${c.refilled_at} + (${whole('now')} - ${c.refilled_at}) / ${intervalMs(c)} * ${intervalMs(c)}
  else ${c.refilled_at} end)`;

const isOwned = (c: Credits) => and(eq(c.owner_kind, placeholder('kind')), eq(c.owner_id, placeholder('id')));

const takeCredits = statement((db, { credits: c }) =>
  db
    .update(c)
    .set({ remaining: sql`${due(c)} - ${whole('cost')}`, refilled_at: refilledAt(c) })
    .where(and(isOwned(c), sql`${due(c)} >= ${whole('cost')}`))
    .returning({ remaining: c.remaining })
    .prepare('credits_take'),
);

const readRemaining = statement((db, { credits: c }) =>
  db
    .select({ remaining: sql`${due(c)}`.mapWith(Number) })
    .from(c)
    .where(isOwned(c))
    .prepare('credits_remaining'),
);
