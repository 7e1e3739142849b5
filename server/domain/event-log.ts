/** The log as a whole: pruned from its beginning, and checked from there to its head. */
import { and, asc, desc, eq, gt, lt, lte, sql } from 'drizzle-orm';
import type { Rows } from '../../db/store.ts';
import type { Keyring } from '../crypto/keyring.ts';
import type { Caller, Deps } from '../deps.ts';
import { earlierEpochs } from './backups.ts';
import { type Checkpoint, readCheckpoint } from './checkpoints.ts';
import { chainHash, change } from './events.ts';
import type { Signer } from './signing-keys.ts';

/** contract.md, semantics. */
const KEPT_MS = 400 * 24 * 3_600_000;

const PRUNE: Caller = { principal: { kind: 'system', id: 'event-prune' }, requestId: 'event-prune' };

/** Where the chain begins: after the last event that was pruned, or at the very beginning. */
interface Anchor {
  seq: number;
  hash: Buffer;
}

const BEGINNING: Anchor = { seq: 0, hash: Buffer.alloc(32) };

async function readAnchor({ db, tables: { eventAnchor: a } }: Rows): Promise<Anchor> {
  const [anchor] = await db.select({ seq: a.seq, hash: a.hash }).from(a);
  return anchor ?? BEGINNING;
}

/**
 * Deletes up to `limit` of the oldest events that are older than 400 days; answers how many. Never one that a webhook
 * endpoint may still be owed, nor one after the last checkpoint. The anchor moves with them, and `log.pruned` says so.
 */
export async function pruneEvents(deps: Deps, limit: number): Promise<number> {
  const anchor = await readAnchor(deps.store.read);
  const upTo = await prunableUpTo(deps, anchor.seq, limit);
  if (!upTo) return 0;
  return change(
    deps,
    PRUNE,
    async (tx) => {
      if (!(await moveAnchor(tx, anchor.seq, upTo))) return { result: 0, event: null };
      const { events: e, eventCheckpoints: c } = tx.tables;
      await tx.db.delete(e).where(lte(e.seq, upTo.seq));
      await tx.db.delete(c).where(lt(c.seq, upTo.seq));
      const data = { seq: upTo.seq, hash: upTo.hash.toString('hex') };
      return { result: upTo.seq - anchor.seq, event: { type: 'log.pruned', objectId: 'events', data } };
    },
    'minting',
  );
}

/** The last event that may go, of the next `limit`. */
async function prunableUpTo({ store, now }: Deps, after: number, limit: number) {
  const { events: e } = store.read.tables;
  const bound = await lastUnneeded(store.read, after, after + limit);
  const [upTo] = await store.read.db
    .select({ seq: e.seq, hash: e.hash, at: e.at })
    .from(e)
    .where(and(gt(e.seq, after), lte(e.seq, bound), lte(e.at, now() - KEPT_MS)))
    .orderBy(desc(e.seq))
    .limit(1);
  return upTo;
}

/** Up to where nothing is owed to anybody, and a checkpoint vouches for what was. */
async function lastUnneeded({ db, tables }: Rows, after: number, upTo: number): Promise<number> {
  const { webhookCursor: w, eventCheckpoints: c, deliveries: d } = tables;
  const [written] = await db.select({ seq: w.event_seq }).from(w);
  const [vouched] = await db.select({ seq: c.seq }).from(c).orderBy(desc(c.seq)).limit(1);
  const [owed] = await db
    .select({ seq: d.event_seq })
    .from(d)
    .where(and(gt(d.event_seq, after), lte(d.event_seq, upTo), eq(d.state, 'pending')))
    .orderBy(asc(d.event_seq))
    .limit(1);
  return Math.min(upTo, written?.seq ?? 0, vouched?.seq ?? 0, owed ? owed.seq - 1 : upTo);
}

/** Of several who prune at once, the one that moves the anchor deletes. */
async function moveAnchor(tx: Rows, from: number, to: Anchor & { at: number }): Promise<boolean> {
  const { eventAnchor: a } = tx.tables;
  const moved =
    from === 0
      ? await tx.db
          .insert(a)
          .values({ id: 1, ...to })
          .onConflictDoNothing()
          .returning({ seq: a.seq })
      : await tx.db.update(a).set(to).where(eq(a.seq, from)).returning({ seq: a.seq });
  return moved.length > 0;
}

/** The first thing found that is not as this installation wrote it. */
export interface LogFault {
  /** Where: the sequence of the event, or of what a checkpoint names. */
  seq: number;
  fault:
    | 'anchor'
    | 'missing'
    | 'changed'
    | 'beyond_head'
    | 'cut'
    | 'head'
    | 'checkpoint_forged'
    | 'checkpoint_foreign'
    | 'checkpoint_contradicted'
    | 'pruned_early';
  message: string;
}

export interface LogReport {
  /** The first event there is to check, and the last. */
  firstSeq: number;
  headSeq: number;
  /** Events and stored checkpoints that were found to be genuine. */
  events: number;
  checkpoints: number;
  fault: LogFault | null;
}

export interface LogDeps {
  store: Pick<Deps['store'], 'read'>;
  keyring: Pick<Keyring, 'log'>;
  signer: Pick<Signer, 'find'>;
}

export interface VerifyLogOptions {
  /** A checkpoint that was kept elsewhere, as a compact JWS. */
  checkpoint?: string | undefined;
  now: number;
  onProgress?: (progress: { done: number; total: number }) => void;
}

const BATCH = 500;

/**
 * Walks the chain from its anchor to the head, and holds it against every checkpoint there is; stops at the first fault.
 * What is appended meanwhile is not looked at.
 */
export async function verifyLog(deps: LogDeps, options: VerifyLogOptions): Promise<LogReport> {
  const extent = await readExtent(deps.store.read);
  const report: LogReport = {
    firstSeq: extent.anchor.seq + 1,
    headSeq: extent.head.seq,
    events: 0,
    checkpoints: 0,
    fault: null,
  };
  const given = await readGiven(deps, extent, options);
  if (given.fault) return { ...report, fault: given.fault };
  const walk = await walkChain(deps, extent, given.checkpoint, options, report);
  if (walk.fault?.fault === 'missing' && (await readAnchor(deps.store.read)).seq !== extent.anchor.seq) {
    // It was pruned before it was reached: there is another beginning now.
    return verifyLog(deps, options);
  }
  return { ...report, ...walk };
}

/** What there is at one instant, in one query: others go on appending. */
interface Extent {
  epoch: string;
  anchor: Anchor;
  head: Anchor;
  /** The last row, whatever the head says; 0 for none. */
  lastSeq: number;
  /** The newest stored checkpoint; 0 for none. */
  lastCheckpointSeq: number;
  /** Epochs that it had before it was restored, each up to which event. */
  earlier: ReadonlyMap<string, number>;
}

async function readExtent(rows: Rows): Promise<Extent> {
  const { db, tables } = rows;
  const { eventHead: h, eventAnchor: a, installation: i, events: e, eventCheckpoints: c } = tables;
  const [row] = await db
    .select({
      epoch: i.epoch,
      headSeq: h.seq,
      headHash: h.hash,
      anchorSeq: a.seq,
      anchorHash: a.hash,
      lastSeq: sql`(select coalesce(max(${e.seq}), 0) from ${e})`.mapWith(Number),
      lastCheckpointSeq: sql`(select coalesce(max(${c.seq}), 0) from ${c})`.mapWith(Number),
    })
    .from(h)
    .innerJoin(i, eq(i.id, h.id))
    .leftJoin(a, eq(a.id, h.id));
  if (!row) throw new Error('The log has no head: the database was never set up');
  const { anchorSeq, anchorHash } = row;
  return {
    epoch: row.epoch,
    anchor: anchorSeq === null || anchorHash === null ? BEGINNING : { seq: anchorSeq, hash: anchorHash },
    head: { seq: row.headSeq, hash: row.headHash },
    lastSeq: row.lastSeq,
    lastCheckpointSeq: row.lastCheckpointSeq,
    earlier: await earlierEpochs(rows),
  };
}

/** The checkpoint that was kept elsewhere, as far as it can be judged before the walk. */
async function readGiven(
  { signer }: LogDeps,
  extent: Extent,
  { checkpoint: jws, now }: VerifyLogOptions,
): Promise<{ checkpoint: Checkpoint | null; fault: LogFault | null }> {
  if (jws === undefined) return { checkpoint: null, fault: null };
  const checkpoint = await readCheckpoint(signer, jws);
  return { checkpoint, fault: judgeGiven(extent, checkpoint, now) };
}

function judgeGiven(extent: Extent, checkpoint: Checkpoint | null, now: number): LogFault | null {
  const { epoch, anchor, head } = extent;
  if (!checkpoint) {
    const message = 'The checkpoint given bears no signature of a key of this installation';
    return { seq: 0, fault: 'checkpoint_forged', message };
  }
  const { seq, at } = checkpoint;
  if (!isOfThisLog(extent, checkpoint))
    return {
      seq,
      fault: 'checkpoint_foreign',
      message: `The checkpoint given is of epoch '${checkpoint.epoch}', the database of '${epoch}'`,
    };
  if (seq > head.seq)
    return {
      seq: head.seq + 1,
      fault: 'cut',
      message: `The log was cut: the checkpoint given vouches for events up to ${seq}, and the head is at ${head.seq}`,
    };
  if (seq < anchor.seq && at > now - KEPT_MS)
    return {
      seq,
      fault: 'pruned_early',
      message: `Events up to ${anchor.seq} are said to be pruned, and the checkpoint given of ${seq} is younger than 400 days`,
    };
  return null;
}

/** Signed in this epoch; or in one before, and no later than what this database was restored from. */
const isOfThisLog = ({ epoch, earlier }: Extent, checkpoint: Checkpoint) =>
  checkpoint.epoch === epoch || checkpoint.seq <= (earlier.get(checkpoint.epoch) ?? -1);

type EventRow = Omit<Rows['tables']['events']['$inferSelect'], 'data'> & { data: string };

async function walkChain(
  deps: LogDeps,
  extent: Extent,
  given: Checkpoint | null,
  { onProgress }: VerifyLogOptions,
  report: LogReport,
): Promise<Pick<LogReport, 'events' | 'checkpoints' | 'fault'>> {
  const { anchor, head } = extent;
  let { events, checkpoints } = report;
  let at = anchor;
  /** What `log.pruned` last said: only that makes an anchor. */
  let attested: Anchor = BEGINNING;
  const stop = (fault: LogFault | null) => ({ events, checkpoints, fault });

  if (given?.seq === anchor.seq && given.hash !== anchor.hash.toString('hex'))
    return stop(contradicted(given.seq, 'given'));
  while (at.seq < head.seq) {
    const rows = await readRows(deps.store.read, at.seq, Math.min(at.seq + BATCH, head.seq));
    const stored = await readStored(deps, extent, at.seq, rows.at(-1)?.seq ?? at.seq);
    if (stored.fault) return stop(stored.fault);
    for (const row of rows) {
      const fault = judgeRow(deps.keyring.log, at, row);
      if (fault) return stop(fault);
      at = { seq: row.seq, hash: row.hash };
      events++;
      if (row.type === 'log.pruned') attested = anchorOf(row);
      const hash = row.hash.toString('hex');
      const known = stored.hashes.get(row.seq);
      if (known !== undefined && known !== hash) return stop(contradicted(row.seq, 'stored'));
      if (known !== undefined) checkpoints++;
      if (given?.seq === row.seq && given.hash !== hash) return stop(contradicted(row.seq, 'given'));
    }
    if (rows.length === 0) return stop(missingAfter(extent, at.seq));
    onProgress?.({ done: at.seq - anchor.seq, total: head.seq - anchor.seq });
  }
  return stop(judgeEnds(extent, at, attested));
}

function judgeRow(logKey: Buffer, previous: Anchor, row: EventRow): LogFault | null {
  if (row.seq !== previous.seq + 1)
    return { seq: previous.seq + 1, fault: 'missing', message: `Event ${previous.seq + 1} is missing` };
  if (row.hash.equals(hashOf(logKey, previous.hash, row))) return null;
  return {
    seq: row.seq,
    fault: 'changed',
    message: `Event ${row.seq} is not what was appended after event ${previous.seq}`,
  };
}

/** Of data that is not even JSON there is no hash that could be right. */
function hashOf(logKey: Buffer, previousHash: Buffer, row: EventRow): Buffer {
  try {
    return chainHash(logKey, previousHash, { ...row, data: JSON.parse(row.data) });
  } catch {
    return Buffer.alloc(0);
  }
}

function anchorOf(row: EventRow): Anchor {
  const { seq, hash } = JSON.parse(row.data) as { seq: number; hash: string };
  return { seq, hash: Buffer.from(hash, 'hex') };
}

const contradicted = (seq: number, which: 'given' | 'stored'): LogFault => ({
  seq,
  fault: 'checkpoint_contradicted',
  message: `Event ${seq} is not the one that the checkpoint ${which} vouches for: the log was rewritten`,
});

function missingAfter({ lastSeq, head }: Extent, seq: number): LogFault {
  if (lastSeq > seq) return { seq: seq + 1, fault: 'missing', message: `Event ${seq + 1} is missing` };
  return {
    seq: seq + 1,
    fault: 'cut',
    message: `The log was cut: the head is at ${head.seq}, and the last event is ${seq}`,
  };
}

/** What the walk itself cannot see: where it began, and whether it ended where the log does. */
function judgeEnds(extent: Extent, at: Anchor, attested: Anchor): LogFault | null {
  const { anchor, head, lastSeq, lastCheckpointSeq } = extent;
  if (lastSeq > head.seq)
    return {
      seq: head.seq + 1,
      fault: 'beyond_head',
      message: `The head is at ${head.seq}, and there are events up to ${lastSeq}`,
    };
  if (!at.hash.equals(head.hash))
    return {
      seq: head.seq,
      fault: 'head',
      message: `The head's hash is not that of event ${head.seq}`,
    };
  if (lastCheckpointSeq > head.seq)
    return {
      seq: head.seq + 1,
      fault: 'cut',
      message: `The log was cut: a checkpoint vouches for events up to ${lastCheckpointSeq}, and the head is at ${head.seq}`,
    };
  if (attested.seq !== anchor.seq || !attested.hash.equals(anchor.hash))
    return {
      seq: anchor.seq,
      fault: 'anchor',
      message: `Events up to ${anchor.seq} are said to be pruned, and no event of the log says so`,
    };
  return null;
}

/** `data` as it is kept: what somebody else wrote there may not be JSON. */
function readRows({ db, tables: { events: e } }: Rows, after: number, upTo: number): Promise<EventRow[]> {
  return db
    .select({
      seq: e.seq,
      id: e.id,
      at: e.at,
      type: e.type,
      actor_kind: e.actor_kind,
      actor_id: e.actor_id,
      object_id: e.object_id,
      subject: e.subject,
      request_id: e.request_id,
      data: sql<string>`${e.data}`,
      hash: e.hash,
    })
    .from(e)
    .where(and(gt(e.seq, after), lte(e.seq, upTo)))
    .orderBy(asc(e.seq));
}

/** The hashes that stored checkpoints vouch for, by sequence; the fault where one of them is none of ours. */
async function readStored(
  { store, signer }: LogDeps,
  extent: Extent,
  after: number,
  upTo: number,
): Promise<{ hashes: ReadonlyMap<number, string>; fault: LogFault | null }> {
  const { eventCheckpoints: c } = store.read.tables;
  const rows = await store.read.db
    .select()
    .from(c)
    .where(and(gt(c.seq, after), lte(c.seq, upTo)))
    .orderBy(asc(c.seq));
  const hashes = new Map<number, string>();
  for (const row of rows) {
    const checkpoint = await readCheckpoint(signer, row.jws);
    if (!checkpoint || !isOfThisLog(extent, checkpoint) || checkpoint.seq !== row.seq) {
      const message = `The checkpoint stored for event ${row.seq} was not signed by this installation`;
      return { hashes, fault: { seq: row.seq, fault: 'checkpoint_forged', message } };
    }
    hashes.set(row.seq, checkpoint.hash);
  }
  return { hashes, fault: null };
}
