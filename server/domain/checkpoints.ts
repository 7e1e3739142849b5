/** Checkpoints: what the log was at an instant, signed, so that whoever keeps one finds out if it is cut or rewritten. */
import { desc, eq } from 'drizzle-orm';
import { openCheckpoint, signCheckpoint } from '../crypto/jwt.ts';
import type { Caller, Deps } from '../deps.ts';
import { change } from './events.ts';
import type { Signer } from './signing-keys.ts';

const CHECKPOINTS: Caller = {
  principal: { kind: 'system', id: 'audit-checkpoint' },
  requestId: 'audit-checkpoint',
};

export interface Checkpoint {
  /** Of the installation: a restored database has another. */
  epoch: string;
  /** The last event there was, and its hash in hex. */
  seq: number;
  hash: string;
  at: number;
}

/**
 * Signs what the log is now, keeps that and appends `log.checkpoint` with it; answers the compact JWS. Null where nothing
 * happened since the last one, whose own event does not count.
 */
export async function makeCheckpoint(deps: Deps): Promise<(Checkpoint & { jws: string }) | null> {
  const head = await readHead(deps);
  const last = await lastCheckpointSeq(deps);
  if (head.seq === last || (head.seq === last + 1 && head.type === 'log.checkpoint')) return null;
  const checkpoint: Checkpoint = {
    epoch: head.epoch,
    seq: head.seq,
    hash: head.hash.toString('hex'),
    at: deps.now(),
  };
  const key = await deps.signer.active();
  const jws = await signCheckpoint(key, JSON.stringify(checkpoint));
  const isFirst = await change(deps, CHECKPOINTS, async (tx) => {
    const { eventCheckpoints: c } = tx.tables;
    const kept = await tx.db
      .insert(c)
      .values({ seq: head.seq, hash: head.hash, at: checkpoint.at, jws })
      .onConflictDoNothing()
      .returning({ seq: c.seq });
    if (kept.length === 0) return { result: false, event: null };
    const data = { seq: head.seq, hash: checkpoint.hash, kid: key.kid, checkpoint: jws };
    return { result: true, event: { type: 'log.checkpoint', objectId: head.epoch, data } };
  });
  return isFirst ? { ...checkpoint, jws } : null;
}

async function readHead({ store }: Deps) {
  const { eventHead: h, events: e, installation: i } = store.read.tables;
  const [head] = await store.read.db
    .select({ seq: h.seq, hash: h.hash, type: e.type, epoch: i.epoch })
    .from(h)
    .innerJoin(i, eq(i.id, h.id))
    .leftJoin(e, eq(e.seq, h.seq));
  if (!head) throw new Error('The log has no head: the database was never set up');
  return head;
}

async function lastCheckpointSeq({ store }: Deps): Promise<number> {
  const { eventCheckpoints: c } = store.read.tables;
  const [last] = await store.read.db.select({ seq: c.seq }).from(c).orderBy(desc(c.seq)).limit(1);
  return last?.seq ?? 0;
}

/** What a checkpoint says, or null where it bears no signature of a key of this installation or is something else. */
export async function readCheckpoint(signer: Pick<Signer, 'find'>, jws: string): Promise<Checkpoint | null> {
  const payload = await openCheckpoint(jws.trim(), signer.find);
  if (!payload) return null;
  const { epoch, seq, hash, at } = payload;
  if (typeof epoch !== 'string' || typeof hash !== 'string') return null;
  if (typeof seq !== 'number' || typeof at !== 'number') return null;
  return { epoch, seq, hash, at };
}
