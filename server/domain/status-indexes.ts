/** Status indexes: the place of a JWT in a status list, handed out from blocks that this process took for itself. */
import { and, asc, desc, eq, lt, sql } from 'drizzle-orm';
import { lockInstallation } from '../../db/lock.ts';
import type { Rows } from '../../db/store.ts';
import { sortableId } from '../crypto/ids.ts';
import { freshBytes } from '../crypto/random.ts';
import { STATUS_LIST_LENGTH, shuffledIndexes } from '../crypto/status-list.ts';
import type { Deps } from '../deps.ts';

export interface StatusIndex {
  listId: string;
  index: number;
}

/** The indexes that one process has in hand. */
export interface StatusIndexes {
  /** An index that nobody was given before; at once, unless there was none left. */
  take(deps: BlockDeps): StatusIndex | Promise<StatusIndex>;
}

type BlockDeps = Pick<Deps, 'store' | 'now'>;

const BLOCK_LENGTH = 1_024;
export const BLOCKS_OF_LIST = STATUS_LIST_LENGTH / BLOCK_LENGTH;
/** With so many left the next block is fetched: some 25 ms ahead of a process that mints all it can. */
const REFILL_AT = BLOCK_LENGTH / 2;
/** A list that was last taken from longer ago is given to no further token. */
export const BLOCK_HELD_MS_MAX = 24 * 3_600_000;

interface Block {
  listId: string;
  takenAt: number;
  indexes: Uint32Array;
  /** How many were handed out. */
  given: number;
}

export function createStatusIndexes(): StatusIndexes {
  /** The one that is handed out, and the next. */
  const blocks: Block[] = [];
  let fetching: Promise<void> | undefined;
  /** Of the list last taken from: 128 blocks are cut from what takes milliseconds to shuffle. */
  let shuffled: { listId: string; indexes: Uint32Array } | undefined;

  function fetchBlock(deps: BlockDeps): Promise<void> {
    const takenAt = deps.now();
    fetching ??= deps.store
      // Ahead of minting, which may be waiting for it.
      .tx((tx) => takeFromAny(tx, takenAt), 'normal')
      .then((taken) => void blocks.push(blockOf(taken, takenAt)))
      .finally(() => {
        fetching = undefined;
      });
    return fetching;
  }

  function blockOf({ id, seed, blocksTaken }: Taken, takenAt: number): Block {
    if (shuffled?.listId !== id) shuffled = { listId: id, indexes: shuffledIndexes(seed) };
    const end = blocksTaken * BLOCK_LENGTH;
    return { listId: id, takenAt, indexes: shuffled.indexes.slice(end - BLOCK_LENGTH, end), given: 0 };
  }

  function take(deps: BlockDeps): StatusIndex | Promise<StatusIndex> {
    const now = deps.now();
    while (blocks[0] && isSpent(blocks[0], now)) blocks.shift();
    const [block] = blocks;
    if (!block) return fetchBlock(deps).then(() => take(deps));
    const index = block.indexes[block.given++] as number;
    if (blocks.length === 1 && BLOCK_LENGTH - block.given <= REFILL_AT) {
      // Whoever finds none left is told why.
      fetchBlock(deps).catch(() => {});
    }
    return { listId: block.listId, index };
  }

  return { take };
}

const isSpent = ({ given, takenAt }: Block, now: number) =>
  given === BLOCK_LENGTH || now - takenAt > BLOCK_HELD_MS_MAX;

interface Taken {
  id: string;
  seed: Buffer;
  /** The last of them is ours. */
  blocksTaken: number;
}

/** Those who find no list with a block left take turns, on the installation's one row: the first makes one for all. */
async function takeFromAny(tx: Rows, now: number): Promise<Taken> {
  const taken = await takeFromOpen(tx, now);
  if (taken) return taken;
  await lockInstallation(tx, 1);
  return (await takeFromOpen(tx, now)) ?? insertList(tx, now);
}

/** The fullest first, so that lists fill up and can be deleted one day. */
async function takeFromOpen({ db, tables: { statusLists: l } }: Rows, now: number): Promise<Taken | null> {
  const hasBlocks = lt(l.blocks_taken, BLOCKS_OF_LIST);
  const fullest = db
    .select({ id: l.id })
    .from(l)
    .where(hasBlocks)
    .orderBy(desc(l.blocks_taken), asc(l.id))
    .limit(1);
  const [taken] = await db
    .update(l)
    .set({ blocks_taken: sql`${l.blocks_taken} + 1`, updated_at: now })
    // Another process may have taken its last block since it was found.
    .where(and(eq(l.id, sql`(${fullest})`), hasBlocks))
    .returning({ id: l.id, seed: l.seed, blocksTaken: l.blocks_taken });
  return taken ?? null;
}

async function insertList({ db, tables: { statusLists: l } }: Rows, now: number): Promise<Taken> {
  const id = sortableId('sl_', now);
  const seed = freshBytes(32);
  await db.insert(l).values({ id, seed, blocks_taken: 1, created_at: now, updated_at: now });
  return { id, seed, blocksTaken: 1 };
}
