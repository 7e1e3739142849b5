/** Backups: all that is not for minutes only, at one instant, in one file; and what a restored one begins with. */
import { eq } from 'drizzle-orm';
import { z } from 'zod';
import type { Snapshot, TableName } from '../../db/snapshot.ts';
import type { Rows } from '../../db/store.ts';
import { masterKeyCheck, newKey } from '../crypto/keyring.ts';
import type { Caller, Deps } from '../deps.ts';
import { change } from './events.ts';

export const BACKUP_FORMAT = 1;

/** Of no use to whoever restores: they end with that (threats.md, operation). */
const LEFT_OUT: ReadonlySet<TableName> = new Set([
  'operatorSessions',
  'signInLinks',
  'panelTokens',
  'userSessions',
  'userInvitations',
  'oauthInteractions',
  'oauthCodes',
  'oauthRefreshTokens',
]);

export const backedUp = ({ tables }: Pick<Snapshot, 'tables'>): TableName[] =>
  (Object.keys(tables) as TableName[]).filter((name) => !LEFT_OUT.has(name));

export const backupManifest = z.object({
  format: z.literal(BACKUP_FORMAT),
  /** Milliseconds since 1970-01-01 UTC. */
  madeAt: z.number().int(),
  /** How many migrations its tables have (db/migrations). */
  schema: z.number().int(),
  epoch: z.string(),
  /** The last event in it. */
  seq: z.number().int(),
  eventId: z.string(),
  tables: z.record(z.string(), z.object({ count: z.number().int(), checksum: z.string() })),
});

export type BackupManifest = z.output<typeof backupManifest>;

export type Standing = Pick<BackupManifest, 'epoch' | 'seq' | 'eventId'>;

/** Of what installation a snapshot is, and up to which event. */
export async function standingOf({ db, tables }: Snapshot): Promise<Standing> {
  const [installed] = await db.select({ epoch: tables.installation.epoch }).from(tables.installation);
  const [head] = await db
    .select({ seq: tables.eventHead.seq, id: tables.events.id })
    .from(tables.eventHead)
    .innerJoin(tables.events, eq(tables.events.seq, tables.eventHead.seq));
  if (!installed || !head) throw new Error('The database was never set up');
  return { epoch: installed.epoch, seq: head.seq, eventId: head.id };
}

/** Whether a database is of that installation and has its log up to there. */
export async function holds(
  { db, tables: { installation, events: e } }: Pick<Rows, 'db' | 'tables'>,
  { epoch, seq, eventId }: Standing,
): Promise<boolean> {
  const [installed] = await db.select({ epoch: installation.epoch }).from(installation);
  const [event] = await db.select({ id: e.id }).from(e).where(eq(e.seq, seq));
  return installed?.epoch === epoch && event?.id === eventId;
}

const RESTORE: Caller = { principal: { kind: 'system', id: 'restore' }, requestId: 'restore' };

/**
 * Gives a restored database an epoch of its own, so that nobody takes it for the one it was, and says so in the log.
 * Leases and claims of processes that are gone end.
 */
export async function beginEpoch(
  deps: Pick<Deps, 'store' | 'keyring' | 'now' | 'wake'>,
  masterKey: Buffer,
  { epoch: previousEpoch, seq, madeAt }: BackupManifest,
): Promise<string> {
  const epoch = newKey().toString('hex').slice(0, 16);
  return change(deps as Deps, RESTORE, async (tx) => {
    const { installation, jobs, deliveries } = tx.tables;
    await tx.db.update(installation).set({ epoch, master_key_check: masterKeyCheck(masterKey, epoch) });
    await tx.db.update(jobs).set({ holder: null, lease_expires_at: null });
    await tx.db.update(deliveries).set({ claimed_at: null });
    return {
      result: epoch,
      event: { type: 'installation.restored', objectId: epoch, data: { previousEpoch, seq, madeAt } },
    };
  });
}

/** Which epochs a database had before, each until the event with which it was restored to another. */
export async function earlierEpochs({ db, tables: { events: e } }: Rows): Promise<Map<string, number>> {
  const rows = await db.select({ data: e.data }).from(e).where(eq(e.type, 'installation.restored'));
  return new Map(rows.map(({ data }) => [String(data['previousEpoch']), Number(data['seq'])]));
}
