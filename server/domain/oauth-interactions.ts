/** Interactions: authorization requests that wait for their user to sign in, or to consent. Each belongs to one browser. */
import { and, count, eq, gt } from 'drizzle-orm';
import { z } from 'zod';
import type { Rows } from '../../db/store.ts';
import { sortableId } from '../crypto/ids.ts';
import type { Deps } from '../deps.ts';
import { networkOf } from './addresses.ts';
import { OauthError } from './oauth-errors.ts';
import type { Address } from './secrets.ts';

export interface Interaction {
  id: string;
  /** Who asked; null where somebody only signs in to see what they allowed. */
  applicationId: string | null;
  /** The parameters of the request, as they came and were found sound. */
  parameters: Readonly<Record<string, string | string[]>>;
  /** What its user is to do next. */
  step: 'sign_in' | 'consent';
  createdAt: number;
  expiresAt: number;
}

type InteractionRow = Rows['tables']['oauthInteractions']['$inferSelect'];

const INTERACTION_MS = 30 * 60_000;
/** threats.md, operation: rows that nobody is authenticated for are capped. */
const INTERACTIONS_OF_NETWORK_MAX = 200;
const INTERACTIONS_MAX = 100_000;
const PARAMETERS_BYTES_MAX = 16_384;

export const interactionId = z
  .string()
  .regex(/^int_[0-9A-Za-z]{27}$/, 'wanted an id: int_ and 27 letters or digits');

export interface NewInteraction {
  applicationId: string | null;
  parameters: Record<string, string | string[]>;
  step: Interaction['step'];
  /** What the browser's cookie holds. */
  browser: string;
  address: Address;
}

/** Throws `temporarily_unavailable` where there are as many as there may be, and `invalid_request` for a request that is too large. */
export async function createInteraction(deps: Deps, interaction: NewInteraction): Promise<Interaction> {
  const now = deps.now();
  if (Buffer.byteLength(JSON.stringify(interaction.parameters)) > PARAMETERS_BYTES_MAX)
    throw new OauthError('invalid_request', `Wanted parameters of at most ${PARAMETERS_BYTES_MAX} bytes`);
  const row: InteractionRow = {
    id: sortableId('int_', now),
    application_id: interaction.applicationId,
    browser_hash: deps.keyring.hash(interaction.browser),
    parameters: interaction.parameters,
    step: interaction.step,
    upstream: null,
    outcome: null,
    resume_hash: null,
    resume_expires_at: null,
    network: networkOf(interaction.address()),
    created_at: now,
    expires_at: now + INTERACTION_MS,
  };
  await assertRoomForAll(deps);
  await deps.store.tx(async (tx) => {
    await assertRoomOfNetwork(tx, row.network, now);
    await tx.db.insert(tx.tables.oauthInteractions).values(row);
  }, 'minting');
  return toInteraction(row);
}

/** How long a count of all is believed: each goes through as many rows as there may be. */
const COUNTED_MS = 1_000;

interface Counted {
  isFull: boolean;
  at: number;
}

/** By the store of a process, of which there is one. */
const counted = new WeakMap<Deps['store'], Counted>();

async function assertRoomForAll({ store, now }: Deps): Promise<void> {
  const before = counted.get(store);
  const isKnown = before !== undefined && now() - before.at < COUNTED_MS;
  const { isFull } = isKnown ? before : await countAll(store, now());
  if (isFull) throw tooMany();
}

async function countAll(store: Deps['store'], now: number): Promise<Counted> {
  const { db, tables } = store.read;
  const { oauthInteractions: i } = tables;
  const beyond = await db
    .select({ id: i.id })
    .from(i)
    .where(gt(i.expires_at, now))
    .limit(1)
    .offset(INTERACTIONS_MAX - 1);
  const found = { isFull: beyond.length > 0, at: now };
  counted.set(store, found);
  return found;
}

async function assertRoomOfNetwork({ db, tables }: Rows, network: string, now: number): Promise<void> {
  const { oauthInteractions: i } = tables;
  const [ofNetwork] = await db
    .select({ count: count() })
    .from(i)
    .where(and(eq(i.network, network), gt(i.expires_at, now)));
  if ((ofNetwork?.count ?? 0) >= INTERACTIONS_OF_NETWORK_MAX) throw tooMany();
}

const tooMany = () =>
  new OauthError(
    'temporarily_unavailable',
    'Too many sign-ins were begun and not finished: try again in some minutes',
  );

/** Only in the browser that began it: to every other it is not there. Null for one that has expired. */
export async function findInteraction(
  deps: Deps,
  id: string | undefined,
  browser: string | undefined,
): Promise<Interaction | null> {
  if (browser === undefined || !interactionId.safeParse(id).success) return null;
  const row = await readInteraction(deps, id ?? '');
  return row?.browser_hash.equals(deps.keyring.hash(browser)) ? toInteraction(row) : null;
}

/** Whoever's it is: for the host application that its user was handed to. */
export async function readInteraction(deps: Deps, id: string): Promise<InteractionRow | null> {
  const { db, tables } = deps.store.read;
  const { oauthInteractions: i } = tables;
  const [row] = await db.select().from(i).where(eq(i.id, id));
  return row && row.expires_at > deps.now() ? row : null;
}

export async function setInteractionStep(deps: Deps, id: string, step: Interaction['step']): Promise<void> {
  await deps.store.tx(
    ({ db, tables: { oauthInteractions: i } }) => db.update(i).set({ step }).where(eq(i.id, id)),
    'minting',
  );
}

/** Whether it was still there: of two that finish it, one does. */
export async function endInteraction(tx: Rows, id: string): Promise<boolean> {
  const { oauthInteractions: i } = tx.tables;
  const ended = await tx.db.delete(i).where(eq(i.id, id)).returning({ id: i.id });
  return ended.length > 0;
}

const toInteraction = (row: InteractionRow): Interaction => ({
  id: row.id,
  applicationId: row.application_id,
  parameters: row.parameters,
  step: row.step,
  createdAt: row.created_at,
  expiresAt: row.expires_at,
});
